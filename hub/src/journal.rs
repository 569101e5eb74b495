//! The hub's durable order of writes and everything it keeps beside them, over SQLite or PostgreSQL.
//!
//! The logic stands here once, over transactions and statements; [`sqlite`] and [`postgres`] say how each database
//! begins a transaction and takes many rows at once. The tables are in `migrations`. Both pass the same suite in
//! `tests`.
//!
//! A commit takes the shard's head first and fenced: whoever no longer leads, or looks at a database that was set back,
//! finds no row there and has changed nothing. All else of the commit is in the same transaction.

use llm_config_shared::entry::{ChangeId, HistoryRow, HubRow};
use llm_config_shared::feed::Feed;
use llm_config_shared::name::{EntryKey, Tenant};
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

mod append;
mod conflicts;
pub mod dialect;
mod encoding;
mod entries;
mod failure;
mod feeds;
mod head;
mod history;
mod migration;
mod newer;
mod planning;
pub mod postgres;
mod processes;
mod purge;
mod region;
mod registry;
mod rows;
mod scopes;
pub mod sqlite;
mod stored_keys;
mod stubs;
pub mod whole;

use dialect::{Answer, Dialect, Transact};

/// The journal and the registry over one kind of database.
pub struct Database<D> {
    dialect: D,
}

/// Over a SQLite file: the embedded default.
pub type SqliteJournal = Database<sqlite::Sqlite>;
/// Over PostgreSQL: for a hub of several processes.
pub type PostgresJournal = Database<postgres::Postgres>;

impl<D: Dialect> Database<D> {
    fn new(dialect: D) -> Self {
        Self { dialect }
    }

    fn dialect(&self) -> &D {
        &self.dialect
    }

    /// Brings the tables up to date, and begins the region that they were filled for; done at every start.
    ///
    /// # Errors
    /// When the database cannot be used, or its tables are of a newer program.
    pub async fn migrate(&self) -> Answer<()> {
        self.dialect.migrate().await?;
        let epoch = (rand::random::<u64>() >> 1).max(1);
        self.begin_region_if_owed(ShardId(Uuid::new_v4()), epoch).await
    }

    /// The steps that [`migrate`](Self::migrate) would take; none when the tables are up to date.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub async fn pending_migrations(&self) -> Answer<Vec<String>> {
        self.dialect.pending_migrations().await
    }

    /// Waits for what is under way and closes all connections.
    pub async fn close(&self) {
        self.dialect.close().await;
    }
}

impl<D: Dialect> Journal for Database<D> {
    async fn lead(&self, epoch: u64, new_shard: ShardId) -> Result<Leadership, JournalError> {
        let mut tx = self.dialect.begin_write().await?;
        let leadership = head::lead(&mut tx, epoch, new_shard).await?;
        tx.commit().await?;
        Ok(leadership)
    }

