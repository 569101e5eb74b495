//! Azure Key Vault and who gives tokens for it: the challenge, applications with a secret or an assertion, tokens with an
//! end, keys with versions, and everything that can be wrong with them.
//!
//! What it wraps has the length of RSA-OAEP or of AES key wrap, and is made otherwise: nobody but a vault opens it.
#![allow(clippy::wildcard_enum_match_arm, reason = "a request meets one fault among many")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Request, Response};
use serde_json::{Value, json};

use super::cipher::{open, seal, unwrap_short, wrap_short};
use super::form::fields;
use crate::scratch::Scratch;
use crate::server::{Server, tls};

/// The directory that the hub's application is in.
pub const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
/// The application.
pub const CLIENT_ID: &str = "11112222-3333-4444-5555-666677778888";
const SECRET: &str = "canary~client.secret";
const ASSERTION: &str = "canary-token-of-kubernetes";
const KEY: &str = "llm-config-hub";
const OTHER_KEY: &str = "other";
const RSA_BYTES: usize = 256;
const SEALED_BYTES: usize = 12 + 32 + 16;

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// A permission is denied, `*` all of them.
    Denied(&'static str),
    Throttled,
    /// It fails itself.
    Failing,
    /// What it says is no JSON.
    Garbage,
    /// It takes connections and says nothing.
    Silent,
    /// It says that another version did what was asked for.
    OtherVersion,
}

/// A server with one vault, two keys and one application.
#[derive(Debug)]
pub struct AzureKeyVault {
    server: Server,
    vault: Arc<Mutex<Vault>>,
    /// Of its certificate: this one is never without.
    pub certificate: String,
}

#[derive(Debug)]
struct Vault {
    fault: Fault,
    here: String,
    keys: BTreeMap<&'static str, Key>,
    tokens: Vec<(String, Instant)>,
    asked: BTreeMap<String, u32>,
}

#[derive(Debug)]
struct Key {
    kind: &'static str,
    operations: Vec<&'static str>,
    versions: Vec<Version>,
}

#[derive(Debug)]
struct Version {
    id: String,
    material: [u8; 32],
    enabled: bool,
    expires: Option<u64>,
}

impl Version {
    fn new() -> Self {
        let id = format!("{:032x}", rand::random::<u128>());
        Self { id, material: rand::random(), enabled: true, expires: None }
    }
}

/// Status, Azure's name for it, and the one within.
type Refusal = (u16, &'static str, &'static str);

impl AzureKeyVault {
    /// One whose keys are of RSA.
    pub async fn start() -> Self {
        Self::with_keys("RSA").await
    }

    /// A managed HSM, which has symmetric keys.
    pub async fn start_hsm() -> Self {
        Self::with_keys("oct-HSM").await
    }

    async fn with_keys(kind: &'static str) -> Self {
        let key = || Key { kind, operations: vec!["wrapKey", "unwrapKey"], versions: vec![Version::new()] };
        let vault = Arc::new(Mutex::new(Vault {
            fault: Fault::None,
            here: String::new(),
            keys: [(KEY, key()), (OTHER_KEY, key())].into(),
            tokens: Vec::new(),
            asked: BTreeMap::new(),
        }));
        let answering = Arc::clone(&vault);
        let (tls, certificate) = tls();
        let server = Server::start(Some(tls), move |request| answering.lock().unwrap().answer(request));
        let azure = Self { server: server.await, vault, certificate };
        azure.vault.lock().unwrap().here = azure.endpoint();
        azure
    }

    /// From now on.
    pub fn fault(&self, fault: Fault) {
        self.vault.lock().unwrap().fault = fault;
    }

    fn change(&self, change: impl FnOnce(&mut Key)) {
        change(self.vault.lock().unwrap().keys.get_mut(KEY).unwrap());
    }

    /// A version of the hub's key, counted from 1, can be used from now on, or not.
    pub fn enabled(&self, version: usize, enabled: bool) {
        self.change(|key| key.versions[version - 1].enabled = enabled);
    }

    /// When the newest version ends, in seconds since 1970.
    pub fn expires(&self, at: Option<u64>) {
        self.change(|key| key.versions.last_mut().unwrap().expires = at);
    }

