//! The disk, read again while the edge runs: what lies there is compared with memory, and memory with its own sums.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Alert, EdgeReplica, Effect, Output};
use crate::entry::Row;
use crate::feed::Feed;
use crate::name::EntryKey;
use crate::replication::repair::Tally;
use crate::store::replica::{Batch, Record, Slot};
use crate::time::Instant;

impl EdgeReplica {
    /// Rows that have changed on the disk are written anew from memory. Where memory itself is not as its sum says, the sum
    /// is taken again, so that the next checkpoint finds the difference, and the disk is left alone until then.
    pub(super) fn handle_reread(&mut self, records: Vec<Record>, now: Instant) {
        let spilled = self.incoming.as_ref().is_some_and(|incoming| incoming.spilled);
        if self.switching || spilled {
            // Rows lie in two places; the next time will do.
            return;
        }
        let mut found = rows_of(records);
        let mut batch = Batch::default();
        for feed in self.ready_feeds() {
            let theirs: BTreeMap<EntryKey, Arc<Row>> =
                found.extract_if(.., |at, _| feed.contains(at)).collect();
            let rows: Vec<&Arc<Row>> = self.rows.values().filter(|row| feed.contains(&row.at)).collect();
            let digest = Tally::of(rows.iter().map(|row| &***row)).digest;
            if self.feeds[&feed].digest == digest {
                restore(&mut batch, &rows, theirs);
            } else if let Some(state) = self.feeds.get_mut(&feed) {
                state.digest = digest;
            }
        }
        self.rewrite(batch, now);
    }

    fn ready_feeds(&self) -> Vec<Feed> {
        let ready = self.feeds.iter().filter(|(_, state)| state.record.ready);
        ready.map(|(feed, _)| feed.clone()).collect()
    }

    fn rewrite(&mut self, batch: Batch, now: Instant) {
        let entries = batch.put.len() + batch.remove.len();
        if entries == 0 {
            return;
        }
        self.outputs.push_back(Output::Alert(Alert::Rewritten { entries }));
        for put in batch.put.chunks(self.batch_changes_max) {
            self.commit(Batch { put: put.to_vec(), remove: Vec::new() }, Effect::Nothing, now);
        }
        for remove in batch.remove.chunks(self.batch_changes_max) {
            self.commit(Batch { put: Vec::new(), remove: remove.to_vec() }, Effect::Nothing, now);
        }
    }
}

fn rows_of(records: Vec<Record>) -> BTreeMap<EntryKey, Arc<Row>> {
    let rows = records.into_iter().filter_map(|record| match record {
        Record::Row(row) => Some((row.at.clone(), row)),
        Record::Staged(_)
        | Record::Stage(..)
        | Record::Feed(..)
        | Record::Pending(_)
        | Record::Kept(_)
        | Record::Grant(_)
        | Record::State(_) => None,
    });
    rows.collect()
}

/// What has to be written so that the disk holds these rows instead of `found`.
fn restore(batch: &mut Batch, rows: &[&Arc<Row>], mut found: BTreeMap<EntryKey, Arc<Row>>) {
    for row in rows {
        if found.remove(&row.at).as_ref() != Some(*row) {
            batch.put.push(Record::Row((*row).clone()));
        }
    }
    batch.remove.extend(found.into_keys().map(Slot::Row));
}
