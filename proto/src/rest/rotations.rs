//! What is asked of the hub about the rotation of secrets, in domain types.

use std::future::Future;
use std::sync::Arc;

use llm_config_shared::name::EntryKey;
use llm_config_shared::rotation::Rotation;
use llm_config_shared::seal::Suite;
use llm_config_shared::time::UnixMillis;
use uuid::Uuid;

use super::error::ApiError;
use super::service::{Caller, Target};

/// How a secret is rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationPlan {
    pub source: NewValueSource,
    /// None: by hand only.
    pub every_days: Option<u64>,
    /// How long the old version is still needed at most.
    pub grace_ms: u64,
}

/// Where a new value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewValueSource {
    /// Random characters; none: what the hub takes unless it is asked for something else.
    Generated { length: Option<u32>, alphabet: Option<Arc<str>> },
    /// A command that the hub's settings name.
    Command { name: Arc<str>, old_value: bool },
}

/// How a secret is rotated, and its rotations, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationState {
    pub plan: Option<RotationPlan>,
    pub rotations: Vec<Rotation>,
}

/// A secret with a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedSecret {
    pub at: EntryKey,
    pub plan: RotationPlan,
    /// When its plan rotates it next; none for plans by hand, and for secrets that are gone.
    pub due_at: Option<UnixMillis>,
    /// Its newest rotation.
    pub last: Option<Rotation>,
}

/// A backup that still holds a value that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldingBackup {
    pub id: Uuid,
    pub made_at: UnixMillis,
    pub file: Arc<str>,
}

/// An answer, or why there is none.
pub type Answer<T> = Result<T, ApiError>;

/// The routes about rotation: hub only. Every method judges the caller's role itself.
pub trait RotationService: Send + Sync + 'static {
    /// Every secret with a plan, what is due first at the top.
    fn planned(&self, caller: &Caller) -> impl Future<Output = Answer<Vec<PlannedSecret>>> + Send;
    /// 404 for what is no secret.
    fn rotation(&self, caller: &Caller, target: Target)
    -> impl Future<Output = Answer<RotationState>> + Send;
    /// Sets how it is rotated.
    fn set_rotation(
        &self,
        caller: &Caller,
        target: Target,
        plan: RotationPlan,
    ) -> impl Future<Output = Answer<RotationState>> + Send;
    /// Not at all any more; 404 when it was not.
    fn remove_rotation(&self, caller: &Caller, target: Target) -> impl Future<Output = Answer<()>> + Send;
    /// Begins a rotation now; 409 when there is no plan, or one is under way.
    fn rotate(&self, caller: &Caller, target: Target) -> impl Future<Output = Answer<Rotation>> + Send;
    /// Removes the value of one version for good; which backups still hold it. 409 for the current version.
    fn purge(
        &self,
        caller: &Caller,
        target: Target,
        version: u64,
    ) -> impl Future<Output = Answer<Vec<HoldingBackup>>> + Send;
    /// How the bodies of the tenant's secrets are sealed.
    fn suite(&self, caller: &Caller) -> impl Future<Output = Answer<Suite>> + Send;
    /// How they are sealed from now on. What was sealed stays as it is.
    fn set_suite(&self, caller: &Caller, suite: Suite) -> impl Future<Output = Answer<Suite>> + Send;
    /// The old version of the last rotation is not needed any more; 409 when that was known or nothing is written yet.
    fn retire(&self, caller: &Caller, target: Target) -> impl Future<Output = Answer<Rotation>> + Send;
}
