//! The hub's journal in memory: the same promises as a database, and a past that can still be looked at.
//!
//! Every commit makes a version, and everything is kept by version. So a second process can look at an older one, as at
//! an asynchronous standby that lags. Its commits go to the primary all the same, where the fence judges them.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use llm_config_shared::entry::{ChangeId, HistoryRow, HubRow};
use llm_config_shared::feed::Feed;
use llm_config_shared::name::{EntryKey, Tenant};
use llm_config_shared::newer::Newer;
use llm_config_shared::policy::Policies;
use llm_config_shared::settled::ConflictState;
use llm_config_shared::stamp::WriteId;
use llm_config_shared::store::purge::{Purge, Purged};
use llm_config_shared::store::region::{Following, RegionAsk, RegionPage};
use llm_config_shared::store::{
    ChangeRow, Commit, Conflict, Event, FeedSnapshot, Head, Journal, JournalError, Leadership, Listing, Loss,
    Page, Paged, Planning, PlanningRequest, Read,
};
use llm_config_shared::vector::{ShardId, Vector};
use uuid::Uuid;

mod cell;
mod purge;
mod reads;
mod region;
mod state;

use state::{Lost, State};

/// The result of a future that never waits, as all of [`SimJournal`]'s.
///
/// # Panics
/// When the future is not ready at once.
pub fn ready<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the simulator's journal never waits"),
    }
}

/// One process's connection to the database. Clones and standbys share the database.
#[derive(Clone, Debug)]
pub struct SimJournal {
    state: Arc<Mutex<State>>,
    /// The version that reads see; none for the newest.
    version: Option<usize>,
    fenced: bool,
    shows_horizon: bool,
    finds_stubs: bool,
    checks_bookmarks: bool,
}

/// The whole database at one moment.
#[derive(Clone, Debug)]
pub struct Backup(State);

impl Default for SimJournal {
    fn default() -> Self {
        Self::new()
    }
}

impl SimJournal {
    /// An empty database.
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            version: None,
            fenced: true,
            shows_horizon: true,
            finds_stubs: true,
            checks_bookmarks: true,
        }
    }

    /// The same database with a fence that lets everybody through: what the fence is there against.
    #[must_use]
    pub fn without_fence(mut self) -> Self {
        self.fenced = false;
        self
    }

    /// The same database, that purges and says nothing of it: what the horizon is there against.
    #[must_use]
    pub fn without_horizon(mut self) -> Self {
        self.shows_horizon = false;
        self
    }

    /// The same database, that keeps nothing of what it purges.
    #[must_use]
    pub fn without_stubs(mut self) -> Self {
        self.finds_stubs = false;
        self
    }

    /// The same database, that believes where another region says it has read to.
    #[must_use]
    pub fn trusting_bookmarks(mut self) -> Self {
        self.checks_bookmarks = false;
        self
    }

    /// The same database as a standby shows it that has come to `version`.
    #[must_use]
    pub fn standby(&self, version: usize) -> Self {
        Self { version: Some(version.min(self.versions())), ..self.clone() }
    }

    /// How many versions there have been: commits and leaderships.
    pub fn versions(&self) -> usize {
        self.state().versions()
    }

    /// The entry's row as it was when the shard had come to `seq`; also a deletion that was purged since.
    pub fn row_at(&self, at: &EntryKey, seq: u64) -> Option<HubRow> {
        let state = self.state();
        state.row_or_purged(at, state.version_of_seq(seq)).cloned()
    }

    /// Looks at every row of a feed's part of the tenant as it was when the shard had come to `seq`.
    pub fn each_row_at(&self, feed: &Feed, seq: u64, mut look: impl FnMut(&HubRow)) {
        let state = self.state();
        let version = state.version_of_seq(seq);
        state.feed_rows(feed, 0, version).for_each(&mut look);
    }

    /// Every write that was ever decided, in the order of decisions, with its status as it is now.
    pub fn whole_history(&self) -> Vec<HistoryRow> {
        let state = self.state();
        state.whole_history(state.versions())
    }

    /// Every conflict ever found.
    pub fn whole_conflicts(&self) -> Vec<Conflict> {
        let state = self.state();
        state.conflicts.iter().map(|stored| stored.at(state.versions())).collect()
    }

    /// What namespaces do with concurrent writes from now on.
    pub fn set_policies(&self, policies: Policies) {
        self.state().policies = policies;
    }

    /// Everything that is in the database now.
    pub fn back_up(&self) -> Backup {
        Backup(self.state().clone())
    }

    /// The database as it was then, with the mark that what came after it is lost, and what becomes of it where edges have
    /// it. It was led before.
    pub fn restore(&self, backup: &Backup, newer: Newer) {
        let mut state = backup.0.clone();
        let cut = state.marks.last().map(|mark| mark.position);
        state.restored.extend(cut.map(|cut| Lost { cut, new_epoch: None, newer }));
        *self.state() = state;
    }

    /// A head as this connection is told of it.
    fn told(&self, head: Head) -> Head {
        if self.shows_horizon { head } else { Head { horizon: 0, ..head } }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&State, usize) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let state = self.state();
        let version = self.version.unwrap_or_else(|| state.versions());
        read(&state, version)
    }
}

