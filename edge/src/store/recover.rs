//! Opening a replica whatever state it is in: repaired where that loses nothing, else set aside and begun anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use llm_config_shared::seal::SealKey;
use llm_config_shared::store::replica::{Record, ReplicaStore, StoreError};

use super::cipher::{Owner, RecordCipher, space};
use super::compact;
use super::sled::{SETTINGS, SledOpenError, SledStore, sync_directory};

/// What a replica is opened with.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Pages that sled keeps in memory, in bytes.
    pub cache_bytes: u64,
    /// From this size on, in bytes, files that have grown far beyond their records are written anew; none: never.
    pub compact_from: Option<u64>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { cache_bytes: 16 << 20, compact_from: Some(64 << 20) }
    }
}

/// An open replica with all that it holds.
pub struct Opened {
    pub store: SledStore,
    pub records: Vec<Record>,
    /// What had to be done to open it.
    pub recovery: Option<Recovery>,
}

/// What was done about a replica that did not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// sled's own index or settings were damaged and have been made anew: nothing is lost.
    IndexRebuilt,
    /// So many rows could not be read; everything else can.
    RowsDamaged(u64),
    /// Nothing could be done: the replica is filled from the hub anew.
    SetAside(SetAside),
}

/// A replica that is kept but not used any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    pub to: PathBuf,
    /// What was wrong.
    pub reason: String,
    /// Writes that the hub had not decided: how many were found in it, and how many of those can still be read.
    pub pending_found: u64,
    pub pending_readable: u64,
}

impl std::fmt::Display for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::IndexRebuilt => f.write_str(
                "the replica's index or settings were damaged and have been made anew; nothing is lost",
            ),
            Self::RowsDamaged(rows) => write!(
                f,
                "entries of the replica that are damaged: {rows}; everything else is served, and they are fetched from \
                 the hub anew"
            ),
            Self::SetAside(set_aside) => write!(
                f,
                "the replica did not open ({}); it was set aside as {} and is filled from the hub anew; \
                 pending writes found in it: {}, readable: {}",
                set_aside.reason,
                set_aside.to.display(),
                set_aside.pending_found,
                set_aside.pending_readable
            ),
        }
    }
}

/// Why there is no replica to work with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{}: another process has this replica open", .0.display())]
    Locked(PathBuf),
    #[error("{}: the disk is full", .0.display())]
    Full(PathBuf),
    #[error("{}: {reason}", path.display())]
    Io { path: PathBuf, reason: String },
}

/// Opens the replica in `directory` and reads it, repairing or replacing it where it is damaged.
///
/// # Errors
/// Only when the directory cannot be used at all: taken by another process, unreadable, full.
pub fn open(
    directory: &Path,
    key: &SealKey,
    owner: &Owner,
    options: StoreOptions,
) -> Result<Opened, OpenError> {
    compact::finish_interrupted(directory).map_err(|error| unusable(directory, &error))?;
    fs::create_dir_all(directory).map_err(|error| unusable(directory, &error))?;
    let try_open = || try_open(directory, key, owner, options);
    let (store, records, recovery) = match try_open() {
        Ok((store, records)) => {
            let damaged = store.damaged();
            (store, records, (damaged > 0).then_some(Recovery::RowsDamaged(damaged)))
        }
        Err(SledOpenError::Store(StoreError::Corrupt(first))) if remove_what_is_made_anew(directory) => {
            match try_open() {
                Ok((store, records)) => (store, records, Some(Recovery::IndexRebuilt)),
                Err(SledOpenError::Store(StoreError::Corrupt(_)) | SledOpenError::WrongKey) => {
                    replace(directory, key, owner, options, first)?
                }
                Err(other) => return Err(open_error(directory, other)),
            }
        }
        Err(SledOpenError::Store(StoreError::Corrupt(reason))) => {
            replace(directory, key, owner, options, reason)?
        }
        Err(error @ SledOpenError::WrongKey) => replace(directory, key, owner, options, error.to_string())?,
        Err(other) => return Err(open_error(directory, other)),
    };
    // Written anew, it would no longer be known that something is missing.
    let due = options.compact_from.is_some_and(|bytes| compact::is_due(&store, &records, bytes));
    if due && store.damaged() == 0 {
        drop(store);
        compact::rewrite(directory, RecordCipher::new(key, owner), &records, options.cache_bytes)
            .map_err(|error| open_error(directory, error))?;
        let (store, records) = try_open().map_err(|error| open_error(directory, error))?;
        return Ok(Opened { store, records, recovery });
    }
    Ok(Opened { store, records, recovery })
}

