//! The value routes of the hub.

use std::time::Duration;

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::explain::{ExplainEntry, Explained};
use llm_config_proto::rest::service::{
    Answer, Bulk, BulkResult, Call, ConfigService, DeleteEntry, Deleted, Entry, EntryPage, Events, Follow,
    GetDiff, GetEntry, GetHistory, Health, HealthStatus, HubRole, ListEntries, Past, RollbackEntry, SetEntry,
    TwoVersions, Written,
};
use llm_config_shared::access::Permission;
use llm_config_shared::store::{Journal, Paged};

use super::{Api, counted};
use crate::processes::Role;
use crate::registry::Registry;
use crate::{clock, guard};

/// A database that takes longer to say where it is counts as gone.
const HEALTH_TIME_MAX: Duration = Duration::from_secs(2);

impl<S: Journal + Registry> ConfigService for Api<S> {
    async fn get(&self, call: &Call, request: GetEntry) -> Answer<Entry> {
        counted("get", self.read_one(&call.caller, request).await)
    }

    async fn explain(&self, call: &Call, request: ExplainEntry) -> Answer<Explained> {
        counted("explain", self.explain_one(&call.caller, request).await)
    }

    async fn list(&self, call: &Call, request: ListEntries) -> Answer<EntryPage> {
        counted("list", self.read_many(&call.caller, request).await)
    }

    async fn set(&self, call: &Call, request: SetEntry) -> Answer<Written> {
        counted("set", self.set_one(&call.caller, request).await)
    }

    async fn delete(&self, call: &Call, request: DeleteEntry) -> Answer<Deleted> {
        counted("delete", self.delete_one(&call.caller, request).await)
    }

    async fn history(&self, call: &Call, request: GetHistory) -> Answer<Paged<Past>> {
        counted("history", self.read_history(&call.caller, request).await)
    }

    async fn rollback(&self, call: &Call, request: RollbackEntry) -> Answer<Written> {
        counted("rollback", self.roll_back_one(&call.caller, request).await)
    }

    async fn diff(&self, call: &Call, request: GetDiff) -> Answer<TwoVersions> {
        counted("diff", self.read_diff(&call.caller, request).await)
    }

    async fn bulk(&self, call: &Call, request: Bulk) -> Answer<BulkResult> {
        counted("bulk", self.write_bulk(call, request).await)
    }

    async fn events(&self, call: &Call, request: Follow) -> Result<Events, ApiError> {
        self.follow(&call.caller, request).await
    }

    async fn health(&self) -> Health {
        let head = tokio::time::timeout(HEALTH_TIME_MAX, self.parts.store.head()).await;
        let ready = matches!(head, Ok(Ok(_)));
        let reasons = self.parts.secrets.troubles();
        let status = match (ready, reasons.is_empty()) {
            (true, true) => HealthStatus::Healthy,
            (true, false) => HealthStatus::Degraded,
            (false, _) => HealthStatus::Unhealthy,
        };
        let uptime_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let role = match self.parts.writer.role() {
            Role::Leading => Some(HubRole::Leader),
            Role::Following(_) => Some(HubRole::Follower),
            Role::Vacant => None,
        };
        Health { status, uptime_ms, now: clock::now(), ready, role, reasons }
    }

    async fn metrics(&self, call: &Call) -> Result<String, ApiError> {
        guard::may(&call.caller, Permission::Read)?;
        Ok(self.parts.metrics.render())
    }
}
