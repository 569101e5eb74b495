//! What was: history, changes, held writes, events. Newest first, a page at a time.

use llm_config_shared::entry::{ChangeId, ChangeType, HistoryRow};
use llm_config_shared::name::{EntryKey, Key, Tenant};
use llm_config_shared::store::{ChangeRow, Event, Page, Paged};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::{Dot, Position, ShardId};

use super::dialect::{Answer, Arg, Cells, Sql, Transact, bound};
use super::failure::corrupt;
use super::rows::{self, HISTORY_ID, history_columns, name, uuid, written, written_or_null};

const OF_ENTRY: Sql = Sql::same(concat!(
    "SELECT ",
    history_columns!(),
    " FROM scope s JOIN history h ON h.scope = s.id
      WHERE s.tenant = $1 AND s.environment = $2 AND s.namespace = $3 AND h.key = $4 AND h.id < $5
      ORDER BY h.id DESC LIMIT $6"
));
const OF_VERSION: Sql = Sql::same(concat!(
    "SELECT ",
    history_columns!(),
    " FROM scope s JOIN history h ON h.scope = s.id
      WHERE s.tenant = $1 AND s.environment = $2 AND s.namespace = $3 AND h.key = $4 AND h.version = $5
        AND h.status IN ('applied', 'superseded_concurrent')
      ORDER BY h.status, h.hlc DESC LIMIT 1"
));
const OF_CHANGE: Sql = Sql::same(concat!(
    "SELECT ",
    history_columns!(),
    " FROM history h JOIN scope s ON s.id = h.scope
      WHERE (h.change_id = $1 OR h.returned_in = $1) AND s.tenant = $2 ORDER BY h.id"
));
const HELD: Sql = Sql::same(concat!(
    "SELECT ",
    history_columns!(),
    " FROM history h JOIN scope s ON s.id = h.scope
      WHERE h.status = 'held' AND s.tenant = $1 AND h.id < $2 ORDER BY h.id DESC LIMIT $3"
));
const CHANGES: Sql = Sql::same(
    "SELECT n, id, created_at, author, message, writes FROM change WHERE tenant = $1 AND n < $2
     ORDER BY n DESC LIMIT $3",
);
const CHANGE: Sql =
    Sql::same("SELECT n, id, created_at, author, message, writes FROM change WHERE tenant = $1 AND id = $2");
const EVENTS: Sql = Sql::same(
    "SELECT s.tenant, s.environment, s.namespace, h.key, h.epoch, h.seq, h.version, h.change_id, h.change_type, h.kind,
            h.author, h.created_at
     FROM history h JOIN scope s ON s.id = h.scope WHERE h.seq > $2 AND s.tenant = $1 ORDER BY h.seq LIMIT $3",
);

fn entry_args(at: &EntryKey) -> Vec<Arg<'_>> {
    let scope = &at.scope;
    vec![
        scope.tenant.as_str().into(),
        scope.environment.as_str().into(),
        scope.namespace.as_str().into(),
        at.key.as_str().into(),
    ]
}

/// Where to begin, and one row more than wanted, to know whether more follow.
pub(super) fn page_args<'a>(page: Page) -> [Arg<'a>; 2] {
    [bound(page.before.unwrap_or(u64::MAX)).into(), bound(page.limit as u64).saturating_add(1).into()]
}

/// Cuts the row too many off; `number` is the column that pages are counted by.
pub(super) fn paged<R: Cells, T>(
    mut rows: Vec<R>,
    page: Page,
    number: usize,
    read: impl Fn(&R) -> Answer<T>,
) -> Answer<Paged<T>> {
    let more = rows.len() > page.limit;
    rows.truncate(page.limit);
    let next = match rows.last() {
        Some(last) if more => Some(last.int(number)?),
        _ => None,
    };
    Ok(Paged { rows: rows.iter().map(read).collect::<Answer<_>>()?, next })
}

pub(super) async fn history<T: Transact>(tx: &mut T, at: &EntryKey, page: Page) -> Answer<Paged<HistoryRow>> {
    let mut args = entry_args(at);
    args.extend(page_args(page));
    paged(tx.fetch(OF_ENTRY, args).await?, page, HISTORY_ID, rows::history)
}

pub(super) async fn version<T: Transact>(
    tx: &mut T,
    at: &EntryKey,
    version: u64,
) -> Answer<Option<HistoryRow>> {
    let mut args = entry_args(at);
    args.push(bound(version).into());
    tx.fetch(OF_VERSION, args).await?.first().map(rows::history).transpose()
}

pub(super) async fn held<T: Transact>(tx: &mut T, tenant: &Tenant, page: Page) -> Answer<Paged<HistoryRow>> {
    let mut args = vec![tenant.as_str().into()];
    args.extend(page_args(page));
    paged(tx.fetch(HELD, args).await?, page, HISTORY_ID, rows::history)
}

pub(super) async fn changes<T: Transact>(
    tx: &mut T,
    tenant: &Tenant,
    page: Page,
) -> Answer<Paged<ChangeRow>> {
    let mut args = vec![tenant.as_str().into()];
    args.extend(page_args(page));
    paged(tx.fetch(CHANGES, args).await?, page, 0, |row| change_row(row, tenant))
}

pub(super) async fn change<T: Transact>(
    tx: &mut T,
    tenant: &Tenant,
    change: ChangeId,
) -> Answer<Option<(ChangeRow, Vec<HistoryRow>)>> {
    let id = change.0.as_bytes().as_slice();
    let found = tx.fetch(CHANGE, vec![tenant.as_str().into(), id.into()]).await?;
    let writes = tx.fetch(OF_CHANGE, vec![id.into(), tenant.as_str().into()]).await?;
    let writes: Vec<HistoryRow> = writes.iter().map(rows::history).collect::<Answer<_>>()?;
    let known = found.first().map(|row| change_row(row, tenant)).transpose()?;
    let row = known.or_else(|| ChangeRow::of_writes(change, &writes));
    Ok(row.map(|row| (row, writes)))
}

fn change_row(row: &impl Cells, tenant: &Tenant) -> Answer<ChangeRow> {
    Ok(ChangeRow {
        id: ChangeId(uuid(row, 1)?),
        tenant: tenant.clone(),
        created_at: UnixMillis(row.int(2)?),
        author: written(row.blob(3)?)?,
        message: written_or_null(row, 4)?,
        writes: row.int(5)?,
    })
}

pub(super) async fn events_after<T: Transact>(
    tx: &mut T,
    shard: ShardId,
    tenant: &Tenant,
    after: u64,
    limit: usize,
) -> Answer<Vec<Event>> {
    let args = vec![tenant.as_str().into(), bound(after).into(), bound(limit as u64).into()];
    let found = tx.fetch(EVENTS, args).await?;
    let event = |row| event(row, shard);
    found.iter().map(event).collect()
}

fn event(row: &impl Cells, shard: ShardId) -> Answer<Event> {
    let position = Position { epoch: row.int(4)?, seq: row.int(5)? };
    Ok(Event {
        at: EntryKey { scope: rows::scope(row, 0)?, key: name(Key::parse(row.text(3)?))? },
        dot: Dot { shard, position },
        version: row.int(6)?,
        change: ChangeId(uuid(row, 7)?),
        change_type: ChangeType::parse(row.text(8)?).ok_or_else(|| corrupt("a write of an unknown sort"))?,
        secret: row.int(9)? == 2,
        author: written(row.blob(10)?)?,
        created_at: UnixMillis(row.int(11)?),
    })
}
