//! An edge's own writes until the hub has them and they have come back.
//!
//! A pending write is seen by readers until a later row of its key arrives; it still goes up. It disappears when its feed
//! covers the row that the hub named in its answer, so a reader never falls back to what was before it.

use std::collections::{BTreeMap, BTreeSet};

use crate::entry::Row;
use crate::limits::{UPLOAD_BYTES_MAX, UPLOAD_WRITES_MAX};
use crate::name::EntryKey;
use crate::stamp::{Hlc, WriteId};
use crate::store::replica::PendingRecord;
use crate::vector::{Dot, Vector};
use crate::write::{Answer, Base, Verdict, Write};

/// Pending writes by counter.
///
/// A record is as the newest batch that was handed to the store has it, durable or not, so that batches under way never
/// take back what one before them says. What readers see follows when a batch comes back.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    pending: BTreeMap<u64, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    record: PendingRecord,
    /// The write itself is durable: it may be told of, seen and uploaded.
    durable: bool,
    /// Readers see it instead of the replica's row.
    shown: bool,
    /// A batch that takes it out is under way.
    leaving: bool,
}

/// What an answer of the hub does to a pending write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It stays until its feed has come so far.
    Keep(Box<PendingRecord>),
    /// It goes.
    Remove { counter: u64, at: EntryKey },
}

/// Whether a write stands below a row. The hub may have put an own write further ahead than a later one, where a policy
/// made it win; so an own later write is never below an earlier one. Its counter alone does not put it there: where a
/// replica was set back, a row with a larger one may be of the life that is gone, and older.
fn is_hidden(write: &Write, row: &Row, own_by_counter: bool) -> bool {
    let (own, winner) = (write.id, row.stamp.id);
    let same = own.actor == winner.actor && own.incarnation == winner.incarnation;
    let later = own_by_counter && same && own.counter > winner.counter;
    !later && write.stamp() <= row.stamp
}

impl Outbox {
    /// How many writes there are, decided ones included.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// How many the hub has not decided.
    pub fn undecided(&self) -> usize {
        self.waiting().count()
    }

    /// The oldest write that the hub has not decided.
    pub fn first_undecided(&self) -> Option<u64> {
        self.waiting().next().map(|record| record.write.id.counter)
    }

    fn waiting(&self) -> impl Iterator<Item = &PendingRecord> {
        let waiting = self.pending.values().filter(|entry| entry.durable && entry.record.decided.is_none());
        waiting.map(|entry| &entry.record)
    }

    /// Durable ones in the order of counters.
    pub fn iter(&self) -> impl Iterator<Item = &PendingRecord> {
        self.pending.values().filter(|entry| entry.durable).map(|entry| &entry.record)
    }

    /// One of them, durable or not.
    pub fn get(&self, counter: u64) -> Option<&Write> {
        self.pending.get(&counter).map(|entry| &entry.record.write)
    }

    /// The highest counter, or 0.
    pub fn last_counter(&self) -> u64 {
        self.pending.last_key_value().map_or(0, |(counter, _)| *counter)
    }

    /// The largest time that a pending write bears.
    pub fn last_hlc(&self) -> Hlc {
        self.pending.values().map(|entry| entry.record.write.hlc).max().unwrap_or_default()
    }

    /// A write found on disk.
    pub fn restore(&mut self, record: PendingRecord) {
        let shown = !record.hidden;
        let entry = Entry { durable: true, shown, leaving: false, record };
        self.pending.insert(entry.record.write.id.counter, entry);
    }

    /// A write whose batch is under way.
    pub fn begin(&mut self, record: PendingRecord) {
        let entry = Entry { durable: false, shown: false, leaving: false, record };
        self.pending.insert(entry.record.write.id.counter, entry);
    }

    /// Its batch has come back: readers see it. A batch that hides it may be under way; that one comes back later.
    pub fn complete(&mut self, counter: u64) -> Option<&PendingRecord> {
        let entry = self.pending.get_mut(&counter)?;
        (entry.durable, entry.shown) = (true, true);
        Some(&entry.record)
    }

    /// Replaces a record in a batch that is handed to the store.
    pub fn put(&mut self, record: PendingRecord) {
        if let Some(entry) = self.pending.get_mut(&record.write.id.counter) {
            entry.record = record;
        }
    }

    /// The batch that hides it has come back.
    pub fn hide(&mut self, counter: u64) {
        if let Some(entry) = self.pending.get_mut(&counter) {
            entry.shown = false;
        }
    }

    /// A batch that takes it out is handed to the store.
    pub fn begin_removal(&mut self, counter: u64) {
        if let Some(entry) = self.pending.get_mut(&counter) {
            entry.leaving = true;
        }
    }

    /// That batch has come back.
    pub fn remove(&mut self, counter: u64) {
        self.pending.remove(&counter);
    }

