//! Which keys sign what the hub sends, as its CA states it: edges take keys from here and from nowhere else.
//!
//! The body is version, time of issue and the public keys; the signature is the CA's (ECDSA P-256, SHA-256, ASN.1)
//! over a label and the body, so that no certificate passes for a statement or the other way round.

use llm_config_shared::time::UnixMillis;
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use x509_parser::prelude::{FromDer, X509Certificate};

const LABEL: &[u8] = b"llm-config verification keys 1\0";
const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
/// Most keys of one statement: the current one, and those that live segments may still name.
pub const KEYS_MAX: usize = 16;

/// An Ed25519 public key that signs segments and checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerificationKey([u8; KEY_BYTES]);

impl VerificationKey {
    /// The 32 bytes of RFC 8032.
    pub fn new(public_key: [u8; KEY_BYTES]) -> Self {
        Self(public_key)
    }

    /// The 32 bytes of RFC 8032.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// What a signature names: the first 8 bytes of the key's SHA-256, big-endian.
    pub fn id(&self) -> u64 {
        let hash = digest(&SHA256, &self.0);
        u64::from_be_bytes(hash.as_ref()[..8].try_into().expect("SHA-256 has 32 bytes"))
    }
}

/// What the CA says about the hub's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatement {
    /// A later statement replaces an earlier one, never the other way round.
    pub issued_at: UnixMillis,
    /// The newest first.
    pub keys: Vec<VerificationKey>,
}

/// Why a statement was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStatement {
    #[error("the hub's CA certificate cannot be read")]
    Certificate,
    #[error("the hub's list of signing keys was not signed by its CA")]
    Signature,
    #[error("the hub's list of signing keys cannot be read")]
    Encoding,
}

impl KeyStatement {
    /// What is sent beside the signature.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(10 + self.keys.len() * KEY_BYTES);
        body.push(VERSION);
        body.extend_from_slice(&self.issued_at.0.to_be_bytes());
        body.push(u8::try_from(self.keys.len()).expect("a hub keeps few signing keys"));
        for key in &self.keys {
            body.extend_from_slice(&key.0);
        }
        body
    }

    /// What the CA signs.
    pub fn signed_bytes(body: &[u8]) -> Vec<u8> {
        [LABEL, body].concat()
    }

    /// Checks the signature with the public key of `ca_certificate` (DER), then reads the statement.
    ///
    /// # Errors
    /// When the certificate cannot be read, the signature is another's or the body is malformed.
    pub fn verify(ca_certificate: &[u8], body: &[u8], signature: &[u8]) -> Result<Self, InvalidStatement> {
        let (_, certificate) =
            X509Certificate::from_der(ca_certificate).map_err(|_| InvalidStatement::Certificate)?;
        let public_key = &certificate.public_key().subject_public_key.data;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key)
            .verify(&Self::signed_bytes(body), signature)
            .map_err(|_| InvalidStatement::Signature)?;
        Self::decode(body).ok_or(InvalidStatement::Encoding)
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let (version, rest) = body.split_first()?;
        let (issued_at, rest) = rest.split_first_chunk::<8>()?;
        let (count, rest) = rest.split_first()?;
        let (keys, rest) = rest.as_chunks::<KEY_BYTES>();
        let whole = *version == VERSION && rest.is_empty() && keys.len() == usize::from(*count);
        if !whole || keys.is_empty() || keys.len() > KEYS_MAX {
            return None;
        }
        let keys = keys.iter().copied().map(VerificationKey).collect();
        Some(Self { issued_at: UnixMillis(u64::from_be_bytes(*issued_at)), keys })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_back_and_any_other_length_refused() {
        let keys = vec![VerificationKey::new([1; 32]), VerificationKey::new([2; 32])];
        let statement = KeyStatement { issued_at: UnixMillis(77), keys };
        let body = statement.encode();
        assert_eq!(KeyStatement::decode(&body), Some(statement.clone()));
        for length in 0..body.len() {
            assert_eq!(KeyStatement::decode(&body[..length]), None, "cut at {length}");
        }
        assert_ne!(statement.keys[0].id(), statement.keys[1].id());
        assert_eq!(KeyStatement::decode(&KeyStatement { keys: Vec::new(), ..statement }.encode()), None);
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert_eq!(KeyStatement::verify(b"nothing", b"", b""), Err(InvalidStatement::Certificate));
    }
}
