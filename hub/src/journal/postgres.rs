//! The database of a hub with several processes: PostgreSQL 15 or newer.
//!
//! Writers are read committed and lock the head first; repeatable-read writers would fail on it in storms. Readers are
//! repeatable read and read only.

use std::str::FromStr;
use std::time::Duration;

use llm_config_shared::store::{Commit, JournalError};
use sqlx::postgres::{
    PgArguments, PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow, Postgres as Driver,
};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, SqlSafeStr, Transaction};
use tokio_stream::StreamExt as _;

use super::Database;
use super::dialect::{Answer, Arg, Cells, Column, Dialect, Sql, Transact, cells};
use super::failure::{self, of_migration, of_sql};
use super::migration::pending;
use super::whole::{CellKind, Table, TableColumn};
use crate::processes::{Hold, News};

mod lock;
mod news;

use lock::Lock;
use news::Listening;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/postgres");

/// How long anybody waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
const WRITERS: u32 = 3;
const READERS: u32 = 8;

/// A server without its default asks for less than a durable commit would break the hub's promise.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// Columns of a table whose numbers the database gives out.
const NUMBERED: &str = "SELECT a.attname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE c.relnamespace = current_schema()::text::regnamespace AND c.relname::text = $1 AND a.attidentity <> ''
       AND NOT a.attisdropped";

/// A PostgreSQL database.
pub struct Postgres {
    writers: PgPool,
    readers: PgPool,
    lock: Lock,
    news: Listening,
}

impl Database<Postgres> {
    /// Connects. The tables are as they were: see [`migrate`](Database::migrate).
    ///
    /// # Errors
    /// When the URL is wrong or the server does not answer. The password is in no message.
    pub async fn open(url: &str) -> Answer<Self> {
        let options = options(url).ok_or_else(|| {
            failure::unavailable("its URL is not of the form postgres://USER:PASSWORD@HOST:PORT/NAME")
        })?;
        // The pool would try again and again, and tell only that time ran out.
        PgConnection::connect_with(&options).await.map_err(of_sql)?.close().await.map_err(of_sql)?;
        let writers = PgPoolOptions::new()
            .max_connections(WRITERS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(|connection, _| {
                Box::pin(async move { connection.execute(DURABLE).await.map(|_| ()) })
            })
            .connect_with(options.clone())
            .await
            .map_err(of_sql)?;
        let readers = PgPoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy_with(options.clone());
        let (lock, news) = (Lock::new(options.clone()), Listening::new(options));
        Ok(Self::new(Postgres { writers, readers, lock, news }))
    }
}

/// None when it is another database's URL, or none.
fn options(url: &str) -> Option<PgConnectOptions> {
    let ours = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
    let options = ours.then(|| PgConnectOptions::from_str(url))?.ok()?;
    Some(options.application_name("llm-config-hub").statement_cache_capacity(256))
}

impl Dialect for Postgres {
    type Transaction = Transaction<'static, Driver>;

    const SHARED: bool = true;

    async fn begin_write(&self) -> Answer<Self::Transaction> {
        self.writers.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await.map_err(of_sql)
    }

    async fn begin_read(&self) -> Answer<Self::Transaction> {
        self.readers.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(of_sql)
    }

    async fn migrate(&self) -> Answer<()> {
        MIGRATIONS.run(&self.writers).await.map_err(of_migration)
    }

    async fn migrate_to(&self, step: i64) -> Answer<()> {
        MIGRATIONS.run_to(step, &self.writers).await.map_err(of_migration)
    }

    async fn pending_migrations(&self) -> Answer<Vec<String>> {
        let known = "SELECT 1 WHERE to_regclass('_sqlx_migrations') IS NOT NULL";
        let applied = if sqlx::query(known).fetch_optional(&self.readers).await.map_err(of_sql)?.is_some() {
            let applied = "SELECT version FROM _sqlx_migrations WHERE success";
            sqlx::query_scalar(applied).fetch_all(&self.readers).await.map_err(of_sql)?
        } else {
            Vec::new()
        };
        Ok(pending(&MIGRATIONS, &applied))
    }

    async fn stand(&self) -> Answer<Option<Hold>> {
        self.lock.stand().await
    }

    async fn news(&self) -> Answer<Option<News>> {
        self.news.next().await
    }

