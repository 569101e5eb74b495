//! Tenants and the inheritance of their environments.

use llm_config_shared::feed::Environments;
use llm_config_shared::name::{Environment, Tenant};
use llm_config_shared::store::fleet::Kind;
use llm_config_shared::time::UnixMillis;

use super::fleet;
use crate::journal::dialect::{Answer, Cells, Column, Sql, Transact};
use crate::journal::failure::unavailable;
use crate::journal::rows::name;
use crate::registry::{SetEnvironmentError, TenantRow};

const CREATE: Sql =
    Sql::same("INSERT INTO tenant (name, created_at) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING");
const ALL: Sql = Sql::same("SELECT name, created_at FROM tenant ORDER BY name");
const LOCK: Sql = Sql {
    sqlite: "SELECT name FROM tenant WHERE name = $1",
    postgres: "SELECT name FROM tenant WHERE name = $1 FOR UPDATE",
};
const ENVIRONMENTS: Sql = Sql::same("SELECT name, parent FROM environment WHERE tenant = $1");
const PUT: Sql = Sql {
    sqlite: "INSERT INTO environment (tenant, name, parent) VALUES ($1, $2, $3)
             ON CONFLICT (tenant, name) DO UPDATE SET parent = excluded.parent",
    postgres: "INSERT INTO environment (tenant, name, parent)
               SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
               ON CONFLICT (tenant, name) DO UPDATE SET parent = excluded.parent",
};

pub(super) async fn create<T: Transact>(tx: &mut T, tenant: &Tenant, now: UnixMillis) -> Answer<bool> {
    if tx.execute(CREATE, vec![tenant.as_str().into(), now.0.into()]).await? == 0 {
        return Ok(false);
    }
    fleet::changed(tx, Kind::Tenant, tenant.as_str()).await?;
    put(tx, tenant, &Environments::standard()).await?;
    Ok(true)
}

pub(super) async fn all<T: Transact>(tx: &mut T) -> Answer<Vec<TenantRow>> {
    let found = tx.fetch(ALL, vec![]).await?;
    let row = |row: &T::Row| {
        Ok(TenantRow { name: name(Tenant::parse(row.text(0)?))?, created_at: UnixMillis(row.int(1)?) })
    };
    found.iter().map(row).collect()
}

pub(super) async fn environments<T: Transact>(tx: &mut T, tenant: &Tenant) -> Answer<Environments> {
    let found = tx.fetch(ENVIRONMENTS, vec![tenant.as_str().into()]).await?;
    let mut pairs = Vec::with_capacity(found.len());
    for row in &found {
        let parent = row.text_or_null(1)?.map(|parent| name(Environment::parse(parent))).transpose()?;
        pairs.push((name(Environment::parse(row.text(0)?))?, parent));
    }
    Ok(Environments::from_pairs(pairs))
}

/// The tenant is locked, so that two changes that are each fine do not close a circle together.
pub(super) async fn set_environment<T: Transact>(
    tx: &mut T,
    tenant: &Tenant,
    environment: &Environment,
    parent: Option<&Environment>,
) -> Result<Environments, SetEnvironmentError> {
    if tx.fetch(LOCK, vec![tenant.as_str().into()]).await?.is_empty() {
        return Err(unavailable(format!("it has no tenant {tenant}")).into());
    }
    let mut environments = environments(tx, tenant).await?;
    environments.set_parent(environment.clone(), parent.cloned())?;
    let changed = Environments::from_pairs([(environment.clone(), parent.cloned())]);
    put(tx, tenant, &changed).await?;
    Ok(environments)
}

async fn put<T: Transact>(tx: &mut T, tenant: &Tenant, environments: &Environments) -> Answer<()> {
    let columns = vec![
        Column::texts(environments.iter().map(|_| tenant.as_str())),
        Column::texts(environments.iter().map(|(name, _)| name.as_str())),
        Column::texts_or_null(environments.iter().map(|(_, parent)| parent.map(Environment::as_str))),
    ];
    tx.execute_each(PUT, columns).await?;
    for (name, _) in environments.iter() {
        fleet::changed(tx, Kind::Environment, &format!("{tenant}/{name}")).await?;
    }
    Ok(())
}
