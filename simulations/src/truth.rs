//! What really happened, known to nobody inside: who had seen what when a write was made, and what became of it.
//!
//! Kept by key and in whole: the past of a write is every write of the same key that its author had seen, or that the
//! authors of those had seen. The rules under test work with vectors and clocks; this works with sets.

use std::collections::{BTreeMap, BTreeSet};

use llm_config_shared::entry::{ChangeId, HistoryRow, Status};
use llm_config_shared::name::EntryKey;
use llm_config_shared::policy::{ConflictPolicy, Policies};
use llm_config_shared::stamp::{ActorId, Hlc, Stamp, WriteId};
use llm_config_shared::vector::{EpochTable, Position};
use llm_config_shared::write::{Action, Write};

mod backup;

pub use backup::HubSide;

/// Writes of one key.
pub type Past = BTreeSet<WriteId>;

/// One write.
#[derive(Clone, Debug)]
pub struct Made {
    pub at: EntryKey,
    pub past: Past,
    pub delete: bool,
    /// SHA-256 of what was written.
    pub content: [u8; 32],
    /// The edge's application heard that it is queued.
    pub acknowledged: bool,
    pub status: Option<Status>,
    /// It was held or denied by a hub that has lost that since; the answer may still be on its way.
    pub once_set_aside: bool,
    /// How far its author's feed had come, where an edge made it.
    pub context: Option<Position>,
    /// The name under which the hub decided it.
    pub decided: Option<WriteId>,
}

/// The current row of a key at the hub.
#[derive(Clone, Copy, Debug)]
pub struct Current {
    pub stamp: Stamp,
    /// As the simulator knows the write.
    pub id: WriteId,
    pub seq: u64,
    pub live: bool,
}

/// The parts of a change that had to be whole.
#[derive(Clone, Debug)]
pub struct Atomic {
    pub parts: Vec<(u64, EntryKey)>,
}

/// One row that won, in the hub's order.
#[derive(Clone, Debug)]
pub struct Winner {
    pub at: EntryKey,
    pub live: bool,
    pub plain: bool,
    /// The entry was plain just before.
    pub was_plain: bool,
}

/// What one edge's readers know.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// All that they have seen, by key.
    pub known: BTreeMap<EntryKey, Past>,
    /// What they saw last, by key.
    pub seen: BTreeMap<EntryKey, WriteId>,
    /// What they saw before that, by key: never to be seen again.
    pub replaced: BTreeMap<EntryKey, Past>,
    /// Writes made here, as far as this machine's disk remembers them.
    pub own: BTreeSet<WriteId>,
}

/// Everything.
#[derive(Debug, Default)]
pub struct Truth {
    pub writes: BTreeMap<WriteId, Made>,
    pub current: BTreeMap<EntryKey, Current>,
    /// Deletes that were admitted, by key.
    pub deletes: BTreeMap<EntryKey, Vec<WriteId>>,
    /// The highest version that an admitted write of the key took.
    pub versions: BTreeMap<EntryKey, u64>,
    /// Deletions up to here may have been purged.
    pub horizon: u64,
    /// By seq: the first is seq 1.
    pub winners: Vec<Winner>,
    /// Changes that had to be whole and won everywhere, oldest first.
    pub atomic: Vec<Atomic>,
    /// In which commit a change was.
    pub commit_of: BTreeMap<ChangeId, u64>,
    pub commits: u64,
    pub atomic_changes: BTreeSet<ChangeId>,
    /// The last counter and time admitted, by edge and incarnation.
    pub last_admitted: BTreeMap<(ActorId, u64), (u64, Hlc)>,
    pub readers: Vec<Reader>,
    /// The leaderships of the hub's history, once a part of it was lost.
    pub cut_history: Option<EpochTable>,
    /// Leaderships that are lost as a whole, with where the history was cut before them.
    pub lost_epochs: BTreeMap<u64, u64>,
    /// How edges' writes are known here. Their numbers tell them apart only where nothing was copied, and change where a
    /// copy goes on under an incarnation of its own.
    pub names: BTreeMap<ChangeId, WriteId>,
    /// Edges of which there was a copy.
    pub copied: BTreeSet<ActorId>,
    /// What namespaces do with concurrent writes.
    pub policies: Policies,
    /// Writes of the hub's by which people released what edges had brought back, each where its own time put it: which write it
    /// was, and the change of the loss.
    pub released: BTreeMap<WriteId, (WriteId, ChangeId)>,
    /// The changes of losses, and where each cut the history.
    pub losses: BTreeMap<ChangeId, u64>,
    /// Writes whose authors' machines have to bring them back.
    pub owed: BTreeSet<WriteId>,
}

