//! A world of secrets: one hub with key epochs, offline limits and removals, and machines whose clocks step, stop and drift,
//! that are off for long, whose disks are set back, and who are told things late, twice or of somebody else.
//!
//! The gate of an edge, the hub's signed words, the sealing of keys and values and the receipt are the product's own. What
//! is checked is compared with true time and with every key that ever left the hub.

use llm_config_shared::name::{Namespace, Subtree, Tenant};
use llm_config_shared::offline::GateRules;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::invariants::{Check, Violation};
use crate::stats::Stats;
use crate::trace::Trace;
use crate::world::{Outcome, Setup};

mod contact;
mod hub;
mod machine;
mod rotations;

use hub::Hub;
use machine::{Image, Machine};
use rotations::Rotations;

pub(crate) const WALL_AT_START_MS: u64 = 1_795_000_000_000;
const EDGES: usize = 3;
const STEPS: u32 = 120;
const NAMESPACES: [&str; 4] = ["app", "app/pay", "app/pay/eu", "team"];
const MINUTE: u64 = 60_000;

/// What is switched on in this world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretRules {
    pub gate: GateRules,
    /// The clock that counts sleep counts, and not the wall clock alone.
    pub boot_clock: bool,
    /// How long the hub was silent is written down while it is.
    pub kept: bool,
    /// Under `never` no key outlives the start that got it.
    pub forgotten: bool,
    /// A removed edge destroys what it has.
    pub wiped: bool,
    /// New keys begin where an edge is removed.
    pub new_keys: bool,
    /// The ledger has a key before it leaves the hub.
    pub ledger_first: bool,
    /// A rotation looks what it has written before it writes.
    pub written_once: bool,
    /// And writes over the version that it began from alone.
    pub overtaken: bool,
    /// Nobody waits for a lost edge.
    pub lost_leave: bool,
    /// Right after a start nobody is taken to have gone.
    pub gathering: bool,
    /// What a file says counts for nothing where the edge was heard while it was taken in.
    pub file_order: bool,
}

impl SecretRules {
    pub const ALL: Self = Self {
        gate: GateRules::ALL,
        boot_clock: true,
        kept: true,
        forgotten: true,
        wiped: true,
        new_keys: true,
        ledger_first: true,
        written_once: true,
        overtaken: true,
        lost_leave: true,
        gathering: true,
        file_order: true,
    };
}

/// The world of one seed.
pub(crate) struct Secrets {
    rules: SecretRules,
    rng: ChaCha8Rng,
    /// True time, in milliseconds.
    now: u64,
    hub: Hub,
    machines: Vec<Machine>,
    image: Option<Image>,
    rotations: Rotations,
    stats: Stats,
    trace: Trace,
}

/// Runs one seed to its end, or to the first violation.
pub(crate) fn run(seed: u64, setup: Setup, keep_lines: bool) -> Outcome {
    let mut world = Secrets::new(seed, setup.secrets, keep_lines);
    let violation = world.live().err();
    let hash = world.trace.hash();
    Outcome { seed, stats: world.stats, hash, violation, lines: world.trace.into_lines() }
}

fn tenant() -> Tenant {
    Tenant::parse("acme").expect("a literal name")
}

fn namespace(path: &str) -> Namespace {
    Namespace::parse(path).expect("a literal name")
}

/// What each edge receives with its secrets.
fn subtrees(edge: usize) -> Vec<Subtree> {
    let paths: &[&str] = [&[""][..], &["app"], &["app/pay", "team"]][edge % EDGES];
    paths.iter().map(|path| Subtree::parse(path).expect("a literal name")).collect()
}

impl Secrets {
    fn new(seed: u64, rules: SecretRules, keep_lines: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let machines: Vec<Machine> = (0..EDGES).map(|edge| Machine::new(edge, &mut rng)).collect();
        let hub = Hub::new(&machines, &mut rng);
        Self {
            rules,
            rng,
            now: 1_000,
            hub,
            machines,
            image: None,
            rotations: Rotations::new(seed),
            stats: Stats::default(),
            trace: Trace::new(keep_lines),
        }
    }

