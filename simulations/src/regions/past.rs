//! Who had seen what, of each key: known to the simulator alone.
//!
//! A write is known here by its change, of which it is the only one: numbers are given twice where a disk was copied, and
//! times are replaced where a policy decides.

use std::collections::{BTreeMap, BTreeSet};

use llm_config_shared::entry::{ChangeId, HistoryRow, Status};
use llm_config_shared::feed::Feed;
use llm_config_shared::name::EntryKey;
use llm_config_shared::policy::{ConflictPolicy, Policies};
use llm_config_shared::stamp::{ActorId, Hlc, Stamp, WriteId};
use llm_config_shared::store::Commit;
use llm_config_shared::write::{Denial, HeldReason};

use crate::invariants::{Check, Violation};
use crate::stats::Stats;

/// Writes of one key.
pub(super) type Seen = BTreeSet<ChangeId>;

/// One write.
#[derive(Clone, Debug)]
struct Made {
    /// All writes of the key that its author had seen.
    past: Seen,
    delete: bool,
}

/// What a region holds under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Current {
    stamp: Stamp,
    change: ChangeId,
    /// What feeds without secrets have heard of last: not of it, if it is one and the entry was never there otherwise.
    told: Option<ChangeId>,
}

/// Where the writes of a commit are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// The region's own API.
    Api,
    Edge,
    /// What another region has admitted.
    Region,
}

/// What readers at one edge know.
#[derive(Clone, Debug, Default)]
pub(super) struct Reader {
    /// What they were shown last of a key.
    shown: BTreeMap<EntryKey, ChangeId>,
    /// What that was made of.
    known: BTreeMap<EntryKey, Seen>,
    /// What the region held that sends to the edge, as far as it is told of it.
    sent: BTreeMap<EntryKey, ChangeId>,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    pub(super) policies: Policies,
    writes: BTreeMap<ChangeId, Made>,
    current: Vec<BTreeMap<EntryKey, Current>>,
    /// The highest version that each region has given.
    versions: Vec<BTreeMap<EntryKey, u64>>,
    pub(super) readers: Vec<Reader>,
    /// Admitted, by region; and ever, also in what the region has lost since.
    here: Vec<Seen>,
    ever: Vec<Seen>,
    /// Admitted somewhere, and not lost since.
    pub(super) admitted: Seen,
    /// Edges of which there was a copy.
    pub(super) copied: BTreeSet<ActorId>,
    /// Under which times each write was decided.
    times: BTreeMap<ChangeId, BTreeSet<Hlc>>,
    /// Keys of which a copy's write has two. Two copies, each with a clock that was ahead, put off one waiting write to two
    /// times, or two hubs gave it theirs by a policy. The later one counts in all regions, also over what somebody wrote who
    /// had seen it under the earlier one: of these keys it is checked that regions agree and lose nothing, and no order.
    loose: BTreeSet<EntryKey>,
}

impl Past {
    pub(super) fn new(policies: Policies, sites: usize, edges: usize) -> Self {
        Self {
            policies,
            current: vec![BTreeMap::new(); sites],
            versions: vec![BTreeMap::new(); sites],
            readers: vec![Reader::default(); edges],
            here: vec![Seen::new(); sites],
            ever: vec![Seen::new(); sites],
            ..Self::default()
        }
    }

    fn closure(&self, change: ChangeId) -> Seen {
        let mut past = self.writes.get(&change).map(|made| made.past.clone()).unwrap_or_default();
        past.insert(change);
        past
    }

    fn is_past(&self, earlier: ChangeId, later: ChangeId) -> bool {
        self.writes.get(&later).is_some_and(|made| made.past.contains(&earlier))
    }

    fn policy(&self, at: &EntryKey) -> ConflictPolicy {
        self.policies.of(&at.scope.tenant, &at.scope.namespace)
    }

    pub(super) fn is_new(&self, change: ChangeId) -> bool {
        !self.writes.contains_key(&change)
    }

    /// An edge's write: its author knew what was shown there.
    pub(super) fn made_at_edge(&mut self, edge: usize, at: &EntryKey, change: ChangeId, delete: bool) {
        let known = self.readers[edge].known.entry(at.clone()).or_default();
        let made = Made { past: known.clone(), delete };
        known.insert(change);
        self.writes.insert(change, made);
    }

