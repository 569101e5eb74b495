//! What the hub knows an edge to hold, feed by feed.
//!
//! An edge acknowledges how far it has come in the hub's order as a whole. Of a feed in which nothing happened lately it has
//! come no further than the last thing that happened there, so that is what a file goes on from.

use std::sync::Arc;

use llm_config_shared::entry::{Content, HubRow};
use llm_config_shared::feed::Feed;
use llm_config_shared::store::{Base, FeedRows, Head, Journal, JournalError};
use llm_config_shared::vector::{Position, Vector};

/// By feed, the last change at or before `acked_seq` of this hub's order; empty where there was none, so that the feed goes
/// whole. No feeds at all where nothing was acknowledged.
pub(super) async fn held<S: Journal>(
    store: &Arc<S>,
    acked_seq: u64,
    feeds: &[Feed],
    head: &Head,
) -> Result<Vec<(Feed, Vector)>, JournalError> {
    let Some(table) = head.epochs.get(head.shard).filter(|_| acked_seq > 0) else { return Ok(Vec::new()) };
    let place = |seq| Vector::at(head.shard, Position { epoch: table.epoch_of(seq), seq });
    let from = |vector: Vector| feeds.iter().map(|feed| (feed.clone(), vector.clone())).collect::<Vec<_>>();
    let all = store.read_feeds(&from(Vector::EMPTY)).await?.feeds;
    // What has changed since was something else then, and the patches of a file are made against that.
    let since = store.read_feeds(&from(place(acked_seq))).await?.feeds;
    let last = |(all, since): (FeedRows, FeedRows)| {
        let stayed = all.rows.iter().filter_map(|row| shown_since(row, &all.feed));
        let replaced = since.bases.values().map(|Base { seq, .. }| *seq);
        let last = stayed.chain(replaced).filter(|seq| *seq <= acked_seq).max();
        (all.feed, last.map_or(Vector::EMPTY, place))
    };
    Ok(all.into_iter().zip(since).map(last).collect())
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
