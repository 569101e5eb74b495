//! Certificates: what the hub writes into them, and how it reads an edge's identity back.
//!
//! Of a request only the public key is taken. Everything else that a certificate says, the hub says.

use std::time::Duration;

use llm_config_proto::tls::HUB_SERVER_NAME;
use llm_config_shared::name::Tenant;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::time::UnixMillis;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use uuid::Uuid;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::ca::{BACKDATED, Ca, CaError, system_time};

/// Life of an edge's certificate; it renews at half of it.
pub const EDGE_LIFE: Duration = Duration::from_hours(24);
/// Life of the hub's server certificate; the process replaces it at half of it.
pub const SERVER_LIFE: Duration = Duration::from_hours(30 * 24);

const SPIFFE_PREFIX: &str = "spiffe://llm-config/t/";

/// Who an edge is, as its certificate says and the hub wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeIdentity {
    pub tenant: Tenant,
    pub id: ActorId,
}

/// A certificate names no edge of this hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client certificate does not name an edge")]
pub struct NotAnEdge;

/// A fresh certificate with its private key, and the CA's behind it, so that who joins can compare the fingerprint.
pub struct ServerCertificate {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: KeyPair,
    pub not_after: UnixMillis,
}

impl EdgeIdentity {
    /// The one name in an edge's certificate.
    pub fn uri(&self) -> String {
        format!("{SPIFFE_PREFIX}{}/edge/{}", self.tenant, self.id.0)
    }

    /// The inverse of [`EdgeIdentity::uri`]: no other spelling is taken.
    pub fn parse(uri: &str) -> Option<Self> {
        let (tenant, id) = uri.strip_prefix(SPIFFE_PREFIX)?.split_once("/edge/")?;
        let identity = Self { tenant: Tenant::parse(tenant).ok()?, id: ActorId(Uuid::try_parse(id).ok()?) };
        (identity.uri() == uri).then_some(identity)
    }

    /// Reads the identity from a certificate (DER) that the TLS layer has verified against the hub's CA.
    ///
    /// # Errors
    /// When it does not have exactly one name, of the form that [`EdgeIdentity::uri`] writes.
    pub fn of_certificate(certificate: &[u8]) -> Result<Self, NotAnEdge> {
        only_uri(certificate).and_then(|uri| Self::parse(&uri)).ok_or(NotAnEdge)
    }
}

impl Ca {
    /// A client certificate for an edge's key. `public_key` (SubjectPublicKeyInfo, DER) was checked with its proof of
    /// possession.
    ///
    /// # Errors
    /// When the key is of a kind that certificates cannot carry.
    pub fn issue_edge(
        &self,
        edge: &EdgeIdentity,
        public_key: &[u8],
        now: UnixMillis,
    ) -> Result<CertificateDer<'static>, CaError> {
        let name = SanType::URI(edge.uri().try_into()?);
        let params = leaf(vec![name], ExtendedKeyUsagePurpose::ClientAuth, now, EDGE_LIFE);
        let public_key = SubjectPublicKeyInfo::from_der(public_key)?;
        Ok(params.signed_by(&public_key, &self.issuer)?.der().clone())
    }

    /// A server certificate for this hub with a new key, for [`HUB_SERVER_NAME`], `localhost` and `names` (host names or
    /// addresses).
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn issue_server(&self, names: &[String], now: UnixMillis) -> Result<ServerCertificate, CaError> {
        let mut all = vec![HUB_SERVER_NAME.to_owned(), "localhost".to_owned()];
        all.extend(names.iter().filter(|name| !all.contains(name)).cloned().collect::<Vec<_>>());
        let names = CertificateParams::new(all)?.subject_alt_names;
        let key = KeyPair::generate()?;
        let params = leaf(names, ExtendedKeyUsagePurpose::ServerAuth, now, SERVER_LIFE);
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        Ok(ServerCertificate {
            chain: vec![certificate, self.certificate().clone()],
            key,
            not_after: UnixMillis(now.0 + SERVER_LIFE.as_millis() as u64),
        })
    }
}

/// The name of a certificate (DER) that has exactly one, a URI.
pub(super) fn only_uri(certificate: &[u8]) -> Option<String> {
    let (_, leaf) = X509Certificate::from_der(certificate).ok()?;
    let names = leaf.subject_alternative_name().ok().flatten()?;
    match names.value.general_names.as_slice() {
        [GeneralName::URI(uri)] => Some((*uri).to_owned()),
        _ => None,
    }
}

/// Every field that rcgen would fill with something else is set.
pub(super) fn leaf(
    names: Vec<SanType>,
    usage: ExtendedKeyUsagePurpose,
    now: UnixMillis,
    life: Duration,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.subject_alt_names = names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let now = system_time(now);
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + life).into();
    params
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData as _;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_000_000_000);

    fn identity() -> EdgeIdentity {
        EdgeIdentity { tenant: Tenant::parse("acme").unwrap(), id: ActorId(Uuid::from_u128(7)) }
    }

    #[test]
    fn an_edge_certificate_says_only_what_the_hub_says() {
        let ca = Ca::create(NOW).unwrap();
        let key = KeyPair::generate().unwrap();
        let der = ca.issue_edge(&identity(), &key.subject_public_key_info(), NOW).unwrap();
        assert_eq!(EdgeIdentity::of_certificate(&der), Ok(identity()));

        let (_, leaf) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(leaf.subject().iter().count(), 0);
        assert_eq!(leaf.public_key().raw, key.subject_public_key_info());
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
        assert!(!leaf.is_ca());
        let seconds = (NOW.0 / 1_000) as i64;
        assert_eq!(leaf.validity().not_before.timestamp(), seconds - 48 * 3_600);
        assert_eq!(leaf.validity().not_after.timestamp(), seconds + 24 * 3_600);
    }

    #[test]
    fn a_server_certificate_is_no_edge_and_carries_its_issuer() {
        let ca = Ca::create(NOW).unwrap();
        let server = ca.issue_server(&["10.0.0.7".into(), "hub.example.com".into()], NOW).unwrap();
        assert_eq!(server.chain[1], *ca.certificate());
        assert_eq!(EdgeIdentity::of_certificate(&server.chain[0]), Err(NotAnEdge));
        let (_, leaf) = X509Certificate::from_der(&server.chain[0]).unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        let expected = [
            GeneralName::DNSName(HUB_SERVER_NAME),
            GeneralName::DNSName("localhost"),
            GeneralName::IPAddress(&[10, 0, 0, 7]),
            GeneralName::DNSName("hub.example.com"),
        ];
        assert_eq!(names.value.general_names, expected);
    }

    #[test]
    fn only_one_spelling_of_an_identity_is_taken() {
        assert_eq!(EdgeIdentity::parse(&identity().uri()), Some(identity()));
        let id = identity().id.0;
        for uri in [
            format!("spiffe://llm-config/t/acme/edge/{}", id.simple()),
            format!("spiffe://llm-config/t/acme/edge/{id}/x"),
            format!("spiffe://llm-config/t/acme/x/edge/{id}"),
            format!("spiffe://llm-config/t//edge/{id}"),
            format!("spiffe://other/t/acme/edge/{id}"),
        ] {
            assert_eq!(EdgeIdentity::parse(&uri), None, "{uri}");
        }
    }
}
