//! What edges hand in of what was lost: how it was chosen that it be taken, and how much it has been.

use llm_config_shared::name::Tenant;
use llm_config_shared::newer::{Newer, Restored, Taken, Tally};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::{Commit, Loss, Retold};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::ShardId;

use super::append::expect;
use super::dialect::{Answer, Cells, Column, Sql, Transact};
use super::failure::corrupt;
use super::head;
use super::rows::uuid;

const RESTORED: Sql = Sql::same(
    "SELECT shard, epoch, cut, restored_at, newer, n FROM restored WHERE new_epoch = $1 ORDER BY n DESC LIMIT 1",
);
const LATER: Sql = Sql::same("SELECT DISTINCT newer FROM restored WHERE n > $1");
const TALLIES: Sql = Sql::same(
    "SELECT edge, name, known, admitted, held, denied, discarded, refused, left_out, bytes FROM handed_in
     WHERE tenant = $1 AND new_epoch = $2 ORDER BY name",
);
const TALLY: Sql = Sql {
    sqlite: "INSERT INTO handed_in (tenant, new_epoch, edge, name, known, admitted, held, denied, discarded, refused,
                                    left_out, bytes)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             ON CONFLICT (tenant, new_epoch, edge) DO UPDATE SET
                 name = excluded.name, known = excluded.known, admitted = excluded.admitted, held = excluded.held,
                 denied = excluded.denied, discarded = excluded.discarded, refused = excluded.refused,
                 left_out = excluded.left_out, bytes = excluded.bytes",
    postgres: "INSERT INTO handed_in (tenant, new_epoch, edge, name, known, admitted, held, denied, discarded, refused,
                                      left_out, bytes)
               SELECT * FROM unnest(
                   $1::text[], $2::bigint[], $3::bytea[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
                   $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[])
               ON CONFLICT (tenant, new_epoch, edge) DO UPDATE SET
                   name = excluded.name, known = excluded.known, admitted = excluded.admitted, held = excluded.held,
                   denied = excluded.denied, discarded = excluded.discarded, refused = excluded.refused,
                   left_out = excluded.left_out, bytes = excluded.bytes",
};
const RETELL: Sql = Sql::same("UPDATE change SET message = $3 WHERE tenant = $1 AND id = $2");

/// The losses asked about, those that there were.
pub(super) async fn restored<T: Transact>(
    tx: &mut T,
    asked: &[(Tenant, u64)],
) -> Answer<Vec<(Tenant, Restored)>> {
    let mut found = Vec::with_capacity(asked.len());
    for (tenant, new_epoch) in asked {
        let rows = tx.fetch(RESTORED, vec![(*new_epoch).into()]).await?;
        let Some(row) = rows.first() else { continue };
        let shard = ShardId(uuid(row, 0)?);
        let loss = Loss { shard, epoch: row.int(1)?, cut: row.int(2)?, new_epoch: *new_epoch };
        let later = tx.fetch(LATER, vec![row.int(5)?.into()]).await?;
        let later = later.iter().map(|row| choice(row, 0)).collect::<Answer<Vec<_>>>()?;
        let newer = choice(row, 4)?.before(later);
        let restored_at = UnixMillis(row.int(3)?);
        let epochs = head::epochs(tx, shard).await?;
        let tallies = tallies(tx, tenant, *new_epoch).await?;
        found.push((tenant.clone(), Restored { loss, newer, restored_at, epochs, tallies }));
    }
    Ok(found)
}

fn choice(row: &impl Cells, column: usize) -> Answer<Newer> {
    Newer::parse(row.text(column)?).ok_or_else(|| corrupt("an unknown choice of a restore"))
}

async fn tallies<T: Transact>(tx: &mut T, tenant: &Tenant, new_epoch: u64) -> Answer<Vec<Tally>> {
    let rows = tx.fetch(TALLIES, vec![tenant.as_str().into(), new_epoch.into()]).await?;
    let tally = |row: &T::Row| {
        let taken = Taken {
            known: row.int(2)?,
            admitted: row.int(3)?,
            held: row.int(4)?,
            denied: row.int(5)?,
            discarded: row.int(6)?,
            refused: row.int(7)?,
            left_out: row.int(8)?,
        };
        let (edge, name, bytes) = (ActorId(uuid(row, 0)?), row.text(1)?.into(), row.int(9)?);
        Ok(Tally { tenant: tenant.clone(), new_epoch, edge, name, taken, bytes })
    };
    rows.iter().map(tally).collect()
}

/// What has changed of it in a commit. Behind the changes: their messages are told anew.
pub(super) async fn put<T: Transact>(tx: &mut T, commit: &Commit) -> Answer<()> {
    let rows = commit.tallies.as_slice();
    let count = |pick: fn(&Taken) -> u64| Column::ints(rows.iter().map(move |row| pick(&row.taken)));
    let columns = vec![
        Column::texts(rows.iter().map(|row| row.tenant.as_str())),
        Column::ints(rows.iter().map(|row| row.new_epoch)),
        Column::blobs(rows.iter().map(|row| row.edge.0.as_bytes().as_slice())),
        Column::texts(rows.iter().map(|row| &*row.name)),
        count(|taken| taken.known),
        count(|taken| taken.admitted),
        count(|taken| taken.held),
        count(|taken| taken.denied),
        count(|taken| taken.discarded),
        count(|taken| taken.refused),
        count(|taken| taken.left_out),
        Column::ints(rows.iter().map(|row| row.bytes)),
    ];
    expect("tallies", rows.len(), tx.execute_each(TALLY, columns).await?)?;
    for Retold { tenant, change, message } in &commit.retold {
        let id = change.0.as_bytes().as_slice();
        let args = vec![tenant.as_str().into(), id.into(), message.as_bytes().into()];
        expect("retold changes", 1, tx.execute(RETELL, args).await?)?;
    }
    Ok(())
}
