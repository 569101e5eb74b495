//! Keys under the key-encryption key, and the ledger of keys that were handed out.

use std::collections::BTreeSet;

use llm_config_shared::name::{Environment, Subtree, Tenant};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::fleet::Kind;
use llm_config_shared::time::UnixMillis;

use super::fleet;
use crate::journal::dialect::{Answer, Cells, Column, Sql, Transact};
use crate::journal::failure::{corrupt, unavailable};
use crate::journal::rows::{name, uuid};
use crate::registry::{GrantRow, WrappedRoot};

const WRAPPED: Sql = Sql::same("SELECT wrapped FROM wrapped_key WHERE name = $1");
const PUT_WRAPPED: Sql =
    Sql::same("INSERT INTO wrapped_key (name, wrapped) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING");
const ROOTS: Sql = Sql::same(
    "SELECT tenant, environment, key_epoch, wrapped, created_at FROM root WHERE tenant = $1
     ORDER BY environment, key_epoch",
);
const ROOT: Sql = Sql::same(
    "SELECT tenant, environment, key_epoch, wrapped, created_at FROM root
     WHERE tenant = $1 AND environment = $2 AND key_epoch = $3",
);
const PUT_ROOT: Sql = Sql::same(
    "INSERT INTO root (tenant, environment, key_epoch, wrapped, created_at) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (tenant, environment, key_epoch) DO NOTHING",
);
const RECORD: Sql = Sql {
    sqlite: "INSERT INTO grant_ledger (edge, tenant, environment, subtree, key_epoch, granted_at)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING
             RETURNING edge, environment, key_epoch, subtree",
    postgres: "INSERT INTO grant_ledger (edge, tenant, environment, subtree, key_epoch, granted_at)
               SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
               ON CONFLICT DO NOTHING RETURNING edge, environment, key_epoch, subtree",
};
const GRANTS: Sql = Sql::same(
    "SELECT edge, tenant, environment, subtree, key_epoch, granted_at FROM grant_ledger WHERE edge = $1
     ORDER BY granted_at, environment, subtree, key_epoch",
);

const ALL_GRANTS: Sql = Sql::same(
    "SELECT edge, tenant, environment, subtree, key_epoch, granted_at FROM grant_ledger WHERE tenant = $1
     ORDER BY edge, environment, subtree, key_epoch",
);
/// Locked, so that whoever removes the edge waits or is seen.
const REMOVED: Sql = Sql {
    sqlite: "SELECT removed_at FROM edge WHERE id = $1",
    postgres: "SELECT removed_at FROM edge WHERE id = $1 FOR SHARE",
};

pub(super) async fn wrapped<T: Transact>(tx: &mut T, key: &str) -> Answer<Option<Vec<u8>>> {
    let found = tx.fetch(WRAPPED, vec![key.into()]).await?;
    found.first().map(|row| Ok(row.blob(0)?.to_vec())).transpose()
}

pub(super) async fn put_wrapped<T: Transact>(tx: &mut T, key: &str, bytes: &[u8]) -> Answer<Vec<u8>> {
    tx.execute(PUT_WRAPPED, vec![key.into(), bytes.into()]).await?;
    wrapped(tx, key).await?.ok_or_else(|| corrupt("a key that is gone after it was stored"))
}

pub(super) async fn roots<T: Transact>(tx: &mut T, tenant: &Tenant) -> Answer<Vec<WrappedRoot>> {
    tx.fetch(ROOTS, vec![tenant.as_str().into()]).await?.iter().map(root).collect()
}

pub(super) async fn put_root<T: Transact>(tx: &mut T, new: &WrappedRoot) -> Answer<WrappedRoot> {
    let tenant = new.tenant.as_str();
    let environment = new.environment.as_str();
    let args = vec![
        tenant.into(),
        environment.into(),
        new.key_epoch.into(),
        new.wrapped.as_slice().into(),
        new.created_at.0.into(),
    ];
    tx.execute(PUT_ROOT, args).await?;
    let found = tx.fetch(ROOT, vec![tenant.into(), environment.into(), new.key_epoch.into()]).await?;
    root(found.first().ok_or_else(|| corrupt("a root that is gone after it was stored"))?)
}

fn root(row: &impl Cells) -> Answer<WrappedRoot> {
    Ok(WrappedRoot {
        tenant: name(Tenant::parse(row.text(0)?))?,
        environment: name(Environment::parse(row.text(1)?))?,
        key_epoch: row.int(2)?,
        wrapped: row.blob(3)?.to_vec(),
        created_at: UnixMillis(row.int(4)?),
    })
}

/// An edge that was removed is given nothing any more: what it ever got is complete from that moment.
async fn refuse_removed<T: Transact>(tx: &mut T, edges: &BTreeSet<ActorId>) -> Answer<()> {
    for edge in edges {
        let found = tx.fetch(REMOVED, vec![edge.0.as_bytes().as_slice().into()]).await?;
        if found.first().is_some_and(|row| !matches!(row.int_or_null(0), Ok(None))) {
            return Err(unavailable("it says that the edge was removed"));
        }
    }
    Ok(())
}

pub(super) async fn record_grants<T: Transact>(tx: &mut T, grants: &[GrantRow]) -> Answer<()> {
    refuse_removed(tx, &grants.iter().map(|grant| grant.edge).collect()).await?;
    let order = |row: &&GrantRow| (row.edge, row.environment.clone(), row.subtree.clone(), row.key_epoch);
    let mut seen = BTreeSet::new();
    let mut rows: Vec<&GrantRow> = grants.iter().filter(|row| seen.insert(order(row))).collect();
    rows.sort_by_key(order);
    let columns = vec![
        Column::blobs(rows.iter().map(|row| row.edge.0.as_bytes().as_slice())),
        Column::texts(rows.iter().map(|row| row.tenant.as_str())),
        Column::texts(rows.iter().map(|row| row.environment.as_str())),
        Column::texts(rows.iter().map(|row| row.subtree.as_str())),
        Column::ints(rows.iter().map(|row| row.key_epoch)),
        Column::ints(rows.iter().map(|row| row.granted_at.0)),
    ];
    for row in &tx.fetch_each(RECORD, columns).await? {
        let (edge, environment) = (fleet::hex(uuid(row, 0)?), row.text(1)?);
        let id = format!("{edge}/{environment}/{}/{}", row.int(2)?, row.text(3)?);
        fleet::changed(tx, Kind::Grant, &id).await?;
    }
    Ok(())
}

pub(super) async fn grants<T: Transact>(tx: &mut T, edge: ActorId) -> Answer<Vec<GrantRow>> {
    tx.fetch(GRANTS, vec![edge.0.as_bytes().as_slice().into()]).await?.iter().map(grant).collect()
}

pub(super) async fn all_grants<T: Transact>(tx: &mut T, tenant: &Tenant) -> Answer<Vec<GrantRow>> {
    tx.fetch(ALL_GRANTS, vec![tenant.as_str().into()]).await?.iter().map(grant).collect()
}

fn grant(row: &impl Cells) -> Answer<GrantRow> {
    Ok(GrantRow {
        edge: ActorId(uuid(row, 0)?),
        tenant: name(Tenant::parse(row.text(1)?))?,
        environment: name(Environment::parse(row.text(2)?))?,
        subtree: name(Subtree::parse(row.text(3)?))?,
        key_epoch: row.int(4)?,
        granted_at: UnixMillis(row.int(5)?),
    })
}
