//! What rows hold. Canonical JSON has no line breaks, so a line break ends a value: cheaper than a length before it.

use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::{Content, Row};
use crate::limits::VALUE_BYTES_MAX;
use crate::value::Value;

const DELETED: u8 = 0;
const PLAIN: u8 = 1;
const SECRET: u8 = 2;
const END: u8 = b'\n';

pub(super) fn write(out: &mut Writer, secrets: &mut Writer, rows: &[&Row]) {
    for row in rows {
        out.u8(match row.content {
            Content::Deleted => DELETED,
            Content::Plain(_) => PLAIN,
            Content::Secret(_) => SECRET,
        });
    }
    for row in rows {
        match &row.content {
            Content::Plain(value) => {
                out.raw(value.as_str().as_bytes());
                out.u8(END);
            }
            Content::Secret(sealed) => secrets.sealed(sealed),
            Content::Deleted => {}
        }
    }
}

pub(super) fn read(
    reader: &mut Reader<'_>,
    secrets: &mut Reader<'_>,
    count: usize,
) -> Result<Vec<Content>, DecodeError> {
    let kinds = reader.raw(count, "kind")?;
    let content = |kind: &u8| match *kind {
        DELETED => Ok(Content::Deleted),
        PLAIN => canonical(reader.line(END, VALUE_BYTES_MAX, "value")?).map(Content::Plain),
        SECRET => secrets.sealed().map(Content::Secret),
        _ => Err(DecodeError::Invalid("kind")),
    };
    kinds.iter().map(content).collect()
}

/// A value is read anew, so that nothing but canonical JSON enters a replica, whoever signed it.
fn canonical(bytes: &[u8]) -> Result<Value, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Invalid("value"))?;
    let value = Value::parse(text).map_err(|_| DecodeError::Invalid("value"))?;
    if value.as_str() == text { Ok(value) } else { Err(DecodeError::Invalid("value")) }
}
