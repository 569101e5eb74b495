//! Who made rows, when, and in which change: what follows from the write itself is left out.

use std::sync::Arc;

use uuid::Uuid;

use super::places::Place;
use super::words::{Dictionary, Differences, apart, write_apart};
use crate::codec::domain::AUTHOR_BYTES_MAX;
use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::{ChangeId, Metadata, Row};
use crate::limits::{TAG_BYTES_MAX, TAGS_MAX, TEXT_BYTES_MAX};
use crate::time::UnixMillis;

/// The entry is as old as its last change.
const NEW: u8 = 0;
const OLDER: u8 = 1;
/// The change bears the id that follows from the row's write; other numbers are places in the table, from 1.
const OF_WRITE: u64 = 0;

pub(super) fn write(out: &mut Writer, rows: &[&Row]) {
    for row in rows {
        write_apart(out, row.metadata.updated_at.0, row.stamp.hlc.physical().0);
    }
    for row in rows {
        out.u8(if is_new(row) { NEW } else { OLDER });
    }
    let mut created = Differences::default();
    for row in rows.iter().filter(|row| !is_new(row)) {
        created.write(out, row.metadata.created_at.0);
    }
    write_authors(out, rows);
    write_changes(out, rows);
    for row in rows {
        out.uint(row.metadata.tags.len() as u64);
    }
    for tag in rows.iter().flat_map(|row| &row.metadata.tags) {
        out.str(tag);
    }
    for row in rows {
        out.option(row.metadata.description.as_deref(), Writer::str);
    }
}

fn is_new(row: &Row) -> bool {
    row.metadata.created_at == row.metadata.updated_at
}

fn write_authors(out: &mut Writer, rows: &[&Row]) {
    let mut authors: Dictionary<Arc<str>> = Dictionary::new();
    for row in rows {
        authors.number(&row.metadata.created_by);
        authors.number(&row.metadata.updated_by);
    }
    out.uint(authors.values.len() as u64);
    for author in &authors.values {
        out.str(author);
    }
    for row in rows {
        out.uint(authors.number(&row.metadata.created_by));
    }
    for row in rows {
        out.uint(authors.number(&row.metadata.updated_by));
    }
}

fn write_changes(out: &mut Writer, rows: &[&Row]) {
    let mut changes: Dictionary<ChangeId> = Dictionary::new();
    let number = |row: &&Row| match row.change == ChangeId::of_write(row.stamp.id) {
        true => OF_WRITE,
        false => changes.number(&row.change) + 1,
    };
    let numbers: Vec<u64> = rows.iter().map(number).collect();
    out.uint(changes.values.len() as u64);
    for change in &changes.values {
        out.uuid(change.0);
    }
    for number in numbers {
        out.uint(number);
    }
}

pub(super) fn read(
    reader: &mut Reader<'_>,
    places: &[Place],
) -> Result<Vec<(Metadata, ChangeId)>, DecodeError> {
    let times = read_times(reader, places)?;
    let authors = read_authors(reader, places.len())?;
    let changes = read_changes(reader, places)?;
    let mut counts = Vec::with_capacity(places.len());
    for _ in places {
        counts.push(reader.count(TAGS_MAX, "tags")?);
    }
    let mut rows = Vec::with_capacity(places.len());
    for (((created_at, updated_at), (created_by, updated_by)), (change, count)) in
        times.into_iter().zip(authors).zip(changes.into_iter().zip(counts))
    {
        let tags = (0..count).map(|_| reader.arc_str(TAG_BYTES_MAX, "tag")).collect::<Result<_, _>>()?;
        let metadata = Metadata { created_at, created_by, updated_at, updated_by, tags, description: None };
        rows.push((metadata, change));
    }
    for (metadata, _) in &mut rows {
        metadata.description = reader.option("description", |r| r.arc_str(TEXT_BYTES_MAX, "description"))?;
    }
    Ok(rows)
}

fn read_times(
    reader: &mut Reader<'_>,
    places: &[Place],
) -> Result<Vec<(UnixMillis, UnixMillis)>, DecodeError> {
    let mut times = Vec::with_capacity(places.len());
    for place in places {
        let updated = UnixMillis(apart(place.stamp.hlc.physical().0, reader, "updated_at")?);
        times.push((updated, updated));
    }
    let mut older = Vec::with_capacity(places.len());
    for _ in places {
        older.push(match reader.u8("created_at")? {
            NEW => false,
            OLDER => true,
            _ => return Err(DecodeError::Invalid("created_at")),
        });
    }
    let mut created = Differences::default();
    for ((created_at, _), _) in times.iter_mut().zip(older).filter(|(_, older)| *older) {
        *created_at = UnixMillis(created.read(reader, "created_at")?);
    }
    Ok(times)
}

type Authors = (Arc<str>, Arc<str>);

fn read_authors(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Authors>, DecodeError> {
    let authors = reader.count(2 * count, "authors")?;
    let authors: Vec<Arc<str>> =
        (0..authors).map(|_| reader.arc_str(AUTHOR_BYTES_MAX, "author")).collect::<Result<_, _>>()?;
    let mut column = || -> Result<Vec<Arc<str>>, DecodeError> {
        let mut author = || {
            let number = reader.count(2 * count, "author")?;
            authors.get(number).cloned().ok_or(DecodeError::Invalid("author"))
        };
        (0..count).map(|_| author()).collect()
    };
    let (created, updated) = (column()?, column()?);
    Ok(created.into_iter().zip(updated).collect())
}

fn read_changes(reader: &mut Reader<'_>, places: &[Place]) -> Result<Vec<ChangeId>, DecodeError> {
    let changes = reader.count(places.len(), "changes")?;
    let changes: Vec<Uuid> = (0..changes).map(|_| reader.uuid("change")).collect::<Result<_, _>>()?;
    let change = |place: &Place| {
        let number = reader.count(changes.len(), "change")? as u64;
        if number == OF_WRITE {
            return Ok(ChangeId::of_write(place.stamp.id));
        }
        changes.get(number as usize - 1).copied().map(ChangeId).ok_or(DecodeError::Invalid("change"))
    };
    places.iter().map(change).collect()
}
