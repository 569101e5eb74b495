//! Rows as columns: keys in order with their common beginnings left out, numbers as differences, texts once.
//!
//! Like stands beside like, so gzip finds what repeats. Ciphertext is kept apart, in a section of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::codec::domain::AUTHOR_BYTES_MAX;
use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::{ChangeId, Content, Metadata, Row};
use crate::feed::Feed;
use crate::limits::{
    KEY_BYTES_MAX, NAMESPACE_BYTES_MAX, SEGMENT_ROWS_MAX, TAG_BYTES_MAX, TAGS_MAX, TEXT_BYTES_MAX,
    VALUE_BYTES_MAX,
};
use crate::name::{EntryKey, Key, Namespace, Scope};
use crate::stamp::{ActorId, Hlc, Stamp, WriteId};
use crate::time::UnixMillis;
use crate::value::Value;
use crate::vector::{Dot, Position, ShardId};

const DELETED: u8 = 0;
const PLAIN: u8 = 1;
const SECRET: u8 = 2;

/// Values that appear often, each written once, by number afterwards.
struct Dictionary<T: Ord + Clone> {
    numbers: BTreeMap<T, u64>,
    values: Vec<T>,
}

impl<T: Ord + Clone> Dictionary<T> {
    fn new() -> Self {
        Self { numbers: BTreeMap::new(), values: Vec::new() }
    }

    fn number(&mut self, value: &T) -> u64 {
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        let number = self.values.len() as u64;
        self.numbers.insert(value.clone(), number);
        self.values.push(value.clone());
        number
    }
}

/// Writes numbers as differences from the one before.
#[derive(Default)]
struct Differences(u64);

impl Differences {
    fn write(&mut self, out: &mut Writer, value: u64) {
        out.int(value.wrapping_sub(self.0) as i64);
        self.0 = value;
    }

    fn read(&mut self, reader: &mut Reader<'_>, what: &'static str) -> Result<u64, DecodeError> {
        self.0 = self.0.wrapping_add(reader.int(what)? as u64);
        if self.0 > i64::MAX as u64 {
            return Err(DecodeError::Invalid(what));
        }
        Ok(self.0)
    }
}

fn shared_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

/// The rows, in the order given, without ciphertext; and the ciphertext of the secrets among them, in the same order.
/// Rows must be sorted by (namespace, key) and lie in one tenant's environment.
pub(super) fn encode(rows: &[&Row]) -> (Vec<u8>, Vec<u8>) {
    let mut out = Writer::default();
    out.uint(rows.len() as u64);
    write_names(&mut out, rows);
    write_places(&mut out, rows);
    write_metadata(&mut out, rows);
    for row in rows {
        if let Content::Plain(value) = &row.content {
            out.uint(value.as_str().len() as u64);
        }
    }
    let mut secrets = Writer::default();
    for row in rows {
        match &row.content {
            Content::Plain(value) => out.raw(value.as_str().as_bytes()),
            Content::Secret(sealed) => secrets.sealed(sealed),
            Content::Deleted => {}
        }
    }
    (out.finish(), secrets.finish())
}

fn write_names(out: &mut Writer, rows: &[&Row]) {
    let mut namespaces = Dictionary::new();
    let numbers: Vec<u64> = rows.iter().map(|row| namespaces.number(&row.at.scope.namespace)).collect();
    out.uint(namespaces.values.len() as u64);
    for namespace in &namespaces.values {
        out.str(namespace.as_str());
    }
    let mut before = Differences::default();
    for number in numbers {
        before.write(out, number);
    }
    let mut previous = "";
    for row in rows {
        let key = row.at.key.as_str();
        let common = shared_prefix(previous, key);
        out.uint(common as u64);
        out.str(&key[common..]);
        previous = key;
    }
}

fn write_places(out: &mut Writer, rows: &[&Row]) {
    let mut origins = Dictionary::new();
    let mut actors = Dictionary::new();
    for row in rows {
        origins.number(&(row.dot.shard, row.dot.position.epoch));
        actors.number(&(row.stamp.id.actor, row.stamp.id.incarnation));
    }
    out.uint(origins.values.len() as u64);
    for (shard, epoch) in &origins.values {
        out.uuid(shard.0);
        out.uint(*epoch);
    }
    out.uint(actors.values.len() as u64);
    for (actor, incarnation) in &actors.values {
        out.uuid(actor.0);
        out.uint(*incarnation);
    }
    for row in rows {
        out.uint(origins.number(&(row.dot.shard, row.dot.position.epoch)));
        out.uint(actors.number(&(row.stamp.id.actor, row.stamp.id.incarnation)));
    }
    let mut columns = [Differences::default(), Differences::default(), Differences::default()];
    for row in rows {
        columns[0].write(out, row.dot.position.seq);
    }
    for row in rows {
        columns[1].write(out, row.stamp.hlc.0);
    }
    for row in rows {
        columns[2].write(out, row.stamp.id.counter);
    }
    for row in rows {
        out.uint(row.version);
    }
    for row in rows {
        out.u8(match row.content {
            Content::Deleted => DELETED,
            Content::Plain(_) => PLAIN,
            Content::Secret(_) => SECRET,
        });
    }
}

