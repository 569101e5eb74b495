//! Streams between edges and hub processes: ordered each, in no order among each other, and every one may break.

use std::collections::{BTreeMap, BTreeSet};

use llm_config_shared::replication::frame::{EdgeFrame, HubFrame};

/// A stream's number; never used twice.
pub type StreamId = u64;

/// One direction of a stream.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// When the last thing sent arrives: nothing overtakes it.
    last_at: u64,
    /// Nothing arrives any more, and nobody says so.
    cut: bool,
    /// Frames of the hub that were sent and have not arrived.
    on_the_way: usize,
}

/// A connection of one edge to one hub process.
#[derive(Clone, Debug)]
pub struct Stream {
    pub edge: usize,
    pub edge_life: u32,
    pub hub: usize,
    pub hub_life: u32,
    up: Lane,
    down: Lane,
    /// Whether each end believes in it.
    pub edge_open: bool,
    pub hub_open: bool,
    /// A relay has added frames of its own.
    pub tampered: bool,
    /// The newest transfer that went down.
    pub transfer: u64,
}

impl Stream {
    /// How many frames the hub has sent that have not arrived: what its end holds for an edge that reads slowly.
    pub fn on_the_way(&self) -> usize {
        self.down.on_the_way
    }
}

/// A frame on its way down, with what the simulator knows of it.
#[derive(Clone, Debug)]
pub struct Down {
    pub frame: HubFrame,
    /// How far the hub says it has come in this frame.
    pub to_seq: Option<u64>,
    /// A relay made this up from what it saw before.
    pub injected: bool,
}

/// What travels.
#[derive(Clone, Debug)]
pub enum Parcel {
    Up(EdgeFrame),
    Down(Box<Down>),
    /// The other end has closed, or the connection was reset.
    ClosedUp,
    ClosedDown,
}

/// All streams, and who cannot reach whom.
#[derive(Debug, Default)]
pub struct Network {
    streams: BTreeMap<StreamId, Stream>,
    partitions: BTreeSet<(usize, usize)>,
    last: StreamId,
}

impl Network {
    /// A new stream; both ends learn of it later.
    pub fn open(&mut self, edge: usize, edge_life: u32, hub: usize, hub_life: u32) -> StreamId {
        self.last += 1;
        let stream = Stream {
            edge,
            edge_life,
            hub,
            hub_life,
            up: Lane::default(),
            down: Lane::default(),
            edge_open: true,
            hub_open: false,
            tampered: false,
            transfer: 0,
        };
        self.streams.insert(self.last, stream);
        self.last
    }

    pub fn stream(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(&id)
    }

    pub fn stream_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(&id)
    }

    /// When something sent now arrives, if it will. Order within the direction is kept.
    pub fn arrival(&mut self, id: StreamId, parcel: &Parcel, now: u64, latency: u64) -> Option<u64> {
        let stream = self.streams.get_mut(&id)?;
        let lane = match parcel {
            Parcel::Up(_) | Parcel::ClosedUp => &mut stream.up,
            Parcel::Down(_) | Parcel::ClosedDown => &mut stream.down,
        };
        lane.last_at = lane.last_at.max(now + latency);
        let is_frame = matches!(parcel, Parcel::Down(_));
        lane.on_the_way += usize::from(is_frame && !lane.cut);
        (!lane.cut).then_some(lane.last_at)
    }

    /// What is sent to the edge from now on does not arrive before this.
    pub fn holds_up(&mut self, id: StreamId, until: u64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.down.last_at = stream.down.last_at.max(until);
        }
    }

    /// Something that was sent has come to the other end, or would have.
    pub fn leaves(&mut self, id: StreamId, parcel: &Parcel) {
        match (self.streams.get_mut(&id), parcel) {
            (Some(stream), Parcel::Down(down)) if !down.injected => stream.down.on_the_way -= 1,
            _ => {}
        }
    }

    /// Whether what is on its way still arrives.
    pub fn delivers(&self, id: StreamId, parcel: &Parcel) -> bool {
        let Some(stream) = self.streams.get(&id) else { return false };
        match parcel {
            Parcel::Up(_) => stream.hub_open && !stream.up.cut,
            Parcel::Down(_) => stream.edge_open && !stream.down.cut,
            Parcel::ClosedUp => stream.hub_open,
            Parcel::ClosedDown => stream.edge_open,
        }
    }

    /// Everything on its way is lost, and nothing more gets through.
    pub fn cut(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.up.cut = true;
            stream.down.cut = true;
        }
    }

    /// Forgets streams that both ends have given up.
    pub fn sweep(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|stream| !stream.edge_open && !stream.hub_open) {
            self.streams.remove(&id);
        }
    }

    /// Streams that somebody still believes in.
    pub fn ids(&self) -> Vec<StreamId> {
        self.streams.keys().copied().collect()
    }

    /// The edge and the hub process do not reach one another from now on.
    pub fn partition(&mut self, edge: usize, hub: usize) {
        self.partitions.insert((edge, hub));
        let between = |stream: &&mut Stream| stream.edge == edge && stream.hub == hub;
        for stream in self.streams.values_mut().filter(between) {
            stream.up.cut = true;
            stream.down.cut = true;
        }
    }

    /// They do again; streams that were cut stay so.
    pub fn heal(&mut self, edge: usize, hub: usize) {
        self.partitions.remove(&(edge, hub));
    }

    pub fn reaches(&self, edge: usize, hub: usize) -> bool {
        !self.partitions.contains(&(edge, hub))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_keeps_its_order_and_a_cut_one_is_silent() {
        let mut network = Network::default();
        let id = network.open(0, 1, 0, 1);
        let parcel = Parcel::Up(EdgeFrame::Ask);
        assert_eq!(network.arrival(id, &parcel, 10, 50), Some(60));
        assert_eq!(network.arrival(id, &parcel, 20, 5), Some(60));
        assert!(!network.delivers(id, &parcel), "the hub has not accepted it");
        network.stream_mut(id).unwrap().hub_open = true;
        assert!(network.delivers(id, &parcel));
        network.partition(0, 0);
        assert!(!network.reaches(0, 0) && !network.delivers(id, &parcel));
        assert_eq!(network.arrival(id, &parcel, 70, 5), None);
    }
}
