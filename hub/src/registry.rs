//! Everything that the hub keeps beside entries: tenants, environments, tokens, edges and wrapped keys.
//!
//! Implemented over the same databases as the journal; the conformance suite of both runs on both.

use std::collections::BTreeMap;
use std::future::Future;

use llm_config_proto::sync::JoinRefused;
use llm_config_shared::access::Role;
use llm_config_shared::feed::{Binding, Environments, InvalidParent};
use llm_config_shared::limits::POLICIES_MAX;
use llm_config_shared::name::{EdgeName, Environment, Namespace, Subtree, Tenant};
use llm_config_shared::policy::{ConflictPolicy, Policies};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::JournalError;
use llm_config_shared::time::UnixMillis;
use uuid::Uuid;

mod expiries;
mod fleet;
mod purges;
mod rotations;
mod source_keys;
mod uses;

pub use expiries::{Expiries, Expiring, ExpiryWarning, Outlook};
pub use fleet::{Fleet, HomeKnown, TakenOver};
pub use purges::{MadeBackup, PurgedVersion, Purges};
pub use rotations::{ExposedPlan, RotationPolicy, Rotations, Source};
pub use source_keys::{SourceKeys, Versions};
pub use uses::{Consumer, Said, Uses};

/// SHA-256 of a token; the token itself is never stored.
pub type TokenHash = [u8; 32];

/// A token for the REST API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    pub id: Uuid,
    pub tenant: Tenant,
    pub name: String,
    pub hash: TokenHash,
    pub role: Role,
    pub created_at: UnixMillis,
    pub created_by: String,
    /// None: never.
    pub expires_at: Option<UnixMillis>,
}

/// A token that lets edges join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    pub id: Uuid,
    pub tenant: Tenant,
    /// The edge's name; with more than one use, its prefix.
    pub name: EdgeName,
    pub hash: TokenHash,
    pub binding: Binding,
    pub labels: BTreeMap<String, String>,
    pub created_at: UnixMillis,
    pub created_by: String,
    pub expires_at: UnixMillis,
    pub max_uses: u32,
    pub uses: u32,
}

/// An enrolled edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    pub id: ActorId,
    pub tenant: Tenant,
    pub name: EdgeName,
    pub binding: Binding,
    pub labels: BTreeMap<String, String>,
    /// SubjectPublicKeyInfo (DER) of the key that it proves possession of.
    pub public_key: Vec<u8>,
    /// X25519 public key that grants are sealed to.
    pub sealing_key: Vec<u8>,
    pub joined_at: UnixMillis,
    pub removed_at: Option<UnixMillis>,
    pub last_seen_at: Option<UnixMillis>,
    /// What the edge acknowledged last, as a seq of this hub's shard.
    pub acked_seq: u64,
}

impl Edge {
    /// Where its readers look unless they say otherwise: the first that it joined with; what the hub's own default is where it
    /// joined with all.
    pub fn default_environment(&self) -> Environment {
        let first = self.binding.environments.first().cloned();
        first.unwrap_or_else(|| Environment::parse("development").expect("a literal name"))
    }
}

/// What came of presenting a join token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinOutcome {
    /// A new edge was stored.
    Joined(Edge),
    /// The same key with the same token was seen before: the same edge again.
    Again(Edge),
    Refused(JoinRefusal),
}

/// Why a join token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefusal {
    #[error("the join token is unknown")]
    Unknown,
    #[error("the join token has expired; ask for a new one")]
    Expired,
    #[error("the join token has been used; ask for a new one")]
    Used,
    #[error("an edge of that name has joined already; remove it first or choose another name")]
    NameTaken,
}

impl From<JoinRefusal> for JoinRefused {
    fn from(refusal: JoinRefusal) -> Self {
        match refusal {
            JoinRefusal::Unknown => Self::Unknown,
            JoinRefusal::Expired => Self::Expired,
            JoinRefusal::Used => Self::Used,
            JoinRefusal::NameTaken => Self::NameTaken,
        }
    }
}

impl From<JoinRefused> for JoinRefusal {
    fn from(refused: JoinRefused) -> Self {
        match refused {
            JoinRefused::Unknown => Self::Unknown,
            JoinRefused::Expired => Self::Expired,
            JoinRefused::Used => Self::Used,
            JoinRefused::NameTaken => Self::NameTaken,
        }
    }
}

/// The keys that an edge made for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeKeys {
    pub public_key: Vec<u8>,
    pub sealing_key: Vec<u8>,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRow {
    pub name: Tenant,
    pub created_at: UnixMillis,
}

/// A key of a tenant's environment in one key epoch, wrapped by the key-encryption key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedRoot {
    pub tenant: Tenant,
    pub environment: Environment,
    pub key_epoch: u64,
    pub wrapped: Vec<u8>,
    pub created_at: UnixMillis,
}

/// One line of the append-only ledger of keys handed to edges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRow {
    pub edge: ActorId,
    pub tenant: Tenant,
    pub environment: Environment,
    pub subtree: Subtree,
    pub key_epoch: u64,
    pub granted_at: UnixMillis,
}

