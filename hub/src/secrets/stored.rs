//! Everything in the database that lies under the key-encryption key, as one list.

use std::future::Future;

use llm_config_shared::name::{Environment, Tenant};
use llm_config_shared::store::JournalError;

use super::keys;
use super::open::KEYRING_MARK;

/// Where a wrapped key lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyPlace {
    Root {
        tenant: Tenant,
        environment: Environment,
        key_epoch: u64,
    },
    /// The CA, the signing key and the like.
    Named(String),
}

impl KeyPlace {
    /// The name that it was wrapped under.
    pub fn name(&self) -> String {
        match self {
            Self::Root { tenant, environment, key_epoch } => keys::name(tenant, environment, *key_epoch),
            Self::Named(name) => name.clone(),
        }
    }

    /// By it a database knows its key-encryption key again, so it says last that another one has taken over.
    pub(super) fn is_mark(&self) -> bool {
        matches!(self, Self::Named(name) if name == KEYRING_MARK)
    }
}

/// A wrapped key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    pub place: KeyPlace,
    pub wrapped: Vec<u8>,
}

/// The database, as far as it keeps wrapped keys.
pub trait StoredKeys: Send + Sync {
    /// All of them.
    fn stored_keys(&self) -> impl Future<Output = Result<Vec<StoredKey>, JournalError>> + Send;

    /// Puts another wrapping in the place of this one; false when it is not there any more.
    fn replace_key(
        &self,
        key: &StoredKey,
        wrapped: &[u8],
    ) -> impl Future<Output = Result<bool, JournalError>> + Send;
}
