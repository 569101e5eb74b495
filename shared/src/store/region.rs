//! What the hubs of different regions tell one another: each follows the history of every other.

use std::collections::BTreeMap;

use crate::entry::{Content, HistoryRow, Metadata, Status};
use crate::limits::REGION_PAGE_BYTES_MAX;
use crate::name::{Environment, Tenant};
use crate::seal::SealKey;
use crate::store::{Head, Loss};
use crate::vector::{Dot, EpochTable, Epochs, Position, ShardId, Vector};

/// How far a shard's history was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bookmark {
    /// The last winner that was read.
    pub position: Position,
    /// The last write of all.
    pub number: u64,
    /// The newest leadership then: a hub that was restored numbers anew.
    pub epoch: u64,
}

impl Bookmark {
    /// Before everything of a history whose newest leadership is `newest`.
    pub fn start(newest: u64) -> Self {
        Self { position: Position { epoch: newest, seq: 0 }, number: 0, epoch: newest }
    }

    /// Behind the winner that has this place, and in the history this number; before everything where it is not there.
    pub fn behind(position: Position, number: Option<u64>, newest: u64) -> Self {
        number.map_or_else(|| Self::start(newest), |number| Self { position, number, epoch: newest })
    }
}

/// From where a history is read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    At(Bookmark),
    /// Behind the winner that has this place, whatever its number is now.
    Behind(Position),
}

/// How far a hub follows other regions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Following {
    /// Which shards were read from, and how far.
    pub read: BTreeMap<ShardId, Bookmark>,
    /// How much of each shard's history is here, read from itself or from another that has it.
    pub regions: Vector,
    /// Of those shards.
    pub epochs: Epochs,
}

/// What one hub asks of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionAsk {
    pub read: Option<Bookmark>,
    /// What the asker has, of its own order and of others'.
    pub have: Vector,
    pub epochs: Epochs,
}

impl RegionAsk {
    /// Whether the asker has what was admitted there.
    pub fn has(&self, origin: Dot) -> bool {
        self.epochs.holds(&Vector::at(origin.shard, origin.position), &self.have)
    }

    /// Where to go on in the history that `own` describes, with its newest leadership. Under another than that the numbers may
    /// have been given again, and the places beyond its beginning.
    pub fn begin(&self, own: &EpochTable, newest: u64) -> Begin {
        match self.read {
            Some(read) if read.epoch == newest => Begin::At(read),
            Some(read) => match own.clamp(read.position).filter(|position| position.seq > 0) {
                Some(position) => Begin::Behind(position),
                None => Begin::At(Bookmark::start(newest)),
            },
            None => Begin::At(Bookmark::start(newest)),
        }
    }
}

/// One admitted write of another region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionWrite {
    /// As that hub's history has it; its seq is none of this hub's.
    pub row: HistoryRow,
    /// Where it was admitted first; none for one that lost there, and has no place.
    pub origin: Option<Dot>,
    /// Of the entry, where the write is its value.
    pub metadata: Option<Metadata>,
}

/// Which key of secrets: of a tenant's environment, in one key epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyName {
    pub tenant: Tenant,
    pub environment: Environment,
    pub key_epoch: u64,
}

/// The root of all keys of secrets of one environment and key epoch, as regions tell one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionKey {
    pub name: KeyName,
    pub key: SealKey,
}

/// A part of another region's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionPage {
    pub shard: ShardId,
    /// Where the asker stood.
    pub after: Option<Bookmark>,
    pub writes: Vec<RegionWrite>,
    /// Where it stands with this page.
    pub read: Bookmark,
    /// That shard's leaderships.
    pub epochs: EpochTable,
    /// With the last page: what that hub has of others, and what it knows of their leaderships.
    pub regions: Option<(Vector, Epochs)>,
}

impl RegionWrite {
    /// Of a row of the history, with its place in the order of the hub that has it.
    pub fn of(row: HistoryRow, here: Option<Dot>, metadata: Option<Metadata>) -> Self {
        Self { origin: row.origin.or(here), row, metadata }
    }

