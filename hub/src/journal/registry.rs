//! The hub's tables beside the journal: tenants and environments, tokens, edges, wrapped keys.

use llm_config_shared::feed::{Binding, Environments};
use llm_config_shared::name::{EdgeName, Environment, Namespace, Tenant};
use llm_config_shared::policy::{ConflictPolicy, Policies};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::time::UnixMillis;
use uuid::Uuid;

use super::Database;
use super::dialect::{Answer, Dialect, Transact};
use crate::registry::{
    ApiToken, Edge, EdgeKeys, GrantRow, JoinOutcome, JoinToken, Registry, SetEnvironmentError,
    SetPolicyError, TenantRow, TokenHash, WrappedRoot,
};

mod edges;
mod expiries;
pub(super) mod fleet;
mod joining;
mod keys;
mod losses;
pub(super) mod policies;
mod purges;
mod rotations;
mod source_keys;
mod tenants;
mod tokens;
mod uses;

impl<D: Dialect> Registry for Database<D> {
    async fn create_tenant(&self, tenant: &Tenant, now: UnixMillis) -> Answer<bool> {
        let mut tx = self.dialect.begin_write().await?;
        let created = tenants::create(&mut tx, tenant, now).await?;
        tx.commit().await?;
        Ok(created)
    }

    async fn tenants(&self) -> Answer<Vec<TenantRow>> {
        let mut tx = self.dialect.begin_read().await?;
        let tenants = tenants::all(&mut tx).await?;
        tx.commit().await?;
        Ok(tenants)
    }

    async fn environments(&self, tenant: &Tenant) -> Answer<Environments> {
        let mut tx = self.dialect.begin_read().await?;
        let environments = tenants::environments(&mut tx, tenant).await?;
        tx.commit().await?;
        Ok(environments)
    }

    async fn set_environment(
        &self,
        tenant: &Tenant,
        environment: &Environment,
        parent: Option<&Environment>,
    ) -> Result<Environments, SetEnvironmentError> {
        let mut tx = self.dialect.begin_write().await?;
        let environments = tenants::set_environment(&mut tx, tenant, environment, parent).await?;
        tx.commit().await?;
        Ok(environments)
    }

    async fn policies(&self, tenant: &Tenant) -> Answer<Policies> {
        let mut tx = self.dialect.begin_read().await?;
        let policies = policies::of(&mut tx, std::slice::from_ref(tenant)).await?;
        tx.commit().await?;
        Ok(policies)
    }

    async fn set_policy(
        &self,
        tenant: &Tenant,
        namespace: &Namespace,
        policy: Option<ConflictPolicy>,
    ) -> Result<Policies, SetPolicyError> {
        let mut tx = self.dialect.begin_write().await?;
        let policies = policies::set(&mut tx, tenant, namespace, policy).await?;
        tx.commit().await?;
        Ok(policies)
    }

    async fn add_token(&self, token: &ApiToken) -> Answer<()> {
        let mut tx = self.dialect.begin_write().await?;
        tokens::add(&mut tx, token).await?;
        tx.commit().await
    }

    async fn token(&self, hash: &TokenHash) -> Answer<Option<ApiToken>> {
        let mut tx = self.dialect.begin_read().await?;
        let token = tokens::by_hash(&mut tx, hash).await?;
        tx.commit().await?;
        Ok(token)
    }

    async fn tokens(&self, tenant: &Tenant) -> Answer<Vec<ApiToken>> {
        let mut tx = self.dialect.begin_read().await?;
        let tokens = tokens::of_tenant(&mut tx, tenant).await?;
        tx.commit().await?;
        Ok(tokens)
    }

    async fn remove_token(&self, tenant: &Tenant, id: Uuid) -> Answer<bool> {
        let mut tx = self.dialect.begin_write().await?;
        let removed = tokens::remove(&mut tx, tenant, id).await?;
        tx.commit().await?;
        Ok(removed)
    }

    async fn add_join_token(&self, token: &JoinToken) -> Answer<()> {
        let mut tx = self.dialect.begin_write().await?;
        tokens::add_join(&mut tx, token).await?;
        tx.commit().await
    }

    async fn join(
        &self,
        hash: &TokenHash,
        keys: &EdgeKeys,
        requested: Option<&EdgeName>,
        id: ActorId,
        now: UnixMillis,
    ) -> Answer<JoinOutcome> {
        let mut tx = self.dialect.begin_write().await?;
        let outcome = joining::join(&mut tx, hash, keys, requested, id, now).await?;
        tx.commit().await?;
        Ok(outcome)
    }

