//! The JSON of the admin routes.

use std::collections::BTreeMap;

use llm_config_shared::access::Role;
use llm_config_shared::feed::Environments;
use llm_config_shared::name::{EdgeName, Environment, Subtree, Tenant};
use llm_config_shared::store::ChangeRow;
use llm_config_shared::time::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::admin::{
    ChangeInfo, ChangedSubscription, EdgeInfo, Fleet, NewJoinToken, NewToken, PastOf, RegionsInfo,
    ShownJoinToken, ShownToken, TenantInfo, TokenInfo,
};
use super::duration;
use super::error::ApiError;
use super::types::PastBody;

/// A time as `15m` or as a number of seconds.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
enum Duration {
    Seconds(u64),
    Text(String),
}

fn milliseconds(ttl: Option<Duration>) -> Result<Option<u64>, ApiError> {
    let invalid = || ApiError::bad_request("ttl must be a time like 15m, 24h or 30d").detail("field", "ttl");
    match ttl {
        None => Ok(None),
        Some(Duration::Seconds(seconds)) => seconds.checked_mul(1_000).map(Some).ok_or_else(invalid),
        Some(Duration::Text(text)) => duration::parse_ms(&text).map(Some).ok_or_else(invalid),
    }
}

/// What an edge that joins with the token will be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JoinTokenRequest {
    /// The edge's name; with more than one use, what its name begins with.
    name: String,
    /// What it receives. Empty: everything of the tenant, where that is allowed.
    #[serde(default)]
    namespaces: Vec<String>,
    /// The first is its default. Empty: every environment, where that is allowed.
    #[serde(default)]
    environments: Vec<String>,
    /// Where it may write. Absent or empty: the hub's default.
    #[serde(default)]
    write: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// 15 minutes unless said.
    ttl: Option<Duration>,
    /// One unless said.
    max_uses: Option<u32>,
}

fn subtrees(texts: &[String]) -> Result<Vec<Subtree>, ApiError> {
    Ok(texts.iter().map(|text| Subtree::parse(text)).collect::<Result<_, _>>()?)
}

fn environments(texts: &[String]) -> Result<Vec<Environment>, ApiError> {
    Ok(texts.iter().map(|text| Environment::parse(text)).collect::<Result<_, _>>()?)
}

fn said<T>(names: Vec<T>) -> Option<Vec<T>> {
    (!names.is_empty()).then_some(names)
}

/// What an edge receives and where it may write. A member that is absent stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SubscriptionRequest {
    /// What it receives. Empty: everything of the tenant, where that is allowed.
    namespaces: Option<Vec<String>>,
    /// The first is its default. Empty: every environment, where that is allowed.
    environments: Option<Vec<String>>,
    /// Where it may write. Empty: the hub's default.
    write: Option<Vec<String>>,
}

impl SubscriptionRequest {
    pub(super) fn parse(self) -> Result<ChangedSubscription, ApiError> {
        Ok(ChangedSubscription {
            namespaces: self.namespaces.as_deref().map(subtrees).transpose()?,
            environments: self.environments.as_deref().map(environments).transpose()?,
            write: self.write.as_deref().map(subtrees).transpose()?,
        })
    }
}

impl JoinTokenRequest {
    pub(super) fn parse(self) -> Result<NewJoinToken, ApiError> {
        Ok(NewJoinToken {
            name: EdgeName::parse(&self.name)?,
            namespaces: said(subtrees(&self.namespaces)?),
            environments: said(environments(&self.environments)?),
            write: said(subtrees(&self.write)?),
            labels: self.labels,
            ttl_ms: milliseconds(self.ttl)?,
            max_uses: self.max_uses,
        })
    }
}

/// A join token, shown this once.
#[derive(Serialize, ToSchema)]
pub(super) struct JoinTokenBody {
    token: String,
    name: String,
    expires_at: String,
}

impl From<ShownJoinToken> for JoinTokenBody {
    fn from(shown: ShownJoinToken) -> Self {
        Self {
            token: shown.token.to_string(),
            name: shown.name.to_string(),
            expires_at: shown.expires_at.to_rfc3339(),
        }
    }
}

