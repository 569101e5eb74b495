//! 6: a feed's vector is never ahead of its data, nor behind where it was: what a reader finds in a feed is exactly
//! what the hub had there at the place that the vector names, also after a power cut. And a change that was to be whole
//! is whole: readers see all its parts that reach them, or none.

use llm_config_shared::entry::Content;
use llm_config_shared::feed::Feed;
use llm_config_shared::replication::edge::Published;
use llm_config_shared::vector::Vector;

use super::{Check, Violation};
use crate::journal::SimJournal;
use crate::truth::Truth;
use crate::view::View;

fn seq(vector: &Vector) -> u64 {
    vector.iter().map(|(_, position)| position.seq).max().unwrap_or(0)
}

/// # Errors
/// When a feed that moved does not hold what the hub had there.
pub fn never_ahead(
    journal: &SimJournal,
    edge: usize,
    before: &View,
    after: &View,
    published: &Published,
) -> Check {
    for (feed, vector) in &published.feeds {
        let Some(vector) = vector else { continue };
        if let Some(older) = before.feeds.get(feed)
            && !vector.covers(older)
        {
            return Err(Violation::new("vectors", format!("edge {edge} went back in {feed:?}")));
        }
        same_as_hub(journal, edge, after, feed, seq(vector))?;
    }
    Ok(())
}

/// # Errors
/// When the feed does not hold what the hub had at this place.
pub fn same_as_hub(journal: &SimJournal, edge: usize, view: &View, feed: &Feed, place: u64) -> Check {
    let mut shown = 0;
    let mut problem = None;
    journal.each_row_at(feed, place, |row| {
        let shows = match row.row.content {
            Content::Plain(_) => true,
            Content::Secret(_) => feed.secrets,
            Content::Deleted => false,
        };
        if !shows {
            return;
        }
        shown += 1;
        if view.rows.get(&row.row.at).is_none_or(|held| **held != row.row) && problem.is_none() {
            problem = Some(format!("{} of {}", row.row.at.key, row.row.at.scope.namespace));
        }
    });
    let held = view.rows.keys().filter(|at| feed.contains(at)).count();
    if problem.is_none() && held != shown {
        problem = Some(format!("{held} rows instead of {shown}"));
    }
    match problem {
        Some(problem) => {
            Err(Violation::new("vectors", format!("edge {edge} at {place} of {feed:?} differs: {problem}")))
        }
        None => Ok(()),
    }
}

/// # Errors
/// When readers see one part of an atomic change and not another.
pub fn whole_changes(truth: &Truth, edge: usize, view: &View) -> Check {
    let lowest = view.feeds.values().map(seq).min().unwrap_or(0);
    for change in truth.atomic.iter().rev() {
        if change.parts.iter().all(|(seq, _)| *seq <= lowest) {
            break;
        }
        let (mut seen, mut unseen) = (false, false);
        for (place, at) in &change.parts {
            let Some((feed, vector)) = view.feed_of(at) else { continue };
            let winner = &truth.winners[*place as usize - 1];
            if !feed.secrets && !winner.plain && !winner.was_plain {
                continue;
            }
            seen |= seq(vector) >= *place;
            unseen |= seq(vector) < *place;
        }
        if seen && unseen {
            return Err(Violation::new("atomic", format!("edge {edge} sees a part of {:?}", change.parts)));
        }
    }
    Ok(())
}
