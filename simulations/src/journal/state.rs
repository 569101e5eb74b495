//! What the database holds, and how a commit changes it: whole, or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use llm_config_shared::digest::ScopeDigest;
use llm_config_shared::entry::{ChangeId, HistoryRow, HubRow, Status};
use llm_config_shared::name::{EntryKey, Scope, Tenant};
use llm_config_shared::newer::{Newer, Restored, Tally};
use llm_config_shared::policy::Policies;
use llm_config_shared::settled::{Settled, Waited};
use llm_config_shared::stamp::{ActorId, Hlc, WriteId};
use llm_config_shared::store::purge::Stub;
use llm_config_shared::store::region::Following;
use llm_config_shared::store::{
    ChangeRow, Commit, Conflict, Fence, Frontier, JournalError, Leadership, Loss, Repeat, Retold,
};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::{Epoch, EpochTable, Position, ShardId};

use super::cell::Cell;

/// The head after one version.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) position: Position,
    pub(super) hlc: Hlc,
    pub(super) horizon: u64,
    pub(super) epochs: usize,
    pub(super) following: Arc<Following>,
}

/// One row of the history.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) since: usize,
    pub(super) row: HistoryRow,
    pub(super) superseded: Option<usize>,
    pub(super) settled: Option<(usize, Settled)>,
    /// Another region has admitted it since.
    pub(super) withdrawn: bool,
}

/// One row of the list of conflicts.
#[derive(Clone, Debug)]
pub(super) struct StoredConflict {
    pub(super) since: usize,
    /// The head when it was found.
    pub(super) seq: u64,
    pub(super) row: Conflict,
    pub(super) settled: Cell<Settled>,
}

/// One row of the list of changes.
#[derive(Clone, Debug)]
pub(super) struct StoredChange {
    pub(super) row: ChangeRow,
    pub(super) writes: Cell<u64>,
}

/// All tables, by version.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) shard: Option<ShardId>,
    pub(super) marks: Vec<Mark>,
    pub(super) epochs: Vec<Epoch>,
    pub(super) rows: BTreeMap<EntryKey, Cell<HubRow>>,
    /// When the newest row of each key was admitted.
    pub(super) admitted: BTreeMap<EntryKey, UnixMillis>,
    /// What is left of purged rows; those stay in `rows`, for who looks from outside.
    pub(super) stubs: BTreeMap<EntryKey, Cell<Option<Stub>>>,
    pub(super) digests: BTreeMap<Scope, Cell<ScopeDigest>>,
    pub(super) history: Vec<Stored>,
    pub(super) by_write: BTreeMap<WriteId, usize>,
    pub(super) conflicts: Vec<StoredConflict>,
    pub(super) policies: Policies,
    pub(super) frontiers: BTreeMap<(ActorId, u64), Cell<Frontier>>,
    pub(super) changes: Vec<StoredChange>,
    pub(super) by_change: BTreeMap<(Tenant, ChangeId), usize>,
    pub(super) repeats: Vec<(usize, Repeat)>,
    /// What was lost whenever the database was filled from a backup: where it had come, and who led it afterwards.
    pub(super) restored: Vec<Lost>,
    pub(super) tallies: BTreeMap<(Tenant, u64, ActorId), Tally>,
}

/// One loss.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    pub(super) cut: Position,
    pub(super) new_epoch: Option<u64>,
    pub(super) newer: Newer,
}

pub(super) fn corrupt(what: &str) -> JournalError {
    JournalError::Corrupt(what.into())
}

impl State {
    pub(super) fn versions(&self) -> usize {
        self.marks.len()
    }

    /// The last version at which the shard had come to `seq` and no further.
    pub(super) fn version_of_seq(&self, seq: u64) -> usize {
        self.marks.partition_point(|mark| mark.position.seq <= seq)
    }

    /// The head as of a version; versions count from 1.
    pub(super) fn mark(&self, version: usize) -> Option<Mark> {
        version.checked_sub(1).and_then(|at| self.marks.get(at)).cloned()
    }

