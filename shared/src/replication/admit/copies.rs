//! Session rule 7: uploads of a replica that was copied, or set back to an earlier state.
//!
//! Such a replica gives numbers to its writes that the hub knows for other writes. What the hub has already is answered
//! as such; all the rest has to come again under another incarnation, whose numbers nobody has used.

use std::collections::{BTreeMap, BTreeSet};

use super::{Planner, Upload};
use crate::policy::ConflictPolicy;
use crate::stamp::{ActorId, WriteId};
use crate::store::Frontier;
use crate::write::{Denial, Verdict, Write};

/// Writes of edges that the history has, or this commit adds to it, with the hashes of what they say.
///
/// By number first: a write that waits keeps it when its replica takes another incarnation. The hash holds its change, so
/// what is the same in both is the same write, and a copy that had it too has brought it already.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownWrites {
    numbers: BTreeMap<(ActorId, u64), BTreeMap<u64, [u8; 32]>>,
}

impl KnownWrites {
    pub(super) fn new(known: Vec<(WriteId, [u8; 32])>) -> Self {
        let mut writes = Self::default();
        known.into_iter().for_each(|(id, hash)| writes.insert(id, hash));
        writes
    }

    pub(super) fn insert(&mut self, id: WriteId, hash: [u8; 32]) {
        self.numbers.entry((id.actor, id.counter)).or_default().insert(id.incarnation, hash);
    }

    pub(super) fn get(&self, id: WriteId) -> Option<[u8; 32]> {
        self.numbers.get(&(id.actor, id.counter))?.get(&id.incarnation).copied()
    }

    pub(super) fn has(&self, id: WriteId, hash: [u8; 32]) -> bool {
        let lives = self.numbers.get(&(id.actor, id.counter));
        lives.is_some_and(|lives| lives.values().any(|known| *known == hash))
    }
}

impl Planner {
    /// Whether the session's number shows that there are, or were, two of the replica: it has uploaded before under
    /// this number or a later one. Otherwise the number is taken, in the same commit as what the session uploads first.
    pub(super) fn is_of_copy(&mut self, upload: &Upload) -> bool {
        let own = upload.writes.iter().filter(|write| write.id.actor == upload.edge);
        let places: BTreeSet<_> = own.map(|write| (upload.edge, write.id.incarnation)).collect();
        let used = |frontier: &Frontier| {
            frontier.session > upload.session || (upload.first && frontier.session == upload.session)
        };
        if places.iter().any(|place| self.frontiers.get(place).is_some_and(used)) {
            return true;
        }
        for place in places {
            let (edge, incarnation) = place;
            let fresh = Frontier { edge, incarnation, last_counter: 0, session: 0 };
            let frontier = self.frontiers.entry(place).or_insert(fresh);
            if frontier.session < upload.session {
                frontier.session = upload.session;
                self.moved.insert(place);
            }
        }
        false
    }

    /// What is answered to a write that must not be admitted under its number, `last` being the highest that was. Once
    /// one is of a copy, so is all that follows it: the order of a replica's writes stays.
    pub(super) fn repetition(
        &self,
        write: &Write,
        hash: [u8; 32],
        last: u64,
        copied: &mut bool,
    ) -> Option<Verdict> {
        let known = self.known_writes.get(write.id);
        let used = write.id.counter <= last;
        if !self.rules.clones {
            // The fault that the rule guards against: the number alone says which write it is.
            let reused = known.is_some_and(|known| known != hash);
            return used.then_some(if reused { Verdict::Denied(Denial::Reused) } else { Verdict::Duplicate });
        }
        if self.known_writes.has(write.id, hash) {
            return Some(Verdict::Duplicate);
        }
        // Where there are other regions, an earlier write may have gone to one that lost it, and comes here after later ones.
        let used = used && self.leader.following.read.is_empty();
        *copied |= used || known.is_some() || self.precedes_own(write);
        copied.then_some(Verdict::Reidentify)
    }

    /// The times of one replica rise with its numbers: a row with a lower number and a later time is another's, unless
    /// it won by a policy and has its time from the hub.
    fn precedes_own(&self, write: &Write) -> bool {
        let scope = &write.at.scope;
        if self.policies.of(&scope.tenant, &scope.namespace) == ConflictPolicy::EdgeWins {
            return false;
        }
        self.rows.get(&write.at).is_some_and(|current| {
            let stamp = current.row.stamp;
            let same = stamp.id.actor == write.id.actor && stamp.id.incarnation == write.id.incarnation;
            same && stamp.id.counter < write.id.counter && stamp.hlc >= write.hlc
        })
    }
}
