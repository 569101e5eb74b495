//! What the hub keeps for the day that an edge is lost: how long its secrets stay open, and what it could ever read.

use std::future::Future;

use llm_config_shared::name::{Namespace, Tenant};
use llm_config_shared::offline::OfflineLimits;

use super::{Answer, SetPolicyError};

/// Tables beside those of [`Registry`](super::Registry). Every method is one transaction.
pub trait Losses: Send + Sync + 'static {
    /// The offline limits of a tenant, as they were set.
    fn offline_limits(&self, tenant: &Tenant) -> impl Future<Output = Answer<OfflineLimits>> + Send;
    /// Sets how long the secrets of a namespace and everything below it stay open at an edge without contact, in
    /// milliseconds, or lets what holds above it hold again. What holds afterwards.
    fn set_offline_limit(
        &self,
        tenant: &Tenant,
        namespace: &Namespace,
        limit_ms: Option<u64>,
    ) -> impl Future<Output = Result<OfflineLimits, SetPolicyError>> + Send;
}
