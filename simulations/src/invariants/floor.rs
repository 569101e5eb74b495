//! What a hub sends an edge is never older than what any hub told it before.

use super::{Check, Violation};

/// # Errors
/// When a hub serves an edge that has been told of more.
pub fn not_older(edge: usize, told: u64, seq: u64) -> Check {
    if seq >= told {
        return Ok(());
    }
    Err(Violation::new("floor", format!("edge {edge} was told of {told} and is served from {seq}")))
}
