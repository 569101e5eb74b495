//! Conflicts, writes that are or were held, and what people decided about both.

use llm_config_shared::entry::{HistoryRow, Status};
use llm_config_shared::name::{EntryKey, Key, Tenant};
use llm_config_shared::settled::{ConflictState, Settlement, Waited, held_id};
use llm_config_shared::stamp::WriteId;
use llm_config_shared::store::{Conflict, Page, Paged};
use llm_config_shared::time::UnixMillis;
use uuid::Uuid;

use super::dialect::{Answer, Cells, Column, Sql, Transact, bound};
use super::failure::corrupt;
use super::history::{page_args, paged};
use super::rows::{self, HISTORY_ID, history_columns, name, uuid};

/// What [`conflict_row`] reads, from column 0 on, over `conflict c JOIN scope s`.
macro_rules! conflict_columns {
    () => {
        "c.n, c.id, c.key, c.winner_actor, c.winner_inc, c.winner_ctr, c.loser_actor, c.loser_inc, c.loser_ctr, \
         c.winner_version, c.loser_version, c.detected_at, s.tenant, s.environment, s.namespace, c.settled_by, \
         c.settled_at, c.settled_change, c.settled_version"
    };
}

macro_rules! page_where {
    ($condition:literal) => {
        Sql::same(concat!(
            "SELECT ",
            conflict_columns!(),
            " FROM conflict c JOIN scope s ON s.id = c.scope WHERE c.tenant = $1 AND c.n < $2",
            $condition,
            " ORDER BY c.n DESC LIMIT $3"
        ))
    };
}

const ALL: Sql = page_where!("");
const OPEN: Sql = page_where!(" AND c.settled_by IS NULL");
const RESTORED: Sql = page_where!(" AND c.settled_change IS NOT NULL");
const DISMISSED: Sql = page_where!(" AND c.settled_by IS NOT NULL AND c.settled_change IS NULL");
const ONE: Sql = Sql::same(concat!(
    "SELECT ",
    conflict_columns!(),
    " FROM conflict c JOIN scope s ON s.id = c.scope WHERE c.id = $1 AND c.tenant = $2"
));
const EACH: Sql = Sql {
    sqlite: concat!(
        "SELECT ",
        conflict_columns!(),
        " FROM conflict c JOIN scope s ON s.id = c.scope WHERE c.id = $1"
    ),
    postgres: concat!(
        "SELECT ",
        conflict_columns!(),
        " FROM unnest($1::bytea[]) AS a (i) JOIN conflict c ON c.id = i JOIN scope s ON s.id = c.scope"
    ),
};
const AFTER: Sql = Sql::same(concat!(
    "SELECT ",
    conflict_columns!(),
    " FROM conflict c JOIN scope s ON s.id = c.scope WHERE c.tenant = $1 AND c.n > $2 ORDER BY c.n LIMIT $3"
));
const LAST: Sql = Sql::same("SELECT coalesce(max(n), 0) FROM conflict WHERE tenant = $1");
const LAST_BEFORE: Sql = Sql::same("SELECT coalesce(max(n), 0) FROM conflict WHERE tenant = $1 AND seq < $2");

const WRITES: Sql = Sql {
    sqlite: concat!(
        "SELECT ",
        history_columns!(),
        " FROM history h JOIN scope s ON s.id = h.scope WHERE h.actor = $1 AND h.inc = $2 AND h.ctr = $3"
    ),
    postgres: concat!(
        "SELECT ",
        history_columns!(),
        " FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS a (x, i, c)
          JOIN history h ON h.actor = x AND h.inc = i AND h.ctr = c JOIN scope s ON s.id = h.scope"
    ),
};
const HELD: Sql = Sql::same(concat!(
    "SELECT ",
    history_columns!(),
    " FROM history h JOIN scope s ON s.id = h.scope WHERE h.held_id = $1 AND s.tenant = $2"
));
const HELD_UNNAMED: Sql = Sql::same(concat!(
    "SELECT ",
    history_columns!(),
    " FROM history h JOIN scope s ON s.id = h.scope
      WHERE h.status = 'held' AND h.held_id IS NULL AND s.tenant = $1"
));

