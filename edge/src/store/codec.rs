//! The bytes of records on the edge's disk: a version, the kind, the fields in a fixed order.
//!
//! Whoever changes a record's fields adds a version here and keeps reading the old one: replicas outlive programs.

use std::sync::Arc;

use bytes::Bytes;
use llm_config_shared::codec::{DecodeError, Reader, Writer};
use llm_config_shared::entry::{ChangeId, Row};
use llm_config_shared::feed::Environments;
use llm_config_shared::held::Held;
use llm_config_shared::limits::{TAG_BYTES_MAX, TAGS_MAX, TEXT_BYTES_MAX, VALUE_BYTES_MAX};
use llm_config_shared::secret::KeyGrant;
use llm_config_shared::stamp::Hlc;
use llm_config_shared::store::replica::{
    FeedRecord, HandedIn, KeptRecord, PendingRecord, Record, StageRecord, StateRecord,
};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::value::Value;
use llm_config_shared::vector::ShardId;
use llm_config_shared::write::{Action, Base, Write};

use super::cipher::space;

const VERSION: u8 = 1;
/// Far more than any tenant has: a bound against damaged counts.
const ENVIRONMENTS_MAX: usize = 10_000;
const SUBTREES_MAX: usize = 10_000;
const GRANT_BYTES_MAX: usize = 1 << 10;

type Decoded<T> = Result<T, DecodeError>;

/// The record's bytes, without its place.
pub(crate) fn encode(record: &Record) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u8(VERSION);
    match record {
        Record::Row(row) | Record::Staged(row) => write_row(&mut writer, row),
        Record::Stage(feed, stage) => {
            writer.feed(feed);
            writer.uuid(stage.shard.0);
            writer.vector(&stage.held.from);
            writer.spans(&stage.held.spans);
            writer.u8(u8::from(stage.in_place));
        }
        Record::Feed(feed, progress) => {
            writer.feed(feed);
            write_progress(&mut writer, progress);
        }
        Record::Pending(pending) => write_pending(&mut writer, pending),
        Record::Kept(kept) => {
            write_write(&mut writer, &kept.write);
            writer.uint(kept.kept_at.0);
        }
        Record::Grant(grant) => write_grant(&mut writer, grant),
        Record::State(state) => write_state(&mut writer, state),
    }
    writer.finish()
}

/// The inverse of [`encode`] for a record of that space.
pub(crate) fn decode(space: u8, bytes: &[u8]) -> Decoded<Record> {
    let mut reader = Reader::new(bytes);
    if reader.u8("version")? != VERSION {
        return Err(DecodeError::Invalid("version of a record"));
    }
    let record = match space {
        space::ROW => Record::Row(Arc::new(read_row(&mut reader)?)),
        space::STAGED => Record::Staged(Arc::new(read_row(&mut reader)?)),
        space::STAGE => Record::Stage(reader.feed()?, read_stage(&mut reader)?),
        space::FEED => Record::Feed(reader.feed()?, read_progress(&mut reader)?),
        space::PENDING => Record::Pending(read_pending(&mut reader)?),
        space::KEPT => Record::Kept(KeptRecord {
            write: read_write(&mut reader)?,
            kept_at: UnixMillis(reader.uint("time of keeping")?),
        }),
        space::GRANT => Record::Grant(read_grant(&mut reader)?),
        space::STATE => Record::State(read_state(&mut reader)?),
        _ => return Err(DecodeError::Invalid("kind of a record")),
    };
    reader.finish()?;
    Ok(record)
}

fn write_row(writer: &mut Writer, row: &Row) {
    writer.entry_key(&row.at);
    writer.dot(row.dot);
    writer.stamp(row.stamp);
    writer.uint(row.version);
    writer.content(&row.content);
    writer.metadata(&row.metadata);
    writer.uuid(row.change.0);
}

fn read_row(reader: &mut Reader<'_>) -> Decoded<Row> {
    Ok(Row {
        at: reader.entry_key()?,
        dot: reader.dot()?,
        stamp: reader.stamp()?,
        version: reader.id63("version")?,
        content: reader.content()?,
        metadata: reader.metadata()?,
        change: reader.change()?,
    })
}

