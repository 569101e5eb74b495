//! What another region reads of the history.

use llm_config_shared::store::region::{Begin, Bookmark, Layout, RegionAsk, RegionPage, RegionWrite};
use llm_config_shared::vector::{Dot, Position, ShardId};

use super::dialect::{Answer, Cells, Dialect, Sql, Transact, bound};
use super::encoding::to_metadata;
use super::failure::corrupt;
use super::registry::fleet::keep_home;
use super::rows::{self, AFTER_HISTORY, HISTORY_ID, history_columns};
use super::whole::REGION;
use super::{Database, encoding, head};

/// A number is given behind the head's lock, so a larger one was never visible before a smaller.
const AFTER: Sql = Sql::same(concat!(
    "SELECT ",
    history_columns!(),
    ", h.epoch, e.metadata
      FROM history h JOIN scope s ON s.id = h.scope
      LEFT JOIN entry e ON e.scope = h.scope AND e.key = h.key AND e.actor = h.actor AND e.inc = h.inc AND e.ctr = h.ctr
      WHERE h.id > $1 ORDER BY h.id LIMIT $2"
));
const PLACED: Sql = Sql::same("SELECT id FROM history WHERE seq = $1 ORDER BY id DESC LIMIT 1");

/// Writes after the asker's bookmark, of which it is not sent what it has already.
pub(super) async fn page<T: Transact>(tx: &mut T, ask: &RegionAsk, limit: usize) -> Answer<RegionPage> {
    let head = head::head(tx).await?;
    let epochs = head.own_epochs();
    let newest = epochs.newest().ok_or_else(|| corrupt("a shard without a leadership"))?.epoch;
    let read = match ask.begin(&epochs, newest) {
        Begin::At(read) => read,
        Begin::Behind(position) => {
            let found = tx.fetch(PLACED, vec![position.seq.into()]).await?;
            let number = found.first().map(|row| row.int(0)).transpose()?;
            Bookmark::behind(position, number, newest)
        }
    };
    let found = tx.fetch(AFTER, vec![read.number.into(), bound(limit as u64).into()]).await?;
    let mut page = Layout::new(ask, read);
    let mut full = false;
    for cells in &found {
        let row = rows::history(cells)?;
        let place = row.seq.zip(cells.int_or_null(AFTER_HISTORY)?);
        let place = place.map(|(seq, epoch)| Position { epoch, seq });
        let metadata = cells.blob_or_null(AFTER_HISTORY + 1)?.map(to_metadata).transpose()?;
        let here = place.map(|position| Dot { shard: head.shard, position });
        full = !page.add(cells.int(HISTORY_ID)?, place, RegionWrite::of(row, here, metadata));
        if full {
            break;
        }
    }
    Ok(page.finish(&head, found.len() < limit && !full))
}

/// Rows of the region that this database was filled from keep their places, which become their origins.
const MOVED: [Sql; 3] = [
    Sql {
        sqlite: "UPDATE entry SET shard = $1, epoch = $2,
                     origin = coalesce(origin, unhex(hex(shard) || printf('%016X%016X', epoch, seq)))",
        postgres: "UPDATE entry SET shard = $1, epoch = $2,
                       origin = coalesce(origin, shard || int8send(epoch) || int8send(seq))",
    },
    Sql {
        sqlite: "UPDATE stub SET shard = $1, epoch = $2,
                     origin = coalesce(origin, unhex(hex(shard) || printf('%016X%016X', epoch, seq)))",
        postgres: "UPDATE stub SET shard = $1, epoch = $2,
                       origin = coalesce(origin, shard || int8send(epoch) || int8send(seq))",
    },
    Sql {
        sqlite: "UPDATE history SET epoch = $2,
                     origin = coalesce(origin, unhex(hex((SELECT shard FROM shard_head WHERE local = 1 AND shard <> $1))
                                                   || printf('%016X%016X', epoch, seq)))
                 WHERE seq IS NOT NULL",
        postgres: "UPDATE history SET epoch = $2,
                       origin = coalesce(origin, (SELECT shard FROM shard_head WHERE local = 1 AND shard <> $1)
                                                 || int8send(epoch) || int8send(seq))
                   WHERE seq IS NOT NULL",
    },
];
/// Whoever takes the mark away begins the region, in the same transaction.
const OWED: Sql = Sql::same("DELETE FROM restored WHERE newer = $1");
const LAST: Sql = Sql::same("SELECT coalesce(max(id), 0) FROM history");
/// Nothing was lost: the region that it was filled from goes on.
const FORGET: [Sql; 4] = [
    Sql::same("DELETE FROM shard_epoch"),
    Sql::same("DELETE FROM restored"),
    Sql::same("DELETE FROM leader"),
    Sql::same("DELETE FROM seat"),
];
const BEGIN: Sql = Sql::same("UPDATE shard_head SET shard = $1, epoch = $2, following = $3 WHERE local = 1");
const FIRST: Sql = Sql::same("INSERT INTO shard_epoch (shard, ord, epoch, start_seq) VALUES ($1, 1, $2, 0)");

impl<D: Dialect> Database<D> {
    /// Makes what was filled from another region's backup, to be one, the database of a region of its own, `shard`, which
    /// follows that one from there on. `epoch` is the leadership that everything counts to that is in it already.
    ///
    /// # Errors
    /// When the database cannot be used; then it is as it was, and the region is begun at the next start.
    pub(super) async fn begin_region_if_owed(&self, shard: ShardId, epoch: u64) -> Answer<()> {
        let mut tx = self.dialect().begin_write().await?;
        if tx.execute(OWED, vec![REGION.into()]).await? == 0 {
            return tx.commit().await;
        }
        let before = head::head(&mut tx).await?;
        keep_home(&mut tx).await?;
        let known = before.own_epochs();
        let newest = known.newest().map_or(before.position.epoch, |newest| newest.epoch);
        let last = tx.fetch(LAST, vec![]).await?;
        let number = last.first().ok_or_else(|| corrupt("a count without a row"))?.int(0)?;
        let mut following = head::following(&mut tx).await?;
        let position = before.position;
        following.read.insert(before.shard, Bookmark { position, number, epoch: newest });
        following.regions = std::mem::take(&mut following.regions).with(before.shard, position);
        following.epochs = following.epochs.with(before.shard, known);
        let id = shard.0.as_bytes().as_slice();
        for statement in MOVED {
            tx.execute(statement, vec![id.into(), epoch.into()]).await?;
        }
        for statement in FORGET {
            tx.execute(statement, vec![]).await?;
        }
        let record = encoding::following(&following);
        tx.execute(BEGIN, vec![id.into(), epoch.into(), record.into()]).await?;
        tx.execute(FIRST, vec![id.into(), epoch.into()]).await?;
        tx.commit().await
    }
}
