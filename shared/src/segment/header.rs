//! The signed head of a segment.

use super::Rejected;
use crate::codec::{DecodeError, Reader, Writer};
use crate::feed::Feed;
use crate::held::{Span, seen};
use crate::limits::SECTION_PLAIN_BYTES_MAX;
use crate::name::EntryKey;
use crate::time::UnixMillis;
use crate::vector::Vector;

/// What the rows of a segment are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every row that changed between `from` and `to`, deletions among them.
    Delta,
    /// Every live row at `to`: what is not in it is gone.
    Snapshot,
    /// Rows that were asked for one by one, as they are at `to`, to replace what an edge holds there.
    Repair,
}

/// How a section's bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionCodec {
    /// Rows in columns, as they are.
    Plain,
    /// Rows in columns, as one gzip member (RFC 1952).
    Gzip,
    /// Ciphertext of secrets, which does not shrink and must not share a gzip member with anything.
    Secrets,
    /// Merge patches (RFC 7386) in place of whole values. Reserved: refused until it is built.
    GzipPatches,
}

impl SectionCodec {
    fn code(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Gzip => 1,
            Self::Secrets => 2,
            Self::GzipPatches => 3,
        }
    }

    fn from_code(code: u8) -> Result<Self, DecodeError> {
        [Self::Plain, Self::Gzip, Self::Secrets, Self::GzipPatches]
            .into_iter()
            .find(|codec| codec.code() == code)
            .ok_or(DecodeError::Invalid("codec"))
    }
}

/// Length and hash of one section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) codec: SectionCodec,
    pub(super) wire_length: usize,
    pub(super) plain_length: usize,
    pub(super) sha256: [u8; 32],
}

/// What a segment says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub kind: Kind,
    pub feed: Feed,
    /// What the receiver must have seen.
    pub from: Vector,
    /// The database snapshot that it was read from.
    pub to: Vector,
    /// What its receiver holds of a transfer that broke off. Of these keys only what changed since is in this one, deletions
    /// among it; of the others, everything.
    pub continues: Vec<Span>,
    /// 0, 1, 2… of `chunks`.
    pub chunk: u32,
    pub chunks: u32,
    /// Key epochs that its secrets need.
    pub key_epochs: Vec<u64>,
    pub issued_at: UnixMillis,
    /// Whose signature it bears.
    pub key_id: u64,
    pub(super) sections: Vec<Section>,
}

const CHUNKS_MAX: u64 = 1 << 20;
const KEY_EPOCHS_MAX: usize = 1 << 10;
const SECTIONS_MAX: usize = 4;

impl SegmentHeader {
    /// From where on the receiver lacks what changed under this key, and whether that is told with its deletions.
    pub fn since(&self, at: &EntryKey) -> (&Vector, bool) {
        let held = seen(&self.continues, at);
        (held.unwrap_or(&self.from), held.is_some() || self.kind == Kind::Delta)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        let continues = !self.continues.is_empty();
        out.u8(match self.kind {
            Kind::Delta if continues => 3,
            Kind::Snapshot if continues => 4,
            Kind::Delta => 0,
            Kind::Snapshot => 1,
            Kind::Repair => 2,
        });
        out.feed(&self.feed);
        out.vector(&self.from);
        out.vector(&self.to);
        // Whoever is sent these has asked for them: all others are sent what programs of before read too.
        if continues {
            out.spans(&self.continues);
        }
        out.uint(u64::from(self.chunk));
        out.uint(u64::from(self.chunks));
        out.uint(self.key_epochs.len() as u64);
        for epoch in &self.key_epochs {
            out.uint(*epoch);
        }
        out.uint(self.issued_at.0);
        out.raw(&self.key_id.to_be_bytes());
        out.uint(self.sections.len() as u64);
        for section in &self.sections {
            out.u8(section.codec.code());
            out.uint(section.wire_length as u64);
            out.uint(section.plain_length as u64);
            out.raw(&section.sha256);
        }
        out.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Rejected> {
        let mut reader = Reader::new(bytes);
        let (kind, continues) = match reader.u8("kind")? {
            0 => (Kind::Delta, false),
            1 => (Kind::Snapshot, false),
            2 => (Kind::Repair, false),
            3 => (Kind::Delta, true),
            4 => (Kind::Snapshot, true),
            _ => return Err(DecodeError::Invalid("kind").into()),
        };
        let feed = reader.feed()?;
        let from = reader.vector()?;
        let to = reader.vector()?;
        let continues = if continues { reader.spans()? } else { Vec::new() };
        let chunk = reader.count(CHUNKS_MAX as usize, "chunk")? as u32;
        let chunks = reader.count(CHUNKS_MAX as usize, "chunks")? as u32;
        if chunk >= chunks {
            return Err(DecodeError::Invalid("chunk").into());
        }
        let count = reader.count(KEY_EPOCHS_MAX, "key epochs")?;
        let key_epochs = (0..count).map(|_| reader.id63("key epoch")).collect::<Result<_, _>>()?;
        let issued_at = UnixMillis(reader.uint("issued at")?);
        let key_id = u64::from_be_bytes(reader.array("key id")?);
        let count = reader.count(SECTIONS_MAX, "sections")?;
        let sections = (0..count).map(|_| section(&mut reader)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { kind, feed, from, to, continues, chunk, chunks, key_epochs, issued_at, key_id, sections })
    }
}

fn section(reader: &mut Reader<'_>) -> Result<Section, DecodeError> {
    Ok(Section {
        codec: SectionCodec::from_code(reader.u8("codec")?)?,
        wire_length: reader.count(SECTION_PLAIN_BYTES_MAX, "section")?,
        plain_length: reader.count(SECTION_PLAIN_BYTES_MAX, "section")?,
        sha256: reader.array("hash")?,
    })
}
