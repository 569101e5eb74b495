//! Values, entries and versions as callers see them.

use std::sync::Arc;

use llm_config_shared::entry::{Author, ChangeId, ChangeType, Metadata, Status};
use llm_config_shared::name::{EntryKey, Scope};
use llm_config_shared::secret::Told;
use llm_config_shared::settled::Settled;
use llm_config_shared::time::UnixMillis;
use llm_config_shared::value::Value;
use uuid::Uuid;
use zeroize::Zeroizing;

/// What a caller sees of a value.
#[derive(Clone, PartialEq, Eq)]
pub enum Shown {
    Plain(Value),
    /// A secret, not revealed.
    Masked,
    /// A secret in clear, for a caller who asked and may.
    Revealed(Zeroizing<String>),
}

impl Shown {
    /// Whether it is a secret, shown or not.
    pub fn is_secret(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(value) => value.fmt(f),
            Self::Masked | Self::Revealed(_) => f.write_str("Secret(***)"),
        }
    }
}

/// An entry as a caller sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The place that was asked for.
    pub at: EntryKey,
    /// Where the value was found, when inheritance was followed; the id is that entry's.
    pub origin: Option<Scope>,
    pub value: Shown,
    pub version: u64,
    pub metadata: Metadata,
    /// What is told of a secret; none for a plain value.
    pub told: Option<Told>,
    /// The value is a write of this edge that the hub has not decided; `version` is the last admitted one, 0 if none.
    pub pending: bool,
}

impl Entry {
    /// The id of the entry that holds the value.
    pub fn id(&self) -> Uuid {
        match &self.origin {
            Some(scope) => EntryKey { scope: scope.clone(), key: self.at.key.clone() }.id(),
            None => self.at.id(),
        }
    }
}

/// A value to be set.
#[derive(Clone, PartialEq, Eq)]
pub enum NewValue {
    Plain {
        value: Value,
        /// The caller said `secret: false`. Without that a plain value never replaces a secret.
        over_secret: bool,
    },
    Secret(NewSecret),
}

/// A secret to be sealed.
#[derive(Clone, PartialEq, Eq)]
pub struct NewSecret {
    pub text: Zeroizing<String>,
    /// As the request says; what the text itself says is read where it is sealed.
    pub told: Told,
}

impl std::fmt::Debug for NewValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain { value, .. } => value.fmt(f),
            Self::Secret(_) => f.write_str("Secret(***)"),
        }
    }
}

/// One write in the history of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    pub version: u64,
    /// None: a deletion.
    pub value: Option<Shown>,
    /// What is told of a secret; none for anything else.
    pub told: Option<Told>,
    /// Its value was removed for good.
    pub purged: bool,
    pub author: Author,
    pub created_at: UnixMillis,
    pub message: Option<Arc<str>>,
    pub change_type: ChangeType,
    pub change: ChangeId,
    /// The change that its author made it in, where `change` is that of a loss after which it came back.
    pub made_in: Option<ChangeId>,
    pub status: Status,
    /// Why it is held or denied.
    pub reason: Option<Arc<str>>,
    /// What a person decided, once it was held.
    pub settled: Option<Settled>,
}

/// Two versions to be compared; none for a deletion. Two different secrets are both masked and `changed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwoVersions {
    pub from: Option<Shown>,
    pub to: Option<Shown>,
    /// Whether the contents differ, also where that is not to be seen.
    pub changed: bool,
}
