//! A receipt: what a hub states about a lost edge, in a document that can be checked without it.
//!
//! The hub's key signs the receipt's JSON, with its members in order and no spaces; beside it stands the CA's word that it is
//! the hub's key. Whoever has the CA's certificate needs nothing else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{ED25519, UnparsedPublicKey};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::key_statement::{InvalidStatement, KeyStatement};

const DOMAIN: &[u8] = b"llm-config exposure receipt 1\0";

/// Why a document is not what a hub stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReceipt {
    #[error("this is no receipt: it lacks the statement or one of its signatures")]
    Form,
    #[error("the certificate of the CA cannot be read")]
    Ca,
    #[error(transparent)]
    Statement(#[from] InvalidStatement),
    #[error("the receipt was changed, or signed by another hub")]
    Signature,
}

/// What the hub's key signs.
pub fn signed_bytes(receipt: &Value) -> Vec<u8> {
    [DOMAIN, receipt.to_string().as_bytes()].concat()
}

/// The whole document.
pub fn document(receipt: Value, signature: &[u8], statement: &[u8], statement_signature: &[u8]) -> Value {
    json!({
        "receipt": receipt,
        "signature": BASE64.encode(signature),
        "signing_keys": BASE64.encode(statement),
        "signing_keys_signature": BASE64.encode(statement_signature),
    })
}

/// What the document states, if it is the hub's whose CA this is.
///
/// # Errors
/// Says what did not fit.
pub fn verify<'a>(document: &'a Value, ca_pem: &str) -> Result<&'a Value, InvalidReceipt> {
    let bytes = |name: &str| {
        let text = document.get(name).and_then(Value::as_str).ok_or(InvalidReceipt::Form)?;
        BASE64.decode(text).map_err(|_| InvalidReceipt::Form)
    };
    let receipt = document.get("receipt").ok_or(InvalidReceipt::Form)?;
    let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|_| InvalidReceipt::Ca)?;
    let statement = KeyStatement::verify(&ca, &bytes("signing_keys")?, &bytes("signing_keys_signature")?)?;
    let (message, signature) = (signed_bytes(receipt), bytes("signature")?);
    let fits = |key: &[u8; 32]| UnparsedPublicKey::new(&ED25519, key).verify(&message, &signature).is_ok();
    if statement.keys.iter().any(|key| fits(key.as_bytes())) {
        Ok(receipt)
    } else {
        Err(InvalidReceipt::Signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lacks_a_part_is_no_receipt() {
        for document in [json!({}), json!({"receipt": {}}), json!({"receipt": {}, "signature": "?"})] {
            assert!(verify(&document, "").is_err(), "{document}");
        }
    }
}
