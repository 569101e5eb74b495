//! Places in the hub's order: shards, epochs, dots and version vectors.

use std::cmp::Ordering;
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

    /// The same with this position of this shard.
    #[must_use]
    pub fn with(mut self, shard: ShardId, position: Position) -> Self {
        self.0.insert(shard, position);
        self
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

    /// Which leadership this was, counted from the first.
    pub fn ordinal(&self, epoch: u64) -> Option<u32> {
        self.0.iter().find(|known| known.epoch == epoch).map(|known| known.ordinal)
    }

    /// The leadership under which `seq` was given; 0 when there was none yet.
    pub fn epoch_of(&self, seq: u64) -> u64 {
        self.0.iter().rev().find(|epoch| epoch.start_seq < seq).map_or(0, |epoch| epoch.epoch)
    }

    /// The newest epoch.
    pub fn newest(&self) -> Option<Epoch> {
        self.0.last().copied()
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

/// The leaderships of the shards that a hub knows: its own, and those that it follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    tables: BTreeMap<ShardId, EpochTable>,
    /// How far leaderships of followed shards are had here that their own hub has lost the end of since.
    kept: BTreeMap<(ShardId, u64), u64>,
}

impl Epochs {
    /// Of one shard.
    pub fn of(shard: ShardId, table: EpochTable) -> Self {
        Self { tables: BTreeMap::from([(shard, table)]), kept: BTreeMap::new() }
    }

    /// From their parts: tables, and what is kept of leaderships beyond their end.
    pub fn from_parts(
        tables: impl IntoIterator<Item = (ShardId, EpochTable)>,
        kept: impl IntoIterator<Item = Dot>,
    ) -> Self {
        let kept = kept.into_iter().map(|dot| ((dot.shard, dot.position.epoch), dot.position.seq));
        Self { tables: tables.into_iter().collect(), kept: kept.collect() }
    }

    /// The same with another shard.
    #[must_use]
    pub fn with(mut self, shard: ShardId, table: EpochTable) -> Self {
        self.tables.insert(shard, table);
        self
    }

    /// Those of one shard; none where the hub does not know it.
    pub fn get(&self, shard: ShardId) -> Option<&EpochTable> {
        self.tables.get(&shard)
    }

    /// By shard.
    pub fn iter(&self) -> impl Iterator<Item = (ShardId, &EpochTable)> {
        self.tables.iter().map(|(shard, table)| (*shard, table))
    }

    /// How far leaderships are had here beyond their end.
    pub fn kept(&self) -> impl Iterator<Item = Dot> {
        let dot = |((shard, epoch), seq): (&(ShardId, u64), &u64)| Dot {
            shard: *shard,
            position: Position { epoch: *epoch, seq: *seq },
        };
        self.kept.iter().map(dot)
    }

    /// Whether `position` lies in what is known of the shard's history, which ends at `head`.
    pub fn contains(&self, shard: ShardId, position: Position, head: u64) -> bool {
        let known = self.get(shard).is_some_and(|table| table.contains(position, head));
        known || position.seq == 0 || self.keeps(shard, position)
    }

    fn keeps(&self, shard: ShardId, position: Position) -> bool {
        self.kept.get(&(shard, position.epoch)).is_some_and(|seq| position.seq <= *seq)
    }

    /// How much of what is seen at `position` lies in the shard's history: see [`EpochTable::clamp`].
    pub fn clamp(&self, shard: ShardId, position: Position) -> Option<Position> {
        self.get(shard)?.clamp(position)
    }

    /// Whether all that somebody was told of lies in these histories, as far as `head` has come in each. A place of an
    /// earlier leadership does if that had come so far; of a later one than `head`'s, nothing is known.
    pub fn holds(&self, told: &Vector, head: &Vector) -> bool {
        let reached = |shard: ShardId, position: Position| {
            if self.keeps(shard, position) {
                return Some(true);
            }
            let (table, end) = (self.get(shard)?, head.get(shard)?);
            Some(match table.ordinal(position.epoch)?.cmp(&table.ordinal(end.epoch)?) {
                Ordering::Less => self.contains(shard, position, end.seq),
                Ordering::Equal => end.covers(position),
                Ordering::Greater => false,
            })
        };
        told.iter().all(|(shard, position)| position.seq == 0 || reached(shard, position) == Some(true))
    }

    /// Whether the shard's own hub has lost this place, as far as is known here, and it is not here either.
    pub fn is_cut(&self, shard: ShardId, position: Position) -> bool {
        let end = self.clamp(shard, position);
        end.is_some_and(|end| end.seq < position.seq) && !self.keeps(shard, position)
    }

    /// Where a followed shard's leaderships ended: the places up to which each is known, and what came after it.
    pub fn ends(&self, shard: ShardId) -> impl Iterator<Item = (Position, u64)> {
        let epochs = self.get(shard).map_or(&[][..], EpochTable::epochs);
        let end = |pair: &[Epoch]| (Position { epoch: pair[0].epoch, seq: pair[1].start_seq }, pair[1].epoch);
        epochs.windows(2).map(end)
    }

    /// Whether what is at `dot` is part of what `vector` has. Numbers alone do not say so: a hub that lost the end of a
    /// leadership gives them again under the next.
    pub fn has_seen(&self, vector: &Vector, dot: Dot) -> bool {
        let Some(at) = vector.get(dot.shard).filter(|at| at.covers(dot.position)) else { return false };
        if at.epoch == dot.position.epoch {
            return true;
        }
        let Some(table) = self.get(dot.shard) else { return false };
        match (table.ordinal(dot.position.epoch), table.ordinal(at.epoch)) {
            (Some(earlier), Some(later)) => {
                earlier < later && table.clamp(dot.position) == Some(dot.position)
            }
            // A leadership that is lost as a whole, or one that nobody here has heard of.
            (None, _) | (_, None) => false,
        }
    }

    /// Takes in how a followed shard's hub describes its leaderships, after this one had come to `claimed` of it. What that
    /// hub has lost since is still here.
    pub fn learn(&mut self, shard: ShardId, told: &EpochTable, claimed: Option<Position>) {
        self.tables.insert(shard, told.clone());
        let lost = |claimed: &Position| told.clamp(*claimed).is_none_or(|end| end.seq < claimed.seq);
        if let Some(claimed) = claimed.filter(lost) {
            let kept = self.kept.entry((shard, claimed.epoch)).or_default();
            *kept = claimed.seq.max(*kept);
        }
    }

    /// Takes in what a third hub knows of a shard's leaderships, if that only adds to what is known here. Of two accounts that
    /// differ, one is from before the shard's hub lost a part of its history, and only that hub knows which.
    pub fn hear(&mut self, shard: ShardId, told: &EpochTable) -> bool {
        let known = self.tables.entry(shard).or_default();
        let same = known.0.iter().zip(&told.0).all(|(known, told)| known == told);
        if same && told.0.len() > known.0.len() {
            known.clone_from(told);
        }
        same
    }

    /// Takes in what another hub keeps, of whose order all is here. Not of `own`: what this hub has lost comes back to it under
    /// new numbers, and who has seen the old ones must hear of that.
    pub fn keep(&mut self, other: &Self, own: ShardId) {
        for (place, seq) in other.kept.iter().filter(|((shard, _), _)| *shard != own) {
            let kept = self.kept.entry(*place).or_default();
            *kept = (*seq).max(*kept);
        }
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
        let known = Epochs::of(shard(1), table);
        assert!(known.holds(&told(11, 40), &told(22, 50)) && !known.holds(&told(11, 41), &told(22, 50)));
        assert!(!known.holds(&told(22, 51), &told(22, 50)) && known.holds(&Vector::EMPTY, &told(22, 50)));
        let elsewhere = Vector::at(shard(2), Position { epoch: 11, seq: 1 });
        assert!(!known.holds(&elsewhere, &elsewhere), "nothing is known of that shard");
    }
}
