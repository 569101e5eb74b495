//! How columns say things briefly: by number in a table, or as the difference from the value before.

use std::collections::BTreeMap;

use crate::codec::{DecodeError, Reader, Writer};

/// Values that appear often, each written once, by number afterwards.
pub(super) struct Dictionary<T: Ord + Clone> {
    numbers: BTreeMap<T, u64>,
    pub(super) values: Vec<T>,
}

impl<T: Ord + Clone> Dictionary<T> {
    pub(super) fn new() -> Self {
        Self { numbers: BTreeMap::new(), values: Vec::new() }
    }

    /// Enters the value, unless it is there.
    pub(super) fn number(&mut self, value: &T) -> u64 {
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        let number = self.values.len() as u64;
        self.numbers.insert(value.clone(), number);
        self.values.push(value.clone());
        number
    }
}

/// Numbers below 2^63 as differences from the one before.
#[derive(Clone, Copy, Default)]
pub(super) struct Differences(u64);

impl Differences {
    pub(super) fn write(&mut self, out: &mut Writer, value: u64) {
        out.int(value.wrapping_sub(self.0) as i64);
        self.0 = value;
    }

    pub(super) fn read(&mut self, reader: &mut Reader<'_>, what: &'static str) -> Result<u64, DecodeError> {
        self.0 = apart(self.0, reader, what)?;
        Ok(self.0)
    }
}

/// Writes how far `value` is from where it was expected.
pub(super) fn write_apart(out: &mut Writer, value: u64, expected: u64) {
    out.int(value.wrapping_sub(expected) as i64);
}

/// The inverse of [`write_apart`]: a number below 2^63.
pub(super) fn apart(expected: u64, reader: &mut Reader<'_>, what: &'static str) -> Result<u64, DecodeError> {
    let value = expected.wrapping_add(reader.int(what)? as u64);
    if value > i64::MAX as u64 { Err(DecodeError::Invalid(what)) } else { Ok(value) }
}
