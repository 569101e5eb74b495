//! What a key holds: versions, tombstones, and who made them.

use std::sync::Arc;

use uuid::Uuid;

use crate::name::EntryKey;
use crate::secret::{SealedSecret, Told};
use crate::settled::Settled;
use crate::stamp::{Hlc, Stamp, WriteId};
use crate::time::UnixMillis;
use crate::value::Value;
use crate::vector::{Dot, Epochs, Vector};
use crate::write::Base;

/// What one write, import or bulk request did, as one; its id is shown to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId(pub Uuid);

const CHANGE_IDS: Uuid = uuid::uuid!("6f0b6d0e-52c5-5a54-9d0c-3f3a1c8e7b21");

impl ChangeId {
    /// Of what is left of a purged deletion.
    pub const UNKNOWN: Self = Self(Uuid::nil());

    /// The change of a write that was not made as part of another: it follows from the write (UUIDv5), so that it need
    /// not travel.
    pub fn of_write(write: WriteId) -> Self {
        let mut name = [0; 32];
        name[..16].copy_from_slice(write.actor.0.as_bytes());
        name[16..24].copy_from_slice(&write.incarnation.to_be_bytes());
        name[24..].copy_from_slice(&write.counter.to_be_bytes());
        Self(Uuid::new_v5(&CHANGE_IDS, &name))
    }
}

const UNDOINGS: Uuid = uuid::uuid!("2b7c1b52-6d0a-5a0e-8f6b-0c0a7c3e9d14");

impl ChangeId {
    /// The change that undoes this one: it follows from it (UUIDv5), so that asked twice it is one.
    #[must_use]
    pub fn undoing(self) -> Self {
        Self(Uuid::new_v5(&UNDOINGS, self.0.as_bytes()))
    }
}

/// What an entry holds at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Plain(Value),
    Secret(SealedSecret),
    /// A tombstone: the entry was deleted, its history stays.
    Deleted,
}

impl Content {
    /// Whether a reader finds something here.
    pub fn is_live(&self) -> bool {
        !matches!(self, Self::Deleted)
    }

    /// Whether it is a secret.
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::Secret(_))
    }

    /// What is told of a secret; none for anything else.
    pub fn told(&self) -> Option<Told> {
        match self {
            Self::Secret(sealed) => Some(sealed.about.told),
            Self::Plain(_) | Self::Deleted => None,
        }
    }

    /// Whether it is a secret whose value was removed for good.
    pub fn is_purged(&self) -> bool {
        matches!(self, Self::Secret(sealed) if sealed.is_purged())
    }

    /// SHA-256 over what the digest and the check for duplicates compare: the canonical value, or ciphertext and wrap.
    pub fn hash(&self) -> [u8; 32] {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        match self {
            Self::Plain(value) => {
                context.update(&[1]);
                context.update(value.as_str().as_bytes());
            }
            Self::Secret(sealed) => {
                context.update(&[2]);
                context.update(&(sealed.body.len() as u64).to_be_bytes());
                context.update(&sealed.body);
                context.update(&sealed.wrap);
                if !sealed.about.is_default() {
                    let (told, suite) = (sealed.about.told, sealed.about.suite.number());
                    context.update(&[1, told.secret_type.number(), suite]);
                    context.update(&told.expires_at.map_or([0; 8], |at| at.0.to_be_bytes()));
                }
            }
            Self::Deleted => context.update(&[0]),
        }
        context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// Who made a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The authenticated caller, as `token:NAME` or `edge:NAME/uid:0`.
    pub name: Arc<str>,
    /// What the caller said of itself; recorded, never believed.
    pub claimed: Option<Arc<str>>,
}

/// What is told about an entry beside its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub created_at: UnixMillis,
    pub created_by: Arc<str>,
    pub updated_at: UnixMillis,
    pub updated_by: Arc<str>,
    pub tags: Vec<Arc<str>>,
    pub description: Option<Arc<str>>,
}

