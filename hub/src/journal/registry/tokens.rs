//! Tokens: only their hashes are here.

use llm_config_shared::access::Role;
use llm_config_shared::name::{EdgeName, Tenant};
use llm_config_shared::store::fleet::Kind;
use llm_config_shared::time::UnixMillis;
use uuid::Uuid;

use super::fleet;
use crate::journal::dialect::{Answer, Cells, Sql, Transact};
use crate::journal::encoding;
use crate::journal::failure::corrupt;
use crate::journal::rows::{hash, name, uuid, written};
use crate::registry::{ApiToken, JoinToken, TokenHash};

const ADD: Sql = Sql::same(
    "INSERT INTO api_token (id, tenant, name, hash, role, created_at, created_by, expires_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
);
const BY_HASH: Sql = Sql::same(
    "SELECT id, tenant, name, hash, role, created_at, created_by, expires_at FROM api_token WHERE hash = $1",
);
const OF_TENANT: Sql = Sql::same(
    "SELECT id, tenant, name, hash, role, created_at, created_by, expires_at FROM api_token WHERE tenant = $1
     ORDER BY created_at, id",
);
const REMOVE: Sql = Sql::same("DELETE FROM api_token WHERE tenant = $1 AND id = $2");
const ADD_JOIN: Sql = Sql::same(
    "INSERT INTO join_token (id, tenant, name, hash, binding, labels, created_at, created_by, expires_at, max_uses, uses)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
);
/// Locked, because a use is about to be taken.
const LOCK_JOIN: Sql = Sql {
    sqlite:
        "SELECT id, tenant, name, hash, binding, labels, created_at, created_by, expires_at, max_uses, uses
             FROM join_token WHERE hash = $1",
    postgres:
        "SELECT id, tenant, name, hash, binding, labels, created_at, created_by, expires_at, max_uses, uses
               FROM join_token WHERE hash = $1 FOR UPDATE",
};
const USE_JOIN: Sql = Sql::same("UPDATE join_token SET uses = uses + 1 WHERE id = $1");

pub(super) async fn add<T: Transact>(tx: &mut T, token: &ApiToken) -> Answer<()> {
    let args = vec![
        token.id.as_bytes().as_slice().into(),
        token.tenant.as_str().into(),
        token.name.as_bytes().into(),
        token.hash.as_slice().into(),
        token.role.as_str().into(),
        token.created_at.0.into(),
        token.created_by.as_bytes().into(),
        token.expires_at.map(|at| at.0).into(),
    ];
    tx.execute(ADD, args).await?;
    fleet::changed(tx, Kind::Token, &fleet::hex(token.id)).await
}

pub(super) async fn by_hash<T: Transact>(tx: &mut T, hash: &TokenHash) -> Answer<Option<ApiToken>> {
    tx.fetch(BY_HASH, vec![hash.as_slice().into()]).await?.first().map(token).transpose()
}

pub(super) async fn of_tenant<T: Transact>(tx: &mut T, tenant: &Tenant) -> Answer<Vec<ApiToken>> {
    tx.fetch(OF_TENANT, vec![tenant.as_str().into()]).await?.iter().map(token).collect()
}

pub(super) async fn remove<T: Transact>(tx: &mut T, tenant: &Tenant, id: Uuid) -> Answer<bool> {
    let removed =
        tx.execute(REMOVE, vec![tenant.as_str().into(), id.as_bytes().as_slice().into()]).await? > 0;
    if removed {
        fleet::ended(tx, Kind::Token, &fleet::hex(id)).await?;
    }
    Ok(removed)
}

fn token(row: &impl Cells) -> Answer<ApiToken> {
    Ok(ApiToken {
        id: uuid(row, 0)?,
        tenant: name(Tenant::parse(row.text(1)?))?,
        name: written(row.blob(2)?)?.as_ref().to_owned(),
        hash: hash(row, 3)?,
        role: Role::parse(row.text(4)?).ok_or_else(|| corrupt("a token of an unknown role"))?,
        created_at: UnixMillis(row.int(5)?),
        created_by: written(row.blob(6)?)?.as_ref().to_owned(),
        expires_at: row.int_or_null(7)?.map(UnixMillis),
    })
}

pub(super) async fn add_join<T: Transact>(tx: &mut T, token: &JoinToken) -> Answer<()> {
    let args = vec![
        token.id.as_bytes().as_slice().into(),
        token.tenant.as_str().into(),
        token.name.as_str().into(),
        token.hash.as_slice().into(),
        encoding::binding(&token.binding).into(),
        encoding::labels(&token.labels).into(),
        token.created_at.0.into(),
        token.created_by.as_bytes().into(),
        token.expires_at.0.into(),
        u64::from(token.max_uses).into(),
        u64::from(token.uses).into(),
    ];
    tx.execute(ADD_JOIN, args).await?;
    fleet::changed(tx, Kind::JoinToken, &fleet::hex(token.id)).await
}

pub(super) async fn lock_join<T: Transact>(tx: &mut T, hash: &TokenHash) -> Answer<Option<JoinToken>> {
    tx.fetch(LOCK_JOIN, vec![hash.as_slice().into()]).await?.first().map(join_token).transpose()
}

pub(super) async fn use_join<T: Transact>(tx: &mut T, id: Uuid) -> Answer<()> {
    tx.execute(USE_JOIN, vec![id.as_bytes().as_slice().into()]).await?;
    fleet::changed(tx, Kind::JoinToken, &fleet::hex(id)).await
}

fn join_token(row: &impl Cells) -> Answer<JoinToken> {
    let count = |column| -> Answer<u32> {
        u32::try_from(row.int(column)?).map_err(|_| corrupt("a join token with too many uses"))
    };
    Ok(JoinToken {
        id: uuid(row, 0)?,
        tenant: name(Tenant::parse(row.text(1)?))?,
        name: name(EdgeName::parse(row.text(2)?))?,
        hash: hash(row, 3)?,
        binding: encoding::to_binding(row.blob(4)?)?,
        labels: encoding::to_labels(row.blob(5)?)?,
        created_at: UnixMillis(row.int(6)?),
        created_by: written(row.blob(7)?)?.as_ref().to_owned(),
        expires_at: UnixMillis(row.int(8)?),
        max_uses: count(9)?,
        uses: count(10)?,
    })
}
