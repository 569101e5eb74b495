//! Current rows, by key and in order.

use std::collections::BTreeMap;

use llm_config_shared::entry::HubRow;
use llm_config_shared::name::{EntryKey, Subtree};
use llm_config_shared::store::Listing;

use super::dialect::{Answer, Arg, Column, Sql, Transact};
use super::rows::{self, AFTER_ENTRY, entry_columns};

const ROWS: Sql = Sql {
    sqlite: concat!(
        "SELECT ",
        entry_columns!(),
        ", s.tenant, s.environment, s.namespace FROM scope s JOIN entry e ON e.scope = s.id
         WHERE s.tenant = $1 AND s.environment = $2 AND s.namespace = $3 AND e.key = $4"
    ),
    postgres: concat!(
        "SELECT ",
        entry_columns!(),
        ", s.tenant, s.environment, s.namespace
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS a (t, v, n, k)
         JOIN scope s ON s.tenant = t AND s.environment = v AND s.namespace = n
         JOIN entry e ON e.scope = s.id AND e.key = k"
    ),
};

/// The namespace itself, or what lies between two bounds below it; from a key on; in the order of bytes. Neither
/// database sorts more than a page: CROSS JOIN keeps SQLite from turning the join around, so that its two indexes give
/// the order; LATERAL takes at most a page from each scope on PostgreSQL.
const LIST: Sql = Sql {
    sqlite: concat!(
        "SELECT ",
        entry_columns!(),
        ", s.tenant, s.environment, s.namespace FROM scope s CROSS JOIN entry e
         WHERE e.scope = s.id AND s.tenant = $1 AND s.environment = $2
           AND (s.namespace = $3 OR (s.namespace >= $4 AND s.namespace < $5))
           AND s.namespace >= $6 AND (s.namespace > $6 OR e.key > $7)
           AND e.key >= $8 AND e.key < $9 AND e.kind <> 0
         ORDER BY s.namespace, e.key LIMIT $10"
    ),
    postgres: concat!(
        "SELECT ",
        entry_columns!(),
        ", s.tenant, s.environment, s.namespace FROM scope s CROSS JOIN LATERAL (
             SELECT * FROM entry WHERE entry.scope = s.id AND (s.namespace > $6 OR entry.key > $7)
               AND entry.key >= $8 AND entry.key < $9 AND entry.kind <> 0
             ORDER BY entry.key LIMIT $10
         ) e
         WHERE s.tenant = $1 AND s.environment = $2
           AND (s.namespace = $3 OR (s.namespace >= $4 AND s.namespace < $5)) AND s.namespace >= $6
         ORDER BY s.namespace, e.key LIMIT $10"
    ),
};

/// Above every character of a name, below none of another name.
const BEYOND: &str = "\u{7f}";

/// The rows of those keys that have one, in no certain order.
pub(super) async fn rows<T: Transact>(tx: &mut T, keys: &[EntryKey]) -> Answer<Vec<HubRow>> {
    let columns = vec![
        Column::texts(keys.iter().map(|at| at.scope.tenant.as_str())),
        Column::texts(keys.iter().map(|at| at.scope.environment.as_str())),
        Column::texts(keys.iter().map(|at| at.scope.namespace.as_str())),
        Column::texts(keys.iter().map(|at| at.key.as_str())),
    ];
    let found = tx.fetch_each(ROWS, columns).await?;
    found.iter().map(|row| rows::entry(row, rows::scope(row, AFTER_ENTRY)?)).collect()
}

/// One place for each key that was asked for.
pub(super) fn in_order(keys: &[EntryKey], found: Vec<HubRow>) -> Vec<Option<HubRow>> {
    let by_key: BTreeMap<EntryKey, HubRow> = found.into_iter().map(|row| (row.row.at.clone(), row)).collect();
    keys.iter().map(|at| by_key.get(at).cloned()).collect()
}

/// A subtree as its own name and the bounds of all names below it: `0` is the character behind `/`.
pub(super) fn bounds(subtree: &Subtree) -> (&str, String, String) {
    match subtree.top() {
        None => ("", String::new(), BEYOND.to_owned()),
        Some(top) => (top.as_str(), format!("{top}/"), format!("{top}0")),
    }
}

pub(super) async fn list<T: Transact>(tx: &mut T, listing: &Listing) -> Answer<Vec<HubRow>> {
    let (itself, from, to) = match (&listing.subtree, listing.recursive) {
        (subtree, true) => bounds(subtree),
        (subtree, false) => (subtree.as_str(), String::new(), String::new()),
    };
    let prefix = listing.key_prefix.as_deref().unwrap_or_default();
    if !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Vec::new());
    }
    let key_end = format!("{prefix}{BEYOND}");
    let (after_namespace, after_key) =
        listing.after.as_ref().map_or(("", ""), |(namespace, key)| (namespace.as_str(), key.as_str()));
    let args: Vec<Arg<'_>> = vec![
        listing.tenant.as_str().into(),
        listing.environment.as_str().into(),
        itself.into(),
        from.as_str().into(),
        to.as_str().into(),
        after_namespace.into(),
        after_key.into(),
        prefix.into(),
        key_end.as_str().into(),
        (listing.limit as u64).into(),
    ];
    let found = tx.fetch(LIST, args).await?;
    found.iter().map(|row| rows::entry(row, rows::scope(row, AFTER_ENTRY)?)).collect()
}