/// The current version of an entry, as every replica holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub at: EntryKey,
    pub dot: Dot,
    pub stamp: Stamp,
    /// 1, 2, 3… of this entry.
    pub version: u64,
    pub content: Content,
    pub metadata: Metadata,
    pub change: ChangeId,
}

impl Row {
    /// As a base of what follows it.
    pub fn as_base(&self) -> Base {
        Base { stamp: self.stamp, change: self.change }
    }
}

/// The current version of an entry with what only the hub keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubRow {
    pub row: Row,
    /// The highest version that any admitted write of this entry had, losers included.
    pub top_version: u64,
    /// The last seq of the shard at which this entry became plain or ceased to be; 0 if it always was a secret. A feed
    /// without secrets has to hear that a key it may know is gone, and must not hear of any other.
    pub plain_seq: u64,
    /// What the author of the current version had seen.
    pub context: Vector,
    /// The write that the author saw under this key.
    pub base: Option<Base>,
    /// Where it was admitted first, if that was in another region.
    pub origin: Option<Dot>,
}

impl HubRow {
    /// Whether somebody who had seen all of `context` had seen this write; `epochs` are the histories that it is about.
    pub fn is_seen_in(&self, context: &Vector, epochs: &Epochs) -> bool {
        let seen = |dot| epochs.has_seen(context, dot);
        seen(self.row.dot) || self.origin.is_some_and(seen)
    }
}

/// How a write in the history relates to the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Was or is the entry's value.
    Applied,
    /// Lost to a concurrent write.
    SupersededConcurrent,
    /// Waits for a person.
    Held,
    /// Was held, and a person had it written anew.
    Released,
    /// Was held, and a person decided against it.
    Dropped,
    /// Was not allowed.
    Denied,
}

impl Status {
    /// As people and programs see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::SupersededConcurrent => "superseded_concurrent",
            Self::Held => "held",
            Self::Released => "released",
            Self::Dropped => "dropped",
            Self::Denied => "denied",
        }
    }

    /// The inverse of [`Status::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        let all = [
            Self::Applied,
            Self::SupersededConcurrent,
            Self::Held,
            Self::Released,
            Self::Dropped,
            Self::Denied,
        ];
        all.into_iter().find(|status| status.as_str() == text)
    }
}

/// What a write did to its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeType {
    Create,
    Update,
    Delete,
    Rollback,
}

impl ChangeType {
    /// As people and programs see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Rollback => "rollback",
        }
    }

    /// The inverse of [`ChangeType::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Create, Self::Update, Self::Delete, Self::Rollback]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// One write of an entry, for ever. Held and denied ones have version 0: only admitted writes take one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    pub at: EntryKey,
    pub version: u64,
    pub stamp: Stamp,
    /// The time that the author's clock said, where the edge replaced it before sending.
    pub claimed_hlc: Option<Hlc>,
    pub content: Content,
    /// [`Content::hash`] joined with the target: a repeated write id with another hash is no duplicate.
    pub content_hash: [u8; 32],
    pub author: Author,
    pub created_at: UnixMillis,
    /// What the author said about this change.
    pub message: Option<Arc<str>>,
    pub change_type: ChangeType,
    /// The change that its author made it in.
    pub change: ChangeId,
    /// The change of the loss, where an edge brought it back after the hub was restored.
    pub returned_in: Option<ChangeId>,
    pub status: Status,
    /// Why it is held or denied.
    pub reason: Option<Arc<str>>,
    /// The seq that it took; none for anything but winners.
    pub seq: Option<u64>,
    pub context: Vector,
    pub base: Option<Base>,
    /// What a person decided, once it was held.
    pub settled: Option<Settled>,
    /// Where it was admitted first, if that was in another region.
    pub origin: Option<Dot>,
}

impl HistoryRow {
    /// The change that people find it in. Before its own was kept beside it, what was brought back had that of the loss.
    pub fn found_in(&self) -> ChangeId {
        self.returned_in.unwrap_or(self.change)
    }
}
