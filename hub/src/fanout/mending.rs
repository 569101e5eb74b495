//! Rows for an edge whose replica differs: compared and signed for it alone, never kept, and few at a time.

use std::time::Duration;

use llm_config_shared::feed::Feed;
use llm_config_shared::name::EntryKey;
use llm_config_shared::replication::repair::{Job, Outcome, Sums, Unrepaired, compare, draft_rows};
use llm_config_shared::replication::transfer::Issue;
use llm_config_shared::store::{FeedRows, FeedSnapshot, Head, Journal, JournalError};
use llm_config_shared::vector::Vector;

use super::Fanout;
use crate::clock::now;

/// Whole feeds that are compared at one time: each is read and hashed from end to end.
pub(super) const COMPARISONS_MAX: usize = 2;
/// How long an edge waits for its turn before it is sent away for a while.
const TURN_TIME_MAX: Duration = Duration::from_secs(5);

impl<J: Journal> Fanout<J> {
    /// Does one step of a repair.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn repair(&self, job: Job) -> Result<Outcome, JournalError> {
        match job {
            Job::Compare { feed, at, sums } => self.compare(feed, at, sums).await,
            Job::Rows { feed, at, keys } => self.rows(feed, at, &keys).await,
        }
    }

    async fn compare(&self, feed: Feed, at: Vector, sums: Sums) -> Result<Outcome, JournalError> {
        let turn = tokio::time::timeout(TURN_TIME_MAX, self.comparisons.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Ok(Outcome::Not(Unrepaired::Busy)) };
        let (head, rows) = self.read_feed(feed, Vector::EMPTY).await?;
        let listing = tokio::task::spawn_blocking(move || compare(&rows, &head, &at, &sums));
        let listed =
            listing.await.map_err(|_| JournalError::Unavailable("the process is stopping".into()))?;
        Ok(listed.map_or_else(Outcome::Not, Outcome::Listed))
    }

    /// What changed in the feed is read first, so that a row that is found to be older is as it was then.
    async fn rows(&self, feed: Feed, at: Vector, keys: &[EntryKey]) -> Result<Outcome, JournalError> {
        let (head, rows) = self.read_feed(feed, at.clone()).await?;
        let found = self.journal.entries(keys).await?.value;
        let signing = self.identity.signing();
        let issue = Issue { at: now(), key_id: signing.id() };
        Ok(match draft_rows(&rows, &head, &at, &found, issue) {
            Ok(draft) => {
                let signature = signing.sign(&draft.message());
                Outcome::Rows(draft.signed(&signature))
            }
            Err(why) => Outcome::Not(why),
        })
    }

    async fn read_feed(&self, feed: Feed, from: Vector) -> Result<(Head, FeedRows), JournalError> {
        let FeedSnapshot { head, mut feeds } = self.journal.read_feeds(&[(feed, from)]).await?;
        match feeds.pop() {
            Some(rows) => Ok((head, rows)),
            None => Err(JournalError::Corrupt("a snapshot lacks a feed that was asked for".into())),
        }
    }
}