/// A new API token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenRequest {
    name: String,
    /// `admin`, `writer` or `reader`.
    role: String,
    /// The caller's own unless said.
    tenant: Option<String>,
    /// Does not expire unless said.
    ttl: Option<Duration>,
}

impl TokenRequest {
    pub(super) fn parse(self) -> Result<NewToken, ApiError> {
        let role = Role::parse(&self.role).ok_or_else(|| {
            ApiError::bad_request("role must be admin, writer or reader").detail("field", "role")
        })?;
        // A token's name is part of `token:NAME` in every history: it keeps to the grammar of an edge's.
        let name = EdgeName::parse(&self.name).map_err(|invalid| {
            let message = invalid.to_string().replacen("edge name", "token name", 1);
            ApiError::bad_request(message).detail("field", "name")
        })?;
        Ok(NewToken {
            name: name.to_string(),
            role,
            tenant: self.tenant.as_deref().map(Tenant::parse).transpose()?,
            ttl_ms: milliseconds(self.ttl)?,
        })
    }
}

/// An API token as it is listed.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenBody {
    id: String,
    name: String,
    tenant: String,
    role: &'static str,
    created_at: String,
    created_by: String,
    /// Null: never.
    expires_at: Option<String>,
    /// Only in the answer that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl From<TokenInfo> for TokenBody {
    fn from(info: TokenInfo) -> Self {
        Self {
            id: info.id.to_string(),
            name: info.name,
            tenant: info.tenant.to_string(),
            role: info.role.as_str(),
            created_at: info.created_at.to_rfc3339(),
            created_by: info.created_by,
            expires_at: info.expires_at.map(UnixMillis::to_rfc3339),
            token: None,
        }
    }
}

impl From<ShownToken> for TokenBody {
    fn from(shown: ShownToken) -> Self {
        Self { token: Some(shown.token.to_string()), ..Self::from(shown.info) }
    }
}

/// A new tenant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantRequest {
    pub(super) name: String,
}

/// A tenant.
#[derive(Serialize, ToSchema)]
pub(super) struct TenantBody {
    name: String,
    created_at: String,
}

impl From<TenantInfo> for TenantBody {
    fn from(tenant: TenantInfo) -> Self {
        Self { name: tenant.name.to_string(), created_at: tenant.created_at.to_rfc3339() }
    }
}

/// Who decides about tenants, tokens, edges, environments and policies of all regions.
#[derive(Serialize, ToSchema)]
pub(super) struct RegionsBody {
    /// The one that was asked.
    region: String,
    home: HomeBody,
}

/// The region that decides.
#[derive(Serialize, ToSchema)]
pub(super) struct HomeBody {
    region: String,
    /// It is the one that was asked.
    here: bool,
    /// How often a region was made the home.
    term: u64,
    /// Where it is reached from here.
    address: Option<String>,
    /// When it was last heard that all that it has is here. Null at the home, and where it was never reached.
    heard_at: Option<String>,
    age_seconds: Option<f64>,
}

impl From<RegionsInfo> for RegionsBody {
    fn from(info: RegionsInfo) -> Self {
        let home = HomeBody {
            region: info.home.to_string(),
            here: info.home == info.region,
            term: info.term,
            address: info.address,
            heard_at: info.heard_at.map(|at| at.to_rfc3339()),
            age_seconds: info.age_ms.map(|age| age as f64 / 1_000.0),
        };
        Self { region: info.region.to_string(), home }
    }
}

/// Another place in the chain.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EnvironmentRequest {
    /// Null or absent: it inherits from none.
    pub(super) parent: Option<String>,
}

/// An environment.
#[derive(Serialize, ToSchema)]
pub(super) struct EnvironmentBody {
    name: String,
    parent: Option<String>,
    /// The order in which a reader looks, itself first.
    chain: Vec<String>,
}

impl EnvironmentBody {
    pub(super) fn all(environments: &Environments) -> Vec<Self> {
        environments.iter().map(|(name, _)| Self::of(name, environments)).collect()
    }

    pub(super) fn of(name: &Environment, environments: &Environments) -> Self {
        Self {
            name: name.to_string(),
            parent: environments.parent(name).map(Environment::to_string),
            chain: environments.chain(name).iter().map(Environment::to_string).collect(),
        }
    }
}