const HELD_MARK: Sql = Sql::same("SELECT coalesce(max(id), 0) FROM history");
const HELD_AFTER: Sql = Sql::same(concat!(
    "SELECT ",
    history_columns!(),
    " FROM history h JOIN scope s ON s.id = h.scope
      WHERE h.status = 'held' AND s.tenant = $1 AND h.id > $2 ORDER BY h.id LIMIT $3"
));

/// What is restored stays so; what was dismissed may still be restored.
const SETTLE_CONFLICT: Sql = Sql {
    sqlite: "UPDATE conflict SET settled_by = $2, settled_at = $3, settled_change = $4, settled_version = $5
             WHERE id = $1 AND settled_change IS NULL",
    postgres: "UPDATE conflict SET settled_by = b, settled_at = t, settled_change = w, settled_version = v
               FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bytea[], $5::bigint[]) AS a (i, b, t, w, v)
               WHERE id = i AND settled_change IS NULL",
};
const SETTLE_HELD: Sql = Sql {
    sqlite:
        "UPDATE history SET status = $4, held_id = $5, settled_by = $6, settled_at = $7, settled_change = $8,
                 settled_version = $9
             WHERE actor = $1 AND inc = $2 AND ctr = $3 AND status = 'held'",
    postgres:
        "UPDATE history SET status = u, held_id = h, settled_by = b, settled_at = t, settled_change = w,
                   settled_version = v
               FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::text[], $5::bytea[], $6::bytea[],
                   $7::bigint[], $8::bytea[], $9::bigint[]) AS a (x, i, c, u, h, b, t, w, v)
               WHERE actor = x AND inc = i AND ctr = c AND status = 'held'",
};

fn conflict_row(row: &impl Cells) -> Answer<Conflict> {
    Ok(Conflict {
        id: uuid(row, 1)?,
        at: EntryKey { scope: rows::scope(row, 12)?, key: name(Key::parse(row.text(2)?))? },
        winner: rows::write_id(row, 3)?,
        loser: rows::write_id(row, 6)?,
        winner_version: row.int(9)?,
        loser_version: row.int(10)?,
        detected_at: UnixMillis(row.int(11)?),
        settled: rows::settled(row, 15)?,
    })
}

pub(super) async fn page<T: Transact>(
    tx: &mut T,
    tenant: &Tenant,
    state: Option<ConflictState>,
    page: Page,
) -> Answer<Paged<Conflict>> {
    let sql = match state {
        None => ALL,
        Some(ConflictState::Open) => OPEN,
        Some(ConflictState::Restored) => RESTORED,
        Some(ConflictState::Dismissed) => DISMISSED,
    };
    let mut args = vec![tenant.as_str().into()];
    args.extend(page_args(page));
    paged(tx.fetch(sql, args).await?, page, 0, conflict_row)
}

pub(super) async fn one<T: Transact>(tx: &mut T, tenant: &Tenant, id: Uuid) -> Answer<Option<Conflict>> {
    let args = vec![id.as_bytes().as_slice().into(), tenant.as_str().into()];
    tx.fetch(ONE, args).await?.first().map(conflict_row).transpose()
}

/// Of whatever tenant: for a plan, whose caller looked at the tenant.
pub(super) async fn each<T: Transact>(tx: &mut T, ids: &[Uuid]) -> Answer<Vec<Conflict>> {
    let columns = vec![Column::blobs(ids.iter().map(|id| id.as_bytes().as_slice()))];
    tx.fetch_each(EACH, columns).await?.iter().map(conflict_row).collect()
}

pub(super) async fn mark<T: Transact>(tx: &mut T, tenant: &Tenant, seq: Option<u64>) -> Answer<u64> {
    let found = match seq {
        None => tx.fetch(LAST, vec![tenant.as_str().into()]).await?,
        Some(seq) => tx.fetch(LAST_BEFORE, vec![tenant.as_str().into(), bound(seq).into()]).await?,
    };
    found.first().map_or(Ok(0), |row| row.int(0))
}

pub(super) async fn after<T: Transact>(
    tx: &mut T,
    tenant: &Tenant,
    after: u64,
    limit: usize,
) -> Answer<Vec<(u64, Conflict)>> {
    let args = vec![tenant.as_str().into(), bound(after).into(), bound(limit as u64).into()];
    let found = tx.fetch(AFTER, args).await?;
    found.iter().map(|row| Ok((row.int(0)?, conflict_row(row)?))).collect()
}

