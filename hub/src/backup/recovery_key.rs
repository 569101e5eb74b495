//! The key that opens backups: an X25519 pair whose private half only people keep.
//!
//! The hub keeps the public half, under its key-encryption key, so that nobody who can change the database can put
//! another in its place. So no backup needs a secret on the machine that was not there before. The private half is text
//! that can be written down: 32 bytes and three of their hash, in Crockford's base32, in groups of four.

use std::fmt;

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, OpModeR, OpModeS, Serializable};
use llm_config_shared::seal::SealKey;
use llm_config_shared::secret::sealing_keypair;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use crate::identity::NoRandomness;

type Kem = X25519HkdfSha256;

/// Bytes of a file's key as it stands at the front of the file.
pub(super) const WRAPPED_BYTES: usize = 32 + 32 + 16;
const INFO: &[u8] = b"llm-config backup key 1";
/// Without I, L, O and U, which people take for others.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const KEY_BYTES: usize = 32;
const CHECK_BYTES: usize = 3;
const LETTERS: usize = (KEY_BYTES + CHECK_BYTES) * 8 / 5;
const GROUP: usize = 4;

/// The private half.
pub struct RecoveryKey(SealKey);

/// The half that the hub keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryPublicKey([u8; KEY_BYTES]);

/// A text is no recovery key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRecoveryKey {
    #[error("a recovery key has {LETTERS} letters and digits; this has {0}")]
    Length(usize),
    #[error("{0:?} is in no recovery key")]
    Letter(char),
    #[error("a letter of the recovery key is wrong")]
    Check,
}

/// The key of a file cannot be had with this recovery key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this recovery key does not open it: the backup is of another hub or of another recovery key, or its front was changed"
)]
pub struct WrongKey;

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryKey(***)")
    }
}

impl RecoveryKey {
    /// A new pair.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<(Self, RecoveryPublicKey), NoRandomness> {
        let mut random = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(random.as_mut_slice()).map_err(|_| NoRandomness)?;
        Ok(Self::from_random(&random))
    }

    fn from_random(random: &[u8; 32]) -> (Self, RecoveryPublicKey) {
        let (private, public) = sealing_keypair(random);
        (Self(private), RecoveryPublicKey(public))
    }

    /// As people write it down.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES + CHECK_BYTES]);
        bytes[..KEY_BYTES].copy_from_slice(self.0.expose());
        bytes[KEY_BYTES..].copy_from_slice(&check(self.0.expose()));
        let mut text = Zeroizing::new(String::with_capacity(LETTERS + LETTERS / GROUP));
        for letter in 0..LETTERS {
            if letter > 0 && letter % GROUP == 0 {
                text.push('-');
            }
            let value = (0..5).fold(0, |value, bit| value << 1 | bit_of(&*bytes, letter * 5 + bit));
            text.push(char::from(ALPHABET[usize::from(value)]));
        }
        text
    }

    /// Reads what people wrote down: case, spaces and dashes do not matter, nor O for 0 or I and L for 1.
    ///
    /// # Errors
    /// Says what is wrong with it, but not where, and never shows it.
    pub fn parse(text: &str) -> Result<Self, NoRecoveryKey> {
        let mut bytes = Zeroizing::new([0_u8; KEY_BYTES + CHECK_BYTES]);
        let mut letters = 0;
        for letter in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            let value = value_of(letter).ok_or(NoRecoveryKey::Letter(letter))?;
            for bit in 0..5 {
                let at = letters * 5 + bit;
                if let Some(byte) = bytes.get_mut(at / 8) {
                    *byte |= (value >> (4 - bit) & 1) << (7 - at % 8);
                }
            }
            letters += 1;
        }
        if letters != LETTERS {
            return Err(NoRecoveryKey::Length(letters));
        }
        let (key, checked) = bytes.split_at(KEY_BYTES);
        let key = SealKey::from_slice(key).map_err(|_| NoRecoveryKey::Check)?;
        if check(key.expose()) == checked { Ok(Self(key)) } else { Err(NoRecoveryKey::Check) }
    }

    /// The key of the file that begins with `front` and then `wrapped`.
    pub(super) fn unwrap(&self, front: &[u8], wrapped: &[u8]) -> Result<SealKey, WrongKey> {
        let private = <Kem as hpke::Kem>::PrivateKey::from_bytes(self.0.expose()).map_err(|_| WrongKey)?;
        let (encapsulated, ciphertext) = wrapped.split_at_checked(KEY_BYTES).ok_or(WrongKey)?;
        let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| WrongKey)?;
        let mode = OpModeR::Base;
        let key = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &mode,
            &private,
            &encapsulated,
            INFO,
            ciphertext,
            front,
        );
        let key = key.map(Zeroizing::new).map_err(|_| WrongKey)?;
        SealKey::from_slice(&key).map_err(|_| WrongKey)
    }
}

