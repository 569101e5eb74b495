//! A machine: clocks that go wrong, power, a disk that can be set back, and the gate of the edge that runs there.

use bytes::Bytes;
use llm_config_shared::codec::{Reader, Writer};
use llm_config_shared::limits::OFFLINE_REBOOTS_MAX;
use llm_config_shared::offline::{
    BootId, Clocks, Contact, Gate, LimitKeys, OfflineLimits, SessionMark, verify_limit,
};
use llm_config_shared::seal::SealKey;
use llm_config_shared::secret::{KeyGrant, sealing_keypair};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::time::UnixMillis;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use uuid::Uuid;

use super::{MINUTE, NAMESPACES, Secrets, WALL_AT_START_MS, hub, namespace, tenant};
use crate::invariants::{Check, Violation};

/// While the hub is silent, how long already is written down so often.
pub(super) const KEEP_EVERY_MS: u64 = 60_000;

/// Wall clocks go wrong by so much in a thousand.
const DRIFT_MAX: u64 = 5;

/// What outlives the power.
#[derive(Clone, Default)]
pub(super) struct Disk {
    /// The last contact, as it is encoded, and the hub's words then.
    pub(super) contact: Option<(Vec<u8>, Bytes)>,
    pub(super) limit_keys: LimitKeys,
    pub(super) grants: Vec<KeyGrant>,
    pub(super) session: u64,
    /// How far in the hub's order everything is here.
    pub(super) has: usize,
    pub(super) wiped: bool,
}

/// What is true since the hub's last word: known to the simulator alone, and copied with the disk.
#[derive(Clone, Default)]
pub(super) struct Since {
    /// When that was said, and what.
    pub(super) issued: Option<u64>,
    pub(super) told: OfflineLimits,
    /// Time that passed while the machine ran.
    pub(super) on_ms: u64,
    /// And while it was off, with a wall clock that went on.
    pub(super) off_ms: u64,
    pub(super) reboots: u32,
}

impl Since {
    /// At least so long the hub has been silent. Off time counts only if the wall clock went on all the time: nothing else
    /// knows of it.
    pub(super) fn known_ms(&self, lied: bool) -> u64 {
        self.on_ms + if lied { 0 } else { self.off_ms - self.off_ms * DRIFT_MAX / 1_000 }
    }
}

pub(super) struct Machine {
    pub(super) actor: ActorId,
    pub(super) private: SealKey,
    pub(super) public: [u8; 32],
    /// `offline_restart = file`; otherwise `never`.
    file: bool,
    pub(super) boot: u64,
    since_boot: u64,
    wall: u64,
    stopped: bool,
    /// Of twice the bound, from the slowest on.
    drift: u64,
    /// The wall clock was set back, or stood, since the hub's last word.
    pub(super) lied: bool,
    pub(super) gate: Option<Gate>,
    /// The hub was heard since this start.
    pub(super) heard: bool,
    pub(super) asked: Option<(SessionMark, u64)>,
    pub(super) statement: Bytes,
    pub(super) silent: Option<u64>,
    pub(super) disk: Disk,
    pub(super) since: Since,
    /// Removed, and told so.
    pub(super) told_removed: bool,
}

/// A copy of a disk.
pub(super) struct Image {
    machine: usize,
    disk: Disk,
    since: Since,
}

impl Machine {
    pub(super) fn new(edge: usize, rng: &mut ChaCha8Rng) -> Self {
        let (private, public) = sealing_keypair(&rng.random());
        Self {
            actor: ActorId(Uuid::from_u128(0xed6e_0000 + edge as u128)),
            private,
            public,
            file: rng.random_range(0..3) > 0,
            boot: 0,
            since_boot: 0,
            wall: WALL_AT_START_MS + 1_000,
            stopped: false,
            drift: rng.random_range(0..=2 * DRIFT_MAX),
            lied: false,
            gate: None,
            heard: false,
            asked: None,
            statement: Bytes::new(),
            silent: None,
            disk: Disk::default(),
            since: Since::default(),
            told_removed: false,
        }
    }

    pub(super) fn passes(&mut self, ms: u64) {
        if !self.stopped {
            self.wall += ms * (1_000 - DRIFT_MAX + self.drift) / 1_000;
        }
        self.lied |= self.stopped && ms > 0;
        if self.gate.is_some() {
            self.since_boot += ms;
            self.since.on_ms += ms;
        } else {
            self.since.off_ms += ms;
        }
    }

    pub(super) fn clocks(&self, boot_clock: bool) -> Clocks {
        let mut boot = [0; 16];
        // The fault that the rule guards against: the wall clock alone.
        let (start, since_boot_ms) = if boot_clock { (self.boot, self.since_boot) } else { (0, 0) };
        boot[..8].copy_from_slice(&start.to_be_bytes());
        Clocks { boot: BootId(boot), since_boot_ms, wall: UnixMillis(self.wall) }
    }

    /// What the edge writes down of its gate.
    pub(super) fn keep(&mut self, rule_forgotten: bool) {
        let Some(gate) = &self.gate else { return };
        let Some(contact) = gate.contact() else { return };
        let mut out = Writer::default();
        contact.encode(&mut out);
        self.disk.contact = Some((out.finish(), self.statement.clone()));
        if self.file || !rule_forgotten {
            self.disk.limit_keys = gate.keys().clone();
        }
    }
}

