//! The world heals: nothing more goes wrong, and within a bounded time everything is equal.

use llm_config_shared::replication::edge::Input;

use super::{Event, World};
use crate::invariants::{Check, Violation, acknowledged, convergence};

/// By then everybody must have found everybody again: silent streams are given up after 90 seconds, and a hub that took
/// an edge for ahead of it sends it away for 60.
const REST_MS_MAX: u64 = 400_000;
const REST_EVENTS_MAX: u64 = 60_000;
/// How often somebody looks whether all is quiet.
const LOOK_EVERY_MS: u64 = 500;

impl World {
    pub(super) fn come_to_rest(&mut self) -> Check {
        self.heal()?;
        let (deadline, mut look_at, mut events) = (self.now + REST_MS_MAX, self.now, 0);
        loop {
            events += 1;
            if !self.step()? || self.now > deadline || events > REST_EVENTS_MAX {
                let why = self.unrest().unwrap_or_else(|| "no event is left".into());
                return Err(Violation::new("convergence", why));
            }
            if self.now >= look_at {
                look_at = self.now + LOOK_EVERY_MS;
                if self.unrest().is_none() {
                    break;
                }
                self.nudge()?;
            }
        }
        self.stats.count("runs that came to rest");
        self.at_rest()
    }

    fn heal(&mut self) -> Check {
        self.trace.write(self.now, format_args!("the world heals"));
        for hub in 0..self.hubs.len() {
            self.hubs[hub].stuck = false;
            if !self.hubs[hub].up {
                self.start_hub(hub)?;
            }
            let life = self.hubs[hub].life;
            self.schedule(1, Event::Advanced { hub, life });
            for edge in 0..self.edges.len() {
                self.network.heal(edge, hub);
            }
        }
        if self.true_leader().is_none() {
            self.take_lead(0);
        }
        for edge in 0..self.edges.len() {
            self.edges[edge].disk_slow = false;
            let life = self.edges[edge].life;
            if self.edges[edge].replica.is_none() {
                self.start_edge(edge, life)?;
            }
            self.edge_input(edge, Input::ConnectNow)?;
        }
        Ok(())
    }

    /// Somebody leads, and edges do not sleep through the long pauses that the faults have earned them.
    fn nudge(&mut self) -> Check {
        if self.true_leader().is_none() {
            self.take_lead(0);
        }
        for edge in 0..self.edges.len() {
            if self.edges[edge].stream.is_none() {
                self.edge_input(edge, Input::ConnectNow)?;
            }
        }
        Ok(())
    }

    /// What still moves, if anything does.
    fn unrest(&self) -> Option<String> {
        if !self.clients.is_idle() {
            return Some("a client waits".into());
        }
        self.awake().into_iter().find_map(|edge| {
            let host = &self.edges[edge];
            let Some(replica) = &host.replica else { return Some(format!("edge {edge} is down")) };
            if host.disk.waiting() > 0 {
                return Some(format!("edge {edge}'s disk is busy"));
            }
            // What is in no feed any more, nobody reads or compares.
            if host.rotten.iter().any(|at| host.view.feed_of(at).is_some()) {
                return Some(format!("edge {edge} has not found what rotted"));
            }
            if self.is_astray(edge) {
                return Some(format!("edge {edge} still shows what the hub lost"));
            }
            let feeds = self.profile(edge).feeds;
            let why = convergence::unrest(replica, &host.view, &feeds, &self.truth)?;
            Some(format!("edge {edge} {why}"))
        })
    }

    fn at_rest(&mut self) -> Check {
        for edge in self.awake() {
            let host = &self.edges[edge];
            let replica = host.replica.as_ref().expect("at rest every edge is up");
            let mut feeds = self.profile(edge).feeds;
            feeds.sort();
            convergence::equal(&self.journal, edge, replica, &host.view, &feeds, &self.truth)?;
        }
        let history = self.journal.whole_history();
        acknowledged::all(&self.truth, &history, &self.clients.acknowledged, &self.clients.undone)
    }
}
