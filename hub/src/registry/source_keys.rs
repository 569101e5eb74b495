//! Secrets that are kept the same here and in Vault: how both were when they last were.

use std::collections::BTreeMap;
use std::future::Future;

use llm_config_shared::name::Key;
use llm_config_shared::store::JournalError;

/// The versions of both sides; none where there is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    pub vault: Option<u64>,
    pub entry: Option<u64>,
}

type Answer<T> = Result<T, JournalError>;

/// Part of the [`Registry`](super::Registry). Every method is one transaction.
pub trait SourceKeys: Send + Sync + 'static {
    /// What was the same, by key, of one source.
    fn source_keys(&self, source: &str) -> impl Future<Output = Answer<BTreeMap<Key, Versions>>> + Send;
    /// These are the same now. With nothing on both sides, the key is forgotten.
    fn note_source_key(
        &self,
        source: &str,
        key: &Key,
        versions: Versions,
    ) -> impl Future<Output = Answer<()>> + Send;
}