    async fn edges(&self, tenant: &Tenant) -> Answer<Vec<Edge>> {
        let mut tx = self.dialect.begin_read().await?;
        let edges = edges::of_tenant(&mut tx, tenant).await?;
        tx.commit().await?;
        Ok(edges)
    }

    async fn edge(&self, id: ActorId) -> Answer<Option<Edge>> {
        let mut tx = self.dialect.begin_read().await?;
        let edge = edges::by_id(&mut tx, id).await?;
        tx.commit().await?;
        Ok(edge)
    }

    async fn edge_named(&self, tenant: &Tenant, name: &EdgeName) -> Answer<Option<Edge>> {
        let mut tx = self.dialect.begin_read().await?;
        let edge = edges::by_name(&mut tx, tenant, name).await?;
        tx.commit().await?;
        Ok(edge)
    }

    async fn remove_edge(&self, tenant: &Tenant, name: &EdgeName, now: UnixMillis) -> Answer<bool> {
        let mut tx = self.dialect.begin_write().await?;
        let removed = edges::remove(&mut tx, tenant, name, now).await?;
        tx.commit().await?;
        Ok(removed)
    }

    async fn bind_edge(&self, tenant: &Tenant, name: &EdgeName, binding: &Binding) -> Answer<Option<Edge>> {
        let mut tx = self.dialect.begin_write().await?;
        edges::bind(&mut tx, tenant, name, binding).await?;
        let edge = edges::by_name(&mut tx, tenant, name).await?;
        tx.commit().await?;
        Ok(edge)
    }

    async fn touch_edges(&self, seen: &[(ActorId, UnixMillis, u64)]) -> Answer<()> {
        let mut tx = self.dialect.begin_write().await?;
        edges::touch(&mut tx, seen).await?;
        tx.commit().await
    }

    async fn touch_edges_elsewhere(&self, seen: &[(ActorId, UnixMillis, u64)]) -> Answer<()> {
        let mut tx = self.dialect.begin_write().await?;
        edges::touch_elsewhere(&mut tx, seen).await?;
        tx.commit().await
    }

    async fn touch_edge_carried(&self, edge: ActorId, seen_at: UnixMillis, acked_seq: u64) -> Answer<()> {
        let mut tx = self.dialect.begin_write().await?;
        edges::touch_carried(&mut tx, edge, seen_at, acked_seq).await?;
        tx.commit().await
    }

    async fn set_sealing_key(&self, edge: ActorId, sealing_key: &[u8]) -> Answer<()> {
        let mut tx = self.dialect.begin_write().await?;
        edges::set_sealing_key(&mut tx, edge, sealing_key).await?;
        tx.commit().await
    }

    async fn wrapped_key(&self, name: &str) -> Answer<Option<Vec<u8>>> {
        let mut tx = self.dialect.begin_read().await?;
        let key = keys::wrapped(&mut tx, name).await?;
        tx.commit().await?;
        Ok(key)
    }

    async fn put_wrapped_key(&self, name: &str, wrapped: &[u8]) -> Answer<Vec<u8>> {
        let mut tx = self.dialect.begin_write().await?;
        let stored = keys::put_wrapped(&mut tx, name, wrapped).await?;
        tx.commit().await?;
        Ok(stored)
    }

    async fn roots(&self, tenant: &Tenant) -> Answer<Vec<WrappedRoot>> {
        let mut tx = self.dialect.begin_read().await?;
        let roots = keys::roots(&mut tx, tenant).await?;
        tx.commit().await?;
        Ok(roots)
    }

    async fn put_root(&self, root: &WrappedRoot) -> Answer<WrappedRoot> {
        let mut tx = self.dialect.begin_write().await?;
        let stored = keys::put_root(&mut tx, root).await?;
        tx.commit().await?;
        Ok(stored)
    }

    async fn record_grants(&self, grants: &[GrantRow]) -> Answer<()> {
        let mut tx = self.dialect.begin_write().await?;
        keys::record_grants(&mut tx, grants).await?;
        tx.commit().await
    }

    async fn grants(&self, edge: ActorId) -> Answer<Vec<GrantRow>> {
        let mut tx = self.dialect.begin_read().await?;
        let grants = keys::grants(&mut tx, edge).await?;
        tx.commit().await?;
        Ok(grants)
    }
}
