//! The grace list: writes that the hub has admitted, kept on the disk for a hub that goes back to before.
//!
//! They are apart from what waits, and nobody reads them but a hub that was restored. In memory there is only which they
//! are and how old.

use std::collections::{BTreeSet, VecDeque};

use super::EdgeReplica;
use crate::entry::{Author, Content, Row};
use crate::limits::{GRACE_BYTES_MAX, GRACE_MS, GRACE_WRITES_MAX};
use crate::stamp::WriteId;
use crate::store::replica::{Batch, KeptRecord, Record, Slot};
use crate::time::{Instant, UnixMillis};
use crate::vector::{Position, Vector};
use crate::write::{Action, Write};

/// What is kept, as the newest batch that was handed to the store has it. Oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Grace {
    kept: VecDeque<Kept>,
    ids: BTreeSet<WriteId>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    id: WriteId,
    at: UnixMillis,
    bytes: usize,
}

impl Grace {
    /// What lies on the disk.
    pub(super) fn found(mut records: Vec<KeptRecord>) -> Self {
        records.sort_by_key(|record| (record.kept_at, record.write.stamp()));
        let mut grace = Self::default();
        for record in &records {
            grace.add(&record.write, record.kept_at);
        }
        grace
    }

    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn add(&mut self, write: &Write, at: UnixMillis) -> bool {
        let fresh = self.ids.insert(write.id);
        if fresh {
            let bytes = write.size();
            self.bytes += bytes;
            self.kept.push_back(Kept { id: write.id, at, bytes });
        }
        fresh
    }

    /// Forgets the oldest that is one too many, or too old.
    fn expire(&mut self, now: UnixMillis) -> Option<WriteId> {
        let oldest = *self.kept.front()?;
        let old = now.0.saturating_sub(oldest.at.0) > GRACE_MS;
        let many = self.kept.len() > GRACE_WRITES_MAX || self.bytes > GRACE_BYTES_MAX;
        if !old && !many {
            return None;
        }
        self.kept.pop_front();
        self.ids.remove(&oldest.id);
        self.bytes -= oldest.bytes;
        Some(oldest.id)
    }
}

impl EdgeReplica {
    /// How many writes are kept for a hub that goes back to before.
    pub fn kept(&self) -> usize {
        self.grace.kept.len()
    }

    /// A batch that keeps these as well, and lets go of those that are too old or too many.
    pub(super) fn keep(&mut self, writes: Vec<Write>, now: Instant) -> Batch {
        if !self.rules.grace {
            return Batch::default();
        }
        let kept_at = self.hub_time(now);
        let fresh: Vec<Write> = writes.into_iter().filter(|write| self.grace.add(write, kept_at)).collect();
        let gone: BTreeSet<WriteId> = std::iter::from_fn(|| self.grace.expire(kept_at)).collect();
        let is_new = |id: &WriteId| fresh.iter().any(|write| write.id == *id);
        let remove = gone.iter().filter(|id| !is_new(id)).map(|id| Slot::Kept(*id)).collect();
        let put = fresh.iter().filter(|write| !gone.contains(&write.id));
        let kept = put.map(|write| Record::Kept(KeptRecord { write: write.clone(), kept_at }));
        let put = kept.chain(self.hand_in_again(&fresh)).collect();
        Batch { put, remove }
    }

    /// A hub may be lost once more before this edge is through with the last loss, and then speaks of that one still: what it
    /// admitted in between goes up as well.
    fn hand_in_again(&mut self, fresh: &[Write]) -> Option<Record> {
        let mark = self.state.handed_in?;
        fresh.iter().any(|write| write.stamp() <= mark.through).then(|| {
            self.state.handed_in = None;
            self.state_record()
        })
    }
}

/// What a row says as a write: its author had seen all that the hub had before it.
pub(super) fn as_write(row: &Row) -> Write {
    let metadata = &row.metadata;
    let action = match &row.content {
        Content::Plain(value) => Action::Set {
            value: value.clone(),
            tags: Some(metadata.tags.clone()),
            description: metadata.description.clone(),
        },
        Content::Deleted => Action::Delete,
        Content::Secret(sealed) => Action::Sealed(sealed.clone()),
    };
    let Position { epoch, seq } = row.dot.position;
    Write {
        id: row.stamp.id,
        hlc: row.stamp.hlc,
        claimed_hlc: None,
        at: row.at.clone(),
        action,
        author: Author { name: metadata.updated_by.clone(), claimed: None },
        made_at: metadata.updated_at,
        message: None,
        change: row.change,
        context: Vector::at(row.dot.shard, Position { epoch, seq: seq.saturating_sub(1) }),
        without_secrets: false,
        base: None,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::entry::ChangeId;
    use crate::name::{EntryKey, Environment, Key, Namespace, Scope, Tenant};
    use crate::stamp::{ActorId, Hlc};

    fn write(counter: u64) -> Write {
        let scope = Scope {
            tenant: Tenant::parse("t").unwrap(),
            environment: Environment::base(),
            namespace: Namespace::parse("app").unwrap(),
        };
        Write {
            id: WriteId { actor: ActorId(Uuid::from_u128(9)), incarnation: 1, counter },
            hlc: Hlc(counter),
            claimed_hlc: None,
            at: EntryKey { scope, key: Key::parse("k").unwrap() },
            action: Action::Delete,
            author: Author { name: "uid:0".into(), claimed: None },
            made_at: UnixMillis(1),
            message: None,
            change: ChangeId(Uuid::nil()),
            context: Vector::EMPTY,
            without_secrets: false,
            base: None,
        }
    }

    fn expired(grace: &mut Grace, now: UnixMillis) -> Vec<u64> {
        std::iter::from_fn(|| grace.expire(now)).map(|id| id.counter).collect()
    }

    #[test]
    fn the_oldest_go_by_age_and_by_number() {
        let records = [3, 1, 2].map(|n| KeptRecord { write: write(n), kept_at: UnixMillis(n) });
        let mut grace = Grace::found(records.into());
        assert!(!grace.add(&write(2), UnixMillis(9)), "it is there already");
        assert_eq!(expired(&mut grace, UnixMillis(GRACE_MS + 2)), [1]);
        assert_eq!(expired(&mut grace, UnixMillis(0)), [0; 0], "a clock that went back");
        for n in 0..GRACE_WRITES_MAX as u64 {
            grace.add(&write(100 + n), UnixMillis(10));
        }
        assert_eq!(expired(&mut grace, UnixMillis(10)), [2, 3]);
        assert_eq!(grace.kept.len(), GRACE_WRITES_MAX);
        assert_eq!(grace.bytes, GRACE_WRITES_MAX * write(1).size());
    }
}
