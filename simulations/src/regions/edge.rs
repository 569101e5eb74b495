//! An edge that may go to any region: the replica itself, on a disk that is always in time.

use std::sync::Arc;

use llm_config_shared::name::EntryKey;
use llm_config_shared::replication::edge::{Alert, EdgeReplica, Identity, Input, LocalWrite, Output};
use llm_config_shared::segment::{Rejected, VerificationKeys};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::replica::{Record, ReplicaStore};
use llm_config_shared::time::{Instant, UnixMillis};
use llm_config_shared::vector::Vector;
use llm_config_shared::write::Action;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use uuid::Uuid;

use super::places::{self, tenant};
use super::visit::{KEY, KEY_ID};
use super::{Regions, author};
use crate::disk::SimDisk;
use crate::invariants::{Check, Violation};
use crate::view::View;
use crate::world::Setup;

/// The machine and what runs on it.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) actor: ActorId,
    /// Which edge it runs as: another's, where it has a copy of its disk.
    pub(super) who: usize,
    pub(super) home: usize,
    pub(super) replica: EdgeReplica,
    pub(super) disk: SimDisk,
    pub(super) view: View,
    /// What it last said that it was told of.
    pub(super) floor: Vector,
    wall_error_ms: i64,
}

impl Edge {
    /// With an empty disk.
    pub(super) fn new(who: usize, home: usize, setup: Setup, rng: &mut ChaCha8Rng, wall: UnixMillis) -> Self {
        let actor = ActorId(Uuid::from_u128(0xed6e_0000 + who as u128));
        let wall_error_ms = rng.random_range(-3_000..3_000);
        let mut disk = SimDisk::default();
        let replica = started(actor, &mut disk, setup, rng, wall);
        Self { actor, who, home, replica, disk, view: View::default(), floor: Vector::EMPTY, wall_error_ms }
    }

    pub(super) fn with_clock_of(self, other: &Self) -> Self {
        Self { wall_error_ms: other.wall_error_ms, ..self }
    }
}

fn started(
    edge: ActorId,
    disk: &mut SimDisk,
    setup: Setup,
    rng: &mut ChaCha8Rng,
    wall: UnixMillis,
) -> EdgeReplica {
    let keys = VerificationKeys::tags([(KEY_ID, KEY)]);
    let records: Vec<Record> = disk.load().expect("the simulator's disk can be read");
    let identity = Identity { edge, tenant: tenant(), keys };
    EdgeReplica::new(identity, setup.rules, records, rng.random_range(1..1 << 62), wall, Instant(0))
}

impl Regions {
    /// The machine's clock since it was started for the first time.
    pub(super) fn local(&self) -> Instant {
        Instant(self.now)
    }

    pub(super) fn edge_restarts(&mut self, edge: usize) -> Check {
        let wall = UnixMillis(self.wall().0.saturating_add_signed(self.edges[edge].wall_error_ms));
        let (setup, now) = (self.setup, self.local());
        let host = &mut self.edges[edge];
        let mut replica = started(host.actor, &mut host.disk, setup, &mut self.rng, wall);
        replica.handle_timeout(now);
        host.replica = replica;
        host.view = View::default();
        // It asks to be connected at once; nobody does.
        self.drain_edge(edge).map(drop)?;
        self.edge_input(edge, Input::Disconnected).map(drop)
    }

    pub(super) fn edge_writes(&mut self, edge: usize) -> Check {
        let at = places::random_key(&mut self.rng);
        self.edge_writes_at(edge, at)
    }

    pub(super) fn edge_writes_at(&mut self, edge: usize, at: EntryKey) -> Check {
        let action = if self.rng.random_range(0..4) == 0 {
            Action::Delete
        } else {
            Action::Set { value: self.random_value(), tags: None, description: None }
        };
        let (author, change) = (author(), self.change());
        let write = LocalWrite { ticket: 0, at, action, author, message: None, change };
        self.edge_input(edge, Input::Write(write)).map(drop)
    }

