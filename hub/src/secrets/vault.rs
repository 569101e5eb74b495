//! The key-encryption key in Vault or OpenBao: transit wraps and unwraps, and the key itself never leaves it.
//!
//! Every request goes through one `Connection`, which asks one thing at a time and knows when not to ask.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use llm_config_shared::codec::{Reader, Writer};
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;
use vaultrs::api::transit::KeyType;
use vaultrs::api::transit::requests::{
    CreateKeyRequest, DecryptDataRequest, EncryptDataRequest, ReadKeyRequest, RotateKeyRequest,
};
use zeroize::Zeroizing;

use super::local::context;
use super::provider::{KeyProvider, KeyVersion, ProviderError, ProviderKind, VAULT_FORM};

mod connection;
mod error;
pub mod kv;
mod session;
mod settings;
mod upkeep;

use connection::{AskError, Connection};
pub use error::{Reason, VaultError};
pub use settings::{Credential, Hidden, VaultAuth, VaultSettings};

const KEY_NAME_BYTES_MAX: usize = 1_024;
const CIPHERTEXT_BYTES_MAX: usize = 64 << 10;
/// Ciphers that bind what they seal to associated data, which ties a wrapped key to its name.
const AEAD_TYPES: [&str; 4] = ["aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"];

/// The key-encryption key as transit keeps it.
pub struct Vault {
    connection: Arc<Connection>,
    mount: String,
    key: String,
}

impl Vault {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// When the settings name files that cannot be used.
    pub fn new(settings: VaultSettings) -> Result<Self, VaultError> {
        let (mount, key) = (settings.mount.clone(), settings.transit_key.clone());
        Ok(Self { connection: Arc::new(Connection::new(settings)?), mount, key })
    }

    /// Renews the token, notices outages before callers do, and finds out when they are over. Runs until `stop`.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        upkeep::keep(&self, stop).await;
    }

    /// Why it cannot be used now, as far as is known.
    pub fn trouble(&self) -> Option<String> {
        // Anybody may ask for the hub's health, so a path of its machine is left to the log.
        let reason = self.connection.trouble()?.reason;
        if matches!(reason, Reason::Credential { .. }) {
            return Some("the hub cannot read what it logs in to Vault with".to_owned());
        }
        Some(reason.to_string())
    }

    /// Sees that the transit key is there and of use; with `make`, makes it where it is missing.
    ///
    /// # Errors
    /// When it is not, or Vault cannot be asked.
    pub async fn check_key(&self, make: bool) -> Result<(), VaultError> {
        match self.read_key().await {
            Err(VaultError::NoKey { .. }) if make => {
                let request = CreateKeyRequest {
                    mount: self.mount.clone(),
                    name: self.key.clone(),
                    key_type: Some(KeyType::Aes256Gcm96),
                    ..CreateKeyRequest::default()
                };
                self.connection.ask("create_key", &request).await.map_err(|error| self.refused(error, 0))?;
                tracing::info!(key = %self.name(), "the transit key was made");
                self.read_key().await.map(|_| ())
            }
            other => other.map(|_| ()),
        }
    }

    /// The latest version of the transit key.
    async fn read_key(&self) -> Result<u64, VaultError> {
        let answer = match self.connection.ask("read_key", &self.key_request()).await {
            Err(AskError::Refused { status: 404, .. }) => {
                return Err(VaultError::NoKey { key: self.name() });
            }
            other => other.map_err(|error| self.refused(error, 0))?,
        };
        let data = &answer["data"];
        let unfit = |what| Err(VaultError::UnfitKey { key: self.name(), what });
        if !data["type"].as_str().is_some_and(|kind| AEAD_TYPES.contains(&kind)) {
            return unfit("is of a type that binds nothing to its place; make one of type aes256-gcm96");
        }
        if data["derived"].as_bool() == Some(true) {
            return unfit("is derived; make one without derivation");
        }
        let versions = data["keys"].as_object().map(|keys| keys.keys().filter_map(|key| key.parse().ok()));
        let latest = data["latest_version"].as_u64().or_else(|| versions.and_then(Iterator::max));
        latest.ok_or(VaultError::Answer("a key without a version"))
    }

    fn key_request(&self) -> ReadKeyRequest {
        ReadKeyRequest { mount: self.mount.clone(), name: self.key.clone() }
    }

    fn name(&self) -> String {
        format!("{}/{}", self.mount, self.key)
    }

    /// `version` is of what was to be unwrapped.
    fn refused(&self, error: AskError, version: u64) -> VaultError {
        match error {
            AskError::Away(error) => error,
            // The text is Vault's own and is not repeated: it has held what was sent before.
            AskError::Refused { said, .. } if said.contains("too old") => {
                VaultError::OldVersion { key: self.name(), version }
            }
            AskError::Refused { status: 404, .. } => VaultError::NoKey { key: self.name() },
            AskError::Refused { said, .. } if said.contains("key not found") => {
                VaultError::NoKey { key: self.name() }
            }
            AskError::Refused { status: 400, .. } => VaultError::CannotOpen,
            AskError::Refused { .. } => VaultError::Answer("an answer that is not expected here"),
        }
    }

    /// Which version of which transit key wrapped something, when one did.
    pub(super) fn wrapped_by(wrapped: &[u8]) -> Option<KeyVersion> {
        let (key, version, _) = parts(wrapped)?;
        Some(KeyVersion { provider: ProviderKind::Vault, key: key.to_owned(), version: Some(version) })
    }
}

