//! Old deletions become stubs, and the horizon rises to the newest of them, in one transaction behind the fence.

use llm_config_shared::store::purge::{Purge, Purged};

use super::append::{expect, fence};
use super::dialect::{Answer, Cells, Column, Sql, Transact, bound, int};
use super::failure::corrupt;
use super::stubs;

const OLD: Sql = Sql::same(
    "SELECT scope, key, shard, epoch, seq, hlc, actor, inc, ctr, version, top_version, plain_seq, origin FROM entry
     WHERE shard = $1 AND kind = 0 AND admitted_at <= $2 ORDER BY admitted_at, seq LIMIT $3",
);
/// A key has a row or a stub, never both: a stub that is there already breaks the transaction.
const STUB: Sql = Sql {
    sqlite: "INSERT INTO stub (scope, key_hash, shard, epoch, seq, hlc, actor, inc, ctr, version, top_version, plain_seq,
                 origin)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    postgres: "INSERT INTO stub (scope, key_hash, shard, epoch, seq, hlc, actor, inc, ctr, version, top_version, plain_seq,
                   origin)
               SELECT * FROM unnest(
                   $1::bigint[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[],
                   $7::bytea[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[],
                   $13::bytea[])",
};
const GONE: Sql = Sql {
    sqlite: "DELETE FROM entry WHERE scope = $1 AND key = $2",
    postgres: "DELETE FROM entry USING unnest($1::bigint[], $2::text[]) AS a (s, k) WHERE scope = s AND key = k",
};
const HORIZON: Sql = Sql {
    sqlite: "UPDATE shard_head SET f_seq = max(f_seq, $2) WHERE shard = $1 RETURNING f_seq",
    postgres: "UPDATE shard_head SET f_seq = greatest(f_seq, $2) WHERE shard = $1 RETURNING f_seq",
};

pub(super) async fn purge<T: Transact>(tx: &mut T, purge: &Purge) -> Answer<Purged> {
    fence(tx, &purge.fence).await?;
    let shard = purge.fence.shard.0.as_bytes().as_slice();
    let limit = bound(purge.limit as u64);
    let old = tx.fetch(OLD, vec![shard.into(), bound(purge.admitted_by.0).into(), limit.into()]).await?;
    let mut newest = 0;
    for row in &old {
        newest = newest.max(row.int(4)?);
    }
    replace(tx, &old).await?;
    let raised = tx.fetch(HORIZON, vec![shard.into(), int(newest).into()]).await?;
    let horizon = raised.first().ok_or_else(|| corrupt("a shard without a head"))?.int(0)?;
    Ok(Purged { count: old.len(), horizon })
}

/// Copies the cells as they are: nothing of a stub is computed but the hash.
async fn replace<T: Transact>(tx: &mut T, old: &[T::Row]) -> Answer<()> {
    let blobs = |column| old.iter().map(move |row| row.blob(column)).collect::<Answer<Vec<_>>>();
    let ints = |column| old.iter().map(move |row| row.int(column)).collect::<Answer<Vec<_>>>();
    let scopes = old.iter().map(|row| row.id(0)).collect::<Answer<Vec<_>>>()?;
    let keys = old.iter().map(|row| row.text(1)).collect::<Answer<Vec<_>>>()?;
    let mut columns = vec![
        Column::ids(scopes.iter().copied()),
        Column::blobs(keys.iter().map(|key| stubs::hash(key))),
        Column::blobs(blobs(2)?),
        Column::ints(ints(3)?),
        Column::ints(ints(4)?),
        Column::ints(ints(5)?),
        Column::blobs(blobs(6)?),
    ];
    for column in 7..12 {
        columns.push(Column::ints(ints(column)?));
    }
    let origins = old.iter().map(|row| row.blob_or_null(12)).collect::<Answer<Vec<_>>>()?;
    columns.push(Column::blobs_or_null(origins));
    expect("stubs", old.len(), tx.execute_each(STUB, columns).await?)?;
    let columns = vec![Column::ids(scopes), Column::texts(keys)];
    expect("purged deletions", old.len(), tx.execute_each(GONE, columns).await?)
}
