//! Who holds the key-encryption key: the seam between the hub's keys and what wraps them.
//!
//! What is wrapped begins with a byte that names its provider and goes on with the key and its version, so that one
//! database may hold keys of two providers while a change from one to the other is under way: what is new is wrapped by
//! the current one, what is there is unwrapped by whoever wrapped it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::cloud::{Cloud, CloudError};
use super::local::{KeyringError, LocalKeyring};
use super::vault::{Vault, VaultError};

/// The first byte of what is wrapped; in the database for as long as the database.
pub(super) const LOCAL_FORM: u8 = 1;
pub(super) const VAULT_FORM: u8 = 2;
pub(super) const AWS_FORM: u8 = 3;
pub(super) const GCP_FORM: u8 = 4;
pub(super) const AZURE_FORM: u8 = 5;

/// A keychain is looked at again after this: somebody may have logged in.
const KEYCHAIN_AFTER_S: u32 = 2;

/// What can hold the key-encryption key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProviderKind {
    /// A file of this machine.
    Local,
    /// Transit of Vault or OpenBao.
    Vault,
    /// A key of AWS KMS.
    AwsKms,
    /// A key of Google's Cloud KMS.
    GcpKms,
    /// A key of Azure Key Vault or of a managed HSM there.
    AzureKeyVault,
}

impl ProviderKind {
    /// Whether it is a cloud's key management.
    pub fn is_a_cloud(self) -> bool {
        match self {
            Self::Local | Self::Vault => false,
            Self::AwsKms | Self::GcpKms | Self::AzureKeyVault => true,
        }
    }

    /// As people call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Local => "the local keyring",
            Self::Vault => "Vault",
            Self::AwsKms => "AWS KMS",
            Self::GcpKms => "Google Cloud KMS",
            Self::AzureKeyVault => "Azure Key Vault",
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Vault => "vault",
            Self::AwsKms => "aws-kms",
            Self::GcpKms => "gcp-kms",
            Self::AzureKeyVault => "azure-keyvault",
        })
    }
}

/// One version of a key-encryption key, by which things are told apart that it wrapped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyVersion {
    pub provider: ProviderKind,
    /// Names the key without telling anything about it; of Vault, `MOUNT/KEY`; of a cloud, also its version.
    pub key: String,
    /// Of a provider whose keys have versions under one name.
    pub version: Option<u64>,
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.provider, self.key)?;
        self.version.map_or(Ok(()), |version| write!(f, " version {version}"))
    }
}

/// Why something could not be wrapped or unwrapped.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error(transparent)]
    Local(#[from] KeyringError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Cloud(#[from] CloudError),
    #[error("{} opens what it wrapped as something else than it was given", .0.title())]
    NotTheSame(ProviderKind),
    #[error(
        "a stored key was wrapped by the provider {0}, which the settings do not name: keep its table in hub.toml until \
         `llm-config-hub keys rewrap` has said that nothing of it is left"
    )]
    NotConfigured(ProviderKind),
    #[error("what is stored as a wrapped key is none, or is of a newer version of this program")]
    NotWrapped,
}

impl ProviderError {
    /// When to ask again, in seconds, where it may work then without anybody changing a setting.
    pub fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Vault(error) => error.retry_after_s(),
            Self::Cloud(error) => error.retry_after_s(),
            Self::Local(KeyringError::Keychain(error)) if error.may_pass() => Some(KEYCHAIN_AFTER_S),
            Self::Local(_) | Self::NotTheSame(_) | Self::NotConfigured(_) | Self::NotWrapped => None,
        }
    }

    /// Why the provider is of no use now, and when to ask again in seconds, where that may change without anybody
    /// changing a setting of the hub.
    pub fn away(&self) -> Option<(String, u32)> {
        match self {
            Self::Vault(VaultError::Away { reason, retry_after_s }) => {
                Some((reason.to_string(), *retry_after_s))
            }
            Self::Cloud(error @ CloudError::Away { retry_after_s, .. }) => {
                Some((error.to_string(), *retry_after_s))
            }
            Self::Local(KeyringError::Keychain(error)) if error.may_pass() => {
                Some((error.to_string(), KEYCHAIN_AFTER_S))
            }
            Self::Vault(_)
            | Self::Cloud(_)
            | Self::Local(_)
            | Self::NotTheSame(_)
            | Self::NotConfigured(_)
            | Self::NotWrapped => None,
        }
    }
}

/// Wraps small keys. What it wrapped is bound to a name and is opened under that name alone.
///
/// Nothing here is asked twice for the same key: whoever calls keeps what was unwrapped in memory.
pub trait KeyProvider: Send + Sync {
    /// Wraps under the current version of the key.
    fn wrap_key(
        &self,
        name: &str,
        plain: &[u8],
    ) -> impl Future<Output = Result<Vec<u8>, ProviderError>> + Send;

    /// The inverse of [`wrap_key`](Self::wrap_key), of every version that the provider still has.
    fn unwrap_key(
        &self,
        name: &str,
        wrapped: &[u8],
    ) -> impl Future<Output = Result<Zeroizing<Vec<u8>>, ProviderError>> + Send;

