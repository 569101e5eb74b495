//! The value routes at an edge: reads from the view, writes through the loop, the rest from the hub.

use std::sync::Arc;
use std::time::Duration;

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::explain::{ExplainEntry, Explained};
use llm_config_proto::rest::service::{
    Answer, Bulk, BulkResult, Call, ConfigService, DeleteEntry, Deleted, Demand, Entry, EntryPage, Events,
    Follow, GetDiff, GetEntry, GetHistory, Health, HealthStatus, ListEntries, NewValue, Past, RollbackEntry,
    Served, SetEntry, Shown, Target, TwoVersions, Written,
};
use llm_config_shared::name::{Environment, Namespace};
use llm_config_shared::store::Paged;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::daemon::handle::Handle;
use crate::status::Reporter;
use crate::uses::Uses;
use crate::view::{View, Wanted, WantedList};

/// How long a read waits for a position that the replica has not reached.
const POSITION_PATIENCE: Duration = Duration::from_secs(5);

/// What the routes are answered from.
pub struct EdgeService {
    pub(super) view: Arc<View>,
    pub(super) handle: Handle,
    pub(super) clock: Arc<Clock>,
    pub(super) reporter: Arc<Reporter>,
    pub(super) metrics: PrometheusHandle,
    /// What programs here say that they use.
    pub(super) uses: Arc<Uses>,
    /// Ends what would otherwise be open for ever.
    pub(super) stop: CancellationToken,
}

impl EdgeService {
    pub(crate) fn new(
        view: Arc<View>,
        handle: Handle,
        clock: Arc<Clock>,
        reporter: Arc<Reporter>,
        metrics: PrometheusHandle,
        uses: Arc<Uses>,
        stop: CancellationToken,
    ) -> Self {
        Self { view, handle, clock, reporter, metrics, uses, stop }
    }

    /// The environment of a request.
    pub(super) fn environment(&self, named: Option<&Environment>) -> Result<Environment, ApiError> {
        let environment = named.cloned().unwrap_or_else(|| self.view.default_environment());
        if self.view.knows(&environment) {
            Ok(environment)
        } else {
            Err(ApiError::unknown_environment(&environment))
        }
    }

    /// Refuses a read that cannot be as fresh as its caller demands.
    async fn satisfy(
        &self,
        demand: &Demand,
        environment: &Environment,
        namespace: &Namespace,
    ) -> Result<(), ApiError> {
        if let Some(wanted) = &demand.at_least {
            let reached = |view: &View| view.has_reached(wanted, environment, namespace);
            if !reached(&self.view) {
                self.handle.ask_hub().await;
                if !self.view.wait_until(POSITION_PATIENCE, reached).await {
                    return Err(ApiError::unavailable("the replica has not come to that position yet", 1)
                        .detail("age_ms", self.view.age_ms()));
                }
            }
        }
        let Some(bound_ms) = demand.max_staleness_ms else { return Ok(()) };
        match self.view.age_ms() {
            Some(age_ms) if age_ms <= bound_ms => Ok(()),
            Some(age_ms) => Err(ApiError::unavailable_now(format!(
                "the replica is {age_ms} ms old; at most {bound_ms} ms were asked for"
            ))
            .detail("age_ms", age_ms)
            .detail("max_staleness_ms", bound_ms)),
            None => Err(ApiError::unavailable("nothing has come from the hub yet", 5)),
        }
    }
}

fn count(operation: &'static str, failed: bool) {
    let status = if failed { "error" } else { "ok" };
    metrics::counter!("config_operations_total", "operation" => operation, "status" => status).increment(1);
}

fn may_reveal(call: &Call, reveal: bool) -> Result<(), ApiError> {
    if reveal && !call.caller.reveal {
        return Err(ApiError::forbidden("you may not see secrets in clear"));
    }
    Ok(())
}

impl ConfigService for EdgeService {
    async fn get(&self, call: &Call, request: GetEntry) -> Answer<Entry> {
        may_reveal(call, request.reveal)?;
        if request.version.is_some() {
            let named = request.target.environment.is_some();
            return Ok(Served::Ready(self.forward(call, named).await?));
        }
        let environment = self.environment(request.target.environment.as_ref())?;
        self.satisfy(&request.demand, &environment, &request.target.namespace).await?;
        let found = self.view.get(&Wanted {
            environment: &environment,
            namespace: &request.target.namespace,
            key: &request.target.key,
            resolve: request.resolve,
            reveal: request.reveal,
        });
        count("get", found.is_err());
        let found = found?;
        if matches!(found.value.value, Shown::Revealed(_)) {
            metrics::counter!("secret_access_total", "outcome" => "shown").increment(1);
        }
        Ok(found.into())
    }

