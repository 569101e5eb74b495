//! API tokens and tenants.
//!
//! A token is bound to a tenant. The tenant that was made first is the operator's: its administrators make others, and
//! their first tokens.

use llm_config_proto::rest::admin::{NewToken, ShownToken, TenantInfo, TokenInfo};
use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::Caller;
use llm_config_shared::access::Permission;
use llm_config_shared::limits::NAME_BYTES_MAX;
use llm_config_shared::name::Tenant;
use llm_config_shared::store::Journal;
use llm_config_shared::time::UnixMillis;
use ring::rand::SystemRandom;
use uuid::Uuid;

use super::Api;
use crate::identity::api_token;
use crate::registry::{ApiToken, Registry, TenantRow};
use crate::{clock, guard};

/// The longest that a token with an expiry may be good for: ten years.
const TTL_MS_MAX: u64 = 10 * 365 * 24 * 3_600 * 1_000;

impl<S: Journal + Registry> Api<S> {
    pub(super) async fn all_tokens(&self, caller: &Caller) -> Result<Vec<TokenInfo>, ApiError> {
        guard::may(caller, Permission::Administer)?;
        Ok(self.parts.store.tokens(&caller.tenant).await?.into_iter().map(info).collect())
    }

    pub(super) async fn add_token(&self, caller: &Caller, asked: NewToken) -> Result<ShownToken, ApiError> {
        guard::may(caller, Permission::Administer)?;
        check_name(&asked.name)?;
        if asked.ttl_ms.is_some_and(|ttl| !(1_000..=TTL_MS_MAX).contains(&ttl)) {
            let message = format!("ttl must be from 1 to {} seconds", TTL_MS_MAX / 1_000);
            return Err(ApiError::unprocessable(message).detail("field", "ttl"));
        }
        let tenant = self.tenant_for(caller, asked.tenant).await?;
        let generated = api_token::generate(&SystemRandom::new());
        let (token, hash) = generated.map_err(|error| ApiError::internal(error.to_string()))?;
        let now = clock::now();
        let stored = ApiToken {
            id: Uuid::now_v7(),
            tenant,
            name: asked.name,
            hash,
            role: asked.role,
            created_at: now,
            created_by: caller.name.to_string(),
            expires_at: asked.ttl_ms.map(|ttl| UnixMillis(now.0.saturating_add(ttl))),
        };
        self.parts.store.add_token(&stored).await?;
        tracing::info!(
            caller = %caller.name, tenant = %stored.tenant, token = stored.name, role = stored.role.as_str(),
            "an API token was made"
        );
        Ok(ShownToken { token, info: info(stored) })
    }

    pub(super) async fn drop_token(&self, caller: &Caller, id: Uuid) -> Result<(), ApiError> {
        guard::may(caller, Permission::Administer)?;
        if !self.parts.store.remove_token(&caller.tenant, id).await? {
            return Err(ApiError::not_found(format!("there is no token {id}")));
        }
        self.parts.guard.forget(id);
        tracing::info!(caller = %caller.name, token = %id, "an API token was removed");
        Ok(())
    }

    /// Only the operator sees that there are others.
    pub(super) async fn all_tenants(&self, caller: &Caller) -> Result<Vec<TenantInfo>, ApiError> {
        guard::may(caller, Permission::Administer)?;
        let tenants = self.parts.store.tenants().await?;
        let all = operator(&tenants) == Some(&caller.tenant);
        let seen = tenants.into_iter().filter(|row| all || row.name == caller.tenant);
        Ok(seen.map(|row| TenantInfo { name: row.name, created_at: row.created_at }).collect())
    }

    pub(super) async fn add_tenant(&self, caller: &Caller, tenant: Tenant) -> Result<TenantInfo, ApiError> {
        guard::may(caller, Permission::Administer)?;
        self.must_be_operator(caller).await?;
        let created_at = clock::now();
        if !self.parts.store.create_tenant(&tenant, created_at).await? {
            return Err(ApiError::conflict(format!("tenant {tenant} exists")).detail("field", "name"));
        }
        tracing::info!(caller = %caller.name, %tenant, "a tenant was made");
        Ok(TenantInfo { name: tenant, created_at })
    }

    /// The tenant that a new token is for.
    async fn tenant_for(&self, caller: &Caller, asked: Option<Tenant>) -> Result<Tenant, ApiError> {
        let Some(tenant) = asked.filter(|tenant| *tenant != caller.tenant) else {
            return Ok(caller.tenant.clone());
        };
        self.must_be_operator(caller).await?;
        if self.parts.store.tenants().await?.iter().any(|row| row.name == tenant) {
            return Ok(tenant);
        }
        Err(ApiError::unprocessable(format!("tenant {tenant} does not exist; create it first"))
            .detail("field", "tenant"))
    }

    async fn must_be_operator(&self, caller: &Caller) -> Result<(), ApiError> {
        let tenants = self.parts.store.tenants().await?;
        guard::may_operate(caller, operator(&tenants))
    }
}

fn operator(tenants: &[TenantRow]) -> Option<&Tenant> {
    tenants.iter().min_by_key(|row| (row.created_at, row.name.clone())).map(|row| &row.name)
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let valid = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(|c| c.is_ascii_graphic());
    if valid {
        return Ok(());
    }
    let message = format!("name must have 1 to {NAME_BYTES_MAX} printable ASCII characters without space");
    Err(ApiError::bad_request(message).detail("field", "name"))
}

fn info(token: ApiToken) -> TokenInfo {
    TokenInfo {
        id: token.id,
        name: token.name,
        tenant: token.tenant,
        role: token.role,
        created_at: token.created_at,
        created_by: token.created_by,
        expires_at: token.expires_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_tenant_is_the_operators() {
        let row = |name, at| TenantRow { name: Tenant::parse(name).unwrap(), created_at: UnixMillis(at) };
        let tenants = [row("acme", 9), row("default", 3), row("zoo", 4)];
        assert_eq!(operator(&tenants).map(Tenant::as_str), Some("default"));
        assert_eq!(operator(&[]), None);
    }

    #[test]
    fn a_token_has_a_name_that_can_be_logged() {
        assert!(check_name("ci-1").is_ok());
        for name in ["", "a b", "x\n", "ü", &"n".repeat(65)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
