//! `edge run`: everything put together, and kept going whatever the network and the disk do.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use llm_config_shared::replication::backoff::Backoff;
use llm_config_shared::replication::edge::{EdgeReplica, Identity, WriteRefused};
use llm_config_shared::replication::rules::Rules;
use llm_config_shared::store::replica::{Record, StoreError};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::daemon::committer::Committer;
use crate::daemon::handle::{Command, Handle};
use crate::daemon::notes::{Notes, Topic};
use crate::daemon::{Ended, Loop, Surroundings};
use crate::identity::{EdgeIdentity, IdentityError};
use crate::join::{self, JoinError, JoinOptions, REPLICA};
use crate::keys::{EdgeKeys, KeyError};
use crate::offline::{self, NeedsTpm, Offline, OfflineRestart, Receiver, limit_secret};
use crate::renewal::Renewal;
use crate::serve::guard::Gate;
use crate::serve::service::EdgeService;
use crate::serve::tcp::{self, BearerToken, TcpError};
use crate::serve::unix::{self, DirectoryLock, SocketError};
use crate::serve::{router, serve_tcp, serve_unix};
use crate::status::{Here, Reporter};
use crate::store::{self, OpenError, Opened, Owner, SledStore, StoreOptions};
use crate::telemetry;
use crate::uses::{Teller, Uses};
use crate::view::{Keyring, View};
use crate::wipe;

mod waiting;

/// Requests under way at the end get this long.
const DRAIN: Duration = Duration::from_secs(5);
/// A disk that failed is tried again after this time.
const DISK_PAUSE: Duration = Duration::from_secs(10);
/// The socket's name in the edge's directory.
pub const SOCKET: &str = "edge.sock";

/// What `edge run` is told.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    pub directory: PathBuf,
    /// Join with this token first, if that was not done yet.
    pub join_token_file: Option<PathBuf>,
    /// `DIR/edge.sock` unless said.
    pub socket: Option<PathBuf>,
    /// Loopback only.
    pub listen: Option<SocketAddr>,
    /// What callers on `listen` have to show.
    pub token_file: Option<PathBuf>,
    /// Chosen anew; as it was where nothing is said.
    pub offline_restart: Option<OfflineRestart>,
    pub store: StoreOptions,
}

/// Why the edge cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(transparent)]
    NeedsTpm(#[from] NeedsTpm),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Tcp(#[from] TcpError),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error("the system does not give what a daemon needs: {0}")]
    System(#[from] io::Error),
    #[error("the operating system gave no random bytes")]
    NoRandomness,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot begin; the hub and the network being away is no reason.
pub async fn run(options: RunOptions) -> Result<(), RunError> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopping = stop.clone();
    let signals = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("going down: requests under way are finished");
        stopping.cancel();
    });
    let ended = run_until(options, stop).await;
    signals.abort();
    ended
}

/// Runs until `stop` is cancelled.
///
/// # Errors
/// As [`run`].
pub async fn run_until(options: RunOptions, stop: CancellationToken) -> Result<(), RunError> {
    let directory = &options.directory;
    join::make_private(directory)?;
    let _lock = DirectoryLock::take(directory)?;
    let socket = options.socket.clone().unwrap_or_else(|| directory.join(SOCKET));
    unix::check_length(&socket)?;
    let token = token(&options)?;
    if wipe::is_pending(directory) {
        return Ok(wipe::finish(directory).await?);
    }
    if !join_first(&options, &stop).await? {
        return Ok(());
    }
    let identity = EdgeIdentity::load(directory)?;
    let Some(keys) = waiting::keys(directory, &socket, &stop).await?.map(Arc::new) else { return Ok(()) };
    if let Some(restart) = options.offline_restart {
        restart.check(&keys.keeper)?;
        restart.store(directory)?;
    }
    let edge = Edge::start(&options, identity, keys).await?;
    let windows = Windows::open(&socket, options.listen.zip(token)).await?;
    edge.run(windows, stop).await?;
    if wipe::is_pending(directory) {
        wipe::finish(directory).await?;
    }
    // It would be found stale and removed at the next start all the same.
    let _ = std::fs::remove_file(&socket);
    Ok(())
}

