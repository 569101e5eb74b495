//! Backup and restore of everything that a hub keeps: its database and its key-encryption key, in one sealed file.
//!
//! The file does not depend on the database: what was read from SQLite goes into PostgreSQL, and back. A hub may go on
//! writing while its backup is made; the backup is the state of one moment.

use std::io;
use std::path::{Path, PathBuf};

use llm_config_shared::store::{Journal as _, JournalError};
use llm_config_shared::time::UnixMillis;
use uuid::Uuid;

use crate::clock;
use crate::config::Secrets;
use crate::journal::Database;
use crate::journal::dialect::Dialect;
use crate::journal::whole::{Dumped, FilledAs};
use crate::registry::{MadeBackup, Purges as _, Registry as _};
use crate::secrets::{
    KeyProvider as _, KeyringError, NewKeyring, Providers, SecretError, existing_providers,
};

mod carried;
mod file;
mod record;
mod recovery_key;
mod sealed;

use carried::Carried;
use file::{BackupReader, BackupWriter};
use record::Origin;
pub use recovery_key::{NoRecoveryKey, RecoveryKey, RecoveryPublicKey, WrongKey};

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Database(#[from] JournalError),
    #[error(transparent)]
    Secrets(#[from] SecretError),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("{0} is no name of a file")]
    NoFile(PathBuf),
    #[error("{0} is no backup of this program")]
    NoBackup(PathBuf),
    #[error("the backup {path} cannot be used: {what}")]
    Damaged { path: PathBuf, what: String },
    #[error(transparent)]
    WrongKey(#[from] WrongKey),
    #[error("there is something in the database already; a backup is restored into an empty one")]
    InUse,
    #[error("another backup has just made this hub's recovery key: that one counts; run this again")]
    Twice,
    #[error("the stored recovery key cannot be read; make a new one with --new-recovery-key")]
    NoPublicKey,
    #[error("the recovery key could not be shown, so nothing was done: {0}")]
    NotShown(io::Error),
    #[error("a key was wrapped anew while the backup was made; run it again")]
    KeysChanged,
    #[error("the system has no randomness")]
    NoRandomness,
}

/// How much is in a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub tables: u64,
    pub rows: u64,
}

impl Counts {
    fn count(&mut self, dumped: &Dumped) {
        match dumped {
            Dumped::Table(_) => self.tables += 1,
            Dumped::Row(_) => self.rows += 1,
        }
    }
}

/// What a backup says about itself, once all of it was found right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub program: String,
    pub made_at: UnixMillis,
    pub counts: Counts,
}

/// Writes a backup of the database and of a keyring that opens its keys. A hub that has no recovery key yet, or is to have a new one, makes it
/// first; `show` has to bring it before somebody's eyes, once.
///
/// # Errors
/// When anything fails: a file of that name is then what it was.
pub async fn back_up<D: Dialect>(
    database: &Database<D>,
    secrets: &Secrets,
    file: &Path,
    new_recovery_key: bool,
    show: impl FnOnce(&str) -> io::Result<()>,
) -> Result<Counts, BackupError> {
    let providers = existing_providers(database, secrets).await?;
    let key = recovery_key_of(database, &providers, new_recovery_key, show).await?;
    let snapshot = database.snapshot().await?;
    // After the snapshot: keys are never removed, so all of its keys are among them.
    let mut carried = Carried::of(database, &providers).await?;
    // Asked after the moment of the backup: whatever is in it is within this.
    let seq = database.head().await?.position.seq;
    let mut writer = BackupWriter::create(file, &key)?;
    let made_at = clock::now();
    writer.begin(Origin {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        made_at,
        step: snapshot.step(),
        keyring: carried.keyring(),
    })?;
    snapshot.read(|dumped| writer.put(carried.pass(dumped)?)).await?;
    let counts = writer.finish()?;
    // Whoever removes a value later is told that this backup holds it.
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let file = path.to_string_lossy().into();
    database.record_backup(&MadeBackup { id: Uuid::now_v7(), made_at, seq, file }).await?;
    Ok(counts)
}

/// The names under which the database keeps public halves; the last of them counts.
fn name_of_public_key(number: u32) -> String {
    format!("recovery/{number}")
}

async fn recovery_key_of<D: Dialect>(
    database: &Database<D>,
    providers: &Providers,
    new: bool,
    show: impl FnOnce(&str) -> io::Result<()>,
) -> Result<RecoveryPublicKey, BackupError> {
    let mut known = None;
    let mut number = 1;
    while let Some(wrapped) = database.wrapped_key(&name_of_public_key(number)).await? {
        known = Some((name_of_public_key(number), wrapped));
        number += 1;
    }
    if let Some((name, wrapped)) = known.filter(|_| !new) {
        let public = providers.unwrap_key(&name, &wrapped).await.map_err(SecretError::from)?;
        return RecoveryPublicKey::from_slice(&public).ok_or(BackupError::NoPublicKey);
    }
    let (key, public) = RecoveryKey::generate().map_err(|_| BackupError::NoRandomness)?;
    // Before it is stored: a key that nobody has seen must never count.
    show(&key.to_text()).map_err(BackupError::NotShown)?;
    let name = name_of_public_key(number);
    let wrapped = providers.wrap_key(&name, public.as_bytes()).await.map_err(SecretError::from)?;
    let stored = database.put_wrapped_key(&name, &wrapped).await?;
    if stored == wrapped { Ok(public) } else { Err(BackupError::Twice) }
}

/// Reads a backup from its front to its end and does nothing with it.
///
/// # Errors
/// When the key is another's, or anything in the file is not as it was written.
pub fn check(file: &Path, key: &RecoveryKey) -> Result<Summary, BackupError> {
    let (mut reader, origin) = BackupReader::open(file, key)?;
    while reader.next()?.is_some() {}
    Ok(Summary { program: origin.program, made_at: origin.made_at, counts: reader.counts() })
}

/// Puts a backup into an empty database, and its keyring where there is none. What that database is to be goes in with the
/// rows; a start finishes what is left when this is cut off behind them.
///
/// # Errors
/// When the database or the keyring's place is taken, or anything is wrong with the file: nothing was restored then.
pub async fn restore<D: Dialect>(
    database: &Database<D>,
    keyring: &Path,
    file: &Path,
    key: &RecoveryKey,
    filled_as: FilledAs,
) -> Result<Summary, BackupError> {
    if !database.is_unused().await? {
        return Err(BackupError::InUse);
    }
    let (mut reader, origin) = BackupReader::open(file, key)?;
    let mut filling = database.begin_filling(origin.step).await?;
    while let Some(dumped) = reader.next()? {
        filling.take(dumped).await?;
    }
    let filled = filling.finish(clock::now(), filled_as).await?;
    // The keyring first: a database without it would be of no use, and could not be restored again.
    let keyring = NewKeyring::write(keyring, &origin.keyring)?;
    filled.commit().await?;
    keyring.keep();
    database.migrate().await?;
    Ok(Summary { program: origin.program, made_at: origin.made_at, counts: reader.counts() })
}
