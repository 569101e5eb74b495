//! 9: the horizon never falls, and never goes beyond the head.

use super::{Check, Violation};
use crate::truth::Truth;

/// Something was purged.
///
/// # Errors
/// When the horizon is where it must not be.
pub fn rises(truth: &mut Truth, horizon: u64) -> Check {
    let (before, head) = (std::mem::replace(&mut truth.horizon, horizon), truth.winners.len() as u64);
    if (before..=head).contains(&horizon) {
        return Ok(());
    }
    Err(Violation::new("horizon", format!("it goes from {before} to {horizon} where the head is {head}")))
}
