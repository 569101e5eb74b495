//! Who the hub is to Google, and the tokens that it gets for that: a service account by its key file, a workload identity
//! by its configuration, or what the machine is that it runs on.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Client;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::super::error::CloudReason;
use super::super::service::{Failed, away};
use super::rest::{Answer, Body as _, Hidden, is_safe, send};

/// What a token is good for: nothing but Cloud KMS.
const SCOPE: &str = "https://www.googleapis.com/auth/cloudkms";
/// The longest that Google gives.
const LIFE: Duration = Duration::from_secs(3_600);
const TOKEN_PATH: &str = "computeMetadata/v1/instance/service-accounts/default/token";

/// Where the hub's identity comes from.
pub(super) enum Source {
    /// Read anew for each token, so that it can be changed under a running hub.
    File(PathBuf),
    /// The metadata server of the machine.
    Machine { host: String },
}

/// The identity, and the token that it has now.
pub(super) struct Identity {
    source: Source,
    client: Client,
    /// The metadata server is on the machine's own network, where no proxy goes.
    direct: Client,
    token: Mutex<Option<Token>>,
}

#[derive(Clone)]
struct Token {
    text: Hidden,
    until: Instant,
}

/// A file of credentials, of the kinds that are known here.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum File {
    ServiceAccount {
        client_email: String,
        private_key: Hidden,
        private_key_id: String,
        token_uri: String,
    },
    ExternalAccount {
        audience: String,
        subject_token_type: String,
        token_url: String,
        credential_source: Subject,
        service_account_impersonation_url: Option<String>,
    },
}

/// Where a workload's own token lies.
#[derive(Deserialize)]
struct Subject {
    file: PathBuf,
    #[serde(default)]
    format: Format,
}

/// The token alone, or a member of a JSON object.
#[derive(Default, Deserialize)]
struct Format {
    subject_token_field_name: Option<String>,
}

#[derive(Deserialize)]
struct Given {
    access_token: Hidden,
    expires_in: u64,
}

/// What an account gives that the hub may act as.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lent {
    access_token: Hidden,
}

impl Identity {
    pub(super) fn new(source: Source, client: Client, direct: Client) -> Self {
        Self { source, client, direct, token: Mutex::default() }
    }

    /// One that is good for a while yet.
    pub(super) async fn token(&self) -> Result<Hidden, Failed> {
        let mut token = self.token.lock().await;
        if let Some(token) = token.as_ref().filter(|token| Instant::now() < token.until) {
            return Ok(token.text.clone());
        }
        let asked_at = Instant::now();
        let given = match &self.source {
            Source::Machine { host } => self.of_the_machine(host).await,
            Source::File(path) => self.of_a_file(path).await,
        }?;
        // A token is replaced before it ends: it must not end on its way.
        let until = asked_at + Duration::from_secs(given.expires_in).mul_f64(0.9);
        *token = Some(Token { text: given.access_token.clone(), until });
        Ok(given.access_token)
    }

    /// It was refused: the next request comes with another one.
    pub(super) async fn forget(&self) {
        *self.token.lock().await = None;
    }

    async fn of_the_machine(&self, host: &str) -> Result<Given, Failed> {
        let asked =
            self.direct.get(format!("http://{host}/{TOKEN_PATH}")).header("metadata-flavor", "Google");
        let answer = send(asked).await.map_err(|failed| match failed {
            // No machine of Google's.
            Failed::Away { reason: CloudReason::Unreachable, .. } => away(CloudReason::NoCredentials),
            failed @ (Failed::Away { .. } | Failed::Refused(_)) => failed,
        })?;
        if answer.status == 404 {
            return Err(away(CloudReason::NoCredentials));
        }
        fine(&answer)
    }

