//! The seams to durable storage: the hub's journal and the edge's replica store.
//!
//! Each has one conformance suite, in `tests`, that every implementation passes: SQLite, PostgreSQL and the simulator's
//! journal; sled and the simulator's failing disk.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use uuid::Uuid;

use crate::digest::ScopeDigest;
use crate::entry::{ChangeId, ChangeType, Content, HistoryRow, HubRow};
use crate::feed::Feed;
use crate::limits::PATCH_BYTES_MIN;
use crate::name::{EntryKey, Environment, Key, Namespace, Scope, Subtree, Tenant};
use crate::newer::{Restored, Tally};
use crate::policy::Policies;
use crate::settled::{ConflictState, Settled, Settlement};
use crate::stamp::{ActorId, Hlc, WriteId};
use crate::time::UnixMillis;
use crate::value::Value;
use crate::vector::{Dot, EpochTable, Epochs, Position, ShardId, Vector};

pub mod fleet;
pub mod purge;
pub mod region;
pub mod replica;

use region::{Following, RegionAsk, RegionPage};

use purge::{Purge, Purged, Stub, StubChange};

/// Why the journal did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Somebody else writes now, or the database went back: this process must stop writing and take the lead anew.
    #[error("another process leads this hub's database, or the database was set back")]
    Fenced,
    /// Nothing is known to be wrong with the data; the database cannot be reached or refuses.
    #[error("the database cannot be used: {0}")]
    Unavailable(String),
    /// What was read breaks an invariant.
    #[error("the database holds something that it must not: {0}")]
    Corrupt(String),
}

/// The state of a shard at the moment that its leadership was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    pub shard: ShardId,
    /// The epoch just appended, with the head's seq.
    pub position: Position,
    pub hlc: Hlc,
    /// The shard's own leaderships, this one the newest.
    pub epochs: EpochTable,
    /// How far other regions were followed.
    pub following: Following,
}

/// How far a shard has come, in one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub shard: ShardId,
    pub position: Position,
    pub hlc: Hlc,
    /// Deletions up to this seq may have been purged: who has not come so far cannot be sent changes alone.
    pub horizon: u64,
    /// Of this shard and of those that are followed.
    pub epochs: Epochs,
    /// How much of other shards is in this one's order up to here.
    pub regions: Vector,
}

impl Head {
    /// The leaderships of this shard.
    pub fn own_epochs(&self) -> EpochTable {
        self.epochs.get(self.shard).cloned().unwrap_or_default()
    }

    /// All that is in the order up to here, of this shard and of others.
    pub fn vector(&self) -> Vector {
        self.regions.clone().with(self.shard, self.position)
    }
}

/// A part of a shard's history that is gone: the database was filled from a backup, and what was written after the backup
/// is nowhere but, perhaps, with those who were told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    pub shard: ShardId,
    /// The last leadership that is known, and its last seq.
    pub epoch: u64,
    pub cut: u64,
    /// The leadership that began after it.
    pub new_epoch: u64,
}

/// The last write of one edge incarnation that was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontier {
    pub edge: ActorId,
    pub incarnation: u64,
    pub last_counter: u64,
    pub session: u64,
}

/// What the planner has to know before a transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planning {
    /// Current rows, tombstones included, of the keys asked for that have one.
    pub rows: Vec<HubRow>,
    /// What is left of the deletions of keys asked for that have no row any more.
    pub stubs: Vec<Stub>,
    pub digests: Vec<(Scope, ScopeDigest)>,
    pub frontiers: Vec<Frontier>,
    /// Answers to batches that were repeated, by (tenant, change, batch).
    pub repeats: Vec<Repeat>,
    /// Writes in the history that an edge gave a number asked about, under any of its incarnations, with their content
    /// hashes.
    pub known_writes: Vec<(WriteId, [u8; 32])>,
    /// Of the tenants asked for.
    pub policies: Policies,
    /// Conflicts and writes of the history, for those asked about.
    pub conflicts: Vec<Conflict>,
    pub past: Vec<HistoryRow>,
    /// Losses asked about, those that there were, each with what edges of the tenant have handed in of it.
    pub restored: Vec<(Tenant, Restored)>,
}

