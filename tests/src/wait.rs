//! The only wait that a test may do: for a condition, with a deadline.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Far beyond what anything here needs on a busy machine: reaching it means that it will never happen.
const DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Asks again and again until the answer is `Ok`, and gives what it holds.
///
/// # Panics
/// After a minute, with what was waited for and the last answer that was not it.
#[track_caller]
pub fn eventually<T, E: Debug>(
    what: &str,
    ask: impl AsyncFnMut() -> Result<T, E>,
) -> impl Future<Output = T> {
    within(DEADLINE, what, ask)
}

/// The same with a deadline that is promised.
///
/// # Panics
/// After the deadline, with what was waited for and the last answer that was not it.
#[track_caller]
pub fn within<T, E: Debug>(
    deadline: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, E>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let began = Instant::now();
        loop {
            match ask().await {
                Ok(found) => return found,
                Err(last) if began.elapsed() > deadline => {
                    panic!("{caller}: not within {deadline:?}: {what}; at last {last:?}")
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}
