//! Google's Cloud KMS: its REST API with tokens, associated data and checksums that are checked, keys with versions and
//! their states, and everything that can be wrong with them.
#![allow(clippy::wildcard_enum_match_arm, reason = "a request meets one fault among many")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use serde_json::{Value, json};

use super::cipher::{base64, open, seal, unbase64};
use crate::scratch::Scratch;
use crate::server::{Server, tls};

mod tokens;

use tokens::{AUDIENCE, EMAIL, KEY_ID, SUBJECT, Tokens};

/// The hub's.
pub const KEY: &str = "projects/p/locations/europe-west1/keyRings/llm/cryptoKeys/hub";
/// Another key of the ring.
pub const OTHER_KEY: &str = "projects/p/locations/europe-west1/keyRings/llm/cryptoKeys/other";

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
    /// A bit of each ciphertext is lost on the way to the hub.
    Garbled,
    /// A bit of each data key is.
    GarbledPlain,
    /// It says that it did not see the checksums.
    Unverified,
}

/// A server with two keys and one service account.
#[derive(Debug)]
pub struct GcpKms {
    server: Server,
    project: Arc<Mutex<Project>>,
    /// Of its certificate, where it has one.
    pub certificate: Option<String>,
}

#[derive(Debug)]
struct Project {
    fault: Fault,
    here: String,
    keys: BTreeMap<&'static str, Key>,
    tokens: Tokens,
    asked: BTreeMap<String, u32>,
    /// What was bound to something.
    bound: BTreeSet<Vec<u8>>,
}

#[derive(Debug)]
struct Key {
    /// The first is version 1.
    versions: Vec<Version>,
    primary: usize,
    purpose: &'static str,
}

#[derive(Debug)]
struct Version {
    material: [u8; 32],
    state: &'static str,
    /// Looks until its material is there.
    looks: u32,
}

impl Key {
    fn new(purpose: &'static str) -> Self {
        let first = Version { material: rand::random(), state: "ENABLED", looks: 0 };
        Self { versions: vec![first], primary: 0, purpose }
    }
}

