//! Places in the hub's order: shards, epochs, dots and version vectors.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::limits::SHARDS_MAX;

/// One database primary. Its writes have one total order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub Uuid);

/// How far the order of one shard has come, or was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Random id, below 2^63, of the leadership under which `seq` was given.
    pub epoch: u64,
    /// 1, 2, 3… without gaps in commit order; 0 is before everything.
    pub seq: u64,
}

impl Position {
    /// Whether everything up to `other` is included. Positions compare by seq, because both were found valid against
    /// the shard's [`EpochTable`] in the handshake.
    pub fn covers(self, other: Self) -> bool {
        self.seq >= other.seq
    }
}

/// Where the hub put an admitted write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dot {
    pub shard: ShardId,
    pub position: Position,
}

/// What a replica has seen, per shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vector(BTreeMap<ShardId, Position>);

/// A vector with more shards than [`SHARDS_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a version vector names {count} regions; at most {SHARDS_MAX} are allowed")]
pub struct TooManyShards {
    pub count: usize,
}

impl Vector {
    /// Has seen nothing.
    pub const EMPTY: Self = Self(BTreeMap::new());

    /// A vector of one shard.
    pub fn at(shard: ShardId, position: Position) -> Self {
        Self(BTreeMap::from([(shard, position)]))
    }

    /// # Errors
    /// When there are more than [`SHARDS_MAX`].
    pub fn from_positions(
        positions: impl IntoIterator<Item = (ShardId, Position)>,
    ) -> Result<Self, TooManyShards> {
        let positions: BTreeMap<_, _> = positions.into_iter().collect();
        if positions.len() > SHARDS_MAX {
            return Err(TooManyShards { count: positions.len() });
        }
        Ok(Self(positions))
    }

    /// The position in one shard; seq 0 where nothing was seen.
    pub fn seq(&self, shard: ShardId) -> u64 {
        self.0.get(&shard).map_or(0, |position| position.seq)
    }

    /// The position in one shard, if anything of it was seen.
    pub fn get(&self, shard: ShardId) -> Option<Position> {
        self.0.get(&shard).copied()
    }

    /// Whether nothing has been seen.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(|position| position.seq == 0)
    }

    /// Shards and positions in the order of shard ids.
    pub fn iter(&self) -> impl Iterator<Item = (ShardId, Position)> + '_ {
        self.0.iter().map(|(shard, position)| (*shard, *position))
    }

    /// Whether the write at `dot` has been seen.
    pub fn covers_dot(&self, dot: Dot) -> bool {
        self.seq(dot.shard) >= dot.position.seq
    }

    /// Whether `self` has seen everything that `other` has (`other` ⊑ `self`).
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(shard, position)| self.seq(shard) >= position.seq)
    }

    /// The least vector that covers both.
    pub fn join(&mut self, other: &Self) {
        for (shard, position) in other.iter() {
            let mine = self.0.entry(shard).or_insert(position);
            if !mine.covers(position) {
                *mine = position;
            }
        }
    }
}

/// One leadership of a shard: positions under `epoch` are above `start_seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    pub ordinal: u32,
    pub epoch: u64,
    /// The shard's head when this leadership began.
    pub start_seq: u64,
}

/// All leaderships of a shard, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochTable(Vec<Epoch>);

impl EpochTable {
    /// Takes the epochs of a shard in any order.
    pub fn new(mut epochs: Vec<Epoch>) -> Self {
        epochs.sort_by_key(|epoch| epoch.ordinal);
        Self(epochs)
    }

    /// Oldest first.
    pub fn epochs(&self) -> &[Epoch] {
        &self.0
    }

    /// The newest epoch.
    pub fn newest(&self) -> Option<Epoch> {
        self.0.last().copied()
    }

    /// Whether all that somebody was told of lies in this history, of which `head` is the end.
    pub fn holds(&self, told: &Vector, head: &Vector) -> bool {
        let inside = |(shard, position)| self.contains(position, head.seq(shard));
        head.covers(told) && told.iter().all(inside)
    }

    /// How much of what is seen at `position` lies in this history: all of it, or what there was when the next leadership
    /// began. None when nothing is known of its epoch.
    pub fn clamp(&self, position: Position) -> Option<Position> {
        let at = self.0.iter().position(|epoch| epoch.epoch == position.epoch)?;
        let seq = self.0.get(at + 1).map_or(position.seq, |next| position.seq.min(next.start_seq));
        Some(Position { seq, ..position })
    }

    /// Whether `position` lies in the history that this table describes: its epoch is known and its seq is not beyond
    /// the start of the next one. The newest epoch is bounded by `head`, which only the leader knows for certain.
    pub fn contains(&self, position: Position, head: u64) -> bool {
        if position.seq == 0 {
            return true;
        }
        let Some(at) = self.0.iter().position(|epoch| epoch.epoch == position.epoch) else {
            return false;
        };
        let bound = self.0.get(at + 1).map_or(head, |next| next.start_seq);
        position.seq <= bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(n: u128) -> ShardId {
        ShardId(Uuid::from_u128(n))
    }

    fn at(seq: u64) -> Position {
        Position { epoch: 1, seq }
    }

    #[test]
    fn covering_is_a_partial_order_and_join_its_least_upper_bound() {
        let a = Vector::from_positions([(shard(1), at(3)), (shard(2), at(1))]).unwrap();
        let b = Vector::at(shard(1), at(5));
        assert!(!a.covers(&b) && !b.covers(&a));
        let mut joined = a.clone();
        joined.join(&b);
        assert!(joined.covers(&a) && joined.covers(&b));
        assert_eq!((joined.seq(shard(1)), joined.seq(shard(2))), (5, 1));
        assert!(Vector::EMPTY.is_empty() && a.covers(&Vector::EMPTY));
    }

    #[test]
    fn a_position_beyond_the_next_epochs_start_is_not_of_this_history() {
        let epoch = |ordinal, epoch, start_seq| Epoch { ordinal, epoch, start_seq };
        let table = EpochTable::new(vec![epoch(1, 22, 40), epoch(0, 11, 0)]);
        assert!(table.contains(Position { epoch: 11, seq: 40 }, 50));
        assert!(!table.contains(Position { epoch: 11, seq: 41 }, 50));
        assert!(table.contains(Position { epoch: 22, seq: 50 }, 50));
        assert!(!table.contains(Position { epoch: 22, seq: 51 }, 50));
        assert!(!table.contains(Position { epoch: 33, seq: 1 }, 50));
        let clamped = |epoch, seq| table.clamp(Position { epoch, seq }).map(|position| position.seq);
        assert_eq!(
            (clamped(11, 30), clamped(11, 41), clamped(22, 51), clamped(33, 1)),
            (Some(30), Some(40), Some(51), None)
        );
        let told = |epoch, seq| Vector::at(shard(1), Position { epoch, seq });
        assert!(table.holds(&told(11, 40), &told(22, 50)) && !table.holds(&told(11, 41), &told(22, 50)));
        assert!(!table.holds(&told(22, 51), &told(22, 50)) && table.holds(&Vector::EMPTY, &told(22, 50)));
    }
}
