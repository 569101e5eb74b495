//! What the value routes ask of a service, in domain types: implemented by the hub and by the edge.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Uri};
use llm_config_shared::access::Role;
use llm_config_shared::entry::ChangeId;
use llm_config_shared::feed::Feed;
use llm_config_shared::name::{EntryKey, Environment, Key, Namespace, Scope, Subtree, Tenant};
use llm_config_shared::replication::frame::{Request, Response};
use llm_config_shared::store::{Event, Page, Paged};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::Vector;
use tokio_stream::Stream;
use uuid::Uuid;

use super::error::ApiError;
use super::explain::{ExplainEntry, Explained};
use super::receipts::ExpiringSecret;

mod bulk;
mod values;

pub use bulk::{Bulk, BulkAction, BulkItem, BulkOperation, BulkOutcome, BulkResult, OwnChange};
pub use values::{Entry, NewSecret, NewValue, Past, Shown, TwoVersions};

/// Who is asking, and what they may. The guard of each daemon puts it into the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub tenant: Tenant,
    /// `token:NAME`, `edge:NAME/uid:0`, or at an edge `uid:0`.
    pub name: Arc<str>,
    pub role: Role,
    /// What they may read; none for no limit but the role's. Secrets are revealed only where the feed carries them.
    pub read: Option<Arc<[Feed]>>,
    /// Where they may write; none for no limit but the role's.
    pub write: Option<Vec<Subtree>>,
    /// Whether they may see the plaintext of secrets.
    pub reveal: bool,
}

/// A request with who makes it.
#[derive(Clone, Debug)]
pub struct Call {
    pub caller: Caller,
    pub original: Original,
}

/// The request as it came, for a service that passes it on.
#[derive(Clone, Debug)]
pub struct Original {
    pub method: Method,
    pub uri: Uri,
    pub body: Bytes,
}

impl Call {
    /// As it travels to the hub.
    pub fn to_request(&self) -> Request {
        let target = self.original.uri.path_and_query().map_or("/", |target| target.as_str());
        Request {
            method: self.original.method.as_str().into(),
            target: target.into(),
            body: self.original.body.clone(),
            caller: self.caller.name.clone(),
        }
    }
}

/// What a service gives back.
#[derive(Clone, Debug)]
pub enum Served<T> {
    Here(Answered<T>),
    /// Made elsewhere or earlier; handed out as it is.
    Ready(Response),
}

impl<T> From<Answered<T>> for Served<T> {
    fn from(answered: Answered<T>) -> Self {
        Self::Here(answered)
    }
}

/// An answer with what its headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered<T> {
    pub value: T,
    /// A write's names that write; a read's how far what it consulted had come.
    pub position: Option<Vector>,
    pub change: Option<ChangeId>,
    /// Set by an edge.
    pub freshness: Option<Freshness>,
}

impl<T> Answered<T> {
    /// Without position, change or freshness.
    pub fn new(value: T) -> Self {
        Self { value, position: None, change: None, freshness: None }
    }

    /// With a position.
    #[must_use]
    pub fn at(mut self, position: Vector) -> Self {
        self.position = Some(position);
        self
    }

    /// With the change that it belongs to.
    #[must_use]
    pub fn of_change(mut self, change: ChangeId) -> Self {
        self.change = Some(change);
        self
    }

    /// With its age.
    #[must_use]
    pub fn fresh(mut self, freshness: Freshness) -> Self {
        self.freshness = Some(freshness);
        self
    }
}

/// How old an edge's answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Since the hub last confirmed what was read.
    pub age_ms: u64,
    pub source: Source,
}

/// Where an edge's answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Replica,
    /// A write of this edge that the hub has not decided.
    Pending,
}

/// An entry as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub namespace: Namespace,
    pub key: Key,
    /// None: the service's default.
    pub environment: Option<Environment>,
}

impl Target {
    /// The entry's place, with the environment that the service found.
    pub fn at(&self, tenant: &Tenant, environment: &Environment) -> EntryKey {
        EntryKey {
            scope: Scope {
                tenant: tenant.clone(),
                environment: environment.clone(),
                namespace: self.namespace.clone(),
            },
            key: self.key.clone(),
        }
    }
}

/// What a read demands of the replica's age.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Wait for this position, bounded; else 503.
    pub at_least: Option<Vector>,
    /// Older is 503 with the age.
    pub max_staleness_ms: Option<u64>,
}

/// `GET /configs/{namespace}/{key}`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetEntry {
    pub target: Target,
    /// Follow the chain of environments.
    pub resolve: bool,
    /// An old version, from the history.
    pub version: Option<u64>,
    /// Show the plaintext of a secret.
    pub reveal: bool,
    pub demand: Demand,
}

/// `GET /configs/{namespace}`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntries {
    pub namespace: Namespace,
    pub environment: Option<Environment>,
    pub recursive: bool,
    pub prefix: Option<String>,
    pub tag: Option<String>,
    pub resolve: bool,
    pub reveal: bool,
    /// Fewer may be given when they are large.
    pub limit: usize,
    /// Continue after this one, in the order of (namespace, key).
    pub after: Option<(Namespace, Key)>,
    pub demand: Demand,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPage {
    pub entries: Vec<Entry>,
    /// The last one given, if there are more.
    pub next: Option<(Namespace, Key)>,
}

/// What every write may say beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Recorded, never believed.
    pub claimed_user: Option<Arc<str>>,
    /// Refuse with 409 unless the entry is at this version; 0: unless it does not exist.
    pub if_version: Option<u64>,
    /// What the change is for.
    pub message: Option<Arc<str>>,
}

