//! Sealing to whoever holds a private key: HPKE (RFC 9180) with X25519, HKDF-SHA256 and ChaCha20-Poly1305, in base mode, or with
//! a pre-shared key without which the private key opens nothing.

use bytes::Bytes;
use hpke::rand_core::CryptoRng;
use hpke::{Deserializable as _, OpModeR, OpModeS, PskBundle, Serializable as _};
use zeroize::Zeroizing;

use super::{CannotOpen, ChaCha20Poly1305, HkdfSha256, Kem, SealKey};

type PublicKey = <Kem as hpke::Kem>::PublicKey;
type PrivateKey = <Kem as hpke::Kem>::PrivateKey;
type EncappedKey = <Kem as hpke::Kem>::EncappedKey;

/// What both sides have to know besides their keys.
#[derive(Clone, Copy)]
pub(super) struct Bound<'a> {
    /// What it is for.
    pub(super) info: &'static [u8],
    /// What it belongs to.
    pub(super) context: &'a [u8],
    /// A key that both have, and its name.
    pub(super) shared: Option<(&'a SealKey, &'static [u8])>,
}

/// The encapsulated key and the ciphertext.
///
/// # Errors
/// When `public` is no point of the curve that HPKE accepts.
pub(super) fn seal(
    plain: &[u8],
    public: &[u8],
    bound: Bound<'_>,
    rng: &mut impl CryptoRng,
) -> Result<(Bytes, Bytes), CannotOpen> {
    let public = PublicKey::from_bytes(public).map_err(|_| CannotOpen)?;
    let mode = match bound.shared {
        None => OpModeS::Base,
        Some((key, name)) => OpModeS::Psk(PskBundle::new(key.expose(), name).map_err(|_| CannotOpen)?),
    };
    let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &mode,
        &public,
        bound.info,
        plain,
        bound.context,
        rng,
    )
    .map_err(|_| CannotOpen)?;
    Ok((encapsulated.to_bytes().to_vec().into(), ciphertext.into()))
}

/// The inverse of [`seal`].
///
/// # Errors
/// When it was sealed to another key or bound to something else, or was changed.
pub(super) fn open(
    (encapsulated, ciphertext): (&[u8], &[u8]),
    private: &SealKey,
    bound: Bound<'_>,
) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
    let private = PrivateKey::from_bytes(private.expose()).map_err(|_| CannotOpen)?;
    let encapsulated = EncappedKey::from_bytes(encapsulated).map_err(|_| CannotOpen)?;
    let mode = match bound.shared {
        None => OpModeR::Base,
        Some((key, name)) => OpModeR::Psk(PskBundle::new(key.expose(), name).map_err(|_| CannotOpen)?),
    };
    let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &mode,
        &private,
        &encapsulated,
        bound.info,
        ciphertext,
        bound.context,
    );
    opened.map(Zeroizing::new).map_err(|_| CannotOpen)
}
