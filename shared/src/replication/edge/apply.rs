//! The switch: a whole transfer becomes what readers see, in one durable batch and at one moment.

use std::sync::Arc;

use super::grace::as_write;
use super::incoming::{Incoming, Part};
use super::{Alert, EdgeReplica, Effect, FeedState, Output, Phase, Published};
use crate::digest::FeedDigest;
use crate::entry::Row;
use crate::feed::{Environments, Feed};
use crate::name::{EntryKey, Environment};
use crate::replication::frame::EdgeFrame;
use crate::secret::KeyGrant;
use crate::segment::{Kind, Rejected};
use crate::store::replica::{Batch, FeedRecord, PendingRecord, Record, Slot};
use crate::time::{Instant, UnixMillis};
use crate::vector::Vector;

/// A row that came, changed or went.
type Change = (EntryKey, Option<Arc<Row>>);

/// Everything that a transfer makes true once its last batch is durable.
#[derive(Debug)]
pub(super) struct Switch {
    transfer: u64,
    feeds: Vec<(Feed, FeedRecord, FeedDigest)>,
    changes: Vec<Change>,
    hidden: Vec<PendingRecord>,
    removed: Vec<(u64, EntryKey)>,
    dropped: Vec<Feed>,
    dropped_grants: Vec<KeyGrant>,
    environments: Option<(Environments, Environment)>,
    folding: Vec<Batch>,
    confirmed_at: u64,
    /// Feeds that differed, and how much in them did.
    repaired: Vec<(Feed, usize)>,
    /// The places of before are of a history that is gone.
    replaces: bool,
}

impl EdgeReplica {
    /// Checks the digests, then commits the transfer that has come whole.
    pub(super) fn switch(&mut self, now: Instant) -> Result<(), Rejected> {
        if self.incoming.as_ref().is_some_and(|incoming| incoming.spilled) {
            self.spill(now);
        }
        let Some(incoming) = &mut self.incoming else { return Ok(()) };
        incoming.parts.values_mut().for_each(Part::take_in_held);
        let Some(incoming) = &self.incoming else { return Ok(()) };
        let mut feeds = Vec::new();
        let mut changes: Vec<Change> = Vec::new();
        for (feed, part) in &incoming.parts {
            let (digest, changed) = self.outcome(feed, part);
            let checkpoint = part.checkpoint.as_ref().expect("checked when the transfer ended");
            if digest != checkpoint.digest && self.rules.continuity && self.rules.digest {
                return self.differs(feed.clone(), now);
            }
            changes.extend(changed);
            let mut record = self.moved(&self.feeds[feed].record, checkpoint);
            record.folding = part.spilled > 0 && !part.in_place;
            feeds.push((feed.clone(), record, digest));
        }
        if !self.rules.vector_per_feed {
            self.share_one_vector(&mut feeds);
        }
        let incoming = self.incoming.take().expect("looked at above");
        self.commit_switch(incoming, feeds, changes, now);
        Ok(())
    }

    /// The digest that a feed will have, and the rows that change in it.
    fn outcome(&self, feed: &Feed, part: &Part) -> (FeedDigest, Vec<Change>) {
        let state = &self.feeds[feed];
        let mut changes = Vec::with_capacity(part.rows.len());
        let mut digest = match part.kind {
            Kind::Delta | Kind::Repair => state.digest,
            Kind::Snapshot => FeedDigest::default(),
        };
        for row in &part.rows {
            let known = self.rules.skip_covered && part.kind == Kind::Delta;
            if known && state.record.vector.covers_dot(row.dot) {
                continue;
            }
            if part.kind == Kind::Delta
                && let Some(before) = self.rows.get(&row.at)
            {
                digest.remove(before);
            }
            digest.add(row);
            if part.kind == Kind::Snapshot && self.holds(state, row) {
                continue;
            }
            changes.push((row.at.clone(), row.content.is_live().then(|| row.clone())));
        }
        if part.kind == Kind::Snapshot {
            // What a snapshot does not name is gone.
            let named: std::collections::BTreeSet<_> = part.rows.iter().map(|row| &row.at).collect();
            let gone = self.rows.keys().filter(|at| feed.contains(at) && !named.contains(at));
            changes.extend(gone.map(|at| (at.clone(), None)));
        }
        if let Some(repaired) = &part.repaired {
            changes.retain(|(at, _)| !repaired.rows.contains_key(at));
            changes.extend(repaired.rows.iter().map(|(at, row)| (at.clone(), row.clone())));
            digest = repaired.digest;
        }
        (digest, changes)
    }

