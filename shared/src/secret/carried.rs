//! The key of a file that is carried by hand, sealed to whom it is for (HPKE, as grants are).

use hpke::rand_core::CryptoRng;
use hpke::{Deserializable as _, OpModeR, OpModeS, Serializable as _};

use super::{Bytes, CannotOpen, ChaCha20Poly1305, HkdfSha256, Kem, SealKey, Zeroizing};

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
    let public = <Kem as hpke::Kem>::PublicKey::from_bytes(public).map_err(|_| CannotOpen)?;
    let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeS::Base,
        &public,
        FILE_INFO,
        key.expose(),
        label,
        rng,
    )
    .map_err(|_| CannotOpen)?;
    Ok(SealedFileKey { encapsulated: encapsulated.to_bytes().to_vec().into(), ciphertext: ciphertext.into() })
}

/// The inverse of [`seal_file_key`], at the receiver.
///
/// # Errors
/// When it was made for another receiver or label, or was changed.
pub fn open_file_key(sealed: &SealedFileKey, label: &[u8], private: &SealKey) -> Result<SealKey, CannotOpen> {
    let private = <Kem as hpke::Kem>::PrivateKey::from_bytes(private.expose()).map_err(|_| CannotOpen)?;
    let encapsulated =
        <Kem as hpke::Kem>::EncappedKey::from_bytes(&sealed.encapsulated).map_err(|_| CannotOpen)?;
    let key = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeR::Base,
        &private,
        &encapsulated,
        FILE_INFO,
        &sealed.ciphertext,
        label,
    )
    .map(Zeroizing::new)
    .map_err(|_| CannotOpen)?;
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
