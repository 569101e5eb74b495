//! News of commits: one notification for each, on a connection that only listens.

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::Mutex;

use crate::journal::dialect::Answer;
use crate::journal::failure::of_sql;

const CHANNEL: &str = "llm_config_hub";
/// Part of a commit's transaction: told when it is durable, and not at all when it is not.
pub(super) const TELL: &str = "SELECT pg_notify('llm_config_hub', '')";

pub(super) struct News {
    options: PgConnectOptions,
    listener: Mutex<Option<PgListener>>,
}

impl News {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self { options, listener: Mutex::default() }
    }

    /// Waits for the next commit of any process. After an error the next call connects anew.
    pub(super) async fn next(&self) -> Answer<()> {
        let mut kept = self.listener.lock().await;
        let mut listener = match kept.take() {
            Some(listener) => listener,
            None => self.listen().await?,
        };
        listener.recv().await.map_err(of_sql)?;
        // Many commits are no more news than one.
        while listener.next_buffered().is_some() {}
        *kept = Some(listener);
        Ok(())
    }

    async fn listen(&self) -> Answer<PgListener> {
        // The listener is made over a pool, and keeps the one connection of this one.
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(self.options.clone());
        let mut listener = PgListener::connect_with(&pool).await.map_err(of_sql)?;
        listener.listen(CHANNEL).await.map_err(of_sql)?;
        Ok(listener)
    }
}
