//! How this edge is, in one document for people and programs, and in the gauges of `/metrics`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use llm_config_shared::feed::Feed;
use llm_config_shared::segment::VerificationKeys;
use serde::Serialize;

use crate::clock::Clock;
use crate::daemon::handle::Handle;
use crate::daemon::notes::Notes;
use crate::identity::EdgeIdentity;
use crate::join::REPLICA;
use crate::keys::EdgeKeys;
use crate::memory;
use crate::offline::{Offline, Receiver, SecretsStatus};
use crate::view::{Summary, View};

/// A certificate with less than this left is worth a warning, in milliseconds.
const CERTIFICATE_LEFT_MS_MIN: u64 = 2 * 3_600_000;
/// Files larger than this are worth a warning, in bytes.
const REPLICA_BYTES_MAX: u64 = 500 << 20;

/// The document of `GET /api/v1/edge/status`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub name: String,
    pub id: String,
    pub tenant: String,
    pub hub: String,
    /// Whether the hub serves this edge now.
    pub connected: bool,
    /// Whether readers find anything.
    pub has_data: bool,
    pub entries: usize,
    /// Since the hub last confirmed what readers see; none if it never did.
    pub age_ms: Option<u64>,
    /// Changes that the hub told of and that are not here yet.
    pub behind: Option<u64>,
    /// Writes that wait for the hub.
    pub pending: usize,
    /// Writes that the hub holds for a person, and that it did not admit, since the daemon began.
    pub held: u64,
    pub denied: u64,
    /// Writes that lost to others made at the same time, and are kept in the history, since the daemon began.
    pub lost: u64,
    pub default_environment: String,
    pub subscriptions: Vec<Subscription>,
    pub certificate_expires_at: String,
    pub certificate_expires_in_ms: u64,
    pub secrets: SecretsStatus,
    /// Who keeps the edge's own keys: `file`, `systemd-creds`, `tpm`, `keychain` or `vault`.
    pub keys_kept_by: &'static str,
    /// Whether all memory of the daemon is kept out of swap.
    pub memory_locked: bool,
    pub replica_bytes: u64,
    pub uptime_ms: u64,
    pub version: &'static str,
    pub warnings: Vec<String>,
}

/// What this edge receives.
#[derive(Clone, Debug, Serialize)]
pub struct Subscription {
    pub environment: String,
    /// Empty: everything.
    pub namespace: String,
    pub secrets: bool,
}

/// The edge's folder, and the keys in it: who keeps them may not be reachable later.
pub(crate) struct Here {
    pub(crate) directory: PathBuf,
    pub(crate) keys: Arc<EdgeKeys>,
}

/// Collects the status from everything that knows a part of it.
pub struct Reporter {
    here: Here,
    identity: Arc<ArcSwap<EdgeIdentity>>,
    view: Arc<View>,
    handle: Handle,
    notes: Arc<Notes>,
    clock: Arc<Clock>,
    offline: Arc<Offline>,
}

impl Reporter {
    pub(crate) fn new(
        here: Here,
        identity: Arc<ArcSwap<EdgeIdentity>>,
        view: Arc<View>,
        handle: Handle,
        notes: Arc<Notes>,
        clock: Arc<Clock>,
        offline: Arc<Offline>,
    ) -> Self {
        Self { here, identity, view, handle, notes, clock, offline }
    }

