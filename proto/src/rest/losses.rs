//! What the routes about lost edges ask of the hub: how long secrets stay open without it.

use std::future::Future;

use llm_config_shared::name::{Namespace, Subtree};

use super::error::ApiError;
use super::service::Caller;

/// How long an edge may open a namespace's secrets without contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflineLimitInfo {
    pub namespace: Namespace,
    pub limit_ms: u64,
    /// Where it was set: for this namespace or one above. None: nobody set one.
    pub set_in: Option<Subtree>,
}

/// An answer, or why there is none.
pub type Answer<T> = Result<T, ApiError>;

/// For the day that an edge is lost: hub only. Every method judges the caller's role itself.
pub trait LossService: Send + Sync + 'static {
    /// What holds in a namespace.
    fn offline_limit(
        &self,
        caller: &Caller,
        namespace: Namespace,
    ) -> impl Future<Output = Answer<OfflineLimitInfo>> + Send;
    /// Sets it; with none, what holds above it holds again. Connected edges hear of it at once.
    fn set_offline_limit(
        &self,
        caller: &Caller,
        namespace: Namespace,
        limit_ms: Option<u64>,
    ) -> impl Future<Output = Answer<OfflineLimitInfo>> + Send;
}
