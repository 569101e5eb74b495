//! Undoing a change: what is asked, what came of it, and both as JSON.

use std::sync::Arc;

use llm_config_shared::entry::ChangeId;
use llm_config_shared::name::EntryKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::ApiError;
use super::requests::text;

/// What one who undoes may say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UndoOptions {
    /// Look, but write nothing.
    pub dry_run: bool,
    /// Recorded, never believed.
    pub claimed_user: Option<Arc<str>>,
    /// What the change is for.
    pub message: Option<Arc<str>>,
}

/// A change of which nothing is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeUndone {
    pub change: ChangeId,
    /// The change that did it: the same however often it is asked for.
    pub wrote: ChangeId,
    pub dry_run: bool,
    /// In the order of their names.
    pub entries: Vec<EntryUndone>,
}

/// An entry that has the value again that it had before; tags and description are not brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryUndone {
    pub at: EntryKey,
    /// The version that holds it now; none where nothing was written, because it was looked at only.
    pub version: Option<u64>,
    /// The version whose value it is; none where there was no entry before, so that there is none again.
    pub back_to: Option<u64>,
}

/// What one who undoes may say.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UndoBody {
    /// Say what would be written, and write nothing.
    #[serde(default)]
    dry_run: bool,
    user: Option<String>,
    #[serde(alias = "message")]
    change_description: Option<String>,
}

impl UndoBody {
    pub(super) fn parse(self) -> Result<UndoOptions, ApiError> {
        Ok(UndoOptions {
            dry_run: self.dry_run,
            claimed_user: text("user", self.user)?,
            message: text("change_description", self.change_description)?,
        })
    }
}

/// A change of which nothing is left.
#[derive(Serialize, ToSchema)]
pub(super) struct ChangeUndoneBody {
    change: String,
    /// The change that did it, and can be undone itself.
    wrote: String,
    dry_run: bool,
    entries: Vec<EntryUndoneBody>,
}

/// An entry that has the value again that it had before; tags and description are not brought back.
#[derive(Serialize, ToSchema)]
pub(super) struct EntryUndoneBody {
    namespace: String,
    key: String,
    environment: String,
    /// The version that holds it now; absent where nothing was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// The version whose value it is; null where there was no entry before.
    back_to: Option<u64>,
}

impl From<ChangeUndone> for ChangeUndoneBody {
    fn from(undone: ChangeUndone) -> Self {
        Self {
            change: undone.change.0.to_string(),
            wrote: undone.wrote.0.to_string(),
            dry_run: undone.dry_run,
            entries: undone.entries.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<EntryUndone> for EntryUndoneBody {
    fn from(undone: EntryUndone) -> Self {
        let EntryKey { scope, key } = undone.at;
        Self {
            namespace: scope.namespace.to_string(),
            key: key.to_string(),
            environment: scope.environment.to_string(),
            version: undone.version,
            back_to: undone.back_to,
        }
    }
}