impl Journal for SimJournal {
    async fn lead(&self, epoch: u64, new_shard: ShardId) -> Result<Leadership, JournalError> {
        Ok(self.state().lead(epoch, new_shard))
    }

    async fn planning(&self, request: &PlanningRequest) -> Result<Planning, JournalError> {
        let mut planning = self.read(|state, version| Ok(state.planning(request, version)))?;
        if !self.finds_stubs {
            planning.stubs.clear();
        }
        Ok(planning)
    }

    async fn append(&self, commit: &Commit) -> Result<(), JournalError> {
        self.state().append(commit, self.fenced)
    }

    async fn losses(&self) -> Result<Vec<Loss>, JournalError> {
        Ok(self.state().losses())
    }

    async fn following(&self) -> Result<Following, JournalError> {
        self.read(|state, version| {
            Ok(state.mark(version).map(|mark| (*mark.following).clone()).unwrap_or_default())
        })
    }

    async fn region_page(&self, ask: &RegionAsk, limit: usize) -> Result<RegionPage, JournalError> {
        let mut believed = ask.clone();
        if let (Some(read), false) = (&mut believed.read, self.checks_bookmarks) {
            read.epoch = self.state().epochs.last().map_or(0, |newest| newest.epoch);
        }
        let page = self.read(|state, _| state.region_page(&believed, limit))?;
        Ok(RegionPage { after: ask.read, ..page })
    }

    async fn purge(&self, purge: &Purge) -> Result<Purged, JournalError> {
        self.state().purge(purge, self.fenced)
    }

    async fn head(&self) -> Result<Head, JournalError> {
        self.read(|state, version| Ok(self.told(state.head(version)?)))
    }

    async fn read_feeds(&self, feeds: &[(Feed, Vector)]) -> Result<FeedSnapshot, JournalError> {
        self.read(|state, version| Ok(state.read_feeds(feeds, self.told(state.head(version)?), version)))
    }

    async fn entries(&self, keys: &[EntryKey]) -> Result<Read<Vec<Option<HubRow>>>, JournalError> {
        self.read(|state, version| {
            let rows = keys.iter().map(|at| state.row(at, version).cloned()).collect();
            Ok(Read { head: state.head(version)?.vector(), value: rows })
        })
    }

    async fn list(&self, listing: &Listing) -> Result<Read<Vec<HubRow>>, JournalError> {
        self.read(|state, version| {
            Ok(Read { head: state.head(version)?.vector(), value: state.list(listing, version) })
        })
    }

    async fn history(&self, at: &EntryKey, page: Page) -> Result<Read<Paged<HistoryRow>>, JournalError> {
        self.read(|state, version| {
            let value = state.history_page(page, version, |row| row.at == *at);
            Ok(Read { head: state.head(version)?.vector(), value })
        })
    }

    async fn version(&self, at: &EntryKey, version: u64) -> Result<Option<HistoryRow>, JournalError> {
        self.read(|state, seen| Ok(state.entry_version(at, version, seen)))
    }

    async fn changes(&self, tenant: &Tenant, page: Page) -> Result<Paged<ChangeRow>, JournalError> {
        self.read(|state, version| Ok(state.change_page(tenant, page, version)))
    }

    async fn change(
        &self,
        tenant: &Tenant,
        change: ChangeId,
    ) -> Result<Option<(ChangeRow, Vec<HistoryRow>)>, JournalError> {
        self.read(|state, version| Ok(state.change_with_writes(tenant, change, version)))
    }

    async fn conflicts(
        &self,
        tenant: &Tenant,
        wanted: Option<ConflictState>,
        page: Page,
    ) -> Result<Paged<Conflict>, JournalError> {
        self.read(|state, version| Ok(state.conflict_page(tenant, wanted, page, version)))
    }

    async fn conflict(&self, tenant: &Tenant, id: Uuid) -> Result<Option<Conflict>, JournalError> {
        self.read(|state, version| Ok(state.conflict(tenant, id, version)))
    }

    async fn conflict_mark(&self, tenant: &Tenant, seq: Option<u64>) -> Result<u64, JournalError> {
        self.read(|state, version| Ok(state.conflict_mark(tenant, seq, version)))
    }