fn write_metadata(out: &mut Writer, rows: &[&Row]) {
    let mut authors: Dictionary<Arc<str>> = Dictionary::new();
    let mut changes: Dictionary<ChangeId> = Dictionary::new();
    for row in rows {
        authors.number(&row.metadata.created_by);
        authors.number(&row.metadata.updated_by);
        changes.number(&row.change);
    }
    out.uint(authors.values.len() as u64);
    for author in &authors.values {
        out.str(author);
    }
    out.uint(changes.values.len() as u64);
    for change in &changes.values {
        out.uuid(change.0);
    }
    let mut created = Differences::default();
    for row in rows {
        created.write(out, row.metadata.created_at.0);
    }
    for row in rows {
        out.uint(row.metadata.updated_at.0.wrapping_sub(row.metadata.created_at.0));
    }
    for row in rows {
        out.uint(authors.number(&row.metadata.created_by));
        out.uint(authors.number(&row.metadata.updated_by));
        out.uint(changes.number(&row.change));
    }
    for row in rows {
        out.uint(row.metadata.tags.len() as u64);
        for tag in &row.metadata.tags {
            out.str(tag);
        }
        out.option(row.metadata.description.as_deref(), Writer::str);
    }
}

/// The inverse of [`encode`]: rows of `feed`, refused unless they are in order and each lies in it.
pub(super) fn decode(feed: &Feed, entries: &[u8], secrets: &[u8]) -> Result<Vec<Row>, DecodeError> {
    let mut reader = Reader::new(entries);
    let count = reader.count(SEGMENT_ROWS_MAX, "rows")?;
    // Every row takes more than eight bytes: a count that the bytes cannot hold allocates nothing.
    if count > reader.remaining() / 8 {
        return Err(DecodeError::Invalid("rows"));
    }
    let keys = read_names(&mut reader, feed, count)?;
    let places = read_places(&mut reader, count)?;
    let metadata = read_metadata(&mut reader, count)?;
    let mut lengths = Vec::with_capacity(count);
    for place in &places {
        lengths.push(if place.kind == PLAIN { reader.count(VALUE_BYTES_MAX, "value")? } else { 0 });
    }
    let mut secrets = Reader::new(secrets);
    let mut rows = Vec::with_capacity(count);
    for (((at, place), (metadata, change)), length) in keys.into_iter().zip(places).zip(metadata).zip(lengths)
    {
        let content = match place.kind {
            PLAIN => Content::Plain(canonical(reader.raw(length, "value")?)?),
            SECRET => Content::Secret(secrets.sealed()?),
            _ => Content::Deleted,
        };
        rows.push(Row {
            at,
            dot: place.dot,
            stamp: place.stamp,
            version: place.version,
            content,
            metadata,
            change,
        });
    }
    reader.finish()?;
    secrets.finish()?;
    Ok(rows)
}

/// A value is read anew, so that nothing but canonical JSON enters a replica, whoever signed it.
fn canonical(bytes: &[u8]) -> Result<Value, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Invalid("value"))?;
    let value = Value::parse(text).map_err(|_| DecodeError::Invalid("value"))?;
    if value.as_str() == text { Ok(value) } else { Err(DecodeError::Invalid("value")) }
}

fn read_names(reader: &mut Reader<'_>, feed: &Feed, count: usize) -> Result<Vec<EntryKey>, DecodeError> {
    let namespaces = reader.count(count, "namespaces")?;
    let mut scopes = Vec::with_capacity(namespaces);
    for _ in 0..namespaces {
        let text = reader.str(NAMESPACE_BYTES_MAX, "namespace")?;
        let namespace = Namespace::parse(text).map_err(|_| DecodeError::Invalid("namespace"))?;
        let tenant = feed.tenant.clone();
        scopes.push(Scope { tenant, environment: feed.environment.clone(), namespace });
    }
    let mut numbers = Differences::default();
    let mut of_rows = Vec::with_capacity(count);
    for _ in 0..count {
        let number = numbers.read(reader, "namespace")? as usize;
        of_rows.push(scopes.get(number).ok_or(DecodeError::Invalid("namespace"))?);
    }
    let mut keys: Vec<EntryKey> = Vec::with_capacity(count);
    let mut text = String::new();
    for scope in of_rows {
        let common = reader.count(text.len(), "key")?;
        text.truncate(common);
        text.push_str(reader.str(KEY_BYTES_MAX, "key")?);
        let key = Key::parse(&text).map_err(|_| DecodeError::Invalid("key"))?;
        let at = EntryKey { scope: scope.clone(), key };
        if !feed.contains(&at) || keys.last().is_some_and(|before| *before >= at) {
            return Err(DecodeError::Invalid("order of keys"));
        }
        keys.push(at);
    }
    Ok(keys)
}

