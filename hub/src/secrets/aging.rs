//! New keys for what is sealed from now on, every ninety days, by the process that leads.
//!
//! The keys of before stay, for what was sealed with them. Connected edges are given the new ones before anything comes that
//! needs them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use llm_config_shared::limits::KEY_EPOCH_MS_MAX;
use llm_config_shared::name::Environment;
use llm_config_shared::time::UnixMillis;
use tokio_util::sync::CancellationToken;

use super::{SecretError, SecretStore};
use crate::clock;
use crate::processes::Role;
use crate::registry::Registry;
use crate::writer::WriterHandle;

const LOOK_EVERY: Duration = Duration::from_secs(3_600);

impl<R: Registry> SecretStore<R> {
    /// Begins a new key epoch wherever the newest is too old; how many it were.
    ///
    /// # Errors
    /// When the key or the database is away.
    pub async fn renew_old(&self, now: UnixMillis) -> Result<usize, SecretError> {
        let mut begun = 0;
        for tenant in self.registry.tenants().await? {
            let mut newest: BTreeMap<Environment, UnixMillis> = BTreeMap::new();
            for root in self.registry.roots(&tenant.name).await? {
                let at = newest.entry(root.environment).or_insert(root.created_at);
                *at = root.created_at.max(*at);
            }
            let old = newest.into_iter().filter(|(_, at)| now.0.saturating_sub(at.0) >= KEY_EPOCH_MS_MAX);
            let environments: Vec<Environment> = old.map(|(environment, _)| environment).collect();
            self.begin_epoch(&tenant.name, &environments).await?;
            begun += environments.len();
        }
        Ok(begun)
    }
}

/// Looks for old keys until `stop`, beginning at once. Only the process that leads replaces them.
pub async fn keep_young<R: Registry>(
    secrets: Arc<SecretStore<R>>,
    writer: WriterHandle,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if writer.role() != Role::Leading {
            continue;
        }
        match secrets.renew_old(clock::now()).await {
            Ok(0) => {}
            Ok(environments) => {
                tracing::info!(environments, "new keys for secrets: the last ones were 90 days old")
            }
            Err(error) => tracing::warn!(%error, "old keys for secrets could not be replaced"),
        }
    }
}
