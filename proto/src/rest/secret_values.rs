//! The secret in a request: its text or document, its type, and when it expires.

use llm_config_shared::limits::VALUE_BYTES_MAX;
use llm_config_shared::secret::{SecretType, Told};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::value::Value;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::error::ApiError;
use super::service::{NewSecret, NewValue};

/// What a request says of its value beside the value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said<'a> {
    pub(super) secret: Option<bool>,
    pub(super) secret_type: Option<&'a str>,
    pub(super) expires_at: Option<&'a str>,
}

/// The value as it is meant. Whoever says what type of secret it is, or when it expires, means a secret.
pub(super) fn new_value(raw: &RawValue, said: Said<'_>) -> Result<NewValue, ApiError> {
    let typed = [("secret_type", said.secret_type), ("expires_at", said.expires_at)];
    let typed = typed.into_iter().find(|(_, text)| text.is_some());
    match (said.secret, typed) {
        (Some(false), Some((field, _))) => {
            Err(ApiError::unprocessable(format!("{field} is for secrets, and secret is false"))
                .detail("field", field))
        }
        (Some(true), _) | (None, Some(_)) => secret(raw, said).map(NewValue::Secret),
        (said, None) => {
            Ok(NewValue::Plain { value: Value::parse(raw.get())?, over_secret: said == Some(false) })
        }
    }
}

fn secret(raw: &RawValue, said: Said<'_>) -> Result<NewSecret, ApiError> {
    let secret_type = said.secret_type.map_or(Ok(SecretType::Generic), secret_type)?;
    let expires_at = said.expires_at.map(|text| expiry("expires_at", text)).transpose()?;
    let text = text(raw, secret_type)?;
    if text.len() > VALUE_BYTES_MAX {
        let message = format!("value has {} bytes; at most {VALUE_BYTES_MAX} are allowed", text.len());
        return Err(ApiError::too_large(message).detail("field", "value").detail("limit", VALUE_BYTES_MAX));
    }
    Ok(NewSecret { text, told: Told { secret_type, expires_at } })
}

/// A document may stand there itself, or as a text.
fn text(raw: &RawValue, secret_type: SecretType) -> Result<Zeroizing<String>, ApiError> {
    if secret_type != SecretType::Generic && raw.get().starts_with('{') {
        return Ok(Zeroizing::new(Value::parse(raw.get())?.as_str().to_owned()));
    }
    let what = match secret_type {
        SecretType::Generic => "the value of a secret must be a text",
        SecretType::ApiKey
        | SecretType::DatabaseCredentials
        | SecretType::X509Certificate
        | SecretType::SshKey
        | SecretType::OauthToken
        | SecretType::JwtSigningKey => "the value of such a secret must be an object, or one as a text",
    };
    let text = serde_json::from_str::<String>(raw.get()).map(Zeroizing::new);
    text.map_err(|_| ApiError::bad_request(what).detail("field", "value"))
}

fn secret_type(text: &str) -> Result<SecretType, ApiError> {
    SecretType::parse(text).ok_or_else(|| {
        let known: Vec<_> = SecretType::ALL.map(SecretType::as_str).into();
        ApiError::unprocessable(format!("secret_type must be one of {}", known.join(", ")))
            .detail("field", "secret_type")
    })
}

/// A time in the form of RFC 3339.
pub(super) fn expiry(field: &'static str, text: &str) -> Result<UnixMillis, ApiError> {
    UnixMillis::parse_rfc3339(text).ok_or_else(|| {
        ApiError::bad_request(format!("{field} must be a time like 2027-01-31T00:00:00Z"))
            .detail("field", field)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str, said: Said<'_>) -> Result<NewValue, ApiError> {
        new_value(&RawValue::from_string(json.into()).unwrap(), said)
    }

    #[test]
    fn whoever_says_a_type_or_an_expiry_means_a_secret() {
        let said = Said { secret_type: Some("api_key"), ..Said::default() };
        let Ok(NewValue::Secret(secret)) = parsed(r#"{ "key": "k", "a": 1 }"#, said) else { panic!() };
        assert_eq!(
            (secret.text.as_str(), secret.told.secret_type),
            (r#"{"a":1,"key":"k"}"#, SecretType::ApiKey)
        );
        let said = Said { expires_at: Some("2027-01-01T00:00:00Z"), ..Said::default() };
        let Ok(NewValue::Secret(secret)) = parsed("\"x\"", said) else { panic!() };
        assert_eq!(secret.told.expires_at, Some(UnixMillis(1_798_761_600_000)));
        assert!(matches!(parsed("\"x\"", Said::default()), Ok(NewValue::Plain { over_secret: false, .. })));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_never_repeated() {
        let secret = Said { secret: Some(true), ..Said::default() };
        let plain = Said { secret: Some(false), secret_type: Some("ssh_key"), ..Said::default() };
        let unknown = Said { secret_type: Some("canary-type"), ..Said::default() };
        let late = Said { expires_at: Some("canary-time"), ..Said::default() };
        let typed = Said { secret_type: Some("ssh_key"), ..Said::default() };
        let cases = [
            ("1", secret),
            ("\"canary\"", plain),
            ("\"x\"", unknown),
            ("\"x\"", late),
            ("[\"canary\"]", typed),
        ];
        for (json, said) in cases {
            let refused = parsed(json, said).unwrap_err();
            assert!(
                !refused.message.contains("canary") && refused.details.contains_key("field"),
                "{refused:?}"
            );
        }
    }
}
