//! How far the shard has come, and who leads it.

use llm_config_shared::stamp::Hlc;
use llm_config_shared::store::region::Following;
use llm_config_shared::store::{Head, JournalError, Leadership, Loss};
use llm_config_shared::vector::{Epoch, EpochTable, Position, ShardId, Vector};

use super::dialect::{Answer, Cells, Sql, Transact};
use super::encoding;
use super::failure::{corrupt, unavailable};
use super::rows::uuid;

const CREATE: Sql = Sql::same(
    "INSERT INTO shard_head (shard, local, epoch, seq, hlc) VALUES ($1, 1, 0, 0, 0)
     ON CONFLICT (local) WHERE local = 1 DO NOTHING",
);
const LOCK: Sql = Sql {
    sqlite: "SELECT shard, epoch, seq, hlc, f_seq, following FROM shard_head WHERE local = 1",
    postgres: "SELECT shard, epoch, seq, hlc, f_seq, following FROM shard_head WHERE local = 1 FOR UPDATE",
};
const READ: Sql =
    Sql::same("SELECT shard, epoch, seq, hlc, f_seq, following FROM shard_head WHERE local = 1");
const EPOCHS: Sql = Sql::same("SELECT ord, epoch, start_seq FROM shard_epoch WHERE shard = $1 ORDER BY ord");
const NEW_EPOCH: Sql =
    Sql::same("INSERT INTO shard_epoch (shard, ord, epoch, start_seq) VALUES ($1, $2, $3, $4)");
const AFTER_LOSS: Sql = Sql::same("UPDATE restored SET new_epoch = $1 WHERE new_epoch IS NULL");
const LOSSES: Sql = Sql::same(
    "SELECT shard, epoch, cut, new_epoch FROM restored WHERE new_epoch IS NOT NULL ORDER BY n DESC LIMIT 64",
);
const TAKE: Sql = Sql::same("UPDATE shard_head SET epoch = $2 WHERE shard = $1");

/// Locks the head and appends an epoch. Of two processes that create the shard at once, the second waits and finds the
/// first one's.
pub(super) async fn lead<T: Transact>(tx: &mut T, epoch: u64, new_shard: ShardId) -> Answer<Leadership> {
    tx.execute(CREATE, vec![new_shard.0.as_bytes().as_slice().into()]).await?;
    let Found { shard, position, hlc, following, .. } = one(tx.fetch(LOCK, vec![]).await?)?;
    let mut own = epochs(tx, shard).await?.epochs().to_vec();
    let ordinal = own.last().map_or(1, |newest| newest.ordinal + 1);
    own.push(Epoch { ordinal, epoch, start_seq: position.seq });
    let id = shard.0.as_bytes().as_slice();
    let row = vec![id.into(), u64::from(ordinal).into(), epoch.into(), position.seq.into()];
    tx.execute(NEW_EPOCH, row).await?;
    tx.execute(TAKE, vec![id.into(), epoch.into()]).await?;
    tx.execute(AFTER_LOSS, vec![epoch.into()]).await?;
    let position = Position { epoch, seq: position.seq };
    Ok(Leadership { shard, position, hlc, epochs: EpochTable::new(own), following })
}

pub(super) async fn head<T: Transact>(tx: &mut T) -> Answer<Head> {
    let Found { shard, position, hlc, horizon, following } = one(tx.fetch(READ, vec![]).await?)?;
    let epochs = following.epochs.with(shard, epochs(tx, shard).await?);
    Ok(Head { shard, position, hlc, horizon, epochs, regions: following.regions })
}

pub(super) async fn losses<T: Transact>(tx: &mut T) -> Answer<Vec<Loss>> {
    let loss = |row: &T::Row| {
        let (epoch, cut, new_epoch) = (row.int(1)?, row.int(2)?, row.int(3)?);
        Ok(Loss { shard: ShardId(uuid(row, 0)?), epoch, cut, new_epoch })
    };
    let own = tx.fetch(LOSSES, vec![]).await?.iter().map(loss).collect::<Answer<Vec<Loss>>>()?;
    let Found { following, .. } = one(tx.fetch(READ, vec![]).await?)?;
    Ok(own.into_iter().chain(following.losses()).collect())
}

pub(super) async fn vector<T: Transact>(tx: &mut T) -> Answer<Vector> {
    let Found { shard, position, following, .. } = one(tx.fetch(READ, vec![]).await?)?;
    Ok(following.regions.with(shard, position))
}

pub(super) async fn following<T: Transact>(tx: &mut T) -> Answer<Following> {
    Ok(one(tx.fetch(READ, vec![]).await?)?.following)
}

pub(super) async fn position<T: Transact>(tx: &mut T) -> Answer<(ShardId, Position)> {
    let Found { shard, position, .. } = one(tx.fetch(READ, vec![]).await?)?;
    Ok((shard, position))
}

/// The one row of the local shard.
struct Found {
    shard: ShardId,
    position: Position,
    hlc: Hlc,
    horizon: u64,
    following: Following,
}

fn one<R: Cells>(rows: Vec<R>) -> Result<Found, JournalError> {
    match rows.as_slice() {
        [] => Err(unavailable("no hub has been started on it yet")),
        [row] => {
            let position = Position { epoch: row.int(1)?, seq: row.int(2)? };
            let hlc = Hlc(row.int(3)?);
            let following = row.blob_or_null(5)?.map(encoding::to_following).transpose()?.unwrap_or_default();
            Ok(Found { shard: ShardId(uuid(row, 0)?), position, hlc, horizon: row.int(4)?, following })
        }
        [..] => Err(corrupt("two heads of one shard")),
    }
}

pub(super) async fn epochs<T: Transact>(tx: &mut T, shard: ShardId) -> Answer<EpochTable> {
    let rows = tx.fetch(EPOCHS, vec![shard.0.as_bytes().as_slice().into()]).await?;
    let mut epochs = Vec::with_capacity(rows.len());
    for row in &rows {
        let ordinal = u32::try_from(row.int(0)?).map_err(|_| corrupt("an epoch's ordinal beyond 32 bits"))?;
        epochs.push(Epoch { ordinal, epoch: row.int(1)?, start_seq: row.int(2)? });
    }
    Ok(EpochTable::new(epochs))
}
