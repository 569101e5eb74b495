//! The task that forgets keys in time, whether or not somebody asks for a secret.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Due, Offline};
use crate::daemon::notes::{Notes, Topic};
use crate::view::View;

/// The clocks are looked at so often.
const EVERY: Duration = Duration::from_millis(500);

/// Looks at the clocks until told to stop.
pub(crate) async fn watch(
    offline: Arc<Offline>,
    view: Arc<View>,
    notes: Arc<Notes>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match offline.look() {
            Due::Nothing => {}
            Due::Warn { left_ms } => {
                let minutes = left_ms / 60_000;
                tracing::warn!(
                    minutes_left = minutes,
                    "the hub is silent for half of the offline limit; secrets will lock"
                );
                notes.warn(
                    Topic::Offline,
                    "half of the offline limit has passed without the hub; secrets will lock".to_owned(),
                );
            }
            Due::Lock(lock, subtrees) => {
                view.lock_secrets(&subtrees);
                metrics::counter!("sync_secret_locks_total", "reason" => lock.by.code()).increment(1);
                tracing::warn!("{lock}");
                notes.warn(Topic::Offline, lock.to_string());
            }
        }
    }
}
