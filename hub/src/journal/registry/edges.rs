//! Enrolled edges. Removed ones stay, because the history and the ledger of keys name them.

use std::collections::BTreeMap;

use llm_config_shared::feed::Binding;
use llm_config_shared::name::{EdgeName, Tenant};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::fleet::Kind;
use llm_config_shared::time::UnixMillis;
use uuid::Uuid;

use super::fleet;
use crate::journal::dialect::{Answer, Cells, Column, Sql, Transact};
use crate::journal::encoding;
use crate::journal::rows::{name, uuid};
use crate::registry::Edge;

macro_rules! edge_columns {
    () => {
        "SELECT id, tenant, name, binding, labels, public_key, sealing_key, joined_at, removed_at, last_seen_at, \
         acked_seq FROM edge"
    };
}

const OF_TENANT: Sql = Sql::same(concat!(edge_columns!(), " WHERE tenant = $1 ORDER BY name, joined_at, id"));
const BY_ID: Sql = Sql::same(concat!(edge_columns!(), " WHERE id = $1"));
const BY_NAME: Sql =
    Sql::same(concat!(edge_columns!(), " WHERE tenant = $1 AND name = $2 AND removed_at IS NULL"));
const BY_TOKEN: Sql = Sql::same(concat!(edge_columns!(), " WHERE join_token = $1 AND public_key = $2"));
/// Nothing is changed where another edge has the name.
const ADD: Sql = Sql::same(
    "INSERT INTO edge (id, tenant, name, binding, labels, public_key, sealing_key, joined_at, acked_seq, join_token)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
     ON CONFLICT (tenant, name) WHERE removed_at IS NULL DO NOTHING",
);
const REMOVE: Sql = Sql::same(
    "UPDATE edge SET removed_at = $3 WHERE tenant = $1 AND name = $2 AND removed_at IS NULL RETURNING id",
);
const BIND: Sql = Sql::same(
    "UPDATE edge SET binding = $3 WHERE tenant = $1 AND name = $2 AND removed_at IS NULL RETURNING id",
);
const TOUCH: Sql = Sql {
    sqlite: "UPDATE edge SET last_seen_at = $2, acked_seq = CASE WHEN $3 = 0 THEN acked_seq ELSE $3 END WHERE id = $1",
    postgres: "UPDATE edge SET last_seen_at = s, acked_seq = CASE WHEN q = 0 THEN acked_seq ELSE q END
               FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS a (i, s, q) WHERE id = i",
};
const TOUCH_ELSEWHERE: Sql = Sql {
    sqlite: "UPDATE edge SET last_seen_at = $2, acked_seq = max(acked_seq, $3) WHERE id = $1",
    postgres: "UPDATE edge SET last_seen_at = s, acked_seq = greatest(acked_seq, q)
               FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS a (i, s, q) WHERE id = i",
};
const TOUCH_CARRIED: Sql = Sql::same(
    "UPDATE edge SET last_seen_at = $2, acked_seq = CASE WHEN $3 = 0 THEN acked_seq ELSE $3 END
     WHERE id = $1 AND (last_seen_at IS NULL OR last_seen_at <= $2)",
);
const SET_SEALING_KEY: Sql = Sql::same("UPDATE edge SET sealing_key = $2 WHERE id = $1");

pub(super) async fn of_tenant<T: Transact>(tx: &mut T, tenant: &Tenant) -> Answer<Vec<Edge>> {
    tx.fetch(OF_TENANT, vec![tenant.as_str().into()]).await?.iter().map(edge).collect()
}

pub(super) async fn by_id<T: Transact>(tx: &mut T, id: ActorId) -> Answer<Option<Edge>> {
    tx.fetch(BY_ID, vec![id.0.as_bytes().as_slice().into()]).await?.first().map(edge).transpose()
}

pub(super) async fn by_name<T: Transact>(
    tx: &mut T,
    tenant: &Tenant,
    name: &EdgeName,
) -> Answer<Option<Edge>> {
    let args = vec![tenant.as_str().into(), name.as_str().into()];
    tx.fetch(BY_NAME, args).await?.first().map(edge).transpose()
}

pub(super) async fn by_token<T: Transact>(
    tx: &mut T,
    token: Uuid,
    public_key: &[u8],
) -> Answer<Option<Edge>> {
    let args = vec![token.as_bytes().as_slice().into(), public_key.into()];
    tx.fetch(BY_TOKEN, args).await?.first().map(edge).transpose()
}

