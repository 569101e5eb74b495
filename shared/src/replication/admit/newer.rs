//! Writes that the hub lost and edges bring back: judged as was chosen when the hub was restored.
//!
//! They come late and by whomever, so no frontier is asked and none moves: a write is known by its name and content alone.
//! An edge speaks of what it receives or may write, in its own tenant, and never in the name of a leadership that the hub
//! still knows. What others wrote is admitted only where the edge might have written it itself; else a person decides.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::contest::Rival;
use super::upload::{content_hash, denial, entering};
use super::{Entering, Planner, Sealer};
use crate::entry::{ChangeId, HubRow, Status};
use crate::feed::{Environments, Feed};
use crate::limits::{HANDED_IN_BYTES_MAX, HANDED_IN_WRITES_MAX};
use crate::name::{EntryKey, Environment, Subtree, Tenant};
use crate::newer::{self, Newer, Restored, Taken, Tally};
use crate::policy::ConflictPolicy;
use crate::stamp::{ActorId, Stamp, WriteId};
use crate::store::{ChangeRow, Frontier, PlanningRequest, Retold};
use crate::time::UnixMillis;
use crate::vector::{Position, Vector};
use crate::write::{Action, HeldReason, Verdict, Write};

/// Who brings changes back, to people.
const AUTHOR: &str = "hub:restore";
/// What such a change says of itself in other regions.
pub(super) const ELSEWHERE: &str = "brought back by edges after the hub of another region was restored";

/// One batch of writes that an edge hands in, with what the hub knows of that edge.
#[derive(Clone, Debug)]
pub struct HandIn {
    pub edge: ActorId,
    /// Its name, for people.
    pub name: Arc<str>,
    pub tenant: Tenant,
    /// Where it may write.
    pub write: Vec<Subtree>,
    /// What it receives.
    pub feeds: Vec<Feed>,
    pub environments: Environments,
    /// Which loss: the leadership that began after it.
    pub new_epoch: u64,
    pub writes: Vec<Write>,
}

impl HandIn {
    /// Adds what planning it needs to `request`.
    pub fn needs(&self, request: &mut PlanningRequest) {
        for write in &self.writes {
            request.keys.push(write.at.clone());
            request.past.push(write.id);
            request.writes.push((write.id.actor, write.id.counter));
            let frontier = (write.id.actor, write.id.incarnation);
            if !request.frontiers.contains(&frontier) {
                request.frontiers.push(frontier);
            }
        }
        if !request.policies.contains(&self.tenant) {
            request.policies.push(self.tenant.clone());
        }
        let loss = (self.tenant.clone(), self.new_epoch);
        if !request.restored.contains(&loss) {
            request.restored.push(loss);
        }
    }

    /// Environments in which this brings secrets.
    pub fn seals_in(&self) -> BTreeSet<(Tenant, Environment)> {
        let secrets = self.writes.iter().filter(|write| matches!(write.action, Action::Sealed(_)));
        secrets.map(|write| (self.tenant.clone(), write.at.scope.environment.clone())).collect()
    }

    fn tally(&self) -> Tally {
        Tally {
            tenant: self.tenant.clone(),
            new_epoch: self.new_epoch,
            edge: self.edge,
            name: Arc::clone(&self.name),
            taken: Taken::default(),
            bytes: 0,
        }
    }

    /// Whether the edge may speak of this write at all.
    fn may_bring(&self, write: &Write) -> bool {
        let secret = matches!(write.action, Action::Sealed(_));
        let received = || self.feeds.iter().any(|feed| feed.contains(&write.at) && (feed.secrets || !secret));
        write.at.scope.tenant == self.tenant
            && (received() || write.id.actor == self.edge && self.may_write(write))
    }

    fn may_write(&self, write: &Write) -> bool {
        denial(&self.write, &self.environments, &write.at).is_none()
    }
}

/// What is done with one of them.
enum Fate {
    Known,
    Discarded,
    Refused,
    /// A secret that nobody here can open.
    LeftOut,
    Judged(Verdict),
}

