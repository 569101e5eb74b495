//! Programs and files on a machine that use secrets, and the daemon that they say it to.

use std::collections::BTreeMap;
use std::sync::Arc;

use llm_config_shared::in_use::consumers::{self, Consumers, LAPSE_MS};
use llm_config_shared::name::EntryKey;
use llm_config_shared::time::Instant;
use rand::RngExt;

use super::super::{NAMESPACES, Secrets, namespace};
use super::receives;

/// Who goes on running says so again within this time.
const AGAIN_MS: u64 = LAPSE_MS / 3;
const NAMES: [&str; 4] = ["agent", "worker", "file:/run/a", "file:/run/b"];

/// What the daemon tells on of one consumer.
pub(super) type Told = consumers::Told<(EntryKey, u64)>;

/// Something that uses a version of a secret.
#[derive(Clone)]
pub(super) struct Program {
    pub(super) uses: (EntryKey, u64),
    /// It says so next then.
    says_at: u64,
    /// The hub was told of it, in this life of the disk.
    pub(super) known: bool,
}

/// A machine while it is on.
pub(super) struct Running {
    boot: u64,
    pub(super) consumers: Consumers<(EntryKey, u64)>,
    /// What there really is.
    pub(super) programs: BTreeMap<Arc<str>, Program>,
}

fn is_lasting(name: &str) -> bool {
    name.starts_with("file:")
}

impl Secrets {
    /// Who goes on running says so again; with the power go all programs, and files stay where they were, of which nobody says
    /// anything any more before they are written anew.
    pub(super) fn programs_go_on(&mut self, n: usize) {
        let (now, machine) = (self.now, &self.machines[n]);
        let is_on = machine.gate.is_some();
        let slot = &mut self.rotations.running[n];
        if !is_on {
            *slot = None;
            return;
        }
        if slot.as_ref().is_none_or(|running| running.boot != machine.boot) {
            let consumers = Consumers::starting(Instant(now));
            *slot = Some(Running { boot: machine.boot, consumers, programs: BTreeMap::new() });
        }
        let Some(running) = slot else { return };
        for (name, program) in running.programs.iter_mut().filter(|(name, _)| !is_lasting(name)) {
            if program.says_at <= now {
                let _ = running.consumers.say(name, false, vec![program.uses.clone()], Instant(now));
                program.says_at = now + AGAIN_MS;
            }
        }
        running.consumers.lapse(Instant(now));
    }

    /// One starts, or reads its secret anew, or ends.
    pub(super) fn program_acts(&mut self, n: usize) {
        let rng = &mut self.rotations.rng;
        let name = NAMES[rng.random_range(0..NAMES.len())];
        let path = NAMESPACES[rng.random_range(0..NAMESPACES.len())];
        let ends = rng.random_range(0..4) == 0;
        let now = self.now;
        let Some(running) = &mut self.rotations.running[n] else { return };
        if ends {
            if running.programs.remove(name).is_some() {
                running.consumers.forget(name);
            }
            return;
        }
        let at = match running.programs.get(name) {
            Some(program) => program.uses.0.clone(),
            None => self.hub.entry(&namespace(path)),
        };
        let has = self.machines[n].disk.has;
        let Some(version) = self.hub.version(&at, has).filter(|_| receives(n, &at)) else { return };
        let uses = (at, version);
        let _ = running.consumers.say(name, is_lasting(name), vec![uses.clone()], Instant(now));
        let known = running.programs.get(name).is_some_and(|program| program.known);
        running.programs.insert(name.into(), Program { uses, says_at: now + AGAIN_MS, known });
    }

    /// The daemon alone ends and starts: programs go on, and say again what they use some time later.
    pub(super) fn daemon_restarts(&mut self, n: usize) {
        let now = self.now;
        let Some(running) = &mut self.rotations.running[n] else { return };
        running.consumers = Consumers::starting(Instant(now));
        for program in running.programs.values_mut() {
            program.says_at = now + self.rotations.rng.random_range(0..AGAIN_MS);
        }
        self.stats.count("daemons restarted under their programs");
    }
}
