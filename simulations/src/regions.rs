//! Regions: two or three hubs, each with a database of its own, that follow one another while the links between them come
//! and go, hubs are restored from old backups, and edges move from one to another.
//!
//! What happens inside one region is the other world's; here its parts act one at a time. The state machines, and what is
//! checked of causality, are the same.

use std::collections::{BTreeMap, BTreeSet};

use llm_config_shared::entry::{Author, ChangeId, Row};
use llm_config_shared::name::EntryKey;
use llm_config_shared::policy::Policies;
use llm_config_shared::store::Journal;
use llm_config_shared::time::UnixMillis;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use crate::invariants::Check;
use crate::journal::ready;
use crate::stats::Stats;
use crate::trace::Trace;
use crate::world::{Outcome, REGIONS_EACH, Setup};

mod copies;
mod edge;
mod past;
mod places;
mod rest;
mod site;
mod visit;

use copies::Image;
use edge::Edge;
use past::Past;
use site::Site;

const WALL_AT_START_MS: u64 = 1_795_000_000_000;
const EDGES: usize = 4;
const SITES_MAX: usize = 3;
const STEPS: u32 = 160;

/// What happens in a world beside all else. Restored databases and policies each excuse something, and what is excused
/// twice would not be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happens {
    Restores,
    Policies,
    Copies,
    PoliciesAndCopies,
}

impl Happens {
    fn of(turn: u64) -> Self {
        [Self::Restores, Self::Policies, Self::Copies, Self::PoliciesAndCopies][turn as usize % 4]
    }
}

/// The world of one seed.
#[derive(Debug)]
pub(crate) struct Regions {
    setup: Setup,
    rng: ChaCha8Rng,
    now: u64,
    sites: Vec<Site>,
    edges: Vec<Edge>,
    /// Links that are cut, by reader and read.
    cut: BTreeSet<(usize, usize)>,
    past: Past,
    /// A copy of some edge's disk.
    image: Option<Image>,
    happens: Happens,
    last_value: u64,
    stats: Stats,
    trace: Trace,
}

/// Runs one seed to its end, or to the first violation.
pub(crate) fn run(seed: u64, setup: Setup, keep_lines: bool) -> Outcome {
    let mut world = Regions::new(seed, setup, keep_lines);
    let violation = world.live().err();
    let hash = world.trace.hash();
    Outcome { seed, stats: world.stats, hash, violation, lines: world.trace.into_lines() }
}

fn author() -> Author {
    Author { name: "somebody".into(), claimed: None }
}

impl Regions {
    fn new(seed: u64, setup: Setup, keep_lines: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let count = rng.random_range(2..=SITES_MAX);
        let turn = seed / REGIONS_EACH;
        let happens = Happens::of(turn);
        let policies = match happens {
            Happens::Policies | Happens::PoliciesAndCopies => places::policies(turn / 4),
            Happens::Restores | Happens::Copies => Policies::default(),
        };
        let sites: Vec<Site> = (0..count).map(|n| Site::new(n, &policies, setup, &mut rng)).collect();
        let wall = UnixMillis(WALL_AT_START_MS);
        let edges = (0..EDGES).map(|n| Edge::new(n, n % count, setup, &mut rng, wall)).collect();
        Self {
            setup,
            now: 1_000,
            past: Past::new(policies, sites.len(), EDGES),
            image: None,
            happens,
            sites,
            edges,
            cut: BTreeSet::new(),
            rng,
            last_value: 0,
            stats: Stats::default(),
            trace: Trace::new(keep_lines),
        }
    }

    fn live(&mut self) -> Check {
        self.stats.count("worlds of regions");
        for edge in 0..self.edges.len() {
            let first = self.edges[edge].home;
            self.visit(edge, first, u32::MAX)?;
        }
        for _ in 0..STEPS {
            self.now += self.rng.random_range(0..600);
            self.act()?;
        }
        self.come_to_rest()
    }

    fn act(&mut self) -> Check {
        let (site, edge) = (self.random_site(), self.rng.random_range(0..self.edges.len()));
        match self.rng.random_range(0..100) {
            0..22 => self.api_writes(site),
            22..44 => self.edge_writes(edge),
            44..60 => self.edge_comes_by(edge),
            60..86 => self.follow_somebody(site),
            86..90 => self.link_changes(site),
            90..93 => self.leader_changes(site),
            93..96 if self.happens == Happens::Restores => self.backed_up_or_restored(site),
            93..96 if self.happens == Happens::Policies => self.edge_writes(edge),
            93..96 => self.disk_is_copied(),
            96..98 => self.purge(site),
            _ => self.edge_restarts(edge),
        }
    }

    fn random_site(&mut self) -> usize {
        self.rng.random_range(0..self.sites.len())
    }

    fn edge_comes_by(&mut self, edge: usize) -> Check {
        let moves = self.rng.random_range(0..100) < 30;
        let site = if moves { self.random_site() } else { self.edges[edge].home };
        let frames = if self.rng.random_range(0..100) < 25 { self.rng.random_range(1..12) } else { u32::MAX };
        self.visit(edge, site, frames)
    }

    fn link_changes(&mut self, reader: usize) -> Check {
        let read = self.random_site();
        if !self.cut.remove(&(reader, read)) && reader != read {
            self.stats.count("links between regions cut");
            self.cut.insert((reader, read));
        }
        Ok(())
    }

    fn follow_somebody(&mut self, reader: usize) -> Check {
        let read = self.random_site();
        if reader == read || self.cut.contains(&(reader, read)) {
            return Ok(());
        }
        let limit = self.rng.random_range(1..6);
        self.follow(reader, read, limit).map(drop)
    }

    fn wall(&self) -> UnixMillis {
        UnixMillis(WALL_AT_START_MS + self.now)
    }

    fn change(&mut self) -> ChangeId {
        ChangeId(Uuid::from_u128(self.rng.random()))
    }

    /// Large enough that what is changed of it goes as a patch.
    fn random_value(&mut self) -> llm_config_shared::value::Value {
        self.last_value += 1;
        let padding = "x".repeat(if self.last_value.is_multiple_of(3) { 400 } else { 3 });
        let text = format!("{{\"a\":\"{padding}\",\"n\":{}}}", self.last_value);
        llm_config_shared::value::Value::parse(&text).expect("JSON")
    }

    /// What there is in a region.
    fn rows(&self, site: usize) -> BTreeMap<EntryKey, Row> {
        let head = ready(self.sites[site].journal.head()).expect("it was led");
        let mut rows = BTreeMap::new();
        self.sites[site].journal.each_row_at(&places::everything(), head.position.seq, |row| {
            if row.row.content.is_live() {
                rows.insert(row.row.at.clone(), row.row.clone());
            }
        });
        rows
    }
}
