//! Rows as columns: keys in order with their common beginnings left out, numbers as what they differ by from what is
//! expected of them, texts once.
//!
//! Like stands beside like, so gzip finds what repeats; and what follows from something else is not sent. Ciphertext is
//! kept apart, in a section of its own.

use super::patched::{Arrived, Opened, Outgoing};
use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::Row;
use crate::feed::Feed;
use crate::limits::SEGMENT_ROWS_MAX;

mod contents;
mod metadata;
mod names;
mod places;
mod words;

/// The rows, in the order given, without ciphertext; and the ciphertext of the secrets among them, in the same order.
/// Rows must be sorted by (namespace, key) and lie in one tenant's environment.
pub(super) fn encode(outgoing: &[Outgoing<'_>]) -> (Vec<u8>, Vec<u8>) {
    let rows: Vec<&Row> = outgoing.iter().map(|outgoing| outgoing.row.as_ref()).collect();
    let mut out = Writer::default();
    out.uint(rows.len() as u64);
    names::write(&mut out, &rows);
    places::write(&mut out, &rows);
    metadata::write(&mut out, &rows);
    let mut secrets = Writer::default();
    contents::write(&mut out, &mut secrets, outgoing);
    (out.finish(), secrets.finish())
}

/// The inverse of [`encode`]: rows of `feed`, refused unless they are in order and each lies in it.
pub(super) fn decode(feed: &Feed, entries: &[u8], secrets: &[u8]) -> Result<Opened, DecodeError> {
    let mut reader = Reader::new(entries);
    let count = reader.count(SEGMENT_ROWS_MAX, "rows")?;
    // Every row takes more than eight bytes: a count that the bytes cannot hold allocates nothing.
    if count > reader.remaining() / 8 {
        return Err(DecodeError::Invalid("rows"));
    }
    let keys = names::read(&mut reader, feed, count)?;
    let places = places::read(&mut reader, count)?;
    let metadata = metadata::read(&mut reader, &places)?;
    let mut secrets = Reader::new(secrets);
    let contents = contents::read(&mut reader, &mut secrets, count)?;
    reader.finish()?;
    secrets.finish()?;
    let parts = keys.into_iter().zip(places).zip(metadata).zip(contents.rows);
    let rows = parts.map(|(((at, place), (metadata, change)), (content, base))| {
        let (dot, stamp, version) = (place.dot, place.stamp, place.version);
        Arrived { row: Row { at, dot, stamp, version, content, metadata, change }, base }
    });
    Ok(Opened { rows: rows.collect(), results: contents.results })
}
