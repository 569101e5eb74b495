//! JSON web tokens: when one expires (RFC 7519, `exp`), and the keys that sign them (RFC 7518).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use llm_config_shared::time::UnixMillis;
use rustls::SignatureAlgorithm;
use serde::Deserialize;

use super::document::{Document, seconds};
use super::{Checked, armour, invalid};

/// As many bytes as SHA-256 gives: a shorter key is weaker than what it signs with.
const SHARED_KEY_BYTES_MIN: usize = 32;

#[derive(Deserialize)]
struct Claims {
    exp: f64,
}

/// When the token expires, if the text is one and says so. Nobody's signature is checked: it is the author's own.
pub(super) fn expiry_of(text: &str) -> Option<UnixMillis> {
    let mut parts = text.trim().split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !text.starts_with("eyJ") {
        return None;
    }
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    // A float saturates: what is beyond every clock is refused by `seconds`.
    (claims.exp >= 0.0).then_some(claims.exp as u64).and_then(seconds)
}

/// `algorithm`, `key`, `kid`: a private key that fits the algorithm, or for HS… a text that is long enough.
pub(super) fn check_signing_key(document: &Document) -> Checked<Option<UnixMillis>> {
    document.optional_text("kid")?;
    let key = document.text("key")?;
    let wanted = match document.text("algorithm")? {
        "HS256" | "HS384" | "HS512" if key.len() >= SHARED_KEY_BYTES_MIN => return Ok(None),
        "HS256" | "HS384" | "HS512" => return Err(invalid("key", "must have at least 32 bytes")),
        "RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512" => SignatureAlgorithm::RSA,
        "ES256" | "ES384" => SignatureAlgorithm::ECDSA,
        "EdDSA" => SignatureAlgorithm::ED25519,
        _ => {
            let what = "must be HS256 to HS512, RS256 to RS512, PS256 to PS512, ES256, ES384 or EdDSA";
            return Err(invalid("algorithm", what));
        }
    };
    if armour::signing_key("key", key)?.algorithm() != wanted {
        return Err(invalid("key", "is a key of another kind than the algorithm signs with"));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use llm_config_shared::secret::{SecretType, Told};
    use rcgen::{KeyPair, PKCS_ED25519};
    use serde_json::json;

    use super::super::examined;
    use super::*;

    fn token(claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part(r#"{"alg":"HS256"}"#), part(claims), part("signature"))
    }

    #[test]
    fn a_token_says_when_it_expires_wherever_it_stands() {
        let exp = token(r#"{"exp":1700000000}"#);
        let at = Some(UnixMillis(1_700_000_000_000));
        assert_eq!(expiry_of(&exp), at);
        let expiry = |secret_type, text: &str| {
            examined(text, Told { secret_type, expires_at: None }).unwrap().expires_at
        };
        assert_eq!(expiry(SecretType::Generic, &exp), at);
        assert_eq!(expiry(SecretType::OauthToken, &json!({"access_token": exp}).to_string()), at);
        assert_eq!(expiry(SecretType::ApiKey, &json!({"provider": "p", "key": exp}).to_string()), at);
        for text in [
            token("{}"),
            token(r#"{"exp":"soon"}"#),
            token(r#"{"exp":-5}"#),
            token(r#"{"exp":1e300}"#),
            "a.b.c".into(),
        ] {
            assert_eq!(expiry_of(&text), None, "{text}");
        }
    }

    #[test]
    fn a_signing_key_fits_its_algorithm() {
        let told = Told { secret_type: SecretType::JwtSigningKey, expires_at: None };
        let ecdsa = KeyPair::generate().unwrap().serialize_pem();
        let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_pem();
        for (algorithm, key) in [("ES256", &ecdsa), ("EdDSA", &ed25519), ("HS256", &"k".repeat(32))] {
            let document = json!({"algorithm": algorithm, "key": key, "kid": "1"});
            assert_eq!(examined(&document.to_string(), told), Ok(told), "{algorithm}");
        }
        for (algorithm, key, field) in [
            ("RS256", ecdsa.as_str(), "key"),
            ("EdDSA", &ecdsa, "key"),
            ("ES256", "canary", "key"),
            ("HS256", "canary", "key"),
            ("none", &ecdsa, "algorithm"),
        ] {
            let refused =
                examined(&json!({"algorithm": algorithm, "key": key}).to_string(), told).unwrap_err();
            assert_eq!(refused.field(), field, "{algorithm}: {refused}");
        }
    }
}