    /// What region `site` holds now, and what it had when a backup was made.
    pub(super) fn of_site(&self, site: usize) -> BTreeMap<EntryKey, Current> {
        self.current[site].clone()
    }

    /// The region has only this history now.
    pub(super) fn goes_back(
        &mut self,
        site: usize,
        current: BTreeMap<EntryKey, Current>,
        history: &[HistoryRow],
    ) {
        self.current[site] = current;
        self.here[site] = history.iter().map(|row| row.change).collect();
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

    /// The region reads what it has, deletions as well, for what it sends to the edge.
    pub(super) fn sends(&mut self, edge: usize, site: usize, feeds: &[Feed]) {
        let told = |(at, current): (&EntryKey, &Current)| {
            let mut receiving = feeds.iter().filter(|feed| feed.contains(at)).peekable();
            receiving.peek()?;
            let change = if receiving.any(|feed| feed.secrets) { Some(current.change) } else { current.told };
            change.map(|change| (at.clone(), change))
        };
        self.readers[edge].sent = self.current[site].iter().filter_map(told).collect();
    }

    /// It has come: readers there know all of it, also that a key is gone.
    pub(super) fn learns(&mut self, edge: usize) {
        for (at, change) in std::mem::take(&mut self.readers[edge].sent) {
            let closure = self.closure(change);
            self.readers[edge].known.entry(at).or_default().extend(closure);
        }
    }

    /// The session is over: what has not come does not come any more.
    pub(super) fn parts(&mut self, edge: usize) {
        self.readers[edge].sent.clear();
    }

    /// The edge's readers are shown this row, or none.
    ///
    /// # Errors
    /// When they had seen what came after it.
    pub(super) fn shown(&mut self, edge: usize, at: &EntryKey, change: Option<ChangeId>) -> Check {
        let Some(change) = change else { return Ok(()) };
        if let Some(before) = self.readers[edge].shown.insert(at.clone(), change)
            && self.is_past(change, before)
            && !self.loose.contains(at)
        {
            let detail = format!("edge {edge} goes back at {} from {before:?} to {change:?}", at.key);
            return Err(Violation::new("reads", detail));
        }
        let closure = self.closure(change);
        self.readers[edge].known.entry(at.clone()).or_default().extend(closure);
        Ok(())
    }

    /// A region said that it lost what this edge has seen, or the disk is another: what readers saw binds nobody any more.
    pub(super) fn excuse(&mut self, edge: usize) {
        self.readers[edge].shown.clear();
    }

    /// A commit of region `site`, whose own hub writes are by `actor`.
    ///
    /// # Errors
    /// When two writes met and nobody was told, the later in causality lost, or a policy was not followed.
    pub(super) fn committed(
        &mut self,
        (site, actor): (usize, uuid::Uuid),
        from: From,
        commit: &Commit,
        stats: &mut Stats,
    ) -> Check {
        for row in &commit.history {
            let current = self.current[site].get(&row.at).copied();
            if row.stamp.id.actor.0 == actor && self.is_new(row.change) {
                let past = current.map(|current| self.closure(current.change)).unwrap_or_default();
                self.writes.insert(row.change, Made { past, delete: !row.content.is_live() });
            }
            self.note_time(row, stats);
            if !matches!(row.status, Status::Applied | Status::SupersededConcurrent) {
                self.set_aside(row, current, stats)?;
                continue;
            }
            self.next_version(site, row)?;
            self.admitted.insert(row.change);
            self.here[site].insert(row.change);
            if let Some(current) = current.filter(|current| current.change != row.change) {
                self.met(site, (from, commit, row), current, stats)?;
            }
            self.ever[site].insert(row.change);
            if row.seq.is_some() {
                let now = commit.rows.iter().find(|now| now.row.at == row.at);
                let hidden = now.is_some_and(|now| now.row.content.is_secret() && now.plain_seq == 0);
                let told = if hidden { current.and_then(|before| before.told) } else { Some(row.change) };
                let current = Current { stamp: row.stamp, change: row.change, told };
                self.current[site].insert(row.at.clone(), current);
            }
        }
        Ok(())
    }

    fn note_time(&mut self, row: &HistoryRow, stats: &mut Stats) {
        let times = self.times.entry(row.change).or_default();
        let another = times.insert(row.stamp.hlc) && times.len() > 1;
        if another && self.copied.contains(&row.stamp.id.actor) && self.loose.insert(row.at.clone()) {
            stats.count("keys of which a write of copies has two times");
        }
    }

    fn saw_what_is_lost(&self, site: usize, change: ChangeId) -> bool {
        let past = self.writes.get(&change).map(|made| &made.past);
        past.is_some_and(|past| past.iter().any(|seen| !self.here[site].contains(seen)))
    }

    /// Held or denied. What a policy keeps out was concurrent with what the region has.
    fn set_aside(&self, row: &HistoryRow, current: Option<Current>, stats: &mut Stats) -> Check {
        stats.count("set aside by regions");
        let by_policy = [Denial::Policy.to_string(), HeldReason::Policy.to_string()];
        if !by_policy.iter().any(|reason| row.reason.as_deref() == Some(reason)) {
            return Ok(());
        }
        stats.count("set aside by policies in worlds of regions");
        let seen = current.is_none_or(|current| self.is_past(current.change, row.change));
        if seen && !self.copied.contains(&row.stamp.id.actor) {
            let detail = format!("{:?} of {} had seen what is there", row.stamp.id, row.at.key);
            return Err(Violation::new("policy", detail));
        }
        Ok(())
    }

    fn met(
        &self,
        site: usize,
        (from, commit, row): (From, &Commit, &HistoryRow),
        current: Current,
        stats: &mut Stats,
    ) -> Check {
        let (new, old) = (row.stamp, current.stamp);
        let detail = || format!("{new:?} and {old:?} of {}", row.at.key);
        let seen = self.is_past(current.change, row.change);
        let was_seen = self.is_past(row.change, current.change);
        let loose = self.loose.contains(&row.at);
        if !loose && ((seen && new < old) || (was_seen && new > old)) {
            return Err(Violation::new("causality", detail()));
        }
        let told = commit.conflicts.iter().any(|conflict| {
            let pair = [conflict.winner, conflict.loser];
            pair.contains(&new.id) && pair.contains(&old.id)
        });
        let concurrent = !seen && !was_seen;
        let own = self.passes_for_own(new.id, old.id);
        if concurrent && from == From::Edge && !own && !self.follows(row) {
            let policy = self.policy(&row.at);
            return Err(Violation::new("policy", format!("{} under {policy:?}: {:?}", detail(), row.status)));
        }
        match (concurrent, told) {
            (true, false) if own => {
                stats.count("writes of a copy that passed for one's own in worlds of regions");
                Ok(())
            }
            // It comes back: whom it met before, and who had seen the outcome, was told of in the life that is lost.
            (true, false) if self.ever[site].contains(&row.change) => {
                stats.count("conflicts of which a part is lost");
                Ok(())
            }
            // Somebody had seen what won over one of them, and this region has lost that.
            (true, false)
                if [row.change, current.change].iter().any(|it| self.saw_what_is_lost(site, *it)) =>
            {
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

    /// Whether a concurrent write that an edge brought was decided by its namespace's policy.
    fn follows(&self, row: &HistoryRow) -> bool {
        let won = row.status == Status::Applied;
        match self.policy(&row.at) {
            ConflictPolicy::LastWriteWins => true,
            ConflictPolicy::HubWins => !won,
            ConflictPolicy::EdgeWins => won,
            ConflictPolicy::Reject | ConflictPolicy::Manual => false,
        }
    }

    /// Until a hub knows that there are two of a replica, an earlier number of the one is known to the other.
    fn passes_for_own(&self, a: WriteId, b: WriteId) -> bool {
        let same = a.actor == b.actor && a.incarnation == b.incarnation && a.counter != b.counter;
        same && self.copied.contains(&a.actor)
    }

    /// No live row is one that an admitted deletion had seen.
    ///
    /// # Errors
    /// When there is one.
    pub(super) fn no_zombie(&self, at: &EntryKey, change: ChangeId) -> Check {
        if self.loose.contains(at) {
            return Ok(());
        }
        let is_delete = |other: &&ChangeId| self.writes.get(*other).is_some_and(|made| made.delete);
        let killed = self.admitted.iter().filter(is_delete).find(|delete| self.is_past(change, **delete));
        killed.map_or(Ok(()), |delete| {
            Err(Violation::new("zombies", format!("{change:?} is back at {} after {delete:?}", at.key)))
        })
    }
}
