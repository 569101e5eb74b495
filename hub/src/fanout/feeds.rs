//! What is known of each feed without asking the database: its digest, when it changed, its newest checkpoint.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use llm_config_shared::digest::ScopeDigest;
use llm_config_shared::feed::Feed;
use llm_config_shared::store::Head;
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::{Position, Vector};

use crate::tail::Tail;

/// Most feeds that are remembered.
const FEEDS_MAX: usize = 200_000;
/// Most earlier changes of a feed that receivers may begin at.
const CHANGES_MAX: usize = 16;
/// For so long a checkpoint is shared before it is signed anew with the time.
const CHECKPOINT_SHARED_MS: u64 = 1_000;

/// What is known of feeds, all under one epoch of the hub.
#[derive(Default)]
pub(super) struct Feeds {
    epoch: u64,
    known: HashMap<Feed, Known>,
}

struct Known {
    digest: ScopeDigest,
    /// The digest is that of every position from the last change up to here.
    as_of: u64,
    /// Some of the feed's changes, the newest last.
    changes: VecDeque<Change>,
    checkpoint: Option<(Vector, UnixMillis, Bytes)>,
}

struct Change {
    seq: u64,
    /// Nothing followed up to here.
    quiet_to: u64,
}

impl Feeds {
    /// The feed's digest at `head`, if it is known to be quiet since it was read.
    pub(super) fn digest(&mut self, feed: &Feed, head: &Head, tail: &Tail) -> Option<ScopeDigest> {
        self.enter(head);
        let known = self.known.get_mut(feed)?;
        let seq = head.position.seq;
        if seq > known.as_of {
            if tail.may_have_moved(feed, known.as_of, seq) {
                return None;
            }
            known.quiet_to(seq);
        }
        // A head from before the feed's last change: nothing is remembered of how it was then.
        (known.digest.changed(feed.secrets) <= seq).then_some(known.digest)
    }

    /// Where the part of a receiver at `from` begins: at the feed's last change before it, if that is known, and not
    /// below the horizon.
    pub(super) fn start(&mut self, feed: &Feed, from: &Vector, head: &Head, tail: &Tail) -> Vector {
        self.enter(head);
        head.shared_from(from, self.last_change(feed, from, head, tail))
    }

    fn last_change(&self, feed: &Feed, from: &Vector, head: &Head, tail: &Tail) -> Vector {
        let seq = from.seq(head.shard);
        let Some(known) = self.known.get(feed).filter(|_| seq > 0) else {
            return from.clone();
        };
        let before = known.changes.iter().rev().find(|change| change.seq <= seq);
        match before.filter(|change| !tail.may_have_moved(feed, change.quiet_to, seq)) {
            // Position 0 would say that the receiver has nothing at all; before the first change, 1 is the same.
            Some(change) => {
                Vector::at(head.shard, Position { epoch: head.position.epoch, seq: change.seq.max(1) })
            }
            None => from.clone(),
        }
    }

    /// The feed was read at `head`.
    pub(super) fn learn(&mut self, feed: &Feed, head: &Head, digest: ScopeDigest) {
        self.enter(head);
        if self.known.len() >= FEEDS_MAX && !self.known.contains_key(feed) {
            self.known.clear();
        }
        let seq = head.position.seq;
        let known = self.known.entry(feed.clone()).or_insert_with(|| Known {
            digest,
            as_of: seq,
            changes: VecDeque::new(),
            checkpoint: None,
        });
        if seq < known.as_of {
            return;
        }
        known.digest = digest;
        let changed = digest.changed(feed.secrets);
        if known.changes.back().is_none_or(|newest| newest.seq < changed) {
            known.changes.push_back(Change { seq: changed, quiet_to: changed });
        }
        known.quiet_to(seq);
        if known.changes.len() > CHANGES_MAX {
            known.changes.pop_front();
        }
    }

    /// The checkpoint at `head`, made now or just before.
    pub(super) fn checkpoint(
        &mut self,
        feed: &Feed,
        head: &Head,
        at: UnixMillis,
        make: impl FnOnce() -> Bytes,
    ) -> Bytes {
        let Some(known) = self.known.get_mut(feed) else {
            return make();
        };
        let fresh = |made: &UnixMillis| made.0 <= at.0 && at.0 - made.0 < CHECKPOINT_SHARED_MS;
        if let Some((vector, made, bytes)) = &known.checkpoint
            && *vector == head.vector()
            && fresh(made)
        {
            return bytes.clone();
        }
        let bytes = make();
        known.checkpoint = Some((head.vector(), at, bytes.clone()));
        bytes
    }

    /// Under another epoch the order may have gone back: what was known is of another history.
    fn enter(&mut self, head: &Head) {
        if self.epoch != head.position.epoch {
            self.epoch = head.position.epoch;
            self.known.clear();
        }
    }
}

impl Known {
    fn quiet_to(&mut self, seq: u64) {
        self.as_of = seq;
        if let Some(newest) = self.changes.back_mut() {
            newest.quiet_to = seq;
        }
    }
}

