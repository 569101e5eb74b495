//! What the admin routes ask of the hub, in domain types.

use std::collections::BTreeMap;
use std::future::Future;

use llm_config_shared::access::Role;
use llm_config_shared::entry::ChangeId;
use llm_config_shared::feed::{Binding, Environments};
use llm_config_shared::name::{EdgeName, EntryKey, Environment, Subtree, Tenant};
use llm_config_shared::store::{ChangeRow, Page, Paged};
use llm_config_shared::time::UnixMillis;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::error::ApiError;
use super::service::{Caller, Past};

/// `POST /join-tokens`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJoinToken {
    pub name: EdgeName,
    /// None: not said, which `dev` reads as everything and `serve` refuses.
    pub namespaces: Option<Vec<Subtree>>,
    pub environments: Option<Vec<Environment>>,
    pub write: Option<Vec<Subtree>>,
    pub labels: BTreeMap<String, String>,
    /// None: 15 minutes.
    pub ttl_ms: Option<u64>,
    /// None: one.
    pub max_uses: Option<u32>,
}

/// `PATCH /edges/{name}`: what is not said stays as it is. Empty lists mean what they mean for a join token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedSubscription {
    pub namespaces: Option<Vec<Subtree>>,
    pub environments: Option<Vec<Environment>>,
    pub write: Option<Vec<Subtree>>,
}

/// A join token, shown this once.
#[derive(Clone, PartialEq, Eq)]
pub struct ShownJoinToken {
    pub token: Zeroizing<String>,
    pub name: EdgeName,
    pub expires_at: UnixMillis,
}

/// `POST /tokens`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    pub name: String,
    pub role: Role,
    /// None: the caller's own.
    pub tenant: Option<Tenant>,
    /// None: it does not expire.
    pub ttl_ms: Option<u64>,
}

/// An API token as it is listed: without the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    pub id: Uuid,
    pub name: String,
    pub tenant: Tenant,
    pub role: Role,
    pub created_at: UnixMillis,
    pub created_by: String,
    pub expires_at: Option<UnixMillis>,
}

/// A new API token, shown this once.
#[derive(Clone, PartialEq, Eq)]
pub struct ShownToken {
    pub token: Zeroizing<String>,
    pub info: TokenInfo,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantInfo {
    pub name: Tenant,
    pub created_at: UnixMillis,
}

/// Regions are one fleet: which of them decides about tenants, tokens, edges, environments and policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionsInfo {
    /// The one that was asked.
    pub region: Uuid,
    /// The one that decides.
    pub home: Uuid,
    /// How often a region was made the home.
    pub term: u64,
    /// Where the home is reached; none at the home, and where it was never reached.
    pub address: Option<String>,
    /// When it was last heard that all that the home has is here; none at the home.
    pub heard_at: Option<UnixMillis>,
    /// How long ago that is.
    pub age_ms: Option<u64>,
}

/// An edge as the hub knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeInfo {
    pub id: Uuid,
    pub name: EdgeName,
    pub binding: Binding,
    pub labels: BTreeMap<String, String>,
    pub joined_at: UnixMillis,
    pub removed_at: Option<UnixMillis>,
    /// When it destroyed its data, by its own word, signed with its key.
    pub wiped_at: Option<UnixMillis>,
    pub last_seen_at: Option<UnixMillis>,
    pub connected: bool,
    /// How many changes of the hub it has not acknowledged; 0 is current.
    pub behind: u64,
}

/// `GET /fleet`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Without removed ones.
    pub edges: Vec<EdgeInfo>,
}

/// A write with the entry that it was of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastOf {
    pub at: EntryKey,
    pub past: Past,
}

/// `GET /changes/{id}`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeInfo {
    pub change: ChangeRow,
    pub writes: Vec<PastOf>,
}

/// An answer, or why there is none.
pub type Answer<T> = Result<T, ApiError>;

/// The admin routes: hub only. Every method judges the caller's role itself.
pub trait AdminService: Send + Sync + 'static {
    /// A token that lets an edge join.
    fn create_join_token(
        &self,
        caller: &Caller,
        token: NewJoinToken,
    ) -> impl Future<Output = Answer<ShownJoinToken>> + Send;

    /// API tokens, oldest first.
    fn tokens(&self, caller: &Caller) -> impl Future<Output = Answer<Vec<TokenInfo>>> + Send;
    /// A new API token.
    fn create_token(
        &self,
        caller: &Caller,
        token: NewToken,
    ) -> impl Future<Output = Answer<ShownToken>> + Send;
    /// 404 when there is none.
    fn remove_token(&self, caller: &Caller, id: Uuid) -> impl Future<Output = Answer<()>> + Send;

    /// By name.
    fn tenants(&self, caller: &Caller) -> impl Future<Output = Answer<Vec<TenantInfo>>> + Send;
    /// 409 when it exists.
    fn create_tenant(
        &self,
        caller: &Caller,
        tenant: Tenant,
    ) -> impl Future<Output = Answer<TenantInfo>> + Send;

    /// Who decides for all regions.
    fn regions(&self, caller: &Caller) -> impl Future<Output = Answer<RegionsInfo>> + Send;

    /// The inheritance chain of the caller's tenant.
    fn environments(&self, caller: &Caller) -> impl Future<Output = Answer<Environments>> + Send;
    /// Creates the environment or gives it another parent; what holds afterwards.
    fn set_environment(
        &self,
        caller: &Caller,
        environment: Environment,
        parent: Option<Environment>,
    ) -> impl Future<Output = Answer<Environments>> + Send;

    /// By name, removed ones too.
    fn edges(&self, caller: &Caller) -> impl Future<Output = Answer<Vec<EdgeInfo>>> + Send;
    /// The edge of that name that was not removed; 404.
    fn edge(&self, caller: &Caller, name: EdgeName) -> impl Future<Output = Answer<EdgeInfo>> + Send;
    /// What the edge receives and where it may write from now on. 404 when there is none.
    fn change_subscription(
        &self,
        caller: &Caller,
        name: EdgeName,
        changed: ChangedSubscription,
    ) -> impl Future<Output = Answer<EdgeInfo>> + Send;
    /// 404 when there is none.
    fn remove_edge(&self, caller: &Caller, name: EdgeName) -> impl Future<Output = Answer<()>> + Send;
    /// How all edges are doing.
    fn fleet(&self, caller: &Caller) -> impl Future<Output = Answer<Fleet>> + Send;

    /// Newest first.
    fn changes(&self, caller: &Caller, page: Page) -> impl Future<Output = Answer<Paged<ChangeRow>>> + Send;
    /// 404 when there is none.
    fn change(&self, caller: &Caller, id: ChangeId) -> impl Future<Output = Answer<ChangeInfo>> + Send;
}
