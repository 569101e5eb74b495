//! Proof that an edge holds the private key that it names: what it signs, and how the hub checks it.
//!
//! What is signed begins with what it is for, and every part of variable length stands behind its length.

use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use uuid::Uuid;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ED25519};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};

use crate::join_token::JoinSecret;

/// Longest SubjectPublicKeyInfo that is looked at; a P-256 key takes 91 bytes.
const PUBLIC_KEY_BYTES_MAX: usize = 256;
/// Bytes of an X25519 public key.
pub const SEALING_KEY_BYTES: usize = 32;

/// Why a proof of possession was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProof {
    #[error("public_key: not a P-256 or Ed25519 key in the form of SubjectPublicKeyInfo")]
    PublicKey,
    #[error("sealing_key: an X25519 public key has {SEALING_KEY_BYTES} bytes and is not zero")]
    SealingKey,
    #[error("signature: not made with the private key that belongs to public_key")]
    Signature,
}

/// What an edge signs to join: the token's secret by its hash, and the keys that it will be known by.
pub fn join_message(secret: &JoinSecret, public_key: &[u8], sealing_key: &[u8]) -> Vec<u8> {
    labelled(b"llm-config join 1\0", &[&secret.hash(), public_key, sealing_key])
}

/// What an edge signs to renew: the hub's nonce, its own id, and the sealing key that it will use from now on.
pub fn renew_message(nonce: &[u8], edge: Uuid, sealing_key: &[u8]) -> Vec<u8> {
    labelled(b"llm-config renew 1\0", &[nonce, edge.as_bytes(), sealing_key])
}

/// What an edge signs when its data is destroyed: its id and when that was.
pub fn wipe_message(edge: Uuid, wiped_at_ms: u64) -> Vec<u8> {
    labelled(b"llm-config wiped 1\0", &[edge.as_bytes(), &wiped_at_ms.to_be_bytes()])
}

/// What an edge signs of a file that is carried to its hub: the file's cover.
pub fn carried_message(cover: &[u8]) -> Vec<u8> {
    labelled(b"llm-config carried to a hub 1\0", &[cover])
}

/// Checks `signature` over `message` with a public key (SubjectPublicKeyInfo, DER) of one of the two kinds allowed.
///
/// # Errors
/// When the key is of another kind or the signature another's.
pub fn verify(public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidProof> {
    if public_key.len() > PUBLIC_KEY_BYTES_MAX {
        return Err(InvalidProof::PublicKey);
    }
    let (rest, info) = SubjectPublicKeyInfo::from_der(public_key).map_err(|_| InvalidProof::PublicKey)?;
    let algorithm = algorithm(&info).filter(|_| rest.is_empty()).ok_or(InvalidProof::PublicKey)?;
    UnparsedPublicKey::new(algorithm, &info.subject_public_key.data)
        .verify(message, signature)
        .map_err(|_| InvalidProof::Signature)
}

/// # Errors
/// When it cannot be an X25519 public key.
pub fn check_sealing_key(key: &[u8]) -> Result<(), InvalidProof> {
    let possible = key.len() == SEALING_KEY_BYTES && key.iter().any(|byte| *byte != 0);
    if possible { Ok(()) } else { Err(InvalidProof::SealingKey) }
}

fn algorithm(info: &SubjectPublicKeyInfo<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    let kind = &info.algorithm.algorithm;
    if *kind == OID_SIG_ED25519 {
        return Some(&ED25519);
    }
    let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
    (*kind == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == OID_EC_P256).then_some(&ECDSA_P256_SHA256_ASN1)
}

fn labelled(label: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut message = label.to_vec();
    for part in parts {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part);
    }
    message
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    /// The fixed front of an Ed25519 SubjectPublicKeyInfo (RFC 8410).
    const ED25519_FRONT: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

    fn edge_key() -> (Ed25519KeyPair, Vec<u8>) {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let public_key = [&ED25519_FRONT[..], pair.public_key().as_ref()].concat();
        (pair, public_key)
    }

    #[test]
    fn a_proof_fits_one_key_and_one_message() {
        let (pair, public_key) = edge_key();
        let message = renew_message(b"nonce", Uuid::from_u128(1), &[5; 32]);
        let signature = pair.sign(&message);
        assert_eq!(verify(&public_key, &message, signature.as_ref()), Ok(()));
        let other = renew_message(b"nonce", Uuid::from_u128(2), &[5; 32]);
        assert_eq!(verify(&public_key, &other, signature.as_ref()), Err(InvalidProof::Signature));
        let (_, stranger) = edge_key();
        assert_eq!(verify(&stranger, &message, signature.as_ref()), Err(InvalidProof::Signature));
    }

    #[test]
    fn keys_of_another_kind_or_with_bytes_behind_them_are_refused() {
        let (_, public_key) = edge_key();
        let longer = [&public_key[..], &[0]].concat();
        for key in [&b"nothing"[..], &longer, &[0; 300]] {
            assert_eq!(verify(key, b"m", b"s"), Err(InvalidProof::PublicKey));
        }
        assert_eq!(check_sealing_key(&[0; 32]), Err(InvalidProof::SealingKey));
        assert_eq!(check_sealing_key(&[1; 31]), Err(InvalidProof::SealingKey));
    }

    #[test]
    fn parts_cannot_run_into_one_another() {
        let secret = JoinSecret::new([1; 32]);
        assert_ne!(join_message(&secret, b"ab", b"c"), join_message(&secret, b"a", b"bc"));
    }
}
