//! Who may ask: assertions of a service account (RFC 7523), exchanged tokens of a workload (RFC 8693), the machine's own
//! identity, and the tokens that are given for them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Uri;
use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use serde_json::{Value, json};

use crate::kms::form::fields;

pub(super) const EMAIL: &str = "hub@project.iam.gserviceaccount.com";
pub(super) const KEY_ID: &str = "0123456789abcdef0123456789abcdef01234567";
/// What a workload's own platform gave it.
pub(super) const SUBJECT: &str = "a-token-of-kubernetes";
pub(super) const AUDIENCE: &str =
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/cluster";
const SCOPE: &str = "https://www.googleapis.com/auth/cloudkms";
/// Made for these tests; it opens nothing.
const KEY: &str = include_str!("../account-key.txt");

/// The private key as it stands in a key file.
pub(super) fn pem() -> String {
    let kind = "PRIVATE KEY";
    format!("-----BEGIN {kind}-----\n{KEY}-----END {kind}-----\n")
}

/// Tokens that were given.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    given: Vec<(String, Instant)>,
    /// Given for a workload, for nothing but to ask for an account's.
    exchanged: Vec<String>,
    pub(super) life: Option<Duration>,
}

impl Tokens {
    pub(super) fn is_good(&self, authorization: Option<&str>) -> bool {
        let token = authorization.and_then(|text| text.strip_prefix("Bearer "));
        token.is_some_and(|token| {
            self.given.iter().any(|(good, until)| good == token && Instant::now() < *until)
        })
    }

    pub(super) fn revoke(&mut self) {
        self.given.clear();
    }

    pub(super) fn how_many(&self) -> usize {
        self.given.len()
    }

    pub(super) fn good(&self) -> usize {
        self.given.iter().filter(|(_, until)| Instant::now() < *until).count()
    }

    fn give(&mut self) -> (String, u64) {
        let life = self.life.unwrap_or(Duration::from_secs(3_600));
        let token = format!("ya29.canary-{:032x}", rand::random::<u128>());
        self.given.push((token.clone(), Instant::now() + life));
        (token, life.as_secs())
    }

    /// `/token`: for an account by its signature.
    pub(super) fn for_account(&mut self, form: &[u8], here: &str) -> Option<Value> {
        let form = fields(form);
        let right = form.has("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
            && is_the_accounts(form.field("assertion")?, here);
        right.then(|| {
            let (token, life) = self.give();
            json!({"access_token": token, "expires_in": life, "token_type": "Bearer"})
        })
    }

    /// `/sts`: for a workload by the token of its platform.
    pub(super) fn for_workload(&mut self, form: &[u8]) -> Option<Value> {
        let form = fields(form);
        let right = form.has("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
            && form.has("subject_token_type", "urn:ietf:params:oauth:token-type:jwt")
            && form.has("subject_token", SUBJECT)
            && form.has("audience", AUDIENCE);
        right.then(|| {
            let token = format!("exchanged-canary-{:032x}", rand::random::<u128>());
            self.exchanged.push(token.clone());
            json!({"access_token": token, "expires_in": 3_599, "token_type": "Bearer"})
        })
    }

    /// `/impersonate`: an account's, for a workload that may act as it.
    pub(super) fn lent(&mut self, authorization: Option<&str>, body: &[u8]) -> Option<Value> {
        let token = authorization?.strip_prefix("Bearer ")?;
        let asked: Value = serde_json::from_slice(body).ok()?;
        let right = self.exchanged.iter().any(|good| good == token) && asked["scope"] == json!([SCOPE]);
        right.then(|| json!({"accessToken": self.give().0, "expireTime": "2099-01-01T00:00:00Z"}))
    }

    /// The machine's own.
    pub(super) fn for_machine(&mut self, flavor: Option<&str>) -> Option<Value> {
        (flavor == Some("Google")).then(|| {
            let (token, life) = self.give();
            json!({"access_token": token, "expires_in": life, "token_type": "Bearer"})
        })
    }
}

/// Whether an account said this for this server, within the hour.
fn is_the_accounts(assertion: &str, here: &str) -> bool {
    let Some((signed, signature)) = assertion.rsplit_once('.') else { return false };
    let Some((head, claims)) = signed.split_once('.') else { return false };
    let part =
        |text: &str| -> Option<Value> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok() };
    let (Some(head), Some(claims)) = (part(head), part(claims)) else { return false };
    let der = STANDARD.decode(KEY.replace('\n', "")).unwrap();
    let pair = RsaKeyPair::from_pkcs8(&der).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref());
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (issued, ends) = (claims["iat"].as_u64().unwrap_or(0), claims["exp"].as_u64().unwrap_or(0));
    public.verify(signed.as_bytes(), &signature).is_ok()
        && head["alg"] == "RS256"
        && head["kid"] == KEY_ID
        && claims["iss"] == EMAIL
        && claims["aud"] == format!("{here}/token")
        && claims["scope"] == SCOPE
        && issued.abs_diff(now) < 300
        && ends > now
        && ends - issued <= 3_600
}

/// The path and query of a request, from its first `/`.
pub(super) fn path(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}
