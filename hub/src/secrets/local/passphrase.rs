//! A passphrase, and the key that comes from it: Argon2id, so that guessing costs memory.

use std::fmt;
use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use llm_config_shared::seal::SealKey;
use zeroize::Zeroizing;

use super::file::{self, KeyringError};
use super::random;

const SALT_BYTES: usize = 16;
/// 64 MiB and three passes: above what OWASP asks for, and still some tenths of a second.
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
/// A file may name other costs, but none that would keep a machine busy.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 64;

/// What somebody chose. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// The text without the line's end that editors add; none when nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim_end_matches(['\n', '\r']);
        (!text.is_empty()).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// From a file that only its owner reads.
    ///
    /// # Errors
    /// When there is none, it is empty, or others can read it.
    pub fn read(path: &Path) -> Result<Self, KeyringError> {
        let (text, _) = file::read(path)?;
        Self::new(&text).ok_or_else(|| KeyringError::Malformed { path: path.to_owned(), line: 1 })
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(***)")
    }
}

/// How a key comes from a passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Derivation {
    salt: [u8; SALT_BYTES],
    memory_kib: u32,
    passes: u32,
}

impl Derivation {
    pub(super) fn fresh() -> Result<Self, KeyringError> {
        Ok(Self { salt: random()?, memory_kib: MEMORY_KIB, passes: PASSES })
    }

    /// None when it is not of the form that [`fmt::Display`] gives.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next() != Some("argon2id") {
            return None;
        }
        let mut number = |name: &str, max: u32| -> Option<u32> {
            let number = words.next()?.strip_prefix(name)?.parse().ok()?;
            (number <= max).then_some(number)
        };
        let memory_kib = number("m=", MEMORY_KIB_MAX)?;
        let passes = number("t=", PASSES_MAX)?;
        let salt = STANDARD_NO_PAD.decode(words.next()?).ok()?.try_into().ok()?;
        words.next().is_none().then_some(Self { salt, memory_kib, passes })
    }

    /// None when its costs are none that Argon2 takes.
    pub(super) fn key(&self, passphrase: &Passphrase) -> Option<SealKey> {
        let params = Params::new(self.memory_kib, self.passes, 1, Some(32)).ok()?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.0.as_bytes(), &self.salt, key.as_mut_slice())
            .ok()?;
        Some(SealKey::new(*key))
    }
}

impl fmt::Display for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let salt = STANDARD_NO_PAD.encode(self.salt);
        write!(f, "argon2id m={} t={} {salt}", self.memory_kib, self.passes)
    }
}
