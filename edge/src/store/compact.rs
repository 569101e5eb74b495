//! Giving space back: sled's files grow to several times their records and never shrink by themselves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use llm_config_shared::limits::BATCH_CHANGES_MAX;
use llm_config_shared::store::replica::{Batch, Record, ReplicaStore};

use super::cipher::RecordCipher;
use super::codec;
use super::sled::{SledOpenError, SledStore, sync_directory};

/// Files may take so many times what their records take before they are written anew. sled settles at about five.
const GROWTH_MAX: u64 = 8;
/// What one record takes beside its own bytes: place, nonce, tag, sled's own.
const RECORD_OVERHEAD_BYTES: u64 = 128;

/// Whether the files have grown far beyond what they hold. Files of fewer than `bytes_min` are left alone.
pub(crate) fn is_due(store: &SledStore, records: &[Record], bytes_min: u64) -> bool {
    let Ok(disk) = store.size_on_disk() else { return false };
    if disk < bytes_min {
        return false;
    }
    let live: u64 =
        records.iter().map(|record| codec::encode(record).len() as u64 + RECORD_OVERHEAD_BYTES).sum();
    disk > GROWTH_MAX * live
}

/// Writes the records into a new directory and puts it in the old one's place. A crash at any point leaves one whole
/// replica, which [`finish_interrupted`] puts back.
pub(crate) fn rewrite(
    directory: &Path,
    cipher: RecordCipher,
    records: &[Record],
    cache_bytes: u64,
) -> Result<(), SledOpenError> {
    let (new, old) = (beside(directory, "new"), beside(directory, "old"));
    let io = |error: io::Error| SledOpenError::Store(super::sled::io_error(error));
    remove_if_there(&new).map_err(io)?;
    fs::create_dir_all(&new).map_err(io)?;
    let mut store = SledStore::open(&new, cipher, cache_bytes)?;
    for chunk in records.chunks(BATCH_CHANGES_MAX) {
        store.commit(&Batch { put: chunk.to_vec(), remove: Vec::new() })?;
    }
    drop(store);
    sync_directory(&new).map_err(io)?;
    fs::rename(directory, &old).map_err(io)?;
    fs::rename(&new, directory).map_err(io)?;
    sync_directory(directory).map_err(io)?;
    remove_if_there(&old).map_err(io)
}

/// After a crash in [`rewrite`]: the old replica counts until the new one has its name.
pub(crate) fn finish_interrupted(directory: &Path) -> io::Result<()> {
    let (new, old) = (beside(directory, "new"), beside(directory, "old"));
    if !directory.exists() && old.exists() {
        fs::rename(&old, directory)?;
    }
    remove_if_there(&new)?;
    remove_if_there(&old)
}

fn beside(directory: &Path, what: &str) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(what);
    directory.with_file_name(name)
}

fn remove_if_there(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
