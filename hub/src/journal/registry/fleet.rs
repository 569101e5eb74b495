//! What changes in the tables of the fleet, in the order in which it changes here: for other regions to read on.
//!
//! Every change goes through [`changed`] or [`ended`] in its own transaction. They take the one row of `fleet_head`, so a
//! larger number is never visible before a smaller one.

use llm_config_shared::store::JournalError;
use llm_config_shared::store::fleet::{FleetPage, FleetRow, Home, Kind, Said, State};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::ShardId;
use uuid::Uuid;

use crate::clock;
use crate::journal::dialect::{Answer, Cells, Dialect, Sql, Transact};
use crate::journal::failure::corrupt;
use crate::journal::rows::uuid;
use crate::journal::{Database, head};
use crate::registry::{Fleet, HomeKnown, TakenOver};

mod copied;
mod page;
mod tables;

const NEXT: Sql = Sql::same(
    "INSERT INTO fleet_head (one, term, n, at) VALUES (1, 1, 1, $1)
     ON CONFLICT (one) DO UPDATE SET n = fleet_head.n + 1,
         at = CASE WHEN fleet_head.at < excluded.at THEN excluded.at ELSE fleet_head.at + 1 END
     RETURNING n, at, term",
);
const NOTE: Sql = Sql::same(
    "INSERT INTO fleet_row (kind, id, n, term, at, ended) VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (kind, id) DO UPDATE
     SET n = excluded.n, term = excluded.term, at = excluded.at, ended = excluded.ended",
);
const KNOWN: Sql = Sql::same("SELECT term, at, ended FROM fleet_row WHERE kind = $1 AND id = $2");
const HOME: Sql = Sql::same("SELECT home, term, home_at, heard_at FROM fleet_head");
const PUT_HOME: Sql = Sql::same(
    "INSERT INTO fleet_head (one, home, term, n, at) VALUES (1, $1, $2, 0, 0)
     ON CONFLICT (one) DO UPDATE SET home = excluded.home, term = excluded.term, home_at = NULL, heard_at = NULL",
);
const HEARD: Sql = Sql::same("UPDATE fleet_head SET home_at = $1, heard_at = $2");
const OWN_TOKENS: Sql = Sql::same("SELECT id FROM fleet_row WHERE kind = 'token' AND term = 0 AND ended = 0");
const FORGET: Sql = Sql::same("DELETE FROM fleet_row WHERE kind = $1 AND id = $2");

/// An id of the fleet's rows that is a UUID.
pub(super) fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

/// A row was made, or is another than before.
pub(in crate::journal) async fn changed<T: Transact>(tx: &mut T, kind: Kind, id: &str) -> Answer<()> {
    say(tx, kind, id, false).await
}

/// A row was taken away.
pub(super) async fn ended<T: Transact>(tx: &mut T, kind: Kind, id: &str) -> Answer<()> {
    say(tx, kind, id, true).await
}

async fn say<T: Transact>(tx: &mut T, kind: Kind, id: &str, ended: bool) -> Answer<()> {
    let (n, said) = next(tx, clock::now().0.saturating_mul(1_000)).await?;
    note(tx, kind, id, n, State { said, ended }).await
}

/// The next place in this region's order, and a moment above all that it heard of.
async fn next<T: Transact>(tx: &mut T, at: u64) -> Answer<(u64, Said)> {
    let found = tx.fetch(NEXT, vec![at.into()]).await?;
    let row = found.first().ok_or_else(|| corrupt("an order without a head"))?;
    Ok((row.int(0)?, Said { term: row.int(2)?, at: row.int(1)? }))
}

async fn note<T: Transact>(tx: &mut T, kind: Kind, id: &str, n: u64, state: State) -> Answer<()> {
    let State { said, ended } = state;
    let args = vec![
        kind.as_str().into(),
        id.into(),
        n.into(),
        said.term.into(),
        said.at.into(),
        u64::from(ended).into(),
    ];
    tx.execute(NOTE, args).await?;
    Ok(())
}

