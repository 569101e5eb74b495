//! Commits of other processes: heard from the database at once, and asked for now and then as the net under that.

use std::sync::Arc;
use std::time::Duration;

use llm_config_shared::store::Journal;

use super::listener::every;
use super::service::Parts;
use crate::processes::{Processes, Role};
use crate::registry::Registry;

/// How often the database is asked.
const POLL_EVERY: Duration = Duration::from_millis(250);
/// After the database could not be listened to.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// What this process is about to tell by itself is given a round's time, because it tells more.
pub(super) async fn poll<J: Journal, R: Registry>(parts: Arc<Parts<J, R>>) {
    let mut ticks = every(POLL_EVERY);
    let mut ahead = None;
    loop {
        ticks.tick().await;
        let Ok(head) = parts.journal.head().await else { continue };
        parts.tail.purged(head.horizon);
        let known = parts.tail.head().position;
        if head.position == known || head.position.seq < known.seq {
            ahead = None;
            continue;
        }
        if ahead.replace(head.position).is_some() {
            parts.tail.observed(head);
            ahead = None;
        }
    }
}

/// Told by the database. Who writes knows its own commits better.
pub(super) async fn listen<J: Journal, R: Registry, P: Processes>(
    parts: Arc<Parts<J, R>>,
    processes: Arc<P>,
) {
    loop {
        let news = match processes.news().await {
            Ok(news) => news,
            Err(error) => {
                tracing::debug!(%error, "the database does not tell of commits; it is asked instead");
                tokio::time::sleep(LISTEN_AGAIN).await;
                continue;
            }
        };
        if parts.writer.role() == Role::Leading || news.is_some_and(|news| parts.tail.told(&news)) {
            continue;
        }
        if let Ok(head) = parts.journal.head().await {
            parts.tail.observed(head);
            // Not every commit takes a place: a conflict may be all that there is.
            parts.tail.stirred();
        }
    }
}