    /// Of which type the hub's key is, and what it may do.
    pub fn kind(&self, kind: &'static str, operations: &[&'static str]) {
        self.change(|key| (key.kind, key.operations) = (kind, operations.to_vec()));
    }

    /// The id of a version of the hub's key, counted from 1.
    pub fn version(&self, version: usize) -> String {
        self.vault.lock().unwrap().keys[KEY].versions[version - 1].id.clone()
    }

    /// No token that was given is good any more.
    pub fn revoke_tokens(&self) {
        self.vault.lock().unwrap().tokens.clear();
    }

    /// How many tokens it gave that were not revoked.
    pub fn tokens_given(&self) -> usize {
        self.vault.lock().unwrap().tokens.len()
    }

    /// How often a permission was asked for, with a good token.
    pub fn asked(&self, permission: &str) -> u32 {
        self.vault.lock().unwrap().asked.get(permission).copied().unwrap_or_default()
    }

    /// Where it is, vault and directory both.
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.server.address)
    }

    /// The hub's key.
    pub fn key(&self) -> String {
        format!("{}/keys/{KEY}", self.endpoint())
    }

    /// Another one of the vault.
    pub fn other_key(&self) -> String {
        format!("{}/keys/{OTHER_KEY}", self.endpoint())
    }

    /// The application's secret in a file.
    pub fn secret(scratch: &Scratch) -> PathBuf {
        scratch.file("azure-secret", &format!("{SECRET}\n"))
    }

    /// What a cluster signed for the application.
    pub fn assertion(scratch: &Scratch) -> PathBuf {
        scratch.file("azure-assertion", ASSERTION)
    }

    /// `[secrets.azure_keyvault]` of a hub on it.
    pub fn table(&self, scratch: &Scratch) -> String {
        format!(
            "[secrets.azure_keyvault]\nkey = \"{}\"\nauthority = \"{}\"\nca_cert = \"{}\"\ntenant = \"{TENANT}\"\n\
             client_id = \"{CLIENT_ID}\"\nclient_secret_file = \"{}\"\ntimeout_ms = 1000\n",
            self.key(),
            self.endpoint(),
            scratch.file("azure-ca.pem", &self.certificate).display(),
            Self::secret(scratch).display()
        )
    }

    /// `[secrets]` with it.
    pub fn tables(&self, scratch: &Scratch) -> String {
        format!("[secrets]\nprovider = \"azure-keyvault\"\n{}", self.table(scratch))
    }
}

impl Vault {
    /// None where it says nothing.
    fn answer(&mut self, request: &Request<Bytes>) -> Option<Response<Bytes>> {
        let answer = Response::builder().header("content-type", "application/json");
        if request.uri().path() == format!("/{TENANT}/oauth2/v2.0/token") {
            let (status, body) = match self.token(request.body()) {
                Some(given) => (200, given),
                None => (
                    401,
                    json!({"error": "invalid_client", "error_description": "canary-text",
                                     "error_codes": [7_000_215], "correlation_id": "1", "trace_id": "2",
                                     "timestamp": "2026-01-01 00:00:00Z"}),
                ),
            };
            return Some(answer.status(status).body(body.to_string().into()).unwrap());
        }
        if !self.is_known(request) {
            let challenge = format!(
                "Bearer authorization=\"{}/{TENANT}\", resource=\"https://vault.azure.net\"",
                self.here
            );
            let body = refusal("Unauthorized", "").to_string();
            return Some(answer.status(401).header("www-authenticate", challenge).body(body.into()).unwrap());
        }
        let (status, body) = match self.fault {
            Fault::Silent => return None,
            Fault::Garbage => (200, "<html>a proxy's page</html>".to_owned()),
            _ => match self.perform(request) {
                Ok(answer) => (200, answer.to_string()),
                Err((status, code, inner)) => (status, refusal(code, inner).to_string()),
            },
        };
        let answer = if status == 429 { answer.header("retry-after", "2") } else { answer };
        Some(answer.status(status).body(body.into()).unwrap())
    }

    fn is_known(&self, request: &Request<Bytes>) -> bool {
        let token = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        self.tokens.iter().any(|(good, until)| good == token && Instant::now() < *until)
    }

    fn token(&mut self, form: &[u8]) -> Option<Value> {
        const KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let form = fields(form);
        let proved = form.has("client_secret", SECRET)
            || form.has("client_assertion_type", KIND) && form.has("client_assertion", ASSERTION);
        let right = proved
            && form.has("client_id", CLIENT_ID)
            && form.has("grant_type", "client_credentials")
            && form.has("scope", "https://vault.azure.net/.default");
        right.then(|| {
            let token = format!("eyJ0.canary-{:032x}", rand::random::<u128>());
            self.tokens.push((token.clone(), Instant::now() + Duration::from_secs(3_600)));
            json!({"token_type": "Bearer", "expires_in": 3_599, "ext_expires_in": 3_599, "access_token": token})
        })
    }