/// False when the name is taken.
pub(super) async fn add<T: Transact>(tx: &mut T, edge: &Edge, join_token: Uuid) -> Answer<bool> {
    let args = vec![
        edge.id.0.as_bytes().as_slice().into(),
        edge.tenant.as_str().into(),
        edge.name.as_str().into(),
        encoding::binding(&edge.binding).into(),
        encoding::labels(&edge.labels).into(),
        edge.public_key.as_slice().into(),
        edge.sealing_key.as_slice().into(),
        edge.joined_at.0.into(),
        edge.acked_seq.into(),
        join_token.as_bytes().as_slice().into(),
    ];
    let added = tx.execute(ADD, args).await? > 0;
    if added {
        fleet::changed(tx, Kind::Edge, &fleet::hex(edge.id.0)).await?;
    }
    Ok(added)
}

pub(super) async fn remove<T: Transact>(
    tx: &mut T,
    tenant: &Tenant,
    name: &EdgeName,
    now: UnixMillis,
) -> Answer<bool> {
    let found = tx.fetch(REMOVE, vec![tenant.as_str().into(), name.as_str().into(), now.0.into()]).await?;
    for row in &found {
        fleet::changed(tx, Kind::Removal, &fleet::hex(uuid(row, 0)?)).await?;
    }
    Ok(!found.is_empty())
}

pub(super) async fn bind<T: Transact>(
    tx: &mut T,
    tenant: &Tenant,
    name: &EdgeName,
    binding: &Binding,
) -> Answer<()> {
    let args = vec![tenant.as_str().into(), name.as_str().into(), encoding::binding(binding).into()];
    for row in &tx.fetch(BIND, args).await? {
        fleet::changed(tx, Kind::Edge, &fleet::hex(uuid(row, 0)?)).await?;
    }
    Ok(())
}

pub(super) async fn touch<T: Transact>(tx: &mut T, seen: &[(ActorId, UnixMillis, u64)]) -> Answer<()> {
    touch_by(tx, TOUCH, seen).await
}

pub(super) async fn touch_elsewhere<T: Transact>(
    tx: &mut T,
    seen: &[(ActorId, UnixMillis, u64)],
) -> Answer<()> {
    touch_by(tx, TOUCH_ELSEWHERE, seen).await
}

pub(super) async fn touch_carried<T: Transact>(
    tx: &mut T,
    edge: ActorId,
    seen_at: UnixMillis,
    acked_seq: u64,
) -> Answer<()> {
    let args = vec![edge.0.as_bytes().as_slice().into(), seen_at.0.into(), acked_seq.into()];
    tx.execute(TOUCH_CARRIED, args).await?;
    Ok(())
}

/// Rows are locked in the order of ids, and of one edge the last word counts.
async fn touch_by<T: Transact>(
    tx: &mut T,
    statement: Sql,
    seen: &[(ActorId, UnixMillis, u64)],
) -> Answer<()> {
    let last: BTreeMap<ActorId, (UnixMillis, u64)> =
        seen.iter().map(|(id, at, seq)| (*id, (*at, *seq))).collect();
    let columns = vec![
        Column::blobs(last.keys().map(|id| id.0.as_bytes().as_slice())),
        Column::ints(last.values().map(|(at, _)| at.0)),
        Column::ints(last.values().map(|(_, seq)| *seq)),
    ];
    tx.execute_each(statement, columns).await?;
    Ok(())
}

pub(super) async fn set_sealing_key<T: Transact>(
    tx: &mut T,
    edge: ActorId,
    sealing_key: &[u8],
) -> Answer<()> {
    tx.execute(SET_SEALING_KEY, vec![edge.0.as_bytes().as_slice().into(), sealing_key.into()]).await?;
    fleet::changed(tx, Kind::SealingKey, &fleet::hex(edge.0)).await
}

fn edge(row: &impl Cells) -> Answer<Edge> {
    Ok(Edge {
        id: ActorId(uuid(row, 0)?),
        tenant: name(Tenant::parse(row.text(1)?))?,
        name: name(EdgeName::parse(row.text(2)?))?,
        binding: encoding::to_binding(row.blob(3)?)?,
        labels: encoding::to_labels(row.blob(4)?)?,
        public_key: row.blob(5)?.to_vec(),
        sealing_key: row.blob(6)?.to_vec(),
        joined_at: UnixMillis(row.int(7)?),
        removed_at: row.int_or_null(8)?.map(UnixMillis),
        last_seen_at: row.int_or_null(9)?.map(UnixMillis),
        acked_seq: row.int(10)?,
    })
}
