//! The lock of whoever leads: one of the session, on a connection of its own.
//!
//! The server ends a session that says nothing for a while. So a process that is stopped, or cut off from the database,
//! loses the lock without anybody noticing that it is gone; while it is well, it says something every second.

use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::journal::dialect::Answer;
use crate::journal::failure::{of_sql, unavailable};
use crate::processes::Hold;

/// After so long without a word the server gives the lock to another process.
const SILENCE_MAX: &str = "SET idle_session_timeout = '4s'";
const PING_EVERY: Duration = Duration::from_secs(1);
/// A database that does not answer within it is as good as gone.
const TIME_MAX: Duration = Duration::from_secs(3);
/// Locks are a database's; hubs in several of its schemas each have one.
const TRY: &str =
    "SELECT pg_try_advisory_lock(hashtextextended('llm-config-hub leads in ' || current_schema(), 0))";

pub(super) struct Lock {
    options: PgConnectOptions,
    /// Of a process that did not get the lock, for its next attempt.
    waiting: Mutex<Option<PgConnection>>,
}

impl Lock {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self { options, waiting: Mutex::default() }
    }

    /// Takes the lock, if nobody has it.
    pub(super) async fn stand(&self) -> Answer<Option<Hold>> {
        let mut waiting = self.waiting.lock().await;
        let tried = match waiting.take() {
            // It may have been ended since.
            Some(connection) => try_on(connection).await.ok(),
            None => None,
        };
        let (connection, won) = match tried {
            Some(tried) => tried,
            None => try_on(self.connect().await?).await?,
        };
        if won {
            return Ok(Some(Hold::kept(|given_up| keep(connection, given_up))));
        }
        *waiting = Some(connection);
        Ok(None)
    }

    async fn connect(&self) -> Answer<PgConnection> {
        let connecting = async {
            let mut connection = PgConnection::connect_with(&self.options).await?;
            sqlx::query(SILENCE_MAX).execute(&mut connection).await?;
            Ok(connection)
        };
        bounded(connecting).await
    }

    pub(super) async fn close(&self) {
        if let Some(connection) = self.waiting.lock().await.take() {
            end(connection).await;
        }
    }
}

async fn try_on(mut connection: PgConnection) -> Answer<(PgConnection, bool)> {
    let won = bounded(sqlx::query_scalar(TRY).fetch_one(&mut connection)).await?;
    Ok((connection, won))
}

async fn bounded<T>(asked: impl Future<Output = sqlx::Result<T>>) -> Answer<T> {
    match timeout(TIME_MAX, asked).await {
        Ok(answer) => answer.map_err(of_sql),
        Err(_) => Err(unavailable("it did not answer in time")),
    }
}

/// Until it is given up, or the session has ended.
async fn keep(mut connection: PgConnection, given_up: CancellationToken) {
    loop {
        tokio::select! {
            () = given_up.cancelled() => return end(connection).await,
            () = tokio::time::sleep(PING_EVERY) => {}
        }
        let asked = bounded(sqlx::query("SELECT 1").execute(&mut connection)).await;
        if let Err(error) = asked {
            tracing::debug!(%error, "the session of the leader's lock has ended");
            return;
        }
    }
}

/// Says so to the server, which then gives the lock to another one at once.
async fn end(connection: PgConnection) {
    if timeout(TIME_MAX, connection.close()).await.is_err() {
        tracing::debug!("the database did not take leave in time");
    }
}
