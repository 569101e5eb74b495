//! Where each kind of the fleet's rows lies, and what of it travels.
//!
//! What is not named here stays in its region: when an edge was last seen and what it acknowledged, for a place in the order of
//! one region says nothing in another's.

use llm_config_shared::store::fleet::{Cell, Kind};

use crate::journal::dialect::{Answer, Arg, Cells, Sql, Transact};
use crate::journal::failure::corrupt;
use crate::journal::whole::CellKind::{self, Blob, Int, Text};

/// Of a kind: what names a row, and what is told of it, with the name in front.
struct Table {
    name: &'static [CellKind],
    cells: &'static [CellKind],
    read: Sql,
    /// Makes the row, or what it is now.
    put: Sql,
    /// Takes it away, where that is more than a mark.
    end: Option<Sql>,
}

/// Names are without a slash but in the last place.
const SEPARATOR: char = '/';

const TENANT: Table = Table {
    name: &[Text],
    cells: &[Text, Int, Int],
    read: Sql::same("SELECT name, created_at, suite FROM tenant WHERE name = $1"),
    put: Sql::same(
        "INSERT INTO tenant (name, created_at, suite) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO UPDATE SET created_at = excluded.created_at, suite = excluded.suite",
    ),
    end: None,
};
const ENVIRONMENT: Table = Table {
    name: &[Text, Text],
    cells: &[Text, Text, Text],
    read: Sql::same("SELECT tenant, name, parent FROM environment WHERE tenant = $1 AND name = $2"),
    put: Sql::same(
        "INSERT INTO environment (tenant, name, parent) VALUES ($1, $2, $3)
         ON CONFLICT (tenant, name) DO UPDATE SET parent = excluded.parent",
    ),
    end: None,
};
const POLICY: Table = Table {
    name: &[Text, Text],
    cells: &[Text, Text, Text],
    read: Sql::same("SELECT tenant, namespace, conflicts FROM policy WHERE tenant = $1 AND namespace = $2"),
    put: Sql::same(
        "INSERT INTO policy (tenant, namespace, conflicts) VALUES ($1, $2, $3)
         ON CONFLICT (tenant, namespace) DO UPDATE SET conflicts = excluded.conflicts",
    ),
    end: Some(Sql::same("DELETE FROM policy WHERE tenant = $1 AND namespace = $2")),
};
const OFFLINE_LIMIT: Table = Table {
    name: &[Text, Text],
    cells: &[Text, Text, Int],
    read: Sql::same(
        "SELECT tenant, namespace, limit_ms FROM offline_limit WHERE tenant = $1 AND namespace = $2",
    ),
    put: Sql::same(
        "INSERT INTO offline_limit (tenant, namespace, limit_ms) VALUES ($1, $2, $3)
         ON CONFLICT (tenant, namespace) DO UPDATE SET limit_ms = excluded.limit_ms",
    ),
    end: Some(Sql::same("DELETE FROM offline_limit WHERE tenant = $1 AND namespace = $2")),
};
const TOKEN: Table = Table {
    name: &[Blob],
    cells: &[Blob, Text, Blob, Blob, Text, Int, Blob, Int],
    read: Sql::same(
        "SELECT id, tenant, name, hash, role, created_at, created_by, expires_at FROM api_token WHERE id = $1",
    ),
    put: Sql::same(
        "INSERT INTO api_token (id, tenant, name, hash, role, created_at, created_by, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING",
    ),
    end: Some(Sql::same("DELETE FROM api_token WHERE id = $1")),
};
/// A use that was taken stays taken.
const JOIN_TOKEN: Table = Table {
    name: &[Blob],
    cells: &[Blob, Text, Text, Blob, Blob, Blob, Int, Blob, Int, Int, Int],
    read: Sql::same(
        "SELECT id, tenant, name, hash, binding, labels, created_at, created_by, expires_at, max_uses, uses
         FROM join_token WHERE id = $1",
    ),
    put: Sql::same(
        "INSERT INTO join_token (id, tenant, name, hash, binding, labels, created_at, created_by, expires_at,
                                 max_uses, uses)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (id) DO UPDATE
         SET uses = CASE WHEN excluded.uses > join_token.uses THEN excluded.uses ELSE join_token.uses END",
    ),
    end: None,
};
const REMOVAL: Table = Table {
    name: &[Blob],
    cells: &[Blob, Int],
    read: Sql::same("SELECT id, removed_at FROM edge WHERE id = $1 AND removed_at IS NOT NULL"),
    put: Sql::same("UPDATE edge SET removed_at = $2 WHERE id = $1 AND removed_at IS NULL"),
    end: None,
};
const EDGE: Table = Table {
    name: &[Blob],
    cells: &[Blob, Text, Text, Blob, Blob, Blob, Blob, Int, Int, Blob],
    read: Sql::same(
        "SELECT id, tenant, name, binding, labels, public_key, sealing_key, joined_at, removed_at, join_token
         FROM edge WHERE id = $1",
    ),
    put: Sql::same(
        "INSERT INTO edge (id, tenant, name, binding, labels, public_key, sealing_key, joined_at, removed_at,
                           join_token, acked_seq)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0)
         ON CONFLICT (id) DO UPDATE SET binding = excluded.binding",
    ),
    end: None,
};
const SEALING_KEY: Table = Table {
    name: &[Blob],
    cells: &[Blob, Blob],
    read: Sql::same("SELECT id, sealing_key FROM edge WHERE id = $1"),
    put: Sql::same("UPDATE edge SET sealing_key = $2 WHERE id = $1"),
    end: None,
};
const LOSS: Table = Table {
    name: &[Blob],
    cells: &[Blob, Text, Text, Int, Blob],
    read: Sql::same("SELECT edge, tenant, name, lost_at, receipt FROM edge_loss WHERE edge = $1"),
    put: Sql::same(
        "INSERT INTO edge_loss (edge, tenant, name, lost_at, receipt) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (edge) DO NOTHING",
    ),
    end: None,
};
const WIPE: Table = Table {
    name: &[Blob],
    cells: &[Blob, Int, Blob],
    read: Sql::same("SELECT edge, wiped_at, proof FROM wipe WHERE edge = $1"),
    put: Sql::same(
        "INSERT INTO wipe (edge, wiped_at, proof) VALUES ($1, $2, $3) ON CONFLICT (edge) DO NOTHING",
    ),
    end: None,
};
const GRANT: Table = Table {
    name: &[Blob, Text, Int, Text],
    cells: &[Blob, Text, Int, Text, Text, Int],
    read: Sql::same(
        "SELECT edge, environment, key_epoch, subtree, tenant, granted_at FROM grant_ledger
         WHERE edge = $1 AND environment = $2 AND key_epoch = $3 AND subtree = $4",
    ),
    put: Sql::same(
        "INSERT INTO grant_ledger (edge, environment, key_epoch, subtree, tenant, granted_at)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    ),
    end: None,
};

fn table(kind: Kind) -> Table {
    match kind {
        Kind::Tenant => TENANT,
        Kind::Environment => ENVIRONMENT,
        Kind::Policy => POLICY,
        Kind::OfflineLimit => OFFLINE_LIMIT,
        Kind::Token => TOKEN,
        Kind::JoinToken => JOIN_TOKEN,
        Kind::Removal => REMOVAL,
        Kind::Edge => EDGE,
        Kind::SealingKey => SEALING_KEY,
        Kind::Loss => LOSS,
        Kind::Wipe => WIPE,
        Kind::Grant => GRANT,
    }
}

/// What the row is now; none where it is not there.
pub(super) async fn read<T: Transact>(tx: &mut T, kind: Kind, id: &str) -> Answer<Option<Vec<Cell>>> {
    let table = table(kind);
    let name = named(&table, kind, id)?;
    let found =
        tx.fetch(table.read, name.iter().zip(table.name).map(|(cell, kind)| arg(cell, *kind)).collect());
    let found = found.await?;
    found.first().map(|row| cells(row, table.cells)).transpose()
}

/// Makes the row what another region says of it.
pub(super) async fn put<T: Transact>(tx: &mut T, kind: Kind, id: &str, cells: &[Cell]) -> Answer<()> {
    let table = table(kind);
    let fits = cells.len() == table.cells.len()
        && cells.iter().zip(table.cells).all(|(cell, kind)| is(cell, *kind))
        && named(&table, kind, id)?.iter().eq(&cells[..table.name.len()]);
    if !fits {
        return Err(corrupt(format!("another region's {} that is none", kind.as_str())));
    }
    tx.execute(table.put, cells.iter().zip(table.cells).map(|(cell, kind)| arg(cell, *kind)).collect())
        .await?;
    Ok(())
}

/// Takes the row away.
pub(super) async fn end<T: Transact>(tx: &mut T, kind: Kind, id: &str) -> Answer<()> {
    let table = table(kind);
    let name = named(&table, kind, id)?;
    let Some(end) = table.end else {
        return Err(corrupt(format!("a {} that was taken away", kind.as_str())));
    };
    tx.execute(end, name.iter().zip(table.name).map(|(cell, kind)| arg(cell, *kind)).collect()).await?;
    Ok(())
}

/// From the text that names a row to what its columns hold.
fn named(table: &Table, kind: Kind, id: &str) -> Answer<Vec<Cell>> {
    let wrong = || corrupt(format!("a {} with a name that is none", kind.as_str()));
    let parts: Vec<&str> = id.splitn(table.name.len(), SEPARATOR).collect();
    if parts.len() != table.name.len() {
        return Err(wrong());
    }
    let cell = |(part, kind): (&&str, &CellKind)| match kind {
        Text => Ok(Cell::Text((*part).to_owned())),
        Int => part.parse().map(Cell::Int).map_err(|_| wrong()),
        Blob => uuid::Uuid::try_parse(part).map(|id| Cell::Blob(id.as_bytes().to_vec())).map_err(|_| wrong()),
    };
    parts.iter().zip(table.name).map(cell).collect()
}

fn is(cell: &Cell, kind: CellKind) -> bool {
    matches!(
        (cell, kind),
        (Cell::Null, _) | (Cell::Int(_), Int) | (Cell::Text(_), Text) | (Cell::Blob(_), Blob)
    )
}

fn cells(row: &impl Cells, kinds: &[CellKind]) -> Answer<Vec<Cell>> {
    let cell = |(at, kind): (usize, &CellKind)| {
        let cell = match kind {
            Int => row.int_or_null(at)?.map(|number| Cell::Int(number.cast_signed())),
            Text => row.text_or_null(at)?.map(|text| Cell::Text(text.to_owned())),
            Blob => row.blob_or_null(at)?.map(|bytes| Cell::Blob(bytes.to_vec())),
        };
        Ok(cell.unwrap_or(Cell::Null))
    };
    kinds.iter().enumerate().map(cell).collect()
}

fn arg(cell: &Cell, kind: CellKind) -> Arg<'_> {
    match (cell, kind) {
        (Cell::Int(number), _) => Arg::Int(Some(*number)),
        (Cell::Text(text), _) => Arg::Text(Some(text)),
        (Cell::Blob(bytes), _) => Arg::Blob(Some(bytes.as_slice().into())),
        (Cell::Null, Int) => Arg::Int(None),
        (Cell::Null, Text) => Arg::Text(None),
        (Cell::Null, Blob) => Arg::Blob(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_apart_only_where_it_is_one() {
        let edge = uuid::Uuid::from_u128(7);
        let id = format!("{}/production/3/app/llm", edge.simple());
        let name = named(&table(Kind::Grant), Kind::Grant, &id).unwrap();
        let text = |text: &str| Cell::Text(text.into());
        assert_eq!(name[1..], [text("production"), Cell::Int(3), text("app/llm")]);
        for bad in ["", "x", "a/b/c/d", "00000000000000000000000000000007/prod/x/"] {
            assert!(named(&table(Kind::Grant), Kind::Grant, bad).is_err(), "{bad}");
        }
        assert_eq!(named(&table(Kind::Policy), Kind::Policy, "t/a/b").unwrap(), [text("t"), text("a/b")]);
    }

    #[test]
    fn what_names_a_row_stands_in_front_of_what_is_told_of_it() {
        for kind in Kind::ALL {
            let table = table(kind);
            assert!(table.cells.starts_with(table.name), "{}", kind.as_str());
            assert_eq!(table.end.is_some(), matches!(kind, Kind::Policy | Kind::OfflineLimit | Kind::Token));
        }
    }
}
