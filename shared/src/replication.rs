//! The two halves of replication as state machines without I/O, and the rules that both follow.

pub mod admit;
pub mod backoff;
pub mod carry;
pub mod edge;
pub mod footprint;
pub mod frame;
pub mod hub;
pub mod outbox;
pub mod repair;
pub mod rules;
pub mod seats;
pub mod transfer;
