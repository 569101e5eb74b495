//! How much the two halves of replication hold in memory beside what they are there to hold.
//!
//! Whoever is slow or away costs no more for what happens meanwhile: a hub keeps a place for each feed and a bit that says that
//! something is new, an edge at most one transfer on its way in. The simulation checks that after every step.

/// What somebody holds for the other end, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Feeds, each with its places.
    pub feeds: usize,
    /// Messages, requests and batches that wait for something.
    pub waiting: usize,
    /// Entries and rows by name: of a transfer, a comparison or a hand-in that is under way.
    pub entries: usize,
}
