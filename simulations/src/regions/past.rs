//! Who had seen what, of each key: known to the simulator alone.

use std::collections::{BTreeMap, BTreeSet};

use llm_config_shared::entry::{HistoryRow, Status};
use llm_config_shared::name::EntryKey;
use llm_config_shared::stamp::{Stamp, WriteId};
use llm_config_shared::store::Commit;

use crate::invariants::{Check, Violation};
use crate::stats::Stats;

/// One write.
#[derive(Clone, Debug)]
struct Made {
    /// All writes of the key that its author had seen.
    past: BTreeSet<WriteId>,
    delete: bool,
}

/// Everything.
#[derive(Clone, Debug)]
pub(super) struct Past {
    writes: BTreeMap<WriteId, Made>,
    /// What each region holds under a key.
    current: Vec<BTreeMap<EntryKey, Stamp>>,
    /// The highest version that each region has given.
    versions: Vec<BTreeMap<EntryKey, u64>>,
    /// What readers at each edge were shown of a key, and what that was made of.
    shown: Vec<BTreeMap<EntryKey, WriteId>>,
    known: Vec<BTreeMap<EntryKey, BTreeSet<WriteId>>>,
    /// What the region held that sends to an edge, deletions as well.
    sent: Vec<BTreeMap<EntryKey, Stamp>>,
    /// Admitted, by region; and ever, also in what the region has lost since.
    here: Vec<BTreeSet<WriteId>>,
    ever: Vec<BTreeSet<WriteId>>,
    /// Admitted somewhere, and not lost since.
    pub(super) admitted: BTreeSet<WriteId>,
}

impl Past {
    pub(super) fn new(sites: usize, edges: usize) -> Self {
        Self {
            writes: BTreeMap::new(),
            current: vec![BTreeMap::new(); sites],
            versions: vec![BTreeMap::new(); sites],
            shown: vec![BTreeMap::new(); edges],
            known: vec![BTreeMap::new(); edges],
            sent: vec![BTreeMap::new(); edges],
            here: vec![BTreeSet::new(); sites],
            ever: vec![BTreeSet::new(); sites],
            admitted: BTreeSet::new(),
        }
    }

    fn closure(&self, id: WriteId) -> BTreeSet<WriteId> {
        let mut past = self.writes.get(&id).map(|made| made.past.clone()).unwrap_or_default();
        past.insert(id);
        past
    }

    fn is_past(&self, earlier: WriteId, later: WriteId) -> bool {
        self.writes.get(&later).is_some_and(|made| made.past.contains(&earlier))
    }

    pub(super) fn is_new(&self, id: WriteId) -> bool {
        !self.writes.contains_key(&id)
    }

    /// An edge's write: its author knew what was shown there.
    pub(super) fn made_at_edge(&mut self, edge: usize, at: &EntryKey, id: WriteId, delete: bool) {
        let known = self.known[edge].entry(at.clone()).or_default();
        let made = Made { past: known.clone(), delete };
        known.insert(id);
        self.writes.insert(id, made);
    }

    /// What region `site` holds now, and what it had when a backup was made.
    pub(super) fn of_site(&self, site: usize) -> BTreeMap<EntryKey, Stamp> {
        self.current[site].clone()
    }

    /// The region has only this history now.
    pub(super) fn goes_back(
        &mut self,
        site: usize,
        current: BTreeMap<EntryKey, Stamp>,
        history: &[HistoryRow],
    ) {
        self.current[site] = current;
        self.here[site] = history.iter().map(|row| row.stamp.id).collect();
        let versions = &mut self.versions[site];
        versions.clear();
        for row in history {
            let highest = versions.entry(row.at.clone()).or_default();
            *highest = row.version.max(*highest);
        }
    }

    fn next_version(&mut self, site: usize, row: &HistoryRow) -> Check {
        let before = self.versions[site].insert(row.at.clone(), row.version).unwrap_or_default();
        if row.version > before {
            return Ok(());
        }
        let detail =
            format!("{:?} takes version {} of {} after {before}", row.stamp.id, row.version, row.at.key);
        Err(Violation::new("versions", detail))
    }

    /// The region reads what it sends to the edge.
    pub(super) fn sends(&mut self, edge: usize, site: usize) {
        self.sent[edge] = self.current[site].clone();
    }

    /// It has come: readers there know all of it, also that a key is gone.
    pub(super) fn learns(&mut self, edge: usize) {
        for (at, stamp) in std::mem::take(&mut self.sent[edge]) {
            let closure = self.closure(stamp.id);
            self.known[edge].entry(at).or_default().extend(closure);
        }
    }

