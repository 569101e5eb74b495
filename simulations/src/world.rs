//! A deterministic world: one database, two hub processes, three to ten edges, and everything that goes wrong between them.
//!
//! The state machines, the planner and the layout of transfers are the product's own; disks, streams, clocks and the
//! database are the simulator's. Whatever happens is an event in one queue, ordered by time and then by number.

use std::collections::BTreeMap;

use llm_config_shared::feed::{Binding, Environments};
use llm_config_shared::name::{EntryKey, Tenant};
use llm_config_shared::replication::frame::HubFrame;
use llm_config_shared::replication::repair;
use llm_config_shared::replication::rules::Rules;
use llm_config_shared::store::FeedSnapshot;
use llm_config_shared::time::{Instant, UnixMillis};
use llm_config_shared::vector::ShardId;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use crate::invariants::{Check, Violation};
use crate::journal::SimJournal;
use crate::network::{Down, Network, Parcel, StreamId};
use crate::regions;
use crate::secrets::{self, SecretRules};
use crate::stats::Stats;
use crate::trace::Trace;
use crate::truth::{Reader, Truth};

mod actions;
mod authors;
mod breaks;
mod clients;
mod copies;
mod edge;
mod hub;
mod memory;
mod mending;
mod people;
mod places;
mod publisher;
mod purger;
mod relay;
mod rest;
mod restore;
mod rot;
mod sticks;
mod writer;

use clients::Clients;
use copies::Image;
use edge::EdgeHost;
use hub::HubProcess;
use publisher::{Encodings, Signer};
use relay::Relay;
use restore::Kept;
use sticks::Sticks;

/// The wall clock of the world at its beginning.
const WALL_AT_START_MS: u64 = 1_795_000_000_000;
/// How far a hub process's clock may be from true time.
pub const HUB_SKEW_MS: i64 = 20;

/// The hub's own region, the only one.
const SHARD: ShardId = ShardId(Uuid::from_u128(0x5a5a));

/// So often something goes wrong or is done, and so much oftener for each edge.
const ACTIONS: u32 = 100;
const ACTIONS_EACH: u32 = 12;

/// One of so many worlds is one of several regions.
pub(crate) const REGIONS_EACH: u64 = 5;

/// And one of so many is one of secrets.
const SECRETS_EACH: u64 = 10;
const SECRETS_AT: u64 = 3;

/// What is switched on. [`Setup::REAL`] is the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    pub rules: Rules,
    /// A commit of a leader that was replaced is refused.
    pub fence: bool,
    /// A transfer reads all feeds in one snapshot of the database.
    pub one_snapshot: bool,
    /// A purge raises the horizon, below which nobody is sent changes alone.
    pub horizon: bool,
    /// What is held of a transfer that broke off is gone on with only from above the horizon.
    pub held_horizon: bool,
    /// Something stays of a purged deletion, for writes whose authors never saw it.
    pub stubs: bool,
    /// Disks rot.
    pub rot: bool,
    /// Where another region has read to in a hub's history counts only under the leadership that it was read under.
    pub bookmarks: bool,
    pub secrets: SecretRules,
}

impl Setup {
    pub const REAL: Self = Self {
        rules: Rules::ALL,
        fence: true,
        one_snapshot: true,
        horizon: true,
        held_horizon: true,
        stubs: true,
        rot: true,
        bookmarks: true,
        secrets: SecretRules::ALL,
    };

    pub(crate) fn database(self) -> SimJournal {
        let mut journal = SimJournal::new();
        if !self.fence {
            journal = journal.without_fence();
        }
        if !self.horizon {
            journal = journal.without_horizon();
        }
        if !self.stubs {
            journal = journal.without_stubs();
        }
        if !self.bookmarks {
            journal = journal.trusting_bookmarks();
        }
        journal
    }
}

/// What came of one seed.
#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    pub stats: Stats,
    pub hash: u64,
    pub violation: Option<Violation>,
    pub lines: Vec<String>,
}

