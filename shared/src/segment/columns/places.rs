//! Where rows stand in the hub's order and in the order of last-write-wins.
//!
//! The place in the hub's order is the one number that nothing else tells. Taken in that order, clocks rise by little and
//! a hub's counters rise by as much as its places do, so these columns are nearly all zeros.

use std::collections::BTreeMap;

use super::words::{Dictionary, Differences, apart, write_apart};
use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::Row;
use crate::stamp::{ActorId, Hlc, Stamp, WriteId};
use crate::time::UnixMillis;
use crate::vector::{Dot, Position, ShardId};

/// What of a row is said here.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) dot: Dot,
    pub(super) stamp: Stamp,
    pub(super) version: u64,
}

impl Place {
    fn of(row: &Row) -> Self {
        Self { dot: row.dot, stamp: row.stamp, version: row.version }
    }
}

pub(super) fn write(out: &mut Writer, rows: &[&Row]) {
    let places: Vec<Place> = rows.iter().map(|row| Place::of(row)).collect();
    let mut origins = Dictionary::new();
    let mut actors = Dictionary::new();
    for place in &places {
        origins.number(&(place.dot.shard, place.dot.position.epoch));
        actors.number(&(place.stamp.id.actor, place.stamp.id.incarnation));
    }
    out.uint(origins.values.len() as u64);
    for (shard, epoch) in &origins.values {
        out.uuid(shard.0);
        out.uint(*epoch);
    }
    out.uint(actors.values.len() as u64);
    for (actor, incarnation) in &actors.values {
        out.uuid(actor.0);
        out.uint(*incarnation);
    }
    for place in &places {
        out.uint(origins.number(&(place.dot.shard, place.dot.position.epoch)));
    }
    for place in &places {
        out.uint(actors.number(&(place.stamp.id.actor, place.stamp.id.incarnation)));
    }
    let mut seqs = Differences::default();
    for place in &places {
        seqs.write(out, place.dot.position.seq);
    }
    for place in &places {
        out.uint(place.version);
    }
    let in_order: Vec<Place> = order(&places).into_iter().map(|n| places[n]).collect();
    write_clocks(out, &in_order);
    let mut expected = Counters::default();
    for place in &in_order {
        write_apart(out, place.stamp.id.counter, expected.of(place));
        expected.seen(place);
    }
}

fn write_clocks(out: &mut Writer, in_order: &[Place]) {
    let mut physical = Differences::default();
    for place in in_order {
        physical.write(out, place.stamp.hlc.physical().0);
    }
    let mut before = Hlc::default();
    for place in in_order {
        let hlc = place.stamp.hlc;
        write_apart(out, hlc.0, expected_after(before, hlc.physical()).0);
        before = hlc;
    }
}

/// Within a millisecond, clocks count.
fn expected_after(before: Hlc, physical: UnixMillis) -> Hlc {
    if before.physical() == physical { before.next() } else { Hlc::from_physical(physical) }
}

/// Rows by their place in the order of each shard and leadership.
fn order(places: &[Place]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|n| {
        let Dot { shard, position } = places[*n].dot;
        (shard, position.epoch, position.seq)
    });
    order
}

/// An author's next counter: as much further as the hub's order has gone.
#[derive(Default)]
struct Counters(BTreeMap<(ActorId, u64), (u64, u64)>);

impl Counters {
    fn author(place: &Place) -> (ActorId, u64) {
        (place.stamp.id.actor, place.stamp.id.incarnation)
    }

    fn of(&self, place: &Place) -> u64 {
        let (counter, seq) = self.0.get(&Self::author(place)).copied().unwrap_or_default();
        counter.wrapping_add(place.dot.position.seq.wrapping_sub(seq))
    }

    fn seen(&mut self, place: &Place) {
        self.0.insert(Self::author(place), (place.stamp.id.counter, place.dot.position.seq));
    }
}

pub(super) fn read(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Place>, DecodeError> {
    let origins = reader.count(count, "origins")?;
    let origins: Vec<(ShardId, u64)> = (0..origins)
        .map(|_| Ok((ShardId(reader.uuid("shard")?), reader.id63("epoch")?)))
        .collect::<Result<_, DecodeError>>()?;
    let actors = reader.count(count, "actors")?;
    let actors: Vec<(ActorId, u64)> = (0..actors)
        .map(|_| Ok((ActorId(reader.uuid("actor")?), reader.id63("incarnation")?)))
        .collect::<Result<_, DecodeError>>()?;
    let mut places = Vec::with_capacity(count);
    for _ in 0..count {
        let origin = reader.count(count, "origin")?;
        let (shard, epoch) = *origins.get(origin).ok_or(DecodeError::Invalid("origin"))?;
        let id = WriteId { actor: ActorId(shard.0), incarnation: 0, counter: 0 };
        let position = Position { epoch, seq: 0 };
        places.push(Place { dot: Dot { shard, position }, stamp: Stamp { hlc: Hlc(0), id }, version: 0 });
    }
    for place in &mut places {
        let actor = reader.count(count, "actor")?;
        let (actor, incarnation) = *actors.get(actor).ok_or(DecodeError::Invalid("actor"))?;
        place.stamp.id = WriteId { actor, incarnation, counter: 0 };
    }
    let mut seqs = Differences::default();
    for place in &mut places {
        place.dot.position.seq = seqs.read(reader, "seq")?;
    }
    for place in &mut places {
        place.version = reader.id63("version")?;
    }
    let order = order(&places);
    read_clocks(reader, &mut places, &order)?;
    let mut expected = Counters::default();
    for n in order {
        places[n].stamp.id.counter = apart(expected.of(&places[n]), reader, "counter")?;
        expected.seen(&places[n]);
    }
    Ok(places)
}

fn read_clocks(reader: &mut Reader<'_>, places: &mut [Place], order: &[usize]) -> Result<(), DecodeError> {
    let mut before = Differences::default();
    let mut physical = Vec::with_capacity(order.len());
    for _ in order {
        physical.push(UnixMillis(before.read(reader, "time")?));
    }
    let mut before = Hlc::default();
    for (n, physical) in order.iter().zip(physical) {
        let hlc = Hlc(apart(expected_after(before, physical).0, reader, "time")?);
        places[*n].stamp.hlc = hlc;
        before = hlc;
    }
    Ok(())
}