fn write_ids<'a>(ids: impl Iterator<Item = &'a WriteId> + Clone) -> Vec<Column<'a>> {
    vec![
        Column::blobs(ids.clone().map(|id| id.actor.0.as_bytes().as_slice())),
        Column::ints(ids.clone().map(|id| id.incarnation)),
        Column::ints(ids.map(|id| id.counter)),
    ]
}

pub(super) async fn writes<T: Transact>(tx: &mut T, ids: &[WriteId]) -> Answer<Vec<HistoryRow>> {
    tx.fetch_each(WRITES, write_ids(ids.iter())).await?.iter().map(rows::history).collect()
}

pub(super) async fn held_mark<T: Transact>(tx: &mut T) -> Answer<u64> {
    tx.fetch(HELD_MARK, vec![]).await?.first().map_or(Ok(0), |row| row.int(0))
}

pub(super) async fn held_after<T: Transact>(
    tx: &mut T,
    tenant: &Tenant,
    after: u64,
    limit: usize,
) -> Answer<Vec<(u64, HistoryRow)>> {
    let args = vec![tenant.as_str().into(), bound(after).into(), bound(limit as u64).into()];
    let found = tx.fetch(HELD_AFTER, args).await?;
    found.iter().map(|row| Ok((row.int(HISTORY_ID)?, rows::history(row)?))).collect()
}

pub(super) async fn held<T: Transact>(tx: &mut T, tenant: &Tenant, id: Uuid) -> Answer<Option<HistoryRow>> {
    let args = vec![id.as_bytes().as_slice().into(), tenant.as_str().into()];
    if let Some(row) = tx.fetch(HELD, args).await?.first() {
        return rows::history(row).map(Some);
    }
    // Written by a program that gave no ids; they are of the writes alone, so they can be given now.
    let unnamed = tx.fetch(HELD_UNNAMED, vec![tenant.as_str().into()]).await?;
    for row in &unnamed {
        let row = rows::history(row)?;
        if held_id(row.stamp.id) == id {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

/// Decisions of a commit. Each finds what it is about undecided, or the commit is not as it was planned.
pub(super) async fn settle<T: Transact>(tx: &mut T, settled: &[Settlement]) -> Answer<()> {
    let mut conflicts = Vec::new();
    let mut held = Vec::new();
    for Settlement { what, settled } in settled {
        match what {
            Waited::Conflict(id) => conflicts.push((id, settled)),
            Waited::Held(id) => held.push((id, settled)),
        }
    }
    let mut columns = vec![Column::blobs(conflicts.iter().map(|(id, _)| id.as_bytes().as_slice()))];
    columns.extend(decisions(conflicts.iter().map(|(_, settled)| *settled)));
    let done = tx.execute_each(SETTLE_CONFLICT, columns).await?;
    let mut columns = write_ids(held.iter().map(|(id, _)| *id));
    columns.extend([
        Column::texts(held.iter().map(|(_, settled)| {
            if settled.wrote.is_some() { Status::Released.as_str() } else { Status::Dropped.as_str() }
        })),
        Column::blobs(held.iter().map(|(id, _)| held_id(**id).as_bytes().to_vec())),
    ]);
    columns.extend(decisions(held.iter().map(|(_, settled)| *settled)));
    let done = done + tx.execute_each(SETTLE_HELD, columns).await?;
    if done != settled.len() as u64 {
        return Err(corrupt(format!("of {} decisions planned, {done} could be written", settled.len())));
    }
    Ok(())
}

fn decisions<'a>(
    all: impl Iterator<Item = &'a llm_config_shared::settled::Settled> + Clone,
) -> [Column<'a>; 4] {
    [
        Column::blobs(all.clone().map(|settled| settled.by.as_bytes())),
        Column::ints(all.clone().map(|settled| settled.at.0)),
        Column::blobs_or_null(
            all.clone()
                .map(|settled| settled.wrote.as_ref().map(|(change, _)| change.0.as_bytes().as_slice())),
        ),
        Column::ints_or_null(all.map(|settled| settled.wrote.map(|(_, version)| version))),
    ]
}