    async fn of_a_file(&self, path: &Path) -> Result<Given, Failed> {
        let of_no_use = |what: &str| away(CloudReason::Credentials(format!("{} {what}", path.display())));
        let text = std::fs::read(path).map(Zeroizing::new).map_err(|error| of_no_use(&error.to_string()))?;
        let file = serde_json::from_slice(&text);
        let file =
            file.map_err(|_| of_no_use("is no key file of a service account or of a workload identity"))?;
        match file {
            File::ServiceAccount { client_email, private_key, private_key_id, token_uri } => {
                if !is_safe(&token_uri) {
                    return Err(of_no_use("names a token_uri without TLS"));
                }
                let said = assertion(&client_email, &private_key, &private_key_id, &token_uri);
                let said = said.ok_or_else(|| of_no_use("holds no RSA key of 2048 bits or more"))?;
                let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
                let fields = [("grant_type", grant), ("assertion", &*said)];
                fine(&send(self.client.post(token_uri).with_form(&fields)).await?)
            }
            File::ExternalAccount {
                audience,
                subject_token_type,
                token_url,
                credential_source,
                service_account_impersonation_url,
            } => {
                let lender = service_account_impersonation_url.as_deref();
                if !is_safe(&token_url) || !lender.is_none_or(is_safe) {
                    return Err(of_no_use("names an address without TLS"));
                }
                let subject =
                    subject_token(&credential_source).map_err(|what| away(CloudReason::Credentials(what)))?;
                let fields = [
                    ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                    ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
                    ("audience", &audience),
                    // Whoever acts as an account needs more for that than Cloud KMS.
                    (
                        "scope",
                        if lender.is_some() {
                            "https://www.googleapis.com/auth/cloud-platform"
                        } else {
                            SCOPE
                        },
                    ),
                    ("subject_token_type", &subject_token_type),
                    ("subject_token", &subject),
                ];
                let given: Given = fine(&send(self.client.post(token_url).with_form(&fields)).await?)?;
                match lender {
                    None => Ok(given),
                    Some(lender) => self.lent(lender, &given).await,
                }
            }
        }
    }

    /// The token of an account that the workload may act as.
    async fn lent(&self, address: &str, by: &Given) -> Result<Given, Failed> {
        let asked = json!({"scope": [SCOPE], "lifetime": format!("{}s", LIFE.as_secs())});
        let request = self.client.post(address).bearer_auth(&*by.access_token).with_json(&asked);
        let lent: Lent = fine(&send(request).await?)?;
        Ok(Given { access_token: lent.access_token, expires_in: LIFE.as_secs() })
    }
}

/// What a server of tokens gave. Its own words are not repeated.
fn fine<T: serde::de::DeserializeOwned>(answer: &Answer) -> Result<T, Failed> {
    let reason = match answer.status {
        200 => return answer.json().ok_or_else(|| away(CloudReason::NoAnswer)),
        400 | 401 | 403 => CloudReason::BadCredentials,
        429 => CloudReason::Throttled,
        status if status < 400 => CloudReason::NoAnswer,
        status => CloudReason::Failing(status),
    };
    Err(Failed::Away { reason, asked: answer.asked })
}

/// A JWT by which an account says for an hour that it is itself (RFC 7523).
fn assertion(email: &str, key: &str, key_id: &str, audience: &str) -> Option<Hidden> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).ok()?;
    let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    let head = json!({"alg": "RS256", "typ": "JWT", "kid": key_id}).to_string();
    let claims =
        json!({"iss": email, "scope": SCOPE, "aud": audience, "iat": now, "exp": now + LIFE.as_secs()});
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).ok()?;
    Some(Hidden::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
}

fn subject_token(source: &Subject) -> Result<Hidden, String> {
    let shown = source.file.display();
    let text = std::fs::read_to_string(&source.file).map(Zeroizing::new);
    let text = text.map_err(|error| format!("{shown}: {error}"))?;
    let Some(member) = &source.format.subject_token_field_name else {
        return Ok(Hidden::new(text.trim().to_owned()));
    };
    let object: serde_json::Value = serde_json::from_str(&text).map_err(|_| format!("{shown} is no JSON"))?;
    let token = object[member].as_str().map(|token| Hidden::new(token.to_owned()));
    token.ok_or_else(|| format!("{shown} has no text {member}"))
}
