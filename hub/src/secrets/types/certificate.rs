//! X.509 certificates with their private key: `certificate`, `key`, `chain`.

use llm_config_shared::time::UnixMillis;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::document::{Document, seconds};
use super::{Checked, armour, invalid};

/// Certificate and key belong together; the expiry is that of the certificate, or of the first in its chain to expire.
pub(super) fn check(document: &Document) -> Checked<Option<UnixMillis>> {
    let own = parts("certificate", document.text("certificate")?)?;
    let key = armour::signing_key("key", document.text("key")?)?;
    let (_, certificate) = X509Certificate::from_der(&own[0]).map_err(|_| damaged("certificate"))?;
    let matches = key.public_key().is_some_and(|public| *public == *certificate.public_key().raw);
    if !matches {
        return Err(invalid("key", "is not the private key of the certificate"));
    }
    let chain = document.optional_text("chain")?.map(|chain| parts("chain", chain)).transpose()?;
    let mut earliest = expiry("certificate", &own)?;
    if let Some(chain) = chain {
        earliest = earliest.min(expiry("chain", &chain)?);
    }
    Ok(Some(earliest))
}

/// At least one.
fn parts(field: &'static str, pem: &str) -> Checked<Vec<CertificateDer<'static>>> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let parsed = parsed.ok().filter(|all| !all.is_empty());
    parsed.ok_or_else(|| invalid(field, "must be certificates in PEM"))
}

fn expiry(field: &'static str, certificates: &[CertificateDer<'_>]) -> Checked<UnixMillis> {
    let mut earliest = UnixMillis(i64::MAX as u64);
    for der in certificates {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| damaged(field))?;
        let not_after = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        earliest = earliest.min(seconds(not_after).unwrap_or(earliest));
    }
    Ok(earliest)
}

fn damaged(field: &'static str) -> super::InvalidSecret {
    invalid(field, "holds a certificate that cannot be read")
}

#[cfg(test)]
mod tests {
    use llm_config_shared::secret::{SecretType, Told};
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use serde_json::json;

    use super::super::examined;
    use super::*;

    const TYPE: Told = Told { secret_type: SecretType::X509Certificate, expires_at: None };

    fn pair(year: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["canary.example".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_expires_when_it_says_and_no_later_than_its_chain() {
        let ((certificate, key), (issuer, _)) = (pair(2031), pair(2029));
        let expiry = |document: serde_json::Value| examined(&document.to_string(), TYPE).unwrap().expires_at;
        let alone = json!({"certificate": certificate, "key": key});
        assert_eq!(expiry(alone), UnixMillis::parse_rfc3339("2031-01-01T00:00:00Z"));
        let chained = json!({"certificate": certificate, "key": key, "chain": issuer});
        assert_eq!(expiry(chained), UnixMillis::parse_rfc3339("2029-01-01T00:00:00Z"));
    }

    #[test]
    fn what_does_not_belong_together_is_refused_by_its_member() {
        let ((certificate, key), (_, other)) = (pair(2031), pair(2031));
        for (document, field) in [
            (json!({"certificate": certificate, "key": other}), "key"),
            (json!({"certificate": certificate, "key": certificate}), "key"),
            (json!({"certificate": key, "key": key}), "certificate"),
            (json!({"certificate": "canary", "key": key}), "certificate"),
            (json!({"certificate": certificate, "key": key, "chain": "canary"}), "chain"),
            (json!({"key": key}), "certificate"),
        ] {
            let refused = examined(&document.to_string(), TYPE).unwrap_err();
            assert_eq!(refused.field(), field, "{refused}");
            assert!(!refused.to_string().contains("canary"));
        }
    }
}
