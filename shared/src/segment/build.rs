//! Making a segment: once per feed and range, whoever receives it.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use libdeflater::{CompressionLvl, Compressor};

use super::header::Section;
use super::open::seal;
use super::patched::Outgoing;
use super::{Kind, SIGNATURE_BYTES, SectionCodec, SegmentHeader, columns};
use crate::entry::{Content, Row};
use crate::feed::Feed;
use crate::held::Span;
use crate::limits::GZIP_BYTES_MIN;
use crate::time::UnixMillis;
use crate::vector::Vector;

/// How much is done to make a segment's rows small. Whatever made it, it is one gzip member (RFC 1952).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// A few rows, while readers wait for them.
    Live,
    /// Everything there is, when a new edge waits for its first byte.
    Snapshot,
    /// Many rows: readers wait for the network, not for this.
    Large,
    /// Rows enough to be worth some 60 ms for each quarter of a MiB, and not so many that it is felt: the smallest there is.
    Smallest,
}

/// What a segment is to say, beside its rows.
#[derive(Clone, Debug)]
pub struct SegmentPart {
    pub kind: Kind,
    pub feed: Feed,
    pub from: Vector,
    pub to: Vector,
    /// Empty unless it goes on with a transfer that broke off.
    pub continues: Vec<Span>,
    pub chunk: u32,
    pub chunks: u32,
    pub issued_at: UnixMillis,
    pub key_id: u64,
}

/// A segment that only lacks its signature.
#[derive(Clone, Debug)]
pub struct Draft {
    header: Vec<u8>,
    sections: Vec<u8>,
}

/// The domain of the signature: a signature over one kind of message never fits another.
const DOMAIN: &[u8] = b"llm-config segment\0";

pub(super) fn signed_message(header: &[u8]) -> Vec<u8> {
    [DOMAIN, header].concat()
}

/// Lays out and compresses the rows, which must be sorted by (namespace, key) and lie in the feed.
pub fn draft(part: SegmentPart, rows: &[Outgoing<'_>], effort: Effort) -> Draft {
    let (entries, secrets) = columns::encode(rows);
    let mut sections = vec![entries_section(entries, effort)];
    if !secrets.is_empty() {
        sections.push((SectionCodec::Secrets, secrets.len(), secrets));
    }
    let mut key_epochs: Vec<u64> = rows.iter().filter_map(|outgoing| key_epoch(&outgoing.row)).collect();
    key_epochs.sort_unstable();
    key_epochs.dedup();
    let header = SegmentHeader {
        kind: part.kind,
        feed: part.feed,
        from: part.from,
        to: part.to,
        continues: part.continues,
        chunk: part.chunk,
        chunks: part.chunks,
        key_epochs,
        issued_at: part.issued_at,
        key_id: part.key_id,
        sections: sections.iter().map(|(codec, plain, wire)| describe(*codec, *plain, wire)).collect(),
    };
    Draft { header: header.encode(), sections: sections.into_iter().flat_map(|(_, _, wire)| wire).collect() }
}

fn key_epoch(row: &Row) -> Option<u64> {
    match &row.content {
        Content::Secret(sealed) => Some(sealed.key_epoch),
        Content::Plain(_) | Content::Deleted => None,
    }
}

fn entries_section(plain: Vec<u8>, effort: Effort) -> (SectionCodec, usize, Vec<u8>) {
    let length = plain.len();
    if length < GZIP_BYTES_MIN {
        return (SectionCodec::Plain, length, plain);
    }
    let wire = match effort {
        Effort::Live => streamed(&plain, 3),
        Effort::Snapshot => streamed(&plain, 6),
        // Beyond 8, zlib-rs gives more bytes again.
        Effort::Large => streamed(&plain, 8),
        Effort::Smallest => smallest(&plain),
    };
    if wire.len() < length {
        (SectionCodec::Gzip, length, wire)
    } else {
        (SectionCodec::Plain, length, plain)
    }
}

fn streamed(plain: &[u8], level: u32) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::new(level));
    gzip.write_all(plain).expect("a Vec takes everything");
    gzip.finish().expect("a Vec takes everything")
}

fn smallest(plain: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(CompressionLvl::best());
    let mut wire = vec![0; compressor.gzip_compress_bound(plain.len())];
    let length = compressor.gzip_compress(plain, &mut wire).expect("the bound is large enough");
    wire.truncate(length);
    wire
}

fn describe(codec: SectionCodec, plain_length: usize, wire: &[u8]) -> Section {
    let hash = ring::digest::digest(&ring::digest::SHA256, wire);
    let sha256 = hash.as_ref().try_into().expect("SHA-256 has 32 bytes");
    Section { codec, wire_length: wire.len(), plain_length, sha256 }
}

impl Draft {
    /// What the publisher's key signs.
    pub fn message(&self) -> Vec<u8> {
        signed_message(&self.header)
    }

    /// The finished segment.
    pub fn signed(self, signature: &[u8; SIGNATURE_BYTES]) -> Bytes {
        seal(&self.header, signature, &self.sections)
    }
}
