//! The key that signs segments and checkpoints, apart from the CA's, so that it can be replaced under it.

use llm_config_proto::key_statement::VerificationKey;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

/// An Ed25519 key with the id that signatures name.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: VerificationKey,
}

/// A signing key could not be made or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored signing key cannot be read, or the system has no randomness")]
pub struct NoSigningKey;

impl SigningKey {
    /// A new key as PKCS#8, to be wrapped and stored.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Zeroizing<Vec<u8>>, NoSigningKey> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| NoSigningKey)?;
        Ok(Zeroizing::new(pkcs8.as_ref().to_vec()))
    }

    /// Reads what [`SigningKey::generate`] gave.
    ///
    /// # Errors
    /// When the bytes are others.
    pub fn from_stored(pkcs8: &[u8]) -> Result<Self, NoSigningKey> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| NoSigningKey)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| NoSigningKey)?;
        Ok(Self { pair, public: VerificationKey::new(public) })
    }

    /// What edges check with.
    pub fn verification_key(&self) -> VerificationKey {
        self.public
    }

    /// What a signature names as its key.
    pub fn id(&self) -> u64 {
        self.public.id()
    }

    /// Signs bytes that begin with what they are.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_stored_key_signs_under_the_same_id() {
        let stored = SigningKey::generate().unwrap();
        let (one, two) =
            (SigningKey::from_stored(&stored).unwrap(), SigningKey::from_stored(&stored).unwrap());
        assert_eq!((one.id(), one.sign(b"m")), (two.id(), two.sign(b"m")));
        let public = one.verification_key();
        let verifier = UnparsedPublicKey::new(&ED25519, public.as_bytes());
        assert!(verifier.verify(b"m", &one.sign(b"m")).is_ok());
        assert!(SigningKey::from_stored(&stored[1..]).is_err());
    }
}
