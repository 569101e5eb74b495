//! What the daemon counts, as Prometheus reads it, and where its log goes.

use std::io::IsTerminal;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Text for people on a terminal, JSON lines for everything else, on standard output; `RUST_LOG` chooses what.
/// Does nothing where a subscriber is set already.
pub fn init_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // What speaks to the keychain has nothing to say, whatever it is asked to.
    let filter = filter.add_directive("zbus=off".parse().expect("a directive"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    // An error says that somebody set one before: then theirs counts.
    let _ = if std::io::stdout().is_terminal() {
        builder.try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
}

/// Begins to count. The recorder is the process's; a second daemon in one process counts into the same.
pub fn init_metrics() -> PrometheusHandle {
    RECORDER
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another recorder of metrics is set; /metrics stays empty");
            }
            describe();
            handle
        })
        .clone()
}

fn describe() {
    metrics::describe_counter!("config_operations_total", "Requests for values, by operation and status");
    metrics::describe_counter!("secret_access_total", "Secrets shown in clear, by outcome");
    metrics::describe_gauge!("sync_connected", "1 while the hub is connected");
    metrics::describe_gauge!("sync_entries", "Entries in the replica");
    metrics::describe_gauge!("sync_pending_writes", "Writes that wait for the hub");
    metrics::describe_gauge!("sync_age_seconds", "Since the hub last confirmed the replica");
    metrics::describe_gauge!("sync_replica_bytes", "Size of the replica's files");
    metrics::describe_counter!("sync_batches_total", "Durable batches written to the replica");
    metrics::describe_counter!("sync_received_bytes_total", "Bytes of entries received from the hub");
    metrics::describe_counter!("sync_connections_total", "Attempts to connect, by outcome");
    metrics::describe_counter!("sync_rejected_total", "Messages of the hub that were not taken, by reason");
    metrics::describe_counter!(
        "sync_copied_replicas_total",
        "Times that this edge's data was found to be a copy"
    );
}
