//! Every form that leaves a process: the REST routes and the sync stream, and the only place that names their types.
//!
//! Servers are generic over traits in domain types, which the hub and the edge implement, so that both serve the same
//! contract and neither knows the other.

pub mod join_token;
pub mod key_statement;
pub mod possession;
pub mod receipt;
pub mod rest;
pub mod sync;
pub mod tls;
