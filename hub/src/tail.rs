//! What this process knows of the newest commits: how far the hub has come, and which scopes moved lately.
//!
//! Everyone who follows the hub waits here instead of asking the database. Commits of this process arrive with their
//! scopes, and so do those that another one tells of; what is only seen to have happened may have moved everything.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use llm_config_shared::feed::Feed;
use llm_config_shared::name::Scope;
use llm_config_shared::store::Head;
use tokio::sync::watch;

use crate::processes::News;

/// Most commits that are remembered. Who is further behind asks the database.
const COMMITS_MAX: usize = 4_096;

/// The end of the hub's order, as this process has seen it.
pub struct Tail {
    head: watch::Sender<Arc<Head>>,
    recent: Mutex<Recent>,
}

/// Commits after `after`, oldest first, without gaps.
struct Recent {
    after: u64,
    commits: VecDeque<Moved>,
}

impl Recent {
    fn note(&mut self, moved: Moved) {
        self.commits.push_back(moved);
        if self.commits.len() > COMMITS_MAX
            && let Some(oldest) = self.commits.pop_front()
        {
            self.after = oldest.up_to;
        }
    }
}

/// What one commit, or several at once, moved.
struct Moved {
    up_to: u64,
    scopes: Vec<Scope>,
}

impl Tail {
    /// Begins where the database is.
    pub fn new(head: Head) -> Self {
        let recent = Recent { after: head.position.seq, commits: VecDeque::new() };
        Self { head: watch::Sender::new(Arc::new(head)), recent: Mutex::new(recent) }
    }