    async fn explain(&self, _: &Call, request: ExplainEntry) -> Answer<Explained> {
        if request.edge.is_some_and(|edge| edge != *self.view.edge()) {
            let told = "an edge explains what its own readers get; ask the hub about another edge's";
            return Err(ApiError::unprocessable(told).detail("field", "edge"));
        }
        let Target { namespace, key, environment } = &request.target;
        let environment = self.environment(environment.as_ref())?;
        self.satisfy(&request.demand, &environment, namespace).await?;
        let explained = self.view.explain(&environment, namespace, key);
        count("explain", explained.is_err());
        Ok(explained?.into())
    }

    async fn list(&self, call: &Call, request: ListEntries) -> Answer<EntryPage> {
        may_reveal(call, request.reveal)?;
        let environment = self.environment(request.environment.as_ref())?;
        self.satisfy(&request.demand, &environment, &request.namespace).await?;
        let found = self.view.list(&WantedList {
            environment: &environment,
            namespace: &request.namespace,
            recursive: request.recursive,
            prefix: request.prefix.as_deref(),
            tag: request.tag.as_deref(),
            resolve: request.resolve,
            reveal: request.reveal,
            limit: request.limit,
            after: request.after.as_ref(),
        });
        count("list", found.is_err());
        Ok(found?.into())
    }

    async fn set(&self, call: &Call, request: SetEntry) -> Answer<Written> {
        let environment = self.environment(request.target.environment.as_ref())?;
        let at = request.target.at(self.view.tenant(), &environment);
        let over_secret = self.view.row(&at).is_some_and(|row| row.content.is_secret());
        let plain = match &request.value {
            NewValue::Plain { value, .. } if !over_secret && request.options.if_version.is_none() => {
                Some(value)
            }
            // The hub orders secrets, and only the hub can compare versions.
            NewValue::Plain { .. } | NewValue::Secret(_) => None,
        };
        let answer = match plain {
            Some(value) => self.set_here(call, at, value.clone(), &request).await.map(Served::from),
            None => {
                let named = request.target.environment.as_ref();
                self.forward_write(call, named, &request.target.namespace).await
            }
        };
        count("set", answer.is_err());
        answer
    }

    async fn delete(&self, call: &Call, request: DeleteEntry) -> Answer<Deleted> {
        let environment = self.environment(request.target.environment.as_ref())?;
        let at = request.target.at(self.view.tenant(), &environment);
        let secret = self.view.row(&at).is_some_and(|row| row.content.is_secret());
        let answer = if secret || request.options.if_version.is_some() {
            let named = request.target.environment.as_ref();
            self.forward_write(call, named, &request.target.namespace).await
        } else {
            self.delete_here(call, at, &request).await.map(Served::from)
        };
        count("delete", answer.is_err());
        answer
    }

    async fn history(&self, call: &Call, request: GetHistory) -> Answer<Paged<Past>> {
        may_reveal(call, request.reveal)?;
        Ok(Served::Ready(self.forward(call, request.target.environment.is_some()).await?))
    }

    async fn rollback(&self, call: &Call, request: RollbackEntry) -> Answer<Written> {
        let named = request.target.environment.as_ref();
        let answer = self.forward_write(call, named, &request.target.namespace).await;
        count("rollback", answer.is_err());
        answer
    }

    async fn diff(&self, call: &Call, request: GetDiff) -> Answer<TwoVersions> {
        Ok(Served::Ready(self.forward(call, request.target.environment.is_some()).await?))
    }

    async fn bulk(&self, call: &Call, request: Bulk) -> Answer<BulkResult> {
        let answer = if self.view.is_connected() {
            self.forward_bulk(call, &request).await
        } else {
            self.bulk_here(call, request).await.map(Served::from)
        };
        count("bulk", answer.is_err());
        answer
    }

    async fn events(&self, _call: &Call, request: Follow) -> Result<Events, ApiError> {
        // Waiting for nothing keeps the signature: a follower begins at once.
        std::future::ready(Ok(self.follow(request))).await
    }

    async fn health(&self) -> Health {
        let summary = self.view.summary();
        let status = match (summary.has_data, summary.connected) {
            (true, true) => HealthStatus::Healthy,
            (true, false) => HealthStatus::Degraded,
            (false, _) => HealthStatus::Unhealthy,
        };
        let (uptime_ms, now) = (self.clock.now().0, self.clock.wall());
        let health =
            Health { status, uptime_ms, now, ready: summary.has_data, role: None, reasons: Vec::new() };
        std::future::ready(health).await
    }

    async fn metrics(&self, _call: &Call) -> Result<String, ApiError> {
        self.reporter.measure().await;
        Ok(self.metrics.render())
    }
}
