//! What readers see: the replica's rows overlaid by pending writes, switched as a whole, and how fresh all that is.
//!
//! Every window of the edge reads through here, and only here is a secret opened. Nothing here waits for the hub or for
//! the disk: a read costs a lock that is held while a few pointers are copied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use llm_config_proto::rest::service::{Freshness, Source, Told};
use llm_config_shared::entry::Row;
use llm_config_shared::feed::{Environments, Feed};
use llm_config_shared::name::{EdgeName, EntryKey, Environment, Namespace, Subtree, Tenant};
use llm_config_shared::replication::edge::Published;
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::{Position, Vector};
use llm_config_shared::write::Write;
use tokio::sync::{broadcast, watch};

use crate::clock::Clock;

mod explain;
mod read;
mod secrets;
mod told;

pub use read::{Missing, Wanted, WantedList};
pub use secrets::Keyring;

/// How many switches a follower may be behind before it is told to read anew.
const EVENTS_KEPT: usize = 1_024;

/// What readers see.
pub struct View {
    tenant: Tenant,
    edge: EdgeName,
    /// Until the hub has said which, what it said at joining.
    default_environment: Environment,
    clock: Arc<Clock>,
    state: RwLock<State>,
    /// Rises at every switch.
    switched: watch::Sender<u64>,
    events: broadcast::Sender<Arc<[Told]>>,
}

/// Everything that switches together.
struct State {
    rows: BTreeMap<EntryKey, Arc<Row>>,
    pending: BTreeMap<EntryKey, Write>,
    feeds: BTreeMap<Feed, Vector>,
    /// Feeds in which something may be missing.
    doubted: BTreeSet<Feed>,
    environments: Environments,
    default_environment: Option<Environment>,
    keyring: Keyring,
    /// By the hub's clock.
    confirmed_at: Option<UnixMillis>,
    /// The hub's clock minus this machine's.
    hub_offset_ms: i64,
    pending_count: usize,
    connected: bool,
}

/// Counts and states for `edge status` and `/metrics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub entries: usize,
    pub pending: usize,
    pub connected: bool,
    /// Whether there is anything that readers may see.
    pub has_data: bool,
    /// Since the hub last confirmed; none if it never did.
    pub age_ms: Option<u64>,
    pub feeds: Vec<(Feed, Vector)>,
    /// The last place in the hub's order that all feeds have reached.
    pub position: Vector,
}

impl View {
    /// Empty, until the first switch.
    pub fn new(
        tenant: Tenant,
        edge: EdgeName,
        default_environment: Environment,
        keyring: Keyring,
        clock: Arc<Clock>,
    ) -> Self {
        let state = State {
            rows: BTreeMap::new(),
            pending: BTreeMap::new(),
            feeds: BTreeMap::new(),
            doubted: BTreeSet::new(),
            environments: Environments::default(),
            default_environment: None,
            keyring,
            confirmed_at: None,
            hub_offset_ms: 0,
            pending_count: 0,
            connected: false,
        };
        let (switched, _) = watch::channel(0);
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        Self { tenant, edge, default_environment, clock, state: RwLock::new(state), switched, events }
    }

    /// Whose entries these are.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The edge's name, for values of its own.
    pub fn edge(&self) -> &EdgeName {
        &self.edge
    }

    /// Everything anew: a replica was opened. `hub_offset_ms` is what it knew of the hub's clock.
    pub fn replace(&self, published: Published, hub_offset_ms: i64) {
        {
            let mut state = self.write();
            state.rows.clear();
            state.pending.clear();
            state.feeds.clear();
            state.doubted.clear();
            state.hub_offset_ms = hub_offset_ms;
            state.apply(published);
        }
        self.switched.send_modify(|generation| *generation += 1);
        // Followers cannot be told one by one what differs from the replica before.
        let _ = self.events.send(Arc::from([Told::Reset(self.position())]));
    }

