//! What the hub keeps for the day that an edge is lost: how long its secrets stay open, and what it could ever read.

use std::collections::BTreeMap;
use std::future::Future;

use llm_config_shared::exposure::SecretVersion;
use llm_config_shared::name::{EdgeName, EntryKey, Namespace, Tenant};
use llm_config_shared::offline::OfflineLimits;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::time::UnixMillis;

use super::{Answer, GrantRow, SetPolicyError};

/// Tables beside those of [`Registry`](super::Registry). Every method is one transaction.
pub trait Losses: Send + Sync + 'static {
    /// The offline limits of a tenant, as they were set.
    fn offline_limits(&self, tenant: &Tenant) -> impl Future<Output = Answer<OfflineLimits>> + Send;
    /// Sets how long the secrets of a namespace and everything below it stay open at an edge without contact, in
    /// milliseconds, or lets what holds above it hold again. What holds afterwards.
    fn set_offline_limit(
        &self,
        tenant: &Tenant,
        namespace: &Namespace,
        limit_ms: Option<u64>,
    ) -> impl Future<Output = Result<OfflineLimits, SetPolicyError>> + Send;

    /// Every version of a secret that the tenant ever had and that got a number, winner or loser of a conflict.
    fn secret_versions(&self, tenant: &Tenant) -> impl Future<Output = Answer<Vec<KeptVersion>>> + Send;
    /// The ledgers of all edges of a tenant, removed ones too.
    fn all_grants(&self, tenant: &Tenant) -> impl Future<Output = Answer<Vec<GrantRow>>> + Send;
    /// Keeps a loss and marks what has to be replaced. One that is kept already stays as it is.
    fn record_loss(
        &self,
        loss: &Loss,
        to_rotate: &[SecretVersion],
    ) -> impl Future<Output = Answer<()>> + Send;
    /// The loss of that edge, if it was lost.
    fn loss(&self, edge: ActorId) -> impl Future<Output = Answer<Option<Loss>>> + Send;
    /// What was marked, those that wait first.
    fn to_rotate(&self, tenant: &Tenant) -> impl Future<Output = Answer<Vec<ToRotate>>> + Send;

    /// Keeps an edge's own word that it has destroyed its data; the first stays.
    fn record_wipe(
        &self,
        edge: ActorId,
        wiped_at: UnixMillis,
        proof: &[u8],
    ) -> impl Future<Output = Answer<()>> + Send;
    /// The edges of a tenant that gave it, and when.
    fn wipes(&self, tenant: &Tenant) -> impl Future<Output = Answer<BTreeMap<ActorId, UnixMillis>>> + Send;

    /// Keeps what became of the writes that were carried here from an edge, in place of what became of an older file's.
    fn put_carried(
        &self,
        edge: ActorId,
        made_at: UnixMillis,
        answers: &[u8],
    ) -> impl Future<Output = Answer<()>> + Send;
    /// What was kept of that.
    fn carried(&self, edge: ActorId) -> impl Future<Output = Answer<Option<Vec<u8>>>> + Send;
}

/// A version of a secret that the hub has kept, and whether it is what its entry shows now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptVersion {
    pub version: SecretVersion,
    pub current: bool,
}

/// An edge that was lost: what it could read, stated and signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    pub edge: ActorId,
    pub tenant: Tenant,
    pub name: EdgeName,
    pub lost_at: UnixMillis,
    /// The receipt, as JSON.
    pub receipt: Vec<u8>,
}

/// A secret that a lost edge could read and that should be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToRotate {
    pub at: EntryKey,
    /// The version that the edge could read; what is newer is not exposed.
    pub version: u64,
    pub edge: EdgeName,
    pub lost_at: UnixMillis,
    /// Whether the entry shows another version by now, or is gone.
    pub rotated: bool,
    /// Whether it has a plan, which replaces it then.
    pub planned: bool,
}
