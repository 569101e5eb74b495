//! Writes on their way: made at an edge, not yet in the hub's order.

use std::sync::Arc;

use crate::entry::{Author, ChangeId, Content};
use crate::name::EntryKey;
use crate::secret::SealedSecret;
use crate::stamp::{Hlc, Stamp, WriteId};
use crate::time::UnixMillis;
use crate::value::Value;
use crate::vector::{Dot, Vector};

/// What a write at an edge does. No secret is written there: the hub orders them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Set {
        value: Value,
        tags: Option<Vec<Arc<str>>>,
        description: Option<Arc<str>>,
    },
    Delete,
    /// A secret that the hub wrote and lost, as the replica has it: only in what is handed in.
    Sealed(SealedSecret),
}

impl Action {
    /// What the entry holds afterwards.
    pub fn content(&self) -> Content {
        match self {
            Self::Set { value, .. } => Content::Plain(value.clone()),
            Self::Delete => Content::Deleted,
            Self::Sealed(sealed) => Content::Secret(sealed.clone()),
        }
    }
}

/// A write made at an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub id: WriteId,
    /// Fixed before the first transmission, never changed after it.
    pub hlc: Hlc,
    /// What the edge's clock said, where `hlc` was replaced because that was ahead of the hub.
    pub claimed_hlc: Option<Hlc>,
    pub at: EntryKey,
    pub action: Action,
    pub author: Author,
    pub made_at: UnixMillis,
    pub message: Option<Arc<str>>,
    pub change: ChangeId,
    /// The vector of the entry's feed as readers saw it when the write was made.
    pub context: Vector,
    /// That feed left secrets out: what the context covers of them, the author cannot have seen.
    pub without_secrets: bool,
    /// The write that readers saw under this key.
    pub base: Option<Base>,
}

/// A write that somebody saw under a key.
///
/// Its number alone does not say which write that was: copies of a replica give one to two writes, in the same millisecond
/// if need be. Nor does its stamp go on saying it: while a write waits it may take another incarnation and another time, and
/// a policy may give it one. The change it belongs to never changes, and of one key an edge makes one write in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// As the author saw it.
    pub stamp: Stamp,
    /// [`ChangeId::UNKNOWN`] where what was seen is the trace of a purged deletion.
    pub change: ChangeId,
}

impl Base {
    /// Whether that is the write with this stamp, of this change.
    pub fn is(self, stamp: Stamp, change: ChangeId) -> bool {
        if self.change == ChangeId::UNKNOWN || change == ChangeId::UNKNOWN {
            return self.stamp == stamp;
        }
        let (seen, id) = (self.stamp.id, stamp.id);
        seen.actor == id.actor && seen.counter == id.counter && self.change == change
    }
}

impl Write {
    /// As a base of what follows it.
    pub fn as_base(&self) -> Base {
        Base { stamp: self.stamp(), change: self.change }
    }

    /// Its place in the last-write-wins order.
    pub fn stamp(&self) -> Stamp {
        Stamp { hlc: self.hlc, id: self.id }
    }

    /// About how many bytes it takes in a message.
    pub fn size(&self) -> usize {
        let value = match &self.action {
            Action::Set { value, .. } => value.as_str().len(),
            Action::Delete => 0,
            Action::Sealed(sealed) => sealed.body.len() + sealed.wrap.len(),
        };
        value + 512 + self.at.key.as_str().len() + self.at.scope.namespace.as_str().len()
    }
}

/// Why a write was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    #[error("this edge may not write in that namespace")]
    Namespace,
    #[error("the environment does not exist any more")]
    Environment,
    #[error("the same write was sent before with other content")]
    Reused,
    #[error(
        "it was made without having seen the current value, and such writes are not admitted in that namespace"
    )]
    Policy,
}

/// Why a write waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeldReason {
    #[error("its time is further ahead of the hub's clock than allowed")]
    ClockAhead,
    #[error("the key holds a secret, and the write was made without having seen it")]
    ConcurrentSecret,
    #[error(
        "it was made without having seen the current value, and in that namespace a person decides about such writes"
    )]
    Policy,
    #[error("it was made after the backup that the hub was restored from, and an edge has brought it back")]
    Newer,
}

/// What became of an uploaded write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Admitted {
        version: u64,
    },
    /// In the history with this version, but a concurrent write is the entry's value.
    Lost {
        version: u64,
        /// The version of that other write; 0 from a hub that did not say it yet.
        to: u64,
    },
    Held(HeldReason),
    Denied(Denial),
    /// Was decided in an earlier upload.
    Duplicate,
    /// Not decided, and kept nowhere: its number may stand for another write already. Whoever sent it is a copy of a
    /// replica, or was set back, and sends it again under an incarnation of its own.
    Reidentify,
}

/// The hub's answer to one uploaded write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub id: WriteId,
    pub verdict: Verdict,
    /// The place of the key's current row: once a reader's replica covers it, the write needs no place of its own.
    /// None when the key has no row.
    pub current: Option<Dot>,
}