/// An edge as the hub knows it.
#[derive(Serialize, ToSchema)]
pub(super) struct EdgeBody {
    id: String,
    name: String,
    /// `current`, `behind`, `offline` or `removed`.
    status: &'static str,
    connected: bool,
    /// How many changes it has not confirmed.
    behind: u64,
    /// Empty: all.
    namespaces: Vec<String>,
    /// Empty: all.
    environments: Vec<String>,
    /// Where it may write; an empty text is everywhere.
    write: Vec<String>,
    labels: BTreeMap<String, String>,
    joined_at: String,
    last_seen_at: Option<String>,
    removed_at: Option<String>,
    /// Of a removed edge: `confirmed` where it has said, signed with its key, that its data is destroyed; else `unconfirmed`.
    wipe: Option<&'static str>,
    wiped_at: Option<String>,
}

impl From<EdgeInfo> for EdgeBody {
    fn from(edge: EdgeInfo) -> Self {
        let subtrees = |all: &[Subtree]| all.iter().map(|subtree| subtree.as_str().to_owned()).collect();
        let status = match (edge.removed_at, edge.connected, edge.behind) {
            (Some(_), ..) => "removed",
            (None, false, _) => "offline",
            (None, true, 0) => "current",
            (None, true, _) => "behind",
        };
        Self {
            id: edge.id.to_string(),
            name: edge.name.to_string(),
            status,
            connected: edge.connected,
            behind: edge.behind,
            namespaces: subtrees(&edge.binding.namespaces),
            environments: edge.binding.environments.iter().map(Environment::to_string).collect(),
            write: subtrees(&edge.binding.write),
            labels: edge.labels,
            joined_at: edge.joined_at.to_rfc3339(),
            last_seen_at: edge.last_seen_at.map(UnixMillis::to_rfc3339),
            removed_at: edge.removed_at.map(UnixMillis::to_rfc3339),
            wipe: edge.removed_at.map(|_| if edge.wiped_at.is_some() { "confirmed" } else { "unconfirmed" }),
            wiped_at: edge.wiped_at.map(UnixMillis::to_rfc3339),
        }
    }
}

/// How all edges are doing.
#[derive(Serialize, ToSchema)]
pub(super) struct FleetBody {
    total: usize,
    connected: usize,
    /// Connected, with everything.
    current: usize,
    edges: Vec<EdgeBody>,
}

impl From<Fleet> for FleetBody {
    fn from(fleet: Fleet) -> Self {
        let connected = fleet.edges.iter().filter(|edge| edge.connected);
        Self {
            total: fleet.edges.len(),
            connected: connected.clone().count(),
            current: connected.filter(|edge| edge.behind == 0).count(),
            edges: fleet.edges.into_iter().map(EdgeBody::from).collect(),
        }
    }
}

/// What one write, import or bulk request did.
#[derive(Serialize, ToSchema)]
pub(super) struct ChangeBody {
    id: String,
    created_at: String,
    created_by: String,
    change_description: Option<String>,
    /// How many writes it has had so far.
    writes: u64,
    /// Only when one change is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<Vec<PlacedBody>>,
}

impl From<ChangeRow> for ChangeBody {
    fn from(change: ChangeRow) -> Self {
        Self {
            id: change.id.0.to_string(),
            created_at: change.created_at.to_rfc3339(),
            created_by: change.author.to_string(),
            change_description: change.message.map(|text| text.to_string()),
            writes: change.writes,
            entries: None,
        }
    }
}

impl From<ChangeInfo> for ChangeBody {
    fn from(info: ChangeInfo) -> Self {
        let entries = info.writes.into_iter().map(PlacedBody::from).collect();
        Self { entries: Some(entries), ..Self::from(info.change) }
    }
}

/// A write with the entry that it was of.
#[derive(Serialize, ToSchema)]
pub(super) struct PlacedBody {
    id: String,
    namespace: String,
    key: String,
    environment: String,
    #[serde(flatten)]
    write: PastBody,
}

impl From<PastOf> for PlacedBody {
    fn from(PastOf { at, past }: PastOf) -> Self {
        Self {
            id: at.id().to_string(),
            namespace: at.scope.namespace.to_string(),
            environment: at.scope.environment.to_string(),
            key: at.key.to_string(),
            write: past.into(),
        }
    }
}
