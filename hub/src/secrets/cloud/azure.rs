//! Azure Key Vault and managed HSMs by their SDK: wrapKey and unwrapKey of a data key that the hub makes, the state of a
//! key and its rotation.
//!
//! A vault binds what it wraps to nothing. What binds it to its name is the data key, which seals it here together with
//! the name.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use azure_core::Error;
use azure_core::error::ErrorKind;
use azure_core::http::headers::HeaderName;
use azure_core::http::{RawResponse, RequestContent, Response};
use azure_core::time::OffsetDateTime;
use azure_security_keyvault_keys::models::{
    EncryptionAlgorithm, Key, KeyClientGetKeyOptions, KeyClientWrapKeyOptions, KeyOperationParameters,
    KeyType,
};
use azure_security_keyvault_keys::{KeyClient, ResourceExt as _, ResourceId};
use llm_config_shared::seal::SealKey;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::client::client;
use super::error::{CloudError, CloudReason};
use super::service::{Failed, FreshKey, Service, away, no_randomness};
use super::settings::AzureSettings;
use super::wrapped::MadeBy;
use crate::secrets::local::random;
use crate::secrets::provider::ProviderKind;

mod connection;

use connection::{Clients, Connection};

const KIND: ProviderKind = ProviderKind::AzureKeyVault;
const GET: &str = "keys/get";
const WRAP: &str = "keys/wrapKey";
const UNWRAP: &str = "keys/unwrapKey";
const ROTATE: &str = "keys/rotate";

/// One key of a vault.
pub(super) struct AzureKeyVault {
    key: Place,
    previous_keys: Vec<Place>,
    connection: Connection,
    clients: Mutex<Option<Arc<Clients>>>,
}

/// Where a key is.
struct Place {
    /// As the settings name it.
    url: String,
    vault: String,
    name: String,
}

/// How a vault wraps. Its number stands before what was wrapped, in the database for as long as the database.
#[derive(Clone, Copy)]
enum Algorithm {
    /// By an RSA key.
    RsaOaep256 = 1,
    /// By a symmetric key, which a managed HSM alone has.
    A256Kw = 2,
}

impl Algorithm {
    fn of(number: u8) -> Option<Self> {
        [Self::RsaOaep256, Self::A256Kw].into_iter().find(|algorithm| *algorithm as u8 == number)
    }

    fn parameters(self, value: &[u8]) -> Result<RequestContent<KeyOperationParameters>, Failed> {
        let algorithm = Some(match self {
            Self::RsaOaep256 => EncryptionAlgorithm::RsaOaep256,
            Self::A256Kw => EncryptionAlgorithm::A256Kw,
        });
        let value = Some(value.to_vec());
        let parameters = KeyOperationParameters { algorithm, value, ..KeyOperationParameters::default() };
        parameters.try_into().map_err(|_| odd("no way to ask it"))
    }
}

impl Place {
    fn of(url: &str) -> Result<Self, CloudError> {
        let parsed: Result<ResourceId, _> = url.parse();
        match parsed {
            Ok(ResourceId { vault_url, name, version: None, .. }) => {
                Ok(Self { url: url.to_owned(), vault: vault_url, name })
            }
            Ok(_) | Err(_) => {
                let what = format!("{url} is not like https://VAULT.vault.azure.net/keys/NAME");
                Err(CloudError::SetUp { provider: KIND, what })
            }
        }
    }
}

impl AzureKeyVault {
    pub(super) fn new(settings: &AzureSettings) -> Result<Self, CloudError> {
        let key = Place::of(&settings.key)?;
        let previous_keys: Vec<Place> =
            settings.previous_keys.iter().map(|url| Place::of(url)).collect::<Result<_, _>>()?;
        let http = client(KIND, settings.ca_cert.as_deref())?;
        let places: Vec<&Place> = std::iter::once(&key).chain(&previous_keys).collect();
        let connection = Connection::new(http, settings, &places);
        Ok(Self { key, previous_keys, connection, clients: Mutex::default() })
    }

    fn place(&self, url: &str) -> Option<&Place> {
        std::iter::once(&self.key).chain(&self.previous_keys).find(|place| place.url == url)
    }

    async fn client(&self, place: &Place) -> Result<Arc<KeyClient>, Failed> {
        let clients = self.clients().await?;
        clients.get(&place.vault).cloned().ok_or_else(|| odd("no such vault"))
    }

    /// What a vault's answer comes to. `permission` is what the request needed.
    async fn judged<T: DeserializeOwned>(
        &self,
        answer: azure_core::Result<Response<T>>,
        place: &Place,
        permission: &'static str,
    ) -> Result<T, Failed> {
        let failed = match answer.and_then(Response::into_model) {
            Ok(answer) => return Ok(answer),
            Err(error) => failed(&error, permission, place),
        };
        if let Failed::Away { reason: CloudReason::BadCredentials | CloudReason::NoCredentials, .. } = &failed
        {
            *self.clients.lock().await = None;
        }
        Err(failed)
    }

