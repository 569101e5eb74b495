//! Edges that are connected to another region: shown as connected here too, with what they have of this region's order.

use std::collections::BTreeMap;
use std::time::Duration;

use llm_config_proto::sync::HubsClient;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::Journal;
use llm_config_shared::store::fleet::Marks;
use tokio::time::Instant;

use super::fleet::NotCopied;
use crate::clock;
use crate::registry::Registry;
use crate::sync::roster::Roster;

const EVERY: Duration = Duration::from_secs(5);

/// What one region said so far, over one connection.
#[derive(Default)]
pub(super) struct Seats {
    marks: Marks,
    heard: Option<Instant>,
}

impl Seats {
    /// Asks again, when it is time.
    pub(super) async fn hear<S: Journal + Registry>(
        &mut self,
        client: &mut HubsClient,
        store: &S,
        roster: &Roster,
        address: &str,
    ) -> Result<(), NotCopied> {
        if self.heard.is_some_and(|at| at.elapsed() < EVERY) {
            return Ok(());
        }
        self.heard = Some(Instant::now());
        let head = store.head().await?;
        let said = client.seats(head.shard).await?;
        // A region that was set back has places that are not given yet: what others have of those says nothing.
        self.marks.note(said.head, if said.has <= head.position.seq { said.has } else { 0 });
        let there: BTreeMap<ActorId, u64> = said
            .edges
            .into_iter()
            .map(|(edge, acknowledged)| (edge, self.marks.ours(acknowledged)))
            .collect();
        let now = clock::now();
        let seen: Vec<_> = there.iter().map(|(edge, has)| (*edge, now, *has)).collect();
        store.touch_edges_elsewhere(&seen).await?;
        roster.heard_in_region(address, there.into_keys().collect());
        Ok(())
    }
}
