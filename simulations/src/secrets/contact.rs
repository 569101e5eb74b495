//! Machines meet the hub, or what somebody kept of its words.

use bytes::Bytes;
use llm_config_shared::offline::{SessionMark, verify_limit};
use llm_config_shared::removal::verify_removal;
use llm_config_shared::secret::{KeyGrant, open_limit_keys, open_limited_grant, open_secret};
use rand::RngExt;

use super::hub::Letter;
use super::machine::{Disk, Since};
use super::{Secrets, hub, tenant};
use crate::invariants::{Check, Violation};

impl Secrets {
    /// The edge begins a session. What the hub says may come, or not, or later.
    pub(super) fn connect(&mut self, n: usize) -> Check {
        if self.machines[n].gate.is_none() {
            return Ok(());
        }
        if self.hub.edges[n].lost_at.is_some() {
            return self.hears_of_its_removal(n);
        }
        let mark = self.asks(n);
        self.stats.count("sessions in worlds of secrets");
        let letter = self.hub.says(n, Some(mark), self.now, &mut self.rng);
        if self.rng.random_range(0..4) > 0 {
            self.deliver(n, &letter)?;
        }
        let grants =
            self.hub.grants(n, self.rules.ledger_first, &mut self.rng, |rng| rng.random_range(0..6) > 0);
        self.machines[n].disk.grants.extend(grants);
        Ok(())
    }

    fn asks(&mut self, n: usize) -> SessionMark {
        let (now, machine) = (self.now, &mut self.machines[n]);
        machine.disk.session += 1;
        let mark = SessionMark { incarnation: 1, session: machine.disk.session };
        let clocks = machine.clocks(self.rules.boot_clock);
        machine.asked = Some((mark, now));
        machine.gate.as_mut().expect("looked at by the caller").asked(mark, clocks);
        mark
    }

    /// Somebody delivers what the hub once said, to whomever; or the hub says it again in the session that is open, or in a
    /// file.
    pub(super) fn somebody_delivers(&mut self, n: usize) -> Check {
        if self.machines[n].gate.is_none() {
            return Ok(());
        }
        if self.rng.random_range(0..8) == 0 {
            return self.false_removal(n);
        }
        let lost = self.hub.edges[n].lost_at.is_some();
        let letter = match (self.rng.random_range(0..4), self.machines[n].asked) {
            (0, Some((mark, _))) if !lost => self.hub.says(n, Some(mark), self.now, &mut self.rng),
            (1, _) if !lost => self.hub.says(n, None, self.now, &mut self.rng),
            _ => {
                let kept = self.rng.random_range(0..self.hub.letters.len());
                self.hub.letters[kept].clone()
            }
        };
        if self.rng.random_range(0..5) == 0 { Ok(()) } else { self.deliver(n, &letter) }
    }

    fn deliver(&mut self, n: usize, letter: &Letter) -> Check {
        let machine = &mut self.machines[n];
        let statement = verify_limit(&letter.bytes, &hub::keys()).expect("the hub signed it");
        let (name, private) = (machine.actor.0.to_string(), machine.private.clone());
        let open = |sealed: &_| open_limit_keys(sealed, &tenant(), &name, &private);
        let now = machine.clocks(self.rules.boot_clock);
        let Some(gate) = &mut machine.gate else { return Ok(()) };
        let taken = match letter.mark {
            Some(_) => gate.heard(statement, open, now).is_ok(),
            None => gate.carried(statement, open, now).is_ok(),
        };
        if !taken {
            self.stats.count("words that were worth nothing");
            return Ok(());
        }
        let answers = letter.mark.is_none() || machine.asked.map(|(mark, _)| mark) == letter.mark;
        let newer =
            letter.mark.is_some() || machine.since.issued.is_some_and(|issued| issued < letter.issued);
        if letter.edge != n || !answers || !newer {
            let detail = format!("machine {n} takes what was said to {} in {:?}", letter.edge, letter.mark);
            return Err(Violation::new("contact", detail));
        }
        self.stats.count(if letter.mark.is_some() { "contacts" } else { "contacts by file" });
        self.trace.write(self.now, format_args!("machine {n} hears what was said at {}", letter.issued));
        self.learn(n, letter);
        Ok(())
    }

