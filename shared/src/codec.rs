//! Bytes of numbers, texts and domain values: bounded when read, one form for one value when written.
//!
//! Integers are LEB128 (7 bits a byte, low bits first, in the shortest form only).

use std::sync::Arc;

pub mod domain;

/// Why bytes were not understood. Says what was being read, never the bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("ends in the middle of {0}")]
    Truncated(&'static str),
    #[error("{what} has {length} where at most {max} are allowed")]
    TooLong { what: &'static str, length: u64, max: u64 },
    #[error("{0} is not valid")]
    Invalid(&'static str),
    #[error("{0} bytes follow after the end")]
    Trailing(usize),
}

/// Appends to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// How much was written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// A number of any size.
    pub fn uint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A number near zero on either side.
    pub fn int(&mut self, value: i64) {
        self.uint(((value << 1) ^ (value >> 63)) as u64);
    }

    /// Bytes of a length that the reader knows.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes behind their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.uint(bytes.len() as u64);
        self.raw(bytes);
    }

    /// A text behind its length.
    pub fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Presence in one byte, then the value.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.u8(0),
            Some(value) => {
                self.u8(1);
                write(self, value);
            }
        }
    }
}

/// Reads from a slice, never beyond it.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How much is left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Bytes of a known length.
    pub fn raw(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated(what))?;
        self.rest = rest;
        Ok(taken)
    }

    /// An array of a known length.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        Ok(self.raw(N, what)?.try_into().expect("raw gives the length asked for"))
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(what)?[0])
    }

    /// Bytes up to `end`, which is taken as well; refused when there are more than `max` of them.
    pub fn line(&mut self, end: u8, max: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.rest.iter().take(max + 1).position(|byte| *byte == end);
        let length = length.ok_or(DecodeError::Truncated(what))?;
        let line = self.raw(length, what)?;
        self.u8(what)?;
        Ok(line)
    }

    /// A number in its shortest form.
    pub fn uint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Invalid(what));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                let shortest = byte != 0 || shift == 0;
                return if shortest { Ok(value) } else { Err(DecodeError::Invalid(what)) };
            }
        }
        Err(DecodeError::Invalid(what))
    }

    /// A number near zero on either side.
    pub fn int(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        let coded = self.uint(what)?;
        Ok((coded >> 1) as i64 ^ -((coded & 1) as i64))
    }

    /// A count or length, refused above `max` before anything is allocated.
    pub fn count(&mut self, max: usize, what: &'static str) -> Result<usize, DecodeError> {
        let length = self.uint(what)?;
        if length > max as u64 {
            return Err(DecodeError::TooLong { what, length, max: max as u64 });
        }
        Ok(length as usize)
    }

    /// Bytes behind their length.
    pub fn bytes(&mut self, max: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.count(max, what)?;
        self.raw(length, what)
    }

    /// A text behind its length.
    pub fn str(&mut self, max: usize, what: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(max, what)?).map_err(|_| DecodeError::Invalid(what))
    }

    /// A text behind its length, shared.
    pub fn arc_str(&mut self, max: usize, what: &'static str) -> Result<Arc<str>, DecodeError> {
        self.str(max, what).map(Arc::from)
    }

    /// The inverse of [`Writer::option`].
    pub fn option<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        match self.u8(what)? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(DecodeError::Invalid(what)),
        }
    }

    /// # Errors
    /// When something is left.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.rest.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_only_their_shortest_form_is_taken() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut writer = Writer::default();
            writer.uint(value);
            writer.int(value as i64);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.uint("n"), Ok(value));
            assert_eq!(reader.int("n"), Ok(value as i64));
            assert_eq!(reader.finish(), Ok(()));
        }
        assert_eq!(Reader::new(&[0x80, 0x00]).uint("n"), Err(DecodeError::Invalid("n")));
        assert_eq!(Reader::new(&[0xff; 10]).uint("n"), Err(DecodeError::Invalid("n")));
        assert_eq!(Reader::new(&[0x80]).uint("n"), Err(DecodeError::Truncated("n")));
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_reading() {
        assert_eq!(
            Reader::new(&[5, 1]).bytes(4, "name"),
            Err(DecodeError::TooLong { what: "name", length: 5, max: 4 })
        );
    }
}
