//! 10: what is applied twice, late or again changes nothing. A row changes only because of a write that the feed had
//! not covered before.

use llm_config_shared::replication::edge::Published;

use super::{Check, Violation};
use crate::journal::SimJournal;
use crate::view::View;

/// # Errors
/// When something changed that was covered already.
pub fn only_news(
    journal: &SimJournal,
    edge: usize,
    before: &View,
    after: &View,
    published: &Published,
) -> Check {
    for (at, row) in &published.rows {
        let (Some((feed, old)), Some((same, new))) = (before.feed_of(at), after.feed_of(at)) else {
            continue;
        };
        if feed != same || before.rows.get(at) == row.as_ref() {
            continue;
        }
        let new = new.iter().map(|(_, position)| position.seq).max().unwrap_or(0);
        let dot = match row {
            Some(row) => Some(row.dot),
            None => journal.row_at(at, new).map(|row| row.row.dot),
        };
        if dot.is_none_or(|dot| old.covers_dot(dot)) {
            let detail = format!("edge {edge} applied {} again", at.key);
            return Err(Violation::new("replays", detail));
        }
    }
    Ok(())
}
