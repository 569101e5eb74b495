//! Taking the lead of the shard, at the start and after it was lost.

use std::time::Duration;

use llm_config_shared::replication::admit::Leader;
use llm_config_shared::store::{Head, Journal, JournalError};
use llm_config_shared::vector::ShardId;
use uuid::Uuid;

/// Pauses between attempts: long enough to leave a database that starts alone, short enough for callers that wait.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A leadership that has begun.
pub(super) struct Led {
    pub(super) leader: Leader,
    pub(super) head: Head,
}

/// Begins a leadership under a new random epoch.
pub(super) async fn take<J: Journal>(journal: &J) -> Result<Led, JournalError> {
    let leadership = journal.lead(random_epoch(), ShardId(Uuid::new_v4())).await?;
    let head = journal.head().await?;
    tracing::info!(shard = %leadership.shard.0, seq = leadership.position.seq, "took the lead in writing");
    Ok(Led { leader: Leader::new(&leadership), head })
}

/// Below 2^63, because databases compare epochs as signed integers; never 0, which stands for none.
fn random_epoch() -> u64 {
    (rand::random::<u64>() >> 1).max(1)
}

/// How long to wait before the next attempt: doubling, with full jitter, so that two processes part.
pub(super) fn pause(attempt: u32) -> Duration {
    let bound = PAUSE_MIN.saturating_mul(1 << attempt.min(6)).min(PAUSE_MAX);
    bound.mul_f64(rand::random::<f64>().max(0.1))
}
