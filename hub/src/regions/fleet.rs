//! The tables of the fleet (tenants, tokens, edges and what belongs to them), copied from another region.
//!
//! Each connection reads all of that region's rows once and then what changes: so nothing has to be remembered of a region that
//! was restored, on either side.

use std::sync::Arc;
use std::time::Duration;

use llm_config_proto::sync::{HubsClient, SyncError};
use llm_config_shared::store::fleet::Heard;
use llm_config_shared::store::{Journal, JournalError};
use llm_config_shared::vector::ShardId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::peer::{self, Failures, NotConnected, Peer};
use super::seats::Seats;
use crate::clock;
use crate::identity::Identity;
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
    Unconnected(#[from] NotConnected),
    #[error(transparent)]
    Unreachable(#[from] SyncError),
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
        peer::keep(Copying { copier: self, contested: false }, stop).await;
    }
}

/// A copier, and whether it found two homes when it failed last.
struct Copying<S> {
    copier: Copier<S>,
    contested: bool,
}

impl<S: Journal + Registry> Peer for Copying<S> {
    type Error = NotCopied;

    fn writer(&self) -> &WriterHandle {
        &self.copier.writer
    }

    async fn keep_up(&mut self, failures: &mut Failures) -> Result<(), NotCopied> {
        let Copier { address, store, identity, roster, writer, process } = &self.copier;
        let mut client = peer::connect(identity, *process, address).await?;
        let (mut read, mut heard, mut seats) = (0, None::<Instant>, Seats::default());
        while writer.role() == Role::Leading {
            let copied = read_on(&mut client, &**store, &mut read).await?;
            failures.are_over();
            if copied.changed > 0 {
                metrics::counter!("region_fleet_rows_total").increment(copied.changed);
                roster.recheck();
            }
            if copied.home && heard.is_none_or(|at| at.elapsed() >= HEARD_EVERY) {
                store.heard_home(address, clock::now()).await?;
                heard = Some(Instant::now());
            }
            seats.hear(&mut client, &**store, roster, address).await?;
            tokio::time::sleep(EVERY).await;
        }
        Ok(())
    }

    fn tell(&mut self, error: &NotCopied, first: bool) {
        let two_homes = matches!(error, NotCopied::TwoHomes);
        let region = &self.copier.address;
        // Also where the region could not be reached before: somebody has to choose.
        match (two_homes, first || two_homes != self.contested) {
            (_, false) => {}
            (true, true) => tracing::error!(region, %error, "two regions are not one fleet"),
            (false, true) => {
                tracing::warn!(region, %error, "tokens, edges and policies of another region cannot be copied now");
            }
        }
        self.contested = two_homes;
    }
}