    /// Changes after every commit; may leave some out when they follow one another fast.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Head>> {
        self.head.subscribe()
    }

    /// How far the hub has come.
    pub fn head(&self) -> Arc<Head> {
        Arc::clone(&self.head.borrow())
    }

    /// This process has committed up to `head`; only `scopes` moved since the head before.
    pub fn committed(&self, head: Head, scopes: Vec<Scope>) {
        let mut recent = self.recent();
        recent.note(Moved { up_to: head.position.seq, scopes });
        self.head.send_replace(Arc::new(head));
    }

    /// The database is at `head`: told by it, not by the writer of this process. Nothing happens when that is known.
    pub fn observed(&self, head: Head) {
        let mut recent = self.recent();
        let known = self.head();
        let newer_epoch = head.own_epochs().epochs().len() > known.own_epochs().epochs().len();
        // Other regions may have been read on without anything new in them.
        let regions = head.position == known.position && head.regions != known.regions;
        if head.position.seq <= known.position.seq && !newer_epoch && !regions {
            return self.purged(head.horizon);
        }
        if head.position.seq != known.position.seq {
            *recent = Recent { after: head.position.seq, commits: VecDeque::new() };
        }
        self.head.send_replace(Arc::new(head));
    }

    /// Another process told of a commit. False when it does not follow what is known here: then the database is to be asked.
    pub fn told(&self, news: &News) -> bool {
        let mut recent = self.recent();
        let known = self.head();
        let at = known.position;
        if news.position.epoch != at.epoch {
            return false;
        }
        if news.after != at.seq {
            return news.position.seq <= at.seq;
        }
        recent.note(Moved { up_to: news.position.seq, scopes: news.scopes.clone() });
        let (position, hlc) = (news.position, news.hlc);
        self.head.send_replace(Arc::new(Head { position, hlc, ..(*known).clone() }));
        true
    }

    /// Something was committed that may have moved nothing: those who wait look once more.
    pub fn stirred(&self) {
        self.head.send_modify(|_| {});
    }

    /// Deletions up to `horizon` are gone. Nobody waits for that: it changes what is sent, not that something is.
    pub fn purged(&self, horizon: u64) {
        self.head.send_if_modified(|head| {
            if head.horizon < horizon {
                *head = Arc::new(Head { horizon, ..(**head).clone() });
            }
            false
        });
    }

    /// Whether the feed may have changed in a commit after `after` and up to `up_to`. True when it is not known.
    pub fn may_have_moved(&self, feed: &Feed, after: u64, up_to: u64) -> bool {
        self.any_may_have_moved(std::slice::from_ref(feed), after, up_to)
    }

    /// The same for several feeds at once.
    pub fn any_may_have_moved(&self, feeds: &[Feed], after: u64, up_to: u64) -> bool {
        if after >= up_to {
            return false;
        }
        let recent = self.recent();
        let known_to = recent.commits.back().map_or(recent.after, |last| last.up_to);
        if after < recent.after || up_to > known_to {
            return true;
        }
        let first = recent.commits.partition_point(|moved| moved.up_to <= after);
        let commits = recent.commits.range(first..).take_while(|moved| moved.up_to <= up_to);
        commits.flat_map(|moved| &moved.scopes).any(|scope| feeds.iter().any(|feed| holds(feed, scope)))
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn holds(feed: &Feed, scope: &Scope) -> bool {
    scope.tenant == feed.tenant
        && scope.environment == feed.environment
        && feed.subtree.contains(&scope.namespace)
}

#[cfg(test)]
mod tests {
    use llm_config_shared::name::{Environment, Namespace, Subtree, Tenant};
    use llm_config_shared::stamp::Hlc;
    use llm_config_shared::vector::{Epoch, EpochTable, Epochs, Position, ShardId, Vector};
    use uuid::Uuid;

    use super::*;

    fn head(seq: u64) -> Head {
        let shard = ShardId(Uuid::from_u128(1));
        let own = EpochTable::new(vec![Epoch { ordinal: 0, epoch: 9, start_seq: 0 }]);
        let (epochs, regions) = (Epochs::of(shard, own), Vector::EMPTY);
        let position = Position { epoch: 9, seq };
        Head { shard, position, hlc: Hlc(seq), horizon: 0, epochs, regions }
    }

    fn scope(namespace: &str) -> Scope {
        Scope {
            tenant: Tenant::parse("t").unwrap(),
            environment: Environment::base(),
            namespace: Namespace::parse(namespace).unwrap(),
        }
    }

    fn feed(subtree: &str) -> Feed {
        let Scope { tenant, environment, .. } = scope("x");
        Feed { tenant, environment, subtree: Subtree::parse(subtree).unwrap(), secrets: true }
    }

    #[test]
    fn quiet_feeds_are_told_from_those_that_moved() {
        let tail = Tail::new(head(10));
        tail.committed(head(12), vec![scope("app/llm")]);
        tail.committed(head(13), vec![scope("other")]);
        assert!(tail.may_have_moved(&feed("app"), 10, 13));
        assert!(!tail.may_have_moved(&feed("app"), 12, 13));
        assert!(!tail.may_have_moved(&feed("edges/a"), 10, 13));
        assert!(tail.may_have_moved(&feed("other"), 10, 13) && !tail.may_have_moved(&feed("other"), 10, 12));
        assert!(tail.may_have_moved(&feed("edges/a"), 9, 13), "before what is known");
        assert!(tail.may_have_moved(&feed("edges/a"), 10, 14), "after what is known");
    }

    #[test]
    fn what_another_process_committed_may_have_moved_anything() {
        let tail = Tail::new(head(10));
        let mut heads = tail.subscribe();
        tail.observed(head(10));
        assert!(!heads.has_changed().unwrap());
        tail.observed(head(15));
        assert!(heads.has_changed().unwrap() && heads.borrow_and_update().position.seq == 15);
        assert!(tail.may_have_moved(&feed("edges/a"), 10, 15));
        assert!(!tail.may_have_moved(&feed("edges/a"), 15, 15));
        tail.committed(head(16), vec![scope("other")]);
        assert!(!tail.may_have_moved(&feed("edges/a"), 15, 16));
    }

    #[test]
    fn what_another_process_tells_of_is_known_as_exactly_if_nothing_is_missing() {
        let tail = Tail::new(head(10));
        let news = |after, seq, epoch| News {
            after,
            position: Position { epoch, seq },
            hlc: Hlc(seq),
            scopes: vec![scope("other")],
        };
        assert!(tail.told(&news(10, 12, 9)));
        assert_eq!((tail.head().position.seq, tail.head().hlc), (12, Hlc(12)));
        assert!(tail.may_have_moved(&feed("other"), 10, 12) && !tail.may_have_moved(&feed("app"), 10, 12));
        assert!(tail.told(&news(10, 12, 9)), "known already");
        assert!(!tail.told(&news(13, 14, 9)), "one is missing");
        assert!(!tail.told(&news(12, 13, 8)), "of another leadership");
        assert_eq!(tail.head().position.seq, 12);
        let mut heads = tail.subscribe();
        heads.mark_unchanged();
        assert!(tail.told(&News { scopes: vec![], ..news(12, 12, 9) }));
        assert!(heads.has_changed().unwrap(), "a conflict may be all that there is");
    }

    #[test]
    fn a_commit_that_moved_nothing_wakes_whoever_waits_for_conflicts() {
        let tail = Tail::new(head(10));
        let heads = tail.subscribe();
        tail.observed(head(10));
        tail.stirred();
        assert!(heads.has_changed().unwrap());
        assert!(!tail.may_have_moved(&feed("app"), 10, tail.head().position.seq));
    }

    #[test]
    fn a_purge_is_known_at_once_and_wakes_nobody() {
        let tail = Tail::new(head(10));
        let heads = tail.subscribe();
        tail.purged(7);
        tail.purged(5);
        assert_eq!((tail.head().horizon, tail.head().position.seq), (7, 10));
        tail.observed(Head { horizon: 8, ..head(10) });
        assert_eq!(tail.head().horizon, 8, "the database tells of a purge by another process");
        assert!(!heads.has_changed().unwrap());
        tail.observed(Head { horizon: 12, ..head(13) });
        assert_eq!((tail.head().horizon, heads.has_changed().unwrap()), (12, true));
    }

    #[test]
    fn memory_of_commits_is_bounded() {
        let tail = Tail::new(head(0));
        for seq in 1..=COMMITS_MAX as u64 + 5 {
            tail.committed(head(seq), vec![scope("other")]);
        }
        assert!(tail.may_have_moved(&feed("app"), 4, 20) && !tail.may_have_moved(&feed("app"), 5, 20));
        assert_eq!(tail.recent().commits.len(), COMMITS_MAX);
    }
}
