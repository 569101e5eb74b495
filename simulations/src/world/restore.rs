//! The hub's database is lost, and comes back from a backup that was made a while ago.

use std::collections::BTreeMap;

use llm_config_shared::entry::Status;
use llm_config_shared::newer::Newer;
use llm_config_shared::policy::Policies;
use llm_config_shared::segment::LostHistory;
use llm_config_shared::stamp::WriteId;
use llm_config_shared::store::{Journal, Loss};
use llm_config_shared::vector::Vector;
use rand::RngExt;

use super::publisher::KEY_ID;
use super::sticks::Known;
use super::{Event, World};
use crate::invariants::{Check, Violation};
use crate::journal::{Backup, SimJournal, ready};
use crate::truth::{HubSide, Made, Reader};

/// A backup, and what was true when it was made.
#[derive(Debug)]
pub(super) struct Kept {
    backup: Backup,
    truth: HubSide,
    known: Known,
}

impl World {
    /// The first time somebody makes a backup; the next time it is needed.
    ///
    /// Not where namespaces have policies: what an author saw of a lost part is nothing to the hub, and a policy then
    /// decides what time would have decided. That is as it must be, and every check of causality would have to know it.
    pub(super) fn hub_is_backed_up_or_restored(&mut self) -> Check {
        if self.truth.policies != Policies::default() || self.rots {
            return Ok(());
        }
        match self.kept.take() {
            Some(kept) => self.hub_is_restored(*kept),
            None => {
                self.stats.count("backups");
                self.trace.write(self.now, format_args!("a backup is made"));
                let known = self.sticks.known.clone();
                let kept = Kept { backup: self.journal.back_up(), truth: self.truth.hub_side(), known };
                self.kept = Some(Box::new(kept));
                Ok(())
            }
        }
    }

    fn hub_is_restored(&mut self, kept: Kept) -> Check {
        self.stats.count("restores");
        for hub in 0..self.hubs.len() {
            self.crash_hub(hub)?;
            self.hubs[hub].sees = None;
            self.hubs[hub].stuck = false;
            let life = self.hubs[hub].life;
            // Longer than the clocks of two machines differ: a statement has to be newer than what was said before.
            let after = self.rng.random_range(200..3_000);
            self.schedule(after, Event::HubStarts { hub, life });
        }
        let was = self.truth.winners.len();
        let epochs = |journal: &SimJournal| ready(journal.head()).expect("it was led before").own_epochs();
        let before = epochs(&self.journal);
        let newer = [Newer::Discard, Newer::Hold, Newer::Accept][self.rng.random_range(0..3)];
        self.stats.count(match newer {
            Newer::Discard => "restores that discard",
            Newer::Hold => "restores that hold",
            Newer::Accept => "restores that accept",
        });
        self.journal.restore(&kept.backup, newer);
        self.sticks.known = kept.known;
        let undone = self.truth.go_back(kept.truth, &before, epochs(&self.journal));
        self.stats.add("decisions lost with the hub", undone.len() as u64);
        self.clients.acknowledged.retain(|id| !undone.contains_key(id));
        let cut = self.truth.winners.len();
        self.trace.write(self.now, format_args!("the hub goes back from {was} to {cut}"));
        for edge in 0..self.edges.len() {
            let astray = self.is_astray(edge);
            let host = &mut self.edges[edge];
            host.astray |= astray;
            host.go_back(cut as u64);
        }
        self.owe(&undone, newer);
        // An image may hold what is lost now, and nobody keeps what its readers knew of that.
        self.image = None;
        Ok(())
    }

    /// What edges' machines have to bring back: own writes that the hub had admitted, where the machine has heard of places
    /// that are lost. One that has not is never told that anything is.
    fn owe(&mut self, undone: &BTreeMap<WriteId, Status>, newer: Newer) {
        self.truth.owed.retain(|id| newer != Newer::Discard && !undone.contains_key(id));
        if newer == Newer::Discard {
            return;
        }
        for edge in self.awake() {
            if !self.is_astray(edge) {
                continue;
            }
            let own = self.truth.readers[edge].own.iter();
            let admitted = |id: &&WriteId| {
                let status = undone.get(id);
                matches!(status, Some(Status::Applied | Status::SupersededConcurrent))
            };
            let profile = self.profile(edge);
            let may_bring = |id: &&WriteId| {
                let Some(Made { at, .. }) = self.truth.writes.get(id) else { return false };
                let written = profile.write.iter().any(|subtree| subtree.contains(&at.scope.namespace));
                let known = profile.environments.contains(&at.scope.environment);
                written && known || profile.feeds.iter().any(|feed| feed.secrets && feed.contains(at))
            };
            let owed: Vec<WriteId> = own.filter(admitted).filter(may_bring).copied().collect();
            self.stats.add("writes to be brought back", owed.len() as u64);
            self.truth.owed.extend(owed);
        }
    }

    /// What the hub says of its losses, as its process says it now.
    pub(super) fn said_of_losses(&self, hub: usize) -> Vec<(Loss, bytes::Bytes)> {
        let losses = ready(self.journal.losses()).expect("the database is there");
        let said = |loss: Loss| {
            let draft = LostHistory { loss, issued_at: self.hub_wall(hub), key_id: KEY_ID }.draft();
            let signature = self.signer.sign(&draft.message());
            (loss, draft.signed(&signature))
        };
        losses.into_iter().map(said).collect()
    }

    /// Whether readers at this edge are still shown what the hub has lost: then nothing can be compared with the hub.
    pub(super) fn is_astray(&self, edge: usize) -> bool {
        self.edges[edge].view.feeds.values().any(|vector| self.is_in_what_is_lost(vector))
    }

    /// Whether a feed has come to a place that the hub does not have any more.
    pub(super) fn is_in_what_is_lost(&self, vector: &Vector) -> bool {
        let head = self.truth.winners.len() as u64;
        vector.iter().any(|(_, position)| self.truth.is_lost(position, head))
    }

    /// An edge that was astray is back. Readers there begin anew; that they do is only right if the hub said so.
    pub(super) fn comes_back(&mut self, edge: usize) -> Check {
        if !std::mem::take(&mut self.edges[edge].excused) {
            let detail = format!("edge {edge} forgot how far a hub had come, and no hub had said so");
            return Err(Violation::new("floor", detail));
        }
        self.stats.count("edges brought back");
        // Its own writes it has numbered, whatever became of them.
        let own = std::mem::take(&mut self.truth.readers[edge].own);
        self.truth.readers[edge] = Reader { own, ..Reader::default() };
        // What did not change by the loss is not shown to them again, and still seen.
        for (at, row) in &self.edges[edge].view.rows {
            let id = self.truth.identity(row.stamp.id, row.change);
            self.truth.learn(edge, at, id);
        }
        Ok(())
    }
}
