//! The replica on sled: one tree, every batch atomic and durable.
//!
//! What sled 0.34 does that shapes this file, all of it measured: `flush` ends in `sync_file_range`, which survives the
//! process and not the machine, so the log file is fdatasynced as well; its settings it never syncs; a page holds up to sixteen records and is moved
//! to a file of its own above a quarter of a segment, so larger records are cut into parts that keep pages below that;
//! its default cache is a gigabyte; an error may leave a flush waiting, which another wakes (`waker`); after one every later write fails, so a store that failed has to be opened
//! again; and it panics where it finds what it never wrote.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ::sled::{Db, Tree};
use llm_config_shared::store::replica::{Batch, Record, ReplicaStore, StoreError};

use super::cipher::{PLACE_BYTES, Place, RecordCipher, space};
use super::codec;
use super::mark::Mark;
use super::waker::Waker;

/// Plain bytes of one part. Sixteen and some of them stay below the 128 KiB above which sled writes a page to a file of
/// its own.
const PART_BYTES: usize = 6 << 10;
/// Parts are numbered in two bytes.
const PARTS_MAX: usize = u16::MAX as usize;
/// sled releases its lock late, by its own threads.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(20);
const TREE: &str = "replica";
/// sled's own; the same for every replica, and written where it is missing.
pub(crate) const SETTINGS: &str = "conf";

/// The edge's replica in a directory of its own.
pub struct SledStore {
    waker: Waker,
    tree: Tree,
    log: File,
    cipher: RecordCipher,
    db: Db,
    mark: Mark,
    /// Of the newest batch.
    number: u64,
    failed: Option<StoreError>,
    /// Of the last load.
    damaged: u64,
}

