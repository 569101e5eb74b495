//! What an edge keeps, and how it is changed: whole batches, durable, in order.

use std::sync::Arc;

use crate::entry::Row;
use crate::feed::{Environments, Feed};
use crate::held::Held;
use crate::name::{EntryKey, Environment, Subtree};
use crate::secret::KeyGrant;
use crate::stamp::{Hlc, Stamp, WriteId};
use crate::time::UnixMillis;
use crate::vector::{ShardId, Vector};
use crate::write::Write;

/// The place of one record. At most one record per slot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// The current row of an entry.
    Row(EntryKey),
    /// A row that arrived in a transfer that has not been switched to.
    Staged(EntryKey),
    /// How much of such a transfer has come.
    Stage(Feed),
    /// The bookkeeping of one feed.
    Feed(Feed),
    /// A write that the hub has not decided, or whose result has not come back in a feed; by counter.
    Pending(u64),
    /// A write that the hub has admitted, kept for a while.
    Kept(WriteId),
    /// The key of a subtree, as the hub sealed it to this edge.
    Grant(Environment, Subtree, u64),
    /// Everything of which there is one.
    State,
}

/// What lies in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Row(Arc<Row>),
    Staged(Arc<Row>),
    Stage(Feed, StageRecord),
    Feed(Feed, FeedRecord),
    Pending(PendingRecord),
    Kept(KeptRecord),
    Grant(KeyGrant),
    State(StateRecord),
}

impl Record {
    /// Where it lies.
    pub fn slot(&self) -> Slot {
        match self {
            Self::Row(row) => Slot::Row(row.at.clone()),
            Self::Staged(row) => Slot::Staged(row.at.clone()),
            Self::Stage(feed, _) => Slot::Stage(feed.clone()),
            Self::Feed(feed, _) => Slot::Feed(feed.clone()),
            Self::Pending(pending) => Slot::Pending(pending.write.id.counter),
            Self::Kept(kept) => Slot::Kept(kept.write.id),
            Self::Grant(grant) => {
                Slot::Grant(grant.environment.clone(), grant.subtree.clone(), grant.key_epoch)
            }
            Self::State(_) => Slot::State,
        }
    }
}

/// How far a feed has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedRecord {
    /// What readers see.
    pub vector: Vector,
    /// The highest that any hub said this feed had come to. Falls only with the hub's statement of lost history.
    pub floor: Vector,
    /// Whether readers may see it: its first transfer has been completed.
    pub ready: bool,
    /// The hub's time of the newest checkpoint accepted, in milliseconds since 1970.
    pub checkpoint_issued_at: u64,
    /// Rows of this feed lie in the stage that readers see already: they are to be moved into their own slots.
    pub folding: bool,
}

/// How much of a feed's part of a transfer is on the disk: written with the last of the rows that it speaks of, and gone before
/// the first of them goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageRecord {
    /// In whose order it came.
    pub shard: ShardId,
    pub held: Held,
    /// The rows lie in their own slots, where nobody reads yet, instead of in the stage.
    pub in_place: bool,
}

/// A write waiting for the hub, or for its own result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRecord {
    pub write: Write,
    /// May have been transmitted: its stamp is fixed.
    pub sent: bool,
    /// A later row of the same key is in the replica: readers see that instead.
    pub hidden: bool,
    /// Decided: gone as soon as the feed's vector covers this.
    pub decided: Option<crate::vector::Dot>,
}

/// A write that only a hub that went back to before can lack: an own one, or a deletion that the hub told of. No reader sees
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRecord {
    pub write: Write,
    /// The hub's wall clock then, as this edge knew it.
    pub kept_at: UnixMillis,
}

/// How much of what a restored hub lacks has been handed in to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedIn {
    /// Under which leadership of the hub. A later one may know nothing of it, where the hub was lost once more.
    pub leadership: u64,
    /// Everything up to this stamp.
    pub through: Stamp,
}

/// Everything of which there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateRecord {
    /// Random, below 2^63; the first commit of a new replica sets it.
    pub incarnation: u64,
    /// Counters below this may have been used.
    pub counter_ceiling: u64,
    /// The last session number used.
    pub session: u64,
    /// The hybrid clock.
    pub hlc: Hlc,
    /// Hub's wall clock minus the edge's, in milliseconds, as of the last handshake.
    pub clock_offset_ms: i64,
    /// The hub's wall clock when it last confirmed anything.
    pub confirmed_at: u64,
    /// The hub's environments, for resolving.
    pub environments: Environments,
    pub default_environment: Option<Environment>,
    /// Where this edge may write.
    pub write: Vec<Subtree>,
    /// The largest time of an own write that the hub has decided. A hub process that is behind may not know of it.
    pub decided_hlc: Hlc,
    /// The last time that there was something to be handed in.
    pub handed_in: Option<HandedIn>,
}

/// Changes that become durable together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub put: Vec<Record>,
    pub remove: Vec<Slot>,
}

impl Batch {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.remove.is_empty()
    }
}

/// Why a replica store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the disk is full")]
    Full,
    #[error("the replica cannot be read or written: {0}")]
    Io(String),
    #[error("the replica is damaged: {0}")]
    Corrupt(String),
}

/// The edge's durable store. Calls block; the daemon makes them on a thread of their own.
pub trait ReplicaStore: Send {
    /// Every record, in no particular order. Of rows, which the hub has too, those that cannot be opened may be left out,
    /// if the store tells that some were.
    ///
    /// # Errors
    /// When the store cannot be read, or any other record cannot be opened.
    fn load(&mut self) -> Result<Vec<Record>, StoreError>;

    /// Writes the batch atomically; durable, also across a power cut, when it returns `Ok`.
    ///
    /// # Errors
    /// When anything failed: then nothing of the batch may be relied on, and nothing after it must be committed.
    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError>;
}
