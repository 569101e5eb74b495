//! What a process of the hub shows to the one that leads: a certificate that it makes for itself from the CA's key,
//! which lies in the database that they share.

use std::time::Duration;

use llm_config_proto::tls;
use llm_config_shared::time::UnixMillis;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, SanType};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::ca::{Ca, CaError, pem_of};
use super::issue::{leaf, only_uri};

/// One is made for each connection.
const LIFE: Duration = Duration::from_hours(1);
/// Edges' names begin with `spiffe://llm-config/t/`, whatever they are called.
const PREFIX: &str = "spiffe://llm-config/hub/";

/// A certificate is of no process of this hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client certificate is not one of a process of this hub")]
pub struct NotAProcess;

/// Which process a certificate names (DER, verified against the CA by the TLS layer).
///
/// # Errors
/// When it does not have exactly one name, of the form of a process.
pub fn process_of_certificate(certificate: &[u8]) -> Result<Uuid, NotAProcess> {
    let uri = only_uri(certificate).ok_or(NotAProcess)?;
    let id = uri.strip_prefix(PREFIX).and_then(|id| Uuid::try_parse(id).ok()).ok_or(NotAProcess)?;
    if name(id) == uri { Ok(id) } else { Err(NotAProcess) }
}

fn name(process: Uuid) -> String {
    format!("{PREFIX}{process}")
}

impl Ca {
    /// A short-lived client certificate, with a key of its own, for a process of this hub.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn issue_process(&self, process: Uuid, now: UnixMillis) -> Result<tls::Identity, CaError> {
        let key = KeyPair::generate()?;
        let name = SanType::URI(name(process).try_into()?);
        let params = leaf(vec![name], ExtendedKeyUsagePurpose::ClientAuth, now, LIFE);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        Ok(tls::Identity { chain_pem: pem_of(certificate.der()), key_pem })
    }
}

#[cfg(test)]
mod tests {
    use llm_config_shared::name::Tenant;
    use llm_config_shared::stamp::ActorId;
    use rcgen::PublicKeyData as _;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    use super::*;
    use crate::identity::issue::EdgeIdentity;

    const NOW: UnixMillis = UnixMillis(1_795_000_000_000);

    #[test]
    fn a_process_is_no_edge_and_an_edge_no_process() {
        let (ca, process) = (Ca::create(NOW).unwrap(), Uuid::new_v4());
        let made = ca.issue_process(process, NOW).unwrap();
        let certificate = CertificateDer::from_pem_slice(made.chain_pem.as_bytes()).unwrap();
        assert_eq!(process_of_certificate(&certificate), Ok(process));
        assert!(EdgeIdentity::of_certificate(&certificate).is_err());

        let key = KeyPair::generate().unwrap().subject_public_key_info();
        for tenant in ["hub", "t", "default"] {
            let edge = EdgeIdentity { tenant: Tenant::parse(tenant).unwrap(), id: ActorId(process) };
            let certificate = ca.issue_edge(&edge, &key, NOW).unwrap();
            assert_eq!(process_of_certificate(&certificate), Err(NotAProcess), "tenant {tenant}");
        }
        let server = ca.issue_server(&[], NOW).unwrap();
        assert_eq!(process_of_certificate(&server.chain[0]), Err(NotAProcess));
    }
}