/// Why a replica's files could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SledOpenError {
    #[error("another process has the replica open")]
    Locked,
    #[error("the replica was sealed with another key, or for another edge")]
    WrongKey,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SledStore {
    /// Opens the replica in `directory`, or begins an empty one there.
    pub(crate) fn open(
        directory: &Path,
        cipher: RecordCipher,
        cache_bytes: u64,
    ) -> Result<Self, SledOpenError> {
        let mut store = Self::open_unclaimed(directory, cipher, cache_bytes)?;
        store.claim(directory)?;
        Ok(store)
    }

    /// Opens whatever is there, also what was sealed with another key.
    pub(crate) fn open_unclaimed(
        directory: &Path,
        cipher: RecordCipher,
        cache_bytes: u64,
    ) -> Result<Self, SledOpenError> {
        let db = guarded(|| open_retrying(directory, cache_bytes))??;
        let tree = guarded(|| db.open_tree(TREE).map_err(store_error))??;
        let log = File::open(directory.join("db")).map_err(io_error)?;
        File::open(directory.join(SETTINGS)).and_then(|settings| settings.sync_all()).map_err(io_error)?;
        let mark = Mark::open(directory).map_err(io_error)?;
        let waker = Waker::of(db.clone()).map_err(io_error)?;
        Ok(Self { waker, tree, log, cipher, db, mark, number: 0, failed: None, damaged: 0 })
    }

    /// The first record says whose replica it is, and how many batches it has seen. That it opens shows that the key is
    /// right.
    fn claim(&mut self, directory: &Path) -> Result<(), SledOpenError> {
        let place = self.cipher.owner_place();
        let statement = guarded(|| self.tree.get(place).map_err(store_error))??;
        let reached = self.mark.read().map_err(io_error)?;
        let lost = || StoreError::Corrupt("its log ends before what was committed".to_owned());
        if let Some(sealed) = statement {
            let said = self.cipher.open(&place, b"", &sealed).map_err(|_| SledOpenError::WrongKey)?;
            // A replica of before numbers says nothing.
            self.number = said.as_slice().try_into().map_or(0, u64::from_be_bytes);
            return if self.number < reached { Err(lost().into()) } else { Ok(()) };
        }
        // An empty log is believed only where nothing was ever durable.
        if self.mark.is_written().map_err(io_error)? {
            return Err(lost().into());
        }
        if !self.tree.is_empty() {
            return Err(SledOpenError::WrongKey);
        }
        self.apply_next(::sled::Batch::default())?;
        sync_directory(directory).map_err(io_error)?;
        Ok(())
    }

    /// Bytes that the files take.
    ///
    /// # Errors
    /// When the files cannot be asked.
    pub fn size_on_disk(&self) -> Result<u64, StoreError> {
        self.db.size_on_disk().map_err(store_error)
    }

    /// Rows that could not be read when everything was loaded. They stay where they are until the entry is written anew.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Records of one kind: how many there are, and how many of them can be read.
    pub(crate) fn count(&self, space: u8) -> (u64, u64) {
        let counted = catch_unwind(AssertUnwindSafe(|| {
            let (mut found, mut readable) = (0, 0);
            for item in self.tree.scan_prefix([space]) {
                let Ok((key, sealed)) = item else { break };
                if let Ok(place) = Place::try_from(key.as_ref()) {
                    found += 1;
                    readable += u64::from(self.read(&place, &sealed).is_ok());
                }
            }
            (found, readable)
        }));
        counted.unwrap_or((0, 0))
    }

    fn apply(&self, batch: ::sled::Batch) -> Result<(), StoreError> {
        let _watched = self.waker.watch();
        guarded(|| {
            self.tree.apply_batch(batch).map_err(store_error)?;
            self.tree.flush().map_err(store_error)?;
            self.log.sync_data().map_err(io_error)
        })?
    }

    /// The same under the next number, which is told to the mark when it is durable.
    fn apply_next(&mut self, mut batch: ::sled::Batch) -> Result<(), StoreError> {
        let (place, number) = (self.cipher.owner_place(), self.number + 1);
        let sealed = self.cipher.seal(&place, b"", &number.to_be_bytes());
        batch.insert(&place, sealed.map_err(|error| StoreError::Io(error.to_string()))?);
        self.apply(batch)?;
        self.number = number;
        self.mark.write(number).map_err(io_error)
    }

    /// Adds the record's parts to the batch, and the removal of those that a longer one left.
    fn stage(&self, place: &Place, record: &Record, batch: &mut ::sled::Batch) -> Result<(), StoreError> {
        let plain = codec::encode(record);
        let parts = plain.len().div_ceil(PART_BYTES).max(1);
        assert!(parts <= PARTS_MAX, "a record of {} bytes is far beyond every limit", plain.len());
        let seal = |key: &[u8], follows: &[u8], bytes: &[u8]| {
            self.cipher.seal(key, follows, bytes).map_err(|error| StoreError::Io(error.to_string()))
        };
        let mut pieces = plain.chunks(PART_BYTES);
        let mut first = (parts as u16).to_be_bytes().to_vec();
        first.extend_from_slice(pieces.next().unwrap_or_default());
        let sealed_first = seal(place, b"", &first)?;
        for (number, piece) in (1_u16..).zip(pieces) {
            let key = part_key(place, number);
            let sealed = seal(&key, &sealed_first, piece)?;
            batch.insert(key.as_slice(), sealed);
        }
        batch.insert(place, sealed_first);
        self.remove_parts(place, parts as u16, batch)
    }

    /// Parts are dense, so the first that is missing ends them.
    fn remove_parts(&self, place: &Place, from: u16, batch: &mut ::sled::Batch) -> Result<(), StoreError> {
        for number in from.max(1).. {
            let key = part_key(place, number);
            if !self.tree.contains_key(key).map_err(store_error)? {
                break;
            }
            batch.remove(key.as_slice());
        }
        Ok(())
    }

    /// The record whose first part is `sealed_first`.
    fn read(&self, place: &Place, sealed_first: &[u8]) -> Result<Record, StoreError> {
        let damaged = |what: &str| StoreError::Corrupt(what.to_owned());
        let unopened = |_| damaged("a record cannot be opened");
        let first = self.cipher.open(place, b"", sealed_first).map_err(unopened)?;
        let (parts, start) =
            first.split_first_chunk::<2>().ok_or_else(|| damaged("a record is too short"))?;
        let parts = u16::from_be_bytes(*parts);
        if parts == 1 {
            return codec::decode(place[0], start).map_err(|error| StoreError::Corrupt(error.to_string()));
        }
        let mut plain = zeroize::Zeroizing::new(start.to_vec());
        for number in 1..parts {
            let key = part_key(place, number);
            let sealed = self.tree.get(key).map_err(store_error)?;
            let sealed = sealed.ok_or_else(|| damaged("a part of a record is missing"))?;
            plain.extend_from_slice(&self.cipher.open(&key, sealed_first, &sealed).map_err(unopened)?);
        }
        codec::decode(place[0], &plain).map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    /// Everything that can be read, and how many rows could not: the hub has them. Of everything else nobody has another.
    fn try_load(&self) -> Result<(Vec<Record>, u64), StoreError> {
        let owner = self.cipher.owner_place();
        let (mut records, mut damaged) = (Vec::new(), 0);
        for item in &self.tree {
            let (key, sealed) = item.map_err(store_error)?;
            // Longer keys are parts of a record read already.
            let Ok(place) = Place::try_from(key.as_ref()) else { continue };
            if place == owner {
                continue;
            }
            match self.read(&place, &sealed) {
                Ok(record) => records.push(record),
                Err(StoreError::Corrupt(_)) if place[0] == space::ROW => damaged += 1,
                Err(error) => return Err(error),
            }
        }
        Ok((records, damaged))
    }

    fn try_commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let mut staged = ::sled::Batch::default();
        for slot in &batch.remove {
            let place = self.cipher.place(slot);
            staged.remove(&place);
            self.remove_parts(&place, 1, &mut staged)?;
        }
        // Behind the removals: a slot that is removed and put in one batch is put; put twice, the last one counts.
        let mut done = BTreeSet::new();
        for record in batch.put.iter().rev() {
            let place = self.cipher.place(&record.slot());
            if done.insert(place) {
                self.stage(&place, record, &mut staged)?;
            }
        }
        self.apply_next(staged)
    }
}