    async fn clients(&self) -> Result<Arc<Clients>, Failed> {
        let mut clients = self.clients.lock().await;
        if let Some(clients) = clients.as_ref() {
            return Ok(Arc::clone(clients));
        }
        let made = Arc::new(self.connection.clients().await?);
        *clients = Some(Arc::clone(&made));
        Ok(made)
    }

    /// A version of a key, or what is current.
    async fn look(&self, place: &Place, version: Option<&str>) -> Result<Key, Failed> {
        let options = KeyClientGetKeyOptions {
            key_version: version.map(str::to_owned),
            ..KeyClientGetKeyOptions::default()
        };
        let answer = self.client(place).await?.get_key(&place.name, Some(options)).await;
        self.judged(answer, place, GET).await
    }

    /// What wraps now, and how.
    async fn newest(&self) -> Result<(MadeBy, Algorithm), Failed> {
        let key = self.look(&self.key, None).await?;
        let unfit = |what| Failed::Refused(self.unfit(what));
        if is_disabled(&key) {
            return Err(away(CloudReason::KeyDisabled));
        }
        let (now, attributes) = (OffsetDateTime::now_utc(), key.attributes.as_ref());
        let ended = attributes.and_then(|said| said.expires).is_some_and(|end| end <= now);
        if ended || attributes.and_then(|said| said.not_before).is_some_and(|begin| begin > now) {
            return Err(unfit("has expired, or is not valid yet: rotate it, or change its dates"));
        }
        let said = key.key.as_ref().ok_or_else(|| odd("a key without a description"))?;
        let algorithm = match said.kty {
            Some(KeyType::Rsa | KeyType::RsaHsm) => Algorithm::RsaOaep256,
            Some(KeyType::Oct | KeyType::OctHsm) => Algorithm::A256Kw,
            Some(KeyType::Ec | KeyType::EcHsm | KeyType::UnknownValue(_)) | None => {
                return Err(unfit("cannot wrap: make one of the type RSA, or oct in a managed HSM"));
            }
        };
        let may = |operation: &str| {
            said.key_ops.as_ref().is_none_or(|allowed| allowed.iter().any(|one| one == operation))
        };
        if !may("wrapKey") || !may("unwrapKey") {
            return Err(unfit("may not wrap: allow it the operations wrapKey and unwrapKey"));
        }
        Ok((made_by(&self.key, key.resource_id())?, algorithm))
    }

    /// A vault says no to what is disabled as it does to who may not; the version's own state tells which.
    async fn why_denied(&self, place: &Place, by: &MadeBy, permission: &'static str) -> Failed {
        match self.look(place, Some(&by.version)).await {
            Ok(key) if !is_disabled(&key) => away(CloudReason::Denied(permission)),
            Ok(_) => match self.newest().await {
                Ok(_) => Failed::Refused(CloudError::OldVersion {
                    provider: KIND,
                    key: by.key.clone(),
                    version: by.version.clone(),
                }),
                Err(failed) => failed,
            },
            Err(_) => away(CloudReason::Denied(permission)),
        }
    }

    fn unfit(&self, what: &'static str) -> CloudError {
        CloudError::UnfitKey { provider: KIND, key: self.key.url.clone(), what }
    }
}

impl Service for AzureKeyVault {
    const KIND: ProviderKind = KIND;

    fn is_trusted(&self, key: &str) -> bool {
        self.place(key).is_some()
    }

    async fn current(&self) -> Result<MadeBy, Failed> {
        Ok(self.newest().await?.0)
    }

    async fn fresh_data_key(&self, _name: &str) -> Result<FreshKey, Failed> {
        let data_key: Zeroizing<[u8; 32]> = Zeroizing::new(random().map_err(|_| no_randomness())?);
        let (by, algorithm) = self.newest().await?;
        let options = KeyClientWrapKeyOptions {
            key_version: Some(by.version.clone()),
            ..KeyClientWrapKeyOptions::default()
        };
        let parameters = algorithm.parameters(&*data_key)?;
        let client = self.client(&self.key).await?;
        let answer = client.wrap_key(&self.key.name, parameters, Some(options)).await;
        let answer = self.judged(answer, &self.key, WRAP).await?;
        if made_by(&self.key, answer.resource_id())? != by {
            return Err(odd("what another key wrapped"));
        }
        let wrapped = answer.result.ok_or_else(|| odd("a data key without its wrapping"))?;
        let wrapped = [&[algorithm as u8], wrapped.as_slice()].concat();
        Ok(FreshKey { by, wrapped, key: SealKey::new(*data_key) })
    }