    /// Whether a snapshot names what readers of this feed see already. A feed that is fetched again because it differed
    /// is written anew all the same: what lies on the disk may be what is wrong.
    fn holds(&self, state: &FeedState, row: &Arc<Row>) -> bool {
        let trusted = state.record.ready && !state.refetch;
        trusted && self.rows.get(&row.at).is_some_and(|held| held == row)
    }

    fn commit_switch(
        &mut self,
        incoming: Incoming,
        feeds: Vec<(Feed, FeedRecord, FeedDigest)>,
        mut changes: Vec<Change>,
        now: Instant,
    ) {
        let named = |feed: &Feed| incoming.parts.contains_key(feed);
        let whole = incoming.transfer != 0 && self.granted.iter().all(named);
        let dropped: Vec<Feed> =
            self.feeds.keys().filter(|feed| whole && !self.granted.contains(feed)).cloned().collect();
        let environments = if whole { self.announced.take() } else { None };
        let mut batch = Batch::default();
        for (feed, part) in &incoming.parts {
            batch_rows(&mut batch, part, &changes, feed);
            if incoming.spilled {
                batch.remove.push(Slot::Stage(feed.clone()));
            }
        }
        let dropped_grants = self.drop_feeds(&dropped, &mut batch, &mut changes);

        let vectors: Vec<(Feed, Vector)> =
            feeds.iter().map(|(feed, record, _)| (feed.clone(), record.vector.clone())).collect();
        let hidden = self.hidden_pending(&incoming);
        let removed = self.covered_pending(&vectors, &dropped);
        batch.put.extend(hidden.iter().cloned().map(Record::Pending));
        batch.put.extend(feeds.iter().map(|(feed, record, _)| Record::Feed(feed.clone(), record.clone())));
        for kept in [self.begin_removals(&removed, now), self.keep_deletions(&incoming, now)] {
            batch.put.extend(kept.put);
            batch.remove.extend(kept.remove);
        }
        let gone = |record: &Record| batch.remove.contains(&record.slot());
        let (_, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut batch.put)
            .into_iter()
            .partition(|record| matches!(record, Record::Pending(_)) && gone(record));
        batch.put = kept;
        if let Some((table, default)) = &environments {
            self.state.environments = table.clone();
            self.state.default_environment = Some(default.clone());
        }
        let issued = feeds.iter().map(|(_, record, _)| record.checkpoint_issued_at).min();
        let confirmed_at = self.state.confirmed_at.max(issued.unwrap_or(0));
        self.state.confirmed_at = confirmed_at;
        batch.put.push(self.state_record());

        self.switching = true;
        let folding = fold(&incoming, self.batch_changes_max);
        let repaired =
            incoming.parts.into_iter().filter_map(|(feed, part)| Some((feed, part.repaired?.rows.len())));
        let switch = Switch {
            transfer: incoming.transfer,
            feeds,
            changes,
            hidden,
            removed,
            dropped,
            dropped_grants,
            environments,
            folding,
            confirmed_at,
            repaired: repaired.collect(),
            replaces: self.recovering.is_some(),
        };
        self.commit(batch, Effect::Switched(Box::new(switch)), now);
    }

    /// The replica keeps nothing of what is deleted, and a hub that goes back to before may have to hear of it. In a feed
    /// without secrets what goes may as well have become one.
    fn keep_deletions(&mut self, incoming: &Incoming, now: Instant) -> Batch {
        let told = incoming.parts.iter().filter(|(feed, _)| feed.secrets);
        let rows = told.flat_map(|(_, part)| part.all_rows());
        let deletions = rows.filter(|row| !row.content.is_live()).map(|row| as_write(row));
        self.keep(deletions.collect(), now)
    }

    /// Session rule 5: a row that arrives hides own pending writes that are not above it.
    fn hidden_pending(&mut self, incoming: &Incoming) -> Vec<PendingRecord> {
        if self.outbox.is_empty() {
            return Vec::new();
        }
        let by_counter = self.rules.own_by_counter;
        let rows = incoming.parts.values().flat_map(Part::all_rows);
        rows.flat_map(|row| self.outbox.hide_below(row, by_counter)).collect()
    }

    /// Decided writes that go once some feeds have come so far, and others are not received any more.
    pub(super) fn covered_pending(&self, moved: &[(Feed, Vector)], dropped: &[Feed]) -> Vec<(u64, EntryKey)> {
        let vector_of = |at: &EntryKey| {
            let new = moved.iter().find(|(feed, _)| feed.contains(at)).map(|(_, vector)| vector);
            let stays = || self.feeds.iter().find(|(feed, _)| feed.contains(at) && !dropped.contains(feed));
            new.or_else(|| stays().map(|(_, state)| &state.record.vector))
        };
        let covered = self.outbox.covered(vector_of);
        covered.map(|pending| (pending.write.id.counter, pending.write.at.clone())).collect()
    }