/// What [`Journal::planning`] is asked for.
#[derive(Clone, Debug, Default)]
pub struct PlanningRequest {
    pub keys: Vec<EntryKey>,
    pub frontiers: Vec<(ActorId, u64)>,
    pub repeats: Vec<(Tenant, ChangeId, u64)>,
    /// Edges and counters.
    pub writes: Vec<(ActorId, u64)>,
    pub policies: Vec<Tenant>,
    pub conflicts: Vec<Uuid>,
    pub past: Vec<WriteId>,
    /// Losses by the leadership that began after each, and tenants.
    pub restored: Vec<(Tenant, u64)>,
}

/// The answer to a batch of a caller's own change, kept so that a repeated request gets it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeat {
    pub tenant: Tenant,
    pub change: ChangeId,
    pub batch: u64,
    /// SHA-256 of the request: a repeat with other content is refused.
    pub request_hash: [u8; 32],
    /// The answer, in the API's own form.
    pub answer: Arc<str>,
}

/// A change as people see it in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRow {
    pub id: ChangeId,
    pub tenant: Tenant,
    pub created_at: UnixMillis,
    pub author: Arc<str>,
    pub message: Option<Arc<str>>,
    /// How many writes it has had so far.
    pub writes: u64,
}

impl ChangeRow {
    /// A change that is known by its writes alone: the hub lost it, and edges brought them back. None where there are none.
    pub fn of_writes(id: ChangeId, writes: &[HistoryRow]) -> Option<Self> {
        let first = writes.first()?;
        Some(Self {
            id,
            tenant: first.at.scope.tenant.clone(),
            created_at: first.created_at,
            author: first.author.name.clone(),
            message: first.message.clone(),
            writes: writes.len() as u64,
        })
    }
}

/// What a change says of itself from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retold {
    pub tenant: Tenant,
    pub change: ChangeId,
    pub message: Arc<str>,
}

/// Two concurrent writes of one entry, one of which lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub id: Uuid,
    pub at: EntryKey,
    pub winner: WriteId,
    pub loser: WriteId,
    pub winner_version: u64,
    pub loser_version: u64,
    pub detected_at: UnixMillis,
    /// None while nobody has decided about it.
    pub settled: Option<Settled>,
}

/// What must still be true when a commit begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    pub shard: ShardId,
    /// The leader's epoch and the last seq that it committed.
    pub position: Position,
}

/// Everything that one group commit writes, decided beforehand, in one transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    pub fence: Fence,
    /// The head afterwards.
    pub seq: u64,
    pub hlc: Hlc,
    /// The hub's wall clock when all this was decided: the age of a deletion counts from it, whatever its author's
    /// clock said.
    pub admitted_at: UnixMillis,
    /// Winners: each replaces its entry's current row. At most one per key.
    pub rows: Vec<HubRow>,
    /// Entries whose loser took a version: only the highest version rises.
    pub raised: Vec<(EntryKey, u64)>,
    pub stubs: Vec<(EntryKey, StubChange)>,
    pub history: Vec<HistoryRow>,
    /// Writes in the history that were applied and have now lost to a concurrent one: their status changes. They may
    /// be in `history` of the same commit.
    pub superseded: Vec<WriteId>,
    pub conflicts: Vec<Conflict>,
    /// What people decided: each of these was open until now, except that a dismissed conflict may be restored.
    pub settled: Vec<Settlement>,
    pub frontiers: Vec<Frontier>,
    pub digests: Vec<(Scope, ScopeDigest)>,
    /// New changes, and writes added to known ones: `writes` counts those of this commit.
    pub changes: Vec<ChangeRow>,
    /// Known changes that say something else of themselves from now on.
    pub retold: Vec<Retold>,
    pub repeats: Vec<Repeat>,
    /// Held or denied writes that another region has admitted: their place in the history is taken by that.
    pub withdrawn: Vec<WriteId>,
    /// How far other regions are followed with this commit; none where that does not change.
    pub following: Option<Following>,
    /// What edges have handed in so far, those of whom that has changed.
    pub tallies: Vec<Tally>,
}

