//! What people decide about conflicts and about writes that wait for them.

use std::sync::Arc;

use uuid::Uuid;

use crate::entry::ChangeId;
use crate::stamp::WriteId;
use crate::time::UnixMillis;

/// Who settled what waited for a person, when, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The authenticated caller.
    pub by: Arc<str>,
    pub at: UnixMillis,
    /// The change and the version that were written: a loser restored, a held write released. None: nothing was.
    pub wrote: Option<(ChangeId, u64)>,
}

/// Whether a conflict still waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConflictState {
    Open,
    /// The loser became the entry's value again.
    Restored,
    /// Somebody has seen it and left things as they are.
    Dismissed,
}

impl ConflictState {
    /// Of a conflict that was settled so, or not at all.
    pub fn of(settled: Option<&Settled>) -> Self {
        match settled.map(|settled| &settled.wrote) {
            None => Self::Open,
            Some(Some(_)) => Self::Restored,
            Some(None) => Self::Dismissed,
        }
    }

    /// As people and programs see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Restored => "restored",
            Self::Dismissed => "dismissed",
        }
    }

    /// The inverse of [`ConflictState::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Open, Self::Restored, Self::Dismissed].into_iter().find(|state| state.as_str() == text)
    }
}

/// Something that waited for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Waited {
    Conflict(Uuid),
    Held(WriteId),
}

/// One thing that a commit settles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    pub what: Waited,
    pub settled: Settled,
}

/// The same conflict has the same id wherever it is found.
pub fn conflict_id(winner: WriteId, loser: WriteId) -> Uuid {
    Uuid::new_v5(&CONFLICT_IDS, &[name(winner), name(loser)].concat())
}

/// The id under which people decide about a held write.
pub fn held_id(write: WriteId) -> Uuid {
    Uuid::new_v5(&HELD_IDS, &name(write))
}

const CONFLICT_IDS: Uuid = uuid::uuid!("0b7a4a1e-6a0a-5d1b-8f3e-2d6c9b1f4e55");
const HELD_IDS: Uuid = uuid::uuid!("6f1d0c52-3b0e-5c8a-9d47-51c2a7e08b1d");

fn name(id: WriteId) -> Vec<u8> {
    let mut name = Vec::with_capacity(32);
    name.extend_from_slice(id.actor.0.as_bytes());
    name.extend_from_slice(&id.incarnation.to_be_bytes());
    name.extend_from_slice(&id.counter.to_be_bytes());
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::ActorId;

    #[test]
    fn ids_are_of_the_writes_alone() {
        let id = |counter| WriteId { actor: ActorId(Uuid::from_u128(7)), incarnation: 1, counter };
        assert_eq!(conflict_id(id(1), id(2)), conflict_id(id(1), id(2)));
        assert_ne!(conflict_id(id(1), id(2)), conflict_id(id(2), id(1)));
        assert_ne!(held_id(id(1)), held_id(id(2)));
    }

    #[test]
    fn what_was_written_tells_restored_from_dismissed() {
        let settled = |wrote| Settled { by: "token:a".into(), at: UnixMillis(1), wrote };
        let restored = settled(Some((ChangeId(Uuid::nil()), 3)));
        assert_eq!(ConflictState::of(None), ConflictState::Open);
        assert_eq!(ConflictState::of(Some(&restored)), ConflictState::Restored);
        assert_eq!(ConflictState::of(Some(&settled(None))), ConflictState::Dismissed);
        assert_eq!(ConflictState::parse("restored"), Some(ConflictState::Restored));
        assert_eq!(ConflictState::parse("closed"), None);
    }
}
