//! The tables for lost edges: offline limits, what was exposed, who said that it has destroyed its data.

use std::collections::BTreeMap;

use llm_config_shared::exposure::SecretVersion;
use llm_config_shared::limits::OFFLINE_LIMITS_MAX;
use llm_config_shared::name::{Namespace, Subtree, Tenant};
use llm_config_shared::offline::OfflineLimits;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::fleet::Kind;
use llm_config_shared::time::UnixMillis;

use super::fleet;
use crate::journal::Database;
use crate::journal::dialect::{Answer, Cells, Dialect, Sql, Transact};
use crate::journal::failure::unavailable;
use crate::journal::rows::{name, uuid};
use crate::registry::{GrantRow, KeptVersion, Loss, Losses, SetPolicyError, ToRotate};

mod exposed;

const LOCK: Sql = Sql {
    sqlite: "SELECT name FROM tenant WHERE name = $1",
    postgres: "SELECT name FROM tenant WHERE name = $1 FOR UPDATE",
};
const LIMITS: Sql = Sql::same("SELECT namespace, limit_ms FROM offline_limit WHERE tenant = $1");
const PUT_LIMIT: Sql = Sql::same(
    "INSERT INTO offline_limit (tenant, namespace, limit_ms) VALUES ($1, $2, $3)
     ON CONFLICT (tenant, namespace) DO UPDATE SET limit_ms = excluded.limit_ms",
);
const PUT_WIPE: Sql =
    Sql::same("INSERT INTO wipe (edge, wiped_at, proof) VALUES ($1, $2, $3) ON CONFLICT (edge) DO NOTHING");
const PUT_CARRIED: Sql = Sql::same(
    "INSERT INTO carried (edge, made_at, answers) VALUES ($1, $2, $3)
     ON CONFLICT (edge) DO UPDATE SET made_at = excluded.made_at, answers = excluded.answers
     WHERE excluded.made_at > carried.made_at",
);
const CARRIED: Sql = Sql::same("SELECT answers FROM carried WHERE edge = $1");
const WIPES: Sql =
    Sql::same("SELECT w.edge, w.wiped_at FROM wipe w JOIN edge e ON e.id = w.edge WHERE e.tenant = $1");
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

    async fn secret_versions(&self, tenant: &Tenant) -> Answer<Vec<KeptVersion>> {
        let mut tx = self.dialect.begin_read().await?;
        let versions = exposed::versions(&mut tx, tenant).await?;
        tx.commit().await?;
        Ok(versions)
    }

    async fn all_grants(&self, tenant: &Tenant) -> Answer<Vec<GrantRow>> {
        let mut tx = self.dialect.begin_read().await?;
        let grants = super::keys::all_grants(&mut tx, tenant).await?;
        tx.commit().await?;
        Ok(grants)
    }

    async fn record_loss(&self, loss: &Loss, to_rotate: &[SecretVersion]) -> Answer<()> {
        let mut tx = self.dialect.begin_write().await?;
        exposed::record(&mut tx, loss, to_rotate).await?;
        tx.commit().await
    }

    async fn loss(&self, edge: ActorId) -> Answer<Option<Loss>> {
        let mut tx = self.dialect.begin_read().await?;
        let loss = exposed::loss(&mut tx, edge).await?;
        tx.commit().await?;
        Ok(loss)
    }

    async fn to_rotate(&self, tenant: &Tenant) -> Answer<Vec<ToRotate>> {
        let mut tx = self.dialect.begin_read().await?;
        let marked = exposed::to_rotate(&mut tx, tenant).await?;
        tx.commit().await?;
        Ok(marked)
    }

    async fn record_wipe(&self, edge: ActorId, wiped_at: UnixMillis, proof: &[u8]) -> Answer<()> {
        let mut tx = self.dialect.begin_write().await?;
        let args = vec![edge.0.as_bytes().as_slice().into(), wiped_at.0.into(), proof.into()];
        tx.execute(PUT_WIPE, args).await?;
        fleet::changed(&mut tx, Kind::Wipe, &fleet::hex(edge.0)).await?;
        tx.commit().await
    }

    async fn put_carried(&self, edge: ActorId, made_at: UnixMillis, answers: &[u8]) -> Answer<()> {
        let mut tx = self.dialect.begin_write().await?;
        let args = vec![edge.0.as_bytes().as_slice().into(), made_at.0.into(), answers.into()];
        tx.execute(PUT_CARRIED, args).await?;
        tx.commit().await
    }

    async fn carried(&self, edge: ActorId) -> Answer<Option<Vec<u8>>> {
        let mut tx = self.dialect.begin_read().await?;
        let found = tx.fetch(CARRIED, vec![edge.0.as_bytes().as_slice().into()]).await?;
        let answers = found.first().map(|row| Ok(row.blob(0)?.to_vec())).transpose();
        tx.commit().await?;
        answers
    }

    async fn wipes(&self, tenant: &Tenant) -> Answer<BTreeMap<ActorId, UnixMillis>> {
        let mut tx = self.dialect.begin_read().await?;
        let found = tx.fetch(WIPES, vec![tenant.as_str().into()]).await?;
        let wipe = |row: &_| Ok((ActorId(uuid(row, 0)?), UnixMillis(Cells::int(row, 1)?)));
        let wipes = found.iter().map(wipe).collect::<Answer<_>>()?;
        tx.commit().await?;
        Ok(wipes)
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
    let id = format!("{tenant}/{namespace}");
    match limit_ms {
        None => {
            tx.execute(REMOVE_LIMIT, vec![tenant.as_str().into(), namespace.as_str().into()]).await?;
            fleet::ended(tx, Kind::OfflineLimit, &id).await?;
        }
        Some(limit_ms) => {
            let args = vec![tenant.as_str().into(), namespace.as_str().into(), limit_ms.into()];
            tx.execute(PUT_LIMIT, args).await?;
            fleet::changed(tx, Kind::OfflineLimit, &id).await?;
        }
    }
    let limits = limits(tx, tenant).await?;
    if limits.iter().count() > OFFLINE_LIMITS_MAX {
        return Err(SetPolicyError::TooMany);
    }
    Ok(limits)
}