impl RecoveryPublicKey {
    /// As the hub stores it.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// As it was stored; none when it is something else.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Seals a file's key to the private half, for the place behind `front`.
    pub(super) fn wrap(&self, front: &[u8], key: &SealKey) -> Result<Vec<u8>, WrongKey> {
        let public = <Kem as hpke::Kem>::PublicKey::from_bytes(&self.0).map_err(|_| WrongKey)?;
        let (encapsulated, ciphertext) =
            hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, Kem>(
                &OpModeS::Base,
                &public,
                INFO,
                key.expose(),
                front,
                &mut rand::rng(),
            )
            .map_err(|_| WrongKey)?;
        Ok([encapsulated.to_bytes().as_slice(), &ciphertext].concat())
    }
}

fn check(key: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = digest(&SHA256, &[b"llm-config recovery key 1", key].concat());
    hash.as_ref()[..CHECK_BYTES].try_into().expect("SHA-256 has 32 bytes")
}

fn bit_of(bytes: &[u8], at: usize) -> u8 {
    bytes[at / 8] >> (7 - at % 8) & 1
}

fn value_of(letter: char) -> Option<u8> {
    let letter = match letter.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        letter => letter,
    };
    let at = ALPHABET.iter().position(|known| char::from(*known) == letter)?;
    u8::try_from(at).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_down_by_hand_is_read_again() {
        let (key, public) = RecoveryKey::from_random(&[7; 32]);
        let text = key.to_text();
        assert_eq!(text.split('-').count(), 14);
        assert!(text.split('-').all(|group| group.len() == GROUP), "{}", *text);
        let by_hand = text.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l");
        let file_key = SealKey::new([9; 32]);
        let wrapped = public.wrap(b"front", &file_key).unwrap();
        assert_eq!(wrapped.len(), WRAPPED_BYTES);
        for text in [text.as_str(), by_hand.as_str(), &format!("{}\n", *text)] {
            let read = RecoveryKey::parse(text).unwrap();
            assert_eq!(read.unwrap(b"front", &wrapped).unwrap(), file_key);
        }
    }

    #[test]
    fn a_letter_too_few_or_wrong_is_noticed() {
        let (key, _) = RecoveryKey::from_random(&[7; 32]);
        let text = key.to_text();
        assert_eq!(RecoveryKey::parse(&text[1..]).unwrap_err(), NoRecoveryKey::Length(55));
        assert_eq!(RecoveryKey::parse(&format!("{}0", *text)).unwrap_err(), NoRecoveryKey::Length(57));
        assert_eq!(RecoveryKey::parse(&text.replace('-', "!")).unwrap_err(), NoRecoveryKey::Letter('!'));
        let first = if text.starts_with('A') { "B" } else { "A" };
        assert_eq!(RecoveryKey::parse(&format!("{first}{}", &text[1..])).unwrap_err(), NoRecoveryKey::Check);
        assert!(!format!("{key:?}").contains(&text[..4]));
    }

    #[test]
    fn another_key_or_place_opens_nothing() {
        let ((key, public), (other, _)) =
            (RecoveryKey::from_random(&[7; 32]), RecoveryKey::from_random(&[8; 32]));
        let wrapped = public.wrap(b"front", &SealKey::new([9; 32])).unwrap();
        assert_eq!(other.unwrap(b"front", &wrapped), Err(WrongKey));
        assert_eq!(key.unwrap(b"other", &wrapped), Err(WrongKey));
        assert_eq!(key.unwrap(b"front", &wrapped[..40]), Err(WrongKey));
        let mut changed = wrapped;
        changed[50] ^= 1;
        assert_eq!(key.unwrap(b"front", &changed), Err(WrongKey));
    }
}
