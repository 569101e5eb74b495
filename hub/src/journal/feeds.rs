//! One feed as of the transaction's snapshot.

use std::collections::BTreeMap;

use llm_config_shared::digest::ScopeDigest;
use llm_config_shared::entry::Content;
use llm_config_shared::feed::Feed;
use llm_config_shared::name::{EntryKey, Namespace, Scope};
use llm_config_shared::store::{Base, FeedRows};
use llm_config_shared::vector::{ShardId, Vector};

use super::dialect::{Answer, Cells, Column, Sql, Transact};
use super::encoding::to_content;
use super::entries::bounds;
use super::failure::corrupt;
use super::rows::{self, AFTER_ENTRY, entry_columns, name};

const SCOPES: Sql = Sql::same(
    "SELECT id, namespace, plain_sum, plain_live, secret_sum, secret_live, last_seq, plain_last_seq FROM scope
     WHERE tenant = $1 AND environment = $2 AND (namespace = $3 OR (namespace >= $4 AND namespace < $5))",
);
const ROWS: Sql = Sql {
    sqlite: concat!(
        "SELECT ",
        entry_columns!(),
        ", e.scope FROM entry e WHERE e.scope = $1 AND e.shard = $2 AND e.seq > $3"
    ),
    postgres: concat!(
        "SELECT ",
        entry_columns!(),
        ", e.scope FROM unnest($1::bigint[], $2::bytea[], $3::bigint[]) AS a (i, h, q)
         JOIN entry e ON e.scope = i AND e.shard = h AND e.seq > q"
    ),
};

/// The write that made an entry what it was at a place in the order. The history's index has an entry's writes in the
/// order they were decided, so this looks at those after that place and one more.
const BASES: Sql = Sql {
    sqlite: "SELECT h.scope, h.key, h.seq, h.kind, h.value FROM history h
             WHERE h.scope = $1 AND h.key = $2 AND h.seq <= $3 ORDER BY h.id DESC LIMIT 1",
    postgres: "SELECT h.scope, h.key, h.seq, h.kind, h.value
               FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS a (i, k, q)
               CROSS JOIN LATERAL (
                   SELECT * FROM history WHERE scope = i AND key = k AND seq <= q ORDER BY id DESC LIMIT 1
               ) h",
};

/// Digests of all scopes of the feed, rows of those where something happened after `from`.
pub(super) async fn feed<T: Transact>(
    tx: &mut T,
    shard: ShardId,
    feed: &Feed,
    from: &Vector,
) -> Answer<FeedRows> {
    let after = from.seq(shard);
    let (itself, low, high) = bounds(&feed.subtree);
    let args = vec![
        feed.tenant.as_str().into(),
        feed.environment.as_str().into(),
        itself.into(),
        low.as_str().into(),
        high.as_str().into(),
    ];
    let mut digest = ScopeDigest::default();
    let mut moved = BTreeMap::new();
    for row in &tx.fetch(SCOPES, args).await? {
        let scope = rows::digest(row, 2)?;
        digest.merge(&scope);
        if scope.last_seq > after {
            moved.insert(row.id(0)?, name(Namespace::parse(row.text(1)?))?);
        }
    }
    let columns = vec![
        Column::ids(moved.keys().copied()),
        Column::blobs(moved.keys().map(|_| shard.0.as_bytes().as_slice())),
        Column::ints(moved.keys().map(|_| after)),
    ];
    let found = tx.fetch_each(ROWS, columns).await?;
    let mut rows = Vec::with_capacity(found.len());
    let mut patchable = Vec::new();
    for row in &found {
        let id = row.id(AFTER_ENTRY)?;
        let namespace = moved.get(&id).ok_or_else(|| corrupt("a row of another scope"))?;
        let scope = Scope {
            tenant: feed.tenant.clone(),
            environment: feed.environment.clone(),
            namespace: namespace.clone(),
        };
        let row = rows::entry(row, scope)?;
        if Base::is_worth(&row, from) {
            patchable.push((id, row.row.at.clone()));
        }
        rows.push(row);
    }
    let bases = bases(tx, patchable, after).await?;
    Ok(FeedRows { feed: feed.clone(), rows, bases, digest })
}

/// The plain values that entries had at a place in the order.
async fn bases<T: Transact>(
    tx: &mut T,
    entries: Vec<(i64, EntryKey)>,
    at: u64,
) -> Answer<BTreeMap<EntryKey, Base>> {
    if entries.is_empty() {
        return Ok(BTreeMap::new());
    }
    let columns = vec![
        Column::ids(entries.iter().map(|(scope, _)| *scope)),
        Column::texts(entries.iter().map(|(_, entry)| entry.key.as_str())),
        Column::ints(entries.iter().map(|_| at)),
    ];
    let mut found = BTreeMap::new();
    for row in &tx.fetch_each(BASES, columns).await? {
        if let Content::Plain(value) = to_content(row.int(3)?, row.blob_or_null(4)?)? {
            found.insert((row.id(0)?, row.text(1)?.to_owned()), Base { seq: row.int(2)?, value });
        }
    }
    let base = |(scope, entry): (i64, EntryKey)| {
        let base = found.remove(&(scope, entry.key.as_str().to_owned()))?;
        Some((entry, base))
    };
    Ok(entries.into_iter().filter_map(base).collect())
}
