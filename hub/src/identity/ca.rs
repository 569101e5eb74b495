//! The hub's own certificate authority: created once, its key only ever stored wrapped.

use std::time::{Duration, SystemTime};

use llm_config_proto::key_statement::KeyStatement;
use llm_config_shared::time::UnixMillis;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SigningKey as _,
};
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

/// How long before its issue a certificate is already valid, for machines whose clock is behind.
pub(super) const BACKDATED: Duration = Duration::from_hours(48);
const LIFE: Duration = Duration::from_hours(10 * 365 * 24);

/// Issues certificates for this hub and its edges, and vouches for the keys that sign what is sent.
pub struct Ca {
    certificate: CertificateDer<'static>,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

/// Why a certificate or a CA could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("the stored certificate authority cannot be read")]
    Stored,
    #[error("a certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
}

impl Ca {
    /// A new authority for certificates of leaves only.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn create(now: UnixMillis) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        // Chains are looked up by name: that of another hub must not look the same.
        let name = format!("LLM Config hub CA {}", uuid::Uuid::new_v4().simple());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let now = system_time(now);
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + LIFE).into();
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Certificate and private key, to be wrapped and stored.
    pub fn to_stored(&self) -> Zeroizing<Vec<u8>> {
        let length = u32::try_from(self.certificate.len()).expect("a certificate is below 4 GiB");
        let key = self.issuer.key().serialized_der();
        let mut stored = Zeroizing::new(Vec::with_capacity(4 + self.certificate.len() + key.len()));
        stored.extend_from_slice(&length.to_be_bytes());
        stored.extend_from_slice(&self.certificate);
        stored.extend_from_slice(key);
        stored
    }

    /// The inverse of [`Ca::to_stored`].
    ///
    /// # Errors
    /// When the bytes are others.
    pub fn from_stored(stored: &[u8]) -> Result<Self, CaError> {
        let (length, rest) = stored.split_first_chunk::<4>().ok_or(CaError::Stored)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (certificate, key) = rest.split_at_checked(length).ok_or(CaError::Stored)?;
        let certificate = CertificateDer::from(certificate.to_vec());
        let key = KeyPair::try_from(key).map_err(|_| CaError::Stored)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|_| CaError::Stored)?;
        Ok(Self { certificate, issuer })
    }

    /// The CA's own certificate: what edges trust, and nothing else.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate as text.
    pub fn pem(&self) -> String {
        pem_of(&self.certificate)
    }

    /// SHA-256 of the certificate, as join tokens carry it.
    pub fn fingerprint(&self) -> [u8; 32] {
        digest(&SHA256, &self.certificate).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// The signature under a statement's body.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn sign_statement(&self, body: &[u8]) -> Result<Vec<u8>, CaError> {
        Ok(self.issuer.key().sign(&KeyStatement::signed_bytes(body))?)
    }
}

/// A certificate as text (RFC 7468).
pub fn pem_of(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

pub(super) fn system_time(at: UnixMillis) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(at.0)
}

#[cfg(test)]
mod tests {
    use llm_config_proto::key_statement::{InvalidStatement, VerificationKey};
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_000_000_000);

    #[test]
    fn an_authority_survives_storage_and_signs_the_same() {
        let ca = Ca::create(NOW).unwrap();
        let again = Ca::from_stored(&ca.to_stored()).unwrap();
        assert_eq!(ca.certificate(), again.certificate());
        assert_eq!(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap(), *ca.certificate());

        let statement = KeyStatement { issued_at: NOW, keys: vec![VerificationKey::new([1; 32])] };
        let body = statement.encode();
        let signature = again.sign_statement(&body).unwrap();
        assert_eq!(KeyStatement::verify(ca.certificate(), &body, &signature), Ok(statement));
        let stranger = Ca::create(NOW).unwrap();
        assert_eq!(
            KeyStatement::verify(stranger.certificate(), &body, &signature),
            Err(InvalidStatement::Signature)
        );
        let mut changed = body;
        changed[20] ^= 1;
        assert_eq!(
            KeyStatement::verify(ca.certificate(), &changed, &signature),
            Err(InvalidStatement::Signature)
        );
    }

    #[test]
    fn a_cut_store_is_refused() {
        let stored = Ca::create(NOW).unwrap().to_stored();
        for length in [0, 3, 4, 100, stored.len() - 1] {
            assert!(Ca::from_stored(&stored[..length]).is_err(), "cut at {length}");
        }
    }
}