    /// The edge's readers are shown this row, or none.
    ///
    /// # Errors
    /// When they had seen what came after it.
    pub(super) fn shown(&mut self, edge: usize, at: &EntryKey, id: Option<WriteId>) -> Check {
        let Some(id) = id else { return Ok(()) };
        if let Some(before) = self.shown[edge].insert(at.clone(), id)
            && self.is_past(id, before)
        {
            let detail = format!("edge {edge} goes back at {} from {before:?} to {id:?}", at.key);
            return Err(Violation::new("reads", detail));
        }
        let closure = self.closure(id);
        self.known[edge].entry(at.clone()).or_default().extend(closure);
        Ok(())
    }

    /// A region said that it lost what this edge has seen: what readers saw binds nobody any more.
    pub(super) fn excuse(&mut self, edge: usize) {
        self.shown[edge].clear();
    }

    /// A commit of region `site`, whose own hub writes are by `actor`.
    ///
    /// # Errors
    /// When two writes met and nobody was told, or the later in causality lost.
    pub(super) fn committed(
        &mut self,
        site: usize,
        actor: uuid::Uuid,
        commit: &Commit,
        stats: &mut Stats,
    ) -> Check {
        for row in &commit.history {
            let current = self.current[site].get(&row.at).copied();
            let id = row.stamp.id;
            if id.actor.0 == actor && !self.writes.contains_key(&id) {
                let past = current.map(|current| self.closure(current.id)).unwrap_or_default();
                self.writes.insert(id, Made { past, delete: !row.content.is_live() });
            }
            if !matches!(row.status, Status::Applied | Status::SupersededConcurrent) {
                continue;
            }
            self.next_version(site, row)?;
            self.admitted.insert(id);
            self.here[site].insert(id);
            if let Some(current) = current {
                self.met(site, commit, row, current, stats)?;
            }
            self.ever[site].insert(id);
            if row.seq.is_some() {
                self.current[site].insert(row.at.clone(), row.stamp);
            }
        }
        Ok(())
    }

    fn saw_what_is_lost(&self, site: usize, id: WriteId) -> bool {
        let past = self.writes.get(&id).map(|made| &made.past);
        past.is_some_and(|past| past.iter().any(|seen| !self.here[site].contains(seen)))
    }

    fn met(
        &self,
        site: usize,
        commit: &Commit,
        row: &HistoryRow,
        current: Stamp,
        stats: &mut Stats,
    ) -> Check {
        let (new, old) = (row.stamp, current);
        let detail = || format!("{new:?} and {old:?} of {}", row.at.key);
        let seen = self.is_past(old.id, new.id);
        let was_seen = self.is_past(new.id, old.id);
        if (seen && new < old) || (was_seen && new > old) {
            return Err(Violation::new("causality", detail()));
        }
        let told = commit.conflicts.iter().any(|conflict| {
            let pair = [conflict.winner, conflict.loser];
            pair.contains(&new.id) && pair.contains(&old.id)
        });
        match (!seen && !was_seen, told) {
            // It comes back: whom it met before, and who had seen the outcome, was told of in the life that is lost.
            (true, false) if self.ever[site].contains(&new.id) => {
                stats.count("conflicts of which a part is lost");
                Ok(())
            }
            // Somebody had seen what won over one of them, and this region has lost that.
            (true, false) if [new.id, old.id].iter().any(|id| self.saw_what_is_lost(site, *id)) => {
                stats.count("conflicts of which a part is lost");
                Ok(())
            }
            (true, false) => Err(Violation::new("conflicts", format!("{} met unnoticed", detail()))),
            (true, true) => {
                stats.count("conflicts");
                stats.count("conflicts in worlds of regions");
                Ok(())
            }
            (false, true) => {
                stats.count("false conflicts");
                stats.count("false conflicts in worlds of regions");
                Ok(())
            }
            (false, false) => Ok(()),
        }
    }

    /// No live row is one that an admitted deletion had seen.
    ///
    /// # Errors
    /// When there is one.
    pub(super) fn no_zombie(&self, at: &EntryKey, id: WriteId) -> Check {
        let deletes =
            self.admitted.iter().filter(|other| self.writes.get(other).is_some_and(|made| made.delete));
        let killed = deletes.into_iter().find(|delete| self.is_past(id, **delete));
        killed.map_or(Ok(()), |delete| {
            Err(Violation::new("zombies", format!("{id:?} is back at {} after {delete:?}", at.key)))
        })
    }
}
