//! Logs and metrics.

use std::io::IsTerminal;
use std::time::Duration;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Telemetry};

/// What speaks to providers of keys with the hub's credentials and keys has nothing to say in the log, whatever it is asked to.
const SILENT: &str = "zbus=off,vaultrs=off,rustify=off,reqwest=off,hyper_util=info,hyper=info,aws_config=off,aws_runtime=off,\
                      aws_sdk_kms=off,aws_sdk_sts=off,aws_sigv4=off,aws_smithy_http_client=off,aws_smithy_runtime=off,\
                      aws_smithy_runtime_api=off,aws_credential_types=off,azure_core=off,azure_identity=off,\
                      azure_security_keyvault_keys=off,typespec=off,typespec_client_core=off";

/// Begins to log to stdout: text on a terminal, JSON lines elsewhere. `RUST_LOG` wins over the settings.
///
/// # Errors
/// When the process logs already.
pub fn start_logging(
    settings: &Telemetry,
    rust_log: Option<&str>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter = rust_log.or(settings.log.as_deref()).unwrap_or("info");
    // sqlx tells of every slow statement with its text.
    let filter = EnvFilter::builder().parse_lossy(format!("sqlx=warn,{filter},{SILENT}"));
    let terminal = std::io::stdout().is_terminal();
    let json = match settings.format {
        LogFormat::Auto => !terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stdout);
    if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(terminal).with_target(false).try_init()
    }
}

/// The figures of this process as Prometheus reads them.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

impl Metrics {
    /// Begins to count; once in a process.
    ///
    /// # Errors
    /// When something counts already.
    pub fn start() -> Result<Self, metrics_exporter_prometheus::BuildError> {
        let builder =
            PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?;
        let handle = builder.install_recorder()?;
        describe();
        Ok(Self(handle))
    }

    /// Counts nothing: for tests, of which many run in one process.
    #[cfg(test)]
    pub(crate) fn unrecorded() -> Self {
        Self(PrometheusBuilder::new().build_recorder().handle())
    }

    /// The text of `/metrics`.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Keeps histograms small; runs until it is dropped.
    pub async fn keep_up(self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(5));
        loop {
            ticks.tick().await;
            self.0.run_upkeep();
        }
    }
}

fn describe() {
    describe_counter!("http_requests_total", "Requests to the REST API by method, route and status");
    describe_histogram!("http_request_duration_seconds", Unit::Seconds, "How long requests took");
    describe_counter!("config_operations_total", "Operations on values by operation and status");
    describe_counter!("secret_access_total", "Secrets given out in clear, by outcome");
    describe_counter!("vault_operations_total", "Requests to Vault by operation and status");
    describe_counter!("vault_source_looks_total", "Looks at the KV stores that namespaces follow, by status");
    describe_counter!("authentication_failures_total", "Requests refused for their token, by reason");
    describe_gauge!("hub_leads", "1 where this process of the hub writes, 0 where another one does");
    describe_counter!(
        "hub_passed_on_total",
        "Requests and uploads passed on to the process that leads, by what and outcome"
    );
    describe_counter!(
        "hub_purged_deletions_total",
        "Deleted entries purged because they were older than the retention"
    );
    describe_gauge!("sync_connected_edges", "Edges with an open stream");
    describe_gauge!(
        "sync_lag_entries",
        "Changes that were sent to the slowest connected edge and are not confirmed"
    );
    describe_gauge!("sync_lag_milliseconds", "How long the oldest of what was sent waits to be confirmed");
    describe_counter!("sync_bytes_total", "Bytes of segments and checkpoints sent to edges, by codec");
    describe_counter!("sync_refusals_total", "Sessions and writes refused, by reason");
    describe_counter!("sync_held_total", "Writes held for a person, by reason");
    describe_counter!("sync_conflicts_total", "Concurrent writes of which one lost");
    describe_counter!("sync_repairs_total", "Replicas sent anew because they differed");
    describe_counter!("sync_copied_replicas_total", "Edges whose data was copied or set back");
}
