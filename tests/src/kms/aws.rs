//! AWS KMS: the JSON 1.1 protocol with signatures that are checked, keys with versions of their material, and everything
//! that can be wrong with them.
#![allow(clippy::wildcard_enum_match_arm, reason = "a request meets one fault among many")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use super::cipher::{base64, open, seal, unbase64};
use super::sigv4::is_signed;
use crate::scratch::Scratch;
use crate::server::{Server, tls};

const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// What the alias stands for at first.
pub const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
/// Another key of the account.
pub const OTHER_KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/9876abcd-12ab-34cd-56ef-1234567890ab";
const ALIAS: &str = "alias/llm-config-hub";

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The operation is not allowed, `*` all of them.
    Denied(&'static str),
    Throttled,
    Disabled,
    PendingDeletion,
    /// It fails itself.
    Failing,
    /// What it says is no JSON.
    Garbage,
    /// It takes connections and says nothing.
    Silent,
    /// It says that another key opened what this one did.
    OtherKey,
}

/// A server with two keys and one principal.
#[derive(Debug)]
pub struct AwsKms {
    server: Server,
    account: Arc<Mutex<Account>>,
    /// Of its certificate, where it has one.
    pub certificate: Option<String>,
}

#[derive(Debug)]
struct Account {
    fault: Fault,
    /// By ARN, the material of each version.
    keys: BTreeMap<&'static str, Vec<[u8; 32]>>,
    alias: &'static str,
    /// Looks until a rotation that was asked for is done.
    rotating: Option<u32>,
    asked: BTreeMap<String, u32>,
    /// Names that were in encryption contexts.
    bound: BTreeSet<String>,
}

