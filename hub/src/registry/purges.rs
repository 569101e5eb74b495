//! Versions of secrets whose value was removed for good, the backups that still hold it, and how tenants seal.

use std::future::Future;
use std::sync::Arc;

use llm_config_shared::name::{EntryKey, Tenant};
use llm_config_shared::seal::Suite;
use llm_config_shared::store::JournalError;
use llm_config_shared::time::UnixMillis;
use uuid::Uuid;

/// A backup that this hub made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeBackup {
    pub id: Uuid,
    pub made_at: UnixMillis,
    /// Everything of the hub's order up to here is in it.
    pub seq: u64,
    /// The file that was named.
    pub file: Arc<str>,
}

/// What came of removing a version's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgedVersion {
    /// It is gone, since now or since it was removed before. These backups still hold it.
    Gone {
        backups: Vec<MadeBackup>,
    },
    /// It is the entry's value.
    Current,
    NotFound,
    NotSecret,
}

type Answer<T> = Result<T, JournalError>;

/// Part of the [`Registry`](super::Registry). Every method is one transaction.
pub trait Purges: Send + Sync + 'static {
    /// Removes the value of one version of a secret from the history; its row stays.
    fn purge_version(
        &self,
        at: &EntryKey,
        version: u64,
        by: &str,
        now: UnixMillis,
    ) -> impl Future<Output = Answer<PurgedVersion>> + Send;

    /// Remembers a backup.
    fn record_backup(&self, backup: &MadeBackup) -> impl Future<Output = Answer<()>> + Send;

    /// How the bodies of a tenant's secrets are sealed from now on; the first suite unless it was set.
    fn suite(&self, tenant: &Tenant) -> impl Future<Output = Answer<Suite>> + Send;
    /// Sets that.
    fn set_suite(&self, tenant: &Tenant, suite: Suite) -> impl Future<Output = Answer<()>> + Send;
}