    /// Takes rows, bookkeeping and keys of feeds that are not received any more. Pending writes stay: they go up.
    fn drop_feeds(&self, dropped: &[Feed], batch: &mut Batch, changes: &mut Vec<Change>) -> Vec<KeyGrant> {
        if dropped.is_empty() {
            return Vec::new();
        }
        let kept = |at: &EntryKey| self.granted.iter().any(|feed| feed.contains(at));
        let gone = self.rows.keys().filter(|at| dropped.iter().any(|feed| feed.contains(at)) && !kept(at));
        for at in gone {
            batch.remove.push(Slot::Row(at.clone()));
            changes.push((at.clone(), None));
        }
        batch.remove.extend(dropped.iter().cloned().map(Slot::Feed));
        let covered = |grant: &KeyGrant| {
            self.granted.iter().any(|feed| {
                feed.secrets && feed.environment == grant.environment && feed.subtree == grant.subtree
            })
        };
        let grants: Vec<KeyGrant> = self.grants.iter().filter(|grant| !covered(grant)).cloned().collect();
        batch.remove.extend(
            grants.iter().map(|g| Slot::Grant(g.environment.clone(), g.subtree.clone(), g.key_epoch)),
        );
        grants
    }

    fn share_one_vector(&self, feeds: &mut Vec<(Feed, FeedRecord, FeedDigest)>) {
        let mut joined = Vector::EMPTY;
        for (_, record, _) in feeds.iter() {
            joined.join(&record.vector);
        }
        for (feed, state) in &self.feeds {
            if state.record.ready && !feeds.iter().any(|(known, _, _)| known == feed) {
                feeds.push((feed.clone(), state.record.clone(), state.digest));
            }
        }
        for (_, record, _) in feeds {
            record.vector.join(&joined);
        }
    }

    pub(super) fn complete_switch(&mut self, switch: Switch, now: Instant) {
        for (at, row) in &switch.changes {
            match row {
                Some(row) => drop(self.rows.insert(at.clone(), row.clone())),
                None => drop(self.rows.remove(at)),
            }
        }
        let mut feeds: Vec<(Feed, Option<Vector>)> = Vec::new();
        for (feed, record, digest) in switch.feeds {
            feeds.push((feed.clone(), Some(record.vector.clone())));
            let state = self.feeds.entry(feed).or_default();
            let mut floor = record.floor.clone();
            if !switch.replaces {
                // A floor that rose while the batch was written does not fall again.
                floor.join(&state.record.floor);
            }
            state.record = FeedRecord { floor, ..record };
            state.digest = digest;
            state.refetch = false;
        }
        if switch.replaces {
            self.recovering = None;
        }
        for feed in switch.dropped {
            self.feeds.remove(&feed);
            feeds.push((feed, None));
        }
        self.grants.retain(|grant| !switch.dropped_grants.contains(grant));
        let mut touched: Vec<EntryKey> =
            switch.hidden.iter().map(|pending| pending.write.at.clone()).collect();
        for pending in switch.hidden {
            self.outbox.hide(pending.write.id.counter);
        }
        for (counter, at) in switch.removed {
            self.outbox.remove(counter);
            touched.push(at);
        }
        let pending = touched.into_iter().map(|at| self.overlay(at)).collect();
        self.outputs.push_back(Output::Publish(Published {
            rows: switch.changes,
            pending,
            feeds,
            environments: switch.environments.map(|(table, default)| (table, Some(default))),
            grants: Vec::new(),
            confirmed_at: Some(UnixMillis(switch.confirmed_at)),
            pending_count: self.outbox.undecided(),
            doubted: Vec::new(),
        }));
        for (feed, entries) in switch.repaired {
            self.outputs.push_back(Output::Alert(Alert::Repaired { feed: Box::new(feed), entries }));
        }
        if self.is_subscribed() {
            self.send(EdgeFrame::Ack { transfer: switch.transfer }, now);
        }
        self.backoff.reset();
        self.folding = switch.folding.into();
        self.fold_next(now);
    }

    fn fold_next(&mut self, now: Instant) {
        match self.folding.pop_front() {
            Some(mut batch) => {
                let last = self.folding.is_empty();
                if last {
                    // As they are now: a floor may have risen since the switch.
                    let folding = self.feeds.iter().filter(|(_, state)| state.record.folding);
                    batch.put.extend(folding.map(|(feed, state)| {
                        Record::Feed(feed.clone(), FeedRecord { folding: false, ..state.record.clone() })
                    }));
                }
                self.commit(batch, Effect::Folded { last }, now);
            }
            None => self.finish_switch(now),
        }
    }

