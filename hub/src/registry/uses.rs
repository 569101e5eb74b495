//! What at each edge said that it uses which version of an entry.

use std::future::Future;
use std::sync::Arc;

use llm_config_shared::in_use::Use;
use llm_config_shared::name::EntryKey;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::JournalError;
use llm_config_shared::time::UnixMillis;

/// Something that uses values: a process, a file, a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// As its edge calls it.
    pub name: Arc<str>,
    /// It stays until it says something else; another one goes when its edge does not tell of it any more.
    pub lasting: bool,
    pub uses: Vec<(EntryKey, u64)>,
}

/// When an edge said something, and how it came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// In its session, now.
    Now(UnixMillis),
    /// In a file. Where the edge was heard later, also while the file was taken in, it counts for nothing.
    Carried(UnixMillis),
}

impl Said {
    /// When.
    pub fn at(self) -> UnixMillis {
        match self {
            Self::Now(at) | Self::Carried(at) => at,
        }
    }
}

type Answer<T> = Result<T, JournalError>;

/// Part of the [`Registry`](super::Registry). Every method is one transaction.
pub trait Uses: Send + Sync + 'static {
    /// Replaces what is known of these consumers of the edge. With `complete`, others of it have gone, but for lasting
    /// ones.
    fn report_uses(
        &self,
        edge: ActorId,
        complete: bool,
        consumers: &[Consumer],
        said: Said,
    ) -> impl Future<Output = Answer<()>> + Send;

    /// Who uses these entries, at edges of their tenants, whatever the version.
    fn uses_of(&self, entries: &[EntryKey]) -> impl Future<Output = Answer<Vec<Use>>> + Send;
}
