//! A service that makes new values when a hub asks it, for tests: it checks signatures as Standard Webhooks has them, and
//! can answer in every wrong way.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use ring::hmac;
use serde_json::{Value, json};

use crate::scratch::Scratch;
use crate::server::{Server, tls};

const KEY: &[u8] = b"a webhook's key of thirty-two by";

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Value(&'static str),
    NotYet,
    Status(u16),
    /// To another path of its own.
    Redirect,
    Text,
    Garbage,
    /// JSON without a value.
    Nothing,
    /// More than any value is.
    Endless,
    /// Never.
    Silent,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Heard {
    pub id: String,
    /// Whether the signature is right.
    pub signed: bool,
    pub body: Value,
}

/// A running service.
#[derive(Debug)]
pub struct Webhook {
    server: Server,
    certificate: String,
    state: Arc<Mutex<(Mood, Vec<Heard>)>>,
}

impl Webhook {
    /// One whose certificate only those trust who are given it.
    pub async fn start_tls() -> Self {
        let (tls, certificate) = tls();
        let state = Arc::new(Mutex::new((Mood::Silent, Vec::new())));
        let asked = Arc::clone(&state);
        let server = Server::start(Some(tls), move |request| {
            let mut state = asked.lock().unwrap();
            state.1.push(heard(request));
            answer(state.0)
        });
        Self { server: server.await, certificate, state }
    }

    /// From now on.
    pub fn mood(&self, mood: Mood) {
        self.state.lock().unwrap().0 = mood;
    }

    /// Every request so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.state.lock().unwrap().1.clone()
    }

    /// PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its table in hub.toml.
    pub fn table(&self, scratch: &Scratch, name: &str) -> String {
        let secret = scratch.file("webhook.secret", &format!("whsec_{}\n", STANDARD.encode(KEY)));
        let ca = scratch.file("webhook-ca.pem", &self.certificate);
        format!(
            "[secrets.rotation.webhooks.{name}]\nurl = \"https://{}/rotate\"\nsecret_file = \"{}\"\nca_cert = \"{}\"\n",
            self.server.address,
            secret.display(),
            ca.display()
        )
    }
}

fn heard(request: &Request<Bytes>) -> Heard {
    let header = |name: &str| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let text = [format!("{id}.{timestamp}.").as_bytes(), request.body()].concat();
    let given = header("webhook-signature").strip_prefix("v1,").and_then(|rest| STANDARD.decode(rest).ok());
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY);
    // As the standard has it, what was recorded long ago is not taken again.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let fresh = timestamp.parse::<u64>().is_ok_and(|then| then.abs_diff(now) <= 300);
    let signed = fresh && given.is_some_and(|given| hmac::verify(&key, &text, &given).is_ok());
    Heard { id, signed, body: serde_json::from_slice(request.body()).unwrap_or_default() }
}

/// None where it never answers.
fn answer(mood: Mood) -> Option<Response<Bytes>> {
    let (status, kind, body) = match mood {
        Mood::Value(value) => (200, "application/json", json!({ "value": value }).to_string()),
        Mood::NotYet => (202, "application/json", String::new()),
        Mood::Status(status) => (status, "text/plain", "canary".to_owned()),
        Mood::Redirect => (302, "text/plain", String::new()),
        Mood::Text => (200, "text/plain", "canary".to_owned()),
        Mood::Garbage => (200, "application/json", "canary".to_owned()),
        Mood::Nothing => (200, "application/json; charset=utf-8", json!({"password": "canary"}).to_string()),
        Mood::Endless => (200, "application/json", "c".repeat(8 << 20)),
        Mood::Silent => return None,
    };
    let answer = Response::builder().status(status).header("content-type", kind);
    Some(answer.header("location", "/elsewhere").body(body.into()).unwrap())
}
