//! What a batch of writes does to the hub: decided before the transaction, from rows that its fence keeps current.
//!
//! The writer reads the rows of all keys in the batch, plans, and commits what comes out. Nobody else can have written
//! in between, or the commit's fence does not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::digest::ScopeDigest;
use crate::entry::{Author, ChangeId, ChangeType, Content, HistoryRow, HubRow, Metadata, Row, Status};
use crate::limits::CLOCK_EPSILON_MS;
use crate::name::{EntryKey, Scope, Tenant};
use crate::newer::Restored;
use crate::policy::Policies;
use crate::replication::rules::Rules;
use crate::settled::{Settlement, Waited};
use crate::stamp::{ActorId, Clock, Hlc, Stamp, WriteId};
use crate::store::purge::{Stub, StubChange};
use crate::store::region::Following;
use crate::store::{
    ChangeRow, Commit, Conflict, Fence, Frontier, Leadership, Planning, PlanningRequest, Repeat,
};
use crate::time::UnixMillis;
use crate::vector::{Dot, EpochTable, Epochs, Position, ShardId, Vector};
use crate::write::Base;

mod api;
mod contest;
mod copies;
mod newer;
mod region;
mod settle;
mod upload;

pub use api::{
    ApiSubmission, NewSecret, OpAction, OpOutcome, OpRefused, Operation, RepeatKey, SealUnavailable, Sealer,
    SetValue,
};
use copies::KnownWrites;
pub use newer::HandIn;
pub use region::NotFollowed;
pub use settle::{Decision, SettleOutcome, SettleRefused, SettleSubmission, SettledNow, Terms};
pub use upload::Upload;

/// What the leader of a shard carries from one commit to the next.
#[derive(Clone, Debug)]
pub struct Leader {
    shard: ShardId,
    position: Position,
    clock: Clock,
    /// Writes of this leadership so far, for their ids.
    counter: u64,
    following: Following,
    /// The shard's own leaderships.
    own: EpochTable,
}

impl Leader {
    /// Begins where the journal says.
    pub fn new(leadership: &Leadership) -> Self {
        Self {
            shard: leadership.shard,
            position: leadership.position,
            clock: Clock::resume(leadership.hlc),
            counter: 0,
            following: leadership.following.clone(),
            own: leadership.epochs.clone(),
        }
    }

    /// What must be true for the next commit.
    pub fn fence(&self) -> Fence {
        Fence { shard: self.shard, position: self.position }
    }

    /// All that is in the shard's order so far, of this region and of others.
    pub fn vector(&self) -> Vector {
        self.following.regions.clone().with(self.shard, self.position)
    }

    /// The leaderships of this shard and of those that it follows.
    pub fn epochs(&self) -> Epochs {
        self.following.epochs.clone().with(self.shard, self.own.clone())
    }

    /// How far other regions are followed.
    pub fn following(&self) -> &Following {
        &self.following
    }

    /// The hub's hybrid clock.
    pub fn hlc(&self) -> Hlc {
        self.clock.last()
    }
}

/// Plans one commit. Submissions are judged in the order they are given, each seeing the ones before it.
#[derive(Clone, Debug)]
pub struct Planner {
    leader: Leader,
    physical: UnixMillis,
    epsilon_ms: u64,
    rules: Rules,
    policies: Policies,
    known_conflicts: BTreeMap<Uuid, Conflict>,
    known_past: BTreeMap<WriteId, HistoryRow>,
    rows: BTreeMap<EntryKey, HubRow>,
    /// Keys whose row in `rows` is only a stub in the journal.
    stubs: BTreeSet<EntryKey>,
    /// Keys whose row is a winner of this commit.
    won: BTreeSet<EntryKey>,
    raised: BTreeSet<EntryKey>,
    digests: BTreeMap<Scope, ScopeDigest>,
    touched: BTreeSet<Scope>,
    frontiers: BTreeMap<(ActorId, u64), Frontier>,
    moved: BTreeSet<(ActorId, u64)>,
    known_writes: KnownWrites,
    known_repeats: Vec<Repeat>,
    history: Vec<HistoryRow>,
    superseded: Vec<WriteId>,
    conflicts: Vec<Conflict>,
    settled: Vec<Settlement>,
    changes: BTreeMap<(Tenant, ChangeId), ChangeRow>,
    repeats: Vec<Repeat>,
    withdrawn: Vec<WriteId>,
    /// Another region was read on.
    followed: bool,
    epochs: Epochs,
    /// Losses that edges hand something in of, by tenant and the leadership after each.
    restored: BTreeMap<(Tenant, u64), Restored>,
    /// Edges whose tally has changed.
    tallied: BTreeMap<(Tenant, u64), BTreeSet<ActorId>>,
    fence: Fence,
}