fn try_open(
    directory: &Path,
    key: &SealKey,
    owner: &Owner,
    options: StoreOptions,
) -> Result<(SledStore, Vec<Record>), SledOpenError> {
    let mut store = SledStore::open(directory, RecordCipher::new(key, owner), options.cache_bytes)?;
    let records = store.load()?;
    Ok((store, records))
}

type Replaced = (SledStore, Vec<Record>, Option<Recovery>);

/// Keeps what is there under another name, and begins an empty replica.
fn replace(
    directory: &Path,
    key: &SealKey,
    owner: &Owner,
    options: StoreOptions,
    reason: String,
) -> Result<Replaced, OpenError> {
    let (pending_found, pending_readable) =
        match SledStore::open_unclaimed(directory, RecordCipher::new(key, owner), options.cache_bytes) {
            Ok(store) => store.count(space::PENDING),
            Err(_) => (0, 0),
        };
    let to = set_aside(directory).map_err(|error| unusable(directory, &error))?;
    fs::create_dir_all(directory).map_err(|error| unusable(directory, &error))?;
    let (store, records) =
        try_open(directory, key, owner, options).map_err(|error| open_error(directory, error))?;
    let set_aside = SetAside { to, reason, pending_found, pending_readable };
    Ok((store, records, Some(Recovery::SetAside(set_aside))))
}

/// Renames the directory to `NAME.set-aside-SECONDS`, which is not taken yet.
fn set_aside(directory: &Path) -> io::Result<PathBuf> {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let to = (seconds..)
        .map(|number| directory.with_file_name(format!("{name}.set-aside-{number}")))
        .find(|candidate| !candidate.exists())
        .expect("some number is free");
    fs::rename(directory, &to)?;
    sync_directory(&to)?;
    Ok(to)
}

/// Removes sled's index of its own log, which is rebuilt from the log, and its settings, which are always the same. Whether
/// there was any.
fn remove_what_is_made_anew(directory: &Path) -> bool {
    let Ok(files) = fs::read_dir(directory) else { return false };
    let mut removed = false;
    for file in files.flatten() {
        let name = file.file_name();
        if name == SETTINGS || name.to_string_lossy().starts_with("snap.") {
            removed |= fs::remove_file(file.path()).is_ok();
        }
    }
    removed
}

fn open_error(directory: &Path, error: SledOpenError) -> OpenError {
    let path = directory.to_owned();
    match error {
        SledOpenError::Locked => OpenError::Locked(path),
        SledOpenError::Store(StoreError::Full) => OpenError::Full(path),
        SledOpenError::WrongKey | SledOpenError::Store(StoreError::Io(_) | StoreError::Corrupt(_)) => {
            OpenError::Io { path, reason: error.to_string() }
        }
    }
}

