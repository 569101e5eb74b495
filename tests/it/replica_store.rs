//! One suite that every replica store passes: sled on a real disk, and the simulator's.

use std::collections::BTreeMap;

use llm_config_edge::store::{Opened, Owner, SledStore, StoreOptions};
use llm_config_shared::name::Tenant;
use llm_config_shared::seal::SealKey;
use llm_config_shared::store::replica::{Batch, Record, ReplicaStore, Slot};
use uuid::Uuid;

mod records;

use records::{Random, feed, grant, kept, pending, row, stage, staged, state};

/// A place that a store is opened on, again and again; only what was committed is there again.
trait Disk {
    type Store: ReplicaStore;

    /// Ends what was open before, and opens what is there.
    fn reopen(&mut self) -> Self::Store;
}

struct SledDisk {
    folder: tempfile::TempDir,
}

impl SledDisk {
    fn new() -> Self {
        // Not a memory file system, where making things durable costs and proves nothing.
        Self { folder: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap() }
    }
}

impl Disk for SledDisk {
    type Store = SledStore;

    fn reopen(&mut self) -> SledStore {
        let owner = Owner { tenant: Tenant::parse("t").unwrap(), edge: Uuid::from_u128(1) };
        let directory = self.folder.path().join("replica");
        let options = StoreOptions::default();
        let Opened { store, recovery, .. } =
            llm_config_edge::store::open(&directory, &SealKey::new([7; 32]), &owner, options).unwrap();
        assert_eq!(recovery, None);
        store
    }
}

/// Each case takes an empty disk.
macro_rules! suite {
    ($name:ident, $disk:expr, [$($case:ident),+ $(,)?]) => {
        mod $name {
            $(#[test]
            fn $case() {
                super::$case(&mut $disk);
            })+
        }
    };
}

suite!(
    sled,
    super::SledDisk::new(),
    [
        an_empty_store_holds_nothing,
        every_kind_of_record_comes_back_as_it_was,
        a_slot_holds_one_record,
        what_is_removed_stays_away,
        within_a_batch_putting_counts_more_than_removing,
        a_batch_that_changes_nothing_is_no_failure,
        records_of_any_size_replace_one_another,
        a_long_history_of_batches_ends_as_a_map_would,
    ]
);

fn put(records: Vec<Record>) -> Batch {
    Batch { put: records, remove: Vec::new() }
}

fn remove(slots: Vec<Slot>) -> Batch {
    Batch { put: Vec::new(), remove: slots }
}

fn by_slot(records: Vec<Record>) -> BTreeMap<Slot, Record> {
    let count = records.len();
    let by_slot: BTreeMap<_, _> = records.into_iter().map(|record| (record.slot(), record)).collect();
    assert_eq!(by_slot.len(), count, "a slot was given twice");
    by_slot
}

/// The same from a store that stayed open and from one that was opened anew.
fn holds<D: Disk>(disk: &mut D, mut store: D::Store, expected: &BTreeMap<Slot, Record>) -> D::Store {
    assert_eq!(by_slot(store.load().unwrap()), *expected);
    drop(store);
    let mut store = disk.reopen();
    assert_eq!(by_slot(store.load().unwrap()), *expected);
    store
}

fn an_empty_store_holds_nothing(disk: &mut impl Disk) {
    let store = disk.reopen();
    holds(disk, store, &BTreeMap::new());
}

fn every_kind_of_record_comes_back_as_it_was(disk: &mut impl Disk) {
    let mut random = Random(1);
    let records: Vec<_> = [
        row("a", 1, 300, &mut random),
        staged("a", 1, 10, &mut random),
        staged("b", 2, 10, &mut random),
        stage("app", 4, None, &mut random),
        stage("app/llm", 5, Some("a"), &mut random),
        feed("app", 5, false),
        feed("app/llm", 7, true),
        pending(1, 20, &mut random),
        pending(2, 2_000, &mut random),
        kept(1, 20, &mut random),
        kept(2, 9_000, &mut random),
        grant("app", 3),
        grant("app", 4),
        state(9),
    ]
    .into();
    let mut store = disk.reopen();
    store.commit(&put(records.clone())).unwrap();
    holds(disk, store, &by_slot(records));
}

fn a_slot_holds_one_record(disk: &mut impl Disk) {
    let mut random = Random(2);
    let mut store = disk.reopen();
    for version in 1..20 {
        let records = vec![row("a", version, 50, &mut random), state(version)];
        store.commit(&put(records.clone())).unwrap();
        store = holds(disk, store, &by_slot(records));
    }
    let twice = vec![state(1), state(2)];
    store.commit(&put(twice)).unwrap();
    assert!(store.load().unwrap().contains(&state(2)), "the last one of a batch counts");
}

fn what_is_removed_stays_away(disk: &mut impl Disk) {
    let mut random = Random(3);
    let (kept, gone) = (row("kept", 1, 50, &mut random), row("gone", 1, 50_000, &mut random));
    let mut store = disk.reopen();
    store.commit(&put(vec![kept.clone(), gone.clone()])).unwrap();
    store.commit(&remove(vec![gone.slot(), Slot::State])).unwrap();
    holds(disk, store, &by_slot(vec![kept]));
}

fn within_a_batch_putting_counts_more_than_removing(disk: &mut impl Disk) {
    let mut store = disk.reopen();
    store.commit(&put(vec![state(1)])).unwrap();
    store.commit(&Batch { put: vec![state(2)], remove: vec![Slot::State] }).unwrap();
    holds(disk, store, &by_slot(vec![state(2)]));
}

fn a_batch_that_changes_nothing_is_no_failure(disk: &mut impl Disk) {
    let mut store = disk.reopen();
    store.commit(&Batch::default()).unwrap();
    store.commit(&remove(vec![Slot::Pending(5), Slot::State])).unwrap();
    holds(disk, store, &BTreeMap::new());
}

fn records_of_any_size_replace_one_another(disk: &mut impl Disk) {
    let mut random = Random(4);
    let mut store = disk.reopen();
    for size in [1, 6_000, 6_200, 1_000_000, 12_300, 130_000, 0, 1_000_000, 3] {
        let record = row("a", size as u64, size, &mut random);
        store.commit(&put(vec![record.clone()])).unwrap();
        store = holds(disk, store, &by_slot(vec![record]));
    }
}

fn a_long_history_of_batches_ends_as_a_map_would(disk: &mut impl Disk) {
    let mut random = Random(5);
    let mut model: BTreeMap<Slot, Record> = BTreeMap::new();
    let mut store = disk.reopen();
    for round in 0..60 {
        let mut batch = Batch::default();
        for _ in 0..random.below(40) {
            let name = format!("k{}", random.below(60));
            let record = match random.below(4) {
                0 => pending(random.below(60), 30, &mut random),
                1 => staged(&name, round, 200, &mut random),
                _ => row(&name, round, 200, &mut random),
            };
            if random.below(4) == 0 { batch.remove.push(record.slot()) } else { batch.put.push(record) }
        }
        for slot in &batch.remove {
            model.remove(slot);
        }
        model.extend(batch.put.iter().map(|record| (record.slot(), record.clone())));
        store.commit(&batch).unwrap();
        if random.below(10) == 0 {
            store = holds(disk, store, &model);
        }
    }
    holds(disk, store, &model);
}
