//! What makes several regions one fleet: the tables beside the entries (tenants, tokens, edges, …), which every region keeps
//! and reads from every other.
//!
//! One region is the home of these tables: what has to be decided once (a name that is free, a use of a token) is decided
//! there. What only takes away is done wherever it is asked. So rows can be taken over in any order, from anybody, as often
//! as one likes: a row that is only ever made or ended stays as far as it has come, and of others the later word counts.

use crate::stamp::ActorId;
use crate::vector::ShardId;

/// Most rows of one page, but for those that they refer to.
pub const FLEET_ROWS_MAX: usize = 256;

/// What a row is about. In this order each may be put where those before it are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Tenant,
    Environment,
    Policy,
    OfflineLimit,
    Token,
    JoinToken,
    /// An edge was removed. Before the edges: another one may have its name.
    Removal,
    Edge,
    /// The key that an edge's grants are sealed to; whoever it renews at writes it.
    SealingKey,
    /// What a lost edge could read, as it was stated.
    Loss,
    /// An edge's word that its data is destroyed.
    Wipe,
    /// A key that was handed to an edge, in whatever region.
    Grant,
}

/// Which of two states of a row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The one that was said later.
    Later,
    /// It is made once; once it has ended it never comes back.
    Once,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Self; 12] = [
        Self::Tenant,
        Self::Environment,
        Self::Policy,
        Self::OfflineLimit,
        Self::Token,
        Self::JoinToken,
        Self::Removal,
        Self::Edge,
        Self::SealingKey,
        Self::Loss,
        Self::Wipe,
        Self::Grant,
    ];

    /// As it is stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Environment => "environment",
            Self::Policy => "policy",
            Self::OfflineLimit => "offline_limit",
            Self::Token => "token",
            Self::JoinToken => "join_token",
            Self::Edge => "edge",
            Self::SealingKey => "sealing_key",
            Self::Removal => "removal",
            Self::Loss => "loss",
            Self::Wipe => "wipe",
            Self::Grant => "grant",
        }
    }

    /// None for what this program does not know.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// How its rows are taken over.
    pub fn rule(self) -> Rule {
        match self {
            Self::Tenant
            | Self::Environment
            | Self::Policy
            | Self::OfflineLimit
            | Self::JoinToken
            | Self::Edge
            | Self::SealingKey => Rule::Later,
            Self::Token | Self::Removal | Self::Loss | Self::Wipe | Self::Grant => Rule::Once,
        }
    }
}

/// When something was said: a later home before the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    /// How often a region had been made the home.
    pub term: u64,
    /// Microseconds, above everything that the region had heard.
    pub at: u64,
}

/// How far a row has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub said: Said,
    /// There was one, and it was taken away.
    pub ended: bool,
}

impl State {
    /// Whether a row is changed by what another region has of it.
    pub fn counts(self, rule: Rule, here: Option<Self>) -> bool {
        let Some(here) = here else { return true };
        match rule {
            Rule::Later => self.said > here.said,
            Rule::Once => self.ended && !here.ended,
        }
    }
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

/// One row, as another region is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetRow {
    pub kind: Kind,
    /// Which of its kind.
    pub id: String,
    pub said: Said,
    /// None: it has ended.
    pub cells: Option<Vec<Cell>>,
}

impl FleetRow {
    /// How far the row has come there.
    pub fn state(&self) -> State {
        State { said: self.said, ended: self.cells.is_none() }
    }
}

/// Which region decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    pub region: ShardId,
    /// How often a region was made the home: the larger counts.
    pub term: u64,
}

/// What one region makes of another's word of who the home is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Agreed,
    /// The other knows of a later one.
    Later,
    /// The other has not heard yet.
    Earlier,
    /// Two were made the home at once, or none ever was: somebody has to choose.
    Contested,
}

impl Home {
    /// What `other` says, heard by whoever holds this to be the home.
    pub fn hears(self, other: Self) -> Heard {
        match other.term.cmp(&self.term) {
            std::cmp::Ordering::Greater => Heard::Later,
            std::cmp::Ordering::Less => Heard::Earlier,
            std::cmp::Ordering::Equal if other.region == self.region => Heard::Agreed,
            std::cmp::Ordering::Equal => Heard::Contested,
        }
    }
}

