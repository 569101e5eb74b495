//! Rotations with a grace period, at the hub: what it writes, whom it waits for, and when it says that an old version is not
//! needed any more. Killed between a write and the word of it, and told late, twice or never who uses what.
//!
//! Steps, receipts and what an edge tells of its programs are the product's own; `ledger` stands for the hub's table. What is
//! true is known from the words as they were made, whichever came last.

use std::collections::BTreeMap;

use llm_config_shared::entry::ChangeId;
use llm_config_shared::feed::Feed;
use llm_config_shared::in_use::{Receipts, Receiver, Wrote, receipts};
use llm_config_shared::name::{EntryKey, Environment};
use llm_config_shared::rotation::{Found, Next, Rotation, Step};
use llm_config_shared::time::UnixMillis;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use super::{EDGES, MINUTE, NAMESPACES, Secrets, WALL_AT_START_MS, namespace, subtrees, tenant};
use crate::invariants::{Check, Violation};

mod ledger;
mod programs;
mod words;

use ledger::Ledger;
use programs::Running;
use words::{Heard, Opened, Word};

const GRACE_MS_MAX: u64 = 240 * MINUTE;
const ACTS: usize = 8;

/// Everything about rotations in the world of one seed.
pub(super) struct Rotations {
    /// Of its own: worlds are otherwise what they would be without rotations.
    rng: ChaCha8Rng,
    known: Vec<Rotation>,
    /// What each has written: the hub's history, by change.
    wrote: BTreeMap<Uuid, u64>,
    ledger: Ledger,
    /// By machine.
    running: Vec<Option<Running>>,
    heard: Vec<Heard>,
    /// Files that were made and not destroyed.
    files: Vec<Word>,
    /// And those that the hub has begun to take in.
    opened: Vec<Opened>,
    /// Nothing is killed any more.
    calm: bool,
}

impl Rotations {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed ^ 0x0070_7461_7465),
            known: Vec::new(),
            wrote: BTreeMap::new(),
            ledger: Ledger::default(),
            running: (0..EDGES).map(|_| None).collect(),
            heard: (0..EDGES).map(|_| Heard::default()).collect(),
            files: Vec::new(),
            opened: Vec::new(),
            calm: false,
        }
    }
}

/// What each machine receives, as the hub has it.
fn feeds(edge: usize) -> Vec<Feed> {
    let feed = |subtree| Feed { tenant: tenant(), environment: Environment::base(), subtree, secrets: true };
    subtrees(edge).into_iter().map(feed).collect()
}

fn receives(edge: usize, at: &EntryKey) -> bool {
    feeds(edge).iter().any(|feed| feed.contains(at))
}

impl Secrets {
    /// The hub's clock, which is right.
    fn hub_time(&self) -> UnixMillis {
        UnixMillis(WALL_AT_START_MS + self.now)
    }

    /// Something happens to rotations and to those who use what is rotated.
    pub(super) fn rotations_go_on(&mut self) -> Check {
        for machine in 0..EDGES {
            self.programs_go_on(machine);
        }
        for _ in 0..ACTS {
            let machine = self.rotations.rng.random_range(0..EDGES);
            match self.rotations.rng.random_range(0..100) {
                0..35 => self.program_acts(machine),
                35..39 => self.daemon_restarts(machine),
                39..68 => self.meets_the_hub(machine)?,
                68..74 => self.file_is_made(machine),
                74..79 => self.file_is_opened()?,
                79..84 => self.file_is_noted()?,
                84..86 => self.rotation_begins(),
                86 => self.rotation_is_over_by_hand(),
                _ => self.hub_looks_at_rotations()?,
            }
        }
        Ok(())
    }

    /// Whatever happened, every rotation comes to an end.
    pub(super) fn rotations_end(&mut self) -> Check {
        self.rotations.calm = true;
        for _ in 0..2 {
            self.now += GRACE_MS_MAX;
            self.hub_looks_at_rotations()?;
        }
        let under_way = |rotation: &&Rotation| matches!(rotation.step, Step::Begun | Step::Written);
        match self.rotations.known.iter().find(under_way) {
            Some(rotation) => Err(broken(rotation, "never comes to an end")),
            None => Ok(()),
        }
    }