impl Secrets {
    /// The machine comes up and the edge with it, as its disk has it.
    pub(super) fn start(&mut self, n: usize) -> Check {
        let (rules, machine) = (self.rules, &mut self.machines[n]);
        if machine.gate.is_some() || machine.disk.wiped {
            return Ok(());
        }
        machine.boot += 1;
        machine.since_boot = 1;
        machine.since.reboots += 1;
        let now = machine.clocks(rules.boot_clock);
        let kept = machine.disk.contact.as_ref().map(|(contact, statement)| {
            let contact = Contact::decode(&mut Reader::new(contact)).expect("as it was written");
            let limits = verify_limit(statement, &hub::keys()).expect("it was checked before").limits;
            machine.statement = statement.clone();
            (contact, limits)
        });
        let keys = machine.disk.limit_keys.clone();
        let gate = Gate::resume((tenant(), machine.actor), kept, keys, now).with_rules(rules.gate);
        machine.gate = Some(gate);
        (machine.heard, machine.asked) = (false, None);
        // Of what was written down last up to a minute is missing.
        machine.silent = machine.silent.map(|silent| silent.saturating_sub(KEEP_EVERY_MS));
        machine.keep(rules.forgotten);
        self.trace.write(self.now, format_args!("machine {n} starts"));
        Ok(())
    }

    pub(super) fn power(&mut self, n: usize) -> Check {
        if self.machines[n].gate.is_none() {
            return self.start(n);
        }
        self.stats.count("machines that lost their power");
        self.trace.write(self.now, format_args!("machine {n} is off"));
        self.machines[n].gate = None;
        if self.rng.random_range(0..2) == 0 { self.start(n) } else { Ok(()) }
    }

    pub(super) fn clock_goes_wrong(&mut self, n: usize) -> Check {
        let ms = self.rng.random_range(0..180) * MINUTE;
        let what = self.rng.random_range(0..4);
        let machine = &mut self.machines[n];
        match what {
            0 => machine.stopped = !machine.stopped,
            1 => machine.wall += ms,
            _ => {
                machine.wall = machine.wall.saturating_sub(ms);
                machine.lied |= ms > 0;
            }
        }
        self.trace.write(self.now, format_args!("the clock of machine {n} says {}", self.machines[n].wall));
        Ok(())
    }

    /// The disk is copied, or set back to what was copied before.
    pub(super) fn disk_is_copied(&mut self, n: usize) -> Check {
        let Some(image) = self.image.take() else {
            let Machine { disk, since, .. } = &self.machines[n];
            self.image = Some(Image { machine: n, disk: disk.clone(), since: since.clone() });
            return Ok(());
        };
        let n = image.machine;
        self.stats.count("disks set back in worlds of secrets");
        self.trace.write(self.now, format_args!("the disk of machine {n} is set back"));
        let machine = &mut self.machines[n];
        (machine.gate, machine.silent, machine.told_removed) = (None, None, false);
        // Who sets a disk back sets the clock as well.
        (machine.disk, machine.since, machine.lied) = (image.disk, image.since, true);
        // Numbers of sessions go on: whoever replays words of an earlier life would need the hub's key for TLS as well.
        machine.disk.session = self.hub.letters.len() as u64 + machine.boot;
        self.start(n)
    }

    /// The edge looks at its clocks, forgets what is over, and writes down how long the hub was silent.
    pub(super) fn look(&mut self, n: usize) -> Check {
        let (rules, machine) = (self.rules, &mut self.machines[n]);
        let now = machine.clocks(rules.boot_clock);
        let Some(gate) = &mut machine.gate else { return Ok(()) };
        if let Some(silent_ms) = gate.silent_ms(now)
            && !gate.keys().is_empty()
            && gate.forget_over(silent_ms).is_some()
        {
            self.stats.count("secrets locked");
        }
        if rules.kept {
            machine.keep(rules.forgotten);
        }
        Ok(())
    }

    /// # Errors
    /// When a gate is open that true time has closed, or time went backwards.
    pub(super) fn gate_holds(&mut self, n: usize) -> Check {
        let (rules, machine) = (self.rules, &mut self.machines[n]);
        let now = machine.clocks(rules.boot_clock);
        let Some(gate) = &mut machine.gate else { return Ok(()) };
        let silent = gate.silent_ms(now);
        if silent < machine.silent {
            let detail = format!("machine {n} counts {silent:?} ms after {:?}", machine.silent);
            return Err(Violation::new("countdown", detail));
        }
        machine.silent = silent;
        // A start loses what was not written down, and is bought with the bound on starts.
        let slack = KEEP_EVERY_MS * u64::from(machine.since.reboots.min(OFFLINE_REBOOTS_MAX + 1));
        for path in NAMESPACES {
            let namespace = namespace(path);
            if gate.check(&namespace, now).is_err() {
                continue;
            }
            self.stats.count("gates found open");
            let (known, limit) = (machine.since.known_ms(machine.lied), machine.since.told.of(&namespace));
            let wrong = if machine.told_removed {
                "it was told that it is removed"
            } else if known > limit + slack {
                "its limit has passed"
            } else if machine.since.reboots > OFFLINE_REBOOTS_MAX {
                "it was started too often"
            } else if !machine.file && !machine.heard {
                "nobody was heard since its start"
            } else {
                continue;
            };
            let detail = format!("machine {n} opens {path}: {wrong} ({known} ms of {limit} ms)");
            return Err(Violation::new("offline limit", detail));
        }
        Ok(())
    }
}
