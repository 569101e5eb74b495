//! The fleet: edges that joined, how far behind they are, and tokens that let others join.

use std::collections::BTreeMap;

use llm_config_proto::rest::admin::{EdgeInfo, Fleet, NewJoinToken, ShownJoinToken};
use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::Caller;
use llm_config_shared::access::Permission;
use llm_config_shared::feed::Binding;
use llm_config_shared::limits::TEXT_BYTES_MAX;
use llm_config_shared::name::EdgeName;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::Journal;
use llm_config_shared::time::UnixMillis;
use ring::rand::SystemRandom;
use uuid::Uuid;

use super::Api;
use crate::identity::join_token;
use crate::registry::{Edge, JoinToken, Registry};
use crate::{clock, guard};

/// Most edges that one token may let in.
const USES_MAX: u32 = 10_000;
/// Most labels of an edge.
const LABELS_MAX: usize = 64;

impl<S: Journal + Registry> Api<S> {
    pub(super) async fn add_join_token(
        &self,
        caller: &Caller,
        asked: NewJoinToken,
    ) -> Result<ShownJoinToken, ApiError> {
        guard::may(caller, Permission::Administer)?;
        let ttl_ms =
            within("ttl", asked.ttl_ms.unwrap_or(join_token::TTL_MS), 1_000, join_token::TTL_MS_MAX)?;
        let max_uses = within("max_uses", u64::from(asked.max_uses.unwrap_or(1)), 1, u64::from(USES_MAX))?;
        let max_uses = u32::try_from(max_uses).expect("the range was checked");
        check_labels(&asked)?;
        let binding = Binding {
            namespaces: asked.namespaces.clone().unwrap_or_default(),
            environments: asked.environments.clone().unwrap_or_default(),
            write: asked.write.clone().unwrap_or_default(),
        };
        let binding = self.checked(caller, &asked.name, binding).await?;
        if max_uses == 1 && self.parts.store.edge_named(&caller.tenant, &asked.name).await?.is_some() {
            let message =
                format!("an edge named {} has joined; remove it first or choose another name", asked.name);
            return Err(ApiError::conflict(message).detail("field", "name"));
        }
        let random = SystemRandom::new();
        let generated = join_token::generate(&self.parts.edge_address, self.parts.ca_fingerprint, &random);
        let (token, hash) = generated.map_err(|error| ApiError::internal(error.to_string()))?;
        let now = clock::now();
        let expires_at = UnixMillis(now.0.saturating_add(ttl_ms));
        let stored = JoinToken {
            id: Uuid::now_v7(),
            tenant: caller.tenant.clone(),
            name: asked.name.clone(),
            hash,
            binding,
            labels: asked.labels,
            created_at: now,
            created_by: caller.name.to_string(),
            expires_at,
            max_uses,
            uses: 0,
        };
        self.parts.store.add_join_token(&stored).await?;
        tracing::info!(caller = %caller.name, edge = %asked.name, max_uses, "a join token was made");
        Ok(ShownJoinToken { token, name: asked.name, expires_at })
    }

    pub(super) async fn all_edges(&self, caller: &Caller) -> Result<Vec<EdgeInfo>, ApiError> {
        guard::may_read_all(caller)?;
        let edges = self.parts.store.edges(&caller.tenant).await?;
        let wipes = self.parts.store.wipes(&caller.tenant).await?;
        Ok(edges.into_iter().map(|edge| self.wiped(edge, &wipes)).collect())
    }

    pub(super) async fn one_edge(&self, caller: &Caller, name: &EdgeName) -> Result<EdgeInfo, ApiError> {
        guard::may_read_all(caller)?;
        let edge = self.latest(caller, name).await?;
        let wipes = self.parts.store.wipes(&caller.tenant).await?;
        Ok(self.wiped(edge, &wipes))
    }

    pub(super) async fn drop_edge(&self, caller: &Caller, name: &EdgeName) -> Result<(), ApiError> {
        guard::may(caller, Permission::Administer)?;
        let edge = self.parts.store.edge_named(&caller.tenant, name).await?.ok_or_else(|| no_edge(name))?;
        self.shut_out(caller, &edge).await
    }

    pub(super) async fn whole_fleet(&self, caller: &Caller) -> Result<Fleet, ApiError> {
        let edges = self.all_edges(caller).await?;
        Ok(Fleet { edges: edges.into_iter().filter(|edge| edge.removed_at.is_none()).collect() })
    }

    fn wiped(&self, edge: Edge, wipes: &BTreeMap<ActorId, UnixMillis>) -> EdgeInfo {
        let wiped_at = wipes.get(&edge.id).copied();
        EdgeInfo { wiped_at, ..self.info(edge) }
    }

    pub(super) fn info(&self, edge: Edge) -> EdgeInfo {
        let head = self.parts.tail.head().position.seq;
        EdgeInfo {
            id: edge.id.0,
            name: edge.name,
            binding: edge.binding,
            labels: edge.labels,
            joined_at: edge.joined_at,
            removed_at: edge.removed_at,
            wiped_at: None,
            last_seen_at: edge.last_seen_at,
            connected: self.parts.roster.is_connected(edge.id),
            behind: head.saturating_sub(edge.acked_seq),
        }
    }
}

pub(super) fn no_edge(name: &EdgeName) -> ApiError {
    ApiError::not_found(format!("there is no edge {name}"))
}

fn within(field: &'static str, value: u64, min: u64, max: u64) -> Result<u64, ApiError> {
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    let (unit, divisor) = if field == "ttl" { (" seconds", 1_000) } else { ("", 1) };
    let message = format!("{field} must be from {} to {}{unit}", min / divisor, max / divisor);
    Err(ApiError::unprocessable(message).detail("field", field))
}

fn check_labels(asked: &NewJoinToken) -> Result<(), ApiError> {
    let long = asked.labels.iter().any(|(name, value)| name.len() + value.len() > TEXT_BYTES_MAX);
    if asked.labels.len() > LABELS_MAX || long {
        let message = format!("labels: at most {LABELS_MAX}, each of at most {TEXT_BYTES_MAX} bytes");
        return Err(ApiError::unprocessable(message).detail("field", "labels"));
    }
    Ok(())
}