#[cfg(test)]
impl SledStore {
    /// As a bad block would: the record is there, and cannot be opened.
    pub(crate) fn damage(&self, slot: &llm_config_shared::store::replica::Slot) {
        let place = self.cipher.place(slot);
        let mut sealed = self.tree.get(place).unwrap().expect("a record to be damaged").to_vec();
        if let Some(last) = sealed.last_mut() {
            *last ^= 1;
        }
        let mut batch = ::sled::Batch::default();
        batch.insert(&place, sealed);
        self.apply(batch).unwrap();
    }
}

impl ReplicaStore for SledStore {
    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        let (records, damaged) = guarded(|| self.try_load())??;
        self.damaged = damaged;
        Ok(records)
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if batch.is_empty() {
            return Ok(());
        }
        let committed = guarded(|| self.try_commit(batch)).and_then(|result| result);
        if let Err(error) = &committed {
            self.failed = Some(error.clone());
        }
        committed
    }
}

fn part_key(place: &Place, number: u16) -> [u8; PLACE_BYTES + 2] {
    let mut key = [0; PLACE_BYTES + 2];
    key[..PLACE_BYTES].copy_from_slice(place);
    key[PLACE_BYTES..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Bytes that sled never wrote make it panic; to the edge that is a damaged replica.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| StoreError::Corrupt("the storage engine stopped at what it found".to_owned()))
}

fn open_retrying(directory: &Path, cache_bytes: u64) -> Result<Db, SledOpenError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let opened = ::sled::Config::new()
            .path(directory)
            .cache_capacity(cache_bytes)
            .use_compression(false)
            .flush_every_ms(None)
            .open();
        match opened {
            Ok(db) => return Ok(db),
            Err(::sled::Error::Io(error)) if is_locked(&error) => {
                if Instant::now() >= deadline {
                    return Err(SledOpenError::Locked);
                }
                sleep(LOCK_PAUSE);
            }
            Err(error) => return Err(store_error(error).into()),
        }
    }
}

/// sled reports its lock as an error of kind `Other`; only the text tells.
fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("WouldBlock")
}

fn store_error(error: ::sled::Error) -> StoreError {
    match error {
        ::sled::Error::Io(error) => io_error(error),
        ::sled::Error::Corruption { at, .. } => StoreError::Corrupt(match at {
            Some(at) => format!("at {at:?}"),
            None => "its index does not match its log".to_owned(),
        }),
        ::sled::Error::ReportableBug(what) => StoreError::Corrupt(what),
        // What sled says of a settings file whose bytes are no longer text, too.
        ::sled::Error::Unsupported(what) => StoreError::Corrupt(what),
        ::sled::Error::CollectionNotFound(_) => StoreError::Corrupt("its tree is missing".to_owned()),
    }
}

pub(crate) fn io_error(error: io::Error) -> StoreError {
    // A name of the error is all that some wrapped ones keep.
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || error.to_string().contains("StorageFull");
    if full { StoreError::Full } else { StoreError::Io(error.to_string()) }
}

/// Makes names in a directory durable: its own, and itself in its parent.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()?;
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}
