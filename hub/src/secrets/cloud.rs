//! The key-encryption key in a cloud's key management: what all clouds have in common.
//!
//! The cloud wraps a data key that is fresh for each thing wrapped, and that data key seals it here. So the hub's keys
//! never travel, may be of any size, and are bound to their name also where a cloud binds nothing to anything.

#![cfg_attr(
    not(feature = "kms-aws"),
    allow(
        unused_variables,
        clippy::unused_async,
        reason = "without a cloud there is none to do anything with"
    )
)]

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::provider::{KeyProvider, KeyVersion, ProviderError, ProviderKind};

#[cfg(feature = "kms-aws")]
mod aws;
mod error;
#[cfg(feature = "kms-aws")]
mod gate;
#[cfg(feature = "kms-aws")]
mod key;
#[cfg(feature = "kms-aws")]
mod service;
mod settings;
mod wrapped;

pub use error::{CloudError, CloudReason};
pub use settings::AwsSettings;
use wrapped::Parts;

/// A cloud's key management, of those that this program was built with.
pub struct Cloud(Which);

enum Which {
    #[cfg(feature = "kms-aws")]
    Aws(key::CloudKey<aws::AwsKms>),
}

impl Cloud {
    /// AWS KMS by its settings. Nothing is asked yet.
    ///
    /// # Errors
    /// When the settings are not enough, or this program was built without it.
    #[cfg(feature = "kms-aws")]
    pub async fn aws(settings: &AwsSettings) -> Result<Self, CloudError> {
        let service = aws::AwsKms::new(settings).await?;
        Ok(Self(Which::Aws(key::CloudKey::new(service, settings.timeout))))
    }

    /// AWS KMS, of which this program knows nothing.
    ///
    /// # Errors
    /// Always: it was built without.
    #[cfg(not(feature = "kms-aws"))]
    pub async fn aws(_settings: &AwsSettings) -> Result<Self, CloudError> {
        Err(CloudError::NotBuilt { feature: "kms-aws" })
    }

    /// Which one.
    pub fn kind(&self) -> ProviderKind {
        match self.0 {
            #[cfg(feature = "kms-aws")]
            Which::Aws(_) => ProviderKind::AwsKms,
        }
    }

    /// Why it cannot be used now, as far as is known.
    pub fn trouble(&self) -> Option<String> {
        match self.0 {
            #[cfg(feature = "kms-aws")]
            Which::Aws(ref key) => key.trouble(),
        }
    }

    /// Notices outages before callers do, and finds out when they are over. Runs until `stop`.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        match self.0 {
            #[cfg(feature = "kms-aws")]
            Which::Aws(ref key) => key::boxed(key.keep(stop)).await,
        }
    }

    /// Which key wrapped something, when a cloud's did.
    pub(super) fn wrapped_by(wrapped: &[u8]) -> Option<KeyVersion> {
        Some(Parts::of(wrapped)?.by.version())
    }
}

impl KeyProvider for Cloud {
    async fn wrap_key(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, ProviderError> {
        match self.0 {
            #[cfg(feature = "kms-aws")]
            Which::Aws(ref key) => key::boxed(key.wrap(name, plain)).await,
        }
    }

    async fn unwrap_key(&self, name: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        match self.0 {
            #[cfg(feature = "kms-aws")]
            Which::Aws(ref key) => key::boxed(key.unwrap(name, wrapped)).await,
        }
    }

    async fn current(&self) -> Result<KeyVersion, ProviderError> {
        match self.0 {
            #[cfg(feature = "kms-aws")]
            Which::Aws(ref key) => Ok(key::boxed(key.current()).await?.version()),
        }
    }

    async fn rotate(&self) -> Result<KeyVersion, ProviderError> {
        match self.0 {
            #[cfg(feature = "kms-aws")]
            Which::Aws(ref key) => Ok(key::boxed(key.rotate()).await?.version()),
        }
    }
}
