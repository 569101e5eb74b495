//! A new value for a secret: random characters, in the member that its type has for them.

use std::sync::Arc;

use llm_config_shared::secret::SecretType;
use ring::rand::SecureRandom;
use serde_json::Value as Json;
use zeroize::Zeroizing;

/// Bounds of a generated text.
pub const LENGTH_MIN: u32 = 16;
/// See [`LENGTH_MIN`].
pub const LENGTH_MAX: u32 = 512;
/// What a generated text is made of unless something else is asked for.
pub const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Why there is no new value. Never tells the old one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotProduced {
    #[error("a secret of type {0} cannot be generated; rotate it by a command")]
    Type(&'static str),
    #[error("the old value is not a document of its type")]
    Document,
    #[error("the system has no randomness")]
    NoRandomness,
    #[error("there is no command {0} in hub.toml any more")]
    NoCommand(Arc<str>),
    #[error("the command {name} {what}")]
    Command { name: Arc<str>, what: String },
    #[error("the service {name} {what}")]
    Webhook { name: Arc<str>, what: String },
    #[error("the new value is not one of its type: {0}")]
    Invalid(String),
}

/// The member that is replaced; none where the whole text is the value.
fn member(secret_type: SecretType, document: &Json) -> Result<Option<&'static str>, NotProduced> {
    match secret_type {
        SecretType::Generic => Ok(None),
        SecretType::ApiKey => Ok(Some("key")),
        SecretType::DatabaseCredentials => Ok(Some("password")),
        // Only a shared key is nothing but random.
        SecretType::JwtSigningKey
            if document["algorithm"].as_str().is_some_and(|name| name.starts_with("HS")) =>
        {
            Ok(Some("key"))
        }
        SecretType::X509Certificate
        | SecretType::SshKey
        | SecretType::OauthToken
        | SecretType::JwtSigningKey => Err(NotProduced::Type(secret_type.as_str())),
    }
}

/// The old value with a random text in its place.
///
/// # Errors
/// When its type has no such place.
pub(super) fn generated(
    secret_type: SecretType,
    old: &str,
    length: u32,
    alphabet: &str,
    random: &impl SecureRandom,
) -> Result<Zeroizing<String>, NotProduced> {
    let text = characters(length, alphabet, random)?;
    if secret_type == SecretType::Generic {
        return Ok(text);
    }
    let mut document: Json = serde_json::from_str(old).map_err(|_| NotProduced::Document)?;
    let Some(member) = member(secret_type, &document)? else { return Ok(text) };
    let place = document.get_mut(member).ok_or(NotProduced::Document)?;
    *place = Json::String(text.to_string());
    Ok(Zeroizing::new(document.to_string()))
}

/// Each character equally likely: bytes beyond the last whole multiple of the alphabet are drawn again.
fn characters(
    length: u32,
    alphabet: &str,
    random: &impl SecureRandom,
) -> Result<Zeroizing<String>, NotProduced> {
    let alphabet = alphabet.as_bytes();
    let fair = 256 - 256 % alphabet.len();
    let mut text = Zeroizing::new(String::with_capacity(length as usize));
    let mut drawn = Zeroizing::new([0; 64]);
    while text.len() < length as usize {
        random.fill(&mut drawn[..]).map_err(|_| NotProduced::NoRandomness)?;
        let fair = drawn.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < fair);
        let left = length as usize - text.len();
        text.extend(fair.take(left).map(|byte| char::from(alphabet[byte % alphabet.len()])));
    }
    Ok(text)
}

/// Whether texts can be made of it: different printable characters, and not so few that they could be guessed.
pub fn is_alphabet(text: &str) -> bool {
    let bytes = text.as_bytes();
    let twice = bytes.iter().enumerate().any(|(n, byte)| bytes[..n].contains(byte));
    (10..=94).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic) && !twice
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    fn new(secret_type: SecretType, old: &str) -> Result<String, NotProduced> {
        generated(secret_type, old, 40, ALPHABET, &SystemRandom::new()).map(|text| text.to_string())
    }

    #[test]
    fn a_generated_text_has_its_length_and_alphabet_and_is_another_each_time() {
        let (one, two) = (new(SecretType::Generic, "old").unwrap(), new(SecretType::Generic, "old").unwrap());
        assert!(one.len() == 40 && one.bytes().all(|byte| ALPHABET.as_bytes().contains(&byte)));
        assert_ne!(one, two);
        let digits = characters(512, "0123456789", &SystemRandom::new()).unwrap();
        assert!(('0'..='9').all(|digit| digits.contains(digit)), "every one of ten in 512");
    }

    #[test]
    fn only_the_secret_member_of_a_document_changes() {
        let old = r#"{"username":"u","password":"old","port":5432}"#;
        let document: Json =
            serde_json::from_str(&new(SecretType::DatabaseCredentials, old).unwrap()).unwrap();
        assert_eq!((&document["username"], &document["port"]), (&"u".into(), &5432.into()));
        assert_eq!(document["password"].as_str().unwrap().len(), 40);
        assert!(new(SecretType::JwtSigningKey, r#"{"algorithm":"HS256","key":"old"}"#).is_ok());
        for (secret_type, old) in [
            (SecretType::JwtSigningKey, r#"{"algorithm":"ES256","key":"old"}"#),
            (SecretType::SshKey, r#"{"private_key":"old"}"#),
        ] {
            assert_eq!(new(secret_type, old), Err(NotProduced::Type(secret_type.as_str())));
        }
        assert_eq!(new(SecretType::ApiKey, "old"), Err(NotProduced::Document));
    }

    #[test]
    fn an_alphabet_is_of_different_printable_characters() {
        assert!(is_alphabet(ALPHABET) && is_alphabet("0123456789"));
        for text in ["", "012345678", "0123456789 ", "00123456789", "0123456789é"] {
            assert!(!is_alphabet(text), "{text:?}");
        }
    }
}