    /// What readers see of this key instead of the replica's row.
    pub fn visible(&self, at: &EntryKey) -> Option<&Write> {
        let shown = self.pending.values().rev().find(|entry| entry.shown && entry.record.write.at == *at);
        shown.map(|entry| &entry.record.write)
    }

    /// Marks pending writes that a row, about to be applied, hides: those not above it in the last-write-wins order.
    /// Gives their records for the batch that applies the row.
    pub fn hide_below(&mut self, row: &Row, own_by_counter: bool) -> Vec<PendingRecord> {
        let behind = self.pending.values_mut().filter(|entry| {
            let record = &entry.record;
            let same = record.write.at == row.at;
            !record.hidden && !entry.leaving && same && is_hidden(&record.write, row, own_by_counter)
        });
        let hide = |entry: &mut Entry| {
            entry.record.hidden = true;
            entry.record.clone()
        };
        behind.map(hide).collect()
    }

    /// Decided writes whose feed, given by `vector_of`, covers the row that the hub named.
    pub fn covered<'a>(
        &'a self,
        vector_of: impl Fn(&EntryKey) -> Option<&'a Vector> + 'a,
    ) -> impl Iterator<Item = &'a PendingRecord> + 'a {
        let decided = self.pending.values().filter(|entry| !entry.leaving).map(|entry| &entry.record);
        decided.filter(move |pending| {
            let Some(dot) = pending.decided else { return false };
            vector_of(&pending.write.at).is_none_or(|vector| vector.covers_dot(dot))
        })
    }

    /// Fixes the stamps of writes that were never sent and are further ahead than `limit`: each becomes larger than the
    /// hub's clock, `renewed`, than every earlier write, and than what its author saw under its key, of which a hub that
    /// was restored may know nothing. Gives the changed records, to be written.
    pub fn restamp(&mut self, limit: Hlc, renewed: Hlc) -> Vec<PendingRecord> {
        let mut changed = Vec::new();
        let mut highest = Hlc::default();
        let own: BTreeSet<WriteId> = self.pending.values().map(|entry| entry.record.write.id).collect();
        for record in self.pending.values_mut().map(|entry| &mut entry.record) {
            let hlc = record.write.hlc;
            if record.sent || hlc <= limit {
                highest = highest.max(hlc);
                continue;
            }
            // An earlier write of the queue may have had a time that it lost here.
            let seen =
                record.write.base.filter(|base| !own.contains(&base.stamp.id)).map(|base| base.stamp.hlc);
            highest = renewed.max(highest).max(seen.unwrap_or_default()).next();
            record.write.claimed_hlc = record.write.claimed_hlc.or(Some(hlc));
            record.write.hlc = highest;
            changed.push(record.clone());
        }
        changed
    }

    /// Takes back what the hub decided of writes whose place it does not know any more: they wait again. Gives the changed
    /// records, to be written.
    pub fn take_up_again(&mut self, is_known: impl Fn(Dot) -> bool) -> Vec<PendingRecord> {
        let entries = self.pending.values_mut().filter(|entry| !entry.leaving);
        let lost = entries.filter(|entry| entry.record.decided.is_some_and(|dot| !is_known(dot)));
        let again = |entry: &mut Entry| {
            entry.record.decided = None;
            entry.record.clone()
        };
        lost.map(again).collect()
    }

    /// Gives every write that the hub has not decided to another incarnation, durable or not. Numbers, times and order
    /// stay; what followed one of them follows it under its new name. Gives the changed records, to be written.
    pub fn reidentify(&mut self, incarnation: u64) -> Vec<PendingRecord> {
        let mut changed = Vec::new();
        let mut names: BTreeMap<u64, Base> = BTreeMap::new();
        for entry in self.pending.values_mut() {
            let write = &mut entry.record.write;
            let undecided = entry.record.decided.is_none() && !entry.leaving;
            if undecided {
                write.id.incarnation = incarnation;
                let named = |base: Base| {
                    let own = names.get(&base.stamp.id.counter).copied();
                    own.filter(|own| base.is(own.stamp, own.change)).unwrap_or(base)
                };
                write.base = write.base.map(named);
            }
            names.insert(write.id.counter, write.as_base());
            if undecided {
                changed.push(entry.record.clone());
            }
        }
        changed
    }

    /// The next writes to upload, in the order of their counters, within the bounds of one message.
    pub fn next_upload(&self) -> Vec<PendingRecord> {
        let mut bytes = 0;
        let fitting = self.waiting().take(UPLOAD_WRITES_MAX).take_while(|pending| {
            let first = bytes == 0;
            bytes += pending.write.size();
            first || bytes <= UPLOAD_BYTES_MAX
        });
        fitting.cloned().collect()
    }

    /// What the hub's answer means for the write that it names; none for one that is gone, or was not decided.
    pub fn answered(&self, answer: &Answer, vector: Option<&Vector>) -> Option<Effect> {
        let pending = &self.pending.get(&answer.id.counter)?.record;
        if pending.write.id != answer.id {
            return None;
        }
        let gone = Effect::Remove { counter: answer.id.counter, at: pending.write.at.clone() };
        match answer.verdict {
            Verdict::Held(_) | Verdict::Denied(_) => Some(gone),
            Verdict::Reidentify => None,
            Verdict::Admitted { .. } | Verdict::Lost { .. } | Verdict::Duplicate => {
                let (Some(dot), Some(vector)) = (answer.current, vector) else { return Some(gone) };
                if vector.covers_dot(dot) {
                    return Some(gone);
                }
                Some(Effect::Keep(Box::new(PendingRecord {
                    decided: Some(dot),
                    sent: true,
                    ..pending.clone()
                })))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::entry::{Author, ChangeId, Content, Metadata};
    use crate::name::{Environment, Key, Namespace, Scope, Tenant};
    use crate::stamp::{ActorId, Stamp, WriteId};
    use crate::time::UnixMillis;
    use crate::vector::{Dot, Position, ShardId};
    use crate::write::Action;

    const EDGE: u128 = 7;

    fn id(actor: u128, counter: u64) -> WriteId {
        WriteId { actor: ActorId(Uuid::from_u128(actor)), incarnation: 1, counter }
    }

    fn at() -> EntryKey {
        let scope = Scope {
            tenant: Tenant::parse("t").unwrap(),
            environment: Environment::base(),
            namespace: Namespace::parse("app").unwrap(),
        };
        EntryKey { scope, key: Key::parse("k").unwrap() }
    }

    /// Own writes 1 and 2 of one key, at times 10 and 11.
    fn two() -> Outbox {
        let mut outbox = Outbox::default();
        for counter in 1..=2 {
            let write = Write {
                id: id(EDGE, counter),
                hlc: Hlc(9 + counter),
                claimed_hlc: None,
                at: at(),
                action: Action::Delete,
                author: Author { name: "uid:0".into(), claimed: None },
                made_at: UnixMillis(1),
                message: None,
                change: ChangeId(Uuid::nil()),
                context: Vector::EMPTY,
                without_secrets: false,
                base: None,
            };
            outbox.restore(PendingRecord { write, sent: true, hidden: false, decided: None });
        }
        outbox
    }

    fn row(hlc: u64, id: WriteId) -> Row {
        let metadata = Metadata {
            created_at: UnixMillis(1),
            created_by: "a".into(),
            updated_at: UnixMillis(1),
            updated_by: "a".into(),
            tags: vec![],
            description: None,
        };
        Row {
            at: at(),
            dot: Dot { shard: ShardId(Uuid::nil()), position: Position { epoch: 1, seq: 1 } },
            stamp: Stamp { hlc: Hlc(hlc), id },
            version: 1,
            content: Content::Deleted,
            metadata,
            change: ChangeId(Uuid::nil()),
        }
    }

    fn hidden(row: &Row, own_by_counter: bool) -> Vec<u64> {
        let records = two().hide_below(row, own_by_counter);
        records.iter().map(|record| record.write.id.counter).collect()
    }

    #[test]
    fn a_row_hides_what_is_not_above_it() {
        assert_eq!(hidden(&row(10, id(99, 1)), true), [1]);
        assert_eq!(hidden(&row(50, id(99, 1)), true), [1, 2]);
        assert_eq!(hidden(&row(5, id(99, 1)), true), [0; 0]);
    }

    #[test]
    fn an_own_write_that_the_hub_put_ahead_does_not_hide_a_later_one() {
        assert_eq!(hidden(&row(50, id(EDGE, 1)), true), [1]);
        assert_eq!(hidden(&row(50, id(EDGE, 1)), false), [1, 2], "by time alone it would");
    }

    #[test]
    fn a_new_time_stays_above_what_the_author_saw_though_the_hub_knows_nothing_of_it() {
        let mut outbox = two();
        let mut again = |counter: u64, base: Base| {
            let mut record = outbox.pending[&counter].record.clone();
            (record.sent, record.write.hlc, record.write.base) = (false, Hlc(900), Some(base));
            outbox.put(record);
        };
        let seen = |hlc, id| Base { stamp: Stamp { hlc: Hlc(hlc), id }, change: ChangeId(Uuid::nil()) };
        again(1, seen(70, id(99, 1)));
        again(2, seen(900, id(EDGE, 1)));
        let times = |changed: Vec<PendingRecord>| changed.iter().map(|one| one.write.hlc).collect::<Vec<_>>();
        assert_eq!(times(outbox.restamp(Hlc(100), Hlc(40))), [Hlc(71), Hlc(72)]);
    }
}
