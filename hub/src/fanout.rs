//! What is sent to edges, made once: read in one snapshot, laid out, compressed and signed, then shared as bytes.
//!
//! A part is one feed from one position to another. Where a receiver's position lies between two changes of its feed,
//! the part begins at the earlier one: so all receivers that are up to date share the same bytes, wherever they were
//! when they last heard. Quiet feeds are told from memory, and the database is asked once for everybody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use llm_config_shared::feed::Feed;
use llm_config_shared::replication::hub::Part;
use llm_config_shared::replication::transfer::{Issue, draft_part};
use llm_config_shared::store::{FeedRows, FeedSnapshot, Head, Journal, JournalError};
use llm_config_shared::vector::{Epochs, Vector};
use tokio::sync::Semaphore;

use self::feeds::Feeds;
use self::memo::{Memo, Range};
use crate::clock::now;
use crate::identity::Identity;
use crate::tail::Tail;

mod feeds;
mod memo;
mod mending;

/// Above so many rows a part is laid out on a thread of its own, because the runtime's are few.
const ROWS_INLINE_MAX: usize = 200;
/// How long the writer may take to say what a commit moved that the database shows already.
const TAIL_WAIT: Duration = Duration::from_millis(20);

/// All feeds of a receiver at one position.
#[derive(Clone, Debug)]
pub struct Transfer {
    pub to: Vector,
    pub epochs: Epochs,
    pub parts: Vec<Part>,
}

/// Makes parts and keeps them for whoever needs the same.
pub struct Fanout<J> {
    journal: Arc<J>,
    tail: Arc<Tail>,
    identity: Arc<Identity>,
    state: Mutex<State>,
    /// Who holds one asks the database; who waits for it finds the answer in memory. Deltas do not wait for snapshots.
    deltas: tokio::sync::Mutex<()>,
    snapshots: tokio::sync::Mutex<()>,
    /// Who holds one compares a whole feed with an edge's.
    comparisons: Semaphore,
}

#[derive(Default)]
struct State {
    feeds: Feeds,
    memo: Memo,
}

/// One feed, for a receiver at `from`, in a part that begins at `start`.
struct Wanted<'a> {
    feed: &'a Feed,
    from: &'a Vector,
    start: Vector,
    every: bool,
}

/// One feed's part, as far as it is in memory.
enum Known {
    /// Nothing is new.
    Current,
    Part(Part),
    /// These rows have to be read.
    Unread(Vector),
}

impl<J: Journal> Fanout<J> {
    /// Over one journal, with the tail that its writer keeps.
    pub fn new(journal: Arc<J>, tail: Arc<Tail>, identity: Arc<Identity>) -> Self {
        Self {
            journal,
            tail,
            identity,
            state: Mutex::default(),
            deltas: tokio::sync::Mutex::default(),
            snapshots: tokio::sync::Mutex::default(),
            comparisons: Semaphore::new(mending::COMPARISONS_MAX),
        }
    }

