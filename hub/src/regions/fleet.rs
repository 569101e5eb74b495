//! The tables of the fleet (tenants, tokens, edges and what belongs to them), copied from another region.
//!
//! Each connection reads all of that region's rows once and then what changes: so nothing has to be remembered of a region that
//! was restored, on either side.

use std::sync::Arc;
use std::time::Duration;

use llm_config_proto::sync::{Dial, HubsClient, SyncError};
use llm_config_proto::tls::Trust;
use llm_config_shared::store::fleet::Heard;
use llm_config_shared::store::{Journal, JournalError};
use llm_config_shared::vector::ShardId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::pause;
use super::seats::Seats;
use crate::clock;
use crate::identity::Identity;
use crate::identity::ca::CaError;
use crate::processes::Role;
use crate::registry::Registry;
use crate::sync::roster::Roster;
use crate::writer::WriterHandle;

/// From one question to the next, when there was nothing new.
const EVERY: Duration = Duration::from_millis(300);
/// How often it is written down that the home was heard.
const HEARD_EVERY: Duration = Duration::from_secs(5);

/// Why another region's tables were not copied.
#[derive(Debug, thiserror::Error)]
pub enum NotCopied {
    #[error(transparent)]
    Unreachable(#[from] SyncError),
    #[error(transparent)]
    Certificate(#[from] CaError),
    #[error(transparent)]
    Database(#[from] JournalError),
    #[error("it is this very region")]
    Itself,
    #[error(
        "both regions hold themselves to be the one where tokens, edges, environments and policies are changed, and nothing of \
         these is copied: choose one, by `llm-config-hub home --take` there"
    )]
    TwoHomes,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) region: ShardId,
    pub(super) changed: u64,
    /// That region is the home, and all that it has is here.
    pub(super) home: bool,
}

/// A connection to another hub of this certificate authority.
pub(super) async fn connect(
    identity: &Identity,
    process: Uuid,
    address: &str,
) -> Result<HubsClient, NotCopied> {
    let ca = identity.ca();
    let dial = Dial {
        address: address.trim_start_matches("https://").to_owned(),
        trust: Trust::Ca { pem: ca.pem() },
        identity: Some(ca.issue_process(process, clock::now())?),
    };
    Ok(HubsClient::connect(&dial).await?)
}

/// Reads all rows that there are behind `read`, and moves it.
pub(super) async fn read_on<R: Registry>(
    client: &mut HubsClient,
    registry: &R,
    read: &mut u64,
) -> Result<Copied, NotCopied> {
    let mut changed = 0;
    loop {
        let page = client.fleet(*read).await?;
        let known = registry.home().await?;
        let region = page.region;
        if region == known.region {
            return Err(NotCopied::Itself);
        }
        match known.home.hears(page.home) {
            Heard::Agreed => {}
            // It will hear of it from us; until then its rows may be those of a home that does not count any more.
            Heard::Earlier => return Ok(Copied { region, changed, home: false }),
            Heard::Contested => return Err(NotCopied::TwoHomes),
            Heard::Later => {
                if registry.follow_home(page.home).await? {
                    tracing::warn!(
                        home = %page.home.region.0, term = page.home.term, was_here = known.is_here(),
                        "another region decides about tokens, edges, environments and policies from now on"
                    );
                }
                *read = 0;
                continue;
            }
        }
        if page.read < *read {
            *read = 0;
            continue;
        }
        let (more, home) = (page.more, page.home.region == region);
        *read = page.read;
        if !page.rows.is_empty() {
            let taken = registry.take_over_rows(page).await?;
            changed += taken.changed;
            for edge in taken.dropped {
                tracing::error!(
                    edge,
                    "two regions let an edge of this name in: the earlier one has to join again"
                );
            }
        }
        if !more {
            return Ok(Copied { region, changed, home });
        }
    }
}

/// Copies the tables of one other region.
pub struct Copier<S> {
    /// `https://HOST:PORT` of its sync port.
    pub address: String,
    pub store: Arc<S>,
    pub identity: Arc<Identity>,
    /// Edges that were removed there are cut off here.
    pub roster: Arc<Roster>,
    pub writer: WriterHandle,
    /// This process, as its certificates name it.
    pub process: Uuid,
}

impl<S: Journal + Registry> Copier<S> {
    /// Copies until `stop`, while this process leads.
    pub async fn keep(self, stop: CancellationToken) {
        let copying = async {
            let (mut failures, mut contested) = (0_u32, false);
            loop {
                let mut roles = self.writer.roles();
                drop(roles.wait_for(|role| *role == Role::Leading).await);
                if let Err(error) = self.copy(&mut failures).await {
                    let two_homes = matches!(error, NotCopied::TwoHomes);
                    // Also where the region could not be reached before: somebody has to choose.
                    if failures == 0 || two_homes != contested {
                        self.tell(&error);
                    }
                    contested = two_homes;
                    metrics::counter!("region_failures_total").increment(1);
                    failures += 1;
                }
                tokio::time::sleep(pause(failures)).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = copying => {}
        }
    }

    fn tell(&self, error: &NotCopied) {
        let region = &self.address;
        if matches!(error, NotCopied::TwoHomes) {
            tracing::error!(region, %error, "two regions are not one fleet");
        } else {
            tracing::warn!(region, %error, "tokens, edges and policies of another region cannot be copied now");
        }
    }

    /// Over one connection, until that fails or another process leads. Once it works, `failures` are over.
    async fn copy(&self, failures: &mut u32) -> Result<(), NotCopied> {
        let mut client = connect(&self.identity, self.process, &self.address).await?;
        let (mut read, mut heard, mut seats) = (0, None::<Instant>, Seats::default());
        while self.writer.role() == Role::Leading {
            let copied = read_on(&mut client, &*self.store, &mut read).await?;
            *failures = 0;
            if copied.changed > 0 {
                metrics::counter!("region_fleet_rows_total").increment(copied.changed);
                self.roster.recheck();
            }
            if copied.home && heard.is_none_or(|at| at.elapsed() >= HEARD_EVERY) {
                self.store.heard_home(&self.address, clock::now()).await?;
                heard = Some(Instant::now());
            }
            seats.hear(&mut client, &*self.store, &self.roster, &self.address).await?;
            tokio::time::sleep(EVERY).await;
        }
        Ok(())
    }
}