fn read_stage(reader: &mut Reader<'_>) -> Decoded<StageRecord> {
    Ok(StageRecord {
        shard: ShardId(reader.uuid("shard")?),
        held: Held { from: reader.vector()?, spans: reader.spans()? },
        in_place: reader.bool("in place")?,
    })
}

fn write_progress(writer: &mut Writer, progress: &FeedRecord) {
    writer.vector(&progress.vector);
    writer.vector(&progress.floor);
    writer.u8(u8::from(progress.ready));
    writer.uint(progress.checkpoint_issued_at);
    writer.u8(u8::from(progress.folding));
}

fn read_progress(reader: &mut Reader<'_>) -> Decoded<FeedRecord> {
    Ok(FeedRecord {
        vector: reader.vector()?,
        floor: reader.vector()?,
        ready: reader.bool("ready")?,
        checkpoint_issued_at: reader.uint("time of a checkpoint")?,
        folding: reader.bool("folding")?,
    })
}

fn write_pending(writer: &mut Writer, pending: &PendingRecord) {
    write_write(writer, &pending.write);
    writer.u8(u8::from(pending.sent));
    writer.u8(u8::from(pending.hidden));
    writer.option(pending.decided, Writer::dot);
}

fn read_pending(reader: &mut Reader<'_>) -> Decoded<PendingRecord> {
    Ok(PendingRecord {
        write: read_write(reader)?,
        sent: reader.bool("sent")?,
        hidden: reader.bool("hidden")?,
        decided: reader.option("decided", Reader::dot)?,
    })
}

fn write_write(writer: &mut Writer, write: &Write) {
    writer.write_id(write.id);
    writer.uint(write.hlc.0);
    writer.option(write.claimed_hlc, |writer, hlc| writer.uint(hlc.0));
    writer.entry_key(&write.at);
    write_action(writer, &write.action);
    writer.author(&write.author);
    writer.uint(write.made_at.0);
    writer.option(write.message.as_deref(), Writer::str);
    writer.uuid(write.change.0);
    writer.vector(&write.context);
    writer.u8(u8::from(write.without_secrets));
    write_base(writer, write.base);
}

fn read_write(reader: &mut Reader<'_>) -> Decoded<Write> {
    Ok(Write {
        id: reader.write_id()?,
        hlc: Hlc(reader.id63("time")?),
        claimed_hlc: reader.option("claimed time", |reader| reader.id63("claimed time").map(Hlc))?,
        at: reader.entry_key()?,
        action: read_action(reader)?,
        author: reader.author()?,
        made_at: UnixMillis(reader.uint("time of a write")?),
        message: reader.option("message", |reader| reader.arc_str(TEXT_BYTES_MAX, "message"))?,
        change: reader.change()?,
        context: reader.vector()?,
        without_secrets: reader.bool("without secrets")?,
        base: read_base(reader)?,
    })
}

fn write_base(writer: &mut Writer, base: Option<Base>) {
    let Some(Base { stamp, change }) = base else { return writer.u8(0) };
    writer.u8(2);
    writer.stamp(stamp);
    writer.uuid(change.0);
}

fn read_base(reader: &mut Reader<'_>) -> Decoded<Option<Base>> {
    // 1 is a base without its change, as an earlier version of the program wrote it.
    let form = reader.u8("base")?;
    if form == 0 {
        return Ok(None);
    }
    let stamp = reader.stamp()?;
    let change = match form {
        1 => ChangeId::UNKNOWN,
        2 => reader.change()?,
        _ => return Err(DecodeError::Invalid("base")),
    };
    Ok(Some(Base { stamp, change }))
}

fn write_action(writer: &mut Writer, action: &Action) {
    match action {
        Action::Delete => writer.u8(0),
        Action::Sealed(sealed) if sealed.about.is_default() => {
            writer.u8(2);
            writer.sealed(sealed);
        }
        Action::Sealed(sealed) => {
            writer.u8(3);
            writer.about(&sealed.about);
            writer.sealed(sealed);
        }
        Action::Set { value, tags, description } => {
            writer.u8(1);
            writer.str(value.as_str());
            writer.option(tags.as_deref(), |writer, tags| {
                writer.uint(tags.len() as u64);
                tags.iter().for_each(|tag| writer.str(tag));
            });
            writer.option(description.as_deref(), Writer::str);
        }
    }
}

