//! One feed as of the transaction's snapshot.

use std::collections::BTreeMap;

use llm_config_shared::digest::ScopeDigest;
use llm_config_shared::feed::Feed;
use llm_config_shared::name::{Namespace, Scope};
use llm_config_shared::store::FeedRows;
use llm_config_shared::vector::ShardId;

use super::dialect::{Answer, Cells, Column, Sql, Transact};
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

/// Digests of all scopes of the feed, rows of those where something happened after `from`.
pub(super) async fn feed<T: Transact>(
    tx: &mut T,
    shard: ShardId,
    feed: &Feed,
    from: u64,
) -> Answer<FeedRows> {
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
        if scope.last_seq > from {
            moved.insert(row.id(0)?, name(Namespace::parse(row.text(1)?))?);
        }
    }
    let columns = vec![
        Column::ids(moved.keys().copied()),
        Column::blobs(moved.keys().map(|_| shard.0.as_bytes().as_slice())),
        Column::ints(moved.keys().map(|_| from)),
    ];
    let found = tx.fetch_each(ROWS, columns).await?;
    let mut rows = Vec::with_capacity(found.len());
    for row in &found {
        let namespace = moved.get(&row.id(AFTER_ENTRY)?).ok_or_else(|| corrupt("a row of another scope"))?;
        let scope = Scope {
            tenant: feed.tenant.clone(),
            environment: feed.environment.clone(),
            namespace: namespace.clone(),
        };
        rows.push(rows::entry(row, scope)?);
    }
    Ok(FeedRows { feed: feed.clone(), rows, digest })
}
