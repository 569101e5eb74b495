//! The key-encryption key in a cloud's key management: what all clouds have in common.
//!
//! The cloud wraps a data key that is fresh for each thing wrapped, and that data key seals it here. So the hub's keys
//! never travel, may be of any size, and are bound to their name also where a cloud binds nothing to anything.

#![cfg_attr(
    not(any(feature = "kms-aws", feature = "kms-gcp", feature = "kms-azure")),
    allow(dead_code, reason = "without a cloud there is none to do anything with")
)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::provider::{KeyProvider, KeyVersion, ProviderError, ProviderKind};

#[cfg(feature = "kms-aws")]
mod aws;
#[cfg(feature = "kms-azure")]
mod azure;
#[cfg(any(feature = "kms-gcp", feature = "kms-azure"))]
mod client;
mod error;
mod gate;
#[cfg(feature = "kms-gcp")]
mod gcp;
mod key;
mod service;
mod settings;
mod wrapped;

pub use error::{CloudError, CloudReason};
pub use settings::{AwsSettings, AzureIdentity, AzureSettings, GcpSettings};
use wrapped::Parts;

/// An SDK's requests are futures within futures, deeper than the compiler follows when they are part of all that seals.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A cloud's key management, of those that this program was built with.
pub struct Cloud(Box<dyn Key>);

/// One key of one cloud, whichever it is.
trait Key: Send + Sync {
    fn kind(&self) -> ProviderKind;
    fn trouble(&self) -> Option<String>;
    fn keep(&self, stop: CancellationToken) -> Boxed<'_, ()>;
    fn wrap<'a>(&'a self, name: &'a str, plain: &'a [u8]) -> Boxed<'a, Result<Vec<u8>, ProviderError>>;
    fn unwrap<'a>(
        &'a self,
        name: &'a str,
        wrapped: &'a [u8],
    ) -> Boxed<'a, Result<Zeroizing<Vec<u8>>, ProviderError>>;
    fn current(&self) -> Boxed<'_, Result<KeyVersion, ProviderError>>;
    fn rotate(&self) -> Boxed<'_, Result<KeyVersion, ProviderError>>;
}

impl Cloud {
    /// AWS KMS by its settings. Nothing is asked yet.
    ///
    /// # Errors
    /// When the settings are not enough, or this program was built without it.
    #[cfg(feature = "kms-aws")]
    pub async fn aws(settings: &AwsSettings) -> Result<Self, CloudError> {
        let service = aws::AwsKms::new(settings).await?;
        Ok(Self(Box::new(key::CloudKey::new(service, settings.timeout))))
    }

    /// AWS KMS, of which this program knows nothing.
    ///
    /// # Errors
    /// Always: it was built without.
    #[cfg(not(feature = "kms-aws"))]
    #[allow(clippy::unused_async, reason = "as the one that does something")]
    pub async fn aws(_settings: &AwsSettings) -> Result<Self, CloudError> {
        Err(CloudError::NotBuilt { feature: "kms-aws" })
    }

    /// Google's Cloud KMS by its settings. Nothing is asked yet.
    ///
    /// # Errors
    /// When the settings cannot be used, or this program was built without it.
    #[cfg(feature = "kms-gcp")]
    pub fn gcp(settings: &GcpSettings) -> Result<Self, CloudError> {
        let service = gcp::GcpKms::new(settings)?;
        Ok(Self(Box::new(key::CloudKey::new(service, settings.timeout))))
    }

    /// Google's Cloud KMS, of which this program knows nothing.
    ///
    /// # Errors
    /// Always: it was built without.
    #[cfg(not(feature = "kms-gcp"))]
    pub fn gcp(_settings: &GcpSettings) -> Result<Self, CloudError> {
        Err(CloudError::NotBuilt { feature: "kms-gcp" })
    }

    /// Azure Key Vault by its settings. Nothing is asked yet.
    ///
    /// # Errors
    /// When the settings cannot be used, or this program was built without it.
    #[cfg(feature = "kms-azure")]
    pub fn azure(settings: &AzureSettings) -> Result<Self, CloudError> {
        let service = azure::AzureKeyVault::new(settings)?;
        Ok(Self(Box::new(key::CloudKey::new(service, settings.timeout))))
    }

    /// Azure Key Vault, of which this program knows nothing.
    ///
    /// # Errors
    /// Always: it was built without.
    #[cfg(not(feature = "kms-azure"))]
    pub fn azure(_settings: &AzureSettings) -> Result<Self, CloudError> {
        Err(CloudError::NotBuilt { feature: "kms-azure" })
    }

    /// Which one.
    pub fn kind(&self) -> ProviderKind {
        self.0.kind()
    }

    /// Why it cannot be used now, as far as is known.
    pub fn trouble(&self) -> Option<String> {
        self.0.trouble()
    }

    /// Notices outages before callers do, and finds out when they are over. Runs until `stop`.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        self.0.keep(stop).await;
    }

    /// Which key wrapped something, when a cloud's did.
    pub(super) fn wrapped_by(wrapped: &[u8]) -> Option<KeyVersion> {
        Some(Parts::of(wrapped)?.by.version())
    }
}

impl KeyProvider for Cloud {
    async fn wrap_key(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, ProviderError> {
        self.0.wrap(name, plain).await
    }

    async fn unwrap_key(&self, name: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        self.0.unwrap(name, wrapped).await
    }

    async fn current(&self) -> Result<KeyVersion, ProviderError> {
        self.0.current().await
    }

    async fn rotate(&self) -> Result<KeyVersion, ProviderError> {
        self.0.rotate().await
    }
}
