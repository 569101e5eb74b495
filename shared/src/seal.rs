//! Authenticated encryption with key, nonce and associated data as arguments: XChaCha20-Poly1305
//! (draft-irtf-cfrg-xchacha), and for the bodies of secrets AES-256-GCM or ChaCha20-Poly1305 where a tenant wants them.
//!
//! Nonces of XChaCha are 192 random bits and come from the caller: a counter kept in a store that can go back after a
//! crash would repeat one. The other two have 96 bits, too few to draw at random again and again: only with a key that
//! seals once, as the data key of a secret's version does.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
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

/// How the body of a secret is encrypted. The number of each on the wire and on disks is its place here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    #[default]
    XChaCha20Poly1305,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Suite {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::XChaCha20Poly1305, Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// As people and programs see it; part of what a secret is bound to.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::XChaCha20Poly1305 => "xchacha20poly1305",
            Self::Aes256Gcm => "aes256gcm",
            Self::ChaCha20Poly1305 => "chacha20poly1305",
        }
    }

    /// The inverse of [`Suite::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.as_str() == text)
    }

    /// Its number on the wire and on disks.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The inverse of [`Suite::number`].
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// None: the one that has nonces of its own length.
    fn short_nonce(self) -> Option<&'static Algorithm> {
        match self {
            Self::XChaCha20Poly1305 => None,
            Self::Aes256Gcm => Some(&AES_256_GCM),
            Self::ChaCha20Poly1305 => Some(&CHACHA20_POLY1305),
        }
    }

    /// Nonce, ciphertext and tag, under a key that seals nothing else. Of `nonce` as much is used as the suite takes.
    pub fn seal_once(
        self,
        key: &SealKey,
        nonce: [u8; NONCE_BYTES],
        context: &[u8],
        plaintext: &[u8],
    ) -> Vec<u8> {
        let Some(algorithm) = self.short_nonce() else { return seal(key, nonce, context, plaintext) };
        let (nonce, _) = nonce.split_first_chunk::<NONCE_LEN>().expect("24 bytes are more than 12");
        let mut sealed = Vec::with_capacity(NONCE_LEN + plaintext.len() + algorithm.tag_len());
        sealed.extend_from_slice(nonce);
        sealed.extend_from_slice(plaintext);
        let tag = less_safe(algorithm, key)
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(context),
                &mut sealed[NONCE_LEN..],
            )
            .expect("a plaintext below 64 GiB can be sealed");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// The inverse of [`Suite::seal_once`].
    ///
    /// # Errors
    /// [`CannotOpen`].
    pub fn open(
        self,
        key: &SealKey,
        context: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        let Some(algorithm) = self.short_nonce() else { return open(key, context, sealed) };
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(CannotOpen)?;
        let mut plaintext = Zeroizing::new(ciphertext.to_vec());
        let opened = less_safe(algorithm, key).open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(context),
            &mut plaintext,
        );
        let length = opened.map_err(|_| CannotOpen)?.len();
        plaintext.truncate(length);
        Ok(plaintext)
    }
}

fn less_safe(algorithm: &'static Algorithm, key: &SealKey) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(algorithm, key.expose()).expect("both take keys of 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_opens_its_own_and_no_other_opens_it() {
        let key = SealKey::new([1; 32]);
        for suite in Suite::ALL {
            assert_eq!(Suite::parse(suite.as_str()), Some(suite));
            assert_eq!(Suite::from_number(u64::from(suite.number())), Some(suite));
            let sealed = suite.seal_once(&key, [2; NONCE_BYTES], b"here", b"text");
            for other in Suite::ALL {
                let opened = other.open(&key, b"here", &sealed);
                assert_eq!(opened.is_ok_and(|text| text.as_slice() == b"text"), other == suite, "{other:?}");
            }
            assert_eq!(suite.open(&key, b"there", &sealed), Err(CannotOpen));
            for at in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(suite.open(&key, b"here", &changed), Err(CannotOpen), "{suite:?}, byte {at}");
            }
            assert_eq!(suite.open(&key, b"here", &sealed[..5]), Err(CannotOpen));
        }
    }

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
