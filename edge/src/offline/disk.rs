//! What of the offline limit lies on the disk: when the hub was heard, what it said, and, where that was chosen, the limit
//! keys. All of it sealed under the replica's key, so that damage is noticed and locks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use llm_config_shared::codec::{DecodeError, Reader, Writer};
use llm_config_shared::limits::FEEDS_MAX;
use llm_config_shared::offline::Contact;
use llm_config_shared::seal::{NONCE_BYTES, SealKey, open, seal};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::LimitKeys;
use crate::keys::{KeyError, read_private, write_private};

/// The last contact.
pub const CONTACT: &str = "contact";
/// The limit keys, under `offline_restart = file` and `tpm`.
pub const LIMIT_KEYS: &str = "limit-keys";

/// The key that files to the hub are sealed to.
pub const HUB_KEY: &str = "hub-key";

const HUB_KEY_CONTEXT: &[u8] = b"llm-config hub key 1";
const CONTACT_CONTEXT: &[u8] = b"llm-config contact 1";
const KEYS_CONTEXT: &[u8] = b"llm-config limit keys 1";
const STATEMENT_BYTES_MAX: usize = 256 << 10;

/// The files in one edge's directory.
pub(super) struct Disk {
    directory: PathBuf,
    key: SealKey,
    /// Of the limit keys: the replica's as well, unless a secret of their own is kept.
    under: SealKey,
}

/// The last contact and the hub's words then.
pub(super) struct Kept {
    pub(super) contact: Contact,
    pub(super) statement: Bytes,
}

impl Disk {
    pub(super) fn new(directory: PathBuf, replica_key: SealKey, under: Option<SealKey>) -> Self {
        Self { directory, under: under.unwrap_or_else(|| replica_key.clone()), key: replica_key }
    }

    /// None where there is none, or it is damaged: then secrets wait for the hub.
    pub(super) fn contact(&self) -> Option<Kept> {
        let bytes = self.read(CONTACT, CONTACT_CONTEXT, &self.key)?;
        let mut reader = Reader::new(&bytes);
        let contact = Contact::decode(&mut reader).ok()?;
        let statement = Bytes::copy_from_slice(reader.bytes(STATEMENT_BYTES_MAX, "statement").ok()?);
        reader.finish().ok()?;
        Some(Kept { contact, statement })
    }

    pub(super) fn put_contact(&self, kept: &Kept) -> Result<(), KeyError> {
        let mut out = Writer::default();
        kept.contact.encode(&mut out);
        out.bytes(&kept.statement);
        self.write(CONTACT, CONTACT_CONTEXT, &self.key, &out.finish())
    }

    pub(super) fn hub_key(&self) -> Option<Vec<u8>> {
        self.read(HUB_KEY, HUB_KEY_CONTEXT, &self.key).map(|key| key.to_vec())
    }

    pub(super) fn store_hub_key(&self, key: &[u8]) -> Result<(), KeyError> {
        self.write(HUB_KEY, HUB_KEY_CONTEXT, &self.key, key)
    }

    pub(super) fn limit_keys(&self) -> LimitKeys {
        let bytes = self.read(LIMIT_KEYS, KEYS_CONTEXT, &self.under);
        bytes.and_then(|bytes| read_keys(&bytes).ok()).unwrap_or_default()
    }

    /// Where keys are gone the bytes of before are overwritten first.
    pub(super) fn put_limit_keys(&self, keys: &LimitKeys) -> Result<(), KeyError> {
        let before = self.limit_keys();
        if before == *keys {
            return Ok(());
        }
        if before.keys().any(|subtree| !keys.contains_key(subtree)) {
            let path = self.directory.join(LIMIT_KEYS);
            destroy(&path).map_err(|source| KeyError::Io { path, source })?;
        }
        if keys.is_empty() {
            return Ok(());
        }
        let mut out = Writer::default();
        out.uint(keys.len() as u64);
        for (subtree, key) in keys {
            out.str(subtree.as_str());
            out.raw(key.expose());
        }
        self.write(LIMIT_KEYS, KEYS_CONTEXT, &self.under, &Zeroizing::new(out.finish()))
    }