    async fn close(&self) {
        self.lock.close().await;
        self.readers.close().await;
        self.writers.close().await;
    }
}

type Statement<'q> = Query<'q, Driver, PgArguments>;

fn bound(sql: Sql, args: Vec<Arg<'_>>) -> Statement<'static> {
    let mut query = sqlx::query(sql.postgres);
    for arg in args {
        query = match arg {
            Arg::Int(number) => query.bind(number),
            Arg::Text(text) => query.bind(text),
            Arg::Blob(bytes) => query.bind(bytes.as_deref()),
        };
    }
    query
}

/// Every column as one array.
fn bound_columns(sql: impl SqlSafeStr, columns: Vec<Column<'_>>) -> Statement<'static> {
    let mut query = sqlx::query(sql);
    for column in columns {
        query = match column {
            Column::Ints(numbers) => query.bind(numbers),
            Column::Texts(texts) => query.bind(texts),
            Column::Blobs(blobs) => query.bind(blobs.iter().map(Option::as_deref).collect::<Vec<_>>()),
        };
    }
    query
}

fn nothing_to_do(columns: &[Column<'_>]) -> bool {
    columns.first().is_none_or(Column::is_empty)
}

impl Transact for Transaction<'static, Driver> {
    type Row = PgRow;

    async fn fetch(&mut self, sql: Sql, args: Vec<Arg<'_>>) -> Answer<Vec<PgRow>> {
        bound(sql, args).fetch_all(&mut **self).await.map_err(of_sql)
    }

    async fn execute(&mut self, sql: Sql, args: Vec<Arg<'_>>) -> Answer<u64> {
        Ok(bound(sql, args).execute(&mut **self).await.map_err(of_sql)?.rows_affected())
    }

    async fn fetch_each(&mut self, sql: Sql, columns: Vec<Column<'_>>) -> Answer<Vec<PgRow>> {
        if nothing_to_do(&columns) {
            return Ok(Vec::new());
        }
        bound_columns(sql.postgres, columns).fetch_all(&mut **self).await.map_err(of_sql)
    }

    async fn execute_each(&mut self, sql: Sql, columns: Vec<Column<'_>>) -> Answer<u64> {
        if nothing_to_do(&columns) {
            return Ok(0);
        }
        Ok(bound_columns(sql.postgres, columns).execute(&mut **self).await.map_err(of_sql)?.rows_affected())
    }

    async fn each_row<E: From<JournalError> + Send>(
        &mut self,
        select: String,
        mut take: impl FnMut(&PgRow) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        let mut rows = sqlx::query(AssertSqlSafe(select)).fetch(&mut **self);
        while let Some(row) = rows.try_next().await.map_err(of_sql)? {
            take(&row)?;
        }
        Ok(())
    }

    async fn fill(&mut self, table: &Table, columns: Vec<Column<'_>>) -> Answer<u64> {
        if nothing_to_do(&columns) {
            return Ok(0);
        }
        let array = |(n, column): (usize, &TableColumn)| {
            let kind = match column.kind {
                CellKind::Int => "bigint",
                CellKind::Text => "text",
                CellKind::Blob => "bytea",
            };
            format!("${}::{kind}[]", n + 1)
        };
        let arrays: Vec<String> = table.columns.iter().enumerate().map(array).collect();
        let insert = format!("{} SELECT * FROM unnest({})", table.insert(), arrays.join(", "));
        let filled = bound_columns(AssertSqlSafe(insert), columns).execute(&mut **self).await;
        Ok(filled.map_err(of_sql)?.rows_affected())
    }

    async fn renumber(&mut self, table: &Table) -> Answer<()> {
        let numbered =
            sqlx::query(NUMBERED).bind(&table.name).fetch_all(&mut **self).await.map_err(of_sql)?;
        for row in &numbered {
            let renumber = table.renumber(row.text(0)?)?;
            sqlx::query(AssertSqlSafe(renumber)).execute(&mut **self).await.map_err(of_sql)?;
        }
        Ok(())
    }

    async fn tell(&mut self, commit: &Commit) -> Answer<()> {
        sqlx::query(news::TELL)
            .bind(news::told(commit))
            .execute(&mut **self)
            .await
            .map(|_| ())
            .map_err(of_sql)
    }

    async fn commit(self) -> Answer<()> {
        Self::commit(self).await.map_err(of_sql)
    }
}

cells!(PgRow);
