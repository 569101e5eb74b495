//! What edges know beyond the backup that a hub was restored from: what is done with it, and how much it was.
//!
//! All that edges bring back of one loss is one change, which a person may look at, release or drop as one. Its id follows
//! from the loss, so that it is the same whichever edge comes first.

use std::fmt::Write as _;
use std::sync::Arc;

use uuid::Uuid;

use crate::entry::ChangeId;
use crate::name::Tenant;
use crate::stamp::ActorId;
use crate::store::Loss;
use crate::time::UnixMillis;
use crate::vector::EpochTable;

const CHANGE_IDS: Uuid = uuid::uuid!("a3a86c0e-2f0b-5f0e-9c55-5a1f6f2d7c11");
/// Edges that the change's message names one by one.
const NAMED_MAX: usize = 20;

/// What a restored hub does with writes that it lacks and edges have; chosen when it is restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Newer {
    /// They are counted and kept nowhere.
    #[default]
    Discard,
    /// They wait for a person, as one change.
    Hold,
    /// They are admitted by their own times, as writes of one change.
    Accept,
}

impl Newer {
    /// As people and programs see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discard => "discard",
            Self::Hold => "hold",
            Self::Accept => "accept",
        }
    }

    /// What is done with what comes of a loss that others followed, with these choices. An edge that was cut off meanwhile
    /// cannot say which of them took a write; where they differ, a person decides.
    #[must_use]
    pub fn before(self, later: impl IntoIterator<Item = Self>) -> Self {
        if later.into_iter().all(|choice| choice == self) { self } else { Self::Hold }
    }

    /// The inverse of [`Newer::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Discard, Self::Hold, Self::Accept].into_iter().find(|newer| newer.as_str() == text)
    }
}

impl Loss {
    /// The change that everything belongs to which edges bring back of it.
    pub fn change(&self) -> ChangeId {
        let parts = [self.epoch, self.cut, self.new_epoch].map(u64::to_be_bytes).concat();
        ChangeId(Uuid::new_v5(&CHANGE_IDS, &[self.shard.0.as_bytes().as_slice(), &parts].concat()))
    }
}

/// What became of writes that were handed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The history had them already.
    pub known: u64,
    /// In the history, as the entry's value or as what lost to it.
    pub admitted: u64,
    /// They wait for a person.
    pub held: u64,
    /// In the history as not admitted, because of a policy.
    pub denied: u64,
    /// Kept nowhere, as was chosen when the hub was restored.
    pub discarded: u64,
    /// Kept nowhere: not of what the edge may speak of, or more than is taken of one edge.
    pub refused: u64,
    /// Secrets that this hub cannot open: their key is lost with the rest, or they are not what they are said to be.
    pub left_out: u64,
}

impl Taken {
    /// Each count with its name, in a fixed order.
    pub fn counts(&self) -> [(&'static str, u64); 7] {
        [
            ("known", self.known),
            ("admitted", self.admitted),
            ("held", self.held),
            ("denied", self.denied),
            ("discarded", self.discarded),
            ("refused", self.refused),
            ("left_out", self.left_out),
        ]
    }

    /// How many the hub lacked, as far as it can tell.
    pub fn lacking(&self) -> u64 {
        self.admitted + self.held + self.denied + self.discarded + self.refused + self.left_out
    }

    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.known += other.known;
        self.admitted += other.admitted;
        self.held += other.held;
        self.denied += other.denied;
        self.discarded += other.discarded;
        self.refused += other.refused;
        self.left_out += other.left_out;
    }
}

/// What one edge has handed in of one loss so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    pub tenant: Tenant,
    /// Which loss: the leadership that began after it.
    pub new_epoch: u64,
    pub edge: ActorId,
    /// The edge's name, for people.
    pub name: Arc<str>,
    pub taken: Taken,
    /// About how many, of what was kept.
    pub bytes: u64,
}

/// A loss as the hub that had it knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub loss: Loss,
    /// With the choices of the losses after it: see [`Newer::before`].
    pub newer: Newer,
    pub restored_at: UnixMillis,
    pub epochs: EpochTable,
    /// Of one tenant.
    pub tallies: Vec<Tally>,
}

/// What the loss's change says of itself.
pub fn message(restored_at: UnixMillis, tallies: &[Tally]) -> Arc<str> {
    let mut text =
        format!("brought back by edges after the hub was restored on {}:", restored_at.to_rfc3339());
    let kept = |tally: &Tally| tally.taken.admitted + tally.taken.held + tally.taken.denied;
    let mut edges: Vec<&Tally> = tallies.iter().filter(|tally| kept(tally) > 0).collect();
    edges.sort_by(|a, b| a.name.cmp(&b.name));
    let named = edges.len().min(NAMED_MAX);
    for (n, tally) in edges[..named].iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        // Writing to a text cannot fail.
        let _ = write!(text, "{comma} {} by {}", kept(tally), tally.name);
    }
    if edges.len() > named {
        let rest: u64 = edges[named..].iter().map(|tally| kept(tally)).sum();
        let _ = write!(text, ", {rest} by {} others", edges.len() - named);
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::ShardId;

    fn tally(name: &str, held: u64) -> Tally {
        Tally {
            tenant: Tenant::parse("t").unwrap(),
            new_epoch: 22,
            edge: ActorId(Uuid::from_u128(held.into())),
            name: name.into(),
            taken: Taken { held, known: 7, ..Taken::default() },
            bytes: 0,
        }
    }

    #[test]
    fn a_choice_is_read_as_it_was_written() {
        for newer in [Newer::Discard, Newer::Hold, Newer::Accept] {
            assert_eq!(Newer::parse(newer.as_str()), Some(newer));
        }
        assert_eq!((Newer::parse("keep"), Newer::default()), (None, Newer::Discard));
    }

    #[test]
    fn where_the_choices_of_several_losses_differ_a_person_decides() {
        for newer in [Newer::Discard, Newer::Hold, Newer::Accept] {
            assert_eq!((newer.before([]), newer.before([newer, newer])), (newer, newer));
        }
        assert_eq!(Newer::Discard.before([Newer::Discard, Newer::Accept]), Newer::Hold);
        assert_eq!(Newer::Accept.before([Newer::Discard]), Newer::Hold);
    }

    #[test]
    fn the_change_follows_from_the_loss_alone() {
        let loss = Loss { shard: ShardId(Uuid::from_u128(1)), epoch: 11, cut: 40, new_epoch: 22 };
        assert_eq!(loss.change(), Loss { ..loss }.change());
        assert_ne!(loss.change(), Loss { new_epoch: 23, ..loss }.change());
        assert_ne!(loss.change(), Loss { cut: 41, ..loss }.change());
    }

    #[test]
    fn the_message_counts_per_edge_what_was_kept_and_does_not_grow_with_the_fleet() {
        let two = [tally("e2", 4), tally("e1", 12), tally("e0", 0)];
        let said = message(UnixMillis(0), &two);
        assert_eq!(
            &*said,
            "brought back by edges after the hub was restored on 1970-01-01T00:00:00.000Z: 12 by e1, 4 by e2"
        );
        let many: Vec<Tally> = (0..1_000).map(|n| tally(&format!("e{n:04}"), 1)).collect();
        let said = message(UnixMillis(0), &many);
        assert!(said.ends_with("1 by e0019, 980 by 980 others") && said.len() < 500, "{said}");
    }
}
