//! Copies of an edge's disk: put back on the same machine later, or started on another beside the first.

use std::collections::{BTreeMap, BTreeSet};

use llm_config_shared::entry::ChangeId;
use llm_config_shared::replication::seats::{Greeting, Meeting};
use llm_config_shared::stamp::{ActorId, WriteId};
use llm_config_shared::store::replica::Record;
use rand::RngExt;
use uuid::Uuid;

use super::World;
use crate::disk::SimDisk;
use crate::invariants::Check;
use crate::network::StreamId;
use crate::truth::{Reader, Truth};

/// What was on a disk at some moment, and what is true of it.
#[derive(Debug)]
pub(super) struct Image {
    /// The machine that it was taken of.
    edge: usize,
    disk: SimDisk,
    told: u64,
    own: BTreeSet<WriteId>,
}

fn pending(disk: &SimDisk) -> impl Iterator<Item = (u64, ChangeId)> + '_ {
    disk.records().filter_map(number)
}

fn number(record: &Record) -> Option<(u64, ChangeId)> {
    match record {
        Record::Pending(pending) => Some((pending.write.id.counter, pending.write.change)),
        Record::Row(_)
        | Record::Staged(_)
        | Record::Stage(..)
        | Record::Feed(..)
        | Record::Kept(_)
        | Record::Grant(_)
        | Record::State(_) => None,
    }
}

/// The names of the writes that wait on a disk.
pub(super) fn numbered(truth: &Truth, records: &[Record]) -> BTreeMap<u64, WriteId> {
    let waiting = records.iter().filter_map(number);
    waiting.filter_map(|(counter, change)| Some((counter, *truth.names.get(&change)?))).collect()
}

impl World {
    /// An edge's name in stamps.
    pub(super) fn actor(&self, edge: usize) -> ActorId {
        ActorId(Uuid::from_u128(0xed6e_0000 + self.who(edge) as u128))
    }

    /// Which edge a machine is.
    pub(super) fn who(&self, edge: usize) -> usize {
        self.edges[edge].who.unwrap_or(edge)
    }

    /// Machines that have a disk.
    pub(super) fn awake(&self) -> Vec<usize> {
        (0..self.edges.len()).filter(|edge| self.edges[*edge].who.is_some()).collect()
    }

    /// Somebody takes an image of a disk, or uses the one that there is.
    pub(super) fn disk_is_copied(&mut self) -> Check {
        if self.rots {
            return Ok(());
        }
        let Some(image) = self.image.take() else {
            self.take_image();
            return Ok(());
        };
        if self.rng.random_range(0..8) == 0 {
            let edge = image.edge;
            self.image = Some(image);
            return self.disk_is_new(edge);
        }
        let asleep = self.edges.iter().position(|host| host.who.is_none());
        match (self.rng.random_range(0..4), asleep) {
            (0, Some(other)) => self.start_twin(image, other),
            (0 | 1, _) => {
                self.take_image();
                Ok(())
            }
            _ => self.restore(image),
        }
    }

    fn take_image(&mut self) {
        let awake = self.awake();
        let edge = awake[self.rng.random_range(0..awake.len())];
        if self.is_astray(edge) {
            // What readers learned of the lost part is not kept with an image.
            return;
        }
        let mut disk = self.edges[edge].disk.clone();
        disk.cut_power(0);
        let waiting: BTreeSet<WriteId> =
            pending(&disk).filter_map(|(_, change)| self.truth.names.get(&change).copied()).collect();
        let decided = |id: &WriteId| self.truth.writes.get(id).is_some_and(|made| made.status.is_some());
        let own = self.truth.readers[edge].own.iter().filter(|id| waiting.contains(id) || decided(id));
        self.stats.count("disk images taken");
        self.trace.write(self.now, format_args!("an image of edge {edge}"));
        self.image = Some(Image { edge, own: own.copied().collect(), told: self.edges[edge].told, disk });
    }

    /// The machine gets a new disk: it is the same edge, and has nothing. The hub believes that it has what it acknowledged.
    fn disk_is_new(&mut self, edge: usize) -> Check {
        self.stats.count("disks that were empty");
        self.restore(Image { edge, disk: SimDisk::default(), told: 0, own: BTreeSet::new() })
    }

    /// The machine gets its earlier disk back. What it wrote since and had not sent is gone with the later one.
    fn restore(&mut self, image: Image) -> Check {
        let edge = image.edge;
        self.crash_edge(edge);
        self.stats.count("disk images put back");
        let since = self.truth.readers[edge].own.difference(&image.own);
        let gone: Vec<WriteId> = since.copied().collect();
        for id in gone {
            if let Some(made) = self.truth.writes.get_mut(&id).filter(|made| made.status.is_none()) {
                made.acknowledged = false;
                self.stats.count("edge writes lost with a disk");
            }
        }
        self.load_image(image, edge)
    }

    /// A second machine runs as the same edge, with the same certificate.
    fn start_twin(&mut self, image: Image, other: usize) -> Check {
        self.stats.count("edges that ran twice");
        self.edges[other].who = Some(self.who(image.edge));
        self.load_image(image, other)
    }

    fn load_image(&mut self, image: Image, edge: usize) -> Check {
        self.trace.write(self.now, format_args!("edge {edge} gets an image of edge {}", image.edge));
        let host = &mut self.edges[edge];
        host.disk = image.disk;
        (host.told, host.heard) = (image.told, image.told);
        // No image outlives a restore, and none is taken of who still shows what was lost.
        (host.astray, host.excused) = (false, false);
        self.truth.readers[edge] = Reader { own: image.own, ..Reader::default() };
        self.truth.copied.insert(self.actor(edge));
        self.start_edge(edge, self.edges[edge].life)
    }

    /// A session says which it is: half-open ones of the same replica are closed. Whether there is another of it.
    pub(super) fn greeted(&self, hub: usize, stream: StreamId, greeting: Greeting) -> (bool, Vec<StreamId>) {
        let Some(edge) = self.hubs[hub].sessions.get(&stream).map(|host| host.edge) else {
            return (false, Vec::new());
        };
        let actor = self.actor(edge);
        let (mut copied, mut older) = (false, Vec::new());
        for (id, host) in &self.hubs[hub].sessions {
            let earlier = host.greeting.filter(|_| *id != stream && self.actor(host.edge) == actor);
            match earlier.map(|earlier| greeting.meets(earlier)) {
                Some(Meeting::Older) => older.push(*id),
                Some(Meeting::Twin) => copied = true,
                Some(Meeting::Stranger) | None => {}
            }
        }
        (copied, older)
    }
}
