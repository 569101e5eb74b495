//! The stream between an edge and a hub: frames of the replication core as protobuf, and both ends of the service.

mod client;
mod enrol;
mod entry;
mod frame;
mod repair;
mod server;
mod status;

pub use client::{Client, Dial, HubFrames, SyncError};
pub use enrol::{Challenge, Credentials, EnrollReply, EnrollRequest, RenewReply, RenewRequest};
pub use entry::InvalidMessage;
pub use server::{EdgeFrames, HubOut, Peer, ServeError, ServerLimits, SyncEndpoint, serve};
pub use status::{RefusalKind, SyncRefusal};

/// Generated from `proto/llmconfig/sync/v1/sync.proto`.
#[allow(clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction, warnings)]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/llmconfig.sync.v1.rs"));
}

/// The protocol's descriptors, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sync_descriptors.bin"));

#[cfg(test)]
mod tests;
