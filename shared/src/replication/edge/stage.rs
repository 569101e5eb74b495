//! The stage: what of a large transfer is on the disk before readers see any of it. When the stream or the process ends it
//! stays, so that the next session goes on where this one broke off; what cannot be gone on with is taken away.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::incoming::Part;
use super::{EdgeReplica, Effect};
use crate::entry::Row;
use crate::feed::Feed;
use crate::held::{Held, grown, seen};
use crate::name::EntryKey;
use crate::segment::{Kind, Rejected, SegmentHeader};
use crate::store::replica::{Batch, Record, Slot, StageRecord};
use crate::time::Instant;

/// What is kept of one feed's part of a transfer that broke off.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) record: StageRecord,
    /// By key. Some may be newer than the record promises: they came after it was last written.
    pub(super) rows: Vec<Arc<Row>>,
}

/// By feed.
pub(super) type Stage = BTreeMap<Feed, Staged>;

impl Part {
    /// How much is held once all that has come is on the disk.
    fn held(&self) -> Held {
        let come = match self.rows.last() {
            _ if self.next_chunk == self.chunks => Some(None),
            Some(last) => Some(Some(last.at.clone())),
            None => None,
        };
        let spans = match come {
            Some(through) => grown(&self.continues, through, self.to.clone()),
            None => self.continues.clone(),
        };
        Held { from: self.from.clone(), spans }
    }

    /// What was held before and what has come since become one, in the order of keys.
    pub(super) fn take_in_held(&mut self) {
        if self.continues.is_empty() {
            return;
        }
        let held = std::mem::take(&mut self.held_rows);
        let mut rows: BTreeMap<EntryKey, Arc<Row>> =
            held.into_iter().map(|row| (row.at.clone(), row)).collect();
        for row in std::mem::take(&mut self.rows) {
            match self.shows(&row) {
                true => drop(rows.insert(row.at.clone(), row)),
                false => drop(rows.remove(&row.at)),
            }
        }
        self.rows = rows.into_values().collect();
        self.spilled = self.rows.len();
    }

    /// A snapshot names what lives: what the rest of it says is gone leaves what has come of it.
    fn shows(&self, row: &Row) -> bool {
        self.kind != Kind::Snapshot || row.content.is_live()
    }

    fn slot(&self, at: &EntryKey) -> Slot {
        slot(self.in_place, at)
    }

    fn put_aside(&self, row: &Arc<Row>, batch: &mut Batch) {
        match (self.shows(row), self.in_place) {
            (false, _) => batch.remove.push(self.slot(&row.at)),
            (true, true) => batch.put.push(Record::Row(row.clone())),
            (true, false) => batch.put.push(Record::Staged(row.clone())),
        }
    }
}

fn slot(in_place: bool, at: &EntryKey) -> Slot {
    if in_place { Slot::Row(at.clone()) } else { Slot::Staged(at.clone()) }
}

impl EdgeReplica {
    /// Rows beyond one batch go to disk while the rest is on its way, with the floor that they came from.
    pub(super) fn spill_if_large(&mut self, now: Instant) {
        let Some(incoming) = &self.incoming else { return };
        let rows: usize = incoming.parts.values().map(|part| part.rows.len()).sum();
        if incoming.spilled || rows > self.batch_changes_max {
            self.spill(now);
        }
    }

    pub(super) fn spill(&mut self, now: Instant) {
        let Some(mut incoming) = self.incoming.take() else { return };
        incoming.spilled = true;
        let mut batches = Vec::new();
        for (feed, part) in &mut incoming.parts {
            let floor = Record::Feed(feed.clone(), self.feeds[feed].record.clone());
            let aside = |rows: &[Arc<Row>]| {
                let mut batch = Batch { put: vec![floor.clone()], remove: Vec::new() };
                rows.iter().for_each(|row| part.put_aside(row, &mut batch));
                batch
            };
            let rows = part.rows[part.spilled..].chunks(self.batch_changes_max);
            let mut of_feed: Vec<Batch> = rows.map(aside).collect();
            // Never ahead of the rows that it speaks of.
            let teller = if self.rules.held_last { of_feed.last_mut() } else { of_feed.first_mut() };
            if let (Some(batch), Some(shard)) = (teller, self.shard) {
                let record = StageRecord { shard, held: part.held(), in_place: part.in_place };
                batch.put.push(Record::Stage(feed.clone(), record));
            }
            batches.append(&mut of_feed);
            part.spilled = part.rows.len();
        }
        self.incoming = Some(incoming);
        for batch in batches {
            self.commit(batch, Effect::Nothing, now);
        }
    }

    /// The session ends: what is on the disk of its transfer stays there.
    pub(super) fn keep_incoming(&mut self, now: Instant) {
        let spilled = self.incoming.as_ref().is_some_and(|incoming| incoming.spilled);
        let (true, Some(shard)) = (spilled && self.recovering.is_none(), self.shard) else {
            return self.abandon_incoming(now);
        };
        self.repair = None;
        let Some(incoming) = self.incoming.take() else { return };
        for (feed, mut part) in incoming.parts {
            let record = StageRecord { shard, held: part.held(), in_place: part.in_place };
            if part.spilled > 0 {
                // On a link that breaks again and again, what was brought further was no failed attempt.
                self.backoff.reset();
            }
            part.take_in_held();
            // Of a feed of which nothing was sent nothing is held.
            if part.chunks > 0 && !record.held.spans.is_empty() {
                self.stage.insert(feed, Staged { record, rows: part.rows });
            }
        }
    }

