//! News of commits: one notification for each, on a connection that only listens.

use std::collections::BTreeSet;

use llm_config_shared::name::{Environment, Namespace, Scope, Tenant};
use llm_config_shared::stamp::Hlc;
use llm_config_shared::store::Commit;
use llm_config_shared::vector::Position;
use serde_json::{Value as Json, json};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::Mutex;

use crate::journal::dialect::Answer;
use crate::journal::failure::of_sql;
use crate::processes::News;

const CHANNEL: &str = "llm_config_hub";
/// Part of a commit's transaction: told when it is durable, and not at all when it is not.
pub(super) const TELL: &str = "SELECT pg_notify('llm_config_hub', $1)";
/// PostgreSQL takes less than 8,000 bytes.
const TEXT_BYTES_MAX: usize = 7_900;

/// What is told of a commit; nothing where it would be too long.
pub(super) fn told(commit: &Commit) -> String {
    let scopes: BTreeSet<&Scope> = commit.rows.iter().map(|row| &row.row.at.scope).collect();
    let names =
        |scope: &&Scope| json!([scope.tenant.as_str(), scope.environment.as_str(), scope.namespace.as_str()]);
    let fence = commit.fence.position;
    let moved: Vec<Json> = scopes.iter().map(names).collect();
    let text = json!([fence.seq, fence.epoch, commit.seq, commit.hlc.0, moved]).to_string();
    if text.len() > TEXT_BYTES_MAX { String::new() } else { text }
}

/// The inverse of [`told`].
fn heard(text: &str) -> Option<News> {
    let told: Vec<Json> = serde_json::from_str(text).ok()?;
    let number = |at: usize| told.get(at)?.as_u64();
    let scope = |names: &Json| {
        Some(Scope {
            tenant: Tenant::parse(names[0].as_str()?).ok()?,
            environment: Environment::parse(names[1].as_str()?).ok()?,
            namespace: Namespace::parse(names[2].as_str()?).ok()?,
        })
    };
    Some(News {
        after: number(0)?,
        position: Position { epoch: number(1)?, seq: number(2)? },
        hlc: Hlc(number(3)?),
        scopes: told.get(4)?.as_array()?.iter().map(scope).collect::<Option<_>>()?,
    })
}

/// The connection that listens.
pub(super) struct Listening {
    options: PgConnectOptions,
    listener: Mutex<Option<PgListener>>,
}

impl Listening {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self { options, listener: Mutex::default() }
    }

    /// Waits for the next commit of any process. After an error the next call connects anew.
    pub(super) async fn next(&self) -> Answer<Option<News>> {
        let mut kept = self.listener.lock().await;
        let mut listener = match kept.take() {
            Some(listener) => listener,
            None => self.listen().await?,
        };
        let notified = listener.recv().await.map_err(of_sql)?;
        *kept = Some(listener);
        Ok(heard(notified.payload()))
    }

    async fn listen(&self) -> Answer<PgListener> {
        // The listener is made over a pool, and keeps the one connection of this one.
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(self.options.clone());
        let mut listener = PgListener::connect_with(&pool).await.map_err(of_sql)?;
        listener.listen(CHANNEL).await.map_err(of_sql)?;
        Ok(listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_only_known_to_have_happened() {
        let told = r#"[4,9223372036854775807,6,77,[["t","base","app/llm"]]]"#;
        let news = heard(told).unwrap();
        assert_eq!((news.after, news.position.epoch, news.position.seq), (4, i64::MAX as u64, 6));
        assert_eq!((news.hlc, news.scopes[0].namespace.as_str()), (Hlc(77), "app/llm"));
        for other in ["", "[]", "[4,1,6,77]", r#"[4,1,6,77,[["t","base"]]]"#, r#"[4,-1,6,77,[]]"#, "{}"] {
            assert_eq!(heard(other), None, "{other}");
        }
    }
}