fn is_set_aside(status: Option<Status>) -> bool {
    matches!(status, Some(Status::Held | Status::Denied))
}

impl Truth {
    /// What is done with a concurrent write of this key.
    pub fn policy(&self, at: &EntryKey) -> ConflictPolicy {
        self.policies.of(&at.scope.tenant, &at.scope.namespace)
    }

    /// Whether a hub has held or denied the write: it is gone from where it was made.
    pub fn is_set_aside(&self, id: WriteId) -> bool {
        self.writes.get(&id).is_some_and(|made| made.once_set_aside || is_set_aside(made.status))
    }

    /// Whether the write was admitted and lost: it was never the entry's value at the hub.
    pub fn has_lost(&self, id: WriteId) -> bool {
        self.writes.get(&id).is_some_and(|made| made.status == Some(Status::SupersededConcurrent))
    }

    /// Whether `earlier` was known to the author of `later`.
    pub fn is_past(&self, earlier: WriteId, later: WriteId) -> bool {
        self.writes.get(&later).is_some_and(|made| made.past.contains(&earlier))
    }

    /// Whether two copies of a replica gave this number: writes that are changes of their own then have the same change as
    /// well, and a row does not say of which of the two it is.
    pub fn has_twin(&self, id: WriteId) -> bool {
        let same = |other: &WriteId| other.actor == id.actor && other.counter == id.counter && *other != id;
        self.writes.keys().any(same)
    }

    /// The change of the loss after which a row came back, by an edge or by a person who released it.
    pub fn came_back(&self, row: &HistoryRow) -> Option<ChangeId> {
        let released = self.released.get(&row.stamp.id).map(|(_, loss)| *loss);
        row.returned_in.or(released)
    }

    /// What somebody who has seen a write has at least seen: what it released, if it did.
    pub fn released(&self, id: WriteId) -> WriteId {
        self.released.get(&id).map_or(id, |(of, _)| *of)
    }

    /// The write and all that its author had seen.
    pub fn closure(&self, id: WriteId) -> Past {
        let mut past = self.writes.get(&id).map(|made| made.past.clone()).unwrap_or_default();
        past.insert(id);
        past
    }

    /// As which write the simulator knows what bears this number and is part of this change.
    pub fn identity(&self, number: WriteId, change: ChangeId) -> WriteId {
        self.names.get(&change).copied().unwrap_or(number)
    }

    /// An edge's write, as it leaves the state machine: its author knew what readers there knew, and its own writes.
    /// Gives the name that it has here.
    pub fn made_at_edge(&mut self, edge: usize, write: &Write, content: [u8; 32]) -> WriteId {
        let mut past = self.readers[edge].known.get(&write.at).cloned().unwrap_or_default();
        let here = |own: &&WriteId| self.writes.get(own).is_some_and(|made| made.at == write.at);
        for own in self.readers[edge].own.iter().filter(here) {
            past.extend(self.closure(*own));
        }
        let mut name = write.id;
        while self.writes.contains_key(&name) {
            name.incarnation = name.incarnation.wrapping_add(1);
        }
        let made = Made {
            at: write.at.clone(),
            past,
            delete: write.action == Action::Delete,
            content,
            acknowledged: false,
            status: None,
            once_set_aside: false,
            context: write.context.iter().next().map(|(_, position)| position),
            decided: None,
        };
        self.writes.insert(name, made);
        self.names.insert(write.change, name);
        self.readers[edge].own.insert(name);
        name
    }

    /// Readers at the edge see this write under its key.
    pub fn learn(&mut self, edge: usize, at: &EntryKey, id: WriteId) {
        let known = self.readers[edge].known.get(at);
        if known.is_none_or(|known| !known.contains(&id)) {
            let closure = self.closure(id);
            self.readers[edge].known.entry(at.clone()).or_default().extend(closure);
        }
    }
}