    /// What a receiver at these positions lacks, all feeds as of one position of the hub. Without `every`, feeds in
    /// which nothing is new are left out.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn transfer(&self, feeds: &[(Feed, Vector)], every: bool) -> Result<Transfer, JournalError> {
        if let Ok(transfer) = self.recall(feeds, every, &self.tail.head(), &[]) {
            return Ok(transfer);
        }
        let tail = self.tail.head();
        let whole = feeds.iter().any(|(_, from)| tail.served_from(from).is_empty());
        let turn = if whole { &self.snapshots } else { &self.deltas };
        let _turn = turn.lock().await;
        let unread = match self.recall(feeds, every, &self.tail.head(), &[]) {
            Ok(transfer) => return Ok(transfer),
            Err(unread) => unread,
        };
        let head = self.read(&unread).await?;
        let all = match self.recall(feeds, every, &head, &unread) {
            Ok(transfer) => return Ok(transfer),
            Err(_) => self.starts(feeds, &head),
        };
        // A feed that was thought quiet moved while the others were read: all in one snapshot, then.
        let head = self.read(&all).await?;
        self.recall(feeds, every, &head, &all)
            .map_err(|_| JournalError::Corrupt("a snapshot lacks a feed that was asked for".into()))
    }

    /// Everything as of `head` from what is in memory, or what has to be read first. What was `read` for this is taken
    /// from where it was read, though by now a better start may be known; only a horizon that was found while reading
    /// makes it a whole one.
    fn recall(
        &self,
        feeds: &[(Feed, Vector)],
        every: bool,
        head: &Head,
        read: &[(Feed, Vector)],
    ) -> Result<Transfer, Vec<(Feed, Vector)>> {
        let mut state = self.state();
        let (mut parts, mut unread) = (Vec::new(), Vec::new());
        for (feed, from) in feeds {
            let start = match read.iter().find(|(known, _)| known == feed) {
                Some((_, start)) => head.served_from(start),
                None => state.feeds.start(feed, from, head, &self.tail),
            };
            let wanted = Wanted { feed, from, start, every };
            match self.known(&mut state, wanted, head) {
                Known::Current => {}
                Known::Part(part) => parts.push(part),
                Known::Unread(from) => unread.push((feed.clone(), from)),
            }
        }
        if unread.is_empty() {
            Ok(Transfer { to: head.vector(), epochs: head.epochs.clone(), parts })
        } else {
            Err(unread)
        }
    }

    fn known(&self, state: &mut State, wanted: Wanted<'_>, head: &Head) -> Known {
        let Wanted { feed, from, start, every } = wanted;
        let Some(digest) = state.feeds.digest(feed, head, &self.tail) else {
            return Known::Unread(start);
        };
        let current = !from.is_empty() && from.seq(head.shard) >= digest.changed(feed.secrets);
        if current && !every {
            return Known::Current;
        }
        let segments = if current {
            Vec::new()
        } else {
            match state.memo.get(&Range::new(feed, &start, head)) {
                Some(segments) => segments,
                None => return Known::Unread(start),
            }
        };
        let at = now();
        let checkpoint = state.feeds.checkpoint(feed, head, at, || {
            let rows = FeedRows { feed: feed.clone(), rows: Vec::new(), bases: BTreeMap::new(), digest };
            let issue = Issue { at, key_id: self.identity.signing().id() };
            let draft = draft_part(&rows, &head.vector(), head, issue).checkpoint;
            let signature = self.identity.signing().sign(&draft.message());
            draft.signed(&signature)
        });
        Known::Part(Part { feed: feed.clone(), segments, checkpoint })
    }

    /// Where the parts of all feeds begin.
    fn starts(&self, feeds: &[(Feed, Vector)], head: &Head) -> Vec<(Feed, Vector)> {
        let mut state = self.state();
        let start =
            |(feed, from): &(Feed, Vector)| (feed.clone(), state.feeds.start(feed, from, head, &self.tail));
        feeds.iter().map(start).collect()
    }

    /// Reads feeds in one snapshot, makes their segments and keeps them; the snapshot's head.
    async fn read(&self, wanted: &[(Feed, Vector)]) -> Result<Head, JournalError> {
        let FeedSnapshot { head, feeds } = self.journal.read_feeds(wanted).await?;
        if feeds.len() != wanted.len() {
            return Err(JournalError::Corrupt("a snapshot lacks a feed that was asked for".into()));
        }
        for ((feed, from), rows) in wanted.iter().zip(feeds) {
            let digest = rows.digest;
            let segments = self.segments(rows, from.clone(), head.clone()).await?;
            let mut state = self.state();
            state.memo.put(Range::new(feed, &head.served_from(from), &head), segments);
            state.feeds.learn(feed, &head, digest);
        }
        // The database shows a commit a moment before the writer tells what it moved.
        let mut heads = self.tail.subscribe();
        let told = heads.wait_for(|known| known.position.seq >= head.position.seq);
        if tokio::time::timeout(TAIL_WAIT, told).await.is_err() {
            self.tail.observed(head.clone());
        }
        Ok(head)
    }

    async fn segments(&self, rows: FeedRows, from: Vector, head: Head) -> Result<Vec<Bytes>, JournalError> {
        let identity = Arc::clone(&self.identity);
        let large = rows.rows.len() > ROWS_INLINE_MAX;
        let make = move || sign_segments(&rows, &from, &head, &identity);
        if !large {
            return Ok(make());
        }
        let made = tokio::task::spawn_blocking(make).await;
        made.map_err(|_| JournalError::Unavailable("the process is stopping".into()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sign_segments(rows: &FeedRows, from: &Vector, head: &Head, identity: &Identity) -> Vec<Bytes> {
    let started = std::time::Instant::now();
    let signing = identity.signing();
    let drafts = draft_part(rows, from, head, Issue { at: now(), key_id: signing.id() }).segments;
    let sign = |draft: llm_config_shared::segment::Draft| {
        let signature = signing.sign(&draft.message());
        draft.signed(&signature)
    };
    let segments: Vec<Bytes> = drafts.into_iter().map(sign).collect();
    metrics::counter!("sync_segments_built_total").increment(segments.len() as u64);
    metrics::histogram!("sync_segment_build_seconds").record(started.elapsed().as_secs_f64());
    segments
}

#[cfg(test)]
mod tests;
