//! The database's numbers for scopes, and their digests. The numbers never leave the database.

use std::collections::{BTreeMap, BTreeSet};

use llm_config_shared::digest::ScopeDigest;
use llm_config_shared::name::Scope;
use llm_config_shared::store::Commit;

use super::dialect::{Answer, Cells, Column, Sql, Transact};
use super::failure::corrupt;
use super::rows;

const PUT: Sql = Sql {
    sqlite: "INSERT INTO scope (tenant, environment, namespace, plain_sum, plain_live, secret_sum, secret_live, last_seq,
                                plain_last_seq)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (tenant, environment, namespace) DO UPDATE SET
                plain_sum = excluded.plain_sum, plain_live = excluded.plain_live, secret_sum = excluded.secret_sum,
                secret_live = excluded.secret_live, last_seq = excluded.last_seq,
                plain_last_seq = excluded.plain_last_seq
             RETURNING id, tenant, environment, namespace",
    postgres: "INSERT INTO scope (tenant, environment, namespace, plain_sum, plain_live, secret_sum, secret_live, last_seq,
                                  plain_last_seq)
               SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::bigint[], $6::bytea[],
                                    $7::bigint[], $8::bigint[], $9::bigint[])
               ON CONFLICT (tenant, environment, namespace) DO UPDATE SET
                  plain_sum = excluded.plain_sum, plain_live = excluded.plain_live, secret_sum = excluded.secret_sum,
                  secret_live = excluded.secret_live, last_seq = excluded.last_seq,
                  plain_last_seq = excluded.plain_last_seq
               RETURNING id, tenant, environment, namespace",
};
/// The update changes nothing; it makes the row of a known scope come back as well.
const TOUCH: Sql = Sql {
    sqlite: "INSERT INTO scope (tenant, environment, namespace, plain_sum, plain_live, secret_sum, secret_live, last_seq,
                                plain_last_seq)
             VALUES ($1, $2, $3, zeroblob(16), 0, zeroblob(16), 0, 0, 0)
             ON CONFLICT (tenant, environment, namespace) DO UPDATE SET last_seq = scope.last_seq
             RETURNING id, tenant, environment, namespace",
    postgres: "INSERT INTO scope (tenant, environment, namespace, plain_sum, plain_live, secret_sum, secret_live, last_seq,
                                  plain_last_seq)
               SELECT t, e, n, decode(repeat('00', 16), 'hex'), 0, decode(repeat('00', 16), 'hex'), 0, 0, 0
               FROM unnest($1::text[], $2::text[], $3::text[]) AS a (t, e, n)
               ON CONFLICT (tenant, environment, namespace) DO UPDATE SET last_seq = scope.last_seq
               RETURNING id, tenant, environment, namespace",
};
const READ: Sql = Sql {
    sqlite: "SELECT tenant, environment, namespace, plain_sum, plain_live, secret_sum, secret_live, last_seq,
                    plain_last_seq
             FROM scope WHERE tenant = $1 AND environment = $2 AND namespace = $3",
    postgres:
        "SELECT tenant, environment, namespace, plain_sum, plain_live, secret_sum, secret_live, last_seq,
                      plain_last_seq
               FROM unnest($1::text[], $2::text[], $3::text[]) AS a (t, e, n)
               JOIN scope ON tenant = t AND environment = e AND namespace = n",
};

fn names<'a>(scopes: &[&'a Scope]) -> Vec<Column<'a>> {
    vec![
        Column::texts(scopes.iter().map(|scope| scope.tenant.as_str())),
        Column::texts(scopes.iter().map(|scope| scope.environment.as_str())),
        Column::texts(scopes.iter().map(|scope| scope.namespace.as_str())),
    ]
}

/// Writes the digests and gives the number of every scope that the commit names.
pub(super) async fn put<T: Transact>(tx: &mut T, commit: &Commit) -> Answer<BTreeMap<Scope, i64>> {
    // Rows are locked in the order of their names, here as everywhere.
    let digests: BTreeMap<&Scope, &ScopeDigest> =
        commit.digests.iter().map(|(scope, digest)| (scope, digest)).collect();
    if digests.len() != commit.digests.len() {
        return Err(corrupt("a commit with two digests of one scope"));
    }
    let scopes: Vec<&Scope> = digests.keys().copied().collect();
    let sums: Vec<&ScopeDigest> = digests.values().copied().collect();
    let mut columns = names(&scopes);
    columns.extend([
        Column::blobs(sums.iter().map(|digest| digest.plain_sum.to_be_bytes().to_vec())),
        Column::ints(sums.iter().map(|digest| digest.plain_live)),
        Column::blobs(sums.iter().map(|digest| digest.secret_sum.to_be_bytes().to_vec())),
        Column::ints(sums.iter().map(|digest| digest.secret_live)),
        Column::ints(sums.iter().map(|digest| digest.last_seq)),
        Column::ints(sums.iter().map(|digest| digest.plain_last_seq)),
    ]);
    let mut numbers = numbered(tx.fetch_each(PUT, columns).await?)?;

    let rows = commit.rows.iter().map(|row| &row.row.at.scope);
    let raised = commit.raised.iter().map(|(at, _)| &at.scope);
    let history = commit.history.iter().map(|row| &row.at.scope);
    let conflicts = commit.conflicts.iter().map(|conflict| &conflict.at.scope);
    let named: BTreeSet<&Scope> = rows.chain(raised).chain(history).chain(conflicts).collect();
    let others: Vec<&Scope> = named.into_iter().filter(|scope| !numbers.contains_key(*scope)).collect();
    if !others.is_empty() {
        numbers.extend(numbered(tx.fetch_each(TOUCH, names(&others)).await?)?);
    }
    Ok(numbers)
}

fn numbered<R: Cells>(rows: Vec<R>) -> Answer<BTreeMap<Scope, i64>> {
    rows.iter().map(|row| Ok((rows::scope(row, 1)?, row.id(0)?))).collect()
}

/// The digests of those scopes that have one.
pub(super) async fn digests<T: Transact>(tx: &mut T, scopes: &[&Scope]) -> Answer<Vec<(Scope, ScopeDigest)>> {
    let found = tx.fetch_each(READ, names(scopes)).await?;
    found.iter().map(|row| Ok((rows::scope(row, 0)?, rows::digest(row, 3)?))).collect()
}
