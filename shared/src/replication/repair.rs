//! Putting a feed right key by key: what both sides sum up, list and send when a digest does not agree.
//!
//! The edge sends 256 sums over its rows, by the first byte of their keys' hashes; the hub lists its rows where the sums
//! differ, as hashes; the edge asks for those that it lacks or holds otherwise, and what the list does not name goes. The
//! rows come signed, and the outcome has to have the digest of the signed checkpoint that the feed differed from: nothing
//! else of this is believed. Whatever does not fit ends with the whole feed being fetched.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::transfer::{Issue, size};
use crate::digest::{FeedDigest, key_hash, row_hash};
use crate::entry::{Content, HubRow, Row};
use crate::feed::Feed;
use crate::limits::{REPAIR_BUCKETS, REPAIR_ROWS_MAX, SEGMENT_PLAIN_BYTES_CUT};
use crate::name::EntryKey;
use crate::segment::{Draft, Effort, Kind, Outgoing, SegmentPart, draft};
use crate::store::{FeedRows, Head};
use crate::vector::Vector;

/// Bytes of one sum.
const SUM_BYTES: usize = 16;

/// The sums of a feed's rows, by bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums(Vec<u128>);

impl Default for Sums {
    fn default() -> Self {
        Self(vec![0; REPAIR_BUCKETS])
    }
}

impl Sums {
    /// As they travel.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|sum| sum.to_be_bytes()).collect()
    }

    /// The inverse of [`Sums::to_bytes`]; none for another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (sums, rest) = bytes.as_chunks::<SUM_BYTES>();
        let whole = sums.len() == REPAIR_BUCKETS && rest.is_empty();
        whole.then(|| Self(sums.iter().map(|sum| u128::from_be_bytes(*sum)).collect()))
    }

    /// The buckets in which the two are not the same.
    pub fn differing(&self, other: &Self) -> Vec<u8> {
        let pairs = self.0.iter().zip(&other.0).enumerate();
        pairs.filter(|(_, (mine, theirs))| mine != theirs).map(|(bucket, _)| bucket as u8).collect()
    }
}

/// A row as a list names it: hashes of its key and of all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    pub key: u64,
    pub row: u64,
}

impl Mark {
    /// Of this row.
    pub fn of(row: &Row) -> Self {
        Self { key: key_hash(&row.at), row: (row_hash(row) >> 64) as u64 }
    }
}

/// The bucket of a key with this hash.
pub fn bucket(key: u64) -> u8 {
    key.to_be_bytes()[0]
}

/// A feed's rows summed up: as a checkpoint does it, and by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub digest: FeedDigest,
    pub sums: Sums,
}

impl Tally {
    /// Of live rows.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let mut tally = Self::default();
        for row in rows {
            let hash = row_hash(row);
            let sum = &mut tally.sums.0[usize::from(bucket(key_hash(&row.at)))];
            *sum = sum.wrapping_add(hash);
            tally.digest.sum = tally.digest.sum.wrapping_add(hash);
            tally.digest.live += 1;
        }
        tally
    }
}

/// What an edge asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairAsk {
    /// Which rows are where these sums differ? The feed has come to `at`.
    Compare { feed: Feed, at: Vector, sums: Sums },
    /// The rows of the last list whose keys have these hashes.
    Rows { keys: Vec<u64> },
}

/// What a hub answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairAnswer {
    /// All rows of these buckets.
    Differing {
        buckets: Vec<u8>,
        marks: Vec<Mark>,
    },
    /// A signed segment with the rows that were asked for.
    Rows(Bytes),
    Not(Unrepaired),
}

/// Why a hub does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrepaired {
    /// The feed has changed since, or this hub has not come so far.
    Moved,
    /// Too many rows are concerned, or none: it is not for this to put right.
    Unfit,
    /// Too many others are being helped.
    Busy,
}

