//! The hub goes back: what is true of it is what was true when the backup was made.
//!
//! What it had decided since is undone. Those writes are nowhere but, perhaps, at the edges that made them, and may be
//! decided once more; that they were acknowledged binds nobody any more. What no hub had decided still has to arrive.

use std::collections::BTreeMap;

use llm_config_shared::entry::{ChangeId, Status};
use llm_config_shared::name::EntryKey;
use llm_config_shared::stamp::{ActorId, Hlc, WriteId};
use llm_config_shared::store::Loss;
use llm_config_shared::vector::{EpochTable, Position};

use super::{Atomic, Current, Made, Truth, Winner, is_set_aside};

/// What is true of the hub alone.
#[derive(Clone, Debug)]
pub struct HubSide {
    decided: BTreeMap<WriteId, (Status, Option<WriteId>)>,
    current: BTreeMap<EntryKey, Current>,
    deletes: BTreeMap<EntryKey, Vec<WriteId>>,
    versions: BTreeMap<EntryKey, u64>,
    horizon: u64,
    winners: Vec<Winner>,
    atomic: Vec<Atomic>,
    commit_of: BTreeMap<ChangeId, u64>,
    commits: u64,
    last_admitted: BTreeMap<(ActorId, u64), (u64, Hlc)>,
}

impl Truth {
    /// As it is now.
    pub fn hub_side(&self) -> HubSide {
        let decided = self.writes.iter().filter_map(|(id, made)| Some((*id, (made.status?, made.decided))));
        HubSide {
            decided: decided.collect(),
            current: self.current.clone(),
            deletes: self.deletes.clone(),
            versions: self.versions.clone(),
            horizon: self.horizon,
            winners: self.winners.clone(),
            atomic: self.atomic.clone(),
            commit_of: self.commit_of.clone(),
            commits: self.commits,
            last_admitted: self.last_admitted.clone(),
        }
    }

    /// As it was then; the leaderships were `before` until now, and are `epochs` since. Gives the writes that were decided in
    /// between, and how.
    pub fn go_back(
        &mut self,
        then: HubSide,
        before: &EpochTable,
        epochs: EpochTable,
    ) -> BTreeMap<WriteId, Status> {
        let mut undone = BTreeMap::new();
        for (id, made) in &mut self.writes {
            let before = then.decided.get(id).copied();
            if let (Some(status), None) = (made.status, before) {
                undone.insert(*id, status);
                made.acknowledged = false;
                made.once_set_aside |= is_set_aside(made.status);
            }
            (made.status, made.decided) = before.map_or((None, None), |(status, by)| (Some(status), by));
        }
        let cut = then.winners.len() as u64;
        let known = |epoch: u64| epochs.epochs().iter().any(|known| known.epoch == epoch);
        let lost = before.epochs().iter().map(|epoch| epoch.epoch).filter(|epoch| !known(*epoch));
        self.lost_epochs.extend(lost.map(|epoch| (epoch, cut)));
        self.lost_epochs.values_mut().for_each(|place| *place = cut.min(*place));
        self.current = then.current;
        self.deletes = then.deletes;
        self.versions = then.versions;
        self.horizon = then.horizon;
        self.winners = then.winners;
        self.atomic = then.atomic;
        self.commit_of = then.commit_of;
        self.commits = then.commits;
        self.last_admitted = then.last_admitted;
        self.cut_history = Some(epochs);
        undone
    }

    /// An edge brings back of this loss.
    pub fn brought_back(&mut self, loss: Loss) {
        self.losses.insert(loss.change(), loss.cut);
    }

    /// Whether a place lies before the cut of the loss that this is the change of.
    pub fn is_before_cut(&self, change: ChangeId, seq: u64) -> bool {
        self.losses.get(&change).is_some_and(|cut| seq <= *cut)
    }

    /// Whether a place lies in what the hub has lost. Where a leadership was lost as a whole, its beginning was not.
    pub fn is_lost(&self, position: Position, head: u64) -> bool {
        let Some(epochs) = &self.cut_history else { return false };
        match self.lost_epochs.get(&position.epoch) {
            Some(cut) => position.seq > *cut,
            None => !epochs.contains(position, head),
        }
    }

    /// Whether the author of a write had seen one that the hub does not have now.
    pub fn saw_what_is_missing(&self, id: WriteId) -> bool {
        let missing = |seen: &WriteId| self.writes.get(seen).is_none_or(|made| made.status.is_none());
        self.writes.get(&id).is_some_and(|made| made.past.iter().any(missing))
    }

    /// Whether the author of a write looked at a place that is not in the hub's history any more.
    pub fn saw_what_is_lost(&self, made: &Made) -> bool {
        let place = self.cut_history.as_ref().zip(made.context);
        place.is_some_and(|(epochs, context)| epochs.clamp(context) != Some(context))
    }

    /// Whether the author of a write looked at what the hub has lost since, at a place at least as far as `seq`. Such an
    /// author had seen what came of everything before the cut, though perhaps not each write of it.
    pub fn saw_beyond(&self, made: &Made, seq: u64) -> bool {
        let (Some(epochs), Some(context)) = (&self.cut_history, made.context) else { return false };
        let clamped = epochs.clamp(context);
        clamped.is_some_and(|Position { seq: place, .. }| place < context.seq && place >= seq)
    }
}