    async fn planning(&self, request: &PlanningRequest) -> Result<Planning, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let planning = planning::planning(&mut tx, request).await?;
        tx.commit().await?;
        Ok(planning)
    }

    async fn append(&self, commit: &Commit) -> Result<(), JournalError> {
        append::check(commit)?;
        let mut tx = self.dialect.begin_write().await?;
        append::append(&mut tx, commit).await?;
        tx.tell(commit).await?;
        tx.commit().await
    }

    async fn losses(&self) -> Result<Vec<Loss>, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let losses = head::losses(&mut tx).await?;
        tx.commit().await?;
        Ok(losses)
    }

    async fn following(&self) -> Result<Following, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let following = head::following(&mut tx).await?;
        tx.commit().await?;
        Ok(following)
    }

    async fn region_page(&self, ask: &RegionAsk, limit: usize) -> Result<RegionPage, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let page = region::page(&mut tx, ask, limit).await?;
        tx.commit().await?;
        Ok(page)
    }

    async fn purge(&self, purge: &Purge) -> Result<Purged, JournalError> {
        let mut tx = self.dialect.begin_write().await?;
        let purged = purge::purge(&mut tx, purge).await?;
        tx.commit().await?;
        Ok(purged)
    }

    async fn head(&self) -> Result<Head, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let head = head::head(&mut tx).await?;
        tx.commit().await?;
        Ok(head)
    }

    async fn read_feeds(&self, feeds: &[(Feed, Vector)]) -> Result<FeedSnapshot, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let head = head::head(&mut tx).await?;
        let mut read = Vec::with_capacity(feeds.len());
        for (feed, from) in feeds {
            read.push(feeds::feed(&mut tx, head.shard, feed, &head.served_from(from)).await?);
        }
        tx.commit().await?;
        Ok(FeedSnapshot { head, feeds: read })
    }

    async fn entries(&self, keys: &[EntryKey]) -> Result<Read<Vec<Option<HubRow>>>, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let head = head::vector(&mut tx).await?;
        let mut found = entries::rows(&mut tx, keys).await?;
        tx.commit().await?;
        // A key that was asked for twice is in two places of the answer.
        let value = match keys {
            [_] => vec![found.pop()],
            _ => entries::in_order(keys, found),
        };
        Ok(Read { head, value })
    }

    async fn list(&self, listing: &Listing) -> Result<Read<Vec<HubRow>>, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let read = Read { head: head::vector(&mut tx).await?, value: entries::list(&mut tx, listing).await? };
        tx.commit().await?;
        Ok(read)
    }

    async fn history(&self, at: &EntryKey, page: Page) -> Result<Read<Paged<HistoryRow>>, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let read =
            Read { head: head::vector(&mut tx).await?, value: history::history(&mut tx, at, page).await? };
        tx.commit().await?;
        Ok(read)
    }

    async fn version(&self, at: &EntryKey, version: u64) -> Result<Option<HistoryRow>, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let row = history::version(&mut tx, at, version).await?;
        tx.commit().await?;
        Ok(row)
    }

    async fn changes(&self, tenant: &Tenant, page: Page) -> Result<Paged<ChangeRow>, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let rows = history::changes(&mut tx, tenant, page).await?;
        tx.commit().await?;
        Ok(rows)
    }

    async fn change(
        &self,
        tenant: &Tenant,
        change: ChangeId,
    ) -> Result<Option<(ChangeRow, Vec<HistoryRow>)>, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let found = history::change(&mut tx, tenant, change).await?;
        tx.commit().await?;
        Ok(found)
    }

    async fn conflicts(
        &self,
        tenant: &Tenant,
        state: Option<ConflictState>,
        page: Page,
    ) -> Result<Paged<Conflict>, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let rows = conflicts::page(&mut tx, tenant, state, page).await?;
        tx.commit().await?;
        Ok(rows)
    }

    async fn conflict(&self, tenant: &Tenant, id: Uuid) -> Result<Option<Conflict>, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let found = conflicts::one(&mut tx, tenant, id).await?;
        tx.commit().await?;
        Ok(found)
    }

    async fn conflict_mark(&self, tenant: &Tenant, seq: Option<u64>) -> Result<u64, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let mark = conflicts::mark(&mut tx, tenant, seq).await?;
        tx.commit().await?;
        Ok(mark)
    }

    async fn conflicts_after(
        &self,
        tenant: &Tenant,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Conflict)>, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let rows = conflicts::after(&mut tx, tenant, after, limit).await?;
        tx.commit().await?;
        Ok(rows)
    }

    async fn held(&self, tenant: &Tenant, page: Page) -> Result<Paged<HistoryRow>, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let rows = history::held(&mut tx, tenant, page).await?;
        tx.commit().await?;
        Ok(rows)
    }

    async fn held_mark(&self) -> Result<u64, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let mark = conflicts::held_mark(&mut tx).await?;
        tx.commit().await?;
        Ok(mark)
    }

    async fn held_after(
        &self,
        tenant: &Tenant,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, HistoryRow)>, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let rows = conflicts::held_after(&mut tx, tenant, after, limit).await?;
        tx.commit().await?;
        Ok(rows)
    }

    async fn held_write(&self, tenant: &Tenant, id: Uuid) -> Result<Option<HistoryRow>, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let found = conflicts::held(&mut tx, tenant, id).await?;
        tx.commit().await?;
        Ok(found)
    }

    async fn writes(&self, ids: &[WriteId]) -> Result<Vec<HistoryRow>, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let rows = conflicts::writes(&mut tx, ids).await?;
        tx.commit().await?;
        Ok(rows)
    }

    async fn events_after(
        &self,
        tenant: &Tenant,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, JournalError> {
        let mut tx = self.dialect.begin_read().await?;
        let shard = head::position(&mut tx).await?.0;
        let events = history::events_after(&mut tx, shard, tenant, after, limit).await?;
        tx.commit().await?;
        Ok(events)
    }
}
