//! The start: what the store held becomes what the replica holds and readers see.

use super::stage::Staged;
use super::{EdgeReplica, FeedState, Grace, Output, Published};
use crate::stamp::Clock;
use crate::store::replica::{Batch, Record, Slot};
use crate::time::UnixMillis;

impl EdgeReplica {
    /// Takes over what the store held.
    pub(super) fn restore(&mut self, records: Vec<Record>) {
        let (mut staged, mut found) = (Vec::new(), Vec::new());
        for record in records {
            match record {
                Record::Row(row) => drop(self.rows.insert(row.at.clone(), row)),
                Record::Staged(row) => staged.push(row),
                Record::Stage(feed, record) => {
                    self.stage.insert(feed, Staged { record, rows: Vec::new() });
                }
                Record::Feed(feed, record) => {
                    self.feeds.insert(feed, FeedState { record, ..FeedState::default() });
                }
                Record::Pending(pending) => self.outbox.restore(pending),
                Record::Kept(kept) => found.push(kept),
                Record::Grant(grant) => self.grants.push(grant),
                Record::State(state) => self.state = state,
            }
        }
        self.grace = Grace::found(found);
        self.clock = Clock::resume(self.state.hlc);
        self.hub_offset_ms = self.wall_offset_ms.saturating_add(self.state.clock_offset_ms);
        self.next_counter = if self.rules.counter_ceiling {
            self.state.counter_ceiling.max(1)
        } else {
            self.outbox.last_counter() + 1
        };
        self.resume_stage(staged);
        self.index_rows();
        for staged in self.stage.values_mut() {
            staged.rows.sort_by(|a, b| a.at.cmp(&b.at));
        }
    }

    /// Assigns the rows found on disk to their feeds. Those of no feed, and those of a first transfer that was never
    /// completed and cannot be gone on with, are not to be trusted and go.
    fn index_rows(&mut self) {
        let mut unread = Vec::new();
        for row in self.rows.values() {
            match self.feeds.iter_mut().find(|(feed, state)| feed.contains(&row.at) && state.record.ready) {
                Some((_, state)) => state.digest.add(row),
                None => unread.push(row.clone()),
            }
        }
        let mut remove = Vec::new();
        for row in unread {
            self.rows.remove(&row.at);
            if !self.take_staged(&row, true) {
                remove.push(Slot::Row(row.at.clone()));
            }
        }
        if !remove.is_empty() {
            self.commit_nothing_new(Batch { put: Vec::new(), remove });
        }
    }

    /// What readers see from the start on.
    pub(super) fn publish_everything(&mut self) {
        let rows = self.rows().map(|row| (row.at.clone(), Some(row.clone()))).collect();
        let pending = self.outbox.iter().map(|pending| pending.write.at.clone()).collect::<Vec<_>>();
        let pending = pending.into_iter().map(|at| self.overlay(at)).collect();
        let feeds = self.feeds.iter().filter(|(_, state)| state.record.ready);
        let feeds = feeds.map(|(feed, state)| (feed.clone(), Some(state.record.vector.clone()))).collect();
        let confirmed_at = (self.state.confirmed_at > 0).then_some(UnixMillis(self.state.confirmed_at));
        self.outputs.push_back(Output::Publish(Published {
            rows,
            pending,
            feeds,
            environments: Some((self.state.environments.clone(), self.state.default_environment.clone())),
            grants: self.grants.clone(),
            confirmed_at,
            pending_count: self.outbox.undecided(),
            doubted: Vec::new(),
        }));
    }
}
