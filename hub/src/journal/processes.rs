//! What processes tell one another through the database. Who leads stands beside the head, and is true only while the
//! head's epoch is the one named.

use std::collections::BTreeSet;

use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::JournalError;
use llm_config_shared::time::UnixMillis;
use uuid::Uuid;

use super::Database;
use super::dialect::{Answer, Cells, Column, Dialect, Sql, Transact};
use super::rows::uuid;
use crate::processes::{Hold, News, ProcessAt, Processes};

/// Behind the head's lock: an old leader that comes late finds another epoch.
const ANNOUNCE: Sql = Sql {
    sqlite: "INSERT INTO leader (shard, epoch, process, address)
             SELECT shard, epoch, $2, $3 FROM shard_head WHERE local = 1 AND epoch = $1
             ON CONFLICT (shard) DO UPDATE
             SET epoch = excluded.epoch, process = excluded.process, address = excluded.address",
    postgres: "INSERT INTO leader (shard, epoch, process, address)
               SELECT shard, epoch, $2, $3 FROM shard_head WHERE local = 1 AND epoch = $1 FOR UPDATE
               ON CONFLICT (shard) DO UPDATE
               SET epoch = excluded.epoch, process = excluded.process, address = excluded.address",
};
const LEADER: Sql = Sql::same(
    "SELECT process, address FROM leader
     WHERE shard = (SELECT shard FROM shard_head WHERE local = 1)
       AND epoch = (SELECT epoch FROM shard_head WHERE local = 1)",
);

const SAY: Sql = Sql::same(
    "INSERT INTO process (process, said_at) VALUES ($1, $2)
     ON CONFLICT (process) DO UPDATE SET said_at = excluded.said_at",
);
const CAME: Sql = Sql {
    sqlite: "INSERT INTO seat (process, edge) VALUES ($1, $2) ON CONFLICT (process, edge) DO NOTHING",
    postgres: "INSERT INTO seat (process, edge) SELECT * FROM unnest($1::bytea[], $2::bytea[])
               ON CONFLICT (process, edge) DO NOTHING",
};
const WENT: Sql = Sql {
    sqlite: "DELETE FROM seat WHERE process = $1 AND edge = $2",
    postgres: "DELETE FROM seat USING unnest($1::bytea[], $2::bytea[]) AS a (p, e) WHERE process = p AND edge = e",
};
const ELSEWHERE: Sql = Sql::same(
    "SELECT DISTINCT s.edge FROM seat s JOIN process p ON p.process = s.process
     WHERE p.process <> $1 AND p.said_at >= $2",
);
const FORGET_SEATS: Sql =
    Sql::same("DELETE FROM seat WHERE process IN (SELECT process FROM process WHERE said_at < $1)");
const FORGET: Sql = Sql::same("DELETE FROM process WHERE said_at < $1");
/// A process that has said nothing for so long does not come back.
const FORGOTTEN_MS: u64 = 3_600_000;

impl<D: Dialect> Processes for Database<D> {
    const SHARED: bool = D::SHARED;

    async fn stand(&self) -> Answer<Option<Hold>> {
        self.dialect().stand().await
    }

    async fn announce(&self, at: &ProcessAt, epoch: u64) -> Answer<()> {
        let mut tx = self.dialect().begin_write().await?;
        let process: Uuid = at.process;
        let args = vec![epoch.into(), process.as_bytes().as_slice().into(), at.address.as_str().into()];
        let announced = tx.execute(ANNOUNCE, args).await?;
        tx.commit().await?;
        if announced == 0 { Err(JournalError::Fenced) } else { Ok(()) }
    }

    async fn leader(&self) -> Answer<Option<ProcessAt>> {
        let mut tx = self.dialect().begin_read().await?;
        let rows = tx.fetch(LEADER, vec![]).await?;
        tx.commit().await?;
        let found = |row: &<D::Transaction as Transact>::Row| {
            Ok(ProcessAt { process: uuid(row, 0)?, address: row.text(1)?.to_owned() })
        };
        rows.first().map(found).transpose()
    }

    async fn say_seats(
        &self,
        process: Uuid,
        came: &[ActorId],
        went: &[ActorId],
        now: UnixMillis,
    ) -> Answer<()> {
        let id = process.as_bytes().as_slice();
        let seats = |edges: &[ActorId]| {
            vec![
                Column::blobs(edges.iter().map(|_| process.as_bytes().to_vec())),
                Column::blobs(edges.iter().map(|edge| edge.0.as_bytes().to_vec())),
            ]
        };
        let mut tx = self.dialect().begin_write().await?;
        tx.execute(SAY, vec![id.into(), now.0.into()]).await?;
        tx.execute_each(CAME, seats(came)).await?;
        tx.execute_each(WENT, seats(went)).await?;
        let forgotten = now.0.saturating_sub(FORGOTTEN_MS);
        tx.execute(FORGET_SEATS, vec![forgotten.into()]).await?;
        tx.execute(FORGET, vec![forgotten.into()]).await?;
        tx.commit().await
    }

    async fn seats_elsewhere(&self, process: Uuid, since: UnixMillis) -> Answer<BTreeSet<ActorId>> {
        let mut tx = self.dialect().begin_read().await?;
        let args = vec![process.as_bytes().as_slice().into(), since.0.into()];
        let rows = tx.fetch(ELSEWHERE, args).await?;
        tx.commit().await?;
        rows.iter().map(|row| Ok(ActorId(uuid(row, 0)?))).collect()
    }

    async fn news(&self) -> Answer<Option<News>> {
        self.dialect().news().await
    }
}
