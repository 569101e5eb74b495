//! The tables for lost edges: offline limits.

use llm_config_shared::limits::OFFLINE_LIMITS_MAX;
use llm_config_shared::name::{Namespace, Subtree, Tenant};
use llm_config_shared::offline::OfflineLimits;

use crate::journal::Database;
use crate::journal::dialect::{Answer, Cells, Dialect, Sql, Transact};
use crate::journal::failure::unavailable;
use crate::journal::rows::name;
use crate::registry::{Losses, SetPolicyError};

const LOCK: Sql = Sql {
    sqlite: "SELECT name FROM tenant WHERE name = $1",
    postgres: "SELECT name FROM tenant WHERE name = $1 FOR UPDATE",
};
const LIMITS: Sql = Sql::same("SELECT namespace, limit_ms FROM offline_limit WHERE tenant = $1");
const PUT_LIMIT: Sql = Sql::same(
    "INSERT INTO offline_limit (tenant, namespace, limit_ms) VALUES ($1, $2, $3)
     ON CONFLICT (tenant, namespace) DO UPDATE SET limit_ms = excluded.limit_ms",
);
const REMOVE_LIMIT: Sql = Sql::same("DELETE FROM offline_limit WHERE tenant = $1 AND namespace = $2");

impl<D: Dialect> Losses for Database<D> {
    async fn offline_limits(&self, tenant: &Tenant) -> Answer<OfflineLimits> {
        let mut tx = self.dialect.begin_read().await?;
        let limits = limits(&mut tx, tenant).await?;
        tx.commit().await?;
        Ok(limits)
    }

    async fn set_offline_limit(
        &self,
        tenant: &Tenant,
        namespace: &Namespace,
        limit_ms: Option<u64>,
    ) -> Result<OfflineLimits, SetPolicyError> {
        let mut tx = self.dialect.begin_write().await?;
        let limits = set_limit(&mut tx, tenant, namespace, limit_ms).await?;
        tx.commit().await?;
        Ok(limits)
    }
}

async fn limits<T: Transact>(tx: &mut T, tenant: &Tenant) -> Answer<OfflineLimits> {
    let mut limits = OfflineLimits::default();
    for row in &tx.fetch(LIMITS, vec![tenant.as_str().into()]).await? {
        limits.set(name(Subtree::parse(row.text(0)?))?, row.int(1)?);
    }
    Ok(limits)
}

/// The tenant is locked, so that two at once do not come above the bound together.
async fn set_limit<T: Transact>(
    tx: &mut T,
    tenant: &Tenant,
    namespace: &Namespace,
    limit_ms: Option<u64>,
) -> Result<OfflineLimits, SetPolicyError> {
    if tx.fetch(LOCK, vec![tenant.as_str().into()]).await?.is_empty() {
        return Err(unavailable(format!("it has no tenant {tenant}")).into());
    }
    match limit_ms {
        None => tx.execute(REMOVE_LIMIT, vec![tenant.as_str().into(), namespace.as_str().into()]).await?,
        Some(limit_ms) => {
            let args = vec![tenant.as_str().into(), namespace.as_str().into(), limit_ms.into()];
            tx.execute(PUT_LIMIT, args).await?
        }
    };
    let limits = limits(tx, tenant).await?;
    if limits.iter().count() > OFFLINE_LIMITS_MAX {
        return Err(SetPolicyError::TooMany);
    }
    Ok(limits)
}