/// Something that will happen.
#[derive(Debug)]
enum Event {
    /// The next thing that goes wrong, or that somebody does.
    Act,
    Opened {
        stream: StreamId,
    },
    OpenFailed {
        edge: usize,
        life: u32,
        attempt: u64,
    },
    Arrives {
        stream: StreamId,
        parcel: Parcel,
    },
    /// The oldest waiting batch of the edge's disk becomes durable.
    Synced {
        edge: usize,
        life: u32,
    },
    /// What is kept on the edge's disk is read.
    Recalled {
        edge: usize,
        life: u32,
    },
    /// The edge hears of it.
    Committed {
        edge: usize,
        life: u32,
    },
    EdgeTimer {
        edge: usize,
        life: u32,
    },
    /// The next frame of the file that was brought to the edge.
    FromFile {
        edge: usize,
        life: u32,
    },
    EdgeStarts {
        edge: usize,
        life: u32,
    },
    PowerFails {
        edge: usize,
        life: u32,
    },
    HubStarts {
        hub: usize,
        life: u32,
    },
    HubTimer {
        hub: usize,
        life: u32,
        stream: StreamId,
    },
    HeadRead {
        hub: usize,
        life: u32,
        stream: StreamId,
    },
    FeedsRead {
        hub: usize,
        life: u32,
        stream: StreamId,
        request: hub::FeedsWanted,
    },
    RepairRead {
        hub: usize,
        life: u32,
        stream: StreamId,
        job: repair::Job,
    },
    /// The planned commit reaches the database.
    Append {
        hub: usize,
        life: u32,
    },
    /// The database's answer reaches the process.
    Appended {
        hub: usize,
        life: u32,
    },
    /// The process hears that something was committed.
    Advanced {
        hub: usize,
        life: u32,
    },
    /// Whoever leads looks for old deletions.
    Purge,
    /// A client tries its request again.
    Retry {
        request: u64,
    },
    Heal {
        edge: usize,
        hub: usize,
    },
    /// The edge's power fails, its clock comes up ahead, and somebody there writes what they have just read.
    Trap {
        at: Box<EntryKey>,
    },
}

/// The world of one seed.
pub struct World {
    setup: Setup,
    rng: ChaCha8Rng,
    now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    last_event: u64,
    tenant: Tenant,
    environments: Environments,
    /// What each edge receives and where it may write.
    bindings: Vec<Binding>,
    journal: SimJournal,
    hubs: Vec<HubProcess>,
    edges: Vec<EdgeHost>,
    network: Network,
    clients: Clients,
    relay: Relay,
    sticks: Sticks,
    signer: Signer,
    encodings: Encodings,
    truth: Truth,
    /// The newest backup of the hub, if there is one.
    kept: Option<Box<Kept>>,
    stats: Stats,
    trace: Trace,
    /// A copy of some edge's disk.
    image: Option<Image>,
    segment_rows_max: usize,
    batch_changes_max: usize,
    /// How long deletions are kept. Edges are away for up to 40 seconds, so these stand for a month.
    retention_ms: u64,
    /// How much goes wrong; none while the world heals.
    chaos: bool,
    /// Disks rot in this world. There are no copies of them, no lost hubs and no policies then: each of those also excuses
    /// what readers are shown, and what is excused twice would not be checked.
    rots: bool,
    /// Somebody decides about held writes and conflicts.
    people: bool,
    actions_left: u32,
    last_value: u64,
    /// How many entries there ever were at once.
    most_entries: usize,
}

/// Runs one seed to its end, or to the first violation.
pub fn run(seed: u64, setup: Setup, keep_lines: bool) -> Outcome {
    if seed % REGIONS_EACH == REGIONS_EACH - 1 {
        return regions::run(seed, setup, keep_lines);
    }
    if seed % SECRETS_EACH == SECRETS_AT {
        return secrets::run(seed, setup, keep_lines);
    }
    let mut world = World::new(seed, setup, keep_lines);
    let violation = world.live().err();
    let hash = world.trace.hash();
    Outcome { seed, stats: world.stats, hash, violation, lines: world.trace.into_lines() }
}