/// Part of a region's rows, in the order in which they changed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetPage {
    pub region: ShardId,
    pub home: Home,
    pub rows: Vec<FleetRow>,
    /// Where to go on. Less than what was asked for: the region was set back, and has to be read anew.
    pub read: u64,
    /// There are more.
    pub more: bool,
}

/// Which edges are connected to a region, told to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionSeats {
    /// How far the region's own order has come.
    pub head: u64,
    /// How much of the asker's order is in that.
    pub has: u64,
    /// What each has acknowledged of the region's own order.
    pub edges: Vec<(ActorId, u64)>,
}

/// From what edges acknowledged in another region's order to what they have of one's own: whoever has all that the other had
/// at some moment has what that had of us.
#[derive(Clone, Debug, Default)]
pub struct Marks(std::collections::VecDeque<(u64, u64)>);

impl Marks {
    /// So many moments are remembered: edges that are further behind count as if they had nothing.
    const MAX: usize = 24;

    /// How far the other was at a moment, and how much it had of our order then.
    pub fn note(&mut self, head: u64, has: u64) {
        if self.0.back().is_some_and(|(last, _)| *last > head) {
            self.0.clear();
        }
        if self.0.back() != Some(&(head, has)) {
            self.0.push_back((head, has));
        }
        if self.0.len() > Self::MAX {
            self.0.pop_front();
        }
    }

    /// How much of our order an edge has that acknowledged so much of the other's; 0 where that is not known.
    pub fn ours(&self, acknowledged: u64) -> u64 {
        let reached = self.0.iter().filter(|(head, _)| *head <= acknowledged);
        reached.map(|(_, has)| *has).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(term: u64, at: u64, ended: bool) -> State {
        State { said: Said { term, at }, ended }
    }

    #[test]
    fn of_what_changes_the_later_word_counts_and_a_later_home_before_the_clock() {
        let here = Some(state(1, 50, false));
        assert!(state(1, 51, false).counts(Rule::Later, here));
        assert!(!state(1, 50, false).counts(Rule::Later, here), "the same");
        assert!(!state(1, 49, true).counts(Rule::Later, here));
        assert!(state(2, 1, true).counts(Rule::Later, here));
        assert!(state(0, 0, false).counts(Rule::Later, None));
    }

    #[test]
    fn what_has_ended_never_comes_back_and_ends_wherever_it_is_heard() {
        let (made, ended) = (state(1, 50, false), state(1, 10, true));
        assert!(ended.counts(Rule::Once, Some(made)), "however early it was said");
        assert!(!state(9, 99, false).counts(Rule::Once, Some(ended)));
        assert!(!ended.counts(Rule::Once, Some(ended)));
        assert!(!state(2, 60, false).counts(Rule::Once, Some(made)), "it does not change");
        assert!(ended.counts(Rule::Once, None), "it must not be made by an older copy");
    }

    #[test]
    fn the_later_home_counts_and_two_at_once_wait_for_somebody() {
        let home = |region, term| Home { region: ShardId(uuid::Uuid::from_u128(region)), term };
        assert_eq!(home(1, 1).hears(home(1, 1)), Heard::Agreed);
        assert_eq!(home(1, 1).hears(home(2, 2)), Heard::Later);
        assert_eq!(home(2, 2).hears(home(1, 1)), Heard::Earlier);
        assert_eq!(home(1, 2).hears(home(2, 2)), Heard::Contested);
    }

    #[test]
    fn an_edge_has_of_our_order_what_the_other_region_had_when_it_was_as_far() {
        let mut marks = Marks::default();
        assert_eq!(marks.ours(1_000), 0);
        marks.note(10, 5);
        marks.note(20, 9);
        assert_eq!([9, 10, 19, 20, 99].map(|acknowledged| marks.ours(acknowledged)), [0, 5, 5, 9, 9]);
        for n in 0..100 {
            marks.note(30 + n, 10 + n);
        }
        assert_eq!((marks.ours(20), marks.ours(129)), (0, 109), "only the last ones are remembered");
        marks.note(3, 1);
        assert_eq!(marks.ours(129), 1, "it was set back, and counts anew");
    }

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()), Some(kind));
        }
        assert!(Kind::ALL.is_sorted() && Kind::parse("session").is_none());
    }
}
