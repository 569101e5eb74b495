//! The port that edges connect to: joining, renewing, and the stream.

use std::time::Duration;

mod bucket;
pub mod call;
pub mod carry;
pub mod enrol;
mod follow;
mod lag;
mod limit;
pub mod listener;
mod measure;
pub mod nonce;
pub mod presence;
mod recheck;
pub mod roster;
mod seats;
pub mod service;
mod session;

/// When to come back after a refusal that passes.
const RETRY_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test that hears another frame fails, whatever it is")]
mod tests;
