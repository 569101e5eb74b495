//! What another region reads of the fleet's rows.

use std::collections::BTreeSet;

use llm_config_shared::store::fleet::{Cell, FLEET_ROWS_MAX, FleetPage, FleetRow, Kind};

use super::{known, state, tables};
use crate::journal::dialect::{Answer, Cells, Sql, Transact, bound};
use crate::journal::failure::corrupt;

const AFTER: Sql =
    Sql::same("SELECT kind, id, n, term, at, ended FROM fleet_row WHERE n > $1 ORDER BY n LIMIT $2");
const LAST: Sql = Sql::same("SELECT n FROM fleet_head");
/// About so many bytes: what was stated of a lost edge may be long.
const BYTES_MAX: usize = 1 << 20;

/// Rows behind `after`, each with those that it cannot be without: where they were read before, they come again.
pub(super) async fn page<T: Transact>(tx: &mut T, after: u64) -> Answer<FleetPage> {
    let home = super::home(tx).await?;
    let last = tx.fetch(LAST, vec![]).await?.first().map(|row| row.int(0)).transpose()?.unwrap_or(0);
    let limit = bound(FLEET_ROWS_MAX as u64);
    let found = tx.fetch(AFTER, vec![bound(after).into(), limit.into()]).await?;
    let mut page = FleetPage {
        region: home.region,
        home: home.home,
        rows: Vec::new(),
        read: after.min(last),
        more: false,
    };
    let (mut there, mut bytes) = (BTreeSet::new(), 0);
    for row in &found {
        if bytes > BYTES_MAX {
            break;
        }
        page.read = row.int(2)?;
        let kind = Kind::parse(row.text(0)?).ok_or_else(|| corrupt("a row of an unknown kind"))?;
        let id = row.text(1)?;
        let state = state(row, 3)?;
        let cells = if state.ended { None } else { tables::read(tx, kind, id).await? };
        if cells.is_none() && !state.ended {
            continue;
        }
        for (kind, id) in cells.as_deref().map(|cells| needed(kind, cells)).unwrap_or_default() {
            if there.insert((kind, id.clone())) {
                page.rows.extend(whole(tx, kind, id).await?);
            }
        }
        there.insert((kind, id.to_owned()));
        let row = FleetRow { kind, id: id.to_owned(), said: state.said, cells };
        bytes += size(&row);
        page.rows.push(row);
    }
    page.more = page.read < last && !found.is_empty();
    Ok(page)
}

async fn whole<T: Transact>(tx: &mut T, kind: Kind, id: String) -> Answer<Option<FleetRow>> {
    let Some(state) = known(tx, kind, &id).await? else { return Ok(None) };
    let cells = tables::read(tx, kind, &id).await?;
    Ok(cells.map(|cells| FleetRow { kind, id, said: state.said, cells: Some(cells) }))
}

/// What a row refers to.
fn needed(kind: Kind, cells: &[Cell]) -> Vec<(Kind, String)> {
    let tenant = match kind {
        Kind::Environment | Kind::Policy | Kind::OfflineLimit => cells.first(),
        Kind::Token | Kind::JoinToken | Kind::Edge => cells.get(1),
        Kind::Tenant | Kind::SealingKey | Kind::Removal | Kind::Loss | Kind::Wipe | Kind::Grant => None,
    };
    let token = cells.last().filter(|_| kind == Kind::Edge);
    let tenant = tenant.and_then(|cell| match cell {
        Cell::Text(name) => Some((Kind::Tenant, name.clone())),
        Cell::Null | Cell::Int(_) | Cell::Blob(_) => None,
    });
    let token = token.and_then(|cell| match cell {
        Cell::Blob(id) => uuid::Uuid::from_slice(id).ok().map(|id| (Kind::JoinToken, super::hex(id))),
        Cell::Null | Cell::Int(_) | Cell::Text(_) => None,
    });
    tenant.into_iter().chain(token).collect()
}

fn size(row: &FleetRow) -> usize {
    let cell = |cell: &Cell| match cell {
        Cell::Null | Cell::Int(_) => 8,
        Cell::Text(text) => text.len(),
        Cell::Blob(bytes) => bytes.len(),
    };
    row.cells.iter().flatten().map(cell).sum()
}
