//! The key-encryption key in a file of this machine: readable by its owner alone, written whole or not at all.
//!
//! The file is text: a line that names its form, then one line per key, the current one last. What is wrapped names its
//! key, so that a new key can be added without touching what older ones wrap. With a passphrase, or a key in the system's
//! keychain, the keys in it are sealed.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use llm_config_shared::seal::{CannotOpen, NONCE_BYTES, SealKey, open, seal};
use ring::rand::SecureRandom as _;
use zeroize::Zeroizing;

use super::provider::{KeyProvider, KeyVersion, LOCAL_FORM, ProviderError, ProviderKind};

mod file;
mod lock;
mod passphrase;
mod text;

pub use file::{KeyringError, NewKeyring};
use lock::Lock;
pub use lock::Sealing;
pub use passphrase::Passphrase;

const ID_BYTES: usize = 8;
type Keys = Vec<([u8; ID_BYTES], SealKey)>;

/// The key-encryption key, and those before it.
pub struct LocalKeyring {
    path: PathBuf,
    sealing: Sealing,
    read: RwLock<Read>,
}

/// What was read from the file, and which file that was.
struct Read {
    keys: Keys,
    /// None where the keys lie in it as they are.
    lock: Option<Lock>,
    file: file::Identity,
}

impl LocalKeyring {
    /// Reads a keyring that is not sealed.
    ///
    /// # Errors
    /// As [`open_locked`](Self::open_locked).
    pub fn open(path: &Path) -> Result<Self, KeyringError> {
        Self::open_locked(path, Sealing::default())
    }

    /// Reads the keyring. One whose keys are not sealed as wanted yet is taken too: its next rotation does that.
    ///
    /// # Errors
    /// When it is missing, malformed, readable by others, or sealed by what cannot be had.
    pub fn open_locked(path: &Path, sealing: Sealing) -> Result<Self, KeyringError> {
        let read = read(path, &sealing, None)?;
        if !sealing.is_met_by(read.lock.as_ref()) {
            tracing::warn!(
                keyring = %path.display(),
                "the keyring is not sealed as the settings say yet: `llm-config-hub keys rotate` and `keys rewrap` do it"
            );
        }
        let keyring = Self { path: path.to_owned(), sealing, read: RwLock::new(read) };
        keyring.settle_if_needed();
        Ok(keyring)
    }

    /// Reads the keyring, and creates it with a random key where there is none. For a database whose keys were wrapped
    /// before, use [`open`](Self::open): a new key would open none of them.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when it cannot be written.
    pub fn open_or_create(path: &Path) -> Result<Self, KeyringError> {
        Self::open_or_create_locked(path, Sealing::default())
    }

    /// The same, sealed.
    ///
    /// # Errors
    /// As [`open_locked`](Self::open_locked), and when it cannot be written.
    pub fn open_or_create_locked(path: &Path, sealing: Sealing) -> Result<Self, KeyringError> {
        if file::is_missing(path) {
            let key = fresh_key()?;
            // What a keychain has is listed beside the file, by one process at a time.
            let alone = sealing.keychain.is_some().then(|| file::lock(path)).transpose()?;
            let lock = sealing.fresh(path)?;
            // Of two processes that start at once one's file stays.
            file::put_whole(path, &text::write(&vec![(id_of(&key), key)], lock.as_ref())?)?;
            drop(alone);
        }
        Self::open_locked(path, sealing)
    }