/// Something to be admitted, as the writer queues it.
#[derive(Debug)]
pub enum Submission {
    Api(ApiSubmission),
    Upload(Upload),
    HandIn(HandIn),
}

impl Submission {
    /// What [`Planner::new`] must be given for this submission, added to what others need.
    pub fn needs(&self, request: &mut PlanningRequest) {
        match self {
            Self::Api(api) => api.needs(request),
            Self::Upload(upload) => upload.needs(request),
            Self::HandIn(hand_in) => hand_in.needs(request),
        }
    }

    /// How many writes it holds.
    pub fn writes(&self) -> usize {
        match self {
            Self::Api(api) => api.operations.len(),
            Self::Upload(upload) => upload.writes.len(),
            Self::HandIn(hand_in) => hand_in.writes.len(),
        }
    }
}

/// A write that has been judged and takes its place.
struct Entering {
    at: EntryKey,
    stamp: Stamp,
    claimed_hlc: Option<Hlc>,
    content: Content,
    content_hash: [u8; 32],
    author: Author,
    made_at: UnixMillis,
    message: Option<Arc<str>>,
    change: ChangeId,
    returned_in: Option<ChangeId>,
    tags: Option<Vec<Arc<str>>>,
    description: Option<Arc<str>>,
    rollback: bool,
    context: Vector,
    base: Option<Base>,
    /// What another region has made of it already.
    known: Option<Known>,
}

/// What another region says of a write that it has admitted.
struct Known {
    origin: Option<Dot>,
    metadata: Option<Metadata>,
}

impl Planner {
    /// `planning` must hold what the submissions need; `physical` is the database's clock or the leader's.
    pub fn new(leader: &Leader, planning: Planning, physical: UnixMillis) -> Self {
        let stubs = planning.stubs.iter().map(|stub| stub.at.clone()).collect();
        let rows = planning.rows.into_iter().chain(planning.stubs.into_iter().map(Stub::tombstone));
        Self {
            leader: leader.clone(),
            physical,
            epsilon_ms: CLOCK_EPSILON_MS,
            rules: Rules::ALL,
            policies: planning.policies,
            known_conflicts: planning.conflicts.into_iter().map(|known| (known.id, known)).collect(),
            known_past: planning.past.into_iter().map(|row| (row.stamp.id, row)).collect(),
            rows: rows.map(|row| (row.row.at.clone(), row)).collect(),
            stubs,
            won: BTreeSet::new(),
            raised: BTreeSet::new(),
            digests: planning.digests.into_iter().collect(),
            touched: BTreeSet::new(),
            frontiers: planning.frontiers.into_iter().map(|f| ((f.edge, f.incarnation), f)).collect(),
            moved: BTreeSet::new(),
            known_writes: KnownWrites::new(planning.known_writes),
            known_repeats: planning.repeats,
            history: Vec::new(),
            superseded: Vec::new(),
            conflicts: Vec::new(),
            settled: Vec::new(),
            changes: BTreeMap::new(),
            repeats: Vec::new(),
            withdrawn: Vec::new(),
            followed: false,
            epochs: leader.epochs(),
            restored: planning
                .restored
                .into_iter()
                .map(|(tenant, restored)| ((tenant, restored.loss.new_epoch), restored))
                .collect(),
            tallied: BTreeMap::new(),
            fence: leader.fence(),
        }
    }

    /// The same with another bound for clocks that are ahead.
    pub fn with_epsilon(mut self, epsilon_ms: u64) -> Self {
        self.epsilon_ms = epsilon_ms;
        self
    }