fn read_action(reader: &mut Reader<'_>) -> Decoded<Action> {
    match reader.u8("kind of a write")? {
        0 => Ok(Action::Delete),
        1 => {
            let value = Value::parse(reader.str(VALUE_BYTES_MAX, "value")?);
            let value = value.map_err(|_| DecodeError::Invalid("value"))?;
            let tags = reader.option("tags", |reader| {
                let count = reader.count(TAGS_MAX, "tags")?;
                (0..count).map(|_| reader.arc_str(TAG_BYTES_MAX, "tag")).collect::<Decoded<Vec<_>>>()
            })?;
            let description =
                reader.option("description", |reader| reader.arc_str(TEXT_BYTES_MAX, "description"))?;
            Ok(Action::Set { value, tags, description })
        }
        2 => Ok(Action::Sealed(reader.sealed()?)),
        3 => {
            let about = reader.about()?;
            Ok(Action::Sealed(reader.sealed_of(about)?))
        }
        _ => Err(DecodeError::Invalid("kind of a write")),
    }
}

fn write_grant(writer: &mut Writer, grant: &KeyGrant) {
    writer.str(grant.environment.as_str());
    writer.str(grant.subtree.as_str());
    writer.uint(grant.key_epoch);
    writer.bytes(&grant.encapsulated);
    writer.bytes(&grant.ciphertext);
}

fn read_grant(reader: &mut Reader<'_>) -> Decoded<KeyGrant> {
    Ok(KeyGrant {
        environment: reader.environment()?,
        subtree: reader.subtree()?,
        key_epoch: reader.id63("key epoch")?,
        encapsulated: Bytes::copy_from_slice(reader.bytes(GRANT_BYTES_MAX, "encapsulated key")?),
        ciphertext: Bytes::copy_from_slice(reader.bytes(GRANT_BYTES_MAX, "granted key")?),
    })
}

fn write_state(writer: &mut Writer, state: &StateRecord) {
    writer.uint(state.incarnation);
    writer.uint(state.counter_ceiling);
    writer.uint(state.session);
    writer.uint(state.hlc.0);
    writer.int(state.clock_offset_ms);
    writer.uint(state.confirmed_at);
    writer.uint(state.environments.iter().count() as u64);
    for (name, parent) in state.environments.iter() {
        writer.str(name.as_str());
        writer.option(parent, |writer, parent| writer.str(parent.as_str()));
    }
    writer.option(state.default_environment.as_ref(), |writer, name| writer.str(name.as_str()));
    writer.uint(state.write.len() as u64);
    for subtree in &state.write {
        writer.str(subtree.as_str());
    }
    writer.uint(state.decided_hlc.0);
    writer.option(state.handed_in, write_handed_in);
}

fn write_handed_in(writer: &mut Writer, handed_in: HandedIn) {
    writer.uint(handed_in.leadership);
    writer.stamp(handed_in.through);
}

fn read_handed_in(reader: &mut Reader<'_>) -> Decoded<HandedIn> {
    Ok(HandedIn { leadership: reader.id63("epoch")?, through: reader.stamp()? })
}

fn read_state(reader: &mut Reader<'_>) -> Decoded<StateRecord> {
    Ok(StateRecord {
        incarnation: reader.id63("incarnation")?,
        counter_ceiling: reader.id63("counter")?,
        session: reader.id63("session")?,
        hlc: Hlc(reader.id63("time")?),
        clock_offset_ms: reader.int("clock offset")?,
        confirmed_at: reader.uint("time of confirmation")?,
        environments: read_environments(reader)?,
        default_environment: reader.option("default environment", Reader::environment)?,
        write: {
            let count = reader.count(SUBTREES_MAX, "namespaces to write")?;
            (0..count).map(|_| reader.subtree()).collect::<Decoded<_>>()?
        },
        // Replicas of before 0.2 end here.
        decided_hlc: Hlc(if reader.remaining() == 0 { 0 } else { reader.id63("time")? }),
        handed_in: match reader.remaining() {
            0 => None,
            _ => reader.option("what was handed in", read_handed_in)?,
        },
    })
}

fn read_environments(reader: &mut Reader<'_>) -> Decoded<Environments> {
    let count = reader.count(ENVIRONMENTS_MAX, "environments")?;
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let name = reader.environment()?;
        pairs.push((name, reader.option("parent", Reader::environment)?));
    }
    Ok(Environments::from_pairs(pairs))
}