    pub(super) fn lead(&mut self, epoch: u64, new_shard: ShardId) -> Leadership {
        let shard = *self.shard.get_or_insert(new_shard);
        let (seq, hlc, horizon) =
            self.marks.last().map_or((0, Hlc(0), 0), |mark| (mark.position.seq, mark.hlc, mark.horizon));
        let following = self.marks.last().map(|mark| Arc::clone(&mark.following)).unwrap_or_default();
        let ordinal = self.epochs.last().map_or(1, |last| last.ordinal + 1);
        self.epochs.push(Epoch { ordinal, epoch, start_seq: seq });
        for lost in &mut self.restored {
            lost.new_epoch.get_or_insert(epoch);
        }
        let position = Position { epoch, seq };
        let leadership = Leadership {
            shard,
            position,
            hlc,
            epochs: EpochTable::new(self.epochs.clone()),
            following: (*following).clone(),
        };
        self.marks.push(Mark { position, hlc, horizon, epochs: self.epochs.len(), following });
        leadership
    }

    /// Newest first.
    pub(super) fn losses(&self) -> Vec<Loss> {
        let Some(shard) = self.shard else { return Vec::new() };
        let own = self.restored.iter().rev().filter_map(|lost| lost.loss(shard));
        let following = self.marks.last().map(|mark| Arc::clone(&mark.following)).unwrap_or_default();
        own.chain(following.losses()).collect()
    }

    /// What is known of one of them, and of what a tenant's edges have handed in.
    pub(super) fn restored(&self, tenant: &Tenant, new_epoch: u64) -> Option<Restored> {
        let shard = self.shard?;
        let at = self.restored.iter().rposition(|lost| lost.new_epoch == Some(new_epoch))?;
        let (lost, later) = (&self.restored[at], &self.restored[at + 1..]);
        let mine =
            |((of, after, _), _): &(&(Tenant, u64, ActorId), &Tally)| of == tenant && *after == new_epoch;
        Some(Restored {
            loss: lost.loss(shard)?,
            newer: lost.newer.before(later.iter().map(|lost| lost.newer)),
            restored_at: UnixMillis(0),
            epochs: EpochTable::new(self.epochs.clone()),
            tallies: self.tallies.iter().filter(mine).map(|(_, tally)| tally.clone()).collect(),
        })
    }

    /// Everything of the commit, or nothing.
    pub(super) fn append(&mut self, commit: &Commit, fenced: bool) -> Result<(), JournalError> {
        let head = self.fence(&commit.fence, fenced)?;
        dense(commit)?;
        self.check(commit)?;
        let version = self.marks.len() + 1;
        self.put_entries(commit, version);
        self.put_history(commit, version);
        self.put_changes(commit, version);
        self.put_tallies(commit);
        for frontier in &commit.frontiers {
            self.put_frontier(*frontier, version);
        }
        self.repeats.extend(commit.repeats.iter().map(|repeat| (version, repeat.clone())));
        let position = Position { epoch: commit.fence.position.epoch, seq: commit.seq };
        let epochs = self.epochs.len();
        let following = commit.following.clone().map_or(head.following, Arc::new);
        self.marks.push(Mark { position, hlc: commit.hlc, horizon: head.horizon, epochs, following });
        Ok(())
    }

    /// The head, if it is as the leader believes.
    pub(super) fn fence(&self, fence: &Fence, fenced: bool) -> Result<Mark, JournalError> {
        let head = self.marks.last().cloned().ok_or(JournalError::Fenced)?;
        let holds = self.shard == Some(fence.shard) && head.position == fence.position;
        if fenced && !holds { Err(JournalError::Fenced) } else { Ok(head) }
    }

