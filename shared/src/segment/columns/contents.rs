//! What rows hold. Canonical JSON has no line breaks, so a line break ends a value: cheaper than a length before it.

use super::words::Differences;
use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::Content;
use crate::limits::VALUE_BYTES_MAX;
use crate::segment::patched::{Outgoing, Patch, Results};
use crate::value::Value;

const DELETED: u8 = 0;
const PLAIN: u8 = 1;
const SECRET: u8 = 2;
/// A merge patch of an earlier value.
const PATCH: u8 = 3;
/// A secret of which something is told; that stands before it, outside what is compressed.
const TOLD_SECRET: u8 = 4;
const END: u8 = b'\n';

pub(super) fn write(out: &mut Writer, secrets: &mut Writer, rows: &[Outgoing<'_>]) {
    for Outgoing { row, patch } in rows {
        out.u8(match (&row.content, patch) {
            (Content::Plain(_), Some(_)) => PATCH,
            (Content::Plain(_), None) => PLAIN,
            (Content::Secret(sealed), _) if sealed.about.is_default() => SECRET,
            (Content::Secret(_), _) => TOLD_SECRET,
            (Content::Deleted, _) => DELETED,
        });
    }
    write_bases(out, rows);
    for Outgoing { row, patch } in rows {
        match (&row.content, patch) {
            (Content::Plain(_), Some(Patch { value, .. })) | (Content::Plain(value), None) => {
                out.raw(value.as_str().as_bytes());
                out.u8(END);
            }
            (Content::Secret(sealed), _) => {
                if !sealed.about.is_default() {
                    secrets.about(&sealed.about);
                }
                secrets.sealed(sealed);
            }
            (Content::Deleted, _) => {}
        }
    }
}

/// Which values the patches belong to, and what comes of all of them: one hash, for a hash of each would cost more than
/// many a patch.
fn write_bases(out: &mut Writer, rows: &[Outgoing<'_>]) {
    let mut bases = Differences::default();
    let mut results = None;
    for Outgoing { row, patch } in rows {
        if let (Content::Plain(value), Some(patch)) = (&row.content, patch) {
            bases.write(out, patch.base);
            results.get_or_insert_with(Results::new).add(value);
        }
    }
    if let Some(results) = results {
        out.raw(&results.finish());
    }
}

/// What a segment says of its rows' contents.
pub(super) struct Contents {
    /// With the seq of the base where the content is a patch.
    pub(super) rows: Vec<(Content, Option<u64>)>,
    pub(super) results: Option<[u8; 32]>,
}

pub(super) fn read(
    reader: &mut Reader<'_>,
    secrets: &mut Reader<'_>,
    count: usize,
) -> Result<Contents, DecodeError> {
    let kinds = reader.raw(count, "kind")?;
    let patches = kinds.iter().filter(|kind| **kind == PATCH).count();
    let mut differences = Differences::default();
    let mut bases = Vec::with_capacity(patches);
    for _ in 0..patches {
        bases.push(differences.read(reader, "base")?);
    }
    let results = if patches > 0 { Some(reader.array("results")?) } else { None };
    let mut bases = bases.into_iter();
    let mut text = || canonical(reader.line(END, VALUE_BYTES_MAX, "value")?).map(Content::Plain);
    let content = |kind: &u8| match *kind {
        DELETED => Ok((Content::Deleted, None)),
        PLAIN => Ok((text()?, None)),
        PATCH => Ok((text()?, bases.next())),
        SECRET => Ok((Content::Secret(secrets.sealed()?), None)),
        TOLD_SECRET => {
            let about = secrets.about()?;
            Ok((Content::Secret(secrets.sealed_of(about)?), None))
        }
        _ => Err(DecodeError::Invalid("kind")),
    };
    let rows = kinds.iter().map(content).collect::<Result<_, _>>()?;
    Ok(Contents { rows, results })
}

/// A value is read anew, so that nothing but canonical JSON enters a replica, whoever signed it.
fn canonical(bytes: &[u8]) -> Result<Value, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Invalid("value"))?;
    let value = Value::parse(text).map_err(|_| DecodeError::Invalid("value"))?;
    if value.as_str() == text { Ok(value) } else { Err(DecodeError::Invalid("value")) }
}
