//! A new value from a service that hub.toml names, asked over HTTPS and signed as Standard Webhooks has it
//! (`webhook-id`, `webhook-timestamp`, `webhook-signature`), so that the service can check it with a library.
//!
//! Only whoever runs the hub says where it may go: a plan names a service by its name there, so that no administrator of a
//! tenant can make the hub ask in its own network.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use llm_config_shared::limits::VALUE_BYTES_MAX;
use llm_config_shared::time::UnixMillis;
use reqwest::{Certificate, Client, Response, StatusCode, redirect};
use ring::hmac;
use serde_json::Value as Json;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::produce::NotProduced;

/// Longer no service takes. One that needs more says 202 and is asked again, under the same id.
const TIME_MAX: Duration = Duration::from_secs(30);
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A value in JSON may be longer than itself: each of its bytes may be escaped.
const ANSWER_BYTES_MAX: usize = 6 * VALUE_BYTES_MAX + 1_024;
/// What begins a secret of Standard Webhooks.
const SECRET_PREFIX: &str = "whsec_";
/// As Standard Webhooks has it.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A service and what it knows the hub by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// `https://…`; `http://` to this machine alone.
    pub url: String,
    /// Holds `whsec_` and the key in base64. It is read at each request, so it can be changed under a running hub.
    pub secret_file: PathBuf,
    /// What certificates are trusted besides the system's.
    pub ca_cert: Option<PathBuf>,
}

/// Asks for the value of one rotation. However often it is asked, `rotation` is the same.
///
/// # Errors
/// When there is no value, or not yet. What the service said besides is not kept: it may hold anything.
pub(super) async fn ask(
    name: &Arc<str>,
    webhook: &Webhook,
    rotation: Uuid,
    told: Zeroizing<Vec<u8>>,
    now: UnixMillis,
) -> Result<Zeroizing<String>, NotProduced> {
    let failed = |what: String| NotProduced::Webhook { name: Arc::clone(name), what };
    let key = secret(&webhook.secret_file).map_err(failed)?;
    let client = client(webhook).map_err(failed)?;
    let (id, timestamp) = (rotation.to_string(), (now.0 / 1_000).to_string());
    let request = client
        .post(&webhook.url)
        .header("content-type", "application/json")
        .header("webhook-signature", signature(&key, &id, &timestamp, &told))
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .body(told.to_vec());
    // The client's own words may hold the address with all that is in it.
    let answer = request.send().await.map_err(|error| {
        let what = if error.is_timeout() { "did not answer in time" } else { "cannot be reached" };
        failed(what.to_owned())
    })?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::ACCEPTED => return Err(failed("has no value yet".to_owned())),
        status => return Err(failed(format!("answered {}", status.as_u16()))),
    }
    let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        return Err(failed("answered something else than application/json".to_owned()));
    }
    let body = read(answer).await.map_err(|what| failed(what.to_owned()))?;
    let Ok(Json::Object(mut members)) = serde_json::from_slice(&body) else {
        return Err(failed("answered no JSON object".to_owned()));
    };
    match members.remove("value") {
        Some(Json::String(value)) if (1..=VALUE_BYTES_MAX).contains(&value.len()) => {
            Ok(Zeroizing::new(value))
        }
        _ => Err(failed("answered without a text \"value\" of a value's size".to_owned())),
    }
}

async fn read(mut answer: Response) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let mut body = Zeroizing::new(Vec::new());
    while let Some(chunk) = answer.chunk().await.map_err(|_| "ended in the middle of its answer")? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err("said more than a value may hold");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// One that goes where it was sent and nowhere else.
fn client(webhook: &Webhook) -> Result<Client, String> {
    let mut builder =
        Client::builder().timeout(TIME_MAX).connect_timeout(CONNECT_MAX).redirect(redirect::Policy::none());
    if let Some(path) = &webhook.ca_cert {
        let pem = std::fs::read(path).map_err(|error| format!("needs {}: {error}", path.display()))?;
        let trusted = Certificate::from_pem_bundle(&pem);
        let trusted = trusted.map_err(|_| format!("needs {}, which holds no certificate", path.display()))?;
        builder = builder.tls_certs_merge(trusted);
    }
    builder.build().map_err(|_| "cannot be asked: TLS cannot be set up".to_owned())
}

fn secret(path: &std::path::Path) -> Result<hmac::Key, String> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|error| format!("needs its secret in {}: {error}", path.display()))?;
    let bytes = text.trim().strip_prefix(SECRET_PREFIX).and_then(|rest| STANDARD.decode(rest).ok());
    let bytes = bytes.map(Zeroizing::new).filter(|bytes| SECRET_BYTES.contains(&bytes.len()));
    let bytes = bytes.ok_or_else(|| {
        format!("needs its secret in {}: whsec_ and 24 to 64 bytes in base64", path.display())
    })?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn signature(key: &hmac::Key, id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut signing = hmac::Context::with_key(key);
    signing.update(format!("{id}.{timestamp}.").as_bytes());
    signing.update(body);
    format!("v1,{}", STANDARD.encode(signing.sign().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_signs_as_the_specifications_example_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let key = secret(&path).unwrap();
        let signed =
            signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_of_another_form_is_none_and_is_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for text in ["", "whsec_", "whsec_Y2FuYXJ5", "canary", "whsec_canary*canary*canary*canary*canary*"] {
            std::fs::write(&path, text).unwrap();
            let told = secret(&path).unwrap_err();
            assert!(told.contains("whsec_ and 24 to 64 bytes") && !told.contains("canary"), "{told}");
        }
    }
}