#[cfg(test)]
mod tests {
    use llm_config_shared::name::{Environment, Namespace, Scope, Subtree, Tenant};
    use llm_config_shared::stamp::Hlc;
    use llm_config_shared::vector::{Epochs, ShardId};
    use uuid::Uuid;

    use super::*;

    const SHARD: ShardId = ShardId(Uuid::nil());

    fn head(epoch: u64, seq: u64) -> Head {
        let position = Position { epoch, seq };
        Head {
            shard: SHARD,
            position,
            hlc: Hlc(0),
            horizon: 0,
            epochs: Epochs::default(),
            regions: Vector::EMPTY,
        }
    }

    fn feed() -> Feed {
        Feed {
            tenant: Tenant::parse("t").unwrap(),
            environment: Environment::base(),
            subtree: Subtree::parse("app").unwrap(),
            secrets: true,
        }
    }

    fn changed(last_seq: u64) -> ScopeDigest {
        ScopeDigest { last_seq, ..ScopeDigest::default() }
    }

    fn moved(namespace: &str) -> Vec<Scope> {
        let Feed { tenant, environment, .. } = feed();
        vec![Scope { tenant, environment, namespace: Namespace::parse(namespace).unwrap() }]
    }

    fn at(seq: u64) -> Vector {
        Vector::at(SHARD, Position { epoch: 1, seq })
    }

    #[test]
    fn receivers_between_two_changes_begin_at_the_earlier_one() {
        let (mut feeds, tail) = (Feeds::default(), Tail::new(head(1, 10)));
        assert_eq!(feeds.start(&feed(), &at(9), &head(1, 10), &tail), at(9), "nothing is known");
        feeds.learn(&feed(), &head(1, 10), changed(4));
        for seq in 4..=10 {
            assert_eq!(feeds.start(&feed(), &at(seq), &head(1, 10), &tail), at(4), "{seq}");
        }
        assert_eq!(feeds.start(&feed(), &at(3), &head(1, 10), &tail), at(3));
        assert_eq!(feeds.start(&feed(), &Vector::EMPTY, &head(1, 10), &tail), Vector::EMPTY);

        tail.committed(head(1, 12), moved("other"));
        tail.committed(head(1, 13), moved("app/llm"));
        assert_eq!(feeds.start(&feed(), &at(12), &head(1, 13), &tail), at(4));
        assert_eq!(feeds.digest(&feed(), &head(1, 12), &tail), Some(changed(4)));
        assert_eq!(feeds.digest(&feed(), &head(1, 13), &tail), None, "it moved");
        feeds.learn(&feed(), &head(1, 13), changed(13));
        assert_eq!(feeds.start(&feed(), &at(12), &head(1, 13), &tail), at(4), "as before the change");
        assert_eq!(feeds.start(&feed(), &at(13), &head(1, 13), &tail), at(13));
        assert_eq!(feeds.digest(&feed(), &head(1, 12), &tail), None, "nobody remembers how it was");
    }

    #[test]
    fn a_feed_that_never_changed_is_not_begun_from_nothing() {
        let (mut feeds, tail) = (Feeds::default(), Tail::new(head(1, 10)));
        feeds.learn(&feed(), &head(1, 10), changed(0));
        assert_eq!(feeds.start(&feed(), &at(7), &head(1, 10), &tail), at(1));
    }

    #[test]
    fn nobody_begins_below_the_horizon() {
        let (mut feeds, tail) = (Feeds::default(), Tail::new(head(1, 10)));
        feeds.learn(&feed(), &head(1, 10), changed(4));
        let purged = Head { horizon: 6, ..head(1, 10) };
        assert_eq!(
            feeds.start(&feed(), &at(8), &purged, &tail),
            at(6),
            "4 is known, but deletions after it are gone"
        );
        assert_eq!(feeds.start(&feed(), &at(5), &purged, &tail), Vector::EMPTY);
        assert_eq!(feeds.start(&feed(), &at(8), &Head { horizon: 4, ..head(1, 10) }, &tail), at(4));
    }

    #[test]
    fn another_epoch_forgets_everything() {
        let (mut feeds, tail) = (Feeds::default(), Tail::new(head(1, 10)));
        feeds.learn(&feed(), &head(1, 10), changed(4));
        assert_eq!(feeds.digest(&feed(), &head(2, 10), &tail), None);
    }

    #[test]
    fn a_checkpoint_is_shared_for_a_second() {
        let mut feeds = Feeds::default();
        feeds.learn(&feed(), &head(1, 10), changed(4));
        let mut make = |at: u64, seq: u64, text: &'static str| {
            feeds.checkpoint(&feed(), &head(1, seq), UnixMillis(at), || Bytes::from_static(text.as_bytes()))
        };
        assert_eq!(make(5_000, 10, "one"), "one");
        assert_eq!(make(5_999, 10, "two"), "one");
        assert_eq!(make(6_000, 10, "two"), "two");
        assert_eq!(make(6_000, 11, "three"), "three");
    }
}