    /// Switches readers to what is durable now.
    pub fn switch(&self, published: Published) {
        let told: Arc<[Told]> = {
            let mut state = self.write();
            let told = told::events(&state.rows, &published);
            state.apply(published);
            told.into()
        };
        self.switched.send_modify(|generation| *generation += 1);
        if !told.is_empty() {
            // Nobody follows: nothing to tell.
            let _ = self.events.send(told);
        }
    }

    /// Tells followers something that readers do not see.
    pub fn tell(&self, told: Told) {
        // Nobody follows: nothing to tell.
        let _ = self.events.send(Arc::from([told]));
    }

    /// Whether the hub serves this edge now.
    pub fn set_connected(&self, connected: bool) {
        let changed = {
            let mut state = self.write();
            std::mem::replace(&mut state.connected, connected) != connected
        };
        if changed {
            self.switched.send_modify(|generation| *generation += 1);
        }
    }

    /// The hub was heard: secrets open again, as far as they were locked.
    pub fn unlock_secrets(&self) {
        self.write().keyring.unlock();
    }

    /// Whether a key here may open with this half of the edge's own keys alone. Cut off, nothing is known to be complete.
    pub fn needs_sealing_key(&self, public: &[u8; 32]) -> bool {
        !self.is_connected() || self.read().keyring.needs(public)
    }

    /// The keys of these secrets are forgotten. Whoever follows is told to read anew, and so finds out.
    pub fn lock_secrets(&self, subtrees: &[Subtree]) {
        self.write().keyring.lock(subtrees);
        self.tell(Told::Reset(self.position()));
    }

    /// What the hub's clock said in the handshake.
    pub fn set_hub_clock(&self, physical: UnixMillis) {
        let offset_ms = physical.0 as i64 - self.clock.wall().0 as i64;
        self.write().hub_offset_ms = offset_ms;
    }

    /// Rises at every switch and whenever the hub comes or goes.
    pub fn switches(&self) -> watch::Receiver<u64> {
        self.switched.subscribe()
    }

    /// Waits until the replica's own records are what readers see: nobody is told that there is nothing while it opens.
    pub async fn opened(&self) {
        let mut switches = self.switches();
        // The sender lives as long as the view.
        let _ = switches.wait_for(|generation| *generation > 0).await;
    }

    /// Changes from now on.
    pub fn follow(&self) -> broadcast::Receiver<Arc<[Told]>> {
        self.events.subscribe()
    }

    /// Whether the hub serves this edge now.
    pub fn is_connected(&self) -> bool {
        self.read().connected
    }

    /// The environment of a request that names none.
    pub fn default_environment(&self) -> Environment {
        self.read().default_environment.clone().unwrap_or_else(|| self.default_environment.clone())
    }

    /// Whether the environment exists, as far as is known here.
    pub fn knows(&self, environment: &Environment) -> bool {
        let state = self.read();
        state.environments.contains(environment)
            || (state.environments.iter().next().is_none() && *environment == self.default_environment)
    }

    /// Since the hub last confirmed what readers see; none if it never did.
    pub fn age_ms(&self) -> Option<u64> {
        self.read().age_ms(self.clock.wall())
    }

    /// The last place in the hub's order that all feeds have reached.
    pub fn position(&self) -> Vector {
        let state = self.read();
        lowest(state.feeds.values())
    }

    /// Whether everything that a read of this namespace consults has come so far.
    pub fn has_reached(&self, wanted: &Vector, environment: &Environment, namespace: &Namespace) -> bool {
        let state = self.read();
        let mut consulted = state.consulted(environment, namespace).peekable();
        consulted.peek().is_some() && consulted.all(|vector| vector.covers(wanted))
    }