    fn live(&mut self) -> Check {
        self.stats.count("worlds of secrets");
        for machine in 0..EDGES {
            self.start(machine)?;
            self.connect(machine)?;
        }
        for _ in 0..STEPS {
            self.passes()?;
            self.act()?;
            for machine in 0..EDGES {
                self.gate_holds(machine)?;
            }
            self.rotations_go_on()?;
        }
        self.rotations_end()?;
        for edge in 0..EDGES {
            self.receipt_is_exact(edge)?;
        }
        Ok(())
    }

    fn act(&mut self) -> Check {
        let machine = self.rng.random_range(0..EDGES);
        match self.rng.random_range(0..100) {
            0..18 => self.connect(machine),
            18..40 => self.somebody_delivers(machine),
            40..52 => self.secret_is_written(),
            52..58 => self.limit_is_set(),
            58..68 => self.power(machine),
            68..78 => self.clock_goes_wrong(machine),
            78..82 => self.disk_is_copied(machine),
            82..96 => self.secret_is_read(machine),
            96..98 => self.lose(machine),
            _ => {
                self.hub.begin_keys();
                Ok(())
            }
        }
    }

    /// Time passes for everybody, mostly little.
    fn passes(&mut self) -> Check {
        let passed = match self.rng.random_range(0..10) {
            0..5 => self.rng.random_range(0..10_000),
            5..9 => self.rng.random_range(0..10 * MINUTE),
            _ => self.rng.random_range(0..120 * MINUTE),
        };
        self.now += passed;
        for machine in 0..EDGES {
            // What came since it was last written down is lost with the power.
            let unseen = self.rng.random_range(0..machine::KEEP_EVERY_MS).min(passed);
            self.machines[machine].passes(passed - unseen);
            self.look(machine)?;
            self.machines[machine].passes(unseen);
        }
        Ok(())
    }

    fn limit_is_set(&mut self) -> Check {
        let path = NAMESPACES[self.rng.random_range(0..NAMESPACES.len())];
        let limit_ms = self.rng.random_range(1..90) * MINUTE;
        self.trace.write(self.now, format_args!("secrets of {path} stay open for {limit_ms} ms"));
        self.hub.limits.set(Subtree::of(namespace(path)), limit_ms);
        Ok(())
    }

    fn secret_is_written(&mut self) -> Check {
        let path = NAMESPACES[self.rng.random_range(0..NAMESPACES.len())];
        self.stats.count("secrets written");
        self.hub.write(&namespace(path), &mut self.rng);
        Ok(())
    }

    /// An edge is reported lost: from here on it is given nothing, and can open nothing of what is written.
    fn lose(&mut self, edge: usize) -> Check {
        if self.hub.edges[edge].lost_at.is_some() {
            return Ok(());
        }
        self.stats.count("edges lost in worlds of secrets");
        self.trace.write(self.now, format_args!("edge {edge} is lost"));
        self.hub.lose(edge, self.rules.new_keys);
        self.receipt_is_exact(edge)
    }

    /// The receipt says of every version whether a key that left the hub for this edge opens it.
    fn receipt_is_exact(&self, edge: usize) -> Check {
        let known = &self.hub.edges[edge];
        for (number, (version, sealed)) in self.hub.sealed.iter().enumerate() {
            let opens = known.opens(&version.at, sealed);
            if known.given.exposes(version) != opens {
                let said = if opens { "is not in" } else { "opens nothing of" };
                let detail = format!(
                    "version {} of {} {said} the receipt of edge {edge}",
                    version.version, version.at.key
                );
                return Err(Violation::new("receipt", detail));
            }
            if opens && known.lost_at.is_some_and(|lost_at| number >= lost_at) {
                let detail = format!("edge {edge} opens version {} after its loss", version.version);
                return Err(Violation::new("losses", detail));
            }
        }
        Ok(())
    }
}
