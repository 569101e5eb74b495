//! Rotations of secrets' values: what was asked for, and how far each has come.

use std::future::Future;
use std::sync::Arc;

use llm_config_shared::name::{EdgeName, EntryKey, Tenant};
use llm_config_shared::rotation::{Rotation, Step};
use llm_config_shared::store::JournalError;
use llm_config_shared::time::UnixMillis;

/// Where a new value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Random characters of an alphabet.
    Generated { length: u32, alphabet: Arc<str> },
    /// What a command says that hub.toml names; it is told the old value where that was asked for.
    Command { name: Arc<str>, old_value: bool },
}

/// How a secret is rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationPolicy {
    pub at: EntryKey,
    pub source: Source,
    /// None: by hand only.
    pub every_days: Option<u64>,
    /// How long the old version is still needed at most.
    pub grace_ms: u64,
    pub set_by: Arc<str>,
    pub set_at: UnixMillis,
}

/// A secret that a lost edge could read, that shows that version still, and that has a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExposedPlan {
    pub at: EntryKey,
    /// What the edge could read.
    pub version: u64,
    pub edge: EdgeName,
}

type Answer<T> = Result<T, JournalError>;

/// Part of the [`Registry`](super::Registry). Every method is one transaction.
pub trait Rotations: Send + Sync + 'static {
    /// How a secret is rotated.
    fn rotation_policy(&self, at: &EntryKey) -> impl Future<Output = Answer<Option<RotationPolicy>>> + Send;
    /// Every one of a tenant, with the newest rotation of its secret.
    fn rotation_policies(
        &self,
        tenant: &Tenant,
    ) -> impl Future<Output = Answer<Vec<(RotationPolicy, Option<Rotation>)>>> + Send;
    /// Every one by which something is rotated without being asked.
    fn timed_rotation_policies(&self) -> impl Future<Output = Answer<Vec<RotationPolicy>>> + Send;
    /// What plans have to replace because an edge was lost, the first loss first.
    fn exposed_plans(&self) -> impl Future<Output = Answer<Vec<ExposedPlan>>> + Send;
    /// Sets it. The entry has been written at some time.
    fn set_rotation_policy(&self, policy: &RotationPolicy) -> impl Future<Output = Answer<()>> + Send;
    /// False when there was none.
    fn remove_rotation_policy(&self, at: &EntryKey) -> impl Future<Output = Answer<bool>> + Send;

    /// False when another rotation of the entry is begun and not yet written.
    fn begin_rotation(&self, rotation: &Rotation) -> impl Future<Output = Answer<bool>> + Send;
    /// Those that are not over.
    fn rotations_under_way(&self) -> impl Future<Output = Answer<Vec<Rotation>>> + Send;
    /// Of one entry, newest first.
    fn rotations(&self, at: &EntryKey, limit: usize) -> impl Future<Output = Answer<Vec<Rotation>>> + Send;
    /// Writes down how far it has come; false when it was not at `from` any more.
    fn step_rotation(&self, rotation: &Rotation, from: Step) -> impl Future<Output = Answer<bool>> + Send;
}
