//! What an entry was: its history, and two of its versions side by side.

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::{Answered, Caller, GetDiff, GetHistory, Past, TwoVersions};
use llm_config_shared::entry::{Content, HistoryRow};
use llm_config_shared::name::EntryKey;
use llm_config_shared::store::{Journal, Paged};

use super::{Api, at_position};
use crate::guard;
use crate::registry::Registry;

impl<S: Journal + Registry> Api<S> {
    pub(super) async fn read_history(
        &self,
        caller: &Caller,
        request: GetHistory,
    ) -> Result<Answered<Paged<Past>>, ApiError> {
        let (_, environment) = self.environment(caller, request.target.environment.as_ref()).await?;
        let at = request.target.at(&caller.tenant, &environment);
        guard::may_read(caller, &at)?;
        let read = self.parts.store.history(&at, request.page).await?;
        if read.value.rows.is_empty() && request.page.before.is_none() {
            return Err(ApiError::not_found(format!(
                "there never was {} in namespace {} and environment {}",
                at.key, at.scope.namespace, at.scope.environment
            )));
        }
        let mut rows = Vec::with_capacity(read.value.rows.len());
        for row in read.value.rows {
            rows.push(self.told(caller, row, request.reveal).await?);
        }
        Ok(at_position(Paged { rows, next: read.value.next }, read.head))
    }

    /// A write of the past as the caller sees it.
    pub(super) async fn told(
        &self,
        caller: &Caller,
        row: HistoryRow,
        reveal: bool,
    ) -> Result<Past, ApiError> {
        Ok(Past {
            value: self.shown(caller, &row.at, &row.content, reveal).await?,
            told: row.content.told(),
            purged: row.content.is_purged(),
            change: row.found_in(),
            made_in: row.returned_in.map(|_| row.change),
            version: row.version,
            author: row.author,
            created_at: row.created_at,
            message: row.message,
            change_type: row.change_type,
            status: row.status,
            reason: row.reason,
            settled: row.settled,
        })
    }

    pub(super) async fn read_diff(
        &self,
        caller: &Caller,
        request: GetDiff,
    ) -> Result<Answered<TwoVersions>, ApiError> {
        let (_, environment) = self.environment(caller, request.target.environment.as_ref()).await?;
        let at = request.target.at(&caller.tenant, &environment);
        guard::may_read(caller, &at)?;
        let head = self.parts.tail.head().vector();
        let from = self.past(&at, request.from).await?.content;
        let to = self.past(&at, request.to).await?.content;
        let changed = self.differ(&at, &from, &to).await?;
        let from = self.shown(caller, &at, &from, false).await?;
        let to = self.shown(caller, &at, &to, false).await?;
        Ok(at_position(TwoVersions { from, to, changed }, head))
    }

    /// The same secret is another ciphertext in each version, so secrets are compared in clear.
    async fn differ(&self, at: &EntryKey, from: &Content, to: &Content) -> Result<bool, ApiError> {
        let (Content::Secret(from), Content::Secret(to)) = (from, to) else {
            return Ok(from != to);
        };
        if from.is_purged() || to.is_purged() {
            // Nobody can tell any more.
            return Ok(true);
        }
        let from = self.parts.secrets.open(at, from).await?;
        let to = self.parts.secrets.open(at, to).await?;
        Ok(*from != *to)
    }
}