    async fn conflicts_after(
        &self,
        tenant: &Tenant,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Conflict)>, JournalError> {
        self.read(|state, version| Ok(state.conflicts_after(tenant, after, limit, version)))
    }

    async fn held(&self, tenant: &Tenant, page: Page) -> Result<Paged<HistoryRow>, JournalError> {
        self.read(|state, version| Ok(state.held_page(tenant, page, version)))
    }

    async fn held_mark(&self) -> Result<u64, JournalError> {
        self.read(|state, version| Ok(state.whole_history(version).len() as u64))
    }

    async fn held_after(
        &self,
        tenant: &Tenant,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, HistoryRow)>, JournalError> {
        self.read(|state, version| Ok(state.held_after(tenant, after, limit, version)))
    }

    async fn held_write(&self, tenant: &Tenant, id: Uuid) -> Result<Option<HistoryRow>, JournalError> {
        self.read(|state, version| Ok(state.held_write(tenant, id, version)))
    }

    async fn writes(&self, ids: &[WriteId]) -> Result<Vec<HistoryRow>, JournalError> {
        self.read(|state, version| Ok(state.writes(ids, version)))
    }

    async fn events_after(
        &self,
        tenant: &Tenant,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, JournalError> {
        self.read(|state, version| Ok(state.events_after(tenant, after, limit, version)))
    }
}

#[cfg(test)]
mod tests {
    use llm_config_shared::entry::{Author, ChangeId};
    use llm_config_shared::name::{Environment, Key, Namespace, Scope};
    use llm_config_shared::replication::admit::{
        ApiSubmission, Leader, OpAction, Operation, Planner, SealUnavailable, Sealer, SetValue, Submission,
    };
    use llm_config_shared::secret::SealedSecret;
    use llm_config_shared::time::UnixMillis;
    use llm_config_shared::value::Value;
    use uuid::Uuid;

    use super::*;

    struct NoSealer;

    impl Sealer for NoSealer {
        fn seal(&mut self, _: &EntryKey, _: u64, _: &[u8]) -> Result<SealedSecret, SealUnavailable> {
            Err(SealUnavailable)
        }

        fn reseal(
            &mut self,
            _: &EntryKey,
            _: &SealedSecret,
            _: u64,
        ) -> Result<SealedSecret, SealUnavailable> {
            Err(SealUnavailable)
        }
    }

    fn entry() -> EntryKey {
        let scope = Scope {
            tenant: Tenant::parse("acme").unwrap(),
            environment: Environment::base(),
            namespace: Namespace::parse("app").unwrap(),
        };
        EntryKey { scope, key: Key::parse("model").unwrap() }
    }

    fn lead(journal: &SimJournal, epoch: u64) -> Leader {
        Leader::new(&ready(journal.lead(epoch, ShardId(Uuid::from_u128(1)))).unwrap())
    }

    fn planned(journal: &SimJournal, leader: &Leader, number: u128) -> (Commit, Leader) {
        let value =
            SetValue::Plain { value: Value::string(&number.to_string()).unwrap(), over_secret: false };
        let action = OpAction::Set { value, tags: None, description: None };
        let api = ApiSubmission {
            tenant: entry().scope.tenant,
            author: Author { name: "token:t".into(), claimed: None },
            change: Some(ChangeId(Uuid::from_u128(number))),
            message: None,
            operations: vec![Operation { at: entry(), action, if_version: None }],
            atomic: true,
            dry_run: false,
            repeat: None,
        };
        let mut request = PlanningRequest::default();
        let submission = Submission::Api(api);
        submission.needs(&mut request);
        let planning = ready(journal.planning(&request)).unwrap();
        let mut planner = Planner::new(leader, planning, UnixMillis(1_000));
        if let Submission::Api(api) = submission {
            planner.api(api, &mut NoSealer);
        }
        planner.finish().unwrap()
    }

    #[test]
    fn a_leader_that_was_replaced_changes_nothing() {
        let journal = SimJournal::new();
        let old = lead(&journal, 11);
        let (first, old) = planned(&journal, &old, 1);
        ready(journal.append(&first)).unwrap();
        let (late, _) = planned(&journal, &old, 2);
        let new = lead(&journal, 22);
        assert_eq!(ready(journal.append(&late)), Err(JournalError::Fenced));
        let (second, _) = planned(&journal, &new, 3);
        ready(journal.append(&second)).unwrap();
        let head = ready(journal.head()).unwrap();
        assert_eq!((head.position.epoch, head.position.seq, head.own_epochs().epochs().len()), (22, 2, 2));
        assert_eq!(ready(journal.append(&second)), Err(JournalError::Fenced), "not twice either");
        assert!(ready(journal.without_fence().append(&late)).is_err(), "the rows are newer already");
    }

