//! People who decide about what is held and about conflicts: by a list that may be old by then, and sometimes twice.

use llm_config_shared::entry::{Author, ChangeId, HistoryRow};
use llm_config_shared::name::EntryKey;
use llm_config_shared::replication::admit::{Decision, SettleOutcome, SettleSubmission, Terms};
use llm_config_shared::settled::{ConflictState, Waited};
use llm_config_shared::store::{Commit, Conflict, Journal as _, Page};
use rand::RngExt;
use uuid::Uuid;

use super::World;
use super::writer::{Asked, Job, Waits};
use crate::invariants::{Check, Violation};
use crate::journal::ready;

/// How much of a list they look at.
const LISTED: usize = 6;

impl World {
    /// Somebody looks at the hub's lists and decides about one thing.
    pub(super) fn somebody_decides(&mut self) -> Check {
        let answers = |hub: &usize| self.hubs[*hub].up && self.hubs[*hub].leader.is_some();
        let Some(hub) = (0..self.hubs.len()).find(answers) else { return Ok(()) };
        let decided = if self.rng.random_range(0..3) == 0 {
            self.about_a_conflict()
        } else {
            self.about_a_held_write()
        };
        let Some((at, decision)) = decided else { return Ok(()) };
        for _ in 0..self.rng.random_range(1..=2) {
            self.last_value += 1;
            let submission = SettleSubmission {
                at: at.clone(),
                author: Author { name: "token:person".into(), claimed: None },
                change: ChangeId(Uuid::from_u128(0xdec1_0000_0000 + u128::from(self.last_value))),
                message: None,
                decision: decision.clone(),
            };
            self.submit(hub, Job { asked: Asked::Decision(submission), waits: Waits::Nobody })?;
        }
        Ok(())
    }

    fn one_of<T: Clone>(&mut self, listed: &[T]) -> Option<T> {
        (!listed.is_empty()).then(|| listed[self.rng.random_range(0..listed.len())].clone())
    }

    fn about_a_held_write(&mut self) -> Option<(EntryKey, Decision)> {
        let page = Page { before: None, limit: LISTED };
        let listed = ready(self.journal.held(&self.tenant, page)).expect("the database is there");
        let HistoryRow { at, stamp, content, returned_in, .. } = self.one_of(&listed.rows)?;
        if self.rng.random_range(0..4) == 0 {
            return Some((at, Decision::Drop { held: stamp.id }));
        }
        let terms = Terms { if_version: None, over_secret: self.chance(50) };
        let (by_its_time, secret) = (returned_in.is_some(), content.is_secret());
        Some((at, Decision::Release { held: stamp.id, terms, by_its_time, secret }))
    }

    fn about_a_conflict(&mut self) -> Option<(EntryKey, Decision)> {
        let page = Page { before: None, limit: LISTED };
        let open = self.journal.conflicts(&self.tenant, Some(ConflictState::Open), page);
        let listed = ready(open).expect("the database is there");
        let Conflict { id, at, loser, winner_version, .. } = self.one_of(&listed.rows)?;
        if self.rng.random_range(0..3) == 0 {
            return Some((at, Decision::Dismiss { conflict: id }));
        }
        let known = ready(self.journal.writes(&[loser])).expect("the database is there");
        let secret = known.first().is_some_and(|row| row.content.is_secret());
        let if_version = self.chance(30).then_some(winner_version);
        let terms = Terms { if_version, over_secret: self.chance(50) };
        Some((at, Decision::Restore { conflict: id, loser, secret, terms }))
    }

    pub(super) fn has_decided(&mut self, outcome: &SettleOutcome) {
        self.stats.count(match outcome {
            Ok(now) if now.settled.wrote.is_some() => "decisions that wrote",
            Ok(_) => "decisions that wrote nothing",
            Err(_) => "decisions refused",
        });
    }

    /// What a decision wrote is what it was about. What was released by its time is a write of the hub's that has seen what the
    /// held one had, and it.
    pub(super) fn check_decisions(&mut self, commit: &Commit) -> Check {
        for settlement in &commit.settled {
            let about = self.about(settlement.what);
            let Some(about) = about else {
                return Err(Violation::new("decisions", format!("{:?} is about nothing", settlement.what)));
            };
            let name = self.truth.identity(about.stamp.id, about.change);
            let held = matches!(settlement.what, Waited::Held(_));
            if let (true, Some(made)) = (held, self.truth.writes.get_mut(&name)) {
                (made.status, made.once_set_aside) = (Some(about.status), true);
            }
            let Some((change, version)) = &settlement.settled.wrote else { continue };
            let is_it =
                |row: &&HistoryRow| row.change == *change && row.version == *version && row.at == about.at;
            let Some(row) = commit.history.iter().find(is_it) else {
                return Err(Violation::new("decisions", format!("{:?} wrote nothing", settlement.what)));
            };
            // Sealed anew, a secret is another ciphertext.
            let same = row.content == about.content || row.content.is_secret() && about.content.is_secret();
            if !same {
                return Err(Violation::new(
                    "decisions",
                    format!("{:?} wrote something else", settlement.what),
                ));
            }
            if let (true, Some(loss)) = (held && row.stamp.hlc == about.stamp.hlc, about.returned_in) {
                self.stats.count("released where their own time put them");
                self.truth.released.insert(row.stamp.id, (name, loss));
            }
        }
        Ok(())
    }

    /// The write that waited, or the one that lost.
    fn about(&self, what: Waited) -> Option<HistoryRow> {
        let id = match what {
            Waited::Held(id) => id,
            Waited::Conflict(id) => ready(self.journal.conflict(&self.tenant, id)).ok()??.loser,
        };
        ready(self.journal.writes(&[id])).ok()?.into_iter().next()
    }
}
