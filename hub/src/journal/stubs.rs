//! What is left of purged deletions. A stub stands under the SHA-256 of its key: whoever asks for one knows the key.

use std::collections::{BTreeMap, BTreeSet};

use llm_config_shared::name::{EntryKey, Scope};
use llm_config_shared::stamp::{Hlc, Stamp};
use llm_config_shared::store::purge::{Stub, StubChange};
use llm_config_shared::vector::{Dot, Position, ShardId};

use super::append::{Numbers, expect, number};
use super::dialect::{Answer, Cells, Column, Sql, Transact};
use super::encoding;
use super::failure::corrupt;
use super::rows::{self, uuid};

const FIND: Sql = Sql {
    sqlite: "SELECT u.key_hash, u.shard, u.epoch, u.seq, u.hlc, u.actor, u.inc, u.ctr, u.version, u.top_version, u.plain_seq, u.origin,
                    s.tenant, s.environment, s.namespace
             FROM scope s JOIN stub u ON u.scope = s.id
             WHERE s.tenant = $1 AND s.environment = $2 AND s.namespace = $3 AND u.key_hash = $4",
    postgres:
        "SELECT u.key_hash, u.shard, u.epoch, u.seq, u.hlc, u.actor, u.inc, u.ctr, u.version, u.top_version, u.plain_seq, u.origin,
                s.tenant, s.environment, s.namespace
         FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) AS a (t, v, n, k)
         JOIN scope s ON s.tenant = t AND s.environment = v AND s.namespace = n
         JOIN stub u ON u.scope = s.id AND u.key_hash = k",
};
/// Where nothing was ever purged, nothing is looked for: SQLite asks for one key at a time.
const PURGED: Sql = Sql::same("SELECT f_seq FROM shard_head WHERE f_seq > 0");
const REPLACED: Sql = Sql {
    sqlite: "DELETE FROM stub WHERE scope = $1 AND key_hash = $2",
    postgres: "DELETE FROM stub USING unnest($1::bigint[], $2::bytea[]) AS a (s, k) WHERE scope = s AND key_hash = k",
};
const RAISED: Sql = Sql {
    sqlite: "UPDATE stub SET top_version = max(top_version, $3) WHERE scope = $1 AND key_hash = $2",
    postgres: "UPDATE stub SET top_version = greatest(top_version, v)
               FROM unnest($1::bigint[], $2::bytea[], $3::bigint[]) AS a (s, k, v) WHERE scope = s AND key_hash = k",
};

/// What stands in place of a key.
pub(super) fn hash(key: &str) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, key.as_bytes()).as_ref().to_vec()
}

/// The stubs of those keys that have one, in the order of keys.
pub(super) async fn find<T: Transact>(tx: &mut T, keys: &BTreeSet<&EntryKey>) -> Answer<Vec<Stub>> {
    if keys.is_empty() || tx.fetch(PURGED, vec![]).await?.is_empty() {
        return Ok(Vec::new());
    }
    let hashed: Vec<(&EntryKey, Vec<u8>)> = keys.iter().map(|at| (*at, hash(at.key.as_str()))).collect();
    let columns = vec![
        Column::texts(keys.iter().map(|at| at.scope.tenant.as_str())),
        Column::texts(keys.iter().map(|at| at.scope.environment.as_str())),
        Column::texts(keys.iter().map(|at| at.scope.namespace.as_str())),
        Column::blobs(hashed.iter().map(|(_, hash)| hash.as_slice())),
    ];
    let found = tx.fetch_each(FIND, columns).await?;
    let names: BTreeMap<(&Scope, &[u8]), &EntryKey> =
        hashed.iter().map(|(at, hash)| ((&at.scope, hash.as_slice()), *at)).collect();
    let mut stubs = Vec::with_capacity(found.len());
    for row in &found {
        let scope = rows::scope(row, 12)?;
        let at = names.get(&(&scope, row.blob(0)?)).ok_or_else(|| corrupt("a stub nobody asked for"))?;
        stubs.push(stub(row, (*at).clone())?);
    }
    stubs.sort_by(|a, b| a.at.cmp(&b.at));
    Ok(stubs)
}

fn stub(row: &impl Cells, at: EntryKey) -> Answer<Stub> {
    Ok(Stub {
        at,
        dot: Dot {
            shard: ShardId(uuid(row, 1)?),
            position: Position { epoch: row.int(2)?, seq: row.int(3)? },
        },
        stamp: Stamp { hlc: Hlc(row.int(4)?), id: rows::write_id(row, 5)? },
        version: row.int(8)?,
        top_version: row.int(9)?,
        plain_seq: row.int(10)?,
        origin: row.blob_or_null(11)?.map(encoding::to_dot).transpose()?,
    })
}

/// What a commit does to stubs.
pub(super) async fn change<T: Transact>(
    tx: &mut T,
    numbers: &Numbers,
    changes: &[(EntryKey, StubChange)],
) -> Answer<()> {
    let mut replaced = Vec::new();
    let mut raised = Vec::new();
    for (at, change) in changes {
        match change {
            StubChange::Replaced => replaced.push(at),
            StubChange::Raised(version) => raised.push((at, *version)),
        }
    }
    let columns = vec![
        Column::ids(replaced.iter().map(|at| number(numbers, at))),
        Column::blobs(replaced.iter().map(|at| hash(at.key.as_str()))),
    ];
    expect("stubs replaced", replaced.len(), tx.execute_each(REPLACED, columns).await?)?;
    let columns = vec![
        Column::ids(raised.iter().map(|(at, _)| number(numbers, at))),
        Column::blobs(raised.iter().map(|(at, _)| hash(at.key.as_str()))),
        Column::ints(raised.iter().map(|(_, version)| *version)),
    ];
    expect("stubs raised", raised.len(), tx.execute_each(RAISED, columns).await?)
}
