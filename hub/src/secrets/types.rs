//! Types of secrets: what the document of each has to hold, and when it says that it expires.
//!
//! A refusal names the member that is wrong and why, in words that were written here: never what it holds.

use llm_config_shared::secret::{SecretType, Told};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::value::Value;

mod armour;
mod certificate;
mod document;
mod jwt;
mod ssh;

use document::Document;

/// Why a secret is not one of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {what}")]
pub struct InvalidSecret {
    field: &'static str,
    what: &'static str,
}

impl InvalidSecret {
    /// The member of the document, or `value` for all of it.
    pub fn field(&self) -> &'static str {
        self.field
    }
}

fn invalid(field: &'static str, what: &'static str) -> InvalidSecret {
    InvalidSecret { field, what }
}

type Checked<T> = Result<T, InvalidSecret>;

/// What is told of the secret, when its content has been looked at: it expires when its author says or when its content
/// does, whichever is earlier.
///
/// # Errors
/// When the text is not what its type says.
pub fn examined(text: &str, said: Told) -> Checked<Told> {
    let found = match said.secret_type {
        SecretType::Generic => jwt::expiry_of(text),
        SecretType::ApiKey => api_key(&document(text)?)?,
        SecretType::DatabaseCredentials => database_credentials(&document(text)?)?,
        SecretType::X509Certificate => certificate::check(&document(text)?)?,
        SecretType::SshKey => ssh::check(&document(text)?)?,
        SecretType::OauthToken => oauth_token(&document(text)?)?,
        SecretType::JwtSigningKey => jwt::check_signing_key(&document(text)?)?,
    };
    let earliest = [said.expires_at, found].into_iter().flatten().min();
    Ok(Told { expires_at: earliest, ..said })
}

fn document(text: &str) -> Checked<Document> {
    let refused = || invalid("value", "must be a JSON object, with no member twice");
    let value = Value::parse(text).map_err(|_| refused())?;
    serde_json::from_str(value.as_str()).map(Document).map_err(|_| refused())
}

fn api_key(document: &Document) -> Checked<Option<UnixMillis>> {
    document.text("provider")?;
    document.texts("scopes")?;
    Ok(jwt::expiry_of(document.text("key")?))
}

fn database_credentials(document: &Document) -> Checked<Option<UnixMillis>> {
    document.text("username")?;
    document.text("password")?;
    document.optional_text("host")?;
    document.optional_text("database")?;
    match document.number("port")? {
        None | Some(1..=65_535) => Ok(None),
        Some(_) => Err(invalid("port", "must be from 1 to 65535")),
    }
}

/// `expires_at` is a time in RFC 3339 or in seconds since 1970; without it, a JSON web token says it itself.
fn oauth_token(document: &Document) -> Checked<Option<UnixMillis>> {
    let token = document.text("access_token")?;
    document.optional_text("refresh_token")?;
    document.optional_text("token_type")?;
    document.texts("scopes")?;
    Ok(document.time("expires_at")?.or_else(|| jwt::expiry_of(token)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(secret_type: SecretType) -> Told {
        Told { secret_type, expires_at: None }
    }

    fn refused(secret_type: SecretType, text: &str) -> &'static str {
        let refused = examined(text, told(secret_type)).expect_err(text);
        assert!(!refused.to_string().contains("canary"), "{refused}");
        refused.field()
    }

    #[test]
    fn an_api_key_has_a_provider_and_a_key() {
        let whole = r#"{"provider":"openai","key":"sk-canary","scopes":["chat"]}"#;
        assert_eq!(examined(whole, told(SecretType::ApiKey)), Ok(told(SecretType::ApiKey)));
        let cases = [
            (r#"{"provider":"canary"}"#, "key"),
            (r#"{"key":"canary"}"#, "provider"),
            (r#"{"provider":"p","key":""}"#, "key"),
            (r#"{"provider":"p","key":{"canary":1}}"#, "key"),
            (r#"{"provider":"p","key":"k","scopes":"canary"}"#, "scopes"),
            (r#"{"provider":"p","provider":"canary","key":"k"}"#, "value"),
            ("sk-canary", "value"),
            ("[\"canary\"]", "value"),
        ];
        for (text, field) in cases {
            assert_eq!(refused(SecretType::ApiKey, text), field, "{text}");
        }
    }

    #[test]
    fn credentials_of_a_database_have_a_user_and_a_password() {
        let whole = r#"{"username":"u","password":"canary","host":"db","port":5432,"database":"d"}"#;
        assert!(examined(whole, told(SecretType::DatabaseCredentials)).is_ok());
        let cases = [
            (r#"{"username":"u"}"#, "password"),
            (r#"{"username":"u","password":"canary","port":70000}"#, "port"),
            (r#"{"username":"u","password":"canary","port":"5432"}"#, "port"),
        ];
        for (text, field) in cases {
            assert_eq!(refused(SecretType::DatabaseCredentials, text), field, "{text}");
        }
    }

    #[test]
    fn the_earlier_of_two_expiries_counts() {
        let said = |ms| Told { secret_type: SecretType::OauthToken, expires_at: Some(UnixMillis(ms)) };
        let text = r#"{"access_token":"canary","expires_at":1700000000}"#;
        let expiry = |ms| examined(text, said(ms)).unwrap().expires_at;
        assert_eq!(expiry(1), Some(UnixMillis(1)));
        assert_eq!(expiry(u64::MAX >> 1), Some(UnixMillis(1_700_000_000_000)));
        let written = r#"{"access_token":"canary","expires_at":"2023-11-14T22:13:20Z"}"#;
        assert_eq!(
            examined(written, said(u64::MAX >> 1)).unwrap().expires_at,
            Some(UnixMillis(1_700_000_000_000))
        );
        assert_eq!(
            refused(SecretType::OauthToken, r#"{"access_token":"t","expires_at":"canary"}"#),
            "expires_at"
        );
        assert_eq!(refused(SecretType::OauthToken, r#"{"refresh_token":"canary"}"#), "access_token");
    }

    #[test]
    fn any_text_is_a_generic_secret() {
        for text in ["", "{", "sk-canary", "a.b.c"] {
            assert_eq!(examined(text, Told::default()), Ok(Told::default()), "{text}");
        }
    }
}
