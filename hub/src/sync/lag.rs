//! How far edges are behind: what they were sent and have not made durable yet. An edge to which nothing was to be sent is
//! not behind, however far the hub has come.

use llm_config_shared::time::Instant;

/// A transfer without its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lag {
    pub(super) since: Instant,
    /// From what the edge acknowledged last to where the transfer brings it.
    pub(super) changes: u64,
}

/// Of all edges, those that are the furthest behind; each by its own measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slowest {
    pub(super) changes: u64,
    pub(super) milliseconds: u64,
}

impl Slowest {
    pub(super) fn of(lags: impl IntoIterator<Item = Lag>, now: Instant) -> Self {
        lags.into_iter().fold(Self::default(), |slowest, lag| Self {
            changes: slowest.changes.max(lag.changes),
            milliseconds: slowest.milliseconds.max(now - lag.since),
        })
    }

    pub(super) fn publish(self) {
        metrics::gauge!("sync_lag_entries").set(self.changes as f64);
        metrics::gauge!("sync_lag_milliseconds").set(self.milliseconds as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_by_changes_need_not_be_the_slowest_by_time() {
        let lag = |since, changes| Lag { since: Instant(since), changes };
        let slowest = Slowest::of([lag(100, 2), lag(40, 1), lag(90, 9)], Instant(140));
        assert_eq!(slowest, Slowest { changes: 9, milliseconds: 100 });
        assert_eq!(Slowest::of([], Instant(140)), Slowest::default());
    }
}
