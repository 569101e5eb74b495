//! TLS 1.3 and nothing older, for the sync stream and the REST API, from PEM.
//!
//! tonic's own TLS settings cannot leave TLS 1.2 out, so both ends are built here and handed to it as connections.

mod accept;
mod trust;

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::Resumption;
use rustls::crypto::ring::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use accept::{TlsConnections, TlsListener, accept_loop};
pub use trust::Trust;

/// The name in the certificate of every hub's sync port, whatever its address is.
pub const HUB_SERVER_NAME: &str = "hub.llm-config.internal";

/// What is spoken inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    Http1,
    H2,
    /// The client chooses.
    Either,
}

impl Alpn {
    fn protocols(self) -> Vec<Vec<u8>> {
        let (h2, http1) = (b"h2".to_vec(), b"http/1.1".to_vec());
        match self {
            Self::Http1 => vec![http1],
            Self::H2 => vec![h2],
            Self::Either => vec![h2, http1],
        }
    }
}

/// A certificate with its key, as PEM.
#[derive(Clone)]
pub struct Identity {
    /// Leaf first. A hub appends its CA's certificate, so that a joining edge can compare the fingerprint.
    pub chain_pem: String,
    pub key_pem: zeroize::Zeroizing<String>,
}

/// Certificates or keys that cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{what} is not PEM: {why}")]
    Pem { what: &'static str, why: String },
    #[error("{what} holds no certificate")]
    Empty { what: &'static str },
    #[error("the certificate or key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    #[error("the CA's certificate cannot be used for checking clients: {0}")]
    ClientVerifier(String),
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.map_err(|error| TlsError::Pem { what, why: error.to_string() })?;
    if chain.is_empty() { Err(TlsError::Empty { what }) } else { Ok(chain) }
}

fn private_key(identity: &Identity) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
        .map_err(|error| TlsError::Pem { what: "the private key", why: error.to_string() })
}

fn roots(ca_pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the CA's certificate", ca_pem)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// SHA-256 of the first certificate in `pem`.
///
/// # Errors
/// When there is none.
pub fn fingerprint(pem: &str) -> Result<[u8; 32], TlsError> {
    Ok(fingerprint_of(&certificates("the CA's certificate", pem)?[0]))
}

fn fingerprint_of(certificate: &CertificateDer<'_>) -> [u8; 32] {
    digest(&SHA256, certificate).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// A server that asks clients for a certificate of `clients_ca_pem` and serves those without one too, or asks for none.
/// What a call without one may do is for the service to say, call by call.
///
/// # Errors
/// When a certificate or the key cannot be used.
pub fn server_config(
    identity: &Identity,
    clients_ca_pem: Option<&str>,
    alpn: Alpn,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13])?;
    let builder = match clients_ca_pem {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca)?.into(), provider)
                .allow_unauthenticated();
            let verifier = verifier.build().map_err(|error| TlsError::ClientVerifier(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = certificates("the server's certificate", &identity.chain_pem)?;
    let mut config = builder.with_single_cert(chain, private_key(identity)?)?;
    config.alpn_protocols = alpn.protocols();
    // A resumed session would skip the check of the client's certificate.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A client that trusts as told.
///
/// # Errors
/// When a certificate or the key cannot be used.
pub fn client_config(
    trust: &Trust,
    identity: Option<&Identity>,
    alpn: Alpn,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13])?;
    let builder = match trust {
        Trust::Ca { pem } => builder.with_root_certificates(roots(pem)?),
        Trust::Fingerprint(fingerprint) => {
            let verifier = trust::FingerprintVerifier::new(*fingerprint, provider);
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates("the client's certificate", &identity.chain_pem)?;
            builder.with_client_auth_cert(chain, private_key(identity)?)?
        }
    };
    config.alpn_protocols = alpn.protocols();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

#[cfg(test)]
pub(crate) mod tests;