    #[test]
    fn a_standby_shows_whole_versions_of_the_past() {
        let journal = SimJournal::new();
        let mut leader = lead(&journal, 11);
        for number in 1..=3 {
            let (commit, moved) = planned(&journal, &leader, number);
            ready(journal.append(&commit)).unwrap();
            leader = moved;
        }
        let standby = journal.standby(2);
        let row = ready(standby.entries(&[entry()])).unwrap();
        assert_eq!(row.value[0].as_ref().map(|row| row.row.version), Some(1));
        assert_eq!(ready(standby.head()).unwrap().position.seq, 1);
        let page = Page { before: None, limit: 2 };
        assert_eq!(ready(standby.history(&entry(), page)).unwrap().value.rows.len(), 1);
        let newest = ready(journal.history(&entry(), page)).unwrap().value;
        assert_eq!(newest.rows.iter().map(|row| row.version).collect::<Vec<_>>(), [3, 2]);
        assert!(newest.next.is_some());
        assert_eq!(journal.row_at(&entry(), 2).map(|row| row.row.version), Some(2));
    }

    #[test]
    fn a_database_that_was_restored_says_what_it_lost_once_it_is_led() {
        let journal = SimJournal::new();
        let first = lead(&journal, 11);
        let (commit, first) = planned(&journal, &first, 1);
        ready(journal.append(&commit)).unwrap();
        let backup = journal.back_up();
        let (later, _) = planned(&journal, &first, 2);
        ready(journal.append(&later)).unwrap();
        journal.restore(&backup, Newer::Discard);
        assert_eq!(ready(journal.head()).unwrap().position.seq, 1);
        assert_eq!(ready(journal.losses()).unwrap(), []);
        let new = lead(&journal, 22);
        lead(&journal, 33);
        let shard = new.fence().shard;
        assert_eq!(ready(journal.losses()).unwrap(), [Loss { shard, epoch: 11, cut: 1, new_epoch: 22 }]);
    }

    #[test]
    fn a_purge_takes_old_deletions_and_leaves_what_late_writes_are_judged_by() {
        let journal = SimJournal::new();
        let leader = lead(&journal, 11);
        let (created, leader) = planned(&journal, &leader, 1);
        ready(journal.append(&created)).unwrap();
        let (mut deleted, leader) = planned(&journal, &leader, 2);
        deleted.rows[0].row.content = llm_config_shared::entry::Content::Deleted;
        ready(journal.append(&deleted)).unwrap();
        let purge = |leader: &Leader, admitted_by| Purge { fence: leader.fence(), admitted_by, limit: 9 };
        let none = ready(journal.purge(&purge(&leader, UnixMillis(999)))).unwrap();
        assert_eq!((none, journal.versions()), (Purged { count: 0, horizon: 0 }, 3), "it is younger");
        let late = lead(&journal, 22);
        let old = purge(&leader, UnixMillis(1_000));
        assert_eq!(ready(journal.purge(&old)), Err(JournalError::Fenced));
        let done = ready(journal.purge(&purge(&late, UnixMillis(1_000)))).unwrap();
        assert_eq!(done, Purged { count: 1, horizon: 2 });
        assert_eq!(ready(journal.entries(&[entry()])).unwrap().value, [None]);
        assert!(journal.row_at(&entry(), 2).is_some(), "what it was is still known to the checks");
        let elsewhere = SimJournal::new();
        elsewhere.restore(&journal.back_up(), Newer::Hold);
        lead(&elsewhere, 33);
        assert_eq!(ready(elsewhere.head()).unwrap().horizon, 2, "it comes with the backup");
        assert_eq!(
            (ready(journal.head()).unwrap().horizon, ready(journal.standby(3).head()).unwrap().horizon),
            (2, 0)
        );

        let (again, _) = planned(&journal, &late, 3);
        assert_eq!(again.rows[0].row.version, 3);
        ready(journal.append(&again)).unwrap();
        assert!(ready(journal.entries(&[entry()])).unwrap().value[0].is_some());
        let request = PlanningRequest { keys: vec![entry()], ..PlanningRequest::default() };
        let planning = ready(journal.planning(&request)).unwrap();
        assert_eq!((planning.rows.len(), planning.stubs.len()), (1, 0));
    }

    #[test]
    fn a_database_that_nobody_ever_led_cannot_be_read() {
        assert!(matches!(ready(SimJournal::new().head()), Err(JournalError::Unavailable(_))));
    }
}
