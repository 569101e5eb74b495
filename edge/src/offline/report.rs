//! The offline limit as `edge status` and `/metrics` tell it.

use serde::Serialize;

use super::Offline;

/// How this edge's secrets are doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecretsStatus {
    /// What becomes of them at a start without the hub: `never`, `file` or `tpm`.
    pub offline_restart: &'static str,
    /// Whether any may be opened now.
    pub open: bool,
    /// How long they stay open without the hub, where that is longest and where it is shortest; none before the hub said.
    pub limit_ms: Option<u64>,
    pub shortest_limit_ms: Option<u64>,
    /// Until the next of them lock, and until the last, if the hub stays silent.
    pub locks_in_ms: Option<u64>,
    pub all_lock_in_ms: Option<u64>,
    /// Since the hub was heard, by whichever clock says most.
    pub silent_ms: Option<u64>,
    pub locked_since: Option<String>,
    /// `offline_limit`, `offline_restart`, `offline_reboots` or `never_reached`.
    pub locked_by: Option<&'static str>,
}

impl Offline {
    /// How secrets are doing now.
    pub fn report(&self) -> SecretsStatus {
        let now = (self.clocks)();
        let mut state = self.state();
        let gate = &mut state.gate;
        let silent_ms = gate.silent_ms(now);
        let (longest_ms, shortest_ms) = gate.limits().extremes();
        let lock = gate.lock(silent_ms, longest_ms, None);
        let left = |limit_ms: u64| limit_ms.checked_sub(silent_ms?).filter(|left_ms| *left_ms > 0);
        let lefts =
            || gate.limits().iter().filter_map(|(_, limit_ms)| left(limit_ms)).filter(|_| lock.is_none());
        let known = |limit_ms| gate.contact().map(|_| limit_ms);
        SecretsStatus {
            offline_restart: self.restart.as_str(),
            open: lock.is_none(),
            limit_ms: known(longest_ms),
            shortest_limit_ms: known(shortest_ms),
            locks_in_ms: lefts().min(),
            all_lock_in_ms: lefts().max(),
            silent_ms,
            locked_since: lock.map(|lock| lock.since.to_rfc3339()),
            locked_by: lock.map(|lock| lock.by.code()),
        }
    }
}
