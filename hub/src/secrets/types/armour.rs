//! Keys as people paste them: base64 between a line that begins and one that ends (RFC 7468, and OpenSSH's own).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::SigningKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use std::sync::Arc;
use zeroize::Zeroizing;

use super::{Checked, invalid};

/// A private key that signs, from PEM: RSA, ECDSA on P-256 or P-384, or Ed25519.
pub(super) fn signing_key(field: &'static str, pem: &str) -> Checked<Arc<dyn SigningKey>> {
    let what =
        "must be a private key in PEM: RSA, ECDSA on P-256 or P-384, or Ed25519, and not under a passphrase";
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| invalid(field, what))?;
    any_supported_type(&key).map_err(|_| invalid(field, what))
}

/// The label and the bytes of the first part of a text; none where there is none.
pub(super) fn first(text: &str) -> Option<(&str, Zeroizing<Vec<u8>>)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    // What has a colon is a header of an old form.
    let lines = body.lines().map(str::trim).filter(|line| !line.contains(':'));
    let base64: Zeroizing<String> = Zeroizing::new(lines.collect());
    let bytes = STANDARD.decode(base64.as_bytes()).ok().filter(|bytes| !bytes.is_empty())?;
    Some((label, Zeroizing::new(bytes)))
}
