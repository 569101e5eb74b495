//! What is in a backup, record by record: where it comes from, tables, rows, and an end that counts them.
//!
//! A record is its length as four bytes, big-endian, and a body that begins with its kind.

use std::io::{self, Read, Write};

use llm_config_shared::codec::{DecodeError, Reader, Writer};
use llm_config_shared::time::UnixMillis;
use zeroize::Zeroizing;

use crate::journal::whole::{Cell, CellKind, Dumped, Table, TableColumn};

/// Longest record. The longest of all are answers kept for repeated requests.
const RECORD_BYTES_MAX: usize = 256 << 20;
const NAME_BYTES_MAX: usize = 128;
const COLUMNS_MAX: usize = 256;
const KEYRING_BYTES_MAX: usize = 64 << 10;

/// The first record.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) program: String,
    pub(super) made_at: UnixMillis,
    /// How far the tables had been brought.
    pub(super) step: i64,
    /// The keyring's text: without it nothing that is wrapped in the tables could be opened.
    pub(super) keyring: Zeroizing<String>,
}

/// One record.
pub(super) enum Record {
    Origin(Origin),
    Dumped(Dumped),
    End { tables: u64, rows: u64 },
}

/// Why a record could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("what is in it cannot be read: {0}")]
    Decode(#[from] DecodeError),
    #[error("a row with {0} bytes does not fit")]
    TooLong(usize),
}

pub(super) fn write(out: &mut impl Write, record: &Record) -> Result<(), RecordError> {
    let body = Zeroizing::new(encode(record));
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= RECORD_BYTES_MAX);
    let length = length.ok_or(RecordError::TooLong(body.len()))?;
    out.write_all(&length.to_be_bytes())?;
    Ok(out.write_all(&body)?)
}

pub(super) fn read(from: &mut impl Read) -> Result<Record, RecordError> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > RECORD_BYTES_MAX {
        return Err(RecordError::TooLong(length));
    }
    let mut body = Zeroizing::new(Vec::new());
    let read = from.take(length as u64).read_to_end(&mut body)?;
    if read != length {
        return Err(DecodeError::Truncated("record").into());
    }
    Ok(decode(&body)?)
}

fn encode(record: &Record) -> Vec<u8> {
    let mut out = Writer::default();
    match record {
        Record::Origin(origin) => {
            out.u8(0);
            out.str(&origin.program);
            out.uint(origin.made_at.0);
            out.int(origin.step);
            out.str(&origin.keyring);
        }
        Record::Dumped(Dumped::Table(table)) => {
            out.u8(1);
            out.str(&table.name);
            out.uint(table.columns.len() as u64);
            for column in &table.columns {
                out.str(&column.name);
                out.u8(match column.kind {
                    CellKind::Int => 1,
                    CellKind::Text => 2,
                    CellKind::Blob => 3,
                });
            }
        }
        Record::Dumped(Dumped::Row(cells)) => {
            out.u8(2);
            out.uint(cells.len() as u64);
            cells.iter().for_each(|cell| encode_cell(&mut out, cell));
        }
        Record::End { tables, rows } => {
            out.u8(3);
            out.uint(*tables);
            out.uint(*rows);
        }
    }
    out.finish()
}

fn encode_cell(out: &mut Writer, cell: &Cell) {
    match cell {
        Cell::Null => out.u8(0),
        Cell::Int(number) => {
            out.u8(1);
            out.int(*number);
        }
        Cell::Text(text) => {
            out.u8(2);
            out.str(text);
        }
        Cell::Blob(bytes) => {
            out.u8(3);
            out.bytes(bytes);
        }
    }
}

fn decode(body: &[u8]) -> Result<Record, DecodeError> {
    let mut reader = Reader::new(body);
    let record = match reader.u8("record")? {
        0 => Record::Origin(Origin {
            program: reader.str(NAME_BYTES_MAX, "program")?.to_owned(),
            made_at: UnixMillis(reader.uint("time")?),
            step: reader.int("step")?,
            keyring: Zeroizing::new(reader.str(KEYRING_BYTES_MAX, "keyring")?.to_owned()),
        }),
        1 => {
            let name = reader.str(NAME_BYTES_MAX, "table")?.to_owned();
            let count = reader.count(COLUMNS_MAX, "columns")?;
            let columns = (0..count).map(|_| column(&mut reader)).collect::<Result<_, _>>()?;
            Record::Dumped(Dumped::Table(Table { name, columns }))
        }
        2 => {
            let count = reader.count(COLUMNS_MAX, "cells")?;
            let cells = (0..count).map(|_| cell(&mut reader)).collect::<Result<_, _>>()?;
            Record::Dumped(Dumped::Row(cells))
        }
        3 => Record::End { tables: reader.uint("tables")?, rows: reader.uint("rows")? },
        _ => return Err(DecodeError::Invalid("record")),
    };
    reader.finish()?;
    Ok(record)
}

fn column(reader: &mut Reader<'_>) -> Result<TableColumn, DecodeError> {
    let name = reader.str(NAME_BYTES_MAX, "column")?.to_owned();
    let kind = match reader.u8("kind of column")? {
        1 => CellKind::Int,
        2 => CellKind::Text,
        3 => CellKind::Blob,
        _ => return Err(DecodeError::Invalid("kind of column")),
    };
    Ok(TableColumn { name, kind })
}

fn cell(reader: &mut Reader<'_>) -> Result<Cell, DecodeError> {
    Ok(match reader.u8("cell")? {
        0 => Cell::Null,
        1 => Cell::Int(reader.int("cell")?),
        2 => Cell::Text(reader.str(RECORD_BYTES_MAX, "cell")?.to_owned()),
        3 => Cell::Blob(reader.bytes(RECORD_BYTES_MAX, "cell")?.to_vec()),
        _ => return Err(DecodeError::Invalid("cell")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        let column = |name: &str, kind| TableColumn { name: name.into(), kind };
        let columns =
            vec![column("a", CellKind::Int), column("b", CellKind::Text), column("c", CellKind::Blob)];
        let table = Dumped::Table(Table { name: "entry".into(), columns });
        let rows = [
            Dumped::Row(vec![Cell::Int(i64::MIN), Cell::Text("ä".into()), Cell::Blob(vec![0, 255])]),
            Dumped::Row(vec![Cell::Int(i64::MAX), Cell::Null, Cell::Blob(Vec::new())]),
        ];
        let mut bytes = Vec::new();
        for dumped in std::iter::once(&table).chain(&rows) {
            write(&mut bytes, &Record::Dumped(dumped.clone())).unwrap();
        }
        let mut from = bytes.as_slice();
        for expected in std::iter::once(&table).chain(&rows) {
            assert!(matches!(read(&mut from).unwrap(), Record::Dumped(dumped) if dumped == *expected));
        }
        assert!(read(&mut from).is_err(), "nothing is no record");
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_anything_is_read() {
        assert!(matches!(read(&mut [255; 8].as_slice()), Err(RecordError::TooLong(_))));
        assert!(matches!(read(&mut [0, 0, 0, 9, 3].as_slice()), Err(RecordError::Decode(_))));
    }
}
