//! 2 and 3: what a reader sees of a key never goes back, to something that the author of what it saw had seen, or to
//! anything that it saw before; restarts change nothing about that. A reader's own writes are among what it saw.

use llm_config_shared::feed::Feed;
use llm_config_shared::name::EntryKey;
use llm_config_shared::policy::ConflictPolicy;
use llm_config_shared::stamp::WriteId;
use llm_config_shared::vector::Vector;

use super::{Check, Violation};
use crate::journal::SimJournal;
use crate::truth::Truth;
use crate::view::View;

/// What a reader finds under a key.
enum Visible {
    /// The key is in no feed of this edge, and nothing of its own is pending.
    NotReceived,
    /// Nothing was ever there.
    Nothing,
    /// What this write left there: a value, or the lack of one.
    Write(WriteId),
}

fn seq(vector: &Vector) -> u64 {
    vector.iter().map(|(_, position)| position.seq).max().unwrap_or(0)
}

fn visible(truth: &Truth, view: &View, journal: &SimJournal, at: &EntryKey) -> Visible {
    match view.pending.get(at) {
        Some(write) => Visible::Write(truth.identity(write.id, write.change)),
        None => replicated(truth, view, journal, at),
    }
}

/// The same without what is pending here.
fn replicated(truth: &Truth, view: &View, journal: &SimJournal, at: &EntryKey) -> Visible {
    if let Some(row) = view.rows.get(at) {
        return Visible::Write(truth.identity(row.stamp.id, row.change));
    }
    let Some((_, vector)) = view.feed_of(at) else { return Visible::NotReceived };
    match journal.row_at(at, seq(vector)) {
        Some(row) if row.row.content.is_secret() && row.plain_seq == 0 => Visible::Nothing,
        Some(row) => Visible::Write(truth.identity(row.row.stamp.id, row.row.change)),
        None => Visible::Nothing,
    }
}

/// A reader looks at a key.
///
/// # Errors
/// When it sees what it must not see any more.
pub fn look(truth: &mut Truth, journal: &SimJournal, edge: usize, view: &View, at: &EntryKey) -> Check {
    let before = truth.readers[edge].seen.get(at).copied();
    let set_aside = before.is_some_and(|before| truth.is_set_aside(before));
    let id = match visible(truth, view, journal, at) {
        Visible::NotReceived => {
            forget(truth, edge, at);
            return Ok(());
        }
        Visible::Nothing => match before {
            // An own write that lost may have lost to what this feed has never shown.
            Some(before)
                if !set_aside
                    && !truth.has_lost(before)
                    && !truth.writes.get(&before).is_some_and(|made| made.delete) =>
            {
                let detail = format!("edge {edge} sees nothing at {} after {before:?}", at.key);
                return Err(Violation::new("reads", detail));
            }
            Some(_) | None => {
                truth.readers[edge].seen.remove(at);
                return Ok(());
            }
        },
        Visible::Write(id) => id,
    };
    if before == Some(id) {
        return Ok(());
    }
    if let Some(before) = before {
        // Stamps do not tell an edge who wins by a policy: what it shows for a moment may give way and come back.
        // And what was held or denied by a hub that was restored since is perhaps admitted by it now.
        let may_come_back = matches!(truth.policy(at), ConflictPolicy::EdgeWins | ConflictPolicy::HubWins)
            || truth.is_set_aside(id);
        let replaced = truth.readers[edge].replaced.get(at).is_some_and(|replaced| replaced.contains(&id));
        let known = truth.is_past(id, before) && !truth.has_twin(id);
        if !set_aside && (replaced && !may_come_back || known) {
            let detail = format!("edge {edge} goes back at {at:?} from {before:?} to {id:?}");
            return Err(Violation::new("reads", detail));
        }
        truth.readers[edge].replaced.entry(at.clone()).or_default().insert(before);
    }
    truth.readers[edge].seen.insert(at.clone(), id);
    truth.learn(edge, at, id);
    Ok(())
}

/// Somebody is about to write here, and knows what the replica has: under an own pending write too, and of a deletion that
/// no feed shows, for the place that the feed has come to says that nothing is there.
pub fn know(truth: &mut Truth, journal: &SimJournal, edge: usize, view: &View, at: &EntryKey) {
    if let Visible::Write(id) = replicated(truth, view, journal, at) {
        truth.learn(edge, at, id);
    }
}

fn forget(truth: &mut Truth, edge: usize, at: &EntryKey) {
    let reader = &mut truth.readers[edge];
    reader.seen.remove(at);
    reader.replaced.remove(at);
    reader.known.remove(at);
}

/// Feeds that are not received any more take what was known of them along; one that is received without secrets from now
/// on takes the secrets.
pub fn forget_dropped(truth: &mut Truth, edge: usize, before: &View, after: &View) {
    let dropped: Vec<_> = before.feeds.keys().filter(|feed| !after.feeds.contains_key(*feed)).collect();
    if dropped.is_empty() {
        return;
    }
    let reader = &truth.readers[edge];
    let keys = reader.seen.keys().chain(reader.known.keys());
    let gone = keys.filter(|at| {
        let feed = dropped.iter().find(|feed| feed.contains(at));
        let hidden = |now: &Feed| feed.is_some_and(|feed| feed.secrets) && !now.secrets;
        let hidden = |now| hidden(now) && !after.rows.contains_key(*at);
        feed.is_some()
            && after.feed_of(at).is_none_or(|(now, _)| hidden(now))
            && !after.pending.contains_key(*at)
    });
    let gone: Vec<EntryKey> = gone.cloned().collect();
    for at in gone {
        forget(truth, edge, &at);
    }
}