impl KeyProvider for Vault {
    async fn wrap_key(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, ProviderError> {
        let request = EncryptDataRequest {
            mount: self.mount.clone(),
            name: self.key.clone(),
            plaintext: STANDARD.encode(plain),
            associated_data: Some(STANDARD.encode(context(name))),
            ..EncryptDataRequest::default()
        };
        let answer = self.connection.ask("encrypt", &request).await;
        drop(Zeroizing::new(request.plaintext));
        let answer = answer.map_err(|error| self.refused(error, 0))?;
        let ciphertext = answer["data"]["ciphertext"].as_str();
        let ciphertext = ciphertext.ok_or(VaultError::Answer("no ciphertext"))?;
        let version = version_of(ciphertext).ok_or(VaultError::Answer("a ciphertext without a version"))?;
        let mut out = Writer::default();
        out.u8(VAULT_FORM);
        out.str(&self.name());
        out.uint(version);
        out.str(ciphertext);
        Ok(out.finish())
    }

    async fn unwrap_key(&self, name: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        let (key, version, ciphertext) = parts(wrapped).ok_or(ProviderError::NotWrapped)?;
        if key != self.name() {
            let (wrapped, configured) = (key.to_owned(), self.name());
            return Err(VaultError::OtherKey { wrapped, configured }.into());
        }
        let request = DecryptDataRequest {
            mount: self.mount.clone(),
            name: self.key.clone(),
            ciphertext: ciphertext.to_owned(),
            associated_data: Some(STANDARD.encode(context(name))),
            ..DecryptDataRequest::default()
        };
        let answer = self.connection.ask("decrypt", &request).await;
        let mut answer = answer.map_err(|error| self.refused(error, version))?;
        let Json::String(plain) = answer["data"]["plaintext"].take() else {
            return Err(VaultError::Answer("no plaintext").into());
        };
        let plain = Zeroizing::new(plain);
        let plain = STANDARD.decode(plain.as_bytes()).map_err(|_| VaultError::Answer("no base64"))?;
        Ok(Zeroizing::new(plain))
    }

    async fn current(&self) -> Result<KeyVersion, ProviderError> {
        let version = Some(self.read_key().await?);
        Ok(KeyVersion { provider: ProviderKind::Vault, key: self.name(), version })
    }

    async fn rotate(&self) -> Result<KeyVersion, ProviderError> {
        let request = RotateKeyRequest { mount: self.mount.clone(), name: self.key.clone() };
        self.connection.ask("rotate", &request).await.map_err(|error| self.refused(error, 0))?;
        self.current().await
    }
}

/// Key, version and ciphertext.
fn parts(wrapped: &[u8]) -> Option<(&str, u64, &str)> {
    let mut reader = Reader::new(wrapped.strip_prefix(&[VAULT_FORM])?);
    let key = reader.str(KEY_NAME_BYTES_MAX, "key").ok()?;
    let version = reader.uint("version").ok()?;
    let ciphertext = reader.str(CIPHERTEXT_BYTES_MAX, "ciphertext").ok()?;
    reader.finish().ok()?;
    Some((key, version, ciphertext))
}

/// The version in `vault:vN:…`.
fn version_of(ciphertext: &str) -> Option<u64> {
    let (version, _) = ciphertext.strip_prefix("vault:v")?.split_once(':')?;
    version.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vault_wrapped_says_by_which_version() {
        let mut out = Writer::default();
        out.u8(VAULT_FORM);
        out.str("transit/hub");
        out.uint(12);
        out.str("vault:v12:abc");
        let wrapped = out.finish();
        let by = Vault::wrapped_by(&wrapped).unwrap();
        assert_eq!(by.to_string(), "vault transit/hub version 12");
        assert!(Vault::wrapped_by(&wrapped[..wrapped.len() - 1]).is_none());
        assert!(Vault::wrapped_by(&[1, 2, 3]).is_none());
        assert_eq!(version_of("vault:v12:abc"), Some(12));
        assert_eq!(version_of("vault:12:abc"), None);
    }
}
