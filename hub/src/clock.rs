//! The hub's clocks: wall time for people and stamps, a clock that never goes back for deadlines.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use llm_config_shared::time::{Instant, UnixMillis};

/// The wall clock. Before 1970 it is 1970.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Milliseconds since this process first asked.
pub fn instant() -> Instant {
    let since = start().elapsed();
    Instant(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The same instant for the runtime's timers.
pub fn deadline(at: Instant) -> tokio::time::Instant {
    tokio::time::Instant::from_std(start() + Duration::from_millis(at.0))
}

/// How long to wait after so many failures in a row: doubling from `least` up to `most`, with full jitter, so that two who
/// failed together part.
pub fn backoff(failures: u32, least: Duration, most: Duration) -> Duration {
    let bound = least.saturating_mul(1 << failures.min(6)).min(most);
    bound.mul_f64(rand::random::<f64>().max(0.1))
}

fn start() -> std::time::Instant {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    *START.get_or_init(std::time::Instant::now)
}
