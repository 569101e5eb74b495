//! What everybody holds for others, looked at after every step.

use super::World;
use crate::invariants::{Check, memory};

impl World {
    pub(super) fn check_memory(&mut self) -> Check {
        // What a hub has lost may still be on its way to edges.
        self.most_entries = self.most_entries.max(self.truth.current.len());
        let entries = self.most_entries;
        for (stream, host) in self.hubs.iter().flat_map(|hub| &hub.sessions) {
            let feeds = host.feeds.len();
            // A list for a repair names each twice: by its hash and by what the edge may hold.
            memory::session(host.edge, host.session.footprint(), feeds, 2 * entries)?;
            let unread = self.network.stream(*stream).map_or(0, |stream| stream.on_the_way());
            // An edge that subscribes anew before it has read a transfer is sent another.
            memory::stream(host.edge, unread, 2 * self.transfer_frames_max(feeds))?;
        }
        for (edge, host) in self.edges.iter().enumerate() {
            // What a relay makes up comes on top of what a hub sends.
            let Some(replica) = host.replica.as_ref().filter(|_| !host.foreign) else { continue };
            let held = replica.footprint();
            let beside = replica.kept() + host.rotten.len();
            // What goes on with a part that broke off may bring once more what had come of it.
            memory::edge(edge, held, self.transfer_frames_max(held.feeds), 2 * entries + beside)?;
        }
        Ok(())
    }

    /// So many frames bring everything there is, if each comes twice, as now and then one does.
    fn transfer_frames_max(&self, feeds: usize) -> usize {
        2 * (2 * feeds + self.most_entries / self.segment_rows_max + 2)
    }
}
