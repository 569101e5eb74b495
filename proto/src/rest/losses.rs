//! What the routes about lost edges ask of the hub: how long secrets stay open without it, what a lost one could read.

use std::future::Future;

use llm_config_shared::name::{EdgeName, EntryKey, Namespace, Subtree};
use llm_config_shared::time::UnixMillis;
use serde_json::Value as Json;

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

/// A secret that a lost edge could read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExposedInfo {
    pub at: EntryKey,
    pub version: u64,
    pub edge: EdgeName,
    pub lost_at: UnixMillis,
    /// Whether the entry shows another version by now, or is gone.
    pub rotated: bool,
    /// Whether its plan of rotation replaces it.
    pub planned: bool,
}

/// What a file for an edge is to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CarryWanted {
    /// Everything, not only what the edge lacks as far as the hub knows.
    pub full: bool,
    /// How long the edge will take it.
    pub good_for_ms: Option<u64>,
}

/// A file for an edge, made while it is read.
pub struct CarriedFile {
    pub good_until: UnixMillis,
    pub pieces: Box<dyn Iterator<Item = Vec<u8>> + Send>,
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

    /// Shuts an edge out for good and states what it could read: the signed receipt. With `dry_run` nothing is changed, and
    /// what would be stated is not signed.
    fn lose_edge(
        &self,
        caller: &Caller,
        name: EdgeName,
        dry_run: bool,
    ) -> impl Future<Output = Answer<Json>> + Send;
    /// What somebody can carry to an edge that cannot reach the hub; 404.
    fn carry(
        &self,
        caller: &Caller,
        name: EdgeName,
        wanted: CarryWanted,
    ) -> impl Future<Output = Answer<CarriedFile>> + Send;
    /// Admits what was carried here from an edge, and says what became of it; 409 where the file is not to be taken.
    fn take_carried(&self, caller: &Caller, file: &[u8]) -> impl Future<Output = Answer<Json>> + Send;
    /// The receipt of the edge of that name that was lost last; 404.
    fn receipt(&self, caller: &Caller, name: EdgeName) -> impl Future<Output = Answer<Json>> + Send;
    /// Secrets that lost edges could read, those that still wait to be replaced first.
    fn exposed(&self, caller: &Caller) -> impl Future<Output = Answer<Vec<ExposedInfo>>> + Send;
}
