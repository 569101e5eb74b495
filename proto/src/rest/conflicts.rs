//! What the routes about conflicts, held writes and policies ask of the hub, in domain types.

use std::future::Future;
use std::sync::Arc;

use llm_config_shared::entry::ChangeId;
use llm_config_shared::name::{EntryKey, Namespace};
use llm_config_shared::policy::ConflictPolicy;
use llm_config_shared::settled::{ConflictState, Settled};
use llm_config_shared::store::{Page, Paged};
use llm_config_shared::time::UnixMillis;
use uuid::Uuid;

use super::admin::PastOf;
use super::error::ApiError;
use super::service::{Answered, Caller, Past};
use super::undo::{ChangeUndone, UndoOptions};

/// Two concurrent writes of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictInfo {
    pub id: Uuid,
    pub at: EntryKey,
    pub winner: Past,
    pub loser: Past,
    pub detected_at: UnixMillis,
    pub settled: Option<Settled>,
}

/// Where a write was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Site {
    Hub,
    /// The edge of that name.
    Edge(Arc<str>),
}

/// What the author of a write saw under its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HadSeen {
    Nothing,
    Version(u64),
    /// A write that took no version: held or denied.
    Unadmitted,
}

/// One of two writes that met, with everything that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    pub past: Past,
    pub site: Site,
    /// The time by which it was compared with others.
    pub compared_at: UnixMillis,
    /// What its author's clock said, where that was replaced.
    pub claimed_at: Option<UnixMillis>,
    pub had_seen: HadSeen,
}

/// `GET /conflicts/{id}`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictDetail {
    pub id: Uuid,
    pub at: EntryKey,
    pub winner: Side,
    pub loser: Side,
    pub detected_at: UnixMillis,
    pub settled: Option<Settled>,
    /// The entry's version now; none when it is deleted.
    pub current_version: Option<u64>,
}

/// A write that waits for a person, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldInfo {
    pub id: Uuid,
    pub write: PastOf,
}

/// `GET /held/{id}`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldDetail {
    pub id: Uuid,
    pub at: EntryKey,
    pub write: Side,
    /// The entry's version now; none when there is none.
    pub current_version: Option<u64>,
}

/// What was decided about all held writes of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeDecided {
    pub change: ChangeId,
    /// The change that was written; none where nothing was.
    pub wrote: Option<ChangeId>,
    /// How many were decided so, those included that were before.
    pub decided: u64,
    /// Those that could not be.
    pub undecided: Vec<Undecided>,
}

/// A held write that was left as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided {
    pub id: Uuid,
    pub at: EntryKey,
    pub why: String,
}

/// What one who decides may say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecideOptions {
    /// Refuse with 409 unless the entry is at this version; 0: unless it does not exist.
    pub if_version: Option<u64>,
    /// The caller said `secret: false`. Without that a plain value never replaces a secret.
    pub over_secret: bool,
    /// Recorded, never believed.
    pub claimed_user: Option<Arc<str>>,
    /// What the change is for.
    pub message: Option<Arc<str>>,
}

/// What a namespace does with concurrent writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyInfo {
    pub namespace: Namespace,
    pub policy: ConflictPolicy,
    /// The namespace that has it: this one or one above. None: nobody set one.
    pub set_in: Option<Namespace>,
}

/// An answer, or why there is none.
pub type Answer<T> = Result<T, ApiError>;

/// Conflicts, held writes and policies: hub only. Every method judges the caller's role itself.
pub trait ConflictService: Send + Sync + 'static {
    /// In that state, or in any; newest first.
    fn conflicts(
        &self,
        caller: &Caller,
        state: Option<ConflictState>,
        page: Page,
    ) -> impl Future<Output = Answer<Paged<ConflictInfo>>> + Send;
    /// 404 when there is none that the caller may see.
    fn conflict(
        &self,
        caller: &Caller,
        id: Uuid,
        reveal: bool,
    ) -> impl Future<Output = Answer<ConflictDetail>> + Send;
    /// The loser becomes the entry's value again.
    fn restore_conflict(
        &self,
        caller: &Caller,
        id: Uuid,
        options: DecideOptions,
    ) -> impl Future<Output = Answer<Answered<ConflictDetail>>> + Send;
    /// Somebody has seen it.
    fn dismiss_conflict(
        &self,
        caller: &Caller,
        id: Uuid,
    ) -> impl Future<Output = Answer<ConflictDetail>> + Send;

    /// Writes that wait for a person, newest first.
    fn held(&self, caller: &Caller, page: Page) -> impl Future<Output = Answer<Paged<HeldInfo>>> + Send;
    /// One that waits or has waited; 404.
    fn held_write(
        &self,
        caller: &Caller,
        id: Uuid,
        reveal: bool,
    ) -> impl Future<Output = Answer<HeldDetail>> + Send;
    /// It is written anew.
    fn release_held(
        &self,
        caller: &Caller,
        id: Uuid,
        options: DecideOptions,
    ) -> impl Future<Output = Answer<Answered<HeldDetail>>> + Send;
    /// It is not to be.
    fn drop_held(&self, caller: &Caller, id: Uuid) -> impl Future<Output = Answer<HeldDetail>> + Send;

    /// All held writes of a change are written, each where its own time puts it; 404.
    fn release_change(
        &self,
        caller: &Caller,
        id: ChangeId,
        options: DecideOptions,
    ) -> impl Future<Output = Answer<ChangeDecided>> + Send;
    /// None of them is to be; 404.
    fn drop_change(
        &self,
        caller: &Caller,
        id: ChangeId,
    ) -> impl Future<Output = Answer<ChangeDecided>> + Send;

    /// Every entry whose value the change is has the value again that it had before; 409 where one has another since, 404.
    fn undo_change(
        &self,
        caller: &Caller,
        id: ChangeId,
        options: UndoOptions,
    ) -> impl Future<Output = Answer<Answered<ChangeUndone>>> + Send;

    /// What holds in a namespace.
    fn policy(
        &self,
        caller: &Caller,
        namespace: Namespace,
    ) -> impl Future<Output = Answer<PolicyInfo>> + Send;
    /// Sets it; with none, what holds above it holds again.
    fn set_policy(
        &self,
        caller: &Caller,
        namespace: Namespace,
        policy: Option<ConflictPolicy>,
    ) -> impl Future<Output = Answer<PolicyInfo>> + Send;
}
