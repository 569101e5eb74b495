//! The last-write-wins order: a hybrid logical clock and the author of the write.
//!
//! After Kulkarni, Demirbas et al., "Logical Physical Clocks" (2014): physical milliseconds in the high bits, a logical
//! counter in the low 16. A full counter carries into the milliseconds, which keeps the order.

use std::fmt;

use uuid::Uuid;

use crate::time::UnixMillis;

const LOGICAL_BITS: u32 = 16;

/// A hybrid timestamp, below 2^63 so that a database compares it as a signed integer.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The largest that a database can hold.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// The first timestamp of a millisecond.
    pub fn from_physical(at: UnixMillis) -> Self {
        Self(at.0.min(Self::MAX.0 >> LOGICAL_BITS) << LOGICAL_BITS)
    }

    /// The millisecond that it lies in.
    pub fn physical(self) -> UnixMillis {
        UnixMillis(self.0 >> LOGICAL_BITS)
    }

    /// The next larger one.
    pub fn next(self) -> Self {
        Self((self.0 + 1).min(Self::MAX.0))
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.physical().0, self.0 & ((1 << LOGICAL_BITS) - 1))
    }
}

/// Who gives stamps: an edge, or a hub's shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorId(pub Uuid);

/// The identity of one write, given by its author before anybody else sees it.
///
/// In their order the counter comes before the incarnation: a write that waits may take another one of those, and its place
/// among others must not change with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId {
    pub actor: ActorId,
    /// 1, 2, 3… within the incarnation; gaps are allowed.
    pub counter: u64,
    /// Below 2^63. An edge's own, or the epoch of a hub's leader.
    pub incarnation: u64,
}

/// The total order of writes: the larger one wins. Two writes never share one, because the id is part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    pub hlc: Hlc,
    pub id: WriteId,
}

/// A hybrid clock. Reads no clock itself: `physical` is always an argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    last: Hlc,
}

impl Clock {
    /// Goes on where a stored clock was.
    pub fn resume(last: Hlc) -> Self {
        Self { last }
    }

    /// The last timestamp given or received.
    pub fn last(self) -> Hlc {
        self.last
    }

    /// A timestamp above everything given or received before, and not below the physical time.
    pub fn tick(&mut self, physical: UnixMillis) -> Hlc {
        self.last = self.last.next().max(Hlc::from_physical(physical));
        self.last
    }

    /// Everything given later will be above `seen`. A timestamp beyond `bound` is not absorbed: a clock that runs ahead
    /// elsewhere must not carry this one away.
    pub fn receive(&mut self, seen: Hlc, bound: Hlc) {
        if seen <= bound {
            self.last = self.last.max(seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_rise_when_the_physical_clock_stands_still_or_goes_back() {
        let mut clock = Clock::default();
        let first = clock.tick(UnixMillis(1_000));
        let second = clock.tick(UnixMillis(1_000));
        let third = clock.tick(UnixMillis(10));
        assert!(first < second && second < third);
        assert_eq!(first.physical(), UnixMillis(1_000));
    }

    #[test]
    fn what_was_received_is_below_what_follows_unless_it_is_beyond_the_bound() {
        let mut clock = Clock::default();
        let bound = Hlc::from_physical(UnixMillis(5_000));
        clock.receive(Hlc::from_physical(UnixMillis(3_000)), bound);
        clock.receive(Hlc::from_physical(UnixMillis(9_000)), bound);
        assert_eq!(clock.tick(UnixMillis(1)), Hlc::from_physical(UnixMillis(3_000)).next());
    }
}
