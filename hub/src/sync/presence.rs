//! When each edge was last heard and what it acknowledged: kept in memory, written down many at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use llm_config_shared::stamp::ActorId;
use llm_config_shared::time::UnixMillis;

use crate::registry::Registry;

/// How often it is written down: the database must not see every acknowledgement.
pub const WRITE_EVERY: Duration = Duration::from_secs(5);

/// What was heard since it was last written down.
#[derive(Default)]
pub struct Presence {
    heard: Mutex<HashMap<ActorId, Heard>>,
}

#[derive(Clone, Copy)]
struct Heard {
    at: UnixMillis,
    acknowledged_seq: u64,
}

impl Presence {
    /// The edge has said something; `acknowledged_seq` is what it has durably, as far as the session knows.
    pub fn heard(&self, edge: ActorId, at: UnixMillis, acknowledged_seq: u64) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = heard.entry(edge).or_insert(Heard { at, acknowledged_seq });
        entry.at = entry.at.max(at);
        entry.acknowledged_seq = entry.acknowledged_seq.max(acknowledged_seq);
    }

    /// Writes down what was heard. What cannot be written is kept for the next time, behind what was heard since.
    pub async fn write_down<R: Registry>(&self, registry: &R) {
        let heard = std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        if heard.is_empty() {
            return;
        }
        let rows: Vec<_> =
            heard.iter().map(|(edge, heard)| (*edge, heard.at, heard.acknowledged_seq)).collect();
        if let Err(error) = registry.touch_edges(&rows).await {
            tracing::debug!(%error, "cannot write down which edges were heard");
            for (edge, at, acknowledged_seq) in rows {
                self.heard(edge, at, acknowledged_seq);
            }
        }
    }
}