type Refusal = (u16, &'static str);

impl AwsKms {
    /// One without TLS.
    pub async fn start() -> Self {
        Self::listen(None).await
    }

    /// One whose certificate only those trust who are given it.
    pub async fn start_tls() -> Self {
        Self::listen(Some(tls())).await
    }

    async fn listen(tls: Option<(tokio_rustls::TlsAcceptor, String)>) -> Self {
        let keys = [(KEY, vec![rand::random()]), (OTHER_KEY, vec![rand::random()])].into();
        let account = Account {
            fault: Fault::None,
            keys,
            alias: KEY,
            rotating: None,
            asked: BTreeMap::new(),
            bound: BTreeSet::new(),
        };
        let account = Arc::new(Mutex::new(account));
        let asked = Arc::clone(&account);
        let (tls, certificate) = tls.unzip();
        let server = Server::start(tls, move |request| asked.lock().unwrap().answer(request));
        Self { server: server.await, account, certificate }
    }

    /// From now on.
    pub fn fault(&self, fault: Fault) {
        self.account.lock().unwrap().fault = fault;
    }

    /// What the alias stands for from now on.
    pub fn point_alias_at(&self, key: &'static str) {
        self.account.lock().unwrap().alias = key;
    }

    /// How often an operation was asked for, refused ones included.
    pub fn asked(&self, operation: &str) -> u32 {
        self.account.lock().unwrap().asked.get(operation).copied().unwrap_or_default()
    }

    /// What was bound to this name, and by it.
    pub fn has_bound(&self, name: &str) -> bool {
        self.account.lock().unwrap().bound.contains(name)
    }

    /// Where it is.
    pub fn endpoint(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.server.address)
    }

    /// A file with the principal's credentials, as AWS's tools write it.
    pub fn credentials(scratch: &Scratch) -> std::path::PathBuf {
        let text =
            format!("[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
        scratch.file("aws-credentials", &text)
    }

    /// `[secrets]` of a hub on it.
    pub fn tables(&self, scratch: &Scratch) -> String {
        format!(
            "[secrets]\nprovider = \"aws-kms\"\n[secrets.aws_kms]\nkey = \"{ALIAS}\"\nregion = \"eu-west-1\"\n\
             endpoint = \"{}\"\ncredentials_file = \"{}\"\ntimeout_ms = 1000\n",
            self.endpoint(),
            Self::credentials(scratch).display()
        )
    }
}

impl Account {
    /// None where it says nothing.
    fn answer(&mut self, request: &Request<Bytes>) -> Option<Response<Bytes>> {
        let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
        let operation = target.and_then(|target| target.strip_prefix("TrentService.")).unwrap_or_default();
        *self.asked.entry(operation.to_owned()).or_default() += 1;
        let (status, body) = match self.fault {
            Fault::Silent => return None,
            Fault::Garbage => (200, "<html>a proxy's page</html>".to_owned()),
            _ => match self.perform(operation, request) {
                Ok(answer) => (200, answer.to_string()),
                // Texts of a server may hold anything; none of it may come to light.
                Err((status, code)) => {
                    (status, json!({"__type": code, "message": "canary-text"}).to_string())
                }
            },
        };
        let answer = Response::builder().status(status).header("content-type", "application/x-amz-json-1.1");
        let answer = if self.fault == Fault::Throttled { answer.header("retry-after", "2") } else { answer };
        Some(answer.body(body.into()).unwrap())
    }

    fn perform(&mut self, operation: &str, request: &Request<Bytes>) -> Result<Value, Refusal> {
        if !is_signed(request, ACCESS_KEY, SECRET_KEY) {
            return Err((400, "InvalidSignatureException"));
        }
        match self.fault {
            Fault::Denied(denied) if denied == "*" || denied == operation => {
                return Err((400, "AccessDeniedException"));
            }
            Fault::Throttled => return Err((400, "ThrottlingException")),
            Fault::Failing => return Err((500, "KMSInternalException")),
            _ => {}
        }
        let asked: Value =
            serde_json::from_slice(request.body()).map_err(|_| (400, "SerializationException"))?;
        let key = match asked["KeyId"].as_str().ok_or((400, "ValidationException"))? {
            ALIAS => self.alias,
            KEY => KEY,
            OTHER_KEY => OTHER_KEY,
            _ => return Err((400, "NotFoundException")),
        };
        let context = context(key, &asked);
        if operation == "DescribeKey" {
            return Ok(self.describe(key));
        }
        match self.fault {
            Fault::Disabled => return Err((400, "DisabledException")),
            Fault::PendingDeletion => return Err((400, "KMSInvalidStateException")),
            _ => {}
        }
        let bound = |name: &str| asked["EncryptionContext"][name].as_str().unwrap_or_default();
        if operation != "RotateKeyOnDemand"
            && (bound("llm-config") != "wrapped key 1" || bound("llm-config:name").is_empty())
        {
            // Its key policy asks for the context.
            return Err((400, "AccessDeniedException"));
        }
        self.bound.insert(bound("llm-config:name").to_owned());
        match operation {
            "GenerateDataKey" if asked["KeySpec"] == "AES_256" => {
                let fresh: [u8; 32] = rand::random();
                Ok(json!({"KeyId": key, "Plaintext": base64(&fresh), "KeyMaterialId": self.material_id(key),
                          "CiphertextBlob": base64(&self.seal(key, &context, &fresh))}))
            }
            "Decrypt" => {
                let sealed = unbase64(asked["CiphertextBlob"].as_str().unwrap_or_default());
                let plain = self.open(key, &context, &sealed).ok_or((400, "InvalidCiphertextException"))?;
                let key = if self.fault == Fault::OtherKey { OTHER_KEY } else { key };
                Ok(
                    json!({"KeyId": key, "Plaintext": base64(&plain), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}),
                )
            }
            // As AWS does, for an alias is no key.
            "RotateKeyOnDemand" if asked["KeyId"] == ALIAS => Err((400, "InvalidArnException")),
            "RotateKeyOnDemand" => {
                self.rotating = Some(2);
                Ok(json!({"KeyId": key}))
            }
            _ => Err((400, "UnknownOperationException")),
        }
    }

    fn describe(&mut self, key: &'static str) -> Value {
        self.rotating = self.rotating.map(|looks| looks.saturating_sub(1));
        if self.rotating == Some(0) {
            self.rotating = None;
            self.keys.get_mut(key).unwrap().push(rand::random());
        }
        let state = match self.fault {
            Fault::Disabled => "Disabled",
            Fault::PendingDeletion => "PendingDeletion",
            _ => "Enabled",
        };
        json!({"KeyMetadata": {
            "KeyId": key.rsplit('/').next(), "Arn": key, "Enabled": state == "Enabled", "KeyState": state,
            "KeyUsage": "ENCRYPT_DECRYPT", "KeySpec": "SYMMETRIC_DEFAULT", "Origin": "AWS_KMS",
            "CurrentKeyMaterialId": self.material_id(key),
        }})
    }

    fn material_id(&self, key: &str) -> String {
        let newest = self.keys[key].last().unwrap();
        let hash = ring::digest::digest(&ring::digest::SHA256, newest);
        hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn seal(&self, key: &str, context: &[u8], plain: &[u8]) -> Vec<u8> {
        let materials = &self.keys[key];
        let newest = u8::try_from(materials.len() - 1).unwrap();
        [&[newest], seal(materials.last().unwrap(), context, plain).as_slice()].concat()
    }

    fn open(&self, key: &str, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (version, sealed) = sealed.split_first()?;
        open(self.keys[key].get(usize::from(*version))?, context, sealed)
    }
}

/// The key and the encryption context, the same whatever order it was sent in.
fn context(key: &str, asked: &Value) -> Vec<u8> {
    let pairs: BTreeMap<&String, &Value> =
        asked["EncryptionContext"].as_object().into_iter().flatten().collect();
    json!([key, pairs]).to_string().into_bytes()
}
