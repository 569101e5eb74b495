//! The hub: holds the truth, orders writes, and streams them to edges.

pub mod api;
pub mod backup;
pub mod clock;
pub mod config;
pub mod data_directory;
pub mod expiry;
pub mod fanout;
pub mod guard;
pub mod home_command;
pub mod http;
pub mod hygiene;
pub mod identity;
pub mod journal;
pub mod key_commands;
pub mod processes;
pub mod receipts;
pub mod regions;
pub mod registry;
pub mod retention;
pub mod rotation;
pub mod secrets;
pub mod server;
mod sources;
pub mod sync;
pub mod tail;
pub mod telemetry;
pub mod writer;
