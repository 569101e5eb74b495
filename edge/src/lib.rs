//! The edge: a replica of what it subscribes to, served to the programs beside it, with or without a network.

pub mod authorities;
pub mod clock;
pub mod daemon;
pub mod identity;
pub mod join;
pub mod keeper;
pub mod keys;
mod link;
pub mod memory;
pub mod offline;
pub mod rekey;
mod renewal;
pub mod run;
pub mod serve;
pub mod status;
pub mod store;
pub mod telemetry;
mod uses;
pub mod view;
pub mod wipe;
