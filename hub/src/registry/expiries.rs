//! Secrets that expire, and which warnings were given of that.

use std::future::Future;

use llm_config_shared::name::{EntryKey, Tenant};
use llm_config_shared::secret::SecretType;
use llm_config_shared::store::JournalError;
use llm_config_shared::time::UnixMillis;

/// A secret that expires, in its current version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiring {
    pub at: EntryKey,
    pub version: u64,
    pub secret_type: SecretType,
    pub expires_at: UnixMillis,
}

/// A warning that was given, once for each version of a secret and number of days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiryWarning {
    /// They are numbered in the order given.
    pub number: u64,
    pub secret: Expiring,
    /// So many days before, or fewer; 0 when it has expired.
    pub days: u64,
}

/// How many secrets expire, and when the first one does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    pub count: u64,
    pub soonest: Option<UnixMillis>,
}

type Answer<T> = Result<T, JournalError>;

/// Part of the [`Registry`](super::Registry). Every method is one transaction.
pub trait Expiries: Send + Sync + 'static {
    /// Secrets of a tenant that expire by then or have expired, the first to expire first.
    fn expiring(
        &self,
        tenant: &Tenant,
        by: UnixMillis,
        limit: usize,
    ) -> impl Future<Output = Answer<Vec<Expiring>>> + Send;

    /// The same of all tenants, without those of whose end somebody was told.
    fn to_warn_of(&self, by: UnixMillis, limit: usize) -> impl Future<Output = Answer<Vec<Expiring>>> + Send;

    /// Writes down that these warnings are given now, so many days before each; those that had not been given before.
    fn warn(
        &self,
        of: &[(Expiring, u64)],
        now: UnixMillis,
    ) -> impl Future<Output = Answer<Vec<(Expiring, u64)>>> + Send;

    /// The number of the last warning; 0 when there was none.
    fn warning_mark(&self) -> impl Future<Output = Answer<u64>> + Send;

    /// The warnings of a tenant after that number, oldest first.
    fn warnings_after(
        &self,
        tenant: &Tenant,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Answer<Vec<ExpiryWarning>>> + Send;

    /// Of all tenants: secrets that expire by then.
    fn outlook(&self, by: UnixMillis) -> impl Future<Output = Answer<Outlook>> + Send;
}