    /// The same under other rules.
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// The commit, and the leader as it will be once that is durable. None when nothing is to be written.
    pub fn finish(self) -> Option<(Commit, Leader)> {
        let nothing = self.history.is_empty() && self.settled.is_empty();
        let nothing = nothing && self.tallied.is_empty() && !self.followed;
        if nothing && self.moved.is_empty() && self.repeats.is_empty() {
            return None;
        }
        let (tallies, retold) = self.tallies();
        let rows = self.won.iter().map(|at| self.rows[at].clone()).collect();
        let raised = self.raised.iter().filter(|at| !self.won.contains(*at) && !self.stubs.contains(*at));
        let stubs = self.stubs.iter().filter_map(|at| Some((at.clone(), self.stub_change(at)?)));
        let commit = Commit {
            fence: self.fence,
            seq: self.leader.position.seq,
            hlc: self.leader.clock.last(),
            admitted_at: self.physical,
            rows,
            raised: raised.map(|at| (at.clone(), self.rows[at].top_version)).collect(),
            stubs: stubs.collect(),
            history: self.history,
            superseded: self.superseded,
            conflicts: self.conflicts,
            settled: self.settled,
            frontiers: self.moved.iter().map(|edge| self.frontiers[edge]).collect(),
            digests: self.touched.iter().map(|scope| (scope.clone(), self.digests[scope])).collect(),
            changes: self.changes.into_values().filter(|change| change.writes > 0).collect(),
            retold,
            repeats: self.repeats,
            withdrawn: self.withdrawn,
            following: self.followed.then(|| self.leader.following.clone()),
            tallies,
        };
        Some((commit, self.leader))
    }

    fn stub_change(&self, at: &EntryKey) -> Option<StubChange> {
        if self.won.contains(at) {
            return Some(StubChange::Replaced);
        }
        self.raised.contains(at).then(|| StubChange::Raised(self.rows[at].top_version))
    }

    /// The id of the hub's next write.
    fn next_write_id(&self) -> WriteId {
        WriteId {
            actor: ActorId(self.leader.shard.0),
            incarnation: self.leader.position.epoch,
            counter: self.leader.counter + 1,
        }
    }

    fn hub_write_id(&mut self) -> WriteId {
        let id = self.next_write_id();
        self.leader.counter = id.counter;
        id
    }

    /// A write as the history has it, with what this commit makes of it.
    fn past_of(&self, id: WriteId) -> Option<&HistoryRow> {
        let planned = self.history.iter().find(|known| known.stamp.id == id);
        planned.or_else(|| self.known_past.get(&id).filter(|_| !self.withdrawn.contains(&id)))
    }

    /// A write that was set aside is admitted after all: its place in the history is taken by that, and what a person decided
    /// about it in this same commit is of no more use.
    fn take_back(&mut self, id: WriteId) {
        self.settled.retain(|settlement| settlement.what != Waited::Held(id));
        let Some(at) = self.history.iter().position(|known| known.stamp.id == id) else {
            return self.withdrawn.push(id);
        };
        let row = self.history.remove(at);
        let place = (row.at.scope.tenant.clone(), row.found_in());
        self.changes.entry(place).and_modify(|change| change.writes -= 1);
    }

    /// The version that the next admitted write of this entry takes.
    fn next_version(&self, at: &EntryKey) -> u64 {
        self.rows.get(at).map_or(0, |row| row.top_version) + 1
    }