async fn forget<T: Transact>(tx: &mut T, kind: Kind, id: &str) -> Answer<()> {
    tx.execute(FORGET, vec![kind.as_str().into(), id.into()]).await?;
    Ok(())
}

async fn known<T: Transact>(tx: &mut T, kind: Kind, id: &str) -> Answer<Option<State>> {
    let found = tx.fetch(KNOWN, vec![kind.as_str().into(), id.into()]).await?;
    found.first().map(|row| state(row, 0)).transpose()
}

fn state(row: &impl Cells, column: usize) -> Answer<State> {
    let said = Said { term: row.int(column)?, at: row.int(column + 1)? };
    Ok(State { said, ended: row.int(column + 2)? != 0 })
}

async fn home<T: Transact>(tx: &mut T) -> Answer<HomeKnown> {
    let (region, _) = head::position(tx).await?;
    let found = tx.fetch(HOME, vec![]).await?;
    let Some(row) = found.first() else {
        return Ok(HomeKnown { region, home: Home { region, term: 1 }, address: None, heard_at: None });
    };
    let home = match row.blob_or_null(0)? {
        Some(_) => ShardId(uuid(row, 0)?),
        None => region,
    };
    Ok(HomeKnown {
        region,
        home: Home { region: home, term: row.int(1)? },
        address: row.text_or_null(2)?.map(str::to_owned),
        heard_at: row.int_or_null(3)?.map(UnixMillis),
    })
}

async fn put_home<T: Transact>(tx: &mut T, home: Home) -> Answer<()> {
    tx.execute(PUT_HOME, vec![home.region.0.as_bytes().as_slice().into(), home.term.into()]).await?;
    Ok(())
}

/// The home stays who it is when the database becomes another region's; asked while it is still the first one's.
pub(in crate::journal) async fn keep_home<T: Transact>(tx: &mut T) -> Answer<()> {
    let HomeKnown { home, .. } = home(tx).await?;
    put_home(tx, home).await
}

impl<D: Dialect> Fleet for Database<D> {
    async fn home(&self) -> Answer<HomeKnown> {
        let mut tx = self.dialect().begin_read().await?;
        let known = home(&mut tx).await?;
        tx.commit().await?;
        Ok(known)
    }

    async fn take_home(&self) -> Answer<HomeKnown> {
        let mut tx = self.dialect().begin_write().await?;
        let known = home(&mut tx).await?;
        put_home(&mut tx, Home { region: known.region, term: known.home.term + 1 }).await?;
        let known = home(&mut tx).await?;
        tx.commit().await?;
        Ok(known)
    }

    async fn follow_home(&self, later: Home) -> Answer<bool> {
        let mut tx = self.dialect().begin_write().await?;
        let before = home(&mut tx).await?;
        if later.term <= before.home.term {
            return Ok(false);
        }
        if before.is_here() {
            for row in &tx.fetch(OWN_TOKENS, vec![]).await? {
                let id = row.text(0)?;
                tables::end(&mut tx, Kind::Token, id).await?;
                forget(&mut tx, Kind::Token, id).await?;
            }
        }
        put_home(&mut tx, later).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn heard_home(&self, address: &str, now: UnixMillis) -> Answer<()> {
        let mut tx = self.dialect().begin_write().await?;
        tx.execute(HEARD, vec![address.into(), now.0.into()]).await?;
        tx.commit().await
    }

    async fn fleet_page(&self, after: u64) -> Answer<FleetPage> {
        let mut tx = self.dialect().begin_read().await?;
        let page = page::page(&mut tx, after).await?;
        tx.commit().await?;
        Ok(page)
    }

    async fn take_over_rows(&self, page: FleetPage) -> Result<TakenOver, JournalError> {
        let mut tx = self.dialect().begin_write().await?;
        let mut rows: Vec<FleetRow> = page.rows;
        rows.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
        let mut taken = TakenOver::default();
        for row in rows {
            copied::take(&mut tx, row, &mut taken).await?;
        }
        tx.commit().await?;
        Ok(taken)
    }
}
