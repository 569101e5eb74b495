//! Giving the keys of an edge that has joined to another keeper, while no daemon runs.

use std::path::Path;

use crate::identity::EdgeIdentity;
use crate::join::JoinError;
use crate::keeper::{Keeper, KeyChoice};
use crate::keys::{EdgeKeys, KeyError};
use crate::offline::{LIMIT_KEYS, LIMIT_SECRET, OfflineRestart, destroy};
use crate::serve::unix::DirectoryLock;
use crate::wipe;

/// What became of it.
#[derive(Debug)]
pub struct Rekeyed {
    pub before: Keeper,
    pub now: Keeper,
    /// `offline_restart = tpm` could not stay, and is `never` from now on.
    pub restart_ended: bool,
}

/// Moves the keys. Killed at any moment, the edge opens them at one of both places.
///
/// # Errors
/// When a daemon runs here, no edge has joined, or one of the two keepers does not work.
pub fn rekey(directory: &Path, choice: KeyChoice) -> Result<Rekeyed, JoinError> {
    let _lock = DirectoryLock::take(directory)?;
    EdgeIdentity::load(directory)?;
    if wipe::is_pending(directory) {
        return Err(JoinError::Wiped);
    }
    // Opened first: who keeps them now is not left for one that cannot be had.
    let before = EdgeKeys::load(directory)?.keeper;
    let now = choice.keeper(directory, Some(&before)).map_err(KeyError::from)?;
    let restart_ended = OfflineRestart::load(directory)? == OfflineRestart::Tpm && now != Keeper::Tpm;
    if restart_ended {
        // First: what only the TPM opened must not outlive it, wherever this is cut off.
        OfflineRestart::Never.store(directory)?;
        for path in [LIMIT_KEYS, LIMIT_SECRET].map(|name| directory.join(name)) {
            destroy(&path).map_err(|source| KeyError::Io { path, source })?;
        }
    }
    EdgeKeys::rekey(directory, &now)?;
    Ok(Rekeyed { before, now, restart_ended })
}
