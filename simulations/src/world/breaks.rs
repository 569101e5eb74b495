//! Streams and edges that end in the middle of a transfer of several segments.

use llm_config_shared::replication::frame::HubFrame;
use llm_config_shared::segment::verify;
use rand::RngExt;

use super::{Event, World};
use crate::invariants::Check;
use crate::network::{Parcel, StreamId};

/// Of a hundred segments of large transfers so many are the last that arrives.
const BREAKS_PERCENT: u32 = 8;

impl World {
    /// Behind this segment, which is not the last of its part, the stream may end; now and then the edge's power does, too.
    pub(super) fn may_break_behind(&mut self, stream: StreamId, edge: usize, frame: &HubFrame) {
        let HubFrame::Segment { bytes, .. } = frame else { return };
        if !self.chance(BREAKS_PERCENT) {
            return;
        }
        let verified = verify(bytes, &self.signer.keys());
        if verified.is_ok_and(|verified| verified.header().chunk + 1 == verified.header().chunks) {
            return;
        }
        self.stats.count("streams that broke within a part");
        self.send(stream, Parcel::ClosedDown);
        let after = self.latency();
        self.schedule(after, Event::Arrives { stream, parcel: Parcel::ClosedUp });
        if self.chance(40) {
            let (after, life) = (self.rng.random_range(0..60), self.edges[edge].life);
            self.schedule(after, Event::PowerFails { edge, life });
        }
    }

    pub(super) fn power_fails(&mut self, edge: usize, life: u32) -> Check {
        if self.edges[edge].life != life {
            return Ok(());
        }
        self.crash_edge(edge);
        self.start_edge(edge, life)
    }
}