    /// Forgets a transfer that will not be completed, and what of it is on disk.
    pub(super) fn abandon_incoming(&mut self, now: Instant) {
        self.repair = None;
        let Some(incoming) = self.incoming.take() else { return };
        for (feed, part) in incoming.parts {
            if !incoming.spilled {
                continue;
            }
            let rows = part.rows[..part.spilled].iter().chain(&part.held_rows);
            let slots: Vec<Slot> = rows.map(|row| part.slot(&row.at)).collect();
            self.take_away(feed, slots, now);
        }
    }

    /// What is held of this feed is not gone on with.
    pub(super) fn discard_staged(&mut self, feed: &Feed, now: Instant) {
        if let Some(Staged { record, rows }) = self.stage.remove(feed) {
            let slots = rows.iter().map(|row| slot(record.in_place, &row.at)).collect();
            self.take_away(feed.clone(), slots, now);
        }
    }

    /// Nothing that is held is gone on with.
    pub(super) fn discard_stage(&mut self, now: Instant) {
        let feeds: Vec<Feed> = self.stage.keys().cloned().collect();
        for feed in feeds {
            self.discard_staged(&feed, now);
        }
    }

    /// That it was there goes first: what is half gone must not be taken for whole.
    fn take_away(&mut self, feed: Feed, slots: Vec<Slot>, now: Instant) {
        let slots: Vec<Slot> = std::iter::once(Slot::Stage(feed)).chain(slots).collect();
        for remove in slots.chunks(self.batch_changes_max) {
            let batch = Batch { put: Vec::new(), remove: remove.to_vec() };
            self.commit(batch, Effect::Nothing, now);
        }
    }

    /// What the hub is told that this edge holds; what it cannot go on with in this session is taken away.
    pub(super) fn held(&mut self, now: Instant) -> Vec<(Feed, Held)> {
        let unfit = self.stage.iter().filter(|(feed, staged)| !self.may_go_on(feed, staged));
        let unfit: Vec<Feed> = unfit.map(|(feed, _)| feed.clone()).collect();
        for feed in unfit {
            self.discard_staged(&feed, now);
        }
        self.stage.iter().map(|(feed, staged)| (feed.clone(), staged.record.held.clone())).collect()
    }

    fn may_go_on(&self, feed: &Feed, Staged { record, .. }: &Staged) -> bool {
        let Some(state) = self.feeds.get(feed).filter(|_| self.granted.contains(feed)) else { return false };
        let Held { from, spans } = &record.held;
        let begins =
            from.is_empty() || (!self.begins_anew(state) && self.reaches(&state.record.vector, from));
        let known = spans.iter().all(|span| self.is_in_history(&span.to)) && self.is_in_history(from);
        // Of a feed that differed although it was fetched whole, nothing is believed.
        let sound = !state.refetch && self.recovering.is_none();
        let placed = !record.in_place || self.may_go_in_place(feed);
        sound && begins && known && placed && self.shard == Some(record.shard)
    }

    /// The part of a transfer that begins with this segment. What it goes on with must be what is held.
    pub(super) fn begin_part(&mut self, header: &SegmentHeader, now: Instant) -> Result<Part, Rejected> {
        let feed = &header.feed;
        let mut part = Part {
            kind: header.kind,
            chunks: header.chunks,
            from: header.from.clone(),
            in_place: self.may_go_in_place(feed),
            ..Part::empty(header.to.clone())
        };
        if header.continues.is_empty() {
            self.discard_staged(feed, now);
            return Ok(part);
        }
        let fits = |Staged { record, .. }: &Staged| {
            let Held { from, spans } = &record.held;
            let follows = spans.iter().all(|span| self.reaches(&header.to, &span.to));
            !self.rules.held_fits || (*from == header.from && *spans == header.continues && follows)
        };
        if !self.stage.get(feed).is_some_and(fits) {
            return Err(Rejected::NotHeld);
        }
        let Some(Staged { record, rows }) = self.stage.remove(feed) else { return Err(Rejected::NotHeld) };
        part.in_place = record.in_place;
        part.continues.clone_from(&header.continues);
        part.held_rows = rows;
        Ok(part)
    }

    /// After a restart: rows of a first transfer that broke off lie in their own slots.
    pub(super) fn take_staged(&mut self, row: &Arc<Row>, in_place: bool) -> bool {
        let holds = |(feed, staged): &(&Feed, &mut Staged)| {
            let StageRecord { held, in_place: there, .. } = &staged.record;
            *there == in_place && feed.contains(&row.at) && seen(&held.spans, &row.at).is_some()
        };
        match self.stage.iter_mut().find(holds) {
            Some((_, staged)) => staged.rows.push(row.clone()),
            None => return false,
        }
        true
    }
}

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one output among many")]
mod tests;
