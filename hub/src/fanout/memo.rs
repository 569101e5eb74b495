//! Segments that were made, kept while others may need the same; bounded by their bytes.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use llm_config_shared::feed::Feed;
use llm_config_shared::held::Span;
use llm_config_shared::store::Head;
use llm_config_shared::vector::Vector;

/// Most bytes that are kept.
const BYTES_MAX: usize = 64 << 20;
/// What an entry costs beside its segments.
const ENTRY_BYTES: usize = 256;

/// One feed from one position to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Range {
    feed: Feed,
    from_seq: u64,
    to: Vector,
    /// Of a receiver that holds a part of a transfer that broke off.
    continues: Vec<Span>,
}

impl Range {
    pub(super) fn new(feed: &Feed, from: &Vector, to: &Head, continues: &[Span]) -> Self {
        let from_seq = from.seq(to.shard);
        Self { feed: feed.clone(), from_seq, to: to.vector(), continues: continues.to_vec() }
    }
}

/// The newest segments, oldest forgotten first.
#[derive(Default)]
pub(super) struct Memo {
    segments: HashMap<Range, Vec<Bytes>>,
    order: VecDeque<Range>,
    bytes: usize,
}

impl Memo {
    /// The same bytes as for the first who asked.
    pub(super) fn get(&self, range: &Range) -> Option<Vec<Bytes>> {
        self.segments.get(range).cloned()
    }

    pub(super) fn put(&mut self, range: Range, segments: Vec<Bytes>) {
        let added = size(&segments);
        if let Some(before) = self.segments.insert(range.clone(), segments) {
            self.bytes -= size(&before);
        } else {
            self.order.push_back(range);
        }
        self.bytes += added;
        // The newest stays even if it is larger than all that may be kept: somebody is about to send it.
        while self.bytes > BYTES_MAX && self.order.len() > 1 {
            let oldest = self.order.pop_front().expect("there is more than one");
            if let Some(forgotten) = self.segments.remove(&oldest) {
                self.bytes -= size(&forgotten);
            }
        }
    }
}

fn size(segments: &[Bytes]) -> usize {
    ENTRY_BYTES + segments.iter().map(Bytes::len).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use llm_config_shared::name::{Environment, Subtree, Tenant};
    use llm_config_shared::stamp::Hlc;
    use llm_config_shared::vector::{Epochs, Position, ShardId};
    use uuid::Uuid;

    use super::*;

    fn range(to: u64) -> Range {
        let feed = Feed {
            tenant: Tenant::parse("t").unwrap(),
            environment: Environment::base(),
            subtree: Subtree::ALL,
            secrets: true,
        };
        let head = Head {
            shard: ShardId(Uuid::nil()),
            position: Position { epoch: 1, seq: to },
            hlc: Hlc(0),
            horizon: 0,
            epochs: Epochs::default(),
            regions: Vector::EMPTY,
        };
        Range::new(&feed, &Vector::EMPTY, &head, &[])
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_bytes_and_the_newest_never() {
        let mut memo = Memo::default();
        let large = vec![Bytes::from(vec![0; BYTES_MAX / 2])];
        memo.put(range(1), large.clone());
        memo.put(range(1), large.clone());
        assert_eq!(memo.bytes, size(&large), "put twice, counted once");
        memo.put(range(2), large.clone());
        memo.put(range(3), large);
        assert!(memo.get(&range(1)).is_none() && memo.get(&range(2)).is_none());
        assert!(memo.get(&range(3)).is_some());
        memo.put(range(4), vec![Bytes::from(vec![0; BYTES_MAX * 2])]);
        assert!(memo.get(&range(4)).is_some());
        assert_eq!((memo.order.len(), memo.segments.len()), (1, 1));
    }
}