    /// What is true from here on: the time since the newest word that was heard.
    fn learn(&mut self, n: usize, letter: &Letter) {
        let (now, forgotten, machine) = (self.now, self.rules.forgotten, &mut self.machines[n]);
        let before = machine.since.issued;
        let newer = before.is_none_or(|before| letter.issued > before);
        machine.since.told = letter.limits.clone();
        if newer {
            // A file says nothing of how long it was on its way: what the clocks made of that counts.
            let carried_ms = || {
                let between = letter.issued - before.unwrap_or(letter.issued);
                machine.since.known_ms(machine.lied).saturating_sub(between)
            };
            let on_ms = if letter.mark.is_some() { now - letter.issued } else { carried_ms() };
            let told = letter.limits.clone();
            machine.since = Since { issued: Some(letter.issued), told, on_ms, ..Since::default() };
            machine.lied = false;
        }
        machine.statement = letter.bytes.clone();
        (machine.heard, machine.silent) = (true, None);
        machine.keep(forgotten);
    }

    fn hears_of_its_removal(&mut self, n: usize) -> Check {
        let nonce = Bytes::from(format!("nonce {} {n}", self.now));
        let word = self.hub.removes(n, self.now, nonce.clone());
        let machine = &mut self.machines[n];
        if verify_removal(&word, &hub::keys(), &tenant(), machine.actor, &nonce).is_err() {
            return Err(Violation::new("removal", format!("machine {n} does not believe its hub")));
        }
        machine.told_removed = true;
        if self.rules.wiped {
            machine.gate = None;
            machine.disk = Disk { wiped: true, ..Disk::default() };
            self.stats.count("machines wiped");
        }
        Ok(())
    }

    /// A removal that was said to somebody else, or in another exchange, wipes nothing.
    fn false_removal(&mut self, n: usize) -> Check {
        let Some(word) = self.hub.removals.last() else { return Ok(()) };
        let nonce = format!("fresh {} {n}", self.now);
        let machine = &self.machines[n];
        if verify_removal(word, &hub::keys(), &tenant(), machine.actor, nonce.as_bytes()).is_ok() {
            return Err(Violation::new("removal", format!("machine {n} believes another's removal")));
        }
        Ok(())
    }

    /// Somebody asks for a secret: what opens is what the hub sealed, by a key that left it for this edge.
    pub(super) fn secret_is_read(&mut self, n: usize) -> Check {
        if self.hub.sealed.is_empty() {
            return Ok(());
        }
        let at = self.rng.random_range(0..self.hub.sealed.len());
        let (version, sealed) = &self.hub.sealed[at];
        let machine = &mut self.machines[n];
        let now = machine.clocks(self.rules.boot_clock);
        let Some(gate) = &mut machine.gate else { return Ok(()) };
        if gate.check(&version.at.scope.namespace, now).is_err() {
            self.stats.count("secrets that were asked for and are locked");
            return Ok(());
        }
        let name = machine.actor.0.to_string();
        let fits = |grant: &&KeyGrant| {
            grant.key_epoch == version.key_epoch && grant.subtree.contains(&version.at.scope.namespace)
        };
        let opened = machine.disk.grants.iter().filter(fits).any(|grant| {
            gate.keys().get(&grant.subtree).is_some_and(|limit_key| {
                open_limited_grant(grant, &tenant(), &name, &machine.private, limit_key)
                    .is_ok_and(|key| open_secret(&key, &version.at, sealed).is_ok())
            })
        });
        if opened {
            self.stats.count("secrets opened");
            if !self.hub.edges[n].given.exposes(version) {
                return Err(Violation::new("receipt", format!("machine {n} opens what no receipt has")));
            }
        }
        Ok(())
    }
}
