//! The REST API: one contract, served by the hub and the edge, spoken by the client.

pub mod admin;
mod admin_routes;
mod admin_types;
pub mod answer;
pub mod client;
mod conflict_routes;
mod conflict_types;
pub mod conflicts;
pub mod diff;
pub mod duration;
pub mod error;
mod events;
pub mod explain;
pub mod extract;
mod likely;
mod loss_routes;
pub mod losses;
pub mod openapi;
pub mod position;
mod query;
mod receipt_routes;
mod receipt_types;
pub mod receipts;
mod requests;
mod rotation_routes;
mod rotation_types;
pub mod rotations;
pub mod router;
mod secret_values;
pub mod service;
mod sse;
pub mod types;
pub mod undo;
mod value_routes;

pub use sse::{EventReader, ServerEvent};
pub use value_routes::{LIST_LIMIT, LIST_LIMIT_MAX, PAGE_LIMIT, PAGE_LIMIT_MAX};

#[cfg(test)]
mod tests;
