//! Deletions that are older than the retention are purged, between two commits, by whoever believes to lead.

use llm_config_shared::store::purge::{Purge, StubChange};
use llm_config_shared::store::{Commit, Journal, JournalError};
use llm_config_shared::time::UnixMillis;
use rand::RngExt;

use super::{Event, World};
use crate::invariants::{Check, Violation, horizon};
use crate::journal::ready;

impl World {
    pub(super) fn look_for_old_deletions(&mut self) -> Check {
        let pause = self.rng.random_range(100..2_500);
        self.schedule(pause, Event::Purge);
        for hub in 0..self.hubs.len() {
            let process = &mut self.hubs[hub];
            if process.up && process.leader.is_some() && process.paused_until <= self.now {
                process.writer.wants_to_purge();
                self.begin_commit(hub);
            }
        }
        Ok(())
    }

    /// What a process wants purged, when its writer comes to it.
    pub(super) fn old_deletions(&mut self, hub: usize) -> Option<Purge> {
        let fence = self.hubs[hub].leader.as_ref()?.fence();
        let admitted_by = UnixMillis(self.hub_wall(hub).0 - self.retention_ms);
        Some(Purge { fence, admitted_by, limit: self.rng.random_range(1..6) })
    }

    /// The purge reaches the database.
    pub(super) fn purge(&mut self, hub: usize, purge: &Purge) -> Result<Result<(), JournalError>, Violation> {
        let purged = match ready(self.journal.purge(purge)) {
            Ok(purged) => purged,
            Err(JournalError::Fenced) => {
                self.stats.count("fenced purges");
                return Ok(Err(JournalError::Fenced));
            }
            Err(error) => return Err(Violation::new("order", format!("hub {hub}: {error}"))),
        };
        self.stats.add("deletions purged", purged.count as u64);
        if purged.count > 0 {
            self.trace.write(self.now, format_args!("hub {hub} purges {purged:?}"));
        }
        horizon::rises(&mut self.truth, purged.horizon)?;
        Ok(Ok(()))
    }

    /// Writes of a commit that met a purged deletion.
    pub(super) fn count_stubs(&mut self, commit: &Commit) {
        for (_, change) in &commit.stubs {
            self.stats.count(match change {
                StubChange::Replaced => "writes that followed a purged deletion",
                StubChange::Raised(_) => "writes that lost to a purged deletion",
            });
        }
    }
}
