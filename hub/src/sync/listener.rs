//! The sync port: TLS 1.3, its certificate renewed in place, and what runs beside it for as long as it is open.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use llm_config_proto::sync::{ServeError, ServerLimits, serve};
use llm_config_proto::tls::accept_loop;
use llm_config_shared::store::Journal;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::follow;
use super::presence;
use super::recheck::{self, recheck};
use super::seats;
use super::service::{Parts, SyncService};
use crate::clock;
use crate::identity::NoRandomness;
use crate::identity::server_certificate::{CHECK_EVERY, ServerCertificateError, ServerCertificates};
use crate::processes::Processes;
use crate::processes::service::HubsService;
use crate::registry::Registry;

/// Why the port is not served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(transparent)]
    Certificate(#[from] ServerCertificateError),
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Serves edges, and the hub's other processes, until `shutdown`. `names` are the host names and addresses under which the
/// port can be reached; `processes` tells of commits.
///
/// # Errors
/// When there is no certificate for the names, or the transport fails as a whole.
pub async fn listen<J: Journal, R: Registry, P: Processes>(
    listener: TcpListener,
    parts: Arc<Parts<J, R>>,
    hubs: Arc<HubsService<J, R>>,
    processes: Arc<P>,
    names: Vec<String>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ListenError> {
    let certificates = ServerCertificates::new(Arc::clone(&parts.identity), names, clock::now())?;
    let connections = accept_loop(listener, certificates.subscribe());
    let service = Arc::new(SyncService::new(Arc::clone(&parts))?);
    let mut beside = JoinSet::new();
    beside.spawn(renew_certificate(certificates));
    beside.spawn(recheck_edges(Arc::clone(&parts)));
    beside.spawn(write_presence(Arc::clone(&parts)));
    beside.spawn(follow::poll(Arc::clone(&parts)));
    beside.spawn(seats::exchange(Arc::clone(&parts.roster), Arc::clone(&processes)));
    beside.spawn(follow::listen(Arc::clone(&parts), processes));
    let stop = Arc::clone(&service);
    let shutdown = async move {
        shutdown.await;
        stop.stop();
    };
    let served = serve(service, hubs, connections, ServerLimits::default(), shutdown).await;
    beside.shutdown().await;
    parts.presence.write_down(&*parts.registry).await;
    Ok(served?)
}

pub(super) fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn renew_certificate(mut certificates: ServerCertificates) {
    let mut ticks = every(CHECK_EVERY);
    loop {
        ticks.tick().await;
        match certificates.renew(clock::now()) {
            Ok(true) => tracing::info!("the sync port's certificate was renewed"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the sync port's certificate cannot be renewed"),
        }
    }
}

async fn recheck_edges<J: Journal, R: Registry>(parts: Arc<Parts<J, R>>) {
    let mut ticks = every(recheck::EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = parts.roster.recheck_asked() => {}
        }
        if let Err(error) = recheck(&parts.roster, &*parts.registry).await {
            tracing::debug!(%error, "connected edges cannot be compared with the database");
        }
    }
}

async fn write_presence<J: Journal, R: Registry>(parts: Arc<Parts<J, R>>) {
    let mut ticks = every(presence::WRITE_EVERY);
    loop {
        ticks.tick().await;
        parts.presence.write_down(&*parts.registry).await;
        parts.roster.slowest(clock::instant()).publish();
    }
}