    /// What a database's constraints refuse.
    fn check(&self, commit: &Commit) -> Result<(), JournalError> {
        let mut keys = BTreeSet::new();
        for row in &commit.rows {
            let newest = self.rows.get(&row.row.at).and_then(Cell::newest);
            if newest.is_some_and(|newest| newest.row.dot.position.seq >= row.row.dot.position.seq) {
                return Err(corrupt("a winner that is not newer than the row it replaces"));
            }
            if !keys.insert(&row.row.at) {
                return Err(corrupt("two winners of one entry in one commit"));
            }
        }
        let exists = |at: &EntryKey| self.row(at, self.versions()).is_some();
        if commit.raised.iter().any(|(at, _)| !exists(at) && !keys.contains(at)) {
            return Err(corrupt("a raised version of an entry that does not exist"));
        }
        if commit.stubs.iter().any(|(at, _)| exists(at) || self.stub(at, self.versions()).is_none()) {
            return Err(corrupt("a change of a stub that does not exist"));
        }
        let mut ids = BTreeSet::new();
        let fresh = |row: &HistoryRow| {
            let id = row.stamp.id;
            !self.by_write.contains_key(&id) || commit.withdrawn.contains(&id)
        };
        if !commit.history.iter().all(|row| fresh(row) && ids.insert(row.stamp.id)) {
            return Err(corrupt("a write that the history has already"));
        }
        let known = |id: &WriteId| self.by_write.contains_key(id) || ids.contains(id);
        if !commit.superseded.iter().all(known) {
            return Err(corrupt("a superseded write that the history does not have"));
        }
        let found = |conflict: &Conflict| self.conflicts.iter().any(|known| known.row.id == conflict.id);
        if commit.conflicts.iter().any(found) {
            return Err(corrupt("a conflict that was found before"));
        }
        if !commit.settled.iter().all(|settlement| self.is_undecided(&settlement.what)) {
            return Err(corrupt("a decision about what was decided before"));
        }
        let repeated = |repeat: &Repeat| {
            let same = |known: &Repeat| {
                known.tenant == repeat.tenant && known.change == repeat.change && known.batch == repeat.batch
            };
            self.repeats.iter().any(|(_, known)| same(known))
        };
        if commit.repeats.iter().any(repeated) {
            return Err(corrupt("an answer that was kept before"));
        }
        Ok(())
    }

    fn is_undecided(&self, what: &Waited) -> bool {
        match what {
            Waited::Conflict(id) => self.conflicts.iter().any(|known| {
                let restored = known.settled.newest().is_some_and(|settled| settled.wrote.is_some());
                known.row.id == *id && !restored
            }),
            Waited::Held(id) => self.by_write.get(id).is_some_and(|at| {
                let stored = &self.history[*at];
                stored.row.status == Status::Held && stored.settled.is_none()
            }),
        }
    }

    fn put_entries(&mut self, commit: &Commit, version: usize) {
        for row in &commit.rows {
            self.rows.entry(row.row.at.clone()).or_default().put(version, row.clone());
            self.admitted.insert(row.row.at.clone(), commit.admitted_at);
        }
        self.change_stubs(commit, version);
        for (at, top) in &commit.raised {
            let cell = self.rows.get_mut(at).expect("checked before");
            let mut row = cell.newest().expect("an entry has a row").clone();
            row.top_version = row.top_version.max(*top);
            cell.put(version, row);
        }
        for (scope, digest) in &commit.digests {
            self.digests.entry(scope.clone()).or_default().put(version, *digest);
        }
    }

    fn put_history(&mut self, commit: &Commit, version: usize) {
        for id in &commit.withdrawn {
            let stored = &mut self.history[self.by_write[id]];
            stored.withdrawn = true;
            let place = (stored.row.at.scope.tenant.clone(), stored.row.found_in());
            let writes = &mut self.changes[self.by_change[&place]].writes;
            let before = writes.newest().copied().unwrap_or(0);
            writes.put(version, before.saturating_sub(1));
        }
        for row in &commit.history {
            self.by_write.insert(row.stamp.id, self.history.len());
            self.history.push(Stored {
                since: version,
                row: row.clone(),
                superseded: None,
                settled: None,
                withdrawn: false,
            });
        }
        for id in &commit.superseded {
            let stored = &mut self.history[self.by_write[id]];
            stored.superseded.get_or_insert(version);
        }
        self.conflicts.extend(commit.conflicts.iter().map(|conflict| StoredConflict {
            since: version,
            seq: commit.seq,
            row: conflict.clone(),
            settled: Cell::default(),
        }));
        for settlement in &commit.settled {
            let settled = settlement.settled.clone();
            match &settlement.what {
                Waited::Conflict(id) => {
                    let known = self.conflicts.iter_mut().find(|known| known.row.id == *id);
                    known.expect("checked before").settled.put(version, settled);
                }
                Waited::Held(id) => self.history[self.by_write[id]].settled = Some((version, settled)),
            }
        }
    }