/// Joins where that was not done, waiting for a hub that is not there yet. False when told to stop meanwhile.
async fn join_first(options: &RunOptions, stop: &CancellationToken) -> Result<bool, RunError> {
    let (Some(token_file), false) = (&options.join_token_file, EdgeIdentity::exists(&options.directory))
    else {
        return Ok(true);
    };
    let options = JoinOptions {
        directory: options.directory.clone(),
        token_file: token_file.clone(),
        offline_restart: options.offline_restart.unwrap_or_default(),
        ..JoinOptions::default()
    };
    let mut backoff = Backoff::new(random_u64()?);
    loop {
        match join::join_locked(&options).await {
            Ok(joined) => {
                tracing::info!(name = %joined.identity.name, hub = %joined.identity.hub, "joined");
                return Ok(true);
            }
            Err(error) if error.may_pass() => {
                tracing::warn!(%error, "cannot join yet; trying again");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(backoff.next_delay(0))) => {}
                    () = stop.cancelled() => return Ok(false),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What requests come in by.
struct Windows {
    unix: UnixListener,
    tcp: Option<(TcpListener, BearerToken)>,
}

/// What callers on TCP have to show; looked at before anything begins.
fn token(options: &RunOptions) -> Result<Option<BearerToken>, TcpError> {
    let Some(address) = options.listen else { return Ok(None) };
    tcp::check(address)?;
    let file = options.token_file.as_ref().ok_or(TcpError::NoToken)?;
    BearerToken::read(file).map(Some)
}

impl Windows {
    async fn open(socket: &Path, tcp: Option<(SocketAddr, BearerToken)>) -> Result<Self, RunError> {
        let tcp = match tcp {
            None => None,
            Some((address, token)) => {
                let listener = tcp::bind(address).await?;
                tracing::info!(address = %listener.local_addr()?, "serving on loopback TCP");
                Some((listener, token))
            }
        };
        let unix = unix::bind(socket).await?;
        tracing::info!(socket = %socket.display(), "serving on the socket");
        Ok(Self { unix, tcp })
    }
}

/// All the parts of a running edge.
struct Edge {
    owner: Owner,
    replica_key: llm_config_shared::seal::SealKey,
    replica_directory: PathBuf,
    store_options: StoreOptions,
    identity: Arc<ArcSwap<EdgeIdentity>>,
    around: Surroundings,
    renewal: Renewal,
    handle: Handle,
    commands: mpsc::Receiver<Command>,
    opened: Opened,
}

impl Edge {
    async fn start(
        options: &RunOptions,
        identity: EdgeIdentity,
        keys: Arc<EdgeKeys>,
    ) -> Result<Self, RunError> {
        let (clock, notes) = (Arc::new(Clock::start()), Arc::new(Notes::default()));
        if keys.keeper.is_on_disk() {
            notes.warn(Topic::Keys, keys.keeper.explained());
        }
        let owner = Owner { tenant: identity.tenant.clone(), edge: identity.edge.0 };
        let replica_directory = options.directory.join(REPLICA);
        let replica_key = keys.replica.clone();
        let opened =
            open_store(replica_directory.clone(), replica_key.clone(), owner.clone(), options.store).await?;
        note_recovery(&opened, &notes);

        let sealing = keys.sealing.clone();
        let receiver =
            Receiver { tenant: identity.tenant.clone(), edge: identity.edge, sealing: sealing.clone() };
        let restart = OfflineRestart::load(&options.directory)?;
        let under = limit_secret(&options.directory, restart, &keys.keeper)?;
        let signers = &identity.credentials.verification_keys;
        let offline =
            Offline::open(options.directory.clone(), receiver, keys.replica.clone(), under, restart, signers);
        let edge_id = identity.edge.0.to_string();
        let keyring = Keyring::new(identity.tenant.clone(), edge_id, sealing, offline.clone());
        let view = Arc::new(View::new(
            identity.tenant.clone(),
            identity.name.clone(),
            identity.default_environment.clone(),
            keyring,
            clock.clone(),
        ));
        let dial = Arc::new(ArcSwap::from_pointee(join::dial(&identity, &keys)?));
        let identity = Arc::new(ArcSwap::from_pointee(identity));
        let (handle, commands) = Handle::new();
        let renew = Arc::new(Notify::new());
        let renewal = Renewal {
            directory: options.directory.clone(),
            keys,
            identity: identity.clone(),
            dial: dial.clone(),
            handle: handle.clone(),
            notes: notes.clone(),
            clock: clock.clone(),
            view: view.clone(),
            wake: renew.clone(),
        };
        let around = Surroundings { view, offline, clock, notes, dial, renew };
        let store_options = options.store;
        Ok(Self {
            owner,
            replica_key,
            replica_directory,
            store_options,
            identity,
            around,
            renewal,
            handle,
            commands,
            opened,
        })
    }

    async fn run(self, windows: Windows, stop: CancellationToken) -> Result<(), RunError> {
        let own_uid = unix::own_uid()?;
        let around = &self.around;
        let reporter = Arc::new(Reporter::new(
            Here { directory: self.renewal.directory.clone(), keys: Arc::clone(&self.renewal.keys) },
            self.identity.clone(),
            around.view.clone(),
            self.handle.clone(),
            around.notes.clone(),
            around.clock.clone(),
            around.offline.clone(),
        ));
        let uses = Arc::new(Uses::starting(around.clock.now()));
        let service = Arc::new(EdgeService::new(
            around.view.clone(),
            self.handle.clone(),
            around.clock.clone(),
            reporter,
            telemetry::init_metrics(),
            Arc::clone(&uses),
            stop.clone(),
        ));
        let tenant = self.owner.tenant.clone();
        let gated = |gate| -> Router { router(service.clone(), gate, tenant.clone()) };
        let mut servers = JoinSet::new();
        let (filled, unix) =
            (around.view.clone(), serve_unix(windows.unix, gated(Gate::Socket { own_uid }), stop.clone()));
        servers.spawn(async move {
            filled.opened().await;
            unix.await
        });
        if let Some((listener, token)) = windows.tcp {
            let (filled, tcp) =
                (around.view.clone(), serve_tcp(listener, gated(Gate::Token(token)), stop.clone()));
            servers.spawn(async move {
                filled.opened().await;
                tcp.await
            });
        }
        let teller = Teller {
            uses,
            view: around.view.clone(),
            handle: self.handle.clone(),
            clock: around.clock.clone(),
        };
        let (stopped, notes) = (stop.clone(), around.notes.clone());
        servers.spawn(async move {
            teller.run(stopped).await;
            Ok(())
        });
        tokio::spawn(offline::watch(around.offline.clone(), around.view.clone(), notes, stop.clone()));
        let renewal = tokio::spawn(self.renewal.run(stop.clone()));
        let replication = Replication {
            owner: self.owner,
            replica_key: self.replica_key,
            replica_directory: self.replica_directory,
            store_options: self.store_options,
            identity: self.identity,
            around: self.around,
        };
        let ended = replication.run(self.opened, self.commands, &stop).await;
        stop.cancel();
        let drained = async { while servers.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("some requests did not end in time and were cut off");
        }
        renewal.abort();
        ended
    }
}

/// The loop, begun again where the disk failed or the hub's keys changed.
struct Replication {
    owner: Owner,
    replica_key: llm_config_shared::seal::SealKey,
    replica_directory: PathBuf,
    store_options: StoreOptions,
    identity: Arc<ArcSwap<EdgeIdentity>>,
    around: Surroundings,
}

impl Replication {
    async fn run(
        self,
        mut opened: Opened,
        mut commands: mpsc::Receiver<Command>,
        stop: &CancellationToken,
    ) -> Result<(), RunError> {
        loop {
            let (ended, given_back) = self.once(opened, &mut commands, stop).await?;
            match ended {
                Ended::Stopped => return Ok(()),
                Ended::Reload => tracing::info!("the hub signs with other keys; beginning anew"),
                Ended::Disk(error) => {
                    tracing::error!(%error, "the replica cannot be written; reads go on from memory");
                    if !pause(&mut commands, &error, stop).await {
                        return Ok(());
                    }
                }
            }
            // Its files are opened anew: after an error sled takes no more writes.
            drop(given_back);
            loop {
                match self.open().await {
                    Ok(again) => {
                        self.around.notes.clear(Topic::Disk);
                        note_recovery(&again, &self.around.notes);
                        opened = again;
                        break;
                    }
                    Err(error) => {
                        self.around.notes.warn(Topic::Disk, error.to_string());
                        let failure = StoreError::Io(error.to_string());
                        if !pause(&mut commands, &failure, stop).await {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    async fn open(&self) -> Result<Opened, OpenError> {
        let (directory, key) = (self.replica_directory.clone(), self.replica_key.clone());
        open_store(directory, key, self.owner.clone(), self.store_options).await
    }

    async fn once(
        &self,
        opened: Opened,
        commands: &mut mpsc::Receiver<Command>,
        stop: &CancellationToken,
    ) -> Result<(Ended, Option<SledStore>), RunError> {
        let Opened { store, records, .. } = opened;
        let hub_offset_ms = records.iter().find_map(|record| match record {
            Record::State(state) => Some(state.clock_offset_ms),
            Record::Row(_)
            | Record::Staged(_)
            | Record::Stage(..)
            | Record::Feed(..)
            | Record::Pending(_)
            | Record::Kept(_)
            | Record::Grant(_) => None,
        });
        let identity = self.identity.load();
        let identity = Identity {
            edge: identity.edge,
            tenant: identity.tenant.clone(),
            keys: identity.credentials.verification_keys.clone(),
        };
        let clock = &self.around.clock;
        let signers = identity.keys.clone();
        let incarnation = random_u64()? >> 1;
        let mut replica =
            EdgeReplica::new(identity, Rules::ALL, records, incarnation, clock.wall(), clock.now());
        if store.damaged() > 0 {
            replica = replica.with_damage();
        }
        let committer = Committer::start(store)?;
        let around = self.around.clone();
        let hub_offset_ms = hub_offset_ms.unwrap_or(0);
        Ok(Loop::new(replica, committer, commands, around, hub_offset_ms, signers).run(stop).await)
    }
}

async fn open_store(
    directory: PathBuf,
    key: llm_config_shared::seal::SealKey,
    owner: Owner,
    options: StoreOptions,
) -> Result<Opened, OpenError> {
    let path = directory.clone();
    let opening = tokio::task::spawn_blocking(move || store::open(&directory, &key, &owner, options));
    opening.await.unwrap_or_else(|error| Err(OpenError::Io { path, reason: error.to_string() }))
}

fn note_recovery(opened: &Opened, notes: &Notes) {
    if let Some(recovery) = &opened.recovery {
        tracing::warn!("{recovery}");
        notes.warn(Topic::Replica, recovery.to_string());
    }
}

/// While there is no disk, writes and requests for the hub are refused at once. False when told to stop.
async fn pause(commands: &mut mpsc::Receiver<Command>, error: &StoreError, stop: &CancellationToken) -> bool {
    let mut over = std::pin::pin!(tokio::time::sleep(DISK_PAUSE));
    loop {
        tokio::select! {
            () = &mut over => return true,
            () = stop.cancelled() => return false,
            command = commands.recv() => match command {
                // Whoever asked may have given up; nothing depends on their hearing it.
                Some(Command::Write { answer, .. }) => {
                    drop(answer.send(Err(WriteRefused::Store(error.clone()))));
                }
                Some(Command::Call { answer, .. }) => drop(answer.send(None)),
                Some(Command::Progress(answer)) => drop(answer.send(crate::daemon::handle::Progress::default())),
                Some(Command::Carry { .. } | Command::Export(_) | Command::Ask | Command::ConnectNow | Command::Reload) => {}
                None => return false,
            },
        }
    }
}

pub(crate) fn random_u64() -> Result<u64, RunError> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| RunError::NoRandomness)?;
    Ok(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests;
