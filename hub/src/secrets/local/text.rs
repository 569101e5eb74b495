//! What is in the keyring's file, line by line.
//!
//! `llm-config-hub keyring 1` is followed by keys as they are; `llm-config-hub keyring 2 LOCK` by keys that are sealed,
//! where LOCK says where the sealing key comes from: a passphrase, or the system's keychain.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use llm_config_shared::seal::{NONCE_BYTES, SealKey, open, seal};
use zeroize::Zeroizing;

use super::file::KeyringError;
use super::lock::{Lock, Sealing};
use super::{Keys, id_of, random};

const PLAIN: &str = "llm-config-hub keyring 1";
const SEALED: &str = "llm-config-hub keyring 2 ";
/// What a key in the file is bound to.
const CONTEXT: &[u8] = b"llm-config keyring key 2";

/// The keys, and how they were sealed. `known` is a lock that was opened before.
pub(super) fn parse(
    path: &Path,
    text: &str,
    sealing: &Sealing,
    known: Option<&Lock>,
) -> Result<(Keys, Option<Lock>), KeyringError> {
    let malformed = |line| KeyringError::Malformed { path: path.to_owned(), line };
    let mut lines = text.lines().enumerate();
    let (_, first) = lines.next().ok_or_else(|| malformed(1))?;
    let lock = match first.strip_prefix(SEALED) {
        Some(said) => Some(Lock::parse(path, said, sealing, known)?.ok_or_else(|| malformed(1))?),
        None if first == PLAIN => None,
        None => return Err(malformed(1)),
    };
    let mut keys = Vec::new();
    for (line, encoded) in lines {
        let wrong = || malformed(line + 1);
        let bytes = Zeroizing::new(STANDARD_NO_PAD.decode(encoded).map_err(|_| wrong())?);
        let bytes = match &lock {
            Some(lock) => open(&lock.key, CONTEXT, &bytes).map_err(|_| lock.refused(path))?,
            None => bytes,
        };
        let key = SealKey::from_slice(&bytes).map_err(|_| wrong())?;
        keys.push((id_of(&key), key));
    }
    if keys.is_empty() { Err(malformed(2)) } else { Ok((keys, lock)) }
}

/// The inverse of [`parse`].
pub(super) fn write(keys: &Keys, lock: Option<&Lock>) -> Result<Zeroizing<String>, KeyringError> {
    let mut text = Zeroizing::new(String::with_capacity(4_096));
    match lock {
        Some(lock) => text.push_str(&format!("{SEALED}{lock}")),
        None => text.push_str(PLAIN),
    }
    text.push('\n');
    for (_, key) in keys {
        match lock {
            Some(lock) => {
                let nonce: [u8; NONCE_BYTES] = random()?;
                STANDARD_NO_PAD.encode_string(seal(&lock.key, nonce, CONTEXT, key.expose()), &mut text);
            }
            None => STANDARD_NO_PAD.encode_string(key.expose(), &mut text),
        }
        text.push('\n');
    }
    Ok(text)
}
