//! What a cloud has to be able to do.

use std::future::Future;
use std::time::Duration;

use llm_config_shared::seal::SealKey;

use super::error::{CloudError, CloudReason};
use super::wrapped::MadeBy;
use crate::secrets::provider::ProviderKind;

/// A data key and how the cloud wrapped it.
pub(super) struct FreshKey {
    pub(super) by: MadeBy,
    pub(super) wrapped: Vec<u8>,
    pub(super) key: SealKey,
}

/// Why a request gave nothing of use.
pub(super) enum Failed {
    /// Of no use now; `asked` is how long the cloud wants to be left alone.
    Away { reason: CloudReason, asked: Option<Duration> },
    /// The cloud is well and says no.
    Refused(CloudError),
}

pub(super) fn away(reason: CloudReason) -> Failed {
    Failed::Away { reason, asked: None }
}

/// For clouds that make no data keys: then the hub does.
#[cfg(any(feature = "kms-gcp", feature = "kms-azure"))]
pub(super) fn no_randomness() -> Failed {
    Failed::Refused(CloudError::NoRandomness)
}

/// Requests to a cloud about one key. Each is made once: pauses and bounds are the gate's.
pub(super) trait Service: Send + Sync {
    const KIND: ProviderKind;

    /// Whether the settings name this key itself, so that nobody has to be asked.
    fn is_trusted(&self, key: &str) -> bool;

    /// What wraps now. Sees that it is enabled and of the right kind.
    fn current(&self) -> impl Future<Output = Result<MadeBy, Failed>> + Send;

    /// A new data key, wrapped for this name.
    fn fresh_data_key(&self, name: &str) -> impl Future<Output = Result<FreshKey, Failed>> + Send;

    /// The data key that was wrapped for this name.
    fn open_data_key(
        &self,
        by: &MadeBy,
        wrapped: &[u8],
        name: &str,
    ) -> impl Future<Output = Result<SealKey, Failed>> + Send;

    /// Asks for a new version of the key.
    fn rotate(&self) -> impl Future<Output = Result<(), Failed>> + Send;
}