    /// A keyring of a random key that is in no file; its text can be kept.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn in_memory() -> Result<Self, KeyringError> {
        let key = fresh_key()?;
        let read = Read { keys: vec![(id_of(&key), key)], lock: None, file: file::Identity::default() };
        Ok(Self { path: PathBuf::new(), sealing: Sealing::default(), read: RwLock::new(read) })
    }

    /// The text of a keyring that is not sealed, to be kept elsewhere.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn to_text(&self) -> Result<Zeroizing<String>, KeyringError> {
        text::write(&self.read().keys, None)
    }

    /// Wraps a small key under the current key-encryption key, bound to its name.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn wrap(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, KeyringError> {
        let read = self.read();
        // A keyring was never parsed without a key.
        let (id, key) = read.keys.last().ok_or(KeyringError::UnknownKey)?;
        let nonce: [u8; NONCE_BYTES] = random()?;
        let mut wrapped = vec![LOCAL_FORM];
        wrapped.extend_from_slice(id);
        wrapped.extend_from_slice(&seal(key, nonce, &context(name), plain));
        Ok(wrapped)
    }

    /// The inverse of [`wrap`](Self::wrap). A key that was added to the file since it was read is found.
    ///
    /// # Errors
    /// When it was wrapped by a key that is not here, under another name, or was changed.
    pub fn unwrap(&self, name: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
        let (id, sealed) = parts(wrapped).ok_or(CannotOpen)?;
        let key = match self.key(id) {
            Some(key) => key,
            None => self.read_again().and_then(|()| self.key(id).ok_or(KeyringError::UnknownKey))?,
        };
        Ok(open(&key, &context(name), sealed)?)
    }

    /// Whether the settings want it in the keychain, where it is not yet, or out of it again.
    pub fn is_to_move(&self) -> bool {
        let read = self.read();
        let in_keychain = read.lock.as_ref().is_some_and(|lock| lock.item().is_some());
        in_keychain != self.sealing.keychain.is_some()
    }

    /// What the keys in the file are sealed by, in words.
    pub fn sealed_by(&self) -> &'static str {
        self.read().lock.as_ref().map_or("not sealed", Lock::told)
    }

    /// Adds a key, which wraps from now on.
    ///
    /// # Errors
    /// When the file cannot be replaced, or somebody else changes it now.
    pub fn add_key(&self) -> Result<(), KeyringError> {
        self.change(|keys| {
            let key = fresh_key()?;
            keys.push((id_of(&key), key));
            Ok(())
        })
    }

    /// Takes out every key but the current one and those that `used` names. How many went.
    ///
    /// # Errors
    /// As [`add_key`](Self::add_key).
    pub fn forget_unused(&self, used: &[KeyVersion]) -> Result<usize, KeyringError> {
        let mut forgotten = 0;
        self.change(|keys| {
            let current = keys.last().map(|(id, _)| *id);
            let before = keys.len();
            keys.retain(|(id, _)| Some(*id) == current || used.contains(&version(*id)));
            forgotten = before - keys.len();
            Ok(())
        })?;
        Ok(forgotten)
    }

    /// Which key wrapped something, when a keyring did.
    pub(super) fn wrapped_by(wrapped: &[u8]) -> Option<KeyVersion> {
        parts(wrapped).map(|(id, _)| version(id))
    }

    /// On what lies in the file now, not on what was read some time ago: another process may have added to it.
    fn change(&self, edit: impl FnOnce(&mut Keys) -> Result<(), KeyringError>) -> Result<(), KeyringError> {
        let _alone = file::lock(&self.path)?;
        let Read { mut keys, lock, .. } = self.read_file()?;
        edit(&mut keys)?;
        let lock =
            if self.sealing.is_met_by(lock.as_ref()) { lock } else { self.sealing.fresh(&self.path)? };
        file::replace(&self.path, &text::write(&keys, lock.as_ref())?)?;
        let file = file::Identity::of(&self.path)?;
        *self.read.write().unwrap_or_else(PoisonError::into_inner) = Read { keys, lock, file };
        self.settle();
        Ok(())
    }

    /// Deletes what the keychain has for this keyring and nothing needs, now or when it is opened the next time. Nobody else
    /// changes the keyring meanwhile.
    fn settle(&self) {
        let item = self.read().lock.as_ref().and_then(Lock::item).cloned();
        if let Err(error) = self.sealing.items(&self.path).settle(item.as_ref()) {
            tracing::warn!(%error, "what opened the keyring before cannot be deleted from the keychain yet");
        }
    }

    /// After a process that was killed while it changed the keyring.
    fn settle_if_needed(&self) {
        let item = self.read().lock.as_ref().and_then(Lock::item).cloned();
        if self.sealing.items(&self.path).is_settled(item.as_ref()) {
            return;
        }
        // Whoever changes it now settles it, too.
        if let Ok(_alone) = file::lock(&self.path)
            && self.read_again().is_ok()
        {
            self.settle();
        }
    }

    /// Takes in a file that was replaced since; the same file is not read twice.
    fn read_again(&self) -> Result<(), KeyringError> {
        if file::Identity::of(&self.path)? != self.read().file {
            let read = self.read_file()?;
            *self.read.write().unwrap_or_else(PoisonError::into_inner) = read;
        }
        Ok(())
    }

    fn read_file(&self) -> Result<Read, KeyringError> {
        let known = self.read().lock.clone();
        read(&self.path, &self.sealing, known.as_ref())
    }

    fn key(&self, id: [u8; ID_BYTES]) -> Option<SealKey> {
        let read = self.read();
        read.keys.iter().find(|(known, _)| *known == id).map(|(_, key)| key.clone())
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Read> {
        self.read.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyProvider for LocalKeyring {
    async fn wrap_key(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, ProviderError> {
        Ok(self.wrap(name, plain)?)
    }

    async fn unwrap_key(&self, name: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        Ok(self.unwrap(name, wrapped)?)
    }

    async fn current(&self) -> Result<KeyVersion, ProviderError> {
        let current = self.read().keys.last().map(|(id, _)| version(*id));
        Ok(current.ok_or(KeyringError::UnknownKey)?)
    }

    async fn rotate(&self) -> Result<KeyVersion, ProviderError> {
        self.add_key()?;
        self.current().await
    }
}

fn read(path: &Path, sealing: &Sealing, known: Option<&Lock>) -> Result<Read, KeyringError> {
    let (text, file) = file::read(path)?;
    let (keys, lock) = text::parse(path, &text, sealing, known)?;
    Ok(Read { keys, lock, file })
}

fn parts(wrapped: &[u8]) -> Option<([u8; ID_BYTES], &[u8])> {
    let rest = wrapped.strip_prefix(&[LOCAL_FORM])?;
    rest.split_first_chunk::<ID_BYTES>().map(|(id, sealed)| (*id, sealed))
}

fn version(id: [u8; ID_BYTES]) -> KeyVersion {
    let key = id.iter().map(|byte| format!("{byte:02x}")).collect();
    KeyVersion { provider: ProviderKind::Local, key, version: None }
}

/// Names a key without telling anything about it.
fn id_of(key: &SealKey) -> [u8; ID_BYTES] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(b"llm-config key-encryption key id 1");
    context.update(key.expose());
    context.finish().as_ref()[..ID_BYTES].try_into().expect("SHA-256 has 32 bytes")
}

/// What something wrapped is bound to, with every provider.
pub(super) fn context(name: &str) -> Vec<u8> {
    [b"llm-config wrapped key 1 ".as_slice(), name.as_bytes()].concat()
}

fn fresh_key() -> Result<SealKey, KeyringError> {
    let key: Zeroizing<[u8; 32]> = Zeroizing::new(random()?);
    Ok(SealKey::new(*key))
}

/// Bytes from the system's random source.
pub(super) fn random<const N: usize>() -> Result<[u8; N], KeyringError> {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| KeyringError::NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
