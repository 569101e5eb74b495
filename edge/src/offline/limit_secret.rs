//! What the limit keys lie under where `offline_restart = tpm`: a secret of this edge that only its TPM unwraps.
//!
//! The replica's key would do no harm there, being in the TPM as well. But it may have been elsewhere: in a file before a
//! change of keeper, and so in an old copy of the disk. This secret never was.

use std::io;
use std::path::Path;

use llm_config_shared::seal::SealKey;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::{OfflineRestart, destroy};
use crate::keeper::{Keeper, KeeperError, Purpose};
use crate::keys::{KeyError, read_private, write_private};

/// The file's name in the edge's directory.
pub const LIMIT_SECRET: &str = "limit-secret";

/// None where it is not wanted; then there is none on the disk either. One that does not open any more is replaced: what lay
/// under it waits for the hub.
///
/// # Errors
/// When the TPM does not work, or the disk.
pub fn limit_secret(
    directory: &Path,
    restart: OfflineRestart,
    keeper: &Keeper,
) -> Result<Option<SealKey>, KeyError> {
    let path = directory.join(LIMIT_SECRET);
    if restart != OfflineRestart::Tpm {
        return destroy(&path).map(|()| None).map_err(|source| KeyError::Io { path, source });
    }
    match unwrapped(&path, keeper) {
        Ok(secret) => return Ok(Some(secret)),
        Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        Err(error @ (KeyError::Keeper(KeeperError::Refused { .. }) | KeyError::Damaged { .. })) => {
            tracing::warn!(%error, "secrets wait for the hub");
        }
        Err(error) => return Err(error),
    }
    let mut fresh = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(fresh.as_mut()).map_err(|_| KeyError::NoRandomness)?;
    write_private(&path, &keeper.wrap_for_sure(Purpose::LimitSecret, fresh.as_slice())?)?;
    Ok(Some(SealKey::new(*fresh)))
}

fn unwrapped(path: &Path, keeper: &Keeper) -> Result<SealKey, KeyError> {
    let blob = read_private(path)?;
    let secret = keeper.unwrap(Purpose::LimitSecret, &blob)?;
    let what = "not the limit secret";
    SealKey::from_slice(&secret).map_err(|_| KeyError::Damaged { path: path.to_owned(), what })
}