struct Place {
    dot: Dot,
    stamp: Stamp,
    version: u64,
    kind: u8,
}

fn read_places(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Place>, DecodeError> {
    let origins = reader.count(count, "origins")?;
    let origins: Vec<(ShardId, u64)> = (0..origins)
        .map(|_| Ok((ShardId(reader.uuid("shard")?), reader.id63("epoch")?)))
        .collect::<Result<_, DecodeError>>()?;
    let actors = reader.count(count, "actors")?;
    let actors: Vec<(ActorId, u64)> = (0..actors)
        .map(|_| Ok((ActorId(reader.uuid("actor")?), reader.id63("incarnation")?)))
        .collect::<Result<_, DecodeError>>()?;
    let mut places = Vec::with_capacity(count);
    for _ in 0..count {
        let (shard, epoch) =
            *origins.get(reader.count(count, "origin")?).ok_or(DecodeError::Invalid("origin"))?;
        let (actor, incarnation) =
            *actors.get(reader.count(count, "actor")?).ok_or(DecodeError::Invalid("actor"))?;
        places.push(Place {
            dot: Dot { shard, position: Position { epoch, seq: 0 } },
            stamp: Stamp { hlc: Hlc(0), id: WriteId { actor, incarnation, counter: 0 } },
            version: 0,
            kind: DELETED,
        });
    }
    let mut columns = [Differences::default(), Differences::default(), Differences::default()];
    for place in &mut places {
        place.dot.position.seq = columns[0].read(reader, "seq")?;
    }
    for place in &mut places {
        place.stamp.hlc = Hlc(columns[1].read(reader, "time")?);
    }
    for place in &mut places {
        place.stamp.id.counter = columns[2].read(reader, "counter")?;
    }
    for place in &mut places {
        place.version = reader.id63("version")?;
    }
    for place in &mut places {
        place.kind = reader.u8("kind")?;
        if place.kind > SECRET {
            return Err(DecodeError::Invalid("kind"));
        }
    }
    Ok(places)
}

fn read_metadata(reader: &mut Reader<'_>, count: usize) -> Result<Vec<(Metadata, ChangeId)>, DecodeError> {
    let authors = reader.count(2 * count, "authors")?;
    let authors: Vec<Arc<str>> =
        (0..authors).map(|_| reader.arc_str(AUTHOR_BYTES_MAX, "author")).collect::<Result<_, _>>()?;
    let changes = reader.count(count, "changes")?;
    let changes: Vec<Uuid> = (0..changes).map(|_| reader.uuid("change")).collect::<Result<_, _>>()?;
    let mut created = Differences::default();
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        times.push((created.read(reader, "created_at")?, 0));
    }
    for (created, updated) in &mut times {
        *updated = created.wrapping_add(reader.uint("updated_at")?);
    }
    let mut rows = Vec::with_capacity(count);
    for (created_at, updated_at) in times {
        let mut author = || -> Result<Arc<str>, DecodeError> {
            let number = reader.count(2 * count, "author")?;
            authors.get(number).cloned().ok_or(DecodeError::Invalid("author"))
        };
        let (created_by, updated_by) = (author()?, author()?);
        let change = *changes.get(reader.count(count, "change")?).ok_or(DecodeError::Invalid("change"))?;
        let (created_at, updated_at) = (UnixMillis(created_at), UnixMillis(updated_at));
        let metadata =
            Metadata { created_at, created_by, updated_at, updated_by, tags: Vec::new(), description: None };
        rows.push((metadata, ChangeId(change)));
    }
    for (metadata, _) in &mut rows {
        let tags = reader.count(TAGS_MAX, "tags")?;
        metadata.tags = (0..tags).map(|_| reader.arc_str(TAG_BYTES_MAX, "tag")).collect::<Result<_, _>>()?;
        metadata.description = reader.option("description", |r| r.arc_str(TEXT_BYTES_MAX, "description"))?;
    }
    Ok(rows)
}