/// One feed as of one snapshot, from a position on.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedRows {
    pub feed: Feed,
    /// Rows of the feed's part of the tenant with a seq above where the head serves the receiver from, tombstones and
    /// secrets included, unordered.
    pub rows: Vec<HubRow>,
    /// What some of these entries held at `from`, where that and the row are plain and [`Base::is_worth`] it.
    pub bases: BTreeMap<EntryKey, Base>,
    /// Of every scope in the feed.
    pub digest: ScopeDigest,
}

/// An earlier value of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The seq under which it was written.
    pub seq: u64,
    pub value: Value,
}

impl Base {
    /// Whether it is worth the reading to look for a row's earlier value: a small one travels whole.
    pub fn is_worth(row: &HubRow, from: &Vector) -> bool {
        let large = match &row.row.content {
            Content::Plain(value) => value.as_str().len() >= PATCH_BYTES_MIN,
            Content::Secret(_) | Content::Deleted => false,
        };
        large
            && row.row.version > 1
            && row.row.dot.position.seq > from.seq(row.row.dot.shard)
            && !from.is_empty()
    }
}

/// Feeds read in one repeatable-read snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedSnapshot {
    pub head: Head,
    pub feeds: Vec<FeedRows>,
}

/// Something read, and how far the database had come in the same snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<T> {
    pub head: Vector,
    pub value: T,
}

/// Which entries to list; all conditions hold together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    pub tenant: Tenant,
    pub environment: Environment,
    /// With `recursive`, everything below the namespace as well.
    pub subtree: Subtree,
    pub recursive: bool,
    pub key_prefix: Option<String>,
    /// Continue after this entry, in the order of (namespace, key).
    pub after: Option<(Namespace, Key)>,
    pub limit: usize,
}

/// Which of many to show, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Opaque number from the page before; none for the newest.
    pub before: Option<u64>,
    pub limit: usize,
}

/// A page of rows with the number to continue at, if there are more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paged<T> {
    pub rows: Vec<T>,
    pub next: Option<u64>,
}

/// An applied change of one entry, for those who follow the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: EntryKey,
    pub dot: Dot,
    pub version: u64,
    pub change: ChangeId,
    pub change_type: ChangeType,
    pub secret: bool,
    pub author: Arc<str>,
    pub created_at: UnixMillis,
}

