//! What an edge holds beside its replica and its outbox: one transfer on its way in, whatever it has missed.

use super::{EdgeReplica, HandingIn};
use crate::replication::footprint::Footprint;

impl EdgeReplica {
    /// What this edge holds, without rows that readers may see, writes that wait, writes that are kept, and keys.
    pub fn footprint(&self) -> Footprint {
        // All of it is named, so that whatever is added has to be counted here, or said not to grow.
        let Self {
            feeds,
            incoming,
            stage,
            repair,
            handing_in,
            inbox,
            folding,
            effects,
            calls,
            outputs,
            rows: _,
            outbox: _,
            grace: _,
            grants: _,
            granted: _,
            announced: _,
            state: _,
            epochs: _,
            identity: _,
            rules: _,
            batch_changes_max: _,
            phase: _,
            clock: _,
            hub_offset_ms: _,
            wall_offset_ms: _,
            round_trip_ms: _,
            newest_issue: _,
            next_counter: _,
            shard: _,
            epsilon_ms: _,
            heartbeat_ms: _,
            backlog: _,
            upload_in_flight: _,
            last_batch: _,
            last_repair: _,
            pause_ms: _,
            recovering: _,
            switching: _,
            last_call: _,
            spare: _,
            copied: _,
            reidentifying: _,
            last_heard: _,
            last_sent: _,
            backoff: _,
            broken: _,
        } = self;
        let coming = incoming.iter().flat_map(|incoming| incoming.parts.values());
        let handed_in = match handing_in {
            HandingIn::Nothing | HandingIn::Due { .. } | HandingIn::Recalling { .. } => 0,
            HandingIn::Giving(giving) => giving.left(),
        };
        Footprint {
            feeds: feeds.len(),
            waiting: inbox.len() + folding.len() + effects.len() + calls.len() + outputs.len(),
            entries: coming.map(|part| part.all_rows().count() + part.held_rows.len()).sum::<usize>()
                + stage.values().map(|staged| staged.rows.len()).sum::<usize>()
                + repair.as_ref().map_or(0, |repair| repair.entries())
                + handed_in,
        }
    }
}