    /// Makes the write the entry's current row.
    fn win(&mut self, entering: Entering, version: u64) -> &HubRow {
        self.leader.position.seq += 1;
        let position = self.leader.position;
        let before = self.rows.get(&entering.at);
        let live_before = before.filter(|row| row.row.content.is_live());
        let change_type = match (&entering.content, live_before) {
            (Content::Deleted, _) => ChangeType::Delete,
            _ if entering.rollback => ChangeType::Rollback,
            (_, None) => ChangeType::Create,
            (_, Some(_)) => ChangeType::Update,
        };
        let was_plain = before.is_some_and(|row| matches!(row.row.content, Content::Plain(_)));
        let plain_seq = match entering.content {
            Content::Plain(_) => position.seq,
            Content::Secret(_) | Content::Deleted if was_plain => position.seq,
            Content::Secret(_) | Content::Deleted => before.map_or(0, |row| row.plain_seq),
        };
        let row = Row {
            at: entering.at.clone(),
            dot: Dot { shard: self.leader.shard, position },
            stamp: entering.stamp,
            version,
            content: entering.content.clone(),
            metadata: metadata(&entering, live_before.map(|row| &row.row.metadata)),
            change: entering.change,
        };
        let hub_row = HubRow {
            row,
            top_version: before.map_or(0, |row| row.top_version).max(version),
            plain_seq,
            context: entering.context.clone(),
            base: entering.base,
            origin: entering.origin(),
        };
        self.exchange_digest(&hub_row);
        self.record(&entering, version, change_type, Status::Applied, None, Some(position.seq));
        self.won.insert(entering.at.clone());
        self.rows.insert(entering.at.clone(), hub_row);
        &self.rows[&entering.at]
    }

    /// Takes the old row's part out of its scope's digest and puts the new one's in.
    fn exchange_digest(&mut self, row: &HubRow) {
        let scope = &row.row.at.scope;
        let before = self.rows.get(&row.row.at);
        let digest = self.digests.entry(scope.clone()).or_default();
        if let Some(before) = before {
            digest.remove(&before.row);
        }
        digest.add(&row.row);
        digest.last_seq = row.row.dot.position.seq;
        if row.plain_seq == row.row.dot.position.seq {
            digest.plain_last_seq = row.row.dot.position.seq;
        }
        self.touched.insert(scope.clone());
    }

    fn record(
        &mut self,
        entering: &Entering,
        version: u64,
        change_type: ChangeType,
        status: Status,
        reason: Option<Arc<str>>,
        seq: Option<u64>,
    ) {
        self.history.push(HistoryRow {
            at: entering.at.clone(),
            version,
            stamp: entering.stamp,
            claimed_hlc: entering.claimed_hlc,
            content: entering.content.clone(),
            content_hash: entering.content_hash,
            author: entering.author.clone(),
            created_at: entering.made_at,
            message: entering.message.clone(),
            change_type,
            change: entering.change,
            returned_in: entering.returned_in,
            status,
            reason,
            seq,
            context: entering.context.clone(),
            base: entering.base,
            settled: None,
            origin: entering.origin(),
        });
        let (tenant, id) = (&entering.at.scope.tenant, entering.returned_in.unwrap_or(entering.change));
        let place = (tenant.clone(), id);
        self.changes.entry(place).or_insert_with(|| entering.begin_change()).writes += 1;
    }
}

impl Entering {
    fn origin(&self) -> Option<Dot> {
        self.known.as_ref().and_then(|known| known.origin)
    }

    /// The change that people find it in, still without writes. That of a loss is begun where the hub was restored; another
    /// region only hears of it.
    fn begin_change(&self) -> ChangeRow {
        let tenant = self.at.scope.tenant.clone();
        match self.returned_in {
            Some(id) => newer::begin_change(tenant, id, self.made_at, newer::ELSEWHERE.into()),
            None => ChangeRow {
                id: self.change,
                tenant,
                created_at: self.made_at,
                author: self.author.name.clone(),
                message: self.message.clone(),
                writes: 0,
            },
        }
    }
}

fn metadata(entering: &Entering, live_before: Option<&Metadata>) -> Metadata {
    if let Some(known) = entering.known.as_ref().and_then(|known| known.metadata.clone()) {
        return known;
    }
    let (created_at, created_by) = match live_before {
        Some(before) => (before.created_at, before.created_by.clone()),
        None => (entering.made_at, entering.author.name.clone()),
    };
    let kept = |field: fn(&Metadata) -> Option<Arc<str>>| live_before.and_then(field);
    Metadata {
        created_at,
        created_by,
        updated_at: entering.made_at,
        updated_by: entering.author.name.clone(),
        tags: entering
            .tags
            .clone()
            .unwrap_or_else(|| live_before.map_or_else(Vec::new, |before| before.tags.clone())),
        description: entering.description.clone().or_else(|| kept(|before| before.description.clone())),
    }
}

#[cfg(test)]
mod tests;
