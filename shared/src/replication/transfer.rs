//! What one feed's part of a transfer holds: rows chosen from a snapshot, cut into segments, closed by a checkpoint.

use std::borrow::Cow;

use crate::entry::{Content, HubRow, Row};
use crate::limits::{HEARTBEAT_MS, SEGMENT_PLAIN_BYTES_CUT, SEGMENT_ROWS_MAX};
use crate::segment::{Checkpoint, CheckpointDraft, Draft, Kind, SegmentPart, draft};
use crate::store::{FeedRows, Head};
use crate::time::UnixMillis;
use crate::vector::{Position, Vector};

/// gzip level of a delta, made while others wait for it.
const LEVEL_LIVE: u32 = 3;
/// gzip level of a snapshot, made once for many.
const LEVEL_SNAPSHOT: u32 = 6;
/// A checkpoint is no news any more after so many heartbeats.
const CHECKPOINT_LIFE: u64 = 20;

/// One feed's part of a transfer, waiting for its signatures.
#[derive(Debug)]
pub struct PartDraft {
    /// Empty when the receiver has everything already.
    pub segments: Vec<Draft>,
    pub checkpoint: CheckpointDraft,
}

/// When and under which key a part is made.
#[derive(Clone, Copy, Debug)]
pub struct Issue {
    pub at: UnixMillis,
    pub key_id: u64,
}

/// Lays out what a receiver at `from` lacks. An empty `from` gives a snapshot, as does one below the horizon where anything
/// changed since: deletions that the receiver has not heard of are gone.
pub fn draft_part(rows: &FeedRows, from: &Vector, head: &Head, issue: Issue) -> PartDraft {
    draft_part_in_chunks(rows, from, head, issue, SEGMENT_ROWS_MAX)
}

/// The same with at most `rows_max` rows in a segment, so that a few rows already need several.
pub fn draft_part_in_chunks(
    rows: &FeedRows,
    from: &Vector,
    head: &Head,
    issue: Issue,
    rows_max: usize,
) -> PartDraft {
    let secrets = rows.feed.secrets;
    let changed_seq = rows.digest.changed(secrets);
    let changed = if changed_seq == 0 {
        Vector::EMPTY
    } else {
        Vector::at(head.shard, Position { epoch: head.position.epoch, seq: changed_seq })
    };
    let checkpoint = Checkpoint {
        feed: rows.feed.clone(),
        vector: head.vector(),
        changed: changed.clone(),
        digest: rows.digest.of_feed(secrets),
        issued_at: issue.at,
        not_after: UnixMillis(issue.at.0 + CHECKPOINT_LIFE * HEARTBEAT_MS),
        key_id: issue.key_id,
    };
    let current = !from.is_empty() && from.covers(&changed);
    let segments =
        if current { Vec::new() } else { segments(rows, &head.served_from(from), head, issue, rows_max) };
    PartDraft { segments, checkpoint: checkpoint.draft() }
}

fn segments(rows: &FeedRows, from: &Vector, head: &Head, issue: Issue, rows_max: usize) -> Vec<Draft> {
    let kind = if from.is_empty() { Kind::Snapshot } else { Kind::Delta };
    let from_seq = from.seq(head.shard);
    let mut chosen: Vec<Cow<'_, Row>> =
        rows.rows.iter().filter_map(|row| choose(row, rows.feed.secrets, kind, from_seq)).collect();
    chosen.sort_by(|a, b| a.at.cmp(&b.at));
    let chunks = cut(&chosen, rows_max);
    let level = match kind {
        Kind::Delta => LEVEL_LIVE,
        Kind::Snapshot => LEVEL_SNAPSHOT,
    };
    let part = |chunk: usize| SegmentPart {
        kind,
        feed: rows.feed.clone(),
        from: from.clone(),
        to: head.vector(),
        chunk: chunk as u32,
        chunks: chunks.len() as u32,
        issued_at: issue.at,
        key_id: issue.key_id,
    };
    let drafts = chunks.iter().enumerate().map(|(n, chunk)| {
        let borrowed: Vec<&Row> = chunk.iter().map(AsRef::as_ref).collect();
        draft(part(n), &borrowed, level)
    });
    drafts.collect()
}

/// The row as this feed shows it, if it shows anything of it.
fn choose(row: &HubRow, secrets: bool, kind: Kind, from_seq: u64) -> Option<Cow<'_, Row>> {
    if row.row.dot.position.seq <= from_seq {
        return None;
    }
    match (&row.row.content, kind) {
        (Content::Plain(_), _) => Some(Cow::Borrowed(&row.row)),
        (Content::Secret(_), _) if secrets => Some(Cow::Borrowed(&row.row)),
        (Content::Secret(_) | Content::Deleted, Kind::Snapshot) => None,
        // A feed without secrets hears that a key it knows as plain is gone, and of no other secret's name.
        (Content::Secret(_), Kind::Delta) => (row.plain_seq > from_seq)
            .then(|| Cow::Owned(Row { content: Content::Deleted, ..row.row.clone() })),
        (Content::Deleted, Kind::Delta) => {
            (secrets || row.plain_seq > from_seq).then_some(Cow::Borrowed(&row.row))
        }
    }
}

fn size(row: &Row) -> usize {
    let content = match &row.content {
        Content::Plain(value) => value.as_str().len(),
        Content::Secret(sealed) => sealed.body.len() + sealed.wrap.len(),
        Content::Deleted => 0,
    };
    content + 64
}

/// At least one chunk, each within the bounds of a segment.
fn cut<'a, 'b>(rows: &'a [Cow<'b, Row>], rows_max: usize) -> Vec<&'a [Cow<'b, Row>]> {
    let mut chunks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (n, row) in rows.iter().enumerate() {
        let full = n - start == rows_max || (n > start && bytes + size(row) > SEGMENT_PLAIN_BYTES_CUT);
        if full {
            chunks.push(&rows[start..n]);
            (start, bytes) = (n, 0);
        }
        bytes += size(row);
    }
    chunks.push(&rows[start..]);
    chunks
}
