//! Files at an edge: one that is brought, frame by frame, and one that it makes.

use std::collections::VecDeque;

use llm_config_shared::replication::edge::{Carried, Exported, Input, NotTaken};
use llm_config_shared::replication::frame::HubFrame;
use llm_config_shared::segment::Rejected;
use llm_config_shared::store::Journal as _;
use llm_config_shared::vector::Vector;
use rand::RngExt;

use crate::invariants::{Check, Violation, floor};
use crate::journal::ready;
use crate::world::sticks::ThereFile;
use crate::world::{Event, World};

/// A file that an edge is just taking in.
#[derive(Debug)]
pub(in crate::world) struct Carrying {
    /// How far its hub had come.
    seq: u64,
    head: Vector,
    frames: VecDeque<HubFrame>,
}

impl World {
    /// Files are for who cannot be reached: mostly somebody comes where that is so, or makes it so.
    pub(in crate::world) fn goes_out_of_reach(&mut self, edge: usize) -> Check {
        let connected = self.edges[edge].replica.as_ref().is_some_and(|replica| replica.is_connected());
        if !connected || self.rng.random_range(0..5) == 0 {
            return Ok(());
        }
        let lasts = self.rng.random_range(500..20_000);
        for hub in 0..self.hubs.len() {
            self.network.partition(edge, hub);
            self.schedule(lasts, Event::Heal { edge, hub });
        }
        self.edges[edge].stream.map_or(Ok(()), |stream| self.edge_closed(stream))
    }

    /// As the daemon does it: in the place of a connection, of which there is none, or only an attempt.
    pub(in crate::world) fn takes_file(&mut self, edge: usize, file: ThereFile) -> Check {
        let host = &self.edges[edge];
        let Some(replica) = &host.replica else { return Ok(()) };
        if replica.is_connected() || host.carrying.is_some() {
            self.stats.count("files brought to who is connected");
            return Ok(());
        }
        self.trace.write(self.now, format_args!("edge {edge} is brought a file as of {}", file.seq));
        self.drop_stream(edge, false);
        self.edge_input(edge, Input::Disconnected)?;
        let host = &mut self.edges[edge];
        let handed_over = host.disk.synced() + host.disk.waiting() as u64;
        host.carrying =
            Some(Carrying { seq: file.seq, head: file.there.welcome.head.clone(), frames: file.frames() });
        let carried = Carried { from: file.there.from, welcome: file.there.welcome };
        self.edge_input(edge, Input::Carried(Box::new(carried)))?;
        let host = &mut self.edges[edge];
        let durable_at = host.disk.synced() + host.disk.waiting() as u64;
        if host.carrying.is_some() {
            host.heard = host.heard.max(file.seq);
            host.told_soon.push((durable_at, file.seq));
            self.next_of_file(edge);
        } else if durable_at != handed_over {
            let detail = format!("edge {edge} keeps something of a file that it does not take");
            return Err(Violation::new("files", detail));
        }
        Ok(())
    }

    fn next_of_file(&mut self, edge: usize) {
        let (life, after) = (self.edges[edge].life, self.rng.random_range(0..4));
        self.schedule(after, Event::FromFile { edge, life });
    }

    /// The next frame of a file; now and then it cannot be read any more.
    pub(in crate::world) fn reads_on(&mut self, edge: usize, life: u32) -> Check {
        let host = &mut self.edges[edge];
        let Some(carrying) = host.carrying.as_mut().filter(|_| host.life == life) else { return Ok(()) };
        let Some(frame) = carrying.frames.pop_front() else { return Ok(()) };
        if self.chance(1) {
            self.stats.count("files that broke off");
            return self.edge_input(edge, Input::Disconnected);
        }
        self.edge_input(edge, Input::Frame(frame))?;
        if self.edges[edge].carrying.is_some() {
            self.next_of_file(edge);
        }
        Ok(())
    }

    /// What came of it. A file is as the hub made it: an edge that takes it for something to go on from takes all of it.
    pub(super) fn has_taken(&mut self, edge: usize, outcome: Result<(), NotTaken>) -> Check {
        let Some(Carrying { seq, head, .. }) = self.edges[edge].carrying.take() else {
            return Err(Violation::new(
                "files",
                format!("edge {edge} speaks of a file that it was not given"),
            ));
        };
        self.trace.write(self.now, format_args!("edge {edge} with a file as of {seq}: {outcome:?}"));
        let rotten = !self.edges[edge].rotten.is_empty();
        match outcome {
            Ok(()) => {
                self.stats.count("files taken by edges");
                // Of history that is lost meanwhile: the edge has not come to the new one, or it had refused the file, and
                // goes on in the old one. How far a hub has come in the new one it remembers once it has come there itself.
                let now = ready(self.journal.head()).expect("the database was led before a file was made");
                if !now.epochs.holds(&head, &now.vector()) {
                    self.stats.count("files of lost history taken by edges");
                    return Ok(());
                }
                return floor::not_older(edge, self.edges[edge].told, seq);
            }
            Err(NotTaken::Older) => self.stats.count("files refused as older"),
            Err(NotTaken::Gap) => self.stats.count("files refused for a gap"),
            Err(NotTaken::Busy | NotTaken::Connected) => self.stats.count("files refused for now"),
            Err(NotTaken::BrokeOff) => self.stats.count("files that were not taken to their end"),
            Err(NotTaken::Rejected(Rejected::Digest | Rejected::Base)) if rotten => {
                self.stats.count("files for what had rotted");
            }
            Err(NotTaken::Rejected(rejected)) => {
                let detail = format!("edge {edge} rejects what is in a file: {rejected}");
                return Err(Violation::new("files", detail));
            }
        }
        Ok(())
    }

    /// As the daemon does it: an attempt to connect is given up.
    pub(in crate::world) fn exports(&mut self, edge: usize) -> Check {
        let host = &self.edges[edge];
        let Some(replica) = &host.replica else { return Ok(()) };
        if replica.is_connected() || host.carrying.is_some() {
            return Ok(());
        }
        self.drop_stream(edge, false);
        self.edge_input(edge, Input::Disconnected)?;
        self.edge_input(edge, Input::Export)
    }

    pub(super) fn exported(&mut self, edge: usize, exported: Result<Box<Exported>, NotTaken>) {
        let Ok(exported) = exported else { return };
        let wall = self.wall().0.saturating_add_signed(self.edges[edge].wall_error_ms);
        self.back_is_made(edge, wall, exported.into_frames());
    }
}
