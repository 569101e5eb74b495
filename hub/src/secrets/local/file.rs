//! The keyring's file: private, and whole or not there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use llm_config_keychain::KeychainError;
use llm_config_shared::seal::CannotOpen;
use zeroize::Zeroizing;

use super::{LocalKeyring, Sealing, random, text};

/// A keyring is some lines; anything longer is another file.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Why the keyring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("the keyring {path} cannot be used: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("the keyring {path} can be read by others (mode {mode:o}): chmod 600 {path}")]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("{path} is not a keyring of this program: line {line}")]
    Malformed { path: PathBuf, line: usize },
    #[error(
        "a stored key was wrapped with a key that this keyring does not have; is it this database's keyring?"
    )]
    UnknownKey,
    #[error("a stored key cannot be unwrapped")]
    CannotOpen(#[from] CannotOpen),
    #[error("there is another keyring at {path}; move it away first")]
    Another { path: PathBuf },
    #[error(
        "the keyring {path} is sealed by a passphrase: name its file in secrets.local.passphrase_file, or set \
         LLM_CONFIG_HUB_SECRETS__LOCAL__PASSPHRASE"
    )]
    NeedsPassphrase { path: PathBuf },
    #[error("the passphrase does not open the keyring {path}")]
    WrongPassphrase { path: PathBuf },
    #[error(
        "the keyring {path} does not open with its key in the keychain: was it changed, or is it another's?"
    )]
    OtherItem { path: PathBuf },
    #[error(transparent)]
    Keychain(#[from] KeychainError),
    #[error("another process is changing the keyring {path}; run this again when it is done")]
    Busy { path: PathBuf },
    #[error("the system has no randomness")]
    NoRandomness,
}

/// Which file it was: a file that replaces another has another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Identity {
    pub(super) fn of(path: &Path) -> Result<Self, KeyringError> {
        fs::metadata(path).map(|about| Self::from(&about)).map_err(failed(path))
    }
}

impl From<&fs::Metadata> for Identity {
    fn from(about: &fs::Metadata) -> Self {
        Self { inode: about.ino(), length: about.len(), changed: (about.mtime(), about.mtime_nsec()) }
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> KeyringError + '_ {
    |source| KeyringError::File { path: path.to_owned(), source }
}

pub(super) fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

pub(super) fn read(path: &Path) -> Result<(Zeroizing<String>, Identity), KeyringError> {
    let mut file = File::open(path).map_err(failed(path))?;
    let about = file.metadata().map_err(failed(path))?;
    let mode = about.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyringError::TooOpen { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::with_capacity(4_096));
    (&mut file).take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed(path))?;
    Ok((text, Identity::from(&about)))
}

/// Written under another name, synced, and then given its own only if nobody has it: a crash leaves no half a keyring.
/// False when somebody has it.
pub(super) fn put_whole(path: &Path, text: &str) -> Result<bool, KeyringError> {
    let draft = draft(path)?;
    let linked = write_once(&draft, text.as_bytes()).and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
        Ok(()) => Ok(true),
    });
    let removed = fs::remove_file(&draft);
    let synced = sync_folder(path);
    let done = linked.and_then(|put| removed.and(synced).map(|()| put));
    done.map_err(failed(path))
}

/// The same in the place of one that is there.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), KeyringError> {
    let draft = draft(path)?;
    let replaced = write_once(&draft, text.as_bytes()).and_then(|()| fs::rename(&draft, path));
    if replaced.is_err() {
        let _ = fs::remove_file(&draft);
    }
    replaced.and_then(|()| sync_folder(path)).map_err(failed(path))
}

/// Held while the file is changed. It is a file of its own, for the keyring's own is replaced.
pub(super) fn lock(path: &Path) -> Result<File, KeyringError> {
    let beside = path.with_extension("lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&beside);
    let lock = lock.map_err(failed(&beside))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(KeyringError::Busy { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(&beside)(error)),
    }
}

fn draft(path: &Path) -> Result<PathBuf, KeyringError> {
    let unique = u64::from_be_bytes(random()?);
    Ok(path.with_extension(format!("{unique:016x}.new")))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all())
}

fn write_once(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A keyring that comes back from a backup: it goes again unless what needs it has come back too.
pub struct NewKeyring {
    /// None when the same keyring was there before.
    written: Option<PathBuf>,
}

impl NewKeyring {
    /// Writes a keyring's text where there is none, or the same.
    ///
    /// # Errors
    /// When another keyring is there, or the text is none.
    pub fn write(path: &Path, text: &str) -> Result<Self, KeyringError> {
        text::parse(path, text, &Sealing::default(), None)?;
        if put_whole(path, text)? {
            return Ok(Self { written: Some(path.to_owned()) });
        }
        if LocalKeyring::open(path)?.to_text()?.as_str() == text {
            return Ok(Self { written: None });
        }
        Err(KeyringError::Another { path: path.to_owned() })
    }

    /// It stays.
    pub fn keep(mut self) {
        self.written = None;
    }
}

impl Drop for NewKeyring {
    fn drop(&mut self) {
        if let Some(path) = &self.written {
            let _ = fs::remove_file(path);
        }
    }
}
