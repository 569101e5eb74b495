//! Google's Cloud KMS over its REST API, version 1: encrypt and decrypt with associated data and checksums of everything
//! that is sent, the state of a key, a new version and its promotion.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use llm_config_shared::seal::SealKey;
use reqwest::{Client, RequestBuilder};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::client::client;
use super::error::{CloudError, CloudReason};
use super::service::{Failed, FreshKey, Service, away, no_randomness};
use super::settings::GcpSettings;
use super::wrapped::MadeBy;
use crate::secrets::local::{context, random};
use crate::secrets::provider::ProviderKind;

mod crc32c;
mod identity;
mod rest;

use crc32c::crc32c;
use identity::{Identity, Source};
use rest::{Answer, Body as _, Hidden, send};

const KIND: ProviderKind = ProviderKind::GcpKms;
/// The permission to decrypt.
const OPENING: &str = "cloudkms.cryptoKeyVersions.useToDecrypt";
/// How long a new version's material may take is the gate's to say.
const PAUSE: Duration = Duration::from_millis(200);

/// One key of Cloud KMS.
pub(super) struct GcpKms {
    client: Client,
    identity: Identity,
    endpoint: String,
    key: String,
    previous_keys: Vec<String>,
}

/// A number of 64 bits, which is a text in JSON.
type Checksum = String;

#[derive(Deserialize)]
struct CryptoKey {
    purpose: Option<String>,
    primary: Option<CryptoKeyVersion>,
}

#[derive(Deserialize)]
struct CryptoKeyVersion {
    name: String,
    state: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Encrypt {
    plaintext: Hidden,
    plaintext_crc32c: Checksum,
    additional_authenticated_data: String,
    additional_authenticated_data_crc32c: Checksum,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Encrypted {
    /// The version that did it.
    name: String,
    ciphertext: String,
    ciphertext_crc32c: Checksum,
    #[serde(default)]
    verified_plaintext_crc32c: bool,
    #[serde(default)]
    verified_additional_authenticated_data_crc32c: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Decrypt {
    ciphertext: String,
    ciphertext_crc32c: Checksum,
    additional_authenticated_data: String,
    additional_authenticated_data_crc32c: Checksum,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Decrypted {
    plaintext: Hidden,
    plaintext_crc32c: Checksum,
}

#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    error: Status,
}

/// What Google says when it says no; the text beside it is its own and is not repeated.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    status: String,
    details: Vec<Detail>,
}

/// Of its many kinds only the one that says when to ask again.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    retry_delay: Option<String>,
}

impl GcpKms {
    pub(super) fn new(settings: &GcpSettings) -> Result<Self, CloudError> {
        let client = client(KIND, settings.ca_cert.as_deref())?;
        let direct = Client::builder().no_proxy().build();
        let direct =
            direct.map_err(|_| CloudError::SetUp { provider: KIND, what: "TLS is of no use".to_owned() })?;
        let source = match &settings.credentials_file {
            Some(path) => Source::File(path.clone()),
            None => Source::Machine { host: settings.metadata_host.clone() },
        };
        Ok(Self {
            identity: Identity::new(source, client.clone(), direct),
            client,
            endpoint: settings.endpoint.trim_end_matches('/').to_owned(),
            key: settings.key.clone(),
            previous_keys: settings.previous_keys.clone(),
        })
    }

    fn at(&self, path: &str) -> String {
        format!("{}/v1/{path}", self.endpoint)
    }

    /// `permission` is what the request needs.
    async fn ask<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        permission: &'static str,
    ) -> Result<T, Failed> {
        let token = self.identity.token().await?;
        let answer = send(request.bearer_auth(&*token)).await?;
        if answer.status == 200 {
            return answer.json().ok_or_else(|| away(CloudReason::NoAnswer));
        }
        if answer.status == 401 {
            self.identity.forget().await;
        }
        Err(self.said_no(&answer, permission))
    }