    fn put_changes(&mut self, commit: &Commit, version: usize) {
        for change in &commit.changes {
            let place = (change.tenant.clone(), change.id);
            let number = *self.by_change.entry(place).or_insert(self.changes.len());
            if number == self.changes.len() {
                self.changes.push(StoredChange { row: change.clone(), writes: Cell::default() });
            }
            let writes = &mut self.changes[number].writes;
            let before = writes.newest().copied().unwrap_or(0);
            writes.put(version, before + change.writes);
        }
    }

    fn put_tallies(&mut self, commit: &Commit) {
        for tally in &commit.tallies {
            self.tallies.insert((tally.tenant.clone(), tally.new_epoch, tally.edge), tally.clone());
        }
        for Retold { tenant, change, message } in &commit.retold {
            let number = self.by_change[&(tenant.clone(), *change)];
            self.changes[number].row.message = Some(message.clone());
        }
    }

    fn put_frontier(&mut self, frontier: Frontier, version: usize) {
        let cell = self.frontiers.entry((frontier.edge, frontier.incarnation)).or_default();
        let mut moved = frontier;
        if let Some(before) = cell.newest() {
            moved.last_counter = moved.last_counter.max(before.last_counter);
            moved.session = moved.session.max(before.session);
        }
        cell.put(version, moved);
    }
}

impl Lost {
    fn loss(&self, shard: ShardId) -> Option<Loss> {
        Some(Loss { shard, epoch: self.cut.epoch, cut: self.cut.seq, new_epoch: self.new_epoch? })
    }
}

impl Stored {
    /// As of a version, with the status that it then had.
    pub(super) fn at(&self, version: usize) -> Option<HistoryRow> {
        if self.since > version || self.withdrawn {
            return None;
        }
        let mut row = self.row.clone();
        if self.superseded.is_some_and(|since| since <= version) {
            row.status = Status::SupersededConcurrent;
        }
        if let Some((_, settled)) = self.settled.as_ref().filter(|(since, _)| *since <= version) {
            row.status = if settled.wrote.is_some() { Status::Released } else { Status::Dropped };
            row.settled = Some(settled.clone());
        }
        Some(row)
    }
}

impl StoredConflict {
    /// As of a version.
    pub(super) fn at(&self, version: usize) -> Conflict {
        Conflict { settled: self.settled.at(version).cloned(), ..self.row.clone() }
    }
}

/// The places that a commit takes are the next ones, each once, and its winners stand in them.
fn dense(commit: &Commit) -> Result<(), JournalError> {
    let before = commit.fence.position.seq;
    let given: Vec<u64> = commit.history.iter().filter_map(|row| row.seq).collect();
    let taken: BTreeSet<u64> = given.iter().copied().collect();
    if taken.len() != given.len() || !(before + 1..=commit.seq).eq(taken.iter().copied()) {
        return Err(corrupt("a commit whose places are not dense"));
    }
    let ours = |row: &HubRow| {
        let dot = row.row.dot;
        dot.shard == commit.fence.shard
            && dot.position.epoch == commit.fence.position.epoch
            && taken.contains(&dot.position.seq)
    };
    if !commit.rows.iter().all(ours) {
        return Err(corrupt("a commit with a row in a place that it did not take"));
    }
    Ok(())
}
