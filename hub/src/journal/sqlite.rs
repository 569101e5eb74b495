//! The embedded default: one SQLite file, one connection that writes, a pool that reads.
//!
//! A commit is durable when it returns: write-ahead log with `synchronous = FULL`. Writers take the lock when they
//! begin (`BEGIN IMMEDIATE`), which is what the locked head is on PostgreSQL.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use llm_config_shared::store::{Commit, JournalError};
use sqlx::query::Query;
use sqlx::sqlite::{
    Sqlite as Driver, SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Connection as _, SqlSafeStr, Transaction};
use tokio_stream::StreamExt as _;

use super::Database;
use super::dialect::{Answer, Arg, Cells, Column, Dialect, Sql, Transact, cells};
use super::failure::{self, of_migration, of_sql};
use super::migration::pending;
use super::whole::Table;
use crate::processes::{Hold, News};

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a writer waits for another process that holds the file's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reader or writer waits for a connection of this process.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const READERS: u32 = 4;
/// 16 MiB of log before it is folded into the file: with SQLite's 4 MiB a large import would sync the file at every
/// other commit.
const CHECKPOINT_PAGES: &str = "4096";
/// A commit of 500 rows stays in memory until it is written; SQLite counts kibibytes as negative.
const CACHE_KIB: &str = "-16384";

/// A SQLite file.
pub struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Database<Sqlite> {
    /// Opens the file, and creates it where there is none. The tables are as they were: see
    /// [`migrate`](Database::migrate).
    ///
    /// # Errors
    /// When the file cannot be opened or is no database.
    pub async fn open(file: &Path) -> Answer<Self> {
        create_private(file)?;
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .statement_cache_capacity(256)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .pragma("cache_size", CACHE_KIB);
        let writer = pool(1).connect_with(options.clone()).await.map_err(of_sql)?;
        let readers = pool(READERS).connect_with(options.read_only(true)).await.map_err(of_sql)?;
        Ok(Self::new(Sqlite { writer, readers }))
    }

    /// Writes a consistent copy of the whole database into a file that must not exist.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub async fn copy_to(&self, file: &Path) -> Answer<()> {
        let target = file.to_str().ok_or_else(|| failure::unavailable("the copy's path is not UTF-8"))?;
        sqlx::query("VACUUM INTO $1").bind(target).execute(&self.dialect().writer).await.map_err(of_sql)?;
        Ok(())
    }
}

/// Connections that stay: the last one that goes would fold the log into the file.
///
/// One that is left in a transaction is replaced. Where the disk fails SQLite rolls back by itself; sqlx's own rollback
/// then finds none, and the connection would refuse every transaction from then on.
fn pool(connections: u32) -> SqlitePoolOptions {
    let pool = SqlitePoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT);
    let pool = pool.idle_timeout(None).max_lifetime(None);
    pool.before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
}

/// Creates the file where there is none, for its owner alone. SQLite gives the files beside it the same mode.
fn create_private(file: &Path) -> Answer<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(failure::unavailable(format!("its file cannot be created: {error}")))
        }
        _ => Ok(()),
    }
}

impl Dialect for Sqlite {
    type Transaction = Transaction<'static, Driver>;

    const SHARED: bool = false;