    /// Gives the replica its input, and what it wants sent.
    pub(super) fn edge_input(&mut self, edge: usize, input: Input) -> Result<Vec<Output>, Violation> {
        let now = self.local();
        self.edges[edge].replica.handle(input, now);
        self.drain_edge(edge)
    }

    fn drain_edge(&mut self, edge: usize) -> Result<Vec<Output>, Violation> {
        let now = self.local();
        let mut rest = Vec::new();
        while let Some(output) = self.edges[edge].replica.poll_output() {
            match output {
                Output::Commit(batch) => {
                    self.note_write(edge, &batch.put);
                    let host = &mut self.edges[edge];
                    host.disk.commit(&batch).expect("the simulator's disk takes it");
                    host.replica.handle(Input::Committed, now);
                }
                Output::Publish(published) => {
                    self.edges[edge].view.apply(&published);
                    if !published.feeds.is_empty() {
                        self.past.learns(edge);
                    }
                    for (at, row) in &published.rows {
                        self.past.shown(edge, at, row.as_ref().map(|row| row.change))?;
                    }
                }
                Output::Recall => {
                    let host = &mut self.edges[edge];
                    let records = host.disk.load().expect("the simulator's disk can be read");
                    host.replica.handle(Input::Recalled(records), now);
                }
                Output::Alert(alert) => self.alert(edge, &alert)?,
                Output::Queued { .. } => self.stats.count("edge writes in worlds of regions"),
                Output::Decided { .. }
                | Output::Replied { .. }
                | Output::CallFailed { .. }
                | Output::Carried(_)
                | Output::Exported(_)
                | Output::WriteRefused { .. } => {}
                output @ (Output::Send(_) | Output::Connect | Output::Disconnect) => rest.push(output),
            }
        }
        Ok(rest)
    }

    /// A write leaves the state machine for the first time.
    fn note_write(&mut self, edge: usize, put: &[Record]) {
        for record in put {
            if let Record::Pending(pending) = record
                && !pending.sent
                && pending.decided.is_none()
                && self.past.is_new(pending.write.change)
            {
                let write = &pending.write;
                self.past.made_at_edge(edge, &write.at, write.change, write.action == Action::Delete);
                let vector = write.context.iter().map(|(shard, at)| (shard.0.as_u128() & 0xf, at.seq));
                let seen: Vec<_> = vector.collect();
                let counter = write.id.counter;
                let (namespace, key) = (&write.at.scope.namespace, Arc::new(write.at.key.clone()));
                self.trace.write(
                    self.now,
                    format_args!("edge {edge} writes {counter} {namespace}/{key} after {seen:?}"),
                );
            }
        }
    }

    fn alert(&mut self, edge: usize, alert: &Alert) -> Check {
        match alert {
            Alert::LostHistory => {
                self.stats.count("edges told that a region lost history");
                self.past.excuse(edge);
                Ok(())
            }
            // A patch is of what a hub of the same region sent before.
            Alert::Rejected(Rejected::Base) => {
                self.stats.count("patches after a move");
                Ok(())
            }
            Alert::Rejected(rejected) => {
                Err(Violation::new("protocol", format!("edge {edge} rejects a hub's own: {rejected}")))
            }
            // What was plain elsewhere and always a secret here is told to nobody without secrets; the comparison finds it.
            Alert::Differs(feed) if !feed.secrets => {
                self.stats.count("feeds without secrets that differed after a move");
                Ok(())
            }
            Alert::Differs(feed) => {
                Err(Violation::new("convergence", format!("edge {edge} differs in {feed:?}")))
            }
            Alert::Copied { .. } if self.past.copied.contains(&self.edges[edge].actor) => {
                self.stats.count("copies noticed in worlds of regions");
                Ok(())
            }
            Alert::Copied { .. } => Err(Violation::new("protocol", format!("edge {edge} was never copied"))),
            Alert::HandedIn(_)
            | Alert::Repaired { .. }
            | Alert::Held { .. }
            | Alert::Denied { .. }
            | Alert::Silent
            | Alert::Rewritten { .. }
            | Alert::Refused(_)
            | Alert::Store(_) => Ok(()),
        }
    }
}
