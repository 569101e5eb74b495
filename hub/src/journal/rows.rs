//! From the cells of a row to the types of the domain. What does not fit them is damage, for names and numbers were
//! checked before they were written.

use llm_config_shared::digest::ScopeDigest;
use llm_config_shared::entry::{Author, ChangeId, ChangeType, HistoryRow, HubRow, Row, Status};
use llm_config_shared::name::{EntryKey, Environment, InvalidName, Key, Namespace, Scope, Tenant};
use llm_config_shared::settled::Settled;
use llm_config_shared::stamp::{ActorId, Hlc, Stamp, WriteId};
use llm_config_shared::store::JournalError;
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::{Dot, Position, ShardId};
use std::sync::Arc;
use uuid::Uuid;

use super::dialect::{Answer, Cells};
use super::encoding::{to_base, to_content, to_dot, to_metadata, to_vector};
use super::failure::corrupt;

/// What [`entry`] reads, from column 0 on.
macro_rules! entry_columns {
    () => {
        "e.key, e.shard, e.epoch, e.seq, e.hlc, e.actor, e.inc, e.ctr, e.version, e.top_version, e.plain_seq, e.kind, \
         e.value, e.metadata, e.change_id, e.context, e.base, e.origin"
    };
}
/// The first column behind [`entry_columns`].
pub(super) const AFTER_ENTRY: usize = 18;

/// What [`history`] reads, from column 0 on, over `history h JOIN scope s`.
macro_rules! history_columns {
    () => {
        "h.key, h.version, h.hlc, h.actor, h.inc, h.ctr, h.claimed_hlc, h.kind, h.value, h.content_hash, h.author, \
         h.claimed_author, h.created_at, h.message, h.change_type, h.change_id, h.status, h.reason, h.seq, h.context, \
         h.base, s.tenant, s.environment, s.namespace, h.id, h.settled_by, h.settled_at, h.settled_change, \
         h.settled_version, h.origin, h.returned_in"
    };
}
/// The first column behind [`history_columns`].
pub(super) const AFTER_HISTORY: usize = 31;
/// Where [`history_columns`] has the row's number for paging.
pub(super) const HISTORY_ID: usize = 24;

pub(super) use {entry_columns, history_columns};

pub(super) fn uuid(row: &impl Cells, column: usize) -> Answer<Uuid> {
    Uuid::from_slice(row.blob(column)?).map_err(|_| corrupt("an id that has not 16 bytes"))
}

pub(super) fn hash(row: &impl Cells, column: usize) -> Answer<[u8; 32]> {
    row.blob(column)?.try_into().map_err(|_| corrupt("a hash that has not 32 bytes"))
}

/// Text that people wrote is kept as bytes: PostgreSQL's texts cannot hold a zero.
pub(super) fn written(bytes: &[u8]) -> Answer<Arc<str>> {
    std::str::from_utf8(bytes).map(Into::into).map_err(|_| corrupt("a text that is not UTF-8"))
}

pub(super) fn written_or_null(row: &impl Cells, column: usize) -> Answer<Option<Arc<str>>> {
    row.blob_or_null(column)?.map(written).transpose()
}

pub(super) fn name<T>(parsed: Result<T, InvalidName>) -> Answer<T> {
    parsed.map_err(|error| corrupt(error.to_string()))
}

/// Tenant, environment and namespace, from `column` on.
pub(super) fn scope(row: &impl Cells, column: usize) -> Answer<Scope> {
    Ok(Scope {
        tenant: name(Tenant::parse(row.text(column)?))?,
        environment: name(Environment::parse(row.text(column + 1)?))?,
        namespace: name(Namespace::parse(row.text(column + 2)?))?,
    })
}

