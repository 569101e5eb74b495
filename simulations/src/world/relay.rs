//! A hostile relay on the way to the edges: it repeats what it saw, late and under other numbers, and gives one edge
//! what it saw on the way to another. It cannot sign.

use llm_config_shared::feed::Feed;
use llm_config_shared::replication::frame::HubFrame;
use llm_config_shared::segment::{verify, verify_checkpoint};
use rand::RngExt;

use super::{Event, World};
use crate::network::{Down, Parcel, StreamId};

/// So many frames are remembered for each edge.
const MEMORY_MAX: usize = 80;

/// What was seen on the way to each edge.
#[derive(Debug)]
pub(super) struct Relay {
    seen: Vec<Vec<HubFrame>>,
}

impl Relay {
    pub(super) fn new(edges: usize) -> Self {
        Self { seen: vec![Vec::new(); edges] }
    }

    /// A frame of a transfer passes.
    pub(super) fn overhears(&mut self, edge: usize, _stream: StreamId, frame: &HubFrame) {
        let transfer = match frame {
            HubFrame::Segment { .. } | HubFrame::Checkpoint { .. } | HubFrame::End { .. } => true,
            HubFrame::Welcome(_)
            | HubFrame::Refused { .. }
            | HubFrame::UploadResult { .. }
            | HubFrame::Taken { .. }
            | HubFrame::OfflineLimit(_)
            | HubFrame::Grants(_)
            | HubFrame::Reply { .. }
            | HubFrame::Repair { .. } => false,
        };
        if transfer {
            let seen = &mut self.seen[edge];
            seen.push(frame.clone());
            if seen.len() > MEMORY_MAX {
                seen.remove(0);
            }
        }
    }
}

fn transfer_of(frame: &HubFrame) -> Option<u64> {
    match frame {
        HubFrame::Segment { transfer, .. }
        | HubFrame::Checkpoint { transfer, .. }
        | HubFrame::End { transfer, .. } => Some(*transfer),
        HubFrame::Welcome(_)
        | HubFrame::Refused { .. }
        | HubFrame::UploadResult { .. }
        | HubFrame::Taken { .. }
        | HubFrame::OfflineLimit(_)
        | HubFrame::Grants(_)
        | HubFrame::Reply { .. }
        | HubFrame::Repair { .. } => None,
    }
}

fn relabelled(frame: &HubFrame, to: u64) -> HubFrame {
    match frame {
        HubFrame::Segment { bytes, .. } => HubFrame::Segment { transfer: to, bytes: bytes.clone() },
        HubFrame::Checkpoint { bytes, .. } => HubFrame::Checkpoint { transfer: to, bytes: bytes.clone() },
        HubFrame::End { feeds, .. } => HubFrame::End { transfer: to, feeds: *feeds },
        other @ (HubFrame::Welcome(_)
        | HubFrame::Refused { .. }
        | HubFrame::UploadResult { .. }
        | HubFrame::Taken { .. }
        | HubFrame::OfflineLimit(_)
        | HubFrame::Grants(_)
        | HubFrame::Reply { .. }
        | HubFrame::Repair { .. }) => other.clone(),
    }
}

impl World {
    /// The relay does something to a random edge that is connected.
    pub(super) fn relay_acts(&mut self) {
        let edge = self.rng.random_range(0..self.edges.len());
        let Some(stream) = self.edges[edge].stream else { return };
        let current = self.network.stream(stream).map_or(0, |stream| stream.transfer);
        match self.rng.random_range(0..10) {
            0..4 => self.one_late_frame(edge, stream, current),
            4..7 => self.whole_transfer_again(edge, stream, current),
            _ => self.transfer_of_another(edge, stream, current),
        }
    }

    fn one_late_frame(&mut self, edge: usize, stream: StreamId, current: u64) {
        let seen = &self.relay.seen[edge];
        if seen.is_empty() {
            return;
        }
        let frame = seen[self.rng.random_range(0..seen.len())].clone();
        let number = match self.rng.random_range(0..4) {
            0 => 0,
            1 => current,
            2 => current + 1,
            _ => transfer_of(&frame).unwrap_or(0),
        };
        self.stats.count("late segments");
        self.inject(stream, vec![relabelled(&frame, number)]);
    }

