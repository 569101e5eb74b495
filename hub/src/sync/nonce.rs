//! Nonces for renewal: expiring, used once, and bounded in memory whatever strangers ask for.
//!
//! A nonce carries its own expiry under a code that only this process can make, so handing one out stores nothing. Only
//! those that came back with a valid signature are remembered, until they expire.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use llm_config_shared::time::UnixMillis;
use ring::hmac;
use ring::rand::SecureRandom;

use crate::identity::NoRandomness;

/// Bytes of a nonce: expiry, randomness, code.
pub const NONCE_BYTES: usize = 8 + RANDOM_BYTES + CODE_BYTES;
/// How long a nonce may be used.
pub const NONCE_LIFE_MS: u64 = 60_000;
/// Most used nonces that are remembered. Beyond it renewals wait: so many in a minute are more than edges renew.
const USED_MAX: usize = 100_000;
const RANDOM_BYTES: usize = 16;
const CODE_BYTES: usize = 32;

/// Why a nonce is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NonceRefusal {
    #[error("the challenge is unknown, expired or was answered before; ask for a new one")]
    Invalid,
    #[error("too many renewals at once; try again in a minute")]
    Full,
}

/// Hands out nonces and takes each back once.
pub struct Nonces {
    key: hmac::Key,
    /// By expiry, so that the expired ones are at the front.
    used: Mutex<BTreeSet<(u64, [u8; RANDOM_BYTES])>>,
}

impl Nonces {
    /// Under a key that lives as long as the process.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(random: &dyn SecureRandom) -> Result<Self, NoRandomness> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, random).map_err(|_| NoRandomness)?;
        Ok(Self { key, used: Mutex::default() })
    }

    /// A nonce that is good until [`NONCE_LIFE_MS`] from now.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn issue(&self, now: UnixMillis, random: &dyn SecureRandom) -> Result<Vec<u8>, NoRandomness> {
        let mut salt = [0; RANDOM_BYTES];
        random.fill(&mut salt).map_err(|_| NoRandomness)?;
        let mut nonce = Vec::with_capacity(NONCE_BYTES);
        nonce.extend_from_slice(&(now.0 + NONCE_LIFE_MS).to_be_bytes());
        nonce.extend_from_slice(&salt);
        let code = hmac::sign(&self.key, &nonce);
        nonce.extend_from_slice(code.as_ref());
        Ok(nonce)
    }

    /// Whether the nonce is one of ours and still good. Costs nothing that a stranger could use up.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self, nonce: &[u8], now: UnixMillis) -> Result<(), NonceRefusal> {
        self.open(nonce, now).map(|_| ())
    }

    /// Takes the nonce back, after the signature over it was found valid.
    ///
    /// # Errors
    /// When it is not good any more, or was taken back before.
    pub fn take(&self, nonce: &[u8], now: UnixMillis) -> Result<(), NonceRefusal> {
        let opened = self.open(nonce, now)?;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.split_off(&(now.0, [0; RANDOM_BYTES]));
        if used.len() >= USED_MAX {
            return Err(NonceRefusal::Full);
        }
        if used.insert(opened) { Ok(()) } else { Err(NonceRefusal::Invalid) }
    }

    fn open(&self, nonce: &[u8], now: UnixMillis) -> Result<(u64, [u8; RANDOM_BYTES]), NonceRefusal> {
        let (content, code) = nonce.split_last_chunk::<CODE_BYTES>().ok_or(NonceRefusal::Invalid)?;
        hmac::verify(&self.key, content, code).map_err(|_| NonceRefusal::Invalid)?;
        let (expiry, salt) = content.split_first_chunk::<8>().ok_or(NonceRefusal::Invalid)?;
        let expiry = u64::from_be_bytes(*expiry);
        if expiry <= now.0 {
            return Err(NonceRefusal::Invalid);
        }
        Ok((expiry, salt.try_into().map_err(|_| NonceRefusal::Invalid)?))
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    #[test]
    fn a_nonce_is_good_once_and_for_a_minute() {
        let random = SystemRandom::new();
        let nonces = Nonces::new(&random).unwrap();
        let nonce = nonces.issue(NOW, &random).unwrap();
        assert_eq!(nonces.check(&nonce, NOW), Ok(()));
        assert_eq!(nonces.check(&nonce, UnixMillis(NOW.0 + NONCE_LIFE_MS)), Err(NonceRefusal::Invalid));
        assert_eq!(nonces.take(&nonce, NOW), Ok(()));
        assert_eq!(nonces.take(&nonce, NOW), Err(NonceRefusal::Invalid));

        let late = UnixMillis(NOW.0 + 2 * NONCE_LIFE_MS);
        let next = nonces.issue(late, &random).unwrap();
        assert_eq!(nonces.take(&next, late), Ok(()));
        assert_eq!(nonces.used.lock().unwrap().len(), 1, "what has expired is forgotten");
    }

    #[test]
    fn what_another_made_or_changed_is_refused() {
        let random = SystemRandom::new();
        let (ours, other) = (Nonces::new(&random).unwrap(), Nonces::new(&random).unwrap());
        let nonce = other.issue(NOW, &random).unwrap();
        assert_eq!(ours.take(&nonce, NOW), Err(NonceRefusal::Invalid));
        let nonce = ours.issue(NOW, &random).unwrap();
        for at in 0..nonce.len() {
            let mut changed = nonce.clone();
            changed[at] ^= 1;
            assert_eq!(ours.take(&changed, NOW), Err(NonceRefusal::Invalid), "byte {at}");
        }
        assert_eq!(ours.take(&nonce[..20], NOW), Err(NonceRefusal::Invalid));
    }
}