    pub(super) fn destroy_limit_keys(&self) -> io::Result<()> {
        destroy(&self.directory.join(LIMIT_KEYS))
    }

    fn read(&self, name: &str, context: &[u8], key: &SealKey) -> Option<Zeroizing<Vec<u8>>> {
        match read_private(&self.directory.join(name)) {
            Ok(sealed) => match open(key, context, &sealed) {
                Ok(bytes) => Some(bytes),
                Err(error) => {
                    tracing::warn!(file = name, %error, "secrets wait for the hub");
                    None
                }
            },
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(file = name, %error, "secrets wait for the hub");
                None
            }
        }
    }

    fn write(&self, name: &str, context: &[u8], key: &SealKey, plain: &[u8]) -> Result<(), KeyError> {
        let mut nonce = [0; NONCE_BYTES];
        SystemRandom::new().fill(&mut nonce).map_err(|_| KeyError::NoRandomness)?;
        write_private(&self.directory.join(name), &seal(key, nonce, context, plain))
    }
}

fn read_keys(bytes: &[u8]) -> Result<LimitKeys, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut keys = LimitKeys::new();
    for _ in 0..reader.count(FEEDS_MAX, "limit keys")? {
        let subtree = reader.subtree()?;
        keys.insert(subtree, SealKey::new(reader.array("limit key")?));
    }
    reader.finish()?;
    Ok(keys)
}

/// Overwrites a file, makes that durable and removes it. On media that write elsewhere than they are told to the old bytes
/// may stay; nothing that a program does changes that. Done where there is none.
///
/// # Errors
/// When a step fails.
pub fn destroy(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut left = file.metadata()?.len();
    let zeros = [0; 4096];
    while left > 0 {
        let part = left.min(zeros.len() as u64);
        file.write_all(&zeros[..part as usize])?;
        left -= part;
    }
    file.sync_all()?;
    drop(file);
    fs::remove_file(path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use llm_config_shared::name::Subtree;
    use llm_config_shared::offline::{BootId, Clocks};
    use llm_config_shared::time::UnixMillis;

    use super::*;

    fn kept() -> Kept {
        let now = Clocks { boot: BootId([1; 16]), since_boot_ms: 5, wall: UnixMillis(9) };
        Kept { contact: Contact::heard(UnixMillis(7), 0, now), statement: Bytes::from_static(b"said") }
    }

    #[test]
    fn what_was_heard_comes_back_and_damage_is_as_if_nothing_was() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(directory.path().to_owned(), SealKey::new([1; 32]), None);
        assert!(disk.contact().is_none());
        disk.put_contact(&kept()).unwrap();
        let read = disk.contact().unwrap();
        assert_eq!((read.contact, read.statement), (kept().contact, kept().statement));
        let path = directory.path().join(CONTACT);
        let mut bytes = fs::read(&path).unwrap();
        bytes[30] ^= 1;
        write_private(&path, &bytes).unwrap();
        assert!(disk.contact().is_none());
    }

    #[test]
    fn a_destroyed_key_is_gone_and_destroying_it_again_is_done() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(directory.path().to_owned(), SealKey::new([1; 32]), None);
        let key = |path: &str, byte| (Subtree::parse(path).unwrap(), SealKey::new([byte; 32]));
        let both = LimitKeys::from([key("", 2), key("app", 3)]);
        disk.put_limit_keys(&both).unwrap();
        assert_eq!(disk.limit_keys(), both);
        let one = LimitKeys::from([key("app", 3)]);
        disk.put_limit_keys(&one).unwrap();
        assert_eq!(disk.limit_keys(), one);
        disk.destroy_limit_keys().unwrap();
        disk.destroy_limit_keys().unwrap();
        assert!(disk.limit_keys().is_empty() && !directory.path().join(LIMIT_KEYS).exists());
    }
}
