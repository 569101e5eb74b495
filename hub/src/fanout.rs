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
use llm_config_shared::held::{Held, Span};
use llm_config_shared::limits::SEGMENT_ROWS_MAX;
use llm_config_shared::replication::hub::Part;
use llm_config_shared::replication::transfer::{
    Issue, draft_checkpoint, draft_part, draft_rest, is_better_whole,
};
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

/// What a receiver asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Where it is in each feed.
    pub feeds: Vec<(Feed, Vector)>,
    /// What it holds of a transfer that broke off.
    pub held: BTreeMap<Feed, Held>,
    /// Also feeds in which nothing is new.
    pub every: bool,
}

impl Ask {
    /// What of the feed the receiver holds and can be sent the rest of.
    fn continued(&self, feed: &Feed, head: &Head) -> Option<&Held> {
        self.held.get(feed).filter(|held| head.continues(held))
    }
}

/// One feed, for a receiver at `from`, in a part that begins at `start`.
struct Wanted<'a> {
    feed: &'a Feed,
    from: &'a Vector,
    start: Vector,
    held: Option<&'a Held>,
    every: bool,
}

/// Whose turn it is to ask the database. What is read, laid out and compressed for deltas is little; of snapshots, which may be
/// everything there is, one at a time is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Delta,
    Snapshot,
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

    /// What a receiver lacks, all feeds as of one position of the hub.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn transfer(&self, ask: &Ask) -> Result<Transfer, JournalError> {
        let tail = self.tail.head();
        if let Ok(transfer) = self.recall(ask, &tail, &[]) {
            return Ok(transfer);
        }
        let all = |(feed, from): &(Feed, Vector)| match ask.continued(feed, &tail) {
            Some(held) => held.from.is_empty(),
            None => tail.served_from(from).is_empty(),
        };
        if !ask.feeds.iter().any(all)
            && let Some(transfer) = self.transfer_in(Turn::Delta, ask).await?
        {
            return Ok(transfer);
        }
        let transfer = self.transfer_in(Turn::Snapshot, ask).await?;
        transfer.ok_or_else(|| JournalError::Corrupt("a snapshot is no delta".into()))
    }

    /// None when it is a turn for deltas, and a snapshot is the better way.
    async fn transfer_in(&self, turn: Turn, ask: &Ask) -> Result<Option<Transfer>, JournalError> {
        let _turn = match turn {
            Turn::Delta => self.deltas.lock().await,
            Turn::Snapshot => self.snapshots.lock().await,
        };
        let unread = match self.recall(ask, &self.tail.head(), &[]) {
            Ok(transfer) => return Ok(Some(transfer)),
            Err(unread) => unread,
        };
        let Some(head) = self.read(turn, ask, &unread).await? else { return Ok(None) };
        let all = match self.recall(ask, &head, &unread) {
            Ok(transfer) => return Ok(Some(transfer)),
            Err(_) => self.starts(ask, &head),
        };
        // A feed that was thought quiet moved while the others were read: all in one snapshot, then.
        let Some(head) = self.read(turn, ask, &all).await? else { return Ok(None) };
        let transfer = self.recall(ask, &head, &all);
        transfer
            .map(Some)
            .map_err(|_| JournalError::Corrupt("a snapshot lacks a feed that was asked for".into()))
    }

    /// Everything as of `head` from what is in memory, or what has to be read first. What was `read` for this is taken
    /// from where it was read, though by now a better start may be known; only a horizon that was found while reading
    /// makes it a whole one.
    fn recall(
        &self,
        ask: &Ask,
        head: &Head,
        read: &[(Feed, Vector)],
    ) -> Result<Transfer, Vec<(Feed, Vector)>> {
        let mut state = self.state();
        let (mut parts, mut unread) = (Vec::new(), Vec::new());
        for (feed, from) in &ask.feeds {
            let held = ask.continued(feed, head);
            let start = match read.iter().find(|(known, _)| known == feed) {
                Some((_, start)) if held.is_none() => head.served_from(start),
                _ => self.start(&mut state, ask, (feed, from), head),
            };
            let wanted = Wanted { feed, from, start, held, every: ask.every };
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
        let Wanted { feed, from, start, held, every } = wanted;
        let Some(digest) = state.feeds.digest(feed, head, &self.tail) else {
            return Known::Unread(start);
        };
        let current =
            held.is_none() && !from.is_empty() && from.seq(head.shard) >= digest.changed(feed.secrets);
        if current && !every {
            return Known::Current;
        }
        let segments = if current {
            Vec::new()
        } else {
            match state.memo.get(&Range::new(feed, &start, head, continues(held))) {
                Some(segments) => segments,
                None => return Known::Unread(start),
            }
        };
        let at = now();
        let checkpoint = state.feeds.checkpoint(feed, head, at, || {
            let rows = FeedRows { feed: feed.clone(), rows: Vec::new(), bases: BTreeMap::new(), digest };
            let issue = Issue { at, key_id: self.identity.signing().id() };
            let draft = draft_checkpoint(&rows, head, issue);
            let signature = self.identity.signing().sign(&draft.message());
            draft.signed(&signature)
        });
        Known::Part(Part { feed: feed.clone(), segments, checkpoint })
    }

    /// Where the parts of all feeds begin.
    fn starts(&self, ask: &Ask, head: &Head) -> Vec<(Feed, Vector)> {
        let mut state = self.state();
        let start =
            |(feed, from): &(Feed, Vector)| (feed.clone(), self.start(&mut state, ask, (feed, from), head));
        ask.feeds.iter().map(start).collect()
    }

    fn start(&self, state: &mut State, ask: &Ask, (feed, from): (&Feed, &Vector), head: &Head) -> Vector {
        match ask.continued(feed, head) {
            Some(held) => held.from.clone(),
            None => state.feeds.start(feed, from, head, &self.tail),
        }
    }

    /// Reads feeds in one snapshot, makes their segments and keeps them; the snapshot's head. None when a snapshot is the
    /// better way for one of them and it is not the turn for that.
    async fn read(
        &self,
        turn: Turn,
        ask: &Ask,
        wanted: &[(Feed, Vector)],
    ) -> Result<Option<Head>, JournalError> {
        let mut snapshot = self.snapshot(wanted).await?;
        let better = |(rows, (feed, from)): (&FeedRows, &(Feed, Vector))| {
            ask.continued(feed, &snapshot.head).is_none() && is_better_whole(rows, from, &snapshot.head)
        };
        let better: Vec<bool> = snapshot.feeds.iter().zip(wanted).map(better).collect();
        if better.contains(&true) {
            if turn == Turn::Delta {
                return Ok(None);
            }
            let start = |((feed, from), better): (&(Feed, Vector), &bool)| {
                (feed.clone(), if *better { Vector::EMPTY } else { from.clone() })
            };
            let starts: Vec<_> = wanted.iter().zip(&better).map(start).collect();
            snapshot = self.snapshot(&starts).await?;
            metrics::counter!("sync_snapshots_for_deltas_total").increment(1);
        }
        let FeedSnapshot { head, feeds } = snapshot;
        for ((rows, better), (feed, from)) in feeds.into_iter().zip(better).zip(wanted) {
            let (digest, held) = (rows.digest, ask.continued(feed, &head));
            let start = if better { Vector::EMPTY } else { from.clone() };
            let segments = self.segments(rows, start, held.cloned(), head.clone()).await?;
            let mut state = self.state();
            if better {
                state.memo.put(Range::new(feed, &Vector::EMPTY, &head, &[]), segments.clone());
            }
            // Where a delta was asked for the snapshot stands in its place.
            let range = Range::new(feed, &head.served_from(from), &head, continues(held));
            state.memo.put(range, segments);
            state.feeds.learn(feed, &head, digest);
        }
        // The database shows a commit a moment before the writer tells what it moved.
        let mut heads = self.tail.subscribe();
        let told = heads.wait_for(|known| known.position.seq >= head.position.seq);
        if tokio::time::timeout(TAIL_WAIT, told).await.is_err() {
            self.tail.observed(head.clone());
        }
        Ok(Some(head))
    }

    async fn snapshot(&self, wanted: &[(Feed, Vector)]) -> Result<FeedSnapshot, JournalError> {
        let snapshot = self.journal.read_feeds(wanted).await?;
        if snapshot.feeds.len() == wanted.len() {
            Ok(snapshot)
        } else {
            Err(JournalError::Corrupt("a snapshot lacks a feed that was asked for".into()))
        }
    }

    async fn segments(
        &self,
        rows: FeedRows,
        from: Vector,
        held: Option<Held>,
        head: Head,
    ) -> Result<Vec<Bytes>, JournalError> {
        let identity = Arc::clone(&self.identity);
        let large = rows.rows.len() > ROWS_INLINE_MAX;
        let make = move || sign_segments(&rows, &from, held.as_ref(), &head, &identity);
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

fn continues(held: Option<&Held>) -> &[Span] {
    held.map_or(&[], |held| &held.spans)
}

fn sign_segments(
    rows: &FeedRows,
    from: &Vector,
    held: Option<&Held>,
    head: &Head,
    identity: &Identity,
) -> Vec<Bytes> {
    let started = std::time::Instant::now();
    let signing = identity.signing();
    let issue = Issue { at: now(), key_id: signing.id() };
    let drafts = match held {
        Some(held) => draft_rest(rows, held, head, issue, SEGMENT_ROWS_MAX),
        None => draft_part(rows, from, head, issue).segments,
    };
    if held.is_some() {
        metrics::counter!("sync_transfers_continued_total").increment(1);
    }
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
