//! The hub as a running process: its parts put together, its two listeners, and an orderly end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use llm_config_shared::store::{Journal, JournalError};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock;
use crate::config::{Config, Mode};
use crate::data_directory::{self, DataDirectoryError, write_private};
use crate::http::{Door, TlsError, acceptor};
use crate::identity::{Identity, IdentityError};
use crate::processes::Processes;
use crate::regions::Reader;
use crate::regions::fleet::Copier;
use crate::registry::Registry;
use crate::retention;
use crate::secrets;
use crate::secrets::{Providers, SecretError, providers_of};
use crate::sync::listener::{self, ListenError};
use crate::sync::service;
use crate::telemetry::Metrics;

mod address;
mod assembly;
mod first_start;
mod routes;
mod waiting;

pub use first_start::{FirstStart, first_start};
pub use waiting::keys_once_there;

use assembly::Assembled;

/// How much longer than the drain a part may take to end.
const MARGIN: Duration = Duration::from_secs(2);

/// Why the hub does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Database(#[from] JournalError),
    #[error(transparent)]
    Secrets(#[from] SecretError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    DataDirectory(#[from] DataDirectoryError),
    #[error("cannot listen on {address} ({setting}): {error}")]
    Listen { setting: &'static str, address: std::net::SocketAddr, error: std::io::Error },
    #[error("the API's port cannot be used: {0}")]
    Door(std::io::Error),
    #[error("the part of the hub that writes has ended; see the log")]
    WriterEnded,
    #[error("edges cannot be served: {0}")]
    Sync(#[from] ListenError),
    #[error("the system has no randomness")]
    NoRandomness,
}

/// What the hub knows before it listens: its keys.
pub struct Keys {
    pub providers: Providers,
    pub identity: Arc<Identity>,
}

/// Opens what holds the key-encryption key and reads the hub's keys, and makes them on the very first start. With
/// `make_transit_key`, that too where it is held by Vault.
///
/// # Errors
/// When the key-encryption key is missing, or not this database's.
pub async fn open_keys<S: Registry>(
    store: &S,
    config: &Config,
    make_transit_key: bool,
) -> Result<Keys, ServerError> {
    data_directory::create(config.data_directory())?;
    let providers = providers_of(store, &config.secrets, make_transit_key).await?;
    let identity = Identity::open(store, providers.clone(), clock::now()).await?;
    Ok(Keys { providers, identity: Arc::new(identity) })
}

/// Both listeners, bound.
pub struct Listeners {
    door: Door,
    sync: TcpListener,
}

impl Listeners {
    /// Binds both addresses, so that a port in use is known before anything is promised.
    ///
    /// # Errors
    /// When one cannot be listened on, or the certificate cannot be used.
    pub async fn bind(config: &Config) -> Result<Self, ServerError> {
        let tls = config.listen.tls.as_ref().map(acceptor).transpose()?;
        let bind = async |setting, address| {
            let bound = TcpListener::bind(address).await;
            bound.map_err(|error| ServerError::Listen { setting, address, error })
        };
        let listener = bind("listen.api", config.listen.api).await?;
        let sync = bind("listen.sync", config.listen.sync).await?;
        Ok(Self { door: Door { listener, tls }, sync })
    }
}

/// Serves until `stop`.
///
/// # Errors
/// When the hub cannot start, or its writer fails for good.
pub async fn run<S: Journal + Registry + Processes>(
    config: &Config,
    store: Arc<S>,
    keys: Keys,
    listeners: Listeners,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<(), ServerError> {
    let assembled = assembly::assemble(config, &store, keys, &metrics, &stop).await?;
    let Assembled { process, router, edges, hubs, mut writer_task, watchman, rotator } = assembled;
    let mut regions = follow_regions(config, &store, &edges, process, &stop);
    let purger = retention::keep(edges.writer.clone(), config.retention, clock::now, stop.clone());
    let purger = tokio::spawn(purger);
    let rotator = tokio::spawn(rotator.keep(clock::now, stop.clone()));
    let watchman = tokio::spawn(watchman.keep(clock::now, stop.clone()));
    let aging = secrets::keep_young(Arc::clone(&edges.secrets), edges.writer.clone(), stop.clone());
    let aging = tokio::spawn(aging);
    let upkeep = tokio::spawn(metrics.keep_up());
    let door = tokio::spawn(listeners.door.serve(router, stop.clone(), config.limits.drain));
    let (names, stopped) = (address::names(config), stop.clone().cancelled_owned());
    let mut sync = tokio::spawn(listener::listen(listeners.sync, edges, hubs, store, names, stopped));
    // In this order: once the hub stops, the other two end as they should.
    let failed = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        _ = &mut writer_task => Some(ServerError::WriterEnded),
        served = &mut sync => served.ok().and_then(Result::err).map(ServerError::Sync),
    };
    tracing::info!("stopping: what runs may finish");
    stop.cancel();
    upkeep.abort();
    aging.abort();
    finish("the API", door, config.limits.drain + MARGIN).await;
    if !sync.is_finished() {
        finish("the sync port", sync, config.limits.drain + MARGIN).await;
    }
    finish("the purge", purger, MARGIN).await;
    finish("rotation", rotator, MARGIN).await;
    finish("the watch over what expires", watchman, MARGIN).await;
    regions.shutdown().await;
    if !writer_task.is_finished() {
        finish("the writer", writer_task, MARGIN).await;
    }
    failed.map_or(Ok(()), Err)
}

/// Reads the entries and the tables of every other region, until `stop`.
fn follow_regions<S: Journal + Registry>(
    config: &Config,
    store: &Arc<S>,
    edges: &service::Parts<S, S>,
    process: Uuid,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let mut regions = JoinSet::new();
    for address in &config.regions {
        let (writer, identity) = (edges.writer.clone(), Arc::clone(&edges.identity));
        let copier = Copier {
            address: address.clone(),
            store: Arc::clone(store),
            identity: Arc::clone(&identity),
            roster: Arc::clone(&edges.roster),
            writer: writer.clone(),
            process,
        };
        regions.spawn(copier.keep(stop.clone()));
        let (address, journal, secrets) = (address.clone(), Arc::clone(store), Arc::clone(&edges.secrets));
        regions.spawn(Reader { address, journal, writer, identity, secrets, process }.keep(stop.clone()));
    }
    regions
}

async fn finish<T>(part: &'static str, task: JoinHandle<T>, time_max: Duration) {
    match tokio::time::timeout(time_max, task).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!(part, %error, "ended badly"),
        Err(_) => tracing::warn!(part, "was cut off"),
    }
}

/// Writes the CA's certificate where people find it, if it is not there.
///
/// # Errors
/// When the file system refuses.
pub fn publish_ca(config: &Config, identity: &Identity) -> Result<PathBuf, ServerError> {
    let path = config.data_directory().join("ca.pem");
    let pem = identity.ca().pem();
    if std::fs::read_to_string(&path).ok().as_deref() != Some(pem.as_str()) {
        write_private(&path, &pem)?;
    }
    Ok(path)
}

/// Tells whoever looks that nothing can be asked of this hub yet.
///
/// # Errors
/// When the database cannot be used.
pub async fn warn_if_empty<S: Registry>(store: &S, mode: Mode) -> Result<(), ServerError> {
    if mode == Mode::Serve && store.tenants().await?.is_empty() {
        tracing::warn!("there is no tenant yet, so every request is refused: run llm-config-hub init");
    }
    Ok(())
}
