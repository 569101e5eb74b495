//! Purging deletions: what is taken, what stays of it, and from where on a replica can still be sent changes alone.

use std::sync::Arc;

use crate::entry::{ChangeId, Content, HubRow, Metadata, Row};
use crate::held::{Held, are_in_order};
use crate::name::EntryKey;
use crate::stamp::Stamp;
use crate::store::{Fence, Head};
use crate::time::UnixMillis;
use crate::vector::{Dot, Position, Vector};

/// What is left of a purged tombstone: enough to judge a write whose author never saw the deletion, and to go on
/// counting versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stub {
    pub at: EntryKey,
    pub dot: Dot,
    pub stamp: Stamp,
    pub version: u64,
    pub top_version: u64,
    pub plain_seq: u64,
    /// Where the deletion was admitted first, if that was in another region.
    pub origin: Option<Dot>,
}

impl Stub {
    /// What stays of this row.
    pub fn of(tombstone: &HubRow) -> Self {
        let HubRow { row, top_version, plain_seq, origin, .. } = tombstone;
        Self {
            at: row.at.clone(),
            dot: row.dot,
            stamp: row.stamp,
            version: row.version,
            top_version: *top_version,
            plain_seq: *plain_seq,
            origin: *origin,
        }
    }

    /// The tombstone again, as far as a rule of admission asks for it: so both are judged alike.
    pub fn tombstone(self) -> HubRow {
        let nobody: Arc<str> = "".into();
        let metadata = Metadata {
            created_at: UnixMillis(0),
            created_by: Arc::clone(&nobody),
            updated_at: UnixMillis(0),
            updated_by: nobody,
            tags: Vec::new(),
            description: None,
        };
        HubRow {
            row: Row {
                at: self.at,
                dot: self.dot,
                stamp: self.stamp,
                version: self.version,
                content: Content::Deleted,
                metadata,
                change: ChangeId::UNKNOWN,
            },
            top_version: self.top_version,
            plain_seq: self.plain_seq,
            context: Vector::EMPTY,
            base: None,
            origin: self.origin,
        }
    }
}

/// What a commit does to a stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StubChange {
    /// A row stands in its place again. That row says all that the stub said, so the stub goes.
    Replaced,
    /// A write lost to it and took this version, the highest so far.
    Raised(u64),
}

/// Which tombstones are to be purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purge {
    pub fence: Fence,
    /// Those that the hub admitted then or earlier, the oldest first.
    pub admitted_by: UnixMillis,
    pub limit: usize,
}

/// What a purge did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// How many tombstones are stubs now.
    pub count: usize,
    /// The shard's horizon afterwards.
    pub horizon: u64,
}

impl Head {
    /// What a receiver at `from` is served from: from nothing where deletions are gone that it has not heard of.
    pub fn served_from(&self, from: &Vector) -> Vector {
        if from.seq(self.shard) < self.horizon { Vector::EMPTY } else { from.clone() }
    }

    /// Whether what somebody holds of a transfer that broke off is a ground to go on from: all of it lies in this history, and
    /// every deletion since can still be told.
    pub fn continues(&self, held: &Held) -> bool {
        let head = self.vector();
        let told = |at: &Vector| at.seq(self.shard) >= self.horizon.max(1) && self.epochs.holds(at, &head);
        let spans = &held.spans;
        !spans.is_empty()
            && are_in_order(spans)
            && (held.from.is_empty() || told(&held.from))
            && spans.iter().all(|span| told(&span.to))
    }

    /// Where the part of a receiver at `from` begins that others could share from `shared` on, which is not above `from`.
    /// The horizon is the earliest place: whoever were given a part from below it would miss deletions.
    pub fn shared_from(&self, from: &Vector, shared: Vector) -> Vector {
        let served = self.served_from(from);
        if served.is_empty() {
            return served;
        }
        if shared.seq(self.shard) >= self.horizon {
            return shared;
        }
        Vector::at(self.shard, Position { epoch: self.position.epoch, seq: self.horizon })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::held::Span;
    use crate::stamp::Hlc;
    use crate::vector::{Epoch, EpochTable, Epochs, ShardId};

    const SHARD: ShardId = ShardId(Uuid::from_u128(1));

    fn head(horizon: u64) -> Head {
        let position = Position { epoch: 7, seq: 100 };
        Head {
            shard: SHARD,
            position,
            hlc: Hlc(0),
            horizon,
            epochs: Epochs::default(),
            regions: Vector::EMPTY,
        }
    }

    fn at(seq: u64) -> Vector {
        Vector::at(SHARD, Position { epoch: 7, seq })
    }

    #[test]
    fn who_has_not_heard_of_every_purged_deletion_is_served_from_nothing() {
        assert_eq!(head(40).served_from(&at(39)), Vector::EMPTY);
        assert_eq!(head(40).served_from(&at(40)), at(40));
        assert_eq!(head(40).served_from(&Vector::EMPTY), Vector::EMPTY);
        assert_eq!(head(0).served_from(&at(1)), at(1), "nothing was ever purged");
        let elsewhere = Vector::at(ShardId(Uuid::from_u128(2)), Position { epoch: 7, seq: 90 });
        assert_eq!(head(40).served_from(&elsewhere), Vector::EMPTY, "it has seen nothing of this shard");
    }

    #[test]
    fn a_broken_transfer_goes_on_within_this_history_and_above_the_horizon() {
        let table = EpochTable::new(vec![
            Epoch { ordinal: 1, epoch: 6, start_seq: 0 },
            Epoch { ordinal: 2, epoch: 7, start_seq: 60 },
        ]);
        let head = Head { epochs: Epochs::of(SHARD, table), ..head(40) };
        let before = |seq| Vector::at(SHARD, Position { epoch: 6, seq });
        let held = |from: Vector, to: Vector| Held { from, spans: vec![Span { through: None, to }] };
        assert!(head.continues(&held(Vector::EMPTY, at(90))) && head.continues(&held(before(50), at(90))));
        assert!(head.continues(&held(Vector::EMPTY, before(60))), "of an earlier leadership");
        assert!(!head.continues(&held(Vector::EMPTY, before(39))), "deletions since are gone");
        assert!(!head.continues(&held(before(39), at(90))), "and for the keys that have not come");
        assert!(!head.continues(&held(Vector::EMPTY, before(61))), "beyond the end of that leadership");
        assert!(!head.continues(&held(Vector::EMPTY, at(101))), "this process has not come so far");
        let elsewhere = Vector::at(ShardId(Uuid::from_u128(2)), Position { epoch: 7, seq: 90 });
        assert!(!head.continues(&held(Vector::EMPTY, elsewhere)), "of another region");
        assert!(!head.continues(&Held::default()));
    }

    #[test]
    fn a_shared_part_never_begins_below_the_horizon() {
        assert_eq!(head(40).shared_from(&at(50), at(45)), at(45));
        assert_eq!(head(40).shared_from(&at(50), at(30)), at(40));
        assert_eq!(head(40).shared_from(&at(39), at(30)), Vector::EMPTY);
        assert_eq!(head(0).shared_from(&at(50), at(30)), at(30));
        assert_eq!(head(0).shared_from(&Vector::EMPTY, Vector::EMPTY), Vector::EMPTY);
    }
}
