//! 13: what is held for somebody who is slow, idle or away does not depend on what happens meanwhile.

use llm_config_shared::replication::footprint::Footprint;

use super::{Check, Violation};

/// A session waits for its edge once, and for the database once.
const SESSION_WAITS: usize = 2;
/// Batches on their way to an edge's disk, beside those that come of a transfer. In 1,000 seeds there were 14 at most.
const EDGE_WAITS: usize = 20;

fn bounded(who: &str, held: Footprint, most: Footprint) -> Check {
    let fits = held.feeds <= most.feeds && held.waiting <= most.waiting && held.entries <= most.entries;
    if fits {
        Ok(())
    } else {
        Err(Violation::new("memory", format!("{who} holds {held:?} instead of {most:?}")))
    }
}

/// What a hub holds for an edge that receives so many feeds, in which there were ever so many entries.
///
/// # Errors
/// When it is more.
pub fn session(edge: usize, held: Footprint, feeds: usize, entries: usize) -> Check {
    bounded(&format!("a session of edge {edge}"), held, Footprint { feeds, waiting: SESSION_WAITS, entries })
}

/// What lies in a stream whose edge does not read it: at most one transfer and what is said of time.
///
/// # Errors
/// When it is more.
pub fn stream(edge: usize, unread: usize, transfer: usize) -> Check {
    if unread <= transfer {
        return Ok(());
    }
    Err(Violation::new("memory", format!("{unread} frames wait for edge {edge}, where {transfer} bring all")))
}

/// What an edge holds that has so many feeds with these entries, beside its replica and its outbox.
///
/// # Errors
/// When it is more.
pub fn edge(edge: usize, held: Footprint, transfer: usize, entries: usize) -> Check {
    let most = Footprint { feeds: held.feeds, waiting: EDGE_WAITS + transfer, entries };
    bounded(&format!("edge {edge}"), held, most)
}
