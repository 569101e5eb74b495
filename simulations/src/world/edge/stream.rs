//! An edge's end of a stream: opened, heard on, closed, tampered with.

use llm_config_shared::replication::edge::Input;
use llm_config_shared::replication::frame::HubFrame;
use rand::RngExt;

use crate::invariants::Check;
use crate::network::{Down, Parcel, StreamId};
use crate::world::{Event, World};

impl World {
    /// The edge gives its stream up. A crash says nothing to the other end.
    pub(super) fn drop_stream(&mut self, edge: usize, silent: bool) {
        self.edges[edge].attempts += 1;
        let Some(stream) = self.edges[edge].stream.take() else { return };
        if let Some(open) = self.network.stream_mut(stream) {
            open.edge_open = false;
        }
        let half_open = silent && self.chance(40);
        if half_open {
            self.stats.count("half-open streams");
        } else {
            self.send(stream, Parcel::ClosedUp);
        }
        self.network.sweep(stream);
    }

    pub(super) fn connect(&mut self, edge: usize) {
        let leader = self.true_leader();
        let hub = match leader {
            Some(leader) if self.rng.random_range(0..100) < 40 => leader,
            Some(_) | None => self.rng.random_range(0..self.hubs.len()),
        };
        self.edges[edge].attempts += 1;
        let attempt = self.edges[edge].attempts;
        let (edge_life, hub_life) = (self.edges[edge].life, self.hubs[hub].life);
        let after = self.latency();
        if !self.hubs[hub].up || !self.network.reaches(edge, hub) {
            return self.schedule(after + 50, Event::OpenFailed { edge, life: edge_life, attempt });
        }
        if !self.is_astray(edge) {
            self.was_told_what_it_shows(edge);
        }
        let stream = self.network.open(edge, edge_life, hub, hub_life);
        self.edges[edge].stream = Some(stream);
        self.schedule(after, Event::Opened { stream });
    }

    /// An attempt that was given up meanwhile, for a file or another attempt, is nobody's any more.
    pub(in crate::world) fn open_failed(&mut self, edge: usize, life: u32, attempt: u64) -> Check {
        let host = &self.edges[edge];
        let current = host.life == life && host.attempts == attempt;
        if current { self.edge_input(edge, Input::Disconnected) } else { Ok(()) }
    }

    pub(in crate::world) fn opened(&mut self, id: StreamId) -> Check {
        let Some(stream) = self.network.stream(id).cloned() else { return Ok(()) };
        let (edge, hub) = (stream.edge, stream.hub);
        let mine = stream.edge_open && self.edges[edge].stream == Some(id);
        let there = self.hubs[hub].up && self.hubs[hub].life == stream.hub_life;
        if !mine || !there || !self.network.reaches(edge, hub) {
            self.network.cut(id);
            return if mine { self.edge_closed(id) } else { Ok(()) };
        }
        if let Some(stream) = self.network.stream_mut(id) {
            stream.hub_open = true;
        }
        self.trace.write(self.now, format_args!("stream {id}: edge {edge} to hub {hub}"));
        self.hub_accepts(id, edge, hub)?;
        let spare = self.rng.random_range(1..1 << 62);
        self.edge_input(edge, Input::Connected { spare })
    }

    pub(in crate::world) fn edge_closed(&mut self, id: StreamId) -> Check {
        let Some(stream) = self.network.stream_mut(id) else { return Ok(()) };
        let edge = stream.edge;
        stream.edge_open = false;
        self.network.sweep(id);
        if self.edges[edge].stream != Some(id) {
            return Ok(());
        }
        self.edges[edge].stream = None;
        self.edge_input(edge, Input::Disconnected)
    }

    pub(in crate::world) fn edge_hears(&mut self, id: StreamId, down: Down) -> Check {
        let Some(stream) = self.network.stream(id) else { return Ok(()) };
        let edge = stream.edge;
        if self.edges[edge].stream != Some(id) {
            return Ok(());
        }
        if !down.injected {
            if let Some(seq) = down.to_seq {
                let excuse =
                    matches!(&down.frame, HubFrame::Welcome(welcome) if welcome.lost_history.is_some());
                if !excuse {
                    self.check_told(edge, seq)?;
                }
                self.edges[edge].heard = self.edges[edge].heard.max(seq);
            }
            self.relay.overhears(edge, id, &down.frame);
        }
        let welcome = match &down.frame {
            HubFrame::Welcome(_) => down.to_seq,
            HubFrame::Refused { .. }
            | HubFrame::UploadResult { .. }
            | HubFrame::Taken { .. }
            | HubFrame::OfflineLimit(_)
            | HubFrame::Grants(_)
            | HubFrame::Segment { .. }
            | HubFrame::Checkpoint { .. }
            | HubFrame::End { .. }
            | HubFrame::Reply { .. }
            | HubFrame::Repair { .. } => None,
        };
        let result = self.edge_input(edge, Input::Frame(down.frame));
        if let Some(seq) = welcome {
            let disk = &self.edges[edge].disk;
            let durable_at = disk.synced() + disk.waiting() as u64;
            self.edges[edge].told_soon.push((durable_at, seq));
        }
        result
    }

    /// A relay has said something on the edge's stream.
    pub(super) fn is_tampered(&self, edge: usize) -> bool {
        let stream = self.edges[edge].stream.and_then(|stream| self.network.stream(stream));
        stream.is_none_or(|stream| stream.tampered)
    }

    pub(in crate::world) fn tamper(&mut self, stream: StreamId) {
        if let Some(stream) = self.network.stream_mut(stream) {
            stream.tampered = true;
        }
    }
}
