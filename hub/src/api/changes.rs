//! Changes, with what they wrote.

use llm_config_proto::rest::admin::{ChangeInfo, PastOf};
use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::Caller;
use llm_config_shared::entry::{ChangeId, HistoryRow};
use llm_config_shared::store::{ChangeRow, Journal, Page, Paged};

use super::Api;
use crate::guard;
use crate::registry::Registry;

impl<S: Journal + Registry> Api<S> {
    pub(super) async fn all_changes(
        &self,
        caller: &Caller,
        page: Page,
    ) -> Result<Paged<ChangeRow>, ApiError> {
        guard::may_read_all(caller)?;
        Ok(self.parts.store.changes(&caller.tenant, page).await?)
    }

    /// An edge sees the writes of a change that it receives.
    pub(super) async fn one_change(&self, caller: &Caller, id: ChangeId) -> Result<ChangeInfo, ApiError> {
        let missing = || ApiError::not_found(format!("there is no change {}", id.0));
        let (change, rows) = self.parts.store.change(&caller.tenant, id).await?.ok_or_else(missing)?;
        let before = rows.len();
        let mut writes = Vec::with_capacity(before);
        for row in rows {
            if guard::may_read(caller, &row.at).is_ok() {
                writes.push(self.past_of(caller, row).await?);
            }
        }
        if writes.is_empty() && before > 0 {
            return Err(missing());
        }
        Ok(ChangeInfo { change, writes })
    }

    pub(super) async fn past_of(&self, caller: &Caller, row: HistoryRow) -> Result<PastOf, ApiError> {
        Ok(PastOf { at: row.at.clone(), past: self.told(caller, row, false).await? })
    }
}
