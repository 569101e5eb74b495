//! A write that meets the entry's current row: which of the two counts.

use super::upload::content_hash;
use super::{Entering, Planner};
use crate::entry::{HubRow, Row, Status};
use crate::policy::ConflictPolicy;
use crate::settled::conflict_id;
use crate::stamp::{ActorId, Hlc, Stamp};
use crate::store::Conflict;
use crate::write::{Denial, HeldReason, Verdict};

/// The row that a write meets.
#[derive(Clone, Copy)]
pub(super) struct Rival {
    stamp: Stamp,
    version: u64,
    deleted: bool,
    /// Of place, change and content.
    hash: [u8; 32],
}

impl Rival {
    pub(super) fn of(current: &HubRow) -> Self {
        let Row { at, change, content, stamp, version, .. } = &current.row;
        Self {
            stamp: *stamp,
            version: *version,
            deleted: !content.is_live(),
            hash: content_hash(at, *change, content),
        }
    }

    pub(super) fn at(write: &Entering, version: u64) -> Self {
        Self { stamp: write.stamp, version, deleted: !write.content.is_live(), hash: write.content_hash }
    }
}

/// Where a write stands in the last-write-wins order. That of stamps, but without the incarnation: regions know one write
/// of an edge under several, where a copy of its replica gave a number twice. Of two with one number at one time what they
/// say decides, in whatever way they come; a deletion comes last, for what is left of a purged one does not know its change.
fn place(Rival { stamp, deleted, hash, .. }: Rival) -> (Hlc, ActorId, u64, bool, [u8; 32]) {
    (stamp.hlc, stamp.id.actor, stamp.id.counter, deleted, hash)
}

impl Planner {
    /// Whether the write comes after the other in the last-write-wins order.
    pub(super) fn comes_later(&self, write: &Entering, rival: Rival) -> bool {
        if !self.rules.region_ties {
            // The fault that the rule guards against: names decide, which differ between regions.
            let named = |Stamp { hlc, id }: Stamp| (hlc, id.actor, id.incarnation, id.counter);
            return named(write.stamp) > named(rival.stamp);
        }
        place(Rival::at(write, 0)) > place(rival)
    }

    /// The author had seen the current row, so the write follows it.
    pub(super) fn follow(&mut self, write: Entering, version: u64, rival: Rival) -> Verdict {
        // An own earlier write may have been put ahead of this one by a policy; that must not turn their order round.
        let own = write.stamp.id.actor == rival.stamp.id.actor;
        let write = if own { self.above(write, rival) } else { write };
        if self.comes_later(&write, rival) {
            self.win(write, version);
            Verdict::Admitted { version }
        } else {
            self.lose(&write, version);
            Verdict::Lost { version, to: rival.version }
        }
    }

    /// The author had not seen the current row: the namespace's policy decides.
    pub(super) fn contest(&mut self, write: Entering, version: u64, rival: Rival) -> Verdict {
        let scope = &write.at.scope;
        match self.policies.of(&scope.tenant, &scope.namespace) {
            ConflictPolicy::LastWriteWins if self.comes_later(&write, rival) => {
                self.replace(write, version, rival)
            }
            ConflictPolicy::LastWriteWins => self.give_way(&write, version, rival),
            ConflictPolicy::HubWins => {
                let write = self.below(write, rival);
                self.give_way(&write, version, rival)
            }
            ConflictPolicy::EdgeWins => {
                let write = self.above(write, rival);
                self.replace(write, version, rival)
            }
            ConflictPolicy::Reject => {
                self.set_aside(&write, Status::Denied, Denial::Policy.to_string().into());
                Verdict::Denied(Denial::Policy)
            }
            ConflictPolicy::Manual => self.hold(&write, HeldReason::Policy),
        }
    }

    /// The write, with a stamp above the rival's.
    ///
    /// Everybody who compares the two later compares stamps: an edge that has a pending write of the key, another
    /// region, the author's own next write. With its own stamp the winner would lose there what it has won here. So it
    /// gets the next of the hub's clock, which is above everything that this hub has admitted and, like each of its
    /// ticks, not ahead of its time. The id stays, for the author knows the write by it; the time that the author's
    /// clock said goes to the history.
    fn above(&mut self, write: Entering, rival: Rival) -> Entering {
        if self.comes_later(&write, rival) || !self.rules.restamp_winner {
            return write;
        }
        self.leader.clock.receive(rival.stamp.hlc, Hlc::MAX);
        let stamp = Stamp { hlc: self.leader.clock.tick(self.physical), id: write.stamp.id };
        Entering { claimed_hlc: write.claimed_hlc.or(Some(write.stamp.hlc)), stamp, ..write }
    }

    /// The write, with a stamp below the rival's: other regions read both and compare stamps, and a loser with the later one
    /// would win there what it has lost here. The time that the author's clock said goes to the history.
    fn below(&self, write: Entering, rival: Rival) -> Entering {
        if !self.comes_later(&write, rival) || !self.rules.restamp_loser {
            return write;
        }
        let stamp = Stamp { hlc: Hlc(rival.stamp.hlc.0.saturating_sub(1)), id: write.stamp.id };
        Entering { claimed_hlc: write.claimed_hlc.or(Some(write.stamp.hlc)), stamp, ..write }
    }

    pub(super) fn replace(&mut self, write: Entering, version: u64, rival: Rival) -> Verdict {
        let winner = Rival::at(&write, version);
        self.conflict(&write, winner, rival);
        self.superseded.push(rival.stamp.id);
        self.win(write, version);
        Verdict::Admitted { version }
    }

    pub(super) fn give_way(&mut self, write: &Entering, version: u64, rival: Rival) -> Verdict {
        self.conflict(write, rival, Rival::at(write, version));
        self.lose(write, version);
        Verdict::Lost { version, to: rival.version }
    }

    pub(super) fn conflict(&mut self, write: &Entering, winner: Rival, loser: Rival) {
        self.conflicts.push(Conflict {
            id: conflict_id(winner.stamp.id, loser.stamp.id),
            at: write.at.clone(),
            winner: winner.stamp.id,
            loser: loser.stamp.id,
            winner_version: winner.version,
            loser_version: loser.version,
            detected_at: self.physical,
            settled: None,
        });
    }
}