/// Status, Google's name for it, and what is told besides.
type Refusal = (u16, &'static str);

impl GcpKms {
    /// One without TLS.
    pub async fn start() -> Self {
        Self::listen(None).await
    }

    /// One whose certificate only those trust who are given it.
    pub async fn start_tls() -> Self {
        Self::listen(Some(tls())).await
    }

    async fn listen(tls: Option<(tokio_rustls::TlsAcceptor, String)>) -> Self {
        let keys = [(KEY, Key::new("ENCRYPT_DECRYPT")), (OTHER_KEY, Key::new("ENCRYPT_DECRYPT"))].into();
        let (here, tokens) = (String::new(), Tokens::default());
        let (asked, bound) = (BTreeMap::new(), BTreeSet::new());
        let project = Arc::new(Mutex::new(Project { fault: Fault::None, here, keys, tokens, asked, bound }));
        let answering = Arc::clone(&project);
        let (tls, certificate) = tls.unzip();
        let server = Server::start(tls, move |request| answering.lock().unwrap().answer(request));
        let kms = Self { server: server.await, project, certificate };
        kms.project.lock().unwrap().here = kms.endpoint();
        kms
    }

    /// From now on.
    pub fn fault(&self, fault: Fault) {
        self.project.lock().unwrap().fault = fault;
    }

    /// A version of the hub's key, counted from 1, has this state from now on.
    pub fn state(&self, version: usize, state: &'static str) {
        self.project.lock().unwrap().keys.get_mut(KEY).unwrap().versions[version - 1].state = state;
    }

    /// What the hub's key is for from now on.
    pub fn purpose(&self, purpose: &'static str) {
        self.project.lock().unwrap().keys.get_mut(KEY).unwrap().purpose = purpose;
    }

    /// No token that was given is good any more.
    pub fn revoke_tokens(&self) {
        self.project.lock().unwrap().tokens.revoke();
    }

    /// How long tokens are good from now on.
    pub fn tokens_live(&self, life: Duration) {
        self.project.lock().unwrap().tokens.life = Some(life);
    }

    /// How many tokens it gave that were not revoked.
    pub fn tokens_given(&self) -> usize {
        self.project.lock().unwrap().tokens.how_many()
    }

    /// How many of them are good.
    pub fn good_tokens(&self) -> usize {
        self.project.lock().unwrap().tokens.good()
    }

    /// How often a permission was asked for, refused or not.
    pub fn asked(&self, permission: &str) -> u32 {
        self.project.lock().unwrap().asked.get(permission).copied().unwrap_or_default()
    }

    /// Whether something was bound to what ends with this name.
    pub fn has_bound(&self, name: &str) -> bool {
        self.project.lock().unwrap().bound.iter().any(|bound| bound.ends_with(name.as_bytes()))
    }

    /// Where it is.
    pub fn endpoint(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.server.address)
    }

    /// Where a machine's own identity is told.
    pub fn metadata_host(&self) -> String {
        self.server.address.to_string()
    }

    /// The account's key file, as Google's tools write it.
    pub fn account(&self, scratch: &Scratch) -> PathBuf {
        self.account_as(scratch, "gcp-account.json", KEY_ID)
    }

    /// The same, of a key that Google does not know (any more).
    pub fn unknown_account(&self, scratch: &Scratch) -> PathBuf {
        self.account_as(scratch, "gcp-unknown.json", "another")
    }

    fn account_as(&self, scratch: &Scratch, file: &str, key_id: &str) -> PathBuf {
        let account = json!({
            "type": "service_account", "project_id": "p", "private_key_id": key_id, "private_key": tokens::pem(),
            "client_email": EMAIL, "client_id": "1", "token_uri": format!("{}/token", self.endpoint()),
        });
        scratch.file(file, &account.to_string())
    }

    /// A workload's configuration, as `gcloud iam workload-identity-pools create-cred-config` writes it.
    pub fn workload(&self, scratch: &Scratch) -> PathBuf {
        let subject = scratch.file("gcp-subject.json", &json!({"token": SUBJECT}).to_string());
        let here = self.endpoint();
        let workload = json!({
            "type": "external_account", "universe_domain": "googleapis.com", "audience": AUDIENCE,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": format!("{here}/sts"),
            "service_account_impersonation_url": format!("{here}/impersonate"),
            "credential_source": {"file": subject, "format": {"type": "json", "subject_token_field_name": "token"}},
        });
        scratch.file("gcp-workload.json", &workload.to_string())
    }

    /// `[secrets.gcp_kms]` of a hub on it.
    pub fn table(&self, scratch: &Scratch) -> String {
        format!(
            "[secrets.gcp_kms]\nkey = \"{KEY}\"\nendpoint = \"{}\"\ncredentials_file = \"{}\"\ntimeout_ms = 1000\n",
            self.endpoint(),
            self.account(scratch).display()
        )
    }

    /// `[secrets]` with it.
    pub fn tables(&self, scratch: &Scratch) -> String {
        format!("[secrets]\nprovider = \"gcp-kms\"\n{}", self.table(scratch))
    }
}

impl Project {
    /// None where it says nothing.
    fn answer(&mut self, request: &Request<Bytes>) -> Option<Response<Bytes>> {
        let path = tokens::path(request.uri()).to_owned();
        let (status, body) = match (self.fault, self.token(&path, request)) {
            (_, Some(token)) => match token {
                Some(given) => (200, given.to_string()),
                None => {
                    (400, json!({"error": "invalid_grant", "error_description": "canary-text"}).to_string())
                }
            },
            (Fault::Silent, _) => return None,
            (Fault::Garbage, _) => (200, "<html>a proxy's page</html>".to_owned()),
            _ => match self.perform(&path, request) {
                Ok(answer) => (200, answer.to_string()),
                Err((status, name)) => (status, refusal(status, name).to_string()),
            },
        };
        let answer = Response::builder().status(status).header("content-type", "application/json");
        Some(answer.body(body.into()).unwrap())
    }