    /// How things are now.
    pub async fn status(&self) -> Status {
        let summary = self.view.summary();
        let progress = self.handle.progress().await;
        let replica_bytes = self.replica_bytes().await;
        let identity = self.identity.load();
        let valid_until = identity.credentials.valid_until;
        let left_ms = valid_until.0.saturating_sub(self.clock.wall().0);
        let (held, denied) = self.notes.held_and_denied();
        Status {
            name: identity.name.to_string(),
            id: identity.edge.0.to_string(),
            tenant: identity.tenant.to_string(),
            hub: identity.hub.clone(),
            connected: summary.connected,
            has_data: summary.has_data,
            entries: summary.entries,
            age_ms: summary.age_ms,
            behind: progress.map(|progress| progress.behind),
            pending: summary.pending,
            held,
            denied,
            lost: self.notes.lost(),
            default_environment: self.view.default_environment().to_string(),
            subscriptions: summary.feeds.iter().map(|(feed, _)| subscription(feed)).collect(),
            certificate_expires_at: valid_until.to_rfc3339(),
            certificate_expires_in_ms: left_ms,
            secrets: self.offline.report(),
            keys_kept_by: self.here.keys.keeper.as_str(),
            memory_locked: memory::is_locked(),
            replica_bytes,
            uptime_ms: self.clock.now().0,
            version: env!("CARGO_PKG_VERSION"),
            warnings: self.warnings(&summary, left_ms, replica_bytes),
        }
    }

    fn warnings(&self, summary: &Summary, certificate_left_ms: u64, replica_bytes: u64) -> Vec<String> {
        let mut warnings = self.notes.warnings();
        if !summary.has_data {
            warnings.push("nothing has come from the hub yet".to_owned());
        }
        if certificate_left_ms == 0 {
            warnings
                .push("the certificate has expired; it is renewed when the hub can be reached".to_owned());
        } else if certificate_left_ms < CERTIFICATE_LEFT_MS_MIN {
            warnings.push("the certificate expires soon and could not be renewed yet".to_owned());
        }
        if replica_bytes > REPLICA_BYTES_MAX {
            warnings.push(format!(
                "the replica's files take {} MiB; a restart writes them anew where that helps",
                replica_bytes >> 20
            ));
        }
        warnings
    }

    /// The edge's own.
    pub(crate) fn keys(&self) -> &EdgeKeys {
        &self.here.keys
    }

    /// Where this edge keeps what it has.
    pub(crate) fn directory(&self) -> &Path {
        &self.here.directory
    }

    /// Who this edge is.
    pub(crate) fn identity(&self) -> Arc<EdgeIdentity> {
        self.identity.load_full()
    }

    /// What the hub signs with.
    pub(crate) fn verification_keys(&self) -> VerificationKeys {
        self.identity.load().credentials.verification_keys.clone()
    }

    /// What files to the hub are sealed to; none before a hub has said it.
    pub(crate) fn hub_key(&self) -> Option<Vec<u8>> {
        self.offline.hub_key()
    }

    /// Whom the hub seals to.
    pub(crate) fn receiver(&self) -> &Receiver {
        self.offline.receiver()
    }

    /// Sets the gauges.
    pub async fn measure(&self) {
        let summary = self.view.summary();
        metrics::gauge!("sync_connected").set(if summary.connected { 1.0 } else { 0.0 });
        metrics::gauge!("sync_entries").set(summary.entries as f64);
        metrics::gauge!("sync_pending_writes").set(summary.pending as f64);
        if let Some(age_ms) = summary.age_ms {
            metrics::gauge!("sync_age_seconds").set(age_ms as f64 / 1_000.0);
        }
        let secrets = self.offline.report();
        metrics::gauge!("sync_secrets_locked").set(if secrets.open { 0.0 } else { 1.0 });
        metrics::gauge!("sync_secrets_lock_in_seconds")
            .set(secrets.locks_in_ms.unwrap_or(0) as f64 / 1_000.0);
        if let Some(progress) = self.handle.progress().await {
            metrics::gauge!("sync_lag_entries").set(progress.behind as f64);
        }
        metrics::gauge!("sync_replica_bytes").set(self.replica_bytes().await as f64);
    }

    async fn replica_bytes(&self) -> u64 {
        let directory = self.here.directory.join(REPLICA);
        tokio::task::spawn_blocking(move || bytes_below(&directory)).await.unwrap_or(0)
    }
}

fn subscription(feed: &Feed) -> Subscription {
    Subscription {
        environment: feed.environment.to_string(),
        namespace: feed.subtree.top().map(ToString::to_string).unwrap_or_default(),
        secrets: feed.secrets,
    }
}

fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
