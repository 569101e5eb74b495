//! Which edges are connected to other processes of the hub: each says so of its own every few seconds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::JournalError;
use llm_config_shared::time::UnixMillis;
use uuid::Uuid;

use super::listener::every;
use super::roster::Roster;
use crate::clock;
use crate::processes::Processes;

const SAY_EVERY: Duration = Duration::from_secs(5);
/// What a process said is believed for so long: it has missed two times then.
const BELIEVED_MS: u64 = 15_000;

/// What this process has said so far.
struct Said {
    process: Uuid,
    edges: BTreeSet<ActorId>,
    at: UnixMillis,
}

/// Says and hears until it is dropped.
pub(super) async fn exchange<P: Processes>(roster: Arc<Roster>, processes: Arc<P>) {
    if !P::SHARED {
        return;
    }
    let mut said = Said { process: Uuid::new_v4(), edges: BTreeSet::new(), at: UnixMillis(0) };
    let mut ticks = every(SAY_EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = said.round(&roster, &*processes, clock::now()).await {
            tracing::debug!(%error, "the hub's processes cannot tell one another which edges are connected");
        }
    }
}

impl Said {
    async fn round<P: Processes>(
        &mut self,
        roster: &Roster,
        processes: &P,
        now: UnixMillis,
    ) -> Result<(), JournalError> {
        // Whoever was silent for long may have been forgotten.
        if now.0.saturating_sub(self.at.0) > BELIEVED_MS {
            self.edges.clear();
        }
        let edges: BTreeSet<ActorId> = roster.edges();
        let came: Vec<ActorId> = edges.difference(&self.edges).copied().collect();
        let went: Vec<ActorId> = self.edges.difference(&edges).copied().collect();
        processes.say_seats(self.process, &came, &went, now).await?;
        (self.edges, self.at) = (edges, now);
        let since = UnixMillis(now.0.saturating_sub(BELIEVED_MS));
        roster.heard_elsewhere(processes.seats_elsewhere(self.process, since).await?);
        Ok(())
    }
}
