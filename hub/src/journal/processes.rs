//! Who leads, as the database says it: beside the head, and true only while the head's epoch is the one named.

use llm_config_shared::store::JournalError;
use uuid::Uuid;

use super::Database;
use super::dialect::{Answer, Cells, Dialect, Sql, Transact};
use super::rows::uuid;
use crate::processes::{Hold, ProcessAt, Processes};

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

impl<D: Dialect> Processes for Database<D> {
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

    async fn news(&self) -> Answer<()> {
        self.dialect().news().await
    }
}