/// Sums and counts, from `column` on.
pub(super) fn digest(row: &impl Cells, column: usize) -> Answer<ScopeDigest> {
    let sum = |column| -> Answer<u128> {
        let bytes = row.blob(column)?.try_into().map_err(|_| corrupt("a digest that has not 16 bytes"))?;
        Ok(u128::from_be_bytes(bytes))
    };
    Ok(ScopeDigest {
        plain_sum: sum(column)?,
        plain_live: row.int(column + 1)?,
        secret_sum: sum(column + 2)?,
        secret_live: row.int(column + 3)?,
        last_seq: row.int(column + 4)?,
        plain_last_seq: row.int(column + 5)?,
    })
}

/// Who settled something, when, and what that wrote, from `column` on; none while nobody has.
pub(super) fn settled(row: &impl Cells, column: usize) -> Answer<Option<Settled>> {
    let Some(by) = written_or_null(row, column)? else { return Ok(None) };
    let wrote = match row.int_or_null(column + 3)? {
        Some(version) => Some((ChangeId(uuid(row, column + 2)?), version)),
        None => None,
    };
    Ok(Some(Settled { by, at: UnixMillis(row.int(column + 1)?), wrote }))
}

/// Actor, incarnation and counter, from `column` on.
pub(super) fn write_id(row: &impl Cells, column: usize) -> Answer<WriteId> {
    Ok(WriteId {
        actor: ActorId(uuid(row, column)?),
        incarnation: row.int(column + 1)?,
        counter: row.int(column + 2)?,
    })
}

pub(super) fn entry(row: &impl Cells, scope: Scope) -> Answer<HubRow> {
    let dot =
        Dot { shard: ShardId(uuid(row, 1)?), position: Position { epoch: row.int(2)?, seq: row.int(3)? } };
    Ok(HubRow {
        row: Row {
            at: EntryKey { scope, key: name(Key::parse(row.text(0)?))? },
            dot,
            stamp: Stamp { hlc: Hlc(row.int(4)?), id: write_id(row, 5)? },
            version: row.int(8)?,
            content: to_content(row.int(11)?, row.blob_or_null(12)?)?,
            metadata: to_metadata(row.blob(13)?)?,
            change: ChangeId(uuid(row, 14)?),
        },
        top_version: row.int(9)?,
        plain_seq: row.int(10)?,
        context: to_vector(row.blob(15)?)?,
        base: row.blob_or_null(16)?.map(to_base).transpose()?,
        origin: row.blob_or_null(17)?.map(to_dot).transpose()?,
    })
}

pub(super) fn history(row: &impl Cells) -> Answer<HistoryRow> {
    let word = |column| -> Result<&str, JournalError> { row.text(column) };
    let unknown = |word: &str| corrupt(format!("a write of the unknown sort {word:?}"));
    Ok(HistoryRow {
        at: EntryKey { scope: scope(row, 21)?, key: name(Key::parse(row.text(0)?))? },
        version: row.int(1)?,
        stamp: Stamp { hlc: Hlc(row.int(2)?), id: write_id(row, 3)? },
        claimed_hlc: row.int_or_null(6)?.map(Hlc),
        content: to_content(row.int(7)?, row.blob_or_null(8)?)?,
        content_hash: hash(row, 9)?,
        author: Author { name: written(row.blob(10)?)?, claimed: written_or_null(row, 11)? },
        created_at: UnixMillis(row.int(12)?),
        message: written_or_null(row, 13)?,
        change_type: ChangeType::parse(word(14)?).ok_or_else(|| unknown(row.text(14).unwrap_or_default()))?,
        change: ChangeId(uuid(row, 15)?),
        returned_in: row.blob_or_null(30)?.map(|_| uuid(row, 30).map(ChangeId)).transpose()?,
        status: Status::parse(word(16)?).ok_or_else(|| unknown(row.text(16).unwrap_or_default()))?,
        reason: written_or_null(row, 17)?,
        seq: row.int_or_null(18)?,
        context: to_vector(row.blob(19)?)?,
        base: row.blob_or_null(20)?.map(to_base).transpose()?,
        settled: settled(row, 25)?,
        origin: row.blob_or_null(29)?.map(to_dot).transpose()?,
    })
}