    fn perform(&mut self, request: &Request<Bytes>) -> Result<Value, Refusal> {
        let parts: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
        let (name, version, permission) = match (request.method(), parts.as_slice()) {
            (&Method::GET, ["keys", name]) => (*name, None, "keys/get"),
            (&Method::GET, ["keys", name, version]) => (*name, Some(*version), "keys/get"),
            (&Method::POST, ["keys", name, "rotate"]) => (*name, None, "keys/rotate"),
            (&Method::POST, ["keys", name, version, "wrapkey"]) => (*name, Some(*version), "keys/wrapKey"),
            (&Method::POST, ["keys", name, version, "unwrapkey"]) => {
                (*name, Some(*version), "keys/unwrapKey")
            }
            _ => return Err((400, "BadParameter", "")),
        };
        *self.asked.entry(permission.to_owned()).or_default() += 1;
        match self.fault {
            Fault::Denied(denied) if denied == "*" || denied == permission => {
                return Err((403, "Forbidden", "ForbiddenByRbac"));
            }
            Fault::Throttled => return Err((429, "Throttled", "")),
            Fault::Failing => return Err((503, "ServiceUnavailable", "")),
            _ => {}
        }
        if !request.uri().query().is_some_and(|query| query.starts_with("api-version=")) {
            return Err((400, "BadParameter", ""));
        }
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let (here, fault) = (format!("{}/keys/{name}", self.here), self.fault);
        let key = self.keys.get_mut(name).ok_or((404, "KeyNotFound", ""))?;
        match permission {
            "keys/get" => key.described(&here, version),
            "keys/rotate" => {
                key.versions.push(Version::new());
                key.described(&here, None)
            }
            permission => key.perform(&here, version.unwrap_or_default(), permission, &body, fault),
        }
    }
}

impl Key {
    fn version(&self, id: Option<&str>) -> Result<&Version, Refusal> {
        let found = match id {
            None => self.versions.last(),
            Some(id) => self.versions.iter().find(|version| version.id == id),
        };
        found.ok_or((404, "KeyNotFound", ""))
    }

    fn described(&self, here: &str, version: Option<&str>) -> Result<Value, Refusal> {
        let version = self.version(version)?;
        let mut attributes = json!({"enabled": version.enabled, "created": 1_700_000_000, "updated": 1_700_000_000,
                                    "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90});
        if let Some(end) = version.expires {
            attributes["exp"] = json!(end);
        }
        Ok(
            json!({"key": {"kid": format!("{here}/{}", version.id), "kty": self.kind, "key_ops": self.operations},
                  "attributes": attributes}),
        )
    }

    fn perform(
        &self,
        here: &str,
        id: &str,
        permission: &str,
        asked: &Value,
        fault: Fault,
    ) -> Result<Value, Refusal> {
        let version = self.version(Some(id))?;
        if !version.enabled {
            return Err((403, "Forbidden", "KeyDisabled"));
        }
        let wrong = (400, "BadParameter", "");
        let value = URL_SAFE_NO_PAD.decode(asked["value"].as_str().unwrap_or_default()).map_err(|_| wrong)?;
        let result = match (permission, self.kind, asked["alg"].as_str().unwrap_or_default()) {
            ("keys/wrapKey", "RSA", "RSA-OAEP-256") if value.len() == 32 => {
                let mut wrapped = seal(&version.material, b"", &value);
                wrapped.resize_with(RSA_BYTES, rand::random);
                wrapped
            }
            ("keys/unwrapKey", "RSA", "RSA-OAEP-256") if value.len() == RSA_BYTES => {
                open(&version.material, b"", &value[..SEALED_BYTES]).ok_or(wrong)?
            }
            ("keys/wrapKey", "oct-HSM", "A256KW") => wrap_short(&version.material, &value),
            ("keys/unwrapKey", "oct-HSM", "A256KW") => {
                unwrap_short(&version.material, &value).ok_or(wrong)?
            }
            _ => return Err(wrong),
        };
        let id = if fault == Fault::OtherVersion { "0123456789abcdef0123456789abcdef" } else { id };
        Ok(json!({"kid": format!("{here}/{id}"), "value": URL_SAFE_NO_PAD.encode(result)}))
    }
}

/// Texts of a server may hold anything; none of it may come to light.
fn refusal(code: &str, inner: &str) -> Value {
    json!({"error": {"code": code, "message": "canary-text", "innererror": {"code": inner}}})
}