impl Planner {
    /// Judges what an edge hands in, in order. What is there already changes nothing, whoever brings it.
    pub fn hand_in(&mut self, hand_in: &HandIn, sealer: &mut impl Sealer) -> Taken {
        let mut taken = Taken::default();
        let place = (hand_in.tenant.clone(), hand_in.new_epoch);
        let Some(restored) = self.restored.get(&place).cloned() else {
            taken.refused = hand_in.writes.len() as u64;
            return taken;
        };
        let known = restored.tallies.iter().find(|tally| tally.edge == hand_in.edge);
        let mut tally = known.cloned().unwrap_or_else(|| hand_in.tally());
        for write in &hand_in.writes {
            let all = tally.taken.lacking() + taken.lacking();
            let room = all < HANDED_IN_WRITES_MAX && tally.bytes < HANDED_IN_BYTES_MAX;
            match self.handed_in(hand_in, &restored, write, (room, sealer)) {
                Fate::Known => taken.known += 1,
                Fate::Discarded => taken.discarded += 1,
                Fate::Refused => taken.refused += 1,
                Fate::LeftOut => taken.left_out += 1,
                Fate::Judged(verdict) => {
                    tally.bytes += write.size() as u64;
                    count(&mut taken, &verdict);
                }
            }
        }
        if taken != Taken::default() {
            tally.taken.add(&taken);
            self.tell(place, tally);
        }
        taken
    }

    fn handed_in(
        &mut self,
        hand_in: &HandIn,
        restored: &Restored,
        write: &Write,
        (room, sealer): (bool, &mut impl Sealer),
    ) -> Fate {
        if !hand_in.may_bring(write) || !may_be_lost(restored, write.id) {
            return Fate::Refused;
        }
        let content = write.action.content();
        let hash = content_hash(&write.at, write.change, &content);
        let waits = match self.past_of(write.id) {
            // Two copies of a replica may have given one number to two writes: then the first counts.
            Some(known) if known.at != write.at || known.content != content => return Fate::Refused,
            Some(_) if !room || !self.may_be_let_in(hand_in, restored, write.id) => return Fate::Known,
            Some(_) => true,
            None if self.known_writes.has(write.id, hash) => return Fate::Known,
            None if self.known_writes.get(write.id).is_some() => return Fate::Refused,
            None => false,
        };
        if restored.newer == Newer::Discard {
            return Fate::Discarded;
        }
        if !room {
            return Fate::Refused;
        }
        if let Action::Sealed(sealed) = &write.action
            && sealer.reseal(&write.at, sealed, sealed.version).is_err()
        {
            return Fate::LeftOut;
        }
        if waits {
            self.take_back(write.id);
        }
        self.known_writes.insert(write.id, hash);
        self.name_author(restored, write.id);
        let change = restored.loss.change();
        self.begin_change(&hand_in.tenant, change, restored);
        let said = entering(write, content, hash, self.physical);
        let own_change = if self.rules.returned_change { said.change } else { change };
        let mut entering = Entering { change: own_change, returned_in: Some(change), ..said };
        let own = write.id.actor == hand_in.edge;
        if !own {
            // Whatever the hub had at the cut, this had replaced it already.
            let cut = Position { epoch: restored.loss.epoch, seq: restored.loss.cut };
            entering.context = Vector::at(restored.loss.shard, cut);
        }
        // No edge writes a secret, so none is admitted through one.
        let secret = entering.content.is_secret();
        if restored.newer == Newer::Hold || secret || !hand_in.may_write(write) {
            return Fate::Judged(self.hold(&entering, HeldReason::Newer));
        }
        Fate::Judged(self.enter_late(&hand_in.feeds, entering, write.without_secrets, own))
    }

    /// Somebody brought it who might not have written it, so it waits for a person; now comes somebody who might. It gets
    /// its place in the history as if it had not been brought before: under another name, a hub that is restored once more
    /// would know the same write twice. Where the namespace has a person decide, or refuses, it goes on waiting for one.
    fn may_be_let_in(&self, hand_in: &HandIn, restored: &Restored, id: WriteId) -> bool {
        let Some(known) = self.past_of(id) else { return false };
        let waits = known.status == Status::Held && known.found_in() == restored.loss.change();
        let accepted = waits && restored.newer == Newer::Accept && !known.content.is_secret();
        let scope = &known.at.scope;
        let policy = self.policies.of(&scope.tenant, &scope.namespace);
        let guarded = matches!(policy, ConflictPolicy::Reject | ConflictPolicy::Manual)
            || self.covers_secret(&known.at)
            || known.stamp.hlc > self.latest();
        accepted && !guarded && denial(&hand_in.write, &hand_in.environments, &known.at).is_none()
    }

    /// Whether the entry holds a secret now.
    pub(super) fn covers_secret(&self, at: &EntryKey) -> bool {
        self.rows.get(at).is_some_and(|row| row.row.content.is_secret())
    }