/// A change of environments that was refused, or a database that was not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetEnvironmentError {
    #[error(transparent)]
    Invalid(#[from] InvalidParent),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// A change of policies that was refused, or a database that was not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetPolicyError {
    #[error("{POLICIES_MAX} namespaces have a policy of their own already, and no more are taken")]
    TooMany,
    #[error(transparent)]
    Journal(#[from] JournalError),
}

mod losses;

pub use losses::{KeptVersion, Loss, Losses, ToRotate};

type Answer<T> = Result<T, JournalError>;

/// The hub's tables beside the journal. Every method is one transaction.
pub trait Registry:
    Expiries + Fleet + Losses + Purges + Rotations + SourceKeys + Uses + Send + Sync + 'static
{
    /// False when the tenant existed. A new one gets [`Environments::standard`].
    fn create_tenant(&self, tenant: &Tenant, now: UnixMillis) -> impl Future<Output = Answer<bool>> + Send;
    /// By name.
    fn tenants(&self) -> impl Future<Output = Answer<Vec<TenantRow>>> + Send;

    /// The tenant's environments; empty for an unknown tenant.
    fn environments(&self, tenant: &Tenant) -> impl Future<Output = Answer<Environments>> + Send;
    /// Creates the environment or changes its parent; checked in the transaction that writes it.
    fn set_environment(
        &self,
        tenant: &Tenant,
        environment: &Environment,
        parent: Option<&Environment>,
    ) -> impl Future<Output = Result<Environments, SetEnvironmentError>> + Send;

    /// What the tenant's namespaces do with concurrent writes, as it was set.
    fn policies(&self, tenant: &Tenant) -> impl Future<Output = Answer<Policies>> + Send;
    /// Sets what a namespace and everything below it does, or lets it do again what holds above it. What holds
    /// afterwards.
    fn set_policy(
        &self,
        tenant: &Tenant,
        namespace: &Namespace,
        policy: Option<ConflictPolicy>,
    ) -> impl Future<Output = Result<Policies, SetPolicyError>> + Send;

    /// Stores a token.
    fn add_token(&self, token: &ApiToken) -> impl Future<Output = Answer<()>> + Send;
    /// Also expired ones: the caller judges the time.
    fn token(&self, hash: &TokenHash) -> impl Future<Output = Answer<Option<ApiToken>>> + Send;
    /// The tokens of a tenant, oldest first.
    fn tokens(&self, tenant: &Tenant) -> impl Future<Output = Answer<Vec<ApiToken>>> + Send;
    /// False when there was none.
    fn remove_token(&self, tenant: &Tenant, id: Uuid) -> impl Future<Output = Answer<bool>> + Send;

    /// Stores a join token.
    fn add_join_token(&self, token: &JoinToken) -> impl Future<Output = Answer<()>> + Send;
    /// Takes one use of the token and stores the edge, in one transaction. `id` becomes the new edge's; with a token of
    /// several uses the edge is called `requested` if that begins with the token's name, else NAME-N.
    fn join(
        &self,
        hash: &TokenHash,
        keys: &EdgeKeys,
        requested: Option<&EdgeName>,
        id: ActorId,
        now: UnixMillis,
    ) -> impl Future<Output = Answer<JoinOutcome>> + Send;

    /// The edges of a tenant, removed ones too, by name.
    fn edges(&self, tenant: &Tenant) -> impl Future<Output = Answer<Vec<Edge>>> + Send;
    /// The edge, also when it was removed.
    fn edge(&self, id: ActorId) -> impl Future<Output = Answer<Option<Edge>>> + Send;
    /// The edge of that name that has not been removed.
    fn edge_named(
        &self,
        tenant: &Tenant,
        name: &EdgeName,
    ) -> impl Future<Output = Answer<Option<Edge>>> + Send;
    /// Marks the edge as removed; false when there was none.
    fn remove_edge(
        &self,
        tenant: &Tenant,
        name: &EdgeName,
        now: UnixMillis,
    ) -> impl Future<Output = Answer<bool>> + Send;
    /// Gives the edge of that name another binding, and gives it back; none when there is no such edge.
    fn bind_edge(
        &self,
        tenant: &Tenant,
        name: &EdgeName,
        binding: &Binding,
    ) -> impl Future<Output = Answer<Option<Edge>>> + Send;
    /// What connected edges said lately: (edge, last seen, acknowledged seq), many at once. A seq of 0 says nothing: what
    /// was acknowledged before stays.
    fn touch_edges(&self, seen: &[(ActorId, UnixMillis, u64)]) -> impl Future<Output = Answer<()>> + Send;
    /// The same of edges that are connected to another region. What they acknowledged here was perhaps more than that
    /// region knows, and stays.
    fn touch_edges_elsewhere(
        &self,
        seen: &[(ActorId, UnixMillis, u64)],
    ) -> impl Future<Output = Answer<()>> + Send;
    /// The same of one edge, as a file of it says; unless it was heard later.
    fn touch_edge_carried(
        &self,
        edge: ActorId,
        seen_at: UnixMillis,
        acked_seq: u64,
    ) -> impl Future<Output = Answer<()>> + Send;
    /// Replaces the key that grants are sealed to.
    fn set_sealing_key(&self, edge: ActorId, sealing_key: &[u8]) -> impl Future<Output = Answer<()>> + Send;

    /// A wrapped key by name (`ca`, `signing`, …), or none.
    fn wrapped_key(&self, name: &str) -> impl Future<Output = Answer<Option<Vec<u8>>>> + Send;
    /// Stores a wrapped key unless one of that name exists; what is stored afterwards.
    fn put_wrapped_key(&self, name: &str, wrapped: &[u8]) -> impl Future<Output = Answer<Vec<u8>>> + Send;
    /// The roots of a tenant's environments, all key epochs.
    fn roots(&self, tenant: &Tenant) -> impl Future<Output = Answer<Vec<WrappedRoot>>> + Send;
    /// Stores a root unless one of that (tenant, environment, key epoch) exists; what is stored afterwards.
    fn put_root(&self, root: &WrappedRoot) -> impl Future<Output = Answer<WrappedRoot>> + Send;
    /// Appends to the ledger; a grant that is in it already is left alone.
    fn record_grants(&self, grants: &[GrantRow]) -> impl Future<Output = Answer<()>> + Send;
    /// The ledger of one edge.
    fn grants(&self, edge: ActorId) -> impl Future<Output = Answer<Vec<GrantRow>>> + Send;
}