    fn rotation_begins(&mut self) {
        let path = NAMESPACES[self.rotations.rng.random_range(0..NAMESPACES.len())];
        let at = self.hub.entry(&namespace(path));
        let begun = |known: &Rotation| known.at == at && known.step == Step::Begun;
        let Some(version) = self.hub.version(&at, usize::MAX) else { return };
        if self.rotations.known.iter().any(begun) {
            return;
        }
        let id = Uuid::from_u128(self.rotations.rng.random());
        let rotation = Rotation::begun(id, at, "schedule".into(), version, self.hub_time());
        self.rotations.known.push(rotation);
        self.stats.count("rotations");
    }

    fn rotation_is_over_by_hand(&mut self) {
        let now = self.hub_time();
        let written = |rotation: &&mut Rotation| rotation.step == Step::Written;
        if let Some(rotation) = self.rotations.known.iter_mut().find(written) {
            *rotation = rotation.retired("somebody said so", now);
            self.stats.count("rotations over by hand");
        }
    }

    fn hub_looks_at_rotations(&mut self) -> Check {
        for n in 0..self.rotations.known.len() {
            let rotation = self.rotations.known[n].clone();
            let stepped = match rotation.step {
                Step::Begun => self.writes(&rotation)?,
                Step::Written => self.waits(&rotation)?,
                Step::Retired | Step::Failed => continue,
            };
            if let Some(stepped) = stepped {
                self.trace.write(self.now, format_args!("rotation {} is {:?}", n, stepped.step));
                self.rotations.known[n] = stepped;
            }
        }
        Ok(())
    }

    /// The next step of one that has begun; none where the hub is killed before that is written down.
    fn writes(&mut self, rotation: &Rotation) -> Result<Option<Rotation>, Violation> {
        let wrote = self.rotations.wrote.get(&rotation.id).copied();
        let current = self.hub.version(&rotation.at, usize::MAX);
        let found = Found {
            wrote: wrote.filter(|_| self.rules.written_once),
            planned: self.rotations.rng.random_range(0..20) > 0,
            current: if self.rules.overtaken { current } else { Some(rotation.old_version) },
        };
        let version = match rotation.next(found) {
            Next::Note(version) => version,
            Next::GiveUp(_) if wrote.is_some() => {
                return Err(broken(rotation, "is given up and has written a version"));
            }
            Next::GiveUp(why) => {
                self.stats.count("rotations given up");
                return Ok(Some(rotation.failed(why)));
            }
            Next::Write => {
                if current != Some(rotation.old_version) {
                    return Err(broken(rotation, "is written over what somebody else wrote"));
                }
                self.hub.write(&rotation.at.scope.namespace, &mut self.rotations.rng);
                let version = rotation.old_version + 1;
                self.rotations.wrote.insert(rotation.id, version);
                version
            }
        };
        if !self.rotations.calm && self.rotations.rng.random_range(0..4) == 0 {
            self.stats.count("hubs killed within a rotation");
            return Ok(None);
        }
        let grace_ms = self.rotations.rng.random_range(0..GRACE_MS_MAX);
        Ok(Some(rotation.written(version, grace_ms, self.hub_time())))
    }

    /// Whether a written one is over now.
    fn waits(&mut self, rotation: &Rotation) -> Result<Option<Rotation>, Violation> {
        self.both_versions_are_readable(rotation)?;
        let (told, now) = (self.told_of(rotation), self.hub_time());
        let in_use = told.in_use();
        if in_use && let Some(edge) = self.who_is_behind(rotation) {
            return Err(broken(rotation, &format!("is told to be in use, and edge {edge} said otherwise")));
        }
        if !in_use && self.is_certainly_in_use(rotation) {
            let waits_for = told.edges.iter().find(|edge| !edge.in_use());
            let detail = format!("is held up by {waits_for:?}, and all who count use the new version");
            return Err(broken(rotation, &detail));
        }
        let Some(why) = rotation.over(in_use, now) else {
            self.stats.count("times that an old version was still needed");
            return Ok(None);
        };
        let over_at = rotation.retire_at.unwrap_or(now);
        if !in_use && now < over_at {
            return Err(broken(rotation, "retires the old version before its time"));
        }
        self.stats.count(if in_use {
            "rotations in use everywhere"
        } else {
            "rotations whose grace was over"
        });
        Ok(Some(rotation.retired(why, now)))
    }