    /// A write that may come behind those that had seen it. That its author had seen the current row puts it behind that, but
    /// never ahead of its own time: of others it is a guess, and a copy of a replica passes for its author. Only where
    /// edges win may an earlier write of the same author have got a time from the hub.
    fn enter_late(&mut self, feeds: &[Feed], write: Entering, without_secrets: bool, own: bool) -> Verdict {
        let version = self.next_version(&write.at);
        let scope = &write.at.scope;
        let edge_wins = self.policies.of(&scope.tenant, &scope.namespace) == ConflictPolicy::EdgeWins;
        let in_its_time = |current: &HubRow| own && edge_wins || self.comes_later(&write, Rival::of(current));
        let is_old = |current: &HubRow| !in_its_time(current) && self.has_seen(&write, current);
        match self.rows.get(&write.at) {
            Some(current) if has_been_seen(write.stamp, write.change, current) || is_old(current) => {
                let to = current.row.version;
                self.lose(&write, version);
                Verdict::Lost { version, to }
            }
            Some(_) | None => self.enter(feeds, write, without_secrets),
        }
    }

    /// Of each edge that has a write in the history there is a frontier, or its numbers would not be looked for.
    fn name_author(&mut self, restored: &Restored, id: WriteId) {
        let place = (id.actor, id.incarnation);
        if id.actor.0 != restored.loss.shard.0 && !self.frontiers.contains_key(&place) {
            let (edge, incarnation) = place;
            self.frontiers.insert(place, Frontier { edge, incarnation, last_counter: 0, session: 0 });
            self.moved.insert(place);
        }
    }

    fn begin_change(&mut self, tenant: &Tenant, id: ChangeId, restored: &Restored) {
        let created_at = self.physical;
        self.changes.entry((tenant.clone(), id)).or_insert_with(|| {
            begin_change(
                tenant.clone(),
                id,
                created_at,
                newer::message(restored.restored_at, &restored.tallies),
            )
        });
    }

    fn tell(&mut self, place: (Tenant, u64), tally: Tally) {
        let Some(restored) = self.restored.get_mut(&place) else { return };
        self.tallied.entry(place).or_default().insert(tally.edge);
        restored.tallies.retain(|known| known.edge != tally.edge);
        restored.tallies.push(tally);
    }

    /// Tallies that have changed, and what the changes that they belong to say of themselves now.
    pub(super) fn tallies(&self) -> (Vec<Tally>, Vec<Retold>) {
        let (mut tallies, mut retold) = (Vec::new(), Vec::new());
        for (place, edges) in &self.tallied {
            let restored = &self.restored[place];
            let changed = |tally: &&Tally| edges.contains(&tally.edge);
            tallies.extend(restored.tallies.iter().filter(changed).cloned());
            let (tenant, change) = (place.0.clone(), restored.loss.change());
            if self.changes.get(&(tenant.clone(), change)).is_some_and(|change| change.writes > 0) {
                let message = newer::message(restored.restored_at, &restored.tallies);
                retold.push(Retold { tenant, change, message });
            }
        }
        (tallies, retold)
    }
}

/// The change of a loss, still without writes.
pub(super) fn begin_change(
    tenant: Tenant,
    id: ChangeId,
    created_at: UnixMillis,
    message: Arc<str>,
) -> ChangeRow {
    ChangeRow { id, tenant, created_at, author: AUTHOR.into(), message: Some(message), writes: 0 }
}

/// Whether a write of that name can have been lost: of the hub's own only those of a leadership that is over or unknown. The
/// names of one that goes on are still to be given.
fn may_be_lost(restored: &Restored, id: WriteId) -> bool {
    let loss = &restored.loss;
    let known = restored.epochs.epochs().iter().any(|known| known.epoch == id.incarnation);
    id.actor.0 != loss.shard.0 || id.incarnation == loss.epoch || !known
}

/// Whether the author of the current row is known to have seen this write.
pub(super) fn has_been_seen(late: Stamp, change: ChangeId, current: &HubRow) -> bool {
    let row = current.row.stamp;
    let followed = current.base.is_some_and(|base| base.is(late, change));
    row > late && (has_counted_past(late.id, row.id) || followed)
}

/// Whether the second is a later write of whoever made the first.
pub(super) fn has_counted_past(first: WriteId, second: WriteId) -> bool {
    let same = first.actor == second.actor && first.incarnation == second.incarnation;
    same && first.counter < second.counter
}

fn count(taken: &mut Taken, verdict: &Verdict) {
    match verdict {
        Verdict::Admitted { .. } | Verdict::Lost { .. } => taken.admitted += 1,
        Verdict::Held(_) => taken.held += 1,
        Verdict::Denied(_) => taken.denied += 1,
        Verdict::Duplicate | Verdict::Reidentify => taken.known += 1,
    }
}
