//! What a batch is decided upon.

use std::collections::BTreeSet;

use llm_config_shared::entry::ChangeId;
use llm_config_shared::name::{EntryKey, Scope, Tenant};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::{Frontier, Planning, PlanningRequest, Repeat};

use super::dialect::{Answer, Cells, Column, Sql, Transact};
use super::registry::policies;
use super::rows::{self, name, uuid, written};
use super::{conflicts, entries, newer, scopes, stubs};

const FRONTIERS: Sql = Sql {
    sqlite: "SELECT edge, inc, last_ctr, session FROM frontier WHERE edge = $1 AND inc = $2",
    postgres: "SELECT edge, inc, last_ctr, session FROM unnest($1::bytea[], $2::bigint[]) AS a (e, i)
               JOIN frontier ON edge = e AND inc = i",
};
const REPEATS: Sql = Sql {
    sqlite: "SELECT tenant, change_id, batch, request_hash, answer FROM repeat
             WHERE tenant = $1 AND change_id = $2 AND batch = $3",
    postgres: "SELECT tenant, change_id, batch, request_hash, answer
               FROM unnest($1::text[], $2::bytea[], $3::bigint[]) AS a (t, c, b)
               JOIN repeat ON tenant = t AND change_id = c AND batch = b",
};
const WRITES: Sql = Sql {
    sqlite: "SELECT actor, h.inc, ctr, content_hash FROM frontier AS f
             JOIN history AS h ON actor = f.edge AND h.inc = f.inc AND ctr = $2 WHERE f.edge = $1",
    postgres: "SELECT actor, h.inc, ctr, content_hash FROM unnest($1::bytea[], $2::bigint[]) AS a (x, c)
               JOIN frontier AS f ON f.edge = x JOIN history AS h ON actor = x AND h.inc = f.inc AND ctr = c",
};

pub(super) async fn planning<T: Transact>(tx: &mut T, request: &PlanningRequest) -> Answer<Planning> {
    let scopes: BTreeSet<&Scope> = request.keys.iter().map(|at| &at.scope).collect();
    let scopes: Vec<&Scope> = scopes.into_iter().collect();
    let mut planning = Planning {
        rows: entries::rows(tx, &request.keys).await?,
        digests: scopes::digests(tx, &scopes).await?,
        policies: policies::of(tx, &request.policies).await?,
        conflicts: conflicts::each(tx, &request.conflicts).await?,
        past: conflicts::writes(tx, &request.past).await?,
        ..Planning::default()
    };
    planning.rows.sort_by(|a, b| a.row.at.cmp(&b.row.at));
    planning.rows.dedup_by(|a, b| a.row.at == b.row.at);
    let found: BTreeSet<&EntryKey> = planning.rows.iter().map(|row| &row.row.at).collect();
    let missing = request.keys.iter().filter(|at| !found.contains(at)).collect();
    planning.stubs = stubs::find(tx, &missing).await?;

    let edges = &request.frontiers;
    let columns = vec![
        Column::blobs(edges.iter().map(|(edge, _)| edge.0.as_bytes().as_slice())),
        Column::ints(edges.iter().map(|(_, incarnation)| *incarnation)),
    ];
    for row in &tx.fetch_each(FRONTIERS, columns).await? {
        planning.frontiers.push(Frontier {
            edge: ActorId(uuid(row, 0)?),
            incarnation: row.int(1)?,
            last_counter: row.int(2)?,
            session: row.int(3)?,
        });
    }

    let batches = &request.repeats;
    let columns = vec![
        Column::texts(batches.iter().map(|(tenant, ..)| tenant.as_str())),
        Column::blobs(batches.iter().map(|(_, change, _)| change.0.as_bytes().as_slice())),
        Column::ints(batches.iter().map(|(.., batch)| *batch)),
    ];
    for row in &tx.fetch_each(REPEATS, columns).await? {
        planning.repeats.push(Repeat {
            tenant: name(Tenant::parse(row.text(0)?))?,
            change: ChangeId(uuid(row, 1)?),
            batch: row.int(2)?,
            request_hash: rows::hash(row, 3)?,
            answer: written(row.blob(4)?)?,
        });
    }

    let writes = &request.writes;
    let columns = vec![
        Column::blobs(writes.iter().map(|(actor, _)| actor.0.as_bytes().as_slice())),
        Column::ints(writes.iter().map(|(_, counter)| *counter)),
    ];
    for row in &tx.fetch_each(WRITES, columns).await? {
        planning.known_writes.push((rows::write_id(row, 0)?, rows::hash(row, 3)?));
    }
    planning.restored = newer::restored(tx, &request.restored).await?;
    Ok(planning)
}
