//! What lost edges could read: every version of a secret that there was, what was stated of it, what is to be replaced.

use llm_config_shared::entry::Content;
use llm_config_shared::exposure::SecretVersion;
use llm_config_shared::name::{EdgeName, EntryKey, Key, Tenant};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::fleet::Kind;
use llm_config_shared::time::UnixMillis;

use super::super::fleet;
use crate::journal::dialect::{Answer, Cells, Column, Sql, Transact};
use crate::journal::encoding::to_content;
use crate::journal::failure::corrupt;
use crate::journal::rows::{name, scope, uuid};
use crate::registry::{KeptVersion, Loss, ToRotate};

/// Versions are read so many at a time: each may bear a large value.
const PAGE: u64 = 500;

const VERSIONS: Sql = Sql::same(
    "SELECT h.id, s.tenant, s.environment, s.namespace, h.key, h.version, h.value, e.version, e.kind
     FROM history h JOIN scope s ON s.id = h.scope LEFT JOIN entry e ON e.scope = h.scope AND e.key = h.key
     WHERE s.tenant = $1 AND h.id > $2 AND h.kind = 2 AND h.status IN ('applied', 'superseded_concurrent')
     ORDER BY h.id LIMIT $3",
);
const PUT_LOSS: Sql = Sql::same(
    "INSERT INTO edge_loss (edge, tenant, name, lost_at, receipt) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (edge) DO NOTHING",
);
const LOSS: Sql = Sql::same("SELECT edge, tenant, name, lost_at, receipt FROM edge_loss WHERE edge = $1");
const MARK: Sql = Sql {
    sqlite: "INSERT INTO exposed_secret (edge, tenant, environment, namespace, key, version)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    postgres: "INSERT INTO exposed_secret (edge, tenant, environment, namespace, key, version)
               SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
               ON CONFLICT DO NOTHING",
};
const MARKED: Sql = Sql::same(
    "SELECT x.tenant, x.environment, x.namespace, x.key, x.version, l.name, l.lost_at, e.version, e.kind, p.key
     FROM exposed_secret x JOIN edge_loss l ON l.edge = x.edge
     LEFT JOIN scope s ON s.tenant = x.tenant AND s.environment = x.environment AND s.namespace = x.namespace
     LEFT JOIN entry e ON e.scope = s.id AND e.key = x.key
     LEFT JOIN rotation_policy p ON p.scope = s.id AND p.key = x.key
     WHERE x.tenant = $1 ORDER BY l.lost_at, x.environment, x.namespace, x.key",
);

/// All of a tenant, oldest first.
pub(super) async fn versions<T: Transact>(tx: &mut T, tenant: &Tenant) -> Answer<Vec<KeptVersion>> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = tx.fetch(VERSIONS, vec![tenant.as_str().into(), after.into(), PAGE.into()]).await?;
        for row in &page {
            after = row.int(0)?;
            all.push(kept(row)?);
        }
        if (page.len() as u64) < PAGE {
            return Ok(all);
        }
    }
}

fn kept(row: &impl Cells) -> Answer<KeptVersion> {
    let Content::Secret(sealed) = to_content(2, row.blob_or_null(6)?)? else {
        return Err(corrupt("a secret that is none"));
    };
    let at = EntryKey { scope: scope(row, 1)?, key: name(Key::parse(row.text(4)?))? };
    let version = row.int(5)?;
    let current = shows(row, 7, version)?;
    Ok(KeptVersion { version: SecretVersion { at, version, key_epoch: sealed.key_epoch }, current })
}

/// Whether the entry's version and kind, from `column` on, are those of a secret in this version.
fn shows(row: &impl Cells, column: usize, version: u64) -> Answer<bool> {
    Ok(row.int_or_null(column)? == Some(version) && row.int_or_null(column + 1)? == Some(2))
}

pub(super) async fn record<T: Transact>(tx: &mut T, loss: &Loss, to_rotate: &[SecretVersion]) -> Answer<()> {
    let args = vec![
        loss.edge.0.as_bytes().as_slice().into(),
        loss.tenant.as_str().into(),
        loss.name.as_str().into(),
        loss.lost_at.0.into(),
        loss.receipt.as_slice().into(),
    ];
    tx.execute(PUT_LOSS, args).await?;
    fleet::changed(tx, Kind::Loss, &fleet::hex(loss.edge.0)).await?;
    let columns = vec![
        Column::blobs(to_rotate.iter().map(|_| loss.edge.0.as_bytes().as_slice())),
        Column::texts(to_rotate.iter().map(|version| version.at.scope.tenant.as_str())),
        Column::texts(to_rotate.iter().map(|version| version.at.scope.environment.as_str())),
        Column::texts(to_rotate.iter().map(|version| version.at.scope.namespace.as_str())),
        Column::texts(to_rotate.iter().map(|version| version.at.key.as_str())),
        Column::ints(to_rotate.iter().map(|version| version.version)),
    ];
    tx.execute_each(MARK, columns).await?;
    Ok(())
}

pub(super) async fn loss<T: Transact>(tx: &mut T, edge: ActorId) -> Answer<Option<Loss>> {
    let found = tx.fetch(LOSS, vec![edge.0.as_bytes().as_slice().into()]).await?;
    let Some(row) = found.first() else { return Ok(None) };
    Ok(Some(Loss {
        edge: ActorId(uuid(row, 0)?),
        tenant: name(Tenant::parse(row.text(1)?))?,
        name: name(EdgeName::parse(row.text(2)?))?,
        lost_at: UnixMillis(row.int(3)?),
        receipt: row.blob(4)?.to_vec(),
    }))
}

pub(super) async fn to_rotate<T: Transact>(tx: &mut T, tenant: &Tenant) -> Answer<Vec<ToRotate>> {
    let marked = |row: &T::Row| {
        let version = row.int(4)?;
        Ok(ToRotate {
            at: EntryKey { scope: scope(row, 0)?, key: name(Key::parse(row.text(3)?))? },
            version,
            edge: name(EdgeName::parse(row.text(5)?))?,
            lost_at: UnixMillis(row.int(6)?),
            rotated: !shows(row, 7, version)?,
            planned: row.text_or_null(9)?.is_some(),
        })
    };
    let found = tx.fetch(MARKED, vec![tenant.as_str().into()]).await?;
    let mut all = found.iter().map(marked).collect::<Answer<Vec<_>>>()?;
    all.sort_by_key(|secret| secret.rotated);
    Ok(all)
}
