//! What one feed's part of a transfer holds: rows chosen from a snapshot, cut into segments, closed by a checkpoint.

use std::borrow::Cow;

use crate::entry::{Content, HubRow, Row};
use crate::held::{Held, Span, seen};
use crate::limits::{CHUNK_PLAIN_BYTES_CUT, DELTA_PERCENT_MAX, HEARTBEAT_MS, SEGMENT_ROWS_MAX};
use crate::patch;
use crate::segment::{Checkpoint, CheckpointDraft, Draft, Effort, Kind, Outgoing, Patch, SegmentPart, draft};
use crate::store::{FeedRows, Head};
use crate::time::UnixMillis;
use crate::vector::{Position, Vector};

/// From so many rows on there are many.
const ROWS_LARGE: usize = 100;
/// As long as they fit in so many segments, they are made as small as can be.
const CHUNKS_SMALLEST: usize = 4;
/// What a row takes beside its content, about.
const ROW_BYTES: usize = 64;
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
    let checkpoint = draft_checkpoint(rows, head, issue);
    let current = !from.is_empty() && from.covers(&changed(rows, head));
    let start = Start { from: &head.served_from(from), continues: &[] };
    let segments = if current { Vec::new() } else { segments(rows, start, head, issue, rows_max) };
    PartDraft { segments, checkpoint }
}

/// The segments for a receiver that holds the beginning of a transfer that broke off, where it can be
/// [continued](Head::continues): of the keys that it holds what changed since, of the others what it lacks.
pub fn draft_rest(rows: &FeedRows, held: &Held, head: &Head, issue: Issue, rows_max: usize) -> Vec<Draft> {
    segments(rows, Start { from: &held.from, continues: &held.spans }, head, issue, rows_max)
}

/// Where a part begins.
#[derive(Clone, Copy)]
struct Start<'a> {
    from: &'a Vector,
    continues: &'a [Span],
}

/// The feed's last change, in the order of this hub.
fn changed(rows: &FeedRows, head: &Head) -> Vector {
    match rows.digest.changed(rows.feed.secrets) {
        0 => Vector::EMPTY,
        seq => Vector::at(head.shard, Position { epoch: head.position.epoch, seq }),
    }
}

/// How far a feed has come, waiting for its signature.
pub fn draft_checkpoint(rows: &FeedRows, head: &Head, issue: Issue) -> CheckpointDraft {
    let checkpoint = Checkpoint {
        feed: rows.feed.clone(),
        vector: head.vector(),
        changed: changed(rows, head),
        digest: rows.digest.of_feed(rows.feed.secrets),
        hlc: head.hlc,
        issued_at: issue.at,
        not_after: UnixMillis(issue.at.0 + CHECKPOINT_LIFE * HEARTBEAT_MS),
        key_id: issue.key_id,
    };
    checkpoint.draft()
}

/// Whether a snapshot is the better way to somebody at `from`: the delta would have [too large a part](DELTA_PERCENT_MAX) of its
/// plain bytes. Only the delta was read, so what an entry takes is taken from those that changed.
pub fn is_better_whole(rows: &FeedRows, from: &Vector, head: &Head) -> bool {
    let from = head.served_from(from);
    if from.is_empty() || rows.rows.len() < ROWS_LARGE {
        return false;
    }
    let start = Start { from: &from, continues: &[] };
    let (mut delta, mut whole, mut live) = (0, 0, 0);
    for outgoing in chosen(rows, start, head) {
        delta += size(&outgoing);
        if outgoing.row.content.is_live() {
            live += 1;
            whole += size(&Outgoing::whole(outgoing.row));
        }
    }
    let entries = rows.digest.of_feed(rows.feed.secrets).live as usize;
    let each = usize::checked_div(whole, live).unwrap_or(ROW_BYTES);
    delta * 100 > entries * each * DELTA_PERCENT_MAX
}

fn chosen<'a>(rows: &'a FeedRows, start: Start<'a>, head: &Head) -> impl Iterator<Item = Outgoing<'a>> {
    let kind = start.kind();
    let shard = head.shard;
    rows.rows.iter().filter_map(move |row| {
        let held = seen(start.continues, &row.row.at);
        let told = if held.is_some() { Kind::Delta } else { kind };
        let row = choose(row, rows.feed.secrets, told, held.unwrap_or(start.from).seq(shard))?;
        Some(outgoing(row, rows, kind))
    })
}

