//! Old deletions become stubs. Who looks from outside still sees what they were.

use llm_config_shared::entry::HubRow;
use llm_config_shared::name::EntryKey;
use llm_config_shared::store::purge::{Purge, Purged, Stub, StubChange};
use llm_config_shared::store::{Commit, JournalError};
use llm_config_shared::time::UnixMillis;

use super::state::{Mark, State};

impl State {
    pub(super) fn stub(&self, at: &EntryKey, version: usize) -> Option<&Stub> {
        self.stubs.get(at)?.at(version)?.as_ref()
    }

    /// As one version of its own, if there is anything to purge.
    pub(super) fn purge(&mut self, purge: &Purge, fenced: bool) -> Result<Purged, JournalError> {
        let head = self.fence(&purge.fence, fenced)?;
        let old: Vec<Stub> = self.old_deletions(purge.admitted_by).take(purge.limit).map(Stub::of).collect();
        if old.is_empty() {
            return Ok(Purged { count: 0, horizon: head.horizon });
        }
        let newest = old.iter().map(|stub| stub.dot.position.seq).max();
        let horizon = head.horizon.max(newest.unwrap_or(0));
        let (version, count) = (self.versions() + 1, old.len());
        for stub in old {
            self.stubs.entry(stub.at.clone()).or_default().put(version, Some(stub));
        }
        self.marks.push(Mark { horizon, ..head });
        Ok(Purged { count, horizon })
    }

    /// The oldest first.
    fn old_deletions(&self, admitted_by: UnixMillis) -> impl Iterator<Item = &HubRow> {
        let current = self.rows.keys().filter_map(|at| self.row(at, self.versions()));
        let deleted = current.filter(|row| !row.row.content.is_live());
        let mut old: Vec<(UnixMillis, &HubRow)> = deleted
            .map(|row| (self.admitted[&row.row.at], row))
            .filter(|(at, _)| *at <= admitted_by)
            .collect();
        old.sort_by_key(|(at, row)| (*at, row.row.dot.position.seq));
        old.into_iter().map(|(_, row)| row)
    }

    /// What a commit does to stubs that exist.
    pub(super) fn change_stubs(&mut self, commit: &Commit, version: usize) {
        for (at, change) in &commit.stubs {
            let cell = self.stubs.get_mut(at).expect("checked before");
            let mut stub = cell.newest().cloned().flatten();
            match change {
                StubChange::Replaced => stub = None,
                StubChange::Raised(top) => {
                    if let Some(stub) = &mut stub {
                        stub.top_version = stub.top_version.max(*top);
                    }
                }
            }
            cell.put(version, stub);
        }
    }
}
