//! Taking over what another region has of a row.

use llm_config_shared::store::fleet::{Cell, FleetRow, Kind, State};
use uuid::Uuid;

use super::{forget, hex, known, next, note, tables};
use crate::journal::dialect::{Answer, Sql, Transact};
use crate::journal::failure::corrupt;
use crate::journal::rows::uuid;
use crate::registry::TakenOver;

const NAMED: Sql =
    Sql::same("SELECT id FROM edge WHERE tenant = $1 AND name = $2 AND removed_at IS NULL AND id <> $3");
const DROP_EDGE: Sql = Sql::same("DELETE FROM edge WHERE id = $1");

/// Where it counts, it is here afterwards, and other regions read it on from here.
pub(super) async fn take<T: Transact>(tx: &mut T, row: FleetRow, taken: &mut TakenOver) -> Answer<()> {
    let (kind, theirs) = (row.kind, row.state());
    let ours = known(tx, kind, &row.id).await?;
    if !theirs.counts(kind.rule(), ours) {
        return Ok(());
    }
    match &row.cells {
        None => tables::end(tx, kind, &row.id).await?,
        Some(cells) => {
            if kind == Kind::Edge && !may_come(tx, &row.id, cells, theirs, taken).await? {
                return Ok(());
            }
            tables::put(tx, kind, &row.id, cells).await?;
        }
    }
    let said = ours.map_or(theirs.said, |ours| ours.said.max(theirs.said));
    let (n, _) = next(tx, said.at).await?;
    note(tx, kind, &row.id, n, State { said, ended: theirs.ended }).await?;
    taken.changed += 1;
    Ok(())
}

/// A removed edge does not come from somebody who has not heard of its removal.
async fn may_come<T: Transact>(
    tx: &mut T,
    id: &str,
    cells: &[Cell],
    theirs: State,
    taken: &mut TakenOver,
) -> Answer<bool> {
    let [Cell::Blob(edge), Cell::Text(tenant), Cell::Text(name), .., removed_at, _] = cells else {
        return Err(corrupt("another region's edge that is none"));
    };
    if *removed_at != Cell::Null {
        return Ok(true);
    }
    if known(tx, Kind::Removal, id).await?.is_some() && tables::read(tx, Kind::Edge, id).await?.is_none() {
        return Ok(false);
    }
    let named = vec![tenant.as_str().into(), name.as_str().into(), edge.as_slice().into()];
    let Some(other) = tx.fetch(NAMED, named).await?.first().map(|row| uuid(row, 0)).transpose()? else {
        return Ok(true);
    };
    gives_its_name_up(tx, other, theirs).await.inspect(|given| {
        if *given {
            taken.dropped.push(name.clone());
        }
    })
}

/// Two homes may have let edges of one name in while neither knew of the other: the one that was let in by the later home, or
/// later, has the name. The other is not removed, which would make it destroy its data; it is not known any more.
async fn gives_its_name_up<T: Transact>(tx: &mut T, other: Uuid, theirs: State) -> Answer<bool> {
    let ours = known(tx, Kind::Edge, &hex(other)).await?;
    if ours.is_some_and(|ours| ours.said >= theirs.said) {
        return Ok(false);
    }
    tx.execute(DROP_EDGE, vec![other.as_bytes().as_slice().into()]).await?;
    for kind in [Kind::Edge, Kind::SealingKey] {
        forget(tx, kind, &hex(other)).await?;
    }
    Ok(true)
}