/// What a hub's session wants done with its database.
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    Compare { feed: Feed, at: Vector, sums: Sums },
    Rows { feed: Feed, at: Vector, keys: Vec<EntryKey> },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Listed(Listed),
    Rows(Bytes),
    Not(Unrepaired),
}

/// The hub's rows where an edge's sums differ, with the names of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    pub buckets: Vec<u8>,
    pub marks: Vec<Mark>,
    /// By hash.
    pub keys: BTreeMap<u64, EntryKey>,
}

/// Whether the feed is, at `head`, not as it was at `at`.
pub fn has_moved(rows: &FeedRows, head: &Head, at: &Vector) -> bool {
    head.position.seq < at.seq(head.shard) || rows.digest.changed(rows.feed.secrets) > at.seq(head.shard)
}

/// Compares the whole feed, read in one snapshot, with an edge's sums.
///
/// # Errors
/// When the edge cannot be helped this way.
pub fn compare(rows: &FeedRows, head: &Head, at: &Vector, sums: &Sums) -> Result<Listed, Unrepaired> {
    if has_moved(rows, head, at) {
        return Err(Unrepaired::Moved);
    }
    let shown = || rows.rows.iter().map(|row| &row.row).filter(|row| shows(&rows.feed, row));
    let buckets = Tally::of(shown()).sums.differing(sums);
    let mut listed = Listed { buckets, ..Listed::default() };
    for row in shown() {
        let key = key_hash(&row.at);
        if listed.buckets.binary_search(&bucket(key)).is_err() {
            continue;
        }
        if listed.marks.len() == REPAIR_ROWS_MAX {
            return Err(Unrepaired::Unfit);
        }
        listed.marks.push(Mark::of(row));
        listed.keys.insert(key, row.at.clone());
    }
    // Equal sums mean that the hub's own digest is wrong; equal hashes of two keys leave one of them without a name.
    let fits = !listed.buckets.is_empty() && listed.keys.len() == listed.marks.len();
    if fits { Ok(listed) } else { Err(Unrepaired::Unfit) }
}

/// Lays out the rows that were asked for. `rows` tells what changed in the feed since `at`; `found` was read not before
/// that.
///
/// # Errors
/// When the edge cannot be helped this way.
pub fn draft_rows(
    rows: &FeedRows,
    head: &Head,
    at: &Vector,
    found: &[Option<HubRow>],
    issue: Issue,
) -> Result<Draft, Unrepaired> {
    if has_moved(rows, head, at) {
        return Err(Unrepaired::Moved);
    }
    let mut wanted = Vec::with_capacity(found.len());
    for row in found {
        let row = row.as_ref().map(|row| &row.row).filter(|row| shows(&rows.feed, row));
        // It was there when it was listed: whatever it is now came later.
        let row = row.filter(|row| at.covers_dot(row.dot)).ok_or(Unrepaired::Moved)?;
        wanted.push(Outgoing::whole(Cow::Borrowed(row)));
    }
    wanted.sort_by(|a, b| a.row.at.cmp(&b.row.at));
    let bytes: usize = wanted.iter().map(size).sum();
    if bytes > SEGMENT_PLAIN_BYTES_CUT && wanted.len() > 1 {
        return Err(Unrepaired::Unfit);
    }
    let part = SegmentPart {
        kind: Kind::Repair,
        feed: rows.feed.clone(),
        from: Vector::EMPTY,
        to: head.vector(),
        continues: Vec::new(),
        chunk: 0,
        chunks: 1,
        issued_at: issue.at,
        key_id: issue.key_id,
    };
    Ok(draft(part, &wanted, Effort::Live))
}

/// Whether the feed's digest has it.
fn shows(feed: &Feed, row: &Row) -> bool {
    match row.content {
        Content::Plain(_) => true,
        Content::Secret(_) => feed.secrets,
        Content::Deleted => false,
    }
}

#[cfg(test)]
mod tests;