    async fn begin_write(&self) -> Answer<Self::Transaction> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(of_sql)
    }

    async fn begin_read(&self) -> Answer<Self::Transaction> {
        self.readers.begin().await.map_err(of_sql)
    }

    async fn migrate(&self) -> Answer<()> {
        MIGRATIONS.run(&self.writer).await.map_err(of_migration)
    }

    async fn migrate_to(&self, step: i64) -> Answer<()> {
        MIGRATIONS.run_to(step, &self.writer).await.map_err(of_migration)
    }

    async fn pending_migrations(&self) -> Answer<Vec<String>> {
        let known = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_sqlx_migrations'";
        let applied = if sqlx::query(known).fetch_optional(&self.readers).await.map_err(of_sql)?.is_some() {
            let applied = "SELECT version FROM _sqlx_migrations WHERE success";
            sqlx::query_scalar(applied).fetch_all(&self.readers).await.map_err(of_sql)?
        } else {
            Vec::new()
        };
        Ok(pending(&MIGRATIONS, &applied))
    }

    /// The folder of the file is locked: there is no other process.
    async fn stand(&self) -> Answer<Option<Hold>> {
        Ok(Some(Hold::for_ever()))
    }

    async fn news(&self) -> Answer<Option<News>> {
        std::future::pending().await
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

type Statement<'q> = Query<'q, Driver, SqliteArguments>;

fn bound(sql: Sql, args: Vec<Arg<'_>>) -> Statement<'static> {
    let mut query = sqlx::query(sql.sqlite);
    for arg in args {
        query = match arg {
            Arg::Int(number) => query.bind(number),
            Arg::Text(text) => query.bind(text),
            Arg::Blob(bytes) => query.bind(bytes),
        };
    }
    query
}

/// One row of the columns.
fn bound_row(sql: impl SqlSafeStr, columns: &[Column<'_>], row: usize) -> Statement<'static> {
    let mut query = sqlx::query(sql);
    for column in columns {
        query = match column {
            Column::Ints(numbers) => query.bind(numbers[row]),
            Column::Texts(texts) => query.bind(texts[row]),
            Column::Blobs(blobs) => query.bind(blobs[row].as_deref()),
        };
    }
    query
}

impl Transact for Transaction<'static, Driver> {
    type Row = SqliteRow;

    async fn fetch(&mut self, sql: Sql, args: Vec<Arg<'_>>) -> Answer<Vec<SqliteRow>> {
        bound(sql, args).fetch_all(&mut **self).await.map_err(of_sql)
    }

    async fn execute(&mut self, sql: Sql, args: Vec<Arg<'_>>) -> Answer<u64> {
        Ok(bound(sql, args).execute(&mut **self).await.map_err(of_sql)?.rows_affected())
    }

    async fn fetch_each(&mut self, sql: Sql, columns: Vec<Column<'_>>) -> Answer<Vec<SqliteRow>> {
        let mut found = Vec::new();
        for row in 0..columns.first().map_or(0, Column::len) {
            found.extend(bound_row(sql.sqlite, &columns, row).fetch_all(&mut **self).await.map_err(of_sql)?);
        }
        Ok(found)
    }

    async fn execute_each(&mut self, sql: Sql, columns: Vec<Column<'_>>) -> Answer<u64> {
        let mut changed = 0;
        for row in 0..columns.first().map_or(0, Column::len) {
            let done = bound_row(sql.sqlite, &columns, row).execute(&mut **self).await.map_err(of_sql)?;
            changed += done.rows_affected();
        }
        Ok(changed)
    }

    async fn each_row<E: From<JournalError> + Send>(
        &mut self,
        select: String,
        mut take: impl FnMut(&SqliteRow) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        let mut rows = sqlx::query(AssertSqlSafe(select)).fetch(&mut **self);
        while let Some(row) = rows.try_next().await.map_err(of_sql)? {
            take(&row)?;
        }
        Ok(())
    }

    async fn fill(&mut self, table: &Table, columns: Vec<Column<'_>>) -> Answer<u64> {
        let places: Vec<String> = (1..=columns.len()).map(|n| format!("${n}")).collect();
        let insert: Arc<str> = format!("{} VALUES ({})", table.insert(), places.join(", ")).into();
        let mut filled = 0;
        for row in 0..columns.first().map_or(0, Column::len) {
            let insert = bound_row(AssertSqlSafe(Arc::clone(&insert)), &columns, row);
            filled += insert.execute(&mut **self).await.map_err(of_sql)?.rows_affected();
        }
        Ok(filled)
    }

    /// SQLite goes on above the highest by itself.
    async fn renumber(&mut self, _table: &Table) -> Answer<()> {
        Ok(())
    }

    async fn tell(&mut self, _: &Commit) -> Answer<()> {
        Ok(())
    }

    async fn commit(self) -> Answer<()> {
        Self::commit(self).await.map_err(of_sql)
    }
}

cells!(SqliteRow);
