//! 1: at rest every edge holds exactly what the hub has in its feeds, and nothing waits.

use llm_config_shared::feed::Feed;
use llm_config_shared::replication::edge::EdgeReplica;

use super::{Check, Violation, vectors};
use crate::journal::SimJournal;
use crate::truth::Truth;
use crate::view::View;

/// Why an edge is not at rest, if it is not.
pub fn unrest(replica: &EdgeReplica, view: &View, feeds: &[Feed], truth: &Truth) -> Option<String> {
    if !replica.is_subscribed() {
        return Some("is not connected".into());
    }
    if replica.pending() > 0 {
        return Some(format!("has {} pending writes", replica.pending()));
    }
    if view.feeds.len() != feeds.len() {
        return Some("shows other feeds than it receives".into());
    }
    for feed in feeds {
        let last = truth.winners.iter().rposition(|winner| {
            feed.contains(&winner.at) && (feed.secrets || winner.plain || winner.was_plain)
        });
        let needed = last.map_or(0, |at| at as u64 + 1);
        let Some(vector) = view.feeds.get(feed) else { return Some(format!("does not show {feed:?}")) };
        if vector.iter().all(|(_, position)| position.seq < needed) && needed > 0 {
            return Some(format!("has not come to {needed} in {feed:?}"));
        }
    }
    None
}

/// At rest.
///
/// # Errors
/// When an edge holds anything else than the hub.
pub fn equal(
    journal: &SimJournal,
    edge: usize,
    replica: &EdgeReplica,
    view: &View,
    feeds: &[Feed],
    truth: &Truth,
) -> Check {
    let differs = |what: String| Err(Violation::new("convergence", format!("edge {edge} {what}")));
    if !view.feeds.keys().eq(feeds) {
        return differs("shows other feeds than it receives".into());
    }
    for feed in feeds {
        vectors::same_as_hub(journal, edge, view, feed, truth.winners.len() as u64)?;
    }
    if let Some(at) = view.rows.keys().find(|at| !feeds.iter().any(|feed| feed.contains(at))) {
        return differs(format!("holds {} outside its feeds", at.key));
    }
    if !view.pending.is_empty() {
        return differs(format!("still shows {} pending writes", view.pending.len()));
    }
    if !replica.rows().map(|row| &row.at).eq(view.rows.keys()) {
        return differs("shows other rows than its replica holds".into());
    }
    Ok(())
}