    async fn open_data_key(&self, by: &MadeBy, wrapped: &[u8], _name: &str) -> Result<SealKey, Failed> {
        let cannot_open = || Failed::Refused(CloudError::CannotOpen { provider: KIND });
        let (number, wrapped) = wrapped.split_first().ok_or_else(cannot_open)?;
        let parameters = Algorithm::of(*number).ok_or_else(cannot_open)?.parameters(wrapped)?;
        let place = self.place(&by.key).ok_or_else(cannot_open)?;
        // It becomes a part of an address.
        if by.version.is_empty() || !by.version.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(cannot_open());
        }
        let client = self.client(place).await?;
        let answer = client.unwrap_key(&place.name, &by.version, parameters, None).await;
        let mut answer = match self.judged(answer, place, UNWRAP).await {
            Err(Failed::Away { reason: CloudReason::Denied(permission), .. }) => {
                return Err(self.why_denied(place, by, permission).await);
            }
            // The key is there, as a look at it shows, and this version of it is not.
            Err(Failed::Refused(CloudError::NoKey { .. })) if self.newest().await.is_ok() => {
                return Err(cannot_open());
            }
            answered => answered?,
        };
        if made_by(place, answer.resource_id())? != *by {
            return Err(odd("what another key opened"));
        }
        let plain = Zeroizing::new(answer.result.take().unwrap_or_default());
        SealKey::from_slice(&plain).map_err(|_| odd("a data key of another length"))
    }

    async fn rotate(&self) -> Result<(), Failed> {
        let answer = self.client(&self.key).await?.rotate_key(&self.key.name, None).await;
        self.judged(answer, &self.key, ROTATE).await?;
        Ok(())
    }
}

fn odd(what: &'static str) -> Failed {
    Failed::Refused(CloudError::Answer { provider: KIND, what })
}

fn is_disabled(key: &Key) -> bool {
    key.attributes.as_ref().is_some_and(|attributes| attributes.enabled == Some(false))
}

/// The version that an answer names, which has to be one of this key.
fn made_by(place: &Place, named: azure_core::Result<ResourceId>) -> Result<MadeBy, Failed> {
    let named = named.map_err(|_| odd("a key without its address"))?;
    let version = named.version.filter(|_| named.name == place.name && named.vault_url == place.vault);
    let version = version.ok_or_else(|| odd("the version of another key"))?;
    Ok(MadeBy { provider: KIND, key: place.url.clone(), version })
}

/// The texts beside the codes are Azure's own and are not repeated.
fn failed(error: &Error, permission: &'static str, place: &Place) -> Failed {
    match error.kind() {
        ErrorKind::HttpResponse { status, raw_response, .. } => {
            let asked = raw_response.as_deref().and_then(retry_after);
            let away = |reason| Failed::Away { reason, asked };
            match u16::from(*status) {
                401 => away(CloudReason::BadCredentials),
                403 => away(CloudReason::Denied(permission)),
                404 => Failed::Refused(CloudError::NoKey { provider: KIND, key: place.url.clone() }),
                // It is being deleted, or brought back.
                409 => away(CloudReason::KeyNotUsable),
                400 if permission == UNWRAP => Failed::Refused(CloudError::CannotOpen { provider: KIND }),
                429 => away(CloudReason::Throttled),
                status if status < 400 => away(CloudReason::NoAnswer),
                status => away(CloudReason::Failing(status)),
            }
        }
        ErrorKind::Credential => no_token(error),
        ErrorKind::Connection => away(CloudReason::Unreachable),
        ErrorKind::Io | ErrorKind::DataConversion | ErrorKind::Other => away(CloudReason::NoAnswer),
    }
}

/// Why the hub was given no token.
fn no_token(error: &Error) -> Failed {
    match beneath(error).map(Error::kind) {
        Some(ErrorKind::HttpResponse { status, raw_response, .. }) => {
            let reason = match u16::from(*status) {
                400 | 401 | 403 => CloudReason::BadCredentials,
                429 => CloudReason::Throttled,
                status => CloudReason::Failing(status),
            };
            Failed::Away { reason, asked: raw_response.as_deref().and_then(retry_after) }
        }
        Some(ErrorKind::Connection) => away(CloudReason::Unreachable),
        Some(ErrorKind::Io | ErrorKind::DataConversion | ErrorKind::Credential | ErrorKind::Other) | None => {
            away(CloudReason::NoCredentials)
        }
    }
}

/// Credentials wrap the error that tells what it was.
fn beneath(error: &Error) -> Option<&Error> {
    let mut cause = error.source();
    while let Some(found) = cause {
        match found.downcast_ref::<Error>() {
            Some(error) if *error.kind() != ErrorKind::Credential => return Some(error),
            Some(_) | None => cause = found.source(),
        }
    }
    None
}

fn retry_after(answer: &RawResponse) -> Option<Duration> {
    let seconds = answer.headers().get_optional_str(&HeaderName::from_static("retry-after"))?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}