impl World {
    fn new(seed: u64, setup: Setup, keep_lines: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (segment_rows_max, batch_changes_max) = match rng.random_range(0..4) {
            0 => (2, 3),
            1 => (3, 2),
            2 => (5, 8),
            _ => (2_000, 200),
        };
        let retention_ms = [300, 1_500, 6_000, 25_000][rng.random_range(0..4)];
        let tenant = places::tenant();
        let hubs = (0..2).map(|n| HubProcess::new(n, &mut rng)).collect();
        let (count, first) = (places::random_edges(&mut rng), rng.random_range(0..places::BINDINGS));
        // The last is a machine without a disk, until it gets a copy of another's.
        let who = (0..count).map(Some).chain([None]);
        let edges: Vec<EdgeHost> = who.map(|who| EdgeHost::new(who, &mut rng)).collect();
        let mut stats = Stats::default();
        if count == places::BINDINGS {
            stats.count("worlds of ten edges");
        }
        let policies = places::policies(seed);
        let journal = setup.database();
        journal.set_policies(policies.clone());
        let truth = Truth { readers: vec![Reader::default(); edges.len()], policies, ..Truth::default() };
        let relay = Relay::new(edges.len());
        Self {
            setup,
            rng,
            now: 0,
            queue: BTreeMap::new(),
            last_event: 0,
            tenant,
            environments: places::environments(),
            bindings: (0..count).map(|edge| places::binding(first + edge)).collect(),
            journal,
            hubs,
            edges,
            network: Network::default(),
            clients: Clients::default(),
            relay,
            sticks: Sticks::default(),
            signer: Signer::new(seed),
            encodings: Encodings::default(),
            truth,
            kept: None,
            stats,
            trace: Trace::new(keep_lines),
            image: None,
            segment_rows_max,
            batch_changes_max,
            retention_ms,
            chaos: true,
            rots: setup.rot && seed % 4 == 2,
            people: matches!(seed % 10, 1 | 8),
            actions_left: ACTIONS + ACTIONS_EACH * count as u32,
            last_value: 0,
            most_entries: 0,
        }
    }

    fn live(&mut self) -> Check {
        for hub in 0..self.hubs.len() {
            self.start_hub(hub)?;
        }
        for edge in 0..self.edges.len() {
            let at = self.rng.random_range(0..100);
            self.schedule(at, Event::EdgeStarts { edge, life: 0 });
        }
        self.schedule(5, Event::Act);
        self.schedule(self.retention_ms, Event::Purge);
        while self.chaos {
            self.step()?;
        }
        self.come_to_rest()
    }

    /// The next event; false when there is none.
    fn step(&mut self) -> Result<bool, Violation> {
        let Some(((at, number), event)) = self.queue.pop_first() else { return Ok(false) };
        self.now = self.now.max(at);
        self.stats.count("events");
        match self.paused_until(&event) {
            // Under its own number: what was sent first is still first when the process wakes.
            Some(until) => drop(self.queue.insert((until, number), event)),
            None => self.happen(event)?,
        }
        self.check_memory()?;
        Ok(true)
    }

    fn schedule(&mut self, after: u64, event: Event) {
        self.schedule_at(self.now + after, event);
    }

    fn schedule_at(&mut self, at: u64, event: Event) {
        self.last_event += 1;
        self.queue.insert((at.max(self.now), self.last_event), event);
    }

    fn happen(&mut self, event: Event) -> Check {
        match event {
            Event::Act => self.act(),
            Event::Opened { stream } => self.opened(stream),
            Event::OpenFailed { edge, life, attempt } => self.open_failed(edge, life, attempt),
            Event::Arrives { stream, parcel } => self.arrives(stream, parcel),
            Event::Synced { edge, life } => self.synced(edge, life),
            Event::Recalled { edge, life } => self.recalled(edge, life),
            Event::Committed { edge, life } => self.committed(edge, life),
            Event::EdgeTimer { edge, life } => self.edge_timer(edge, life),
            Event::FromFile { edge, life } => self.reads_on(edge, life),
            Event::EdgeStarts { edge, life } => self.start_edge(edge, life),
            Event::PowerFails { edge, life } => self.power_fails(edge, life),
            Event::HubStarts { hub, life } => self.restart_hub(hub, life),
            Event::HubTimer { hub, life, stream } => self.hub_timer(hub, life, stream),
            Event::HeadRead { hub, life, stream } => self.head_read(hub, life, stream),
            Event::FeedsRead { hub, life, stream, request } => self.feeds_read(hub, life, stream, request),
            Event::RepairRead { hub, life, stream, job } => self.repair_read(hub, life, stream, job),
            Event::Append { hub, life } => self.append(hub, life),
            Event::Appended { hub, life } => self.appended(hub, life),
            Event::Advanced { hub, life } => self.advanced(hub, life),
            Event::Purge => self.look_for_old_deletions(),
            Event::Retry { request } => self.retry(request),
            Event::Trap { at } => self.spring_trap(&at),
            Event::Heal { edge, hub } => {
                self.network.heal(edge, hub);
                Ok(())
            }
        }
    }

