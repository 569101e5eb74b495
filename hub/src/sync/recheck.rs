//! What was changed about connected edges: removed ones are cut off, others are told to subscribe anew or get new keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use llm_config_shared::feed::{Environments, Feed};
use llm_config_shared::name::{Environment, Tenant};
use llm_config_shared::replication::frame::Refusal;
use llm_config_shared::replication::hub::Profile;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::JournalError;

use super::roster::{Roster, Seated};
use super::service::profile;
use crate::registry::{Edge, Registry, WrappedRoot};

/// How often it is looked at, for what other processes of the hub changed. A removed edge is cut off within this time.
pub(super) const EVERY: Duration = Duration::from_secs(2);

/// Compares all connected edges with the registry.
///
/// # Errors
/// When the registry cannot be read; nobody was told anything wrong.
pub(super) async fn recheck<R: Registry>(roster: &Roster, registry: &R) -> Result<(), JournalError> {
    let seated = roster.seated();
    let tenants: BTreeSet<Tenant> = seated.iter().map(|(_, seated)| seated.edge.tenant.clone()).collect();
    for tenant in tenants {
        let environments = registry.environments(&tenant).await?;
        let roots = registry.roots(&tenant).await?;
        let limits = Arc::new(registry.offline_limits(&tenant).await?);
        let edges: BTreeMap<ActorId, Edge> =
            registry.edges(&tenant).await?.into_iter().map(|edge| (edge.id, edge)).collect();
        for (number, seated) in seated.iter().filter(|(_, seated)| seated.edge.tenant == tenant) {
            let close = judge(seated, edges.get(&seated.edge.id), &environments);
            let epochs = key_epochs(&seated.profile.feeds, &roots);
            roster.tell(seated.edge.id, *number, |notice| {
                let limited = notice.limits.as_ref() != Some(&limits);
                let changed = close.is_some() || epochs > notice.key_epochs || limited;
                notice.close = notice.close.take().or(close);
                notice.key_epochs = notice.key_epochs.max(epochs);
                notice.limits = Some(Arc::clone(&limits));
                changed
            });
        }
    }
    Ok(())
}

fn judge(seated: &Seated, now: Option<&Edge>, environments: &Environments) -> Option<Refusal> {
    match now {
        Some(edge) if edge.removed_at.is_none() => {
            let same = same_profile(&profile(edge, environments.clone()), &seated.profile)
                && edge.sealing_key == seated.edge.sealing_key;
            (!same).then_some(Refusal::Resubscribe)
        }
        Some(_) | None => Some(Refusal::Removed),
    }
}

fn same_profile(a: &Profile, b: &Profile) -> bool {
    a.feeds == b.feeds
        && a.environments == b.environments
        && a.default_environment == b.default_environment
        && a.write == b.write
}

/// The newest key epochs of the environments that come with secrets, added up: it rises when a new one begins.
/// An environment without a key counts like one with its first, because that is made when it is first handed out.
pub(super) fn key_epochs(feeds: &[Feed], roots: &[WrappedRoot]) -> u64 {
    let environments: BTreeSet<_> =
        feeds.iter().filter(|feed| feed.secrets).map(|feed| &feed.environment).collect();
    let newest = |environment: &Environment| {
        let of_environment = roots.iter().filter(|root| root.environment == *environment);
        of_environment.map(|root| root.key_epoch).max().unwrap_or(1)
    };
    environments.into_iter().map(newest).sum()
}
