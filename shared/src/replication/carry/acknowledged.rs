//! What the hub knows an edge to hold, feed by feed.
//!
//! An edge acknowledges how far it has come in the hub's order as a whole. Of a feed in which nothing happened lately it has
//! come no further than the last thing that happened there, so that is what a file goes on from.

use crate::entry::{Content, HubRow};
use crate::feed::Feed;
use crate::store::{Base, FeedRows, Head};
use crate::vector::{Position, Vector};

/// The place that an edge acknowledged by its number in this hub's order; none where it has acknowledged nothing.
pub fn place(head: &Head, acked_seq: u64) -> Option<Vector> {
    let table = head.epochs.get(head.shard).filter(|_| acked_seq > 0)?;
    let epoch = table.epoch_of(acked_seq);
    Some(Vector::at(head.shard, Position { epoch, seq: acked_seq }))
}

/// By feed, the last change at or before `acked_seq` of this hub's order; empty where there was none, so that the feed goes
/// whole. It may be too early, where what has changed since was gone or secret then. `all` holds every row of the feeds, and `since` what changed after the place acknowledged.
pub fn held(head: &Head, acked_seq: u64, all: &[FeedRows], since: &[FeedRows]) -> Vec<(Feed, Vector)> {
    let last = |(all, since): (&FeedRows, &FeedRows)| {
        let stayed = all.rows.iter().filter_map(|row| shown_since(row, &all.feed));
        // What has changed since was something else then.
        let replaced = since.bases.values().map(|Base { seq, .. }| *seq);
        let last = stayed.chain(replaced).filter(|seq| *seq <= acked_seq).max();
        (all.feed.clone(), last.and_then(|seq| place(head, seq)).unwrap_or_default())
    };
    all.iter().zip(since).map(last).collect()
}

/// From where on the feed has shown what it shows of this entry; none where it never showed anything.
fn shown_since(row: &HubRow, feed: &Feed) -> Option<u64> {
    let seq = match row.row.content {
        Content::Plain(_) => row.row.dot.position.seq,
        Content::Secret(_) | Content::Deleted if feed.secrets => row.row.dot.position.seq,
        Content::Secret(_) | Content::Deleted => row.plain_seq,
    };
    (seq > 0).then_some(seq)
}
