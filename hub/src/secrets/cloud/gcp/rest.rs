//! JSON over HTTPS: one request, one answer of a bounded size.

use std::ops::Deref;
use std::time::Duration;

use http::Uri;
use reqwest::RequestBuilder;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::super::error::CloudReason;
use super::super::service::{Failed, away};
use crate::config::is_this_machine;

/// Longer is no answer of a key management.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A secret within JSON, which is wiped and has no `Debug`.
#[derive(Clone)]
pub(super) struct Hidden(Zeroizing<String>);

impl Hidden {
    pub(super) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl Deref for Hidden {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

/// What a cloud said. It may hold a key, so it is wiped.
pub(super) struct Answer {
    pub(super) status: u16,
    /// How long it wants to be left alone.
    pub(super) asked: Option<Duration>,
    body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// None where it is something else.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// Sends it once.
pub(super) async fn send(request: RequestBuilder) -> Result<Answer, Failed> {
    let mut answer = request.send().await.map_err(|error| {
        away(if error.is_connect() { CloudReason::Unreachable } else { CloudReason::NoAnswer })
    })?;
    let asked =
        answer.headers().get("retry-after").and_then(|after| after.to_str().ok()?.trim().parse().ok());
    let (status, asked) = (answer.status().as_u16(), asked.map(Duration::from_secs));
    let mut body = Zeroizing::new(Vec::with_capacity(ANSWER_BYTES_MAX));
    while let Some(chunk) = answer.chunk().await.map_err(|_| away(CloudReason::NoAnswer))? {
        // It never grows, so that no copy of a part of it stays behind.
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(away(CloudReason::NoAnswer));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, asked, body })
}

/// A request's body.
pub(super) trait Body: Sized {
    /// As JSON.
    fn with_json(self, body: &impl Serialize) -> Self;
    /// As a web form.
    fn with_form(self, fields: &[(&str, &str)]) -> Self;
}

impl Body for RequestBuilder {
    fn with_json(self, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("texts and numbers are JSON");
        self.header("content-type", "application/json").body(body)
    }

    fn with_form(self, fields: &[(&str, &str)]) -> Self {
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        self.header("content-type", "application/x-www-form-urlencoded").body(pairs.join("&"))
    }
}

/// What has no meaning of its own in an address or a form.
fn escaped(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

/// Whether a secret may be sent there: over TLS, or within this machine.
pub(super) fn is_safe(address: &str) -> bool {
    let Ok(uri) = address.parse::<Uri>() else { return false };
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => true,
        (Some("http"), Some(host)) => is_this_machine(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_travel_over_tls_or_not_far() {
        for safe in ["https://oauth2.googleapis.com/token", "http://127.0.0.1:1/t", "http://localhost/t"] {
            assert!(is_safe(safe), "{safe}");
        }
        for open in ["http://oauth2.googleapis.com/token", "ftp://127.0.0.1/", "/token", "http://10.0.0.1/"] {
            assert!(!is_safe(open), "{open}");
        }
    }

    #[test]
    fn a_field_of_a_form_means_nothing_but_itself() {
        assert_eq!(escaped("//iam.x/a b&c=d+é~"), "%2F%2Fiam.x%2Fa%20b%26c%3Dd%2B%C3%A9~");
    }
}
