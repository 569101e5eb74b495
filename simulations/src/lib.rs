//! A deterministic world for the replication core: the same state machines as in the programs, with disks, streams,
//! clocks and a database that fail in every way that they may, and invariants that are checked from outside.

pub mod disk;
pub mod invariants;
pub mod journal;
pub mod mutants;
pub mod network;
mod regions;
pub mod secrets;
pub mod stats;
pub mod trace;
pub mod truth;
pub mod view;
pub mod world;
