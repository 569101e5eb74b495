//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) with key, nonce and associated data as arguments.
//!
//! Nonces are 192 random bits and come from the caller: a counter kept in a store that can go back after a crash would
//! repeat one.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

/// Bytes of a nonce, at the front of everything sealed.
pub const NONCE_BYTES: usize = 24;
/// Bytes that sealing adds.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + 16;

/// A key whose bytes are wiped when it is dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey(Zeroizing<[u8; 32]>);

impl SealKey {
    /// 32 uniformly random or derived bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// For wrapping and deriving only.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// # Errors
    /// When there are not exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, CannotOpen> {
        Ok(Self::new(bytes.try_into().map_err(|_| CannotOpen)?))
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(***)")
    }
}

/// Wrong key, wrong associated data, or changed bytes; which of them cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sealed data cannot be opened: it was changed, or belongs to another key or place")]
pub struct CannotOpen;

/// Nonce, ciphertext and tag.
pub fn seal(key: &SealKey, nonce: [u8; NONCE_BYTES], context: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let cipher = XChaCha20Poly1305::new(key.expose().into());
    let payload = Payload { msg: plaintext, aad: context };
    let ciphertext =
        cipher.encrypt(&XNonce::from(nonce), payload).expect("a plaintext below 256 GiB can be sealed");
    let mut sealed = Vec::with_capacity(NONCE_BYTES + ciphertext.len());
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(&ciphertext);
    sealed
}

/// The inverse of [`seal`].
///
/// # Errors
/// [`CannotOpen`].
pub fn open(key: &SealKey, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(CannotOpen)?;
    let cipher = XChaCha20Poly1305::new(key.expose().into());
    let payload = Payload { msg: ciphertext, aad: context };
    cipher.decrypt(&XNonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| CannotOpen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_context_open_unchanged_bytes() {
        let key = SealKey::new([1; 32]);
        let sealed = seal(&key, [2; NONCE_BYTES], b"here", b"text");
        assert_eq!(sealed.len(), 4 + OVERHEAD_BYTES);
        assert_eq!(open(&key, b"here", &sealed).unwrap().as_slice(), b"text");
        assert_eq!(open(&key, b"there", &sealed), Err(CannotOpen));
        assert_eq!(open(&SealKey::new([3; 32]), b"here", &sealed), Err(CannotOpen));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(&key, b"here", &changed), Err(CannotOpen), "byte {at}");
        }
        assert_eq!(open(&key, b"here", &sealed[..10]), Err(CannotOpen));
    }
}