    pub(super) fn complete_fold(&mut self, last: bool, now: Instant) {
        if !last {
            return self.fold_next(now);
        }
        for state in self.feeds.values_mut() {
            state.record.folding = false;
        }
        self.finish_switch(now);
    }

    fn finish_switch(&mut self, now: Instant) {
        self.switching = false;
        if self.phase == Phase::Carried {
            return self.end_carried(Ok(()), now);
        }
        self.work_inbox(now);
    }

    /// After a restart: rows in the stage that readers saw before are theirs again; of others it is known how far they are
    /// whole, or they never were.
    pub(super) fn resume_stage(&mut self, staged: Vec<Arc<Row>>) {
        let mut folding = Vec::new();
        let mut orphans = Vec::new();
        for row in staged {
            let owner = self.feeds.iter().find(|(feed, _)| feed.contains(&row.at));
            if owner.is_none_or(|(_, state)| !state.record.folding) {
                if self.take_staged(&row, false) {
                    continue;
                }
                orphans.push(Slot::Staged(row.at.clone()));
                continue;
            }
            match row.content.is_live() {
                true => drop(self.rows.insert(row.at.clone(), row.clone())),
                false => drop(self.rows.remove(&row.at)),
            }
            folding.push(row);
        }
        let mut batches = fold_batches(&folding, self.batch_changes_max);
        if !orphans.is_empty() {
            batches.push(Batch { put: Vec::new(), remove: orphans });
        }
        let mut done = Batch::default();
        for (feed, state) in self.feeds.iter_mut().filter(|(_, state)| state.record.folding) {
            state.record.folding = false;
            done.put.push(Record::Feed(feed.clone(), state.record.clone()));
        }
        if !done.is_empty() {
            batches.push(done);
        }
        for batch in batches {
            self.commit_nothing_new(batch);
        }
    }

    pub(super) fn complete_confirmed(
        &mut self,
        feeds: Vec<(Feed, FeedRecord)>,
        removed: Vec<(u64, EntryKey)>,
    ) {
        let mut moved = Vec::new();
        for (feed, record) in feeds {
            moved.push((feed.clone(), Some(record.vector.clone())));
            if let Some(state) = self.feeds.get_mut(&feed) {
                state.record.vector.join(&record.vector);
                state.record.floor.join(&record.floor);
                state.record.checkpoint_issued_at = record.checkpoint_issued_at;
            }
        }
        let touched = removed.iter().map(|(_, at)| at.clone()).collect::<Vec<_>>();
        for (counter, _) in removed {
            self.outbox.remove(counter);
        }
        let pending = touched.into_iter().map(|at| self.overlay(at)).collect();
        self.outputs.push_back(Output::Publish(Published {
            pending,
            feeds: moved,
            confirmed_at: (self.state.confirmed_at > 0).then_some(UnixMillis(self.state.confirmed_at)),
            pending_count: self.outbox.undecided(),
            ..Published::default()
        }));
    }
}

/// The rows of one feed that the last batch itself has to write: all of a small transfer; of a large one, only what went.
fn batch_rows(batch: &mut Batch, part: &Part, changes: &[Change], feed: &Feed) {
    let spilled: std::collections::BTreeSet<&EntryKey> =
        part.rows[..part.spilled].iter().map(|row| &row.at).collect();
    for (at, row) in changes.iter().filter(|(at, _)| feed.contains(at)) {
        match row {
            _ if spilled.contains(at) => {}
            Some(row) => batch.put.push(Record::Row(row.clone())),
            None => batch.remove.push(Slot::Row(at.clone())),
        }
    }
}

/// Moves staged rows into their own slots, in batches that stall nobody for long.
fn fold(incoming: &Incoming, changes_max: usize) -> Vec<Batch> {
    let staged = incoming.parts.values().filter(|part| !part.in_place);
    let rows: Vec<Arc<Row>> = staged.flat_map(|part| part.rows[..part.spilled].iter().cloned()).collect();
    fold_batches(&rows, changes_max)
}

fn fold_batches(rows: &[Arc<Row>], changes_max: usize) -> Vec<Batch> {
    let fold = |rows: &[Arc<Row>]| {
        let mut batch = Batch::default();
        for row in rows {
            batch.remove.push(Slot::Staged(row.at.clone()));
            match row.content.is_live() {
                true => batch.put.push(Record::Row(row.clone())),
                false => batch.remove.push(Slot::Row(row.at.clone())),
            }
        }
        batch
    };
    rows.chunks(changes_max).map(fold).collect()
}