/// The hub's durable order of writes.
///
/// One process leads: it calls [`lead`](Self::lead), then [`append`](Self::append) with the position that it last
/// committed; a commit whose fence does not hold changes nothing and fails with [`JournalError::Fenced`]. Everything
/// else may be called by any process at any time and sees only whole commits.
pub trait Journal: Send + Sync + 'static {
    /// Begins a leadership: appends `epoch` (random, below 2^63) to the shard's epochs in a transaction that locks the
    /// head. The first call of all creates the shard with `new_shard`.
    fn lead(
        &self,
        epoch: u64,
        new_shard: ShardId,
    ) -> impl Future<Output = Result<Leadership, JournalError>> + Send;

    /// Current rows, digests, frontiers and repeats for a batch about to be planned.
    fn planning(
        &self,
        request: &PlanningRequest,
    ) -> impl Future<Output = Result<Planning, JournalError>> + Send;

    /// Writes a commit in one transaction, fence first; durable when it returns `Ok`.
    fn append(&self, commit: &Commit) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// What was ever lost of this shard, newest first, once somebody has led it since.
    fn losses(&self) -> impl Future<Output = Result<Vec<Loss>, JournalError>> + Send;

    /// How far the shard has come.
    fn head(&self) -> impl Future<Output = Result<Head, JournalError>> + Send;

    /// How far other regions are followed.
    fn following(&self) -> impl Future<Output = Result<Following, JournalError>> + Send;

    /// What another region has not read yet, in the order in which it was decided here, and how far this hub has come;
    /// at most `limit` writes, of which those that it has already are left out.
    fn region_page(
        &self,
        ask: &RegionAsk,
        limit: usize,
    ) -> impl Future<Output = Result<RegionPage, JournalError>> + Send;

    /// Turns old deletions into stubs in one transaction, fence first, and raises the horizon in it to the newest of
    /// them. Only the process that leads does this, between two commits; the head does not move.
    fn purge(&self, purge: &Purge) -> impl Future<Output = Result<Purged, JournalError>> + Send;

    /// All the feeds in one repeatable-read snapshot, each from the seq that its vector has in this shard, or whole where
    /// that lies below the snapshot's horizon.
    fn read_feeds(
        &self,
        feeds: &[(Feed, Vector)],
    ) -> impl Future<Output = Result<FeedSnapshot, JournalError>> + Send;

    /// The current row of each key, in the order asked, tombstones included that were not purged.
    fn entries(
        &self,
        keys: &[EntryKey],
    ) -> impl Future<Output = Result<Read<Vec<Option<HubRow>>>, JournalError>> + Send;

    /// Live rows in the order of (namespace, key).
    fn list(&self, listing: &Listing)
    -> impl Future<Output = Result<Read<Vec<HubRow>>, JournalError>> + Send;

    /// The history of one entry, newest first.
    fn history(
        &self,
        at: &EntryKey,
        page: Page,
    ) -> impl Future<Output = Result<Read<Paged<HistoryRow>>, JournalError>> + Send;

    /// One admitted version of an entry; where several shards gave the same number, the winner's.
    fn version(
        &self,
        at: &EntryKey,
        version: u64,
    ) -> impl Future<Output = Result<Option<HistoryRow>, JournalError>> + Send;

    /// The changes of a tenant, newest first.
    fn changes(
        &self,
        tenant: &Tenant,
        page: Page,
    ) -> impl Future<Output = Result<Paged<ChangeRow>, JournalError>> + Send;

    /// The writes of one change, in the order they were decided.
    fn change(
        &self,
        tenant: &Tenant,
        change: ChangeId,
    ) -> impl Future<Output = Result<Option<(ChangeRow, Vec<HistoryRow>)>, JournalError>> + Send;

    /// Conflicts of a tenant in that state, or in any, newest first.
    fn conflicts(
        &self,
        tenant: &Tenant,
        state: Option<ConflictState>,
        page: Page,
    ) -> impl Future<Output = Result<Paged<Conflict>, JournalError>> + Send;

    /// One conflict of a tenant.
    fn conflict(
        &self,
        tenant: &Tenant,
        id: Uuid,
    ) -> impl Future<Output = Result<Option<Conflict>, JournalError>> + Send;

    /// Where one who follows conflicts begins: the number of the last that was found before the shard came to `seq`,
    /// or of the last of all.
    fn conflict_mark(
        &self,
        tenant: &Tenant,
        seq: Option<u64>,
    ) -> impl Future<Output = Result<u64, JournalError>> + Send;

    /// Conflicts of a tenant with a number above `after`, oldest first, at most `limit`, with their numbers.
    fn conflicts_after(
        &self,
        tenant: &Tenant,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(u64, Conflict)>, JournalError>> + Send;

    /// Writes of a tenant that wait for a person, newest first.
    fn held(
        &self,
        tenant: &Tenant,
        page: Page,
    ) -> impl Future<Output = Result<Paged<HistoryRow>, JournalError>> + Send;

    /// Where one who follows held writes begins: the number of the last write of the history.
    fn held_mark(&self) -> impl Future<Output = Result<u64, JournalError>> + Send;

    /// Writes of a tenant that wait for a person with a number above `after`, oldest first, at most `limit`, with their
    /// numbers.
    fn held_after(
        &self,
        tenant: &Tenant,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(u64, HistoryRow)>, JournalError>> + Send;

    /// The write of a tenant that is or was held under this id.
    fn held_write(
        &self,
        tenant: &Tenant,
        id: Uuid,
    ) -> impl Future<Output = Result<Option<HistoryRow>, JournalError>> + Send;

    /// The writes of these ids, those that the history has, in no certain order.
    fn writes(&self, ids: &[WriteId]) -> impl Future<Output = Result<Vec<HistoryRow>, JournalError>> + Send;

    /// Applied changes of a tenant with a seq above `after`, oldest first, at most `limit`.
    fn events_after(
        &self,
        tenant: &Tenant,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Event>, JournalError>> + Send;
}