/// `PUT /configs/{namespace}/{key}`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetEntry {
    pub target: Target,
    pub value: NewValue,
    /// None: as before.
    pub tags: Option<Vec<Arc<str>>>,
    /// None: as before.
    pub description: Option<Arc<str>>,
    pub options: WriteOptions,
}

/// `DELETE /configs/{namespace}/{key}`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteEntry {
    pub target: Target,
    pub options: WriteOptions,
}

/// `POST /configs/{namespace}/{key}/rollback/{version}`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollbackEntry {
    pub target: Target,
    pub version: u64,
    pub options: WriteOptions,
}

/// A write that waits at an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub at: EntryKey,
    /// 1 is the next to go.
    pub place: u64,
    /// 0 if none was admitted yet.
    pub last_version: u64,
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    Applied(Entry),
    Pending(Pending),
}

/// What came of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deleted {
    Applied,
    Pending(Pending),
}

/// `GET …/history`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetHistory {
    pub target: Target,
    pub reveal: bool,
    pub page: Page,
}

/// `GET …/diff`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetDiff {
    pub target: Target,
    pub from: u64,
    pub to: u64,
}

/// `GET /events`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Follow {
    /// None: everything that the caller may read.
    pub subtree: Option<Subtree>,
    pub environment: Option<Environment>,
    /// Continue after this position; none: from now on.
    pub after: Option<Vector>,
}

/// What a follower hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Change(Event),
    /// Some changes cannot be told one by one: read what matters again.
    Reset(Vector),
    /// Two writes met. After a lost connection it may be told again.
    Conflict(Clash),
    /// A write waits for a person: at an edge, one of its own.
    Held(HeldAtHub),
    /// A secret expires soon or has expired: at the hub.
    Expiry(ExpiryNotice),
}

/// A secret expires soon or has expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiryNotice {
    pub secret: ExpiringSecret,
    /// Within so many; 0: it has expired.
    pub days: u64,
}

/// Two writes that were made without knowledge of each other, as followers hear of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The conflict's id; an edge does not know it.
    pub conflict: Option<Uuid>,
    pub at: EntryKey,
    pub winner_version: Option<u64>,
    pub loser_version: u64,
    /// The authors, where they are known.
    pub winner: Option<Arc<str>>,
    pub loser: Option<Arc<str>>,
    /// Where one who was told goes on.
    pub position: Option<Vector>,
}

/// A write of an edge that the hub holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldAtHub {
    pub at: EntryKey,
    pub reason: Arc<str>,
}

/// What a follower hears, until either side goes.
pub type Events = Pin<Box<dyn Stream<Item = Told> + Send>>;

/// How the daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub status: HealthStatus,
    pub uptime_ms: u64,
    pub now: UnixMillis,
    /// Whether requests should be sent here.
    pub ready: bool,
    /// Of a process of the hub, once it is known.
    pub role: Option<HubRole>,
    /// What is missing where it is degraded, in words that anybody may read.
    pub reasons: Vec<String>,
}

/// Which of a hub's processes writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubRole {
    /// This one.
    Leader,
    /// Another one, to which this one passes writes on.
    Follower,
}

/// As monitors read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStatus {
    Healthy,
    /// Serves, but something is missing: an edge without its hub.
    Degraded,
    Unhealthy,
}

/// An answer, or why there is none.
pub type Answer<T> = Result<Served<T>, ApiError>;

/// The value routes. Implementations may say `async fn`.
pub trait ConfigService: Send + Sync + 'static {
    /// One entry; 404 says when an inherited value exists.
    fn get(&self, call: &Call, request: GetEntry) -> impl Future<Output = Answer<Entry>> + Send;
    /// Every place where a reader looks for the entry, and what it holds.
    fn explain(&self, call: &Call, request: ExplainEntry) -> impl Future<Output = Answer<Explained>> + Send;
    /// Entries of a namespace, in the order of (namespace, key).
    fn list(&self, call: &Call, request: ListEntries) -> impl Future<Output = Answer<EntryPage>> + Send;
    /// Creates or replaces.
    fn set(&self, call: &Call, request: SetEntry) -> impl Future<Output = Answer<Written>> + Send;
    /// 404 when there is none.
    fn delete(&self, call: &Call, request: DeleteEntry) -> impl Future<Output = Answer<Deleted>> + Send;
    /// Newest first, losers of conflicts included.
    fn history(&self, call: &Call, request: GetHistory) -> impl Future<Output = Answer<Paged<Past>>> + Send;
    /// A new version with an old value.
    fn rollback(&self, call: &Call, request: RollbackEntry) -> impl Future<Output = Answer<Written>> + Send;
    /// Both versions, to be compared by the router.
    fn diff(&self, call: &Call, request: GetDiff) -> impl Future<Output = Answer<TwoVersions>> + Send;
    /// Many writes as one change.
    fn bulk(&self, call: &Call, request: Bulk) -> impl Future<Output = Answer<BulkResult>> + Send;
    /// Changes as they happen.
    fn events(&self, call: &Call, request: Follow) -> impl Future<Output = Result<Events, ApiError>> + Send;
    /// Asked without a caller.
    fn health(&self) -> impl Future<Output = Health> + Send;
    /// Prometheus text.
    fn metrics(&self, call: &Call) -> impl Future<Output = Result<String, ApiError>> + Send;
}