fn unusable(directory: &Path, error: &io::Error) -> OpenError {
    let path = directory.to_owned();
    if error.kind() == io::ErrorKind::StorageFull {
        OpenError::Full(path)
    } else {
        OpenError::Io { path, reason: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use llm_config_shared::entry::{Author, ChangeId, Content, Metadata, Row};
    use llm_config_shared::name::{EntryKey, Environment, Key, Namespace, Scope, Tenant};
    use llm_config_shared::stamp::{ActorId, Hlc, Stamp, WriteId};
    use llm_config_shared::store::replica::{Batch, PendingRecord, StateRecord};
    use llm_config_shared::time::UnixMillis;
    use llm_config_shared::value::Value;
    use llm_config_shared::vector::{Dot, Position, ShardId, Vector};
    use llm_config_shared::write::{Action, Write};
    use uuid::Uuid;

    use super::*;

    fn owner() -> Owner {
        Owner { tenant: Tenant::parse("t").unwrap(), edge: Uuid::from_u128(7) }
    }

    fn key(byte: u8) -> SealKey {
        SealKey::new([byte; 32])
    }

    fn pending(counter: u64, value: &str) -> Record {
        let scope = Scope {
            tenant: Tenant::parse("t").unwrap(),
            environment: Environment::base(),
            namespace: Namespace::parse("visible-namespace").unwrap(),
        };
        Record::Pending(PendingRecord {
            write: Write {
                id: WriteId { actor: ActorId(Uuid::from_u128(7)), incarnation: 1, counter },
                hlc: Hlc(counter),
                claimed_hlc: None,
                at: EntryKey { scope, key: Key::parse(&format!("visible-key-{counter}")).unwrap() },
                action: Action::Set { value: Value::string(value).unwrap(), tags: None, description: None },
                author: Author { name: "uid:0".into(), claimed: None },
                made_at: UnixMillis(1),
                message: None,
                change: ChangeId(Uuid::from_u128(9)),
                context: Vector::EMPTY,
                without_secrets: false,
                base: None,
            },
            sent: false,
            hidden: false,
            decided: None,
        })
    }

    fn row(name: &str) -> Record {
        let Record::Pending(PendingRecord { write, .. }) = pending(1, "row") else { panic!("just made") };
        let Action::Set { value, .. } = write.action else { panic!("just made") };
        Record::Row(Arc::new(Row {
            at: EntryKey { key: Key::parse(name).unwrap(), ..write.at },
            dot: Dot { shard: ShardId(Uuid::from_u128(1)), position: Position { epoch: 1, seq: 1 } },
            stamp: Stamp { hlc: write.hlc, id: write.id },
            version: 1,
            content: Content::Plain(value),
            metadata: Metadata {
                created_at: UnixMillis(1),
                created_by: "token:admin".into(),
                updated_at: UnixMillis(1),
                updated_by: "token:admin".into(),
                tags: Vec::new(),
                description: None,
            },
            change: write.change,
        }))
    }

    fn put(records: Vec<Record>) -> Batch {
        Batch { put: records, remove: Vec::new() }
    }

    fn open_at(directory: &Path, key: &SealKey) -> Opened {
        open(directory, key, &owner(), StoreOptions::default()).unwrap()
    }

    fn fill(directory: &Path, values: &[&str]) {
        let mut opened = open_at(directory, &key(1));
        let records = (1..).zip(values).map(|(counter, value)| pending(counter, value)).collect();
        opened.store.commit(&put(records)).unwrap();
    }

    #[test]
    fn a_zeroed_index_is_rebuilt_and_nothing_is_lost() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("replica");
        fill(&directory, &["a", "b"]);
        // Opening writes the index; the kill that leaves it empty comes then.
        drop(open_at(&directory, &key(1)));
        let mut zeroed = 0;
        for file in fs::read_dir(&directory).unwrap().flatten() {
            if file.file_name().to_string_lossy().starts_with("snap.") {
                fs::write(file.path(), vec![0; file.metadata().unwrap().len() as usize]).unwrap();
                zeroed += 1;
            }
        }
        assert!(zeroed > 0);
        let opened = open_at(&directory, &key(1));
        assert_eq!(opened.recovery, Some(Recovery::IndexRebuilt));
        assert_eq!(opened.records.len(), 2);
    }

    #[test]
    fn settings_that_a_power_cut_left_empty_or_damaged_are_made_anew() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("replica");
        fill(&directory, &["a", "b"]);
        let settings = directory.join(SETTINGS);
        let whole = fs::read(&settings).unwrap();
        for damaged in [vec![], vec![0; whole.len()], whole[..whole.len() / 2].to_vec()] {
            fs::write(&settings, damaged).unwrap();
            assert_eq!(open_at(&directory, &key(1)).records.len(), 2);
            assert_eq!(fs::read(&settings).unwrap(), whole);
        }
    }

    #[test]
    fn another_key_sets_the_replica_aside_and_counts_its_pending_writes() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("replica");
        fill(&directory, &["a", "b", "c"]);
        let opened = open_at(&directory, &key(2));
        assert!(opened.records.is_empty());
        let Some(Recovery::SetAside(set_aside)) = opened.recovery else { panic!("set aside") };
        assert_eq!((set_aside.pending_found, set_aside.pending_readable), (3, 0));
        drop(opened.store);
        let kept = open_at(&set_aside.to, &key(1));
        assert_eq!(kept.records.len(), 3);
    }

    #[test]
    fn a_replica_of_which_no_byte_is_left_is_not_taken_for_a_new_one() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("replica");
        fill(&directory, &["a"]);
        drop(open_at(&directory, &key(1)));
        for file in fs::read_dir(&directory).unwrap().flatten() {
            if file.file_type().unwrap().is_file() {
                fs::write(file.path(), vec![0xA5; file.metadata().unwrap().len() as usize]).unwrap();
            }
        }
        let opened = open_at(&directory, &key(1));
        assert!(matches!(opened.recovery, Some(Recovery::SetAside(_))), "{:?}", opened.recovery);
    }

    #[test]
    fn a_log_of_garbage_is_set_aside_and_the_edge_begins_anew() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("replica");
        fill(&directory, &["a"]);
        let log = directory.join("db");
        let length = fs::metadata(&log).unwrap().len() as usize;
        let garbage: Vec<u8> =
            (0..length).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        fs::write(&log, garbage).unwrap();
        let mut opened = open_at(&directory, &key(1));
        opened.store.commit(&put(vec![Record::State(StateRecord::default())])).unwrap();
        drop(opened);
        let again = open_at(&directory, &key(1));
        assert_eq!((again.records.len(), again.recovery), (1, None));
    }

    #[test]
    fn nothing_readable_lies_on_the_disk_and_large_values_stay_in_the_log() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("replica");
        let large = "visible-value-".repeat(70_000);
        fill(&directory, &[&large, &large[..200_000], "visible-value-small"]);
        let mut opened = open_at(&directory, &key(1));
        assert_eq!(opened.records.len(), 3);
        // A large record that becomes a small one leaves no parts behind.
        opened.store.commit(&put(vec![pending(1, "small")])).unwrap();
        drop(opened);
        assert!(open_at(&directory, &key(1)).records.contains(&pending(1, "small")));
        for file in fs::read_dir(&directory).unwrap().flatten() {
            if file.file_type().unwrap().is_dir() {
                assert_eq!(fs::read_dir(file.path()).unwrap().count(), 0, "no files for large values");
                continue;
            }
            let bytes = fs::read(file.path()).unwrap();
            assert!(!bytes.windows(8).any(|window| window == b"visible-"), "{:?}", file.path());
        }
    }

    #[test]
    fn a_damaged_row_is_left_out_and_told_until_it_is_written_anew() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("replica");
        fill(&directory, &["a"]);
        let mut opened = open_at(&directory, &key(1));
        opened.store.commit(&put(vec![row("whole"), row("damaged")])).unwrap();
        opened.store.damage(&row("damaged").slot());
        drop(opened);
        for _ in 0..2 {
            let opened = open_at(&directory, &key(1));
            assert_eq!(opened.recovery, Some(Recovery::RowsDamaged(1)));
            assert_eq!(opened.records.len(), 2);
            assert!(opened.records.contains(&row("whole")) && opened.records.contains(&pending(1, "a")));
        }
        open_at(&directory, &key(1)).store.commit(&put(vec![row("damaged")])).unwrap();
        let healed = open_at(&directory, &key(1));
        assert_eq!((healed.recovery, healed.records.len()), (None, 3));
    }

    #[test]
    fn a_log_that_lost_its_end_is_not_served_as_if_it_had_not() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("replica");
        let log = directory.join("db");
        fill(&directory, &["a"]);
        let before = fs::read(&log).unwrap();
        let mut opened = open_at(&directory, &key(1));
        opened.store.commit(&put(vec![pending(2, "b")])).unwrap();
        drop(opened);
        assert_eq!(open_at(&directory, &key(1)).records.len(), 2);
        remove_what_is_made_anew(&directory);
        fs::write(&log, before).unwrap();
        let opened = open_at(&directory, &key(1));
        let Some(Recovery::SetAside(set_aside)) = opened.recovery else { panic!("set aside") };
        assert!(set_aside.reason.contains("ends before"), "{}", set_aside.reason);
        assert_eq!((opened.records.len(), set_aside.pending_found, set_aside.pending_readable), (0, 1, 1));
    }

    #[test]
    fn what_only_this_edge_has_is_never_left_out() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("replica");
        fill(&directory, &["a", "b"]);
        let opened = open_at(&directory, &key(1));
        opened.store.damage(&pending(1, "a").slot());
        drop(opened);
        let Some(Recovery::SetAside(set_aside)) = open_at(&directory, &key(1)).recovery else {
            panic!("set aside")
        };
        assert_eq!((set_aside.pending_found, set_aside.pending_readable), (2, 1));
    }

    #[test]
    fn a_replica_in_use_is_not_opened_twice() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("replica");
        let held = open_at(&directory, &key(1));
        let second = open(&directory, &key(1), &owner(), StoreOptions::default());
        assert!(matches!(second, Err(OpenError::Locked(_))));
        drop(held);
        assert_eq!(open_at(&directory, &key(1)).recovery, None);
    }

    #[test]
    fn a_crash_while_files_are_rewritten_leaves_one_whole_replica() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("replica");
        fill(&directory, &["a", "b"]);
        let records = open_at(&directory, &key(1)).records;
        compact::rewrite(&directory, RecordCipher::new(&key(1), &owner()), &records, 1 << 20).unwrap();
        assert_eq!(open_at(&directory, &key(1)).records.len(), 2);
        // The old one has lost its name, the new one has not got it yet.
        fs::rename(&directory, parent.path().join("replica.old")).unwrap();
        fs::create_dir(parent.path().join("replica.new")).unwrap();
        assert_eq!(open_at(&directory, &key(1)).records.len(), 2);
        assert!(!parent.path().join("replica.new").exists());
    }
}
