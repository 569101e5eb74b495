//! The parts of a running hub, put together. Nothing serves yet; the writer runs.

use std::sync::Arc;

use axum::Router;
use llm_config_shared::store::Journal;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Keys, ServerError, address, routes};
use crate::api::{Api, Parts};
use crate::config::Config;
use crate::expiry::Watchman;
use crate::fanout::Fanout;
use crate::guard::Guard;
use crate::identity::Identity;
use crate::processes::line::Line;
use crate::processes::passing::Passing;
use crate::processes::service::HubsService;
use crate::processes::{ProcessAt, Processes};
use crate::regions::home::{Asking, HomeLine};
use crate::registry::Registry;
use crate::rotation::Rotator;
use crate::secrets::{Providers, SecretStore};
use crate::sources::Follower;
use crate::sync::call::Calls;
use crate::sync::presence::Presence;
use crate::sync::roster::Roster;
use crate::sync::service;
use crate::telemetry::Metrics;
use crate::writer::{self, WriterHandle};

/// What the two listeners serve, and the writer behind them.
pub(super) struct Assembled<S> {
    /// This process, as it names itself to others.
    pub(super) process: Uuid,
    pub(super) router: Router,
    pub(super) edges: Arc<service::Parts<S, S>>,
    pub(super) hubs: Arc<HubsService<S, S>>,
    pub(super) writer_task: JoinHandle<()>,
    pub(super) watchman: Watchman<S>,
    pub(super) rotator: Rotator<S>,
}

/// # Errors
/// When the database cannot be used.
pub(super) async fn assemble<S: Journal + Registry + Processes>(
    config: &Config,
    store: &Arc<S>,
    keys: Keys,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<Assembled<S>, ServerError> {
    let Keys { providers, identity } = keys;
    let secrets = secrets(config, store, &providers, stop);
    let me = ProcessAt::new(address::for_processes(config));
    let process = me.process;
    let started = writer::start(Arc::clone(store), Arc::clone(store), Arc::clone(&secrets), me).await?;
    let writer::Started { handle: writer, tail, task: writer_task } = started;
    let guard = Arc::new(Guard::new(Arc::clone(store), config.limits.failed_logins_per_minute));
    let roster = Arc::new(Roster::default());
    let home = home_line(config, process, &identity, store, &roster);
    let rotate = Arc::new(Notify::new());
    let rotator = Rotator::new(config, store, &secrets, &writer, &roster, &rotate);
    let watchman = Watchman::new(Arc::clone(store), writer.clone(), config.secrets.expiry.clone());
    let fanout = Arc::new(Fanout::new(Arc::clone(store), Arc::clone(&tail), Arc::clone(&identity)));
    let line = Arc::new(Line::new(process, writer.roles(), Arc::clone(&identity)));
    let api = Arc::new(Api::new(Parts {
        store: Arc::clone(store),
        writer: writer.clone(),
        secrets: Arc::clone(&secrets),
        repeats: identity.repeats().clone(),
        guard: Arc::clone(&guard),
        tail: Arc::clone(&tail),
        metrics: metrics.clone(),
        mode: config.mode,
        edge_address: address::for_edges(config),
        ca_fingerprint: identity.ca().fingerprint(),
        identity: Arc::clone(&identity),
        roster: Arc::clone(&roster),
        line: Arc::clone(&line),
        expiry_warnings: watchman.newest(),
        rotation_commands: config.secrets.rotation.names(),
        rotate: Arc::clone(&rotate),
        stop: stop.clone(),
    }));
    follow_sources(config, store, &providers, (&secrets, &writer), stop);
    let passing = Passing::new(writer.clone(), Arc::clone(&line), Arc::clone(&tail));
    let known_callers = routes::known_callers(api, passing, Arc::clone(&home));
    let calls = Calls::new(known_callers.clone());
    let router = routes::public(known_callers, Arc::clone(&guard), config.limits.request);
    let edges = service::Parts {
        journal: Arc::clone(store),
        registry: Arc::clone(store),
        secrets,
        fanout,
        identity,
        writer,
        line,
        tail,
        calls,
        roster,
        home,
        presence: Presence::default(),
    };
    let (hubs, edges) = (Arc::new(between_hubs(&edges, guard)), Arc::new(edges));
    Ok(Assembled { process, router, edges, hubs, writer_task, watchman, rotator })
}

/// What serves edges, for the hub's other processes and for other regions.
fn between_hubs<S: Journal + Registry>(
    edges: &service::Parts<S, S>,
    guard: Arc<Guard<S>>,
) -> HubsService<S, S> {
    HubsService {
        writer: edges.writer.clone(),
        calls: edges.calls.clone(),
        guard,
        registry: Arc::clone(&edges.registry),
        journal: Arc::clone(&edges.journal),
        roster: Arc::clone(&edges.roster),
        secrets: Arc::clone(&edges.secrets),
    }
}

fn home_line<S: Registry>(
    config: &Config,
    process: Uuid,
    identity: &Arc<Identity>,
    store: &Arc<S>,
    roster: &Arc<Roster>,
) -> Arc<HomeLine<S>> {
    Arc::new(HomeLine::new(Asking {
        process,
        alone: config.regions.is_empty(),
        edge_address: address::for_edges(config),
        identity: Arc::clone(identity),
        registry: Arc::clone(store),
        roster: Arc::clone(roster),
    }))
}

/// What seals and opens secrets, with every key that can be had in memory soon.
fn secrets<S: Registry>(
    config: &Config,
    store: &Arc<S>,
    providers: &Providers,
    stop: &CancellationToken,
) -> Arc<SecretStore<S>> {
    let secrets = SecretStore::new(Arc::clone(store), providers.clone());
    let secrets = Arc::new(secrets.among_regions(!config.regions.is_empty()));
    if let Some(vault) = providers.vault() {
        tokio::spawn(Arc::clone(vault).keep(stop.clone()));
    }
    for cloud in providers.clouds() {
        tokio::spawn(Arc::clone(cloud).keep(stop.clone()));
    }
    let (warming, until) = (Arc::clone(&secrets), stop.clone());
    tokio::spawn(async move { warming.warm_up(until).await });
    secrets
}

/// The settings give sources only beside a Vault.
fn follow_sources<S: Journal + Registry>(
    config: &Config,
    store: &Arc<S>,
    providers: &Providers,
    (secrets, writer): (&Arc<SecretStore<S>>, &WriterHandle),
    stop: &CancellationToken,
) {
    let Some(vault) = providers.vault() else { return };
    for source in config.sources.iter().cloned() {
        let (vault, journal) = (Arc::clone(vault), Arc::clone(store));
        let (secrets, writer) = (Arc::clone(secrets), writer.clone());
        tokio::spawn(Follower { source, vault, journal, secrets, writer }.keep(stop.clone()));
    }
}