impl Start<'_> {
    fn kind(&self) -> Kind {
        if self.from.is_empty() { Kind::Snapshot } else { Kind::Delta }
    }
}

fn segments(rows: &FeedRows, start: Start<'_>, head: &Head, issue: Issue, rows_max: usize) -> Vec<Draft> {
    let kind = start.kind();
    let mut chosen: Vec<Outgoing<'_>> = chosen(rows, start, head).collect();
    chosen.sort_by(|a, b| a.row.at.cmp(&b.row.at));
    let chunks = cut(&chosen, rows_max);
    let effort = match kind {
        Kind::Snapshot => Effort::Snapshot,
        Kind::Delta | Kind::Repair if chosen.len() < ROWS_LARGE => Effort::Live,
        Kind::Delta | Kind::Repair if chunks.len() <= CHUNKS_SMALLEST => Effort::Smallest,
        Kind::Delta | Kind::Repair => Effort::Large,
    };
    let part = |chunk: usize| SegmentPart {
        kind,
        feed: rows.feed.clone(),
        from: start.from.clone(),
        to: head.vector(),
        continues: start.continues.to_vec(),
        chunk: chunk as u32,
        chunks: chunks.len() as u32,
        issued_at: issue.at,
        key_id: issue.key_id,
    };
    chunks.iter().enumerate().map(|(n, chunk)| draft(part(n), chunk, effort)).collect()
}

/// The row as a patch of what receivers have, where that is shorter.
fn outgoing<'a>(row: Cow<'a, Row>, rows: &FeedRows, kind: Kind) -> Outgoing<'a> {
    let patch = match (&row.content, rows.bases.get(&row.at)) {
        (Content::Plain(value), Some(base)) if kind == Kind::Delta => {
            patch::diff(&base.value, value).map(|value| Patch { base: base.seq, value })
        }
        _ => None,
    };
    Outgoing { row, patch }
}

/// The row as this feed shows it, if it shows anything of it.
fn choose(row: &HubRow, secrets: bool, kind: Kind, from_seq: u64) -> Option<Cow<'_, Row>> {
    if row.row.dot.position.seq <= from_seq {
        return None;
    }
    match (&row.row.content, kind) {
        (Content::Plain(_), _) => Some(Cow::Borrowed(&row.row)),
        (Content::Secret(_), _) if secrets => Some(Cow::Borrowed(&row.row)),
        (Content::Secret(_) | Content::Deleted, Kind::Snapshot | Kind::Repair) => None,
        // A feed without secrets hears that a key it knows as plain is gone, and of no other secret's name.
        (Content::Secret(_), Kind::Delta) => (row.plain_seq > from_seq)
            .then(|| Cow::Owned(Row { content: Content::Deleted, ..row.row.clone() })),
        (Content::Deleted, Kind::Delta) => {
            (secrets || row.plain_seq > from_seq).then_some(Cow::Borrowed(&row.row))
        }
    }
}

pub(super) fn size(Outgoing { row, patch }: &Outgoing<'_>) -> usize {
    let content = match &row.content {
        Content::Plain(value) => patch.as_ref().map_or(value, |patch| &patch.value).as_str().len(),
        Content::Secret(sealed) => sealed.body.len() + sealed.wrap.len(),
        Content::Deleted => 0,
    };
    content + ROW_BYTES
}

/// At least one chunk, each within the bounds of a segment.
fn cut<'a, 'b>(rows: &'a [Outgoing<'b>], rows_max: usize) -> Vec<&'a [Outgoing<'b>]> {
    let mut chunks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (n, row) in rows.iter().enumerate() {
        let full = n - start == rows_max || (n > start && bytes + size(row) > CHUNK_PLAIN_BYTES_CUT);
        if full {
            chunks.push(&rows[start..n]);
            (start, bytes) = (n, 0);
        }
        bytes += size(row);
    }
    chunks.push(&rows[start..]);
    chunks
}
