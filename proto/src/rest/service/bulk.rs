//! Many writes as one change.

use std::sync::Arc;

use llm_config_shared::entry::ChangeId;

use super::super::error::ApiError;
use super::{NewValue, Target};

/// `POST /configs/bulk`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bulk {
    pub operations: Vec<BulkOperation>,
    /// All or nothing: the first failure is the answer. Otherwise each operation stands alone.
    pub atomic: bool,
    /// Answer as if, change nothing.
    pub dry_run: bool,
    pub claimed_user: Option<Arc<str>>,
    pub message: Option<Arc<str>>,
    /// The caller's own change: the same batch again gets the first answer again.
    pub own: Option<OwnChange>,
}

/// A change whose id the caller chose, sent in numbered batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnChange {
    pub change: ChangeId,
    pub batch: u64,
}

/// One operation of a bulk request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkOperation {
    pub target: Target,
    pub if_version: Option<u64>,
    pub action: BulkAction,
}

/// What a bulk operation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkAction {
    Set { value: NewValue, tags: Option<Vec<Arc<str>>>, description: Option<Arc<str>> },
    Delete,
}

/// What came of a bulk request, operation by operation in the order asked.
#[derive(Clone, Debug, PartialEq)]
pub struct BulkResult {
    /// None for a dry run.
    pub change: Option<ChangeId>,
    pub dry_run: bool,
    pub results: Vec<BulkItem>,
}

/// What came of one operation.
#[derive(Clone, Debug, PartialEq)]
pub struct BulkItem {
    pub target: Target,
    pub outcome: BulkOutcome,
}

/// See [`BulkItem`].
#[derive(Clone, Debug, PartialEq)]
pub enum BulkOutcome {
    Set { version: u64 },
    Deleted { version: u64 },
    Pending { place: u64, last_version: u64 },
    Failed(ApiError),
}