    /// None where no token is asked for; none within it where there is none to be had.
    fn token(&mut self, path: &str, request: &Request<Bytes>) -> Option<Option<Value>> {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        match path {
            "/token" => Some(self.tokens.for_account(request.body(), &self.here)),
            "/sts" => Some(self.tokens.for_workload(request.body())),
            "/impersonate" => Some(self.tokens.lent(header("authorization"), request.body())),
            "/computeMetadata/v1/instance/service-accounts/default/token" => {
                Some(self.tokens.for_machine(header("metadata-flavor")))
            }
            _ => None,
        }
    }

    fn perform(&mut self, path: &str, request: &Request<Bytes>) -> Result<Value, Refusal> {
        let rest = path.strip_prefix("/v1/").ok_or((404, "NOT_FOUND"))?;
        let (resource, verb) = rest.split_once(':').unwrap_or((rest, ""));
        let (name, below) = resource.split_once("/cryptoKeyVersions").unwrap_or((resource, "-"));
        let permission = match (request.method(), verb, below) {
            (&Method::POST, "encrypt", "-") => "cloudkms.cryptoKeyVersions.useToEncrypt",
            (&Method::POST, "decrypt", "-") => "cloudkms.cryptoKeyVersions.useToDecrypt",
            (&Method::POST, "updatePrimaryVersion", "-") => "cloudkms.cryptoKeys.update",
            (&Method::POST, "", "") => "cloudkms.cryptoKeyVersions.create",
            (&Method::GET, "", "-") => "cloudkms.cryptoKeys.get",
            (&Method::GET, "", _) => "cloudkms.cryptoKeyVersions.get",
            _ => return Err((404, "NOT_FOUND")),
        };
        *self.asked.entry(permission.to_owned()).or_default() += 1;
        let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        if !self.tokens.is_good(authorization) {
            return Err((401, "UNAUTHENTICATED"));
        }
        match self.fault {
            Fault::Denied(denied) if denied == "*" || denied == permission => {
                return Err((403, "PERMISSION_DENIED"));
            }
            Fault::Throttled => return Err((429, "RESOURCE_EXHAUSTED")),
            Fault::Failing => return Err((503, "UNAVAILABLE")),
            _ => {}
        }
        let name = *self.keys.keys().find(|known| **known == name).ok_or((404, "NOT_FOUND"))?;
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let fault = self.fault;
        self.bound.extend(checked(&body, "additionalAuthenticatedData"));
        let key = self.keys.get_mut(name).expect("it was found");
        match permission {
            "cloudkms.cryptoKeyVersions.useToEncrypt" => key.encrypt(name, &body, fault),
            "cloudkms.cryptoKeyVersions.useToDecrypt" => key.decrypt(&body, fault),
            "cloudkms.cryptoKeys.update" => key.promote(name, &body),
            "cloudkms.cryptoKeyVersions.create" => Ok(key.create(name)),
            "cloudkms.cryptoKeys.get" => Ok(key.described(name)),
            _ => key.look(name, below),
        }
    }
}

impl Key {
    fn encrypt(&self, name: &str, asked: &Value, fault: Fault) -> Result<Value, Refusal> {
        let (plain, aad) = (checked(asked, "plaintext")?, checked(asked, "additionalAuthenticatedData")?);
        let version = &self.versions[self.primary];
        if version.state != "ENABLED" {
            return Err((400, "FAILED_PRECONDITION"));
        }
        let mut sealed =
            [&[u8::try_from(self.primary).unwrap()][..], &seal(&version.material, &aad, &plain)].concat();
        let sum = crc32c(&sealed).to_string();
        if fault == Fault::Garbled {
            sealed[3] ^= 1;
        }
        Ok(json!({
            "name": format!("{name}/cryptoKeyVersions/{}", self.primary + 1), "ciphertext": base64(&sealed),
            "ciphertextCrc32c": sum, "verifiedPlaintextCrc32c": fault != Fault::Unverified,
            "verifiedAdditionalAuthenticatedDataCrc32c": true, "protectionLevel": "SOFTWARE",
        }))
    }