    fn said_no(&self, answer: &Answer, permission: &'static str) -> Failed {
        let Status { status, details } = answer.json::<Refusal>().unwrap_or_default().error;
        let delay = details.iter().find_map(|detail| seconds(detail.retry_delay.as_deref()?));
        let away = |reason| Failed::Away { reason, asked: answer.asked.or(delay) };
        match (answer.status, status.as_str()) {
            (401, _) => away(CloudReason::BadCredentials),
            (403, _) => away(CloudReason::Denied(permission)),
            (404, "NOT_FOUND") => {
                Failed::Refused(CloudError::NoKey { provider: KIND, key: self.key.clone() })
            }
            (400, "FAILED_PRECONDITION") => away(CloudReason::KeyNotUsable),
            (400, "INVALID_ARGUMENT") if permission == OPENING => {
                Failed::Refused(CloudError::CannotOpen { provider: KIND })
            }
            (429, _) => away(CloudReason::Throttled),
            // A proxy's page, or the end of an answer.
            (status, _) if status < 400 => away(CloudReason::NoAnswer),
            (status, _) => away(CloudReason::Failing(status)),
        }
    }

    /// A key may be well and one of its versions not.
    async fn why_not(&self, by: &MadeBy) -> Failed {
        let wraps = by.key == self.key;
        match self.current().await {
            Ok(now) if !wraps || now.version != by.version => Failed::Refused(CloudError::OldVersion {
                provider: KIND,
                key: by.key.clone(),
                version: by.version.clone(),
            }),
            Ok(_) => away(CloudReason::KeyNotUsable),
            Err(failed) => failed,
        }
    }

    fn made_by(&self, key: &str, version: &str) -> Result<MadeBy, Failed> {
        let number = version.strip_prefix(key).and_then(|rest| rest.strip_prefix("/cryptoKeyVersions/"));
        let number = number.filter(|number| number.parse::<u64>().is_ok());
        let number = number.ok_or_else(|| odd("the version of another key"))?;
        Ok(MadeBy { provider: KIND, key: key.to_owned(), version: number.to_owned() })
    }

    async fn encrypted(&self, data_key: &[u8], name: &str) -> Result<(MadeBy, Vec<u8>), Failed> {
        let bound = context(name);
        let body = Encrypt {
            plaintext: Hidden::new(STANDARD.encode(data_key)),
            plaintext_crc32c: checksum(data_key),
            additional_authenticated_data: STANDARD.encode(&bound),
            additional_authenticated_data_crc32c: checksum(&bound),
        };
        let request = self.client.post(self.at(&format!("{}:encrypt", self.key))).with_json(&body);
        let answer: Encrypted = self.ask(request, "cloudkms.cryptoKeyVersions.useToEncrypt").await?;
        let wrapped = STANDARD.decode(&answer.ciphertext).map_err(|_| odd("a ciphertext that is none"))?;
        // What it heard and what was sent, and what it sent and what was heard.
        let heard = answer.verified_plaintext_crc32c && answer.verified_additional_authenticated_data_crc32c;
        if !heard || answer.ciphertext_crc32c != checksum(&wrapped) {
            return Err(away(CloudReason::Garbled));
        }
        Ok((self.made_by(&self.key, &answer.name)?, wrapped))
    }
}

impl Service for GcpKms {
    const KIND: ProviderKind = KIND;

    fn is_trusted(&self, key: &str) -> bool {
        self.key == key || self.previous_keys.iter().any(|previous| previous == key)
    }

    async fn current(&self) -> Result<MadeBy, Failed> {
        let asked = self.client.get(self.at(&self.key));
        let key: CryptoKey = self.ask(asked, "cloudkms.cryptoKeys.get").await?;
        if key.purpose.as_deref() != Some("ENCRYPT_DECRYPT") {
            let what = "does not encrypt: make one with the purpose encryption (ENCRYPT_DECRYPT)";
            return Err(self.unfit(what));
        }
        let primary = key.primary.ok_or_else(|| self.unfit("has no primary version: make one"))?;
        match primary.state.as_deref() {
            Some("ENABLED") => self.made_by(&self.key, &primary.name),
            Some("DISABLED") => Err(away(CloudReason::KeyDisabled)),
            Some(_) | None => Err(away(CloudReason::KeyNotUsable)),
        }
    }