    /// Events of a paused process wait until it wakes.
    fn paused_until(&self, event: &Event) -> Option<u64> {
        let hub = match event {
            Event::HubTimer { hub, .. }
            | Event::HeadRead { hub, .. }
            | Event::FeedsRead { hub, .. }
            | Event::RepairRead { hub, .. }
            | Event::Append { hub, .. }
            | Event::Appended { hub, .. }
            | Event::Advanced { hub, .. } => *hub,
            Event::Arrives { stream, parcel: Parcel::Up(_) | Parcel::ClosedUp }
            | Event::Opened { stream } => self.network.stream(*stream)?.hub,
            Event::Arrives { parcel: Parcel::Down(_) | Parcel::ClosedDown, .. }
            | Event::Act
            | Event::OpenFailed { .. }
            | Event::Synced { .. }
            | Event::Recalled { .. }
            | Event::Committed { .. }
            | Event::EdgeTimer { .. }
            | Event::FromFile { .. }
            | Event::EdgeStarts { .. }
            | Event::PowerFails { .. }
            | Event::HubStarts { .. }
            | Event::Purge
            | Event::Retry { .. }
            | Event::Heal { .. }
            | Event::Trap { .. } => return None,
        };
        let until = self.hubs[hub].paused_until;
        (until > self.now).then_some(until)
    }

    fn arrives(&mut self, stream: StreamId, parcel: Parcel) -> Check {
        self.network.leaves(stream, &parcel);
        if !self.network.delivers(stream, &parcel) {
            self.stats.count("frames lost");
            return Ok(());
        }
        match parcel {
            Parcel::Up(frame) => self.hub_hears(stream, frame),
            Parcel::Down(down) => self.edge_hears(stream, *down),
            Parcel::ClosedUp => self.hub_closed(stream),
            Parcel::ClosedDown => self.edge_closed(stream),
        }
    }

    fn latency(&mut self) -> u64 {
        match self.rng.random_range(0..100) {
            0..80 => self.rng.random_range(1..15),
            80..97 => self.rng.random_range(15..120),
            _ => self.rng.random_range(120..1_500),
        }
    }

    fn send(&mut self, stream: StreamId, parcel: Parcel) {
        let latency = self.latency();
        if let Some(at) = self.network.arrival(stream, &parcel, self.now, latency) {
            self.schedule_at(at, Event::Arrives { stream, parcel });
        } else {
            self.stats.count("frames lost");
        }
    }

    fn send_down(&mut self, stream: StreamId, frame: HubFrame, to_seq: Option<u64>) {
        self.send(stream, Parcel::Down(Box::new(Down { frame, to_seq, injected: false })));
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.chaos && self.rng.random_range(0..100) < percent
    }

    /// True time.
    fn wall(&self) -> UnixMillis {
        UnixMillis(WALL_AT_START_MS + self.now)
    }

    /// A hub process's boot-time clock.
    fn hub_now(&self) -> Instant {
        Instant(self.now)
    }
}

/// What a hub read before the rest, where one snapshot is switched off.
type Early = Option<Box<FeedSnapshot>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_worlds() {
        let (first, second) = (run(5, Setup::REAL, false), run(5, Setup::REAL, true));
        assert_eq!(first.violation, None);
        assert_eq!((first.hash, &first.stats), (second.hash, &second.stats));
        assert!(!second.lines.is_empty());
        assert_ne!(first.hash, run(6, Setup::REAL, false).hash);
    }

    #[test]
    fn a_few_worlds_hold_and_contain_what_they_should() {
        let mut stats = Stats::default();
        for seed in 0..40 {
            let outcome = run(seed, Setup::REAL, false);
            assert_eq!(outcome.violation, None, "seed {seed}");
            stats.merge(&outcome.stats);
        }
        for what in [
            "conflicts",
            "edge crashes",
            "multi-page transfers",
            "streams that broke within a part",
            "transfers continued",
            "edges that read slowly",
            "worlds of ten edges",
            "files taken by edges",
            "files refused as older",
            "files refused for a gap",
            "files brought again",
            "files taken by the hub",
            "files brought to the hub again",
            "writes brought in files",
            "decisions that wrote",
            "decisions that wrote nothing",
            "decisions refused",
            "duplicated segments",
            "hub crashes",
            "deletions purged",
            "fetched anew from below the horizon",
            "writes that lost to a purged deletion",
            "writes that followed a purged deletion",
        ] {
            assert!(stats.get(what) > 0, "{what}");
        }
    }
}
