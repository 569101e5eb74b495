//! What is asked of the hub about who has a change, who uses it, and which secrets expire, in domain types.

use std::future::Future;
use std::sync::Arc;

use llm_config_shared::entry::ChangeId;
use llm_config_shared::name::{EntryKey, Environment, Key, Namespace};
use llm_config_shared::secret::SecretType;
use llm_config_shared::time::UnixMillis;

use super::error::ApiError;
use super::service::Caller;

/// Who has a change and who uses it. Edges that receive nothing of it are not in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipts {
    pub change: ChangeId,
    /// By name.
    pub edges: Vec<EdgeReceipt>,
}

/// What one edge has of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeReceipt {
    pub edge: Arc<str>,
    pub connected: bool,
    pub last_seen_at: Option<UnixMillis>,
    /// All that it receives of the change is on its disk.
    pub delivered: bool,
    /// What uses entries of the change there, whatever the version. Empty: nothing has said that it does.
    pub consumers: Vec<ConsumerReceipt>,
}

/// What one consumer has of a change: the entry of it in which it is furthest behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerReceipt {
    pub consumer: Arc<str>,
    pub at: EntryKey,
    pub wrote: u64,
    pub uses: u64,
}

impl ConsumerReceipt {
    /// Whether it uses what the change wrote, or something newer.
    pub fn is_current(&self) -> bool {
        self.uses >= self.wrote
    }
}

impl EdgeReceipt {
    /// Whether everything that uses entries of the change there uses what it wrote. An edge where nothing does is no
    /// reason to wait.
    pub fn in_use(&self) -> bool {
        self.delivered && self.consumers.iter().all(ConsumerReceipt::is_current)
    }
}

impl Receipts {
    /// Every edge has it.
    pub fn delivered(&self) -> bool {
        self.edges.iter().all(|edge| edge.delivered)
    }

    /// Everything that uses it uses it as the change left it. While nothing uses it anywhere, nothing is proved.
    pub fn in_use(&self) -> bool {
        self.edges.iter().all(EdgeReceipt::in_use) && self.edges.iter().any(|edge| !edge.consumers.is_empty())
    }
}

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

#[cfg(test)]
mod tests {
    use llm_config_shared::name::{Scope, Tenant};
    use uuid::Uuid;

    use super::*;

    fn edge(delivered: bool, uses: &[u64]) -> EdgeReceipt {
        let scope = Scope {
            tenant: Tenant::parse("t").unwrap(),
            environment: Environment::base(),
            namespace: Namespace::parse("a").unwrap(),
        };
        let at = EntryKey { scope, key: Key::parse("k").unwrap() };
        let consumer =
            |uses: &u64| ConsumerReceipt { consumer: "c".into(), at: at.clone(), wrote: 5, uses: *uses };
        let consumers = uses.iter().map(consumer).collect();
        EdgeReceipt { edge: "e".into(), connected: true, last_seen_at: None, delivered, consumers }
    }

    fn receipts(edges: Vec<EdgeReceipt>) -> (bool, bool) {
        let receipts = Receipts { change: ChangeId(Uuid::nil()), edges };
        (receipts.delivered(), receipts.in_use())
    }

    #[test]
    fn in_use_is_proved_by_those_who_use_it_and_never_by_nobody() {
        assert_eq!(receipts(vec![edge(true, &[5]), edge(true, &[])]), (true, true));
        assert_eq!(receipts(vec![edge(true, &[5, 6]), edge(true, &[4])]), (true, false));
        assert_eq!(receipts(vec![edge(true, &[5]), edge(false, &[])]), (false, false));
        assert_eq!(receipts(vec![edge(true, &[])]), (true, false), "nobody has said that they use it");
        assert_eq!(receipts(vec![]), (true, false));
    }
}
