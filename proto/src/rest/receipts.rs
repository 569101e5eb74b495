//! What is asked of the hub about who has a change, who uses it, and which secrets expire, in domain types.

use std::future::Future;
use std::sync::Arc;

use llm_config_shared::entry::ChangeId;
use llm_config_shared::in_use::Receipts;
use llm_config_shared::name::{EntryKey, Environment, Key, Namespace};
use llm_config_shared::secret::SecretType;
use llm_config_shared::time::UnixMillis;

use super::error::ApiError;
use super::service::Caller;

/// What an edge tells of one consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerReport {
    pub consumer: Arc<str>,
    /// It stays until it says something else.
    pub lasting: bool,
    pub uses: Vec<UsedEntry>,
}

/// `PUT /uses`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsesReport {
    /// Other consumers of the edge have gone, but for lasting ones.
    pub complete: bool,
    pub consumers: Vec<ConsumerReport>,
}

/// A version of an entry that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedEntry {
    pub environment: Environment,
    pub namespace: Namespace,
    pub key: Key,
    pub version: u64,
}

/// A secret that expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiringSecret {
    pub at: EntryKey,
    pub version: u64,
    pub secret_type: SecretType,
    pub expires_at: UnixMillis,
}

/// An answer, or why there is none.
pub type Answer<T> = Result<T, ApiError>;

/// The routes about the life of values: hub only. Every method judges the caller's role itself.
pub trait LifeService: Send + Sync + 'static {
    /// Who has a change and who uses it; 404 when there is none.
    fn receipts(&self, caller: &Caller, change: ChangeId) -> impl Future<Output = Answer<Receipts>> + Send;
    /// What an edge tells of its consumers.
    fn report_uses(&self, caller: &Caller, report: UsesReport) -> impl Future<Output = Answer<()>> + Send;
    /// Secrets that expire within so many milliseconds or have expired, the first to expire first.
    fn expiring(
        &self,
        caller: &Caller,
        within_ms: u64,
        limit: usize,
    ) -> impl Future<Output = Answer<Vec<ExpiringSecret>>> + Send;
}
