//! Rows as a segment carries them: whole, or as a patch of the value that its receivers have.

use std::borrow::Cow;

use super::Rejected;
use crate::entry::{Content, Row};
use crate::patch;
use crate::value::Value;

/// A row on its way out.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    pub row: Cow<'a, Row>,
    /// What travels instead of the row's value.
    pub patch: Option<Patch>,
}

/// A merge patch and the place of the value that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The seq under which the entry's earlier value was written, in the row's shard.
    pub base: u64,
    pub value: Value,
}

impl<'a> Outgoing<'a> {
    /// The row as it is.
    pub fn whole(row: Cow<'a, Row>) -> Self {
        Self { row, patch: None }
    }
}

/// A row as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    /// With a base, its content is the patch instead of the value.
    pub(super) row: Row,
    pub(super) base: Option<u64>,
}

/// The rows of an opened segment. Those that came as patches take their values from what the receiver holds.
#[derive(Clone, Debug)]
pub struct Opened {
    pub(super) rows: Vec<Arrived>,
    /// Of the values that all patches give, in order.
    pub(super) results: Option<[u8; 32]>,
}

/// What a receiver has under the key of a row that came as a patch.
#[derive(Clone, Debug)]
pub enum Held<'a> {
    /// The value that the patch belongs to.
    Base(&'a Value),
    /// The row itself, from before.
    Result(&'a Value),
}

/// SHA-256 over values, each ended by what no value contains.
#[derive(Clone)]
pub(super) struct Results(ring::digest::Context);

impl Results {
    pub(super) fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    pub(super) fn add(&mut self, value: &Value) {
        self.0.update(value.as_str().as_bytes());
        self.0.update(b"\n");
    }

    pub(super) fn finish(self) -> [u8; 32] {
        self.0.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

impl Opened {
    /// The rows with their values. `held` tells what the receiver has for a row whose patch belongs to the value written
    /// at that seq: whatever is not exactly that gives nothing.
    ///
    /// # Errors
    /// When a base is missing, or the values are not those that the hub holds, byte for byte.
    pub fn resolve<'a>(self, held: impl Fn(&Row, u64) -> Option<Held<'a>>) -> Result<Vec<Row>, Rejected> {
        let mut results = Results::new();
        let mut rows = Vec::with_capacity(self.rows.len());
        for Arrived { mut row, base } in self.rows {
            if let (Some(base), Content::Plain(change)) = (base, &row.content) {
                let value = match held(&row, base).ok_or(Rejected::Base)? {
                    Held::Base(value) => patch::apply(value, change).map_err(|_| Rejected::Base)?,
                    Held::Result(value) => value.clone(),
                };
                results.add(&value);
                row.content = Content::Plain(value);
            }
            rows.push(row);
        }
        match self.results {
            Some(expected) if results.finish() != expected => Err(Rejected::Base),
            Some(_) | None => Ok(rows),
        }
    }

    /// As if every base were the right one: the fault that the check of the results guards against.
    pub fn unchecked(self) -> Self {
        Self { results: None, ..self }
    }

    /// How many rows came as patches.
    pub fn patches(&self) -> usize {
        self.rows.iter().filter(|row| row.base.is_some()).count()
    }

    /// The rows as they came: the content of a patched one is its patch.
    pub fn as_sent(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().map(|arrived| &arrived.row)
    }
}
