//! What must always hold, whatever goes wrong: numbers as in the table of `simulations/README.md`.
//!
//! Each is checked from outside, against the database's own past and the simulator's knowledge of who had seen what.

pub mod acknowledged;
pub mod admission;
pub mod convergence;
pub mod encodings;
pub mod floor;
pub mod horizon;
pub mod memory;
pub mod once;
pub mod outside;
pub mod reads;
pub mod replays;
pub mod sizes;
pub mod stamps;
pub mod vectors;
pub mod zombies;

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: &'static str,
    pub detail: String,
}

impl Violation {
    pub fn new(invariant: &'static str, detail: String) -> Self {
        Self { invariant, detail }
    }
}

/// Whether an invariant holds.
pub type Check = Result<(), Violation>;