    /// While it is needed, the old version opens, and so does the one after it.
    fn both_versions_are_readable(&self, rotation: &Rotation) -> Check {
        let new = rotation.new_version.unwrap_or_default();
        for version in [rotation.old_version, new] {
            if !self.hub.opens(&rotation.at, version) {
                return Err(broken(rotation, &format!("has no version {version} to read")));
            }
        }
        if new == rotation.old_version + 1 {
            Ok(())
        } else {
            Err(broken(rotation, "is not the next version"))
        }
    }

    /// What the hub tells of who has a rotation and who uses it.
    fn told_of(&self, rotation: &Rotation) -> Receipts {
        let version = rotation.new_version.unwrap_or_default();
        let seq = self.hub.seq(&rotation.at, version).unwrap_or(usize::MAX) as u64;
        let wrote = Wrote { at: rotation.at.clone(), version, seq, secret: true, deletes: false };
        let receiver = |(edge, machine): (usize, &super::Machine)| Receiver {
            edge: machine.actor,
            name: edge.to_string().into(),
            feeds: feeds(edge),
            removed: self.is_lost(edge) && self.rules.lost_leave,
            connected: false,
            last_seen_at: None,
            acked_seq: self.rotations.heard[edge].acked as u64,
        };
        let receivers = self.machines.iter().enumerate().map(receiver).collect();
        let uses = self.rotations.ledger.uses_of(&rotation.at, &self.machines);
        receipts(ChangeId(rotation.id), &[wrote], receivers, &uses)
    }

    fn is_lost(&self, edge: usize) -> bool {
        self.hub.edges[edge].lost_at.is_some()
    }

    /// An edge of which the newest word that came says that it lacks the new version, or that something there that the hub was
    /// told of uses an older one.
    fn who_is_behind(&self, rotation: &Rotation) -> Option<usize> {
        let version = rotation.new_version.unwrap_or_default();
        let seq = self.hub.seq(&rotation.at, version).unwrap_or(usize::MAX);
        let behind = |edge: &usize| {
            let heard = &self.rotations.heard[*edge];
            heard.has < seq || heard.uses.iter().any(|(at, used)| *at == rotation.at && *used < version)
        };
        let waited_for = |edge: &usize| !self.is_lost(*edge) && receives(*edge, &rotation.at);
        (0..EDGES).filter(waited_for).find(behind)
    }

    /// Whether all who count have said so, and nobody there may have gone unseen.
    fn is_certainly_in_use(&self, rotation: &Rotation) -> bool {
        let version = rotation.new_version.unwrap_or_default();
        let seq = self.hub.seq(&rotation.at, version).unwrap_or(usize::MAX);
        let waited_for = |edge: &usize| !self.is_lost(*edge) && receives(*edge, &rotation.at);
        let heard: Vec<&Heard> =
            (0..EDGES).filter(waited_for).map(|edge| &self.rotations.heard[edge]).collect();
        let used = |heard: &Heard| heard.of(&rotation.at).collect::<Vec<u64>>();
        heard.iter().all(|heard| {
            heard.complete && heard.has >= seq && used(heard).iter().all(|used| *used >= version)
        }) && heard.iter().any(|heard| !used(heard).is_empty())
    }
}

fn broken(rotation: &Rotation, what: &str) -> Violation {
    let Rotation { at, old_version, .. } = rotation;
    let namespace = &at.scope.namespace;
    Violation::new("rotation", format!("the rotation of {namespace} from version {old_version} on {what}"))
}