    /// What [`wrap_key`](Self::wrap_key) wraps with now.
    fn current(&self) -> impl Future<Output = Result<KeyVersion, ProviderError>> + Send;

    /// Makes a new version, which wraps from now on; older ones go on unwrapping.
    fn rotate(&self) -> impl Future<Output = Result<KeyVersion, ProviderError>> + Send;
}

/// Which version of which key wrapped something; nobody is asked.
///
/// # Errors
/// When nothing here wraps like that.
pub fn wrapped_by(wrapped: &[u8]) -> Result<KeyVersion, ProviderError> {
    match wrapped.first() {
        Some(&LOCAL_FORM) => LocalKeyring::wrapped_by(wrapped).ok_or(ProviderError::NotWrapped),
        Some(&VAULT_FORM) => Vault::wrapped_by(wrapped).ok_or(ProviderError::NotWrapped),
        Some(&(AWS_FORM | GCP_FORM | AZURE_FORM)) => {
            Cloud::wrapped_by(wrapped).ok_or(ProviderError::NotWrapped)
        }
        Some(_) | None => Err(ProviderError::NotWrapped),
    }
}

/// The provider that wraps, and those that still unwrap.
#[derive(Clone)]
pub struct Providers {
    current: ProviderKind,
    local: Option<Arc<LocalKeyring>>,
    vault: Option<Arc<Vault>>,
    clouds: Vec<Arc<Cloud>>,
}

impl Providers {
    /// `current` wraps; it has to be one of them, or of those that are added.
    pub fn new(current: ProviderKind, local: Option<Arc<LocalKeyring>>, vault: Option<Arc<Vault>>) -> Self {
        Self { current, local, vault, clouds: Vec::new() }
    }

    /// The same with a cloud's key beside.
    #[must_use]
    pub fn with(mut self, cloud: Arc<Cloud>) -> Self {
        self.clouds.push(cloud);
        self
    }

    /// The local keyring, where there is one.
    pub fn local(&self) -> Option<&Arc<LocalKeyring>> {
        self.local.as_ref()
    }

    /// Vault, where it is configured.
    pub fn vault(&self) -> Option<&Arc<Vault>> {
        self.vault.as_ref()
    }

    /// The clouds that are configured.
    pub fn clouds(&self) -> &[Arc<Cloud>] {
        &self.clouds
    }

    fn cloud_or_none(&self, kind: ProviderKind) -> Result<&Cloud, ProviderError> {
        let cloud = self.clouds.iter().find(|cloud| cloud.kind() == kind);
        cloud.map(|cloud| &**cloud).ok_or(ProviderError::NotConfigured(kind))
    }

    fn local_or_none(&self) -> Result<&LocalKeyring, ProviderError> {
        self.local.as_deref().ok_or(ProviderError::NotConfigured(ProviderKind::Local))
    }

    fn vault_or_none(&self) -> Result<&Vault, ProviderError> {
        self.vault.as_deref().ok_or(ProviderError::NotConfigured(ProviderKind::Vault))
    }
}

impl KeyProvider for Providers {
    async fn wrap_key(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, ProviderError> {
        match self.current {
            ProviderKind::Local => self.local_or_none()?.wrap_key(name, plain).await,
            ProviderKind::Vault => self.vault_or_none()?.wrap_key(name, plain).await,
            cloud @ (ProviderKind::AwsKms | ProviderKind::GcpKms | ProviderKind::AzureKeyVault) => {
                self.cloud_or_none(cloud)?.wrap_key(name, plain).await
            }
        }
    }

    async fn unwrap_key(&self, name: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        match wrapped_by(wrapped)?.provider {
            ProviderKind::Local => self.local_or_none()?.unwrap_key(name, wrapped).await,
            ProviderKind::Vault => self.vault_or_none()?.unwrap_key(name, wrapped).await,
            cloud @ (ProviderKind::AwsKms | ProviderKind::GcpKms | ProviderKind::AzureKeyVault) => {
                self.cloud_or_none(cloud)?.unwrap_key(name, wrapped).await
            }
        }
    }

    async fn current(&self) -> Result<KeyVersion, ProviderError> {
        match self.current {
            ProviderKind::Local => self.local_or_none()?.current().await,
            ProviderKind::Vault => self.vault_or_none()?.current().await,
            cloud @ (ProviderKind::AwsKms | ProviderKind::GcpKms | ProviderKind::AzureKeyVault) => {
                self.cloud_or_none(cloud)?.current().await
            }
        }
    }

    async fn rotate(&self) -> Result<KeyVersion, ProviderError> {
        match self.current {
            ProviderKind::Local => self.local_or_none()?.rotate().await,
            ProviderKind::Vault => self.vault_or_none()?.rotate().await,
            cloud @ (ProviderKind::AwsKms | ProviderKind::GcpKms | ProviderKind::AzureKeyVault) => {
                self.cloud_or_none(cloud)?.rotate().await
            }
        }
    }
}

impl From<Arc<LocalKeyring>> for Providers {
    fn from(keyring: Arc<LocalKeyring>) -> Self {
        Self::new(ProviderKind::Local, Some(keyring), None)
    }
}
