//! What goes into the edge's half of replication, and what comes out of it.

use std::sync::Arc;

use super::{Carried, Exported, NotTaken};
use crate::entry::{Author, ChangeId, Row};
use crate::feed::{Environments, Feed};
use crate::name::{EntryKey, Environment, Tenant};
use crate::newer::Taken;
use crate::replication::frame::{EdgeFrame, HubFrame, Refusal, Request, Response};
use crate::secret::KeyGrant;
use crate::segment::{Rejected, VerificationKeys};
use crate::stamp::ActorId;
use crate::store::replica::{Batch, Record, StoreError};
use crate::time::UnixMillis;
use crate::vector::Vector;
use crate::write::{Action, Verdict, Write};

/// Who this edge is, as the hub wrote it at enrolment.
#[derive(Clone, Debug)]
pub struct Identity {
    pub edge: ActorId,
    pub tenant: Tenant,
    pub keys: VerificationKeys,
}

/// A write by somebody on this machine.
#[derive(Clone, Debug)]
pub struct LocalWrite {
    /// Comes back with the answer.
    pub ticket: u64,
    pub at: EntryKey,
    pub action: Action,
    pub author: Author,
    pub message: Option<Arc<str>>,
    pub change: ChangeId,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The stream asked for is open. `spare` (random, below 2^63, drawn for this stream) becomes the incarnation if the
    /// hub finds that this replica is a copy: of two that run, neither must know the other's.
    Connected {
        spare: u64,
    },
    /// The stream has ended, or could not be opened.
    Disconnected,
    Frame(HubFrame),
    /// The oldest batch that was not yet answered is durable.
    Committed,
    /// It is not, and nothing after it was tried.
    CommitFailed(StoreError),
    Write(LocalWrite),
    /// A request that only the hub can answer.
    Call {
        ticket: u64,
        request: Request,
    },
    /// Somebody wants to know how far the hub has come, now.
    Ask,
    /// Try to reach the hub now instead of waiting.
    ConnectNow,
    /// All that lies on the disk, read when every batch that was answered before was durable, and none after.
    Reread(Vec<Record>),
    /// The answer to [`Output::Recall`]: all that lies on the disk, or what it holds of kept writes.
    Recalled(Vec<Record>),
    /// A file of frames was brought by hand; they follow, and what became of them is told by [`Output::Carried`].
    Carried(Box<Carried>),
    /// Somebody wants to carry to the hub what waits for it.
    Export,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Connect,
    Disconnect,
    Send(EdgeFrame),
    Commit(Batch),
    /// Kept writes are wanted, as they are once every batch before this is durable.
    Recall,
    /// Readers see this from now on, all at once.
    Publish(Published),
    /// The write is durable here and waits for the hub. `place` counts from 1.
    Queued {
        ticket: u64,
        counter: u64,
        place: u64,
    },
    /// The write was not taken.
    WriteRefused {
        ticket: u64,
        reason: WriteRefused,
    },
    /// The hub has decided the write with this counter.
    Decided {
        counter: u64,
        at: EntryKey,
        verdict: Verdict,
    },
    Replied {
        ticket: u64,
        response: Response,
    },
    /// The hub cannot be asked now.
    CallFailed {
        ticket: u64,
    },
    /// What was brought by hand is durable and readers see it, or why nothing of it was taken.
    Carried(Result<(), NotTaken>),
    /// The answer to [`Input::Export`].
    Exported(Result<Box<Exported>, NotTaken>),
    Alert(Alert),
}

/// Changes to what readers see.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Published {
    /// Rows that came, changed or went.
    pub rows: Vec<(EntryKey, Option<Arc<Row>>)>,
    /// Pending writes that readers see instead of a row, or no longer.
    pub pending: Vec<(EntryKey, Option<Write>)>,
    /// How far each feed has come; none for one that is not received any more.
    pub feeds: Vec<(Feed, Option<Vector>)>,
    pub environments: Option<(Environments, Option<Environment>)>,
    pub grants: Vec<KeyGrant>,
    /// The hub confirmed all this at this time of its clock.
    pub confirmed_at: Option<UnixMillis>,
    pub pending_count: usize,
    /// Feeds in which something may be missing, until they are next named in `feeds`.
    pub doubted: Vec<Feed>,
}

/// Why a local write was not taken. Nothing of it was kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteRefused {
    #[error("this edge may not write in namespace {0}")]
    Namespace(crate::name::Namespace),
    #[error("environment {0} is not known here")]
    Environment(Environment),
    #[error("the key holds a secret; secrets are written through the hub, when it can be reached")]
    Secret,
    #[error("{waiting} writes wait for the hub already, and no more are taken")]
    Full { waiting: usize },
    #[error("the write could not be stored: {0}")]
    Store(#[from] StoreError),
}

/// Something that a person may want to know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Alert {
    #[error("the hub does not serve this edge now: {0}")]
    Refused(Refusal),
    #[error("something from the hub was not taken: {0}")]
    Rejected(Rejected),
    #[error("the replica of {0:?} differs from the hub and is put right")]
    Differs(Box<Feed>),
    #[error("entries of {feed:?} that differed from the hub were put right: {entries}")]
    Repaired { feed: Box<Feed>, entries: usize },
    #[error(
        "entries on this machine's disk that were not as they had been written were written anew: {entries}"
    )]
    Rewritten { entries: usize },
    #[error("the hub holds write {counter} for a person to decide")]
    Held { counter: u64 },
    #[error("the hub did not admit write {counter}: {reason}")]
    Denied { counter: u64, reason: crate::write::Denial },
    #[error(
        "the hub was restored from a backup: what it lost is dropped here, and everything is fetched anew"
    )]
    LostHistory,
    #[error(
        "the hub, restored from a backup, was given what it lacked: {} writes that it knew, {} taken, {} held for a person, \
         {} not kept; secrets that it cannot open any more: {}",
        .0.known, .0.admitted, .0.held, .0.denied + .0.discarded + .0.refused, .0.left_out
    )]
    HandedIn(Taken),
    #[error(
        "the data of this edge was copied, or set back to an earlier state; it goes on under an identity of its own, \
         and {again} writes that wait are sent again"
    )]
    Copied { again: usize },
    #[error("nothing was heard from the hub for too long")]
    Silent,
    #[error("the replica's disk failed: {0}")]
    Store(StoreError),
}