    fn decrypt(&self, asked: &Value, fault: Fault) -> Result<Value, Refusal> {
        let (sealed, aad) = (checked(asked, "ciphertext")?, checked(asked, "additionalAuthenticatedData")?);
        let wrong = (400, "INVALID_ARGUMENT");
        let (number, sealed) = sealed.split_first().ok_or(wrong)?;
        let version = self.versions.get(usize::from(*number)).ok_or(wrong)?;
        if version.state != "ENABLED" {
            return Err((400, "FAILED_PRECONDITION"));
        }
        let mut plain = open(&version.material, &aad, sealed).ok_or(wrong)?;
        let sum = crc32c(&plain).to_string();
        if fault == Fault::GarbledPlain {
            plain[3] ^= 1;
        }
        Ok(json!({"plaintext": base64(&plain), "plaintextCrc32c": sum,
                  "usedPrimary": usize::from(*number) == self.primary, "protectionLevel": "SOFTWARE"}))
    }

    fn create(&mut self, name: &str) -> Value {
        self.versions.push(Version { material: rand::random(), state: "PENDING_GENERATION", looks: 2 });
        json!({"name": format!("{name}/cryptoKeyVersions/{}", self.versions.len()), "state": "PENDING_GENERATION"})
    }

    fn look(&mut self, name: &str, below: &str) -> Result<Value, Refusal> {
        let number: usize = below.trim_start_matches('/').parse().map_err(|_| (404, "NOT_FOUND"))?;
        let version =
            number.checked_sub(1).and_then(|n| self.versions.get_mut(n)).ok_or((404, "NOT_FOUND"))?;
        version.looks = version.looks.saturating_sub(1);
        if version.looks == 0 && version.state == "PENDING_GENERATION" {
            version.state = "ENABLED";
        }
        Ok(json!({"name": format!("{name}/cryptoKeyVersions/{number}"), "state": version.state}))
    }

    fn promote(&mut self, name: &str, asked: &Value) -> Result<Value, Refusal> {
        let number = asked["cryptoKeyVersionId"].as_str().and_then(|text| text.parse::<usize>().ok());
        let number = number.and_then(|number| number.checked_sub(1)).ok_or((400, "INVALID_ARGUMENT"))?;
        match self.versions.get(number) {
            Some(version) if version.state == "ENABLED" => self.primary = number,
            Some(_) => return Err((400, "FAILED_PRECONDITION")),
            None => return Err((404, "NOT_FOUND")),
        }
        Ok(self.described(name))
    }

    fn described(&self, name: &str) -> Value {
        json!({"name": name, "purpose": self.purpose, "primary": {
            "name": format!("{name}/cryptoKeyVersions/{}", self.primary + 1), "state": self.versions[self.primary].state,
            "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION", "protectionLevel": "SOFTWARE",
        }})
    }
}

/// Texts of a server may hold anything; none of it may come to light.
fn refusal(status: u16, name: &str) -> Value {
    let mut details =
        vec![json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "canary-reason"})];
    if name == "RESOURCE_EXHAUSTED" {
        details.push(json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2s"}));
    }
    json!({"error": {"code": status, "message": "canary-text", "status": name, "details": details}})
}

/// What arrived, if it is what was sent.
fn checked(asked: &Value, field: &str) -> Result<Vec<u8>, Refusal> {
    let bytes = unbase64(asked[field].as_str().unwrap_or_default());
    let sum = asked[format!("{field}Crc32c")].as_str().and_then(|sum| sum.parse::<u32>().ok());
    // Google takes requests without; this one does not, so that none can be forgotten.
    if bytes.is_empty() || sum != Some(crc32c(&bytes)) {
        return Err((400, "INVALID_ARGUMENT"));
    }
    Ok(bytes)
}

/// Bit by bit, unlike the hub's.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}