    /// How far the feed has come that entries of this namespace come in; none if this edge does not receive them.
    pub fn reached(&self, environment: &Environment, namespace: &Namespace) -> Option<Vector> {
        let state = self.read();
        let mut feeds = state.feeds.iter();
        let feed =
            feeds.find(|(feed, _)| feed.environment == *environment && feed.subtree.contains(namespace));
        feed.map(|(_, vector)| vector.clone())
    }

    /// Waits until `reached` holds after a switch, at most so long. Whether it holds.
    pub async fn wait_until(&self, patience: Duration, reached: impl Fn(&Self) -> bool) -> bool {
        let mut switches = self.switches();
        let waiting = async {
            while !reached(self) {
                // The sender lives as long as the view.
                if switches.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(patience, waiting).await;
        reached(self)
    }

    /// The row under a key, pending writes aside.
    pub fn row(&self, at: &EntryKey) -> Option<Arc<Row>> {
        self.read().rows.get(at).cloned()
    }

    /// Counts and states.
    pub fn summary(&self) -> Summary {
        let state = self.read();
        Summary {
            entries: state.rows.len(),
            pending: state.pending_count,
            connected: state.connected,
            has_data: !state.feeds.is_empty(),
            age_ms: state.age_ms(self.clock.wall()),
            feeds: state.feeds.iter().map(|(feed, vector)| (feed.clone(), vector.clone())).collect(),
            position: lowest(state.feeds.values()),
        }
    }

    // A reader that panicked held no half-changed state: only `switch` writes, and it has nothing that panics.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, published: Published) {
        for (feed, vector) in published.feeds {
            self.doubted.remove(&feed);
            match vector {
                Some(vector) => drop(self.feeds.insert(feed, vector)),
                None => drop(self.feeds.remove(&feed)),
            }
        }
        self.doubted.extend(published.doubted);
        for (at, row) in published.rows {
            match row.filter(|row| row.content.is_live()) {
                Some(row) => drop(self.rows.insert(at, row)),
                None => drop(self.rows.remove(&at)),
            }
        }
        for (at, write) in published.pending {
            match write {
                Some(write) => drop(self.pending.insert(at, write)),
                None => drop(self.pending.remove(&at)),
            }
        }
        if let Some((environments, default)) = published.environments {
            self.environments = environments;
            if default.is_some() {
                self.default_environment = default;
            }
        }
        self.keyring.add(published.grants);
        self.confirmed_at = self.confirmed_at.max(published.confirmed_at);
        self.pending_count = published.pending_count;
    }

    fn age_ms(&self, wall: UnixMillis) -> Option<u64> {
        let hub_now = wall.0.saturating_add_signed(self.hub_offset_ms);
        self.confirmed_at.map(|at| hub_now.saturating_sub(at.0))
    }

    fn freshness(&self, wall: UnixMillis, source: Source) -> Option<Freshness> {
        self.age_ms(wall).map(|age_ms| Freshness { age_ms, source })
    }

    /// How far the feeds have come that a read of this namespace in this environment looks into.
    fn consulted(&self, environment: &Environment, namespace: &Namespace) -> impl Iterator<Item = &Vector> {
        let chain = self.environments.chain(environment);
        let asked = Subtree::of(namespace.clone());
        self.feeds.iter().filter_map(move |(feed, vector)| {
            let meets = feed.subtree.covers(&asked) || asked.covers(&feed.subtree);
            (meets && chain.contains(&feed.environment)).then_some(vector)
        })
    }
}

/// The greatest vector that all of them cover.
fn lowest<'a>(vectors: impl IntoIterator<Item = &'a Vector>) -> Vector {
    let mut vectors = vectors.into_iter();
    let Some(first) = vectors.next() else { return Vector::EMPTY };
    vectors.fold(first.clone(), |lowest, vector| {
        let least = |(shard, position): (_, Position)| {
            let other = vector.get(shard)?;
            Some((shard, if other.seq < position.seq { other } else { position }))
        };
        Vector::from_positions(lowest.iter().filter_map(least)).expect("no more shards than before")
    })
}