    /// Everything of one earlier transfer, as if it were the newest.
    fn whole_transfer_again(&mut self, edge: usize, stream: StreamId, current: u64) {
        let seen = &self.relay.seen[edge];
        let ends: Vec<usize> = seen
            .iter()
            .enumerate()
            .filter(|(_, f)| matches!(f, HubFrame::End { .. }))
            .map(|(n, _)| n)
            .collect();
        if ends.is_empty() {
            return;
        }
        let end = ends[self.rng.random_range(0..ends.len())];
        let number = transfer_of(&seen[end]);
        let begin = seen[..end].iter().rposition(|frame| transfer_of(frame) != number).map_or(0, |at| at + 1);
        let to = current + self.rng.random_range(1..3);
        let frames: Vec<HubFrame> = seen[begin..=end].iter().map(|frame| relabelled(frame, to)).collect();
        self.stats.count("replayed transfers");
        self.inject(stream, frames);
    }

    /// One feed of what another edge received, with an end that the relay makes up.
    fn transfer_of_another(&mut self, edge: usize, stream: StreamId, current: u64) {
        let other = self.rng.random_range(0..self.edges.len());
        let mine: Vec<Feed> = self.edges[edge].view.feeds.keys().cloned().collect();
        let keys = self.signer.keys();
        let feed_of = |frame: &HubFrame| match frame {
            HubFrame::Segment { bytes, .. } => {
                verify(bytes, &keys).ok().map(|seen| seen.header().feed.clone())
            }
            HubFrame::Checkpoint { bytes, .. } => verify_checkpoint(bytes, &keys).ok().map(|seen| seen.feed),
            HubFrame::End { .. }
            | HubFrame::Welcome(_)
            | HubFrame::Refused { .. }
            | HubFrame::UploadResult { .. }
            | HubFrame::Taken { .. }
            | HubFrame::OfflineLimit(_)
            | HubFrame::Grants(_)
            | HubFrame::Reply { .. }
            | HubFrame::Repair { .. } => None,
        };
        let seen = &self.relay.seen[other];
        let Some(last) = seen.iter().rposition(|frame| {
            matches!(frame, HubFrame::Checkpoint { .. }) && feed_of(frame).is_some_and(|f| mine.contains(&f))
        }) else {
            return;
        };
        let feed = feed_of(&seen[last]);
        let begin = seen[..last]
            .iter()
            .rposition(|frame| !matches!(frame, HubFrame::Segment { .. }) || feed_of(frame) != feed);
        let alone = self.rng.random_range(0..3) == 0;
        let to = if alone { 0 } else { current + 1 };
        let begin = if alone { last } else { begin.map_or(0, |at| at + 1) };
        let mut frames: Vec<HubFrame> =
            seen[begin..=last].iter().map(|frame| relabelled(frame, to)).collect();
        if !alone {
            frames.push(HubFrame::End { transfer: to, feeds: 1 });
        }
        self.stats.count("transfers of another edge");
        self.inject(stream, frames);
    }

    /// The frames arrive before whatever is on its way.
    fn inject(&mut self, stream: StreamId, frames: Vec<HubFrame>) {
        self.tamper(stream);
        // Ends are not signed: who makes one up can let one feed move without the others.
        let ends = frames.iter().any(|frame| matches!(frame, HubFrame::End { .. }));
        if let (true, Some(edge)) = (ends, self.network.stream(stream).map(|stream| stream.edge)) {
            self.edges[edge].foreign = true;
        }
        for frame in frames {
            self.stats.count("duplicated segments");
            let down = Box::new(Down { frame, to_seq: None, injected: true });
            self.schedule(0, Event::Arrives { stream, parcel: Parcel::Down(down) });
        }
    }
}