    async fn fresh_data_key(&self, name: &str) -> Result<FreshKey, Failed> {
        let data_key: Zeroizing<[u8; 32]> = Zeroizing::new(random().map_err(|_| no_randomness())?);
        match self.encrypted(&*data_key, name).await {
            Ok((by, wrapped)) => Ok(FreshKey { by, wrapped, key: SealKey::new(*data_key) }),
            // The state of its primary version says more.
            Err(Failed::Away { reason: CloudReason::KeyNotUsable, asked }) => match self.current().await {
                Ok(_) => Err(Failed::Away { reason: CloudReason::KeyNotUsable, asked }),
                Err(failed) => Err(failed),
            },
            Err(failed) => Err(failed),
        }
    }

    async fn open_data_key(&self, by: &MadeBy, wrapped: &[u8], name: &str) -> Result<SealKey, Failed> {
        let bound = context(name);
        let body = Decrypt {
            ciphertext: STANDARD.encode(wrapped),
            ciphertext_crc32c: checksum(wrapped),
            additional_authenticated_data: STANDARD.encode(&bound),
            additional_authenticated_data_crc32c: checksum(&bound),
        };
        let request = self.client.post(self.at(&format!("{}:decrypt", by.key))).with_json(&body);
        let answer: Decrypted = match self.ask(request, OPENING).await {
            Err(Failed::Away { reason: CloudReason::KeyNotUsable, .. }) => {
                return Err(self.why_not(by).await);
            }
            answered => answered?,
        };
        let plain = STANDARD.decode(answer.plaintext.as_bytes()).map(Zeroizing::new);
        let plain = plain.map_err(|_| odd("a data key that is none"))?;
        if answer.plaintext_crc32c != checksum(&plain) {
            return Err(away(CloudReason::Garbled));
        }
        SealKey::from_slice(&plain).map_err(|_| odd("a data key of another length"))
    }

    async fn rotate(&self) -> Result<(), Failed> {
        let made =
            self.client.post(self.at(&format!("{}/cryptoKeyVersions", self.key))).with_json(&json!({}));
        let mut made: CryptoKeyVersion = self.ask(made, "cloudkms.cryptoKeyVersions.create").await?;
        while made.state.as_deref() == Some("PENDING_GENERATION") {
            tokio::time::sleep(PAUSE).await;
            made = self.ask(self.client.get(self.at(&made.name)), "cloudkms.cryptoKeyVersions.get").await?;
        }
        let number = self.made_by(&self.key, &made.name)?.version;
        let promoted = self.client.post(self.at(&format!("{}:updatePrimaryVersion", self.key)));
        let promoted = promoted.with_json(&json!({"cryptoKeyVersionId": number}));
        let _: CryptoKey = self.ask(promoted, "cloudkms.cryptoKeys.update").await?;
        Ok(())
    }
}

impl GcpKms {
    fn unfit(&self, what: &'static str) -> Failed {
        Failed::Refused(CloudError::UnfitKey { provider: KIND, key: self.key.clone(), what })
    }
}

fn odd(what: &'static str) -> Failed {
    Failed::Refused(CloudError::Answer { provider: KIND, what })
}

fn checksum(bytes: &[u8]) -> Checksum {
    crc32c(bytes).to_string()
}

/// Google's way to write a duration: `1.5s`.
fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.strip_suffix('s')?.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_nonsense_is_not() {
        assert_eq!(seconds("2s"), Some(Duration::from_secs(2)));
        assert_eq!(seconds("0.5s"), Some(Duration::from_millis(500)));
        for nonsense in ["", "s", "2", "-1s", "NaNs", "infs"] {
            assert_eq!(seconds(nonsense), None, "{nonsense}");
        }
    }
}