    fn size(&self) -> usize {
        match &self.row.content {
            Content::Plain(value) => value.as_str().len(),
            Content::Secret(sealed) => sealed.body.len() + sealed.wrap.len(),
            Content::Deleted => 0,
        }
    }
}

/// A page while it is laid out, write by write in the history's order.
#[derive(Debug)]
pub struct Layout<'a> {
    ask: &'a RegionAsk,
    read: Bookmark,
    writes: Vec<RegionWrite>,
    bytes: usize,
}

impl<'a> Layout<'a> {
    /// From this place on.
    pub fn new(ask: &'a RegionAsk, read: Bookmark) -> Self {
        Self { ask, read, writes: Vec::new(), bytes: 0 }
    }

    /// Takes in the next write, which has this number and, if it won, this place in the history that is read. What the asker
    /// has, and what was never admitted, only moves its bookmark. False when the page is full without it.
    pub fn add(&mut self, number: u64, place: Option<Position>, write: RegionWrite) -> bool {
        let admitted = matches!(write.row.status, Status::Applied | Status::SupersededConcurrent);
        if admitted && !write.origin.is_some_and(|origin| self.ask.has(origin)) {
            self.bytes += write.size();
            if self.bytes > REGION_PAGE_BYTES_MAX && !self.writes.is_empty() {
                return false;
            }
            self.writes.push(write);
        }
        self.read.number = number;
        self.read.position = place.unwrap_or(self.read.position);
        true
    }

    /// The page of a hub whose history ends at `head`; with the `last` one the asker has all of it.
    pub fn finish(self, head: &Head, last: bool) -> RegionPage {
        let Self { ask, mut read, writes, bytes: _ } = self;
        if last {
            read.position = head.position;
        }
        let regions = last.then(|| (head.regions.clone(), head.epochs.clone()));
        RegionPage { shard: head.shard, after: ask.read, writes, read, epochs: head.own_epochs(), regions }
    }
}

impl Following {
    /// The place from where `shard` is to be read on.
    pub fn bookmark(&self, shard: ShardId) -> Option<Bookmark> {
        self.read.get(&shard).copied()
    }

    /// Where leaderships of other regions ended. Something was lost there if somebody has seen more of one of them.
    pub fn losses(&self) -> Vec<Loss> {
        let ends = |shard| self.epochs.ends(shard).map(move |(end, new_epoch)| (shard, end, new_epoch));
        let ends = self.read.keys().flat_map(|shard| ends(*shard));
        let loss = |(shard, Position { epoch, seq: cut }, new_epoch)| Loss { shard, epoch, cut, new_epoch };
        ends.map(loss).collect()
    }

    /// All of a page is here. What was claimed of the history of the page's hub is never taken back: what it has lost since
    /// is here all the same. `own` is the reader's shard, of which nobody else knows better.
    pub fn has_read(&mut self, page: &RegionPage, own: ShardId) {
        self.read.insert(page.shard, page.read);
        self.epochs.learn(page.shard, &page.epochs, self.regions.get(page.shard));
        self.has(page.shard, page.read.position);
        let Some((regions, epochs)) = &page.regions else { return };
        for (shard, position) in regions.iter().filter(|(shard, _)| *shard != own && *shard != page.shard) {
            if epochs.get(shard).is_some_and(|table| self.epochs.hear(shard, table))
                && self.is_further(shard, position)
            {
                self.has(shard, position);
            }
        }
        self.epochs.keep(epochs, own);
    }

    fn has(&mut self, shard: ShardId, position: Position) {
        self.regions = std::mem::take(&mut self.regions).with(shard, position);
    }

    fn is_further(&self, shard: ShardId, position: Position) -> bool {
        let ordinal = |position: Position| self.epochs.get(shard)?.ordinal(position.epoch);
        let place = |position: Position| (position.seq, ordinal(position));
        self.regions.get(shard).is_none_or(|claimed| place(position) > place(claimed))
    }
}

#[cfg(test)]
mod tests;
