//! Deletions that everybody has had time to hear of are purged: every few minutes, a few at a time, through the writer.
//!
//! Every process does this; the writer of one that does not lead declines. So whoever leads purges.

use std::time::Duration;

use llm_config_shared::limits::PURGE_ROWS_MAX;
use llm_config_shared::time::UnixMillis;
use tokio_util::sync::CancellationToken;

use crate::config::Retention;
use crate::writer::{WriteError, WriterHandle};

/// From one look for old deletions to the next.
const PASS_EVERY: Duration = Duration::from_secs(600);
/// Between two batches of one pass, so that writers and replicas of the database keep pace.
const PAUSE: Duration = Duration::from_secs(1);

/// Purges until `stop`, beginning at once.
pub async fn keep(
    writer: WriterHandle,
    retention: Retention,
    clock: impl Fn() -> UnixMillis,
    stop: CancellationToken,
) {
    let Some(kept) = retention.deleted else { return };
    let passes = async {
        let mut ticks = tokio::time::interval(PASS_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            pass(&writer, older_than(kept, clock())).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = passes => {}
    }
}

fn older_than(kept: Duration, now: UnixMillis) -> UnixMillis {
    let kept_ms = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
    UnixMillis(now.0.saturating_sub(kept_ms))
}

/// Everything that was deleted by then, batch by batch.
async fn pass(writer: &WriterHandle, admitted_by: UnixMillis) {
    loop {
        match writer.purge(admitted_by, PURGE_ROWS_MAX).await {
            Ok(0) => return,
            Ok(count) => {
                metrics::counter!("hub_purged_deletions_total").increment(count as u64);
                tracing::info!(count, "old deletions were purged");
                if count < PURGE_ROWS_MAX {
                    return;
                }
            }
            Err(WriteError::Moved) => return,
            Err(error) => {
                tracing::warn!(%error, "old deletions could not be purged");
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_younger_than_the_retention_is_not_asked_for() {
        let day = Duration::from_secs(86_400);
        assert_eq!(older_than(30 * day, UnixMillis(40 * 86_400_000)), UnixMillis(10 * 86_400_000));
        assert_eq!(older_than(Duration::ZERO, UnixMillis(5)), UnixMillis(5), "at once");
        assert_eq!(older_than(30 * day, UnixMillis(5)), UnixMillis(0), "a clock that says nothing yet");
    }
}
