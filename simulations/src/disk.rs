//! An edge's disk: batches reach the platter one after the other, and a power cut takes those that had not.

use std::collections::{BTreeMap, VecDeque};

use llm_config_shared::store::replica::{Batch, Record, ReplicaStore, Slot, StoreError};

/// A disk that commits later than it is asked to, in order.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    durable: BTreeMap<Slot, Record>,
    queue: VecDeque<Batch>,
    /// How many batches have become durable.
    synced: u64,
}

impl SimDisk {
    /// Hands a batch over. It is not durable yet.
    pub fn enqueue(&mut self, batch: Batch) {
        self.queue.push_back(batch);
    }

    /// Makes the oldest batch durable, whole. False when none waits.
    pub fn sync_oldest(&mut self) -> bool {
        let Some(batch) = self.queue.pop_front() else { return false };
        self.write(&batch);
        true
    }

    /// Batches handed over and not durable.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// How many batches have become durable so far.
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// The power goes. The `kept` oldest of the waiting batches happen to be on the platter; the others are gone.
    pub fn cut_power(&mut self, kept: usize) {
        for _ in 0..kept {
            self.sync_oldest();
        }
        self.queue.clear();
    }

    /// What a restart would find.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.durable.values()
    }

    /// What a slot holds changes though nobody wrote to it. Gives what it held.
    pub fn rot(&mut self, slot: Slot, becomes: Option<Record>) -> Option<Record> {
        match becomes {
            Some(record) => self.durable.insert(slot, record),
            None => self.durable.remove(&slot),
        }
    }

    fn write(&mut self, batch: &Batch) {
        self.synced += 1;
        for slot in &batch.remove {
            self.durable.remove(slot);
        }
        for record in &batch.put {
            self.durable.insert(record.slot(), record.clone());
        }
    }
}

impl ReplicaStore for SimDisk {
    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        Ok(self.durable.values().cloned().collect())
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        while self.sync_oldest() {}
        self.write(batch);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use llm_config_shared::store::replica::StateRecord;

    use super::*;

    fn batch(session: u64) -> Batch {
        let state = StateRecord { session, ..StateRecord::default() };
        Batch { put: vec![Record::State(state)], remove: Vec::new() }
    }

    fn session(disk: &mut SimDisk) -> u64 {
        match disk.load().unwrap().as_slice() {
            [Record::State(state)] => state.session,
            _ => 0,
        }
    }

    #[test]
    fn a_power_cut_takes_what_was_not_synced_and_keeps_the_order() {
        let mut disk = SimDisk::default();
        for n in 1..=4 {
            disk.enqueue(batch(n));
        }
        assert!(disk.sync_oldest());
        assert_eq!((session(&mut disk), disk.waiting()), (1, 3));
        disk.cut_power(1);
        assert_eq!((session(&mut disk), disk.waiting(), disk.synced()), (2, 0, 2));
        disk.commit(&batch(9)).unwrap();
        assert_eq!(session(&mut disk), 9);
    }
}
