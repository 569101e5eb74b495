//! The key of a file that is carried by hand, sealed to whom it is for (HPKE, as grants are).

use hpke::rand_core::CryptoRng;

use super::sealed::{self, Bound};
use super::{Bytes, CannotOpen, SealKey};

const FILE_INFO: &[u8] = b"llm-config carried file 1";

/// A file's key, sealed to one receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedFileKey {
    pub encapsulated: Bytes,
    pub ciphertext: Bytes,
}

/// Seals a file's key to whoever holds the private half of `public`, bound to the file's `label`.
///
/// # Errors
/// When `public` is no point of the curve that HPKE accepts.
pub fn seal_file_key(
    key: &SealKey,
    label: &[u8],
    public: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<SealedFileKey, CannotOpen> {
    let bound = Bound { info: FILE_INFO, context: label, shared: None };
    let (encapsulated, ciphertext) = sealed::seal(key.expose(), public, bound, rng)?;
    Ok(SealedFileKey { encapsulated, ciphertext })
}

/// The inverse of [`seal_file_key`], at the receiver.
///
/// # Errors
/// When it was made for another receiver or label, or was changed.
pub fn open_file_key(sealed: &SealedFileKey, label: &[u8], private: &SealKey) -> Result<SealKey, CannotOpen> {
    let bound = Bound { info: FILE_INFO, context: label, shared: None };
    let key = sealed::open((&sealed.encapsulated, &sealed.ciphertext), private, bound)?;
    SealKey::from_slice(&key)
}

#[cfg(test)]
mod tests {
    use super::super::sealing_keypair;
    use super::super::tests::Counting;
    use super::*;

    #[test]
    fn only_the_receiver_opens_it_and_only_under_its_label() {
        let (private, public) = sealing_keypair(&[9; 32]);
        let (stranger, _) = sealing_keypair(&[8; 32]);
        let key = SealKey::new([1; 32]);
        let sealed = seal_file_key(&key, b"label", &public, &mut Counting(0)).unwrap();
        assert_eq!(open_file_key(&sealed, b"label", &private).unwrap(), key);
        assert_eq!(open_file_key(&sealed, b"other", &private), Err(CannotOpen));
        assert_eq!(open_file_key(&sealed, b"label", &stranger), Err(CannotOpen));
    }
}
