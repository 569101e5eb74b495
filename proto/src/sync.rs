//! The stream between an edge and a hub, and what the processes of one hub say to one another: the core's own types as
//! protobuf, and both ends of the services.

mod carried;
mod client;
mod enrol;
mod entry;
mod fleet;
mod frame;
mod hubs;
mod hubs_client;
mod region_keys;
mod regions;
mod repair;
mod server;
mod status;

pub use carried::{InvalidPiece, Piece};
pub use client::{Client, Dial, HubFrames, SyncError};
pub use enrol::{
    Challenge, Credentials, EnrollReply, EnrollRequest, RenewReply, RenewRequest, SignedRemoval, WipeReport,
};
pub use entry::InvalidMessage;
pub use fleet::{JoinRefused, Joined, PassedJoin};
pub use hubs::{Asker, PassedRequest};
pub use hubs_client::HubsClient;
pub use server::{EdgeFrames, HubOut, HubsEndpoint, Peer, ServeError, ServerLimits, SyncEndpoint, serve};
pub use status::{RefusalKind, SyncRefusal};

/// Generated from the files of `proto/llmconfig/sync/v1`.
#[allow(clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction, warnings)]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/llmconfig.sync.v1.rs"));
}

/// The protocol's descriptors, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sync_descriptors.bin"));

#[cfg(test)]
mod tests;
