//! The JSON of answers about values.

use llm_config_shared::entry::Metadata;
use llm_config_shared::name::Scope;
use llm_config_shared::store::Event;
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::Vector;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::answer::reason;
use super::conflict_types::ResolutionBody;
use super::error::ApiError;
use super::position;
use super::service::{
    BulkItem, BulkOutcome, BulkResult, Clash, Entry, ExpiryNotice, Health, HealthStatus, HeldAtHub, HubRole,
    Past, Pending, Shown, TwoVersions,
};

/// What stands for a secret that is not revealed.
pub const MASK: &str = "<encrypted>";

/// What is shown of a value, as JSON text.
pub(super) fn raw(shown: &Shown) -> Box<RawValue> {
    let text = match shown {
        Shown::Plain(value) => value.as_str().to_owned(),
        Shown::Masked => format!("\"{MASK}\""),
        Shown::Revealed(text) => {
            return serde_json::value::to_raw_value(text.as_str()).expect("a text is JSON as a string");
        }
    };
    RawValue::from_string(text).expect("canonical JSON is JSON")
}

/// An entry: what a key holds in one namespace and environment.
#[derive(Serialize, ToSchema)]
pub(super) struct EntryBody {
    /// The same for life, on every replica.
    id: String,
    namespace: String,
    key: String,
    /// `"<encrypted>"` for a secret, unless revealed.
    #[schema(value_type = serde_json::Value)]
    value: Box<RawValue>,
    environment: String,
    /// 1, 2, 3… of this entry.
    version: u64,
    metadata: MetadataBody,
    /// True for a secret, absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<bool>,
    /// Of a secret: what its document holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_type: Option<&'static str>,
    /// Of a secret that expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// Where the value was found, when inheritance was followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<OriginBody>,
    /// True for a write of this edge that the hub has not decided, absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<bool>,
    /// Only in the answer to a write: what its author may want to think over. Nothing was refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<String>,
}

/// What is told about an entry beside its value.
#[derive(Serialize, ToSchema)]
struct MetadataBody {
    created_at: String,
    created_by: String,
    updated_at: String,
    updated_by: String,
    tags: Vec<String>,
    description: Option<String>,
}

impl From<Metadata> for MetadataBody {
    fn from(metadata: Metadata) -> Self {
        Self {
            created_at: metadata.created_at.to_rfc3339(),
            created_by: metadata.created_by.to_string(),
            updated_at: metadata.updated_at.to_rfc3339(),
            updated_by: metadata.updated_by.to_string(),
            tags: metadata.tags.iter().map(ToString::to_string).collect(),
            description: metadata.description.map(|text| text.to_string()),
        }
    }
}

/// Where an inherited value stands.
#[derive(Serialize, ToSchema)]
struct OriginBody {
    namespace: String,
    environment: String,
}

impl From<Scope> for OriginBody {
    fn from(scope: Scope) -> Self {
        Self { namespace: scope.namespace.to_string(), environment: scope.environment.to_string() }
    }
}

impl From<Entry> for EntryBody {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id().to_string(),
            namespace: entry.at.scope.namespace.to_string(),
            key: entry.at.key.to_string(),
            value: raw(&entry.value),
            environment: entry.at.scope.environment.to_string(),
            version: entry.version,
            metadata: entry.metadata.into(),
            secret: entry.value.is_secret().then_some(true),
            secret_type: entry.told.map(|told| told.secret_type.as_str()),
            expires_at: entry.told.and_then(|told| told.expires_at).map(UnixMillis::to_rfc3339),
            origin: entry.origin.map(OriginBody::from),
            pending: entry.pending.then_some(true),
            warnings: Vec::new(),
        }
    }
}

/// A write that waits at an edge for its hub.
#[derive(Serialize, ToSchema)]
pub(super) struct PendingBody {
    /// Always true.
    pending: bool,
    id: String,
    namespace: String,
    key: String,
    environment: String,
    /// Its place in the queue; 1 is the next to go.
    place: u64,
    /// The last version that the hub admitted; 0 if none.
    version: u64,
    /// What its author may want to think over. Nothing was refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<String>,
}

impl From<Pending> for PendingBody {
    fn from(pending: Pending) -> Self {
        Self {
            pending: true,
            id: pending.at.id().to_string(),
            namespace: pending.at.scope.namespace.to_string(),
            key: pending.at.key.to_string(),
            environment: pending.at.scope.environment.to_string(),
            place: pending.place,
            version: pending.last_version,
            warnings: Vec::new(),
        }
    }
}

/// One write in the history of an entry.
#[derive(Serialize, ToSchema)]
pub(super) struct PastBody {
    /// 0 for a write that was not admitted.
    version: u64,
    /// Null for a deletion.
    #[schema(value_type = serde_json::Value)]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<bool>,
    /// Of a secret: what its document holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_type: Option<&'static str>,
    /// Of a secret that expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// True where the value of a secret was removed for good, absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    purged: Option<bool>,
    created_at: String,
    created_by: String,
    /// What the author said of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_user: Option<String>,
    change_description: Option<String>,
    /// `create`, `update`, `delete` or `rollback`.
    change_type: &'static str,
    /// The change that it belongs to.
    change: String,
    /// The change that its author made it in, where an edge brought it back after the hub was restored: then `change` is all that
    /// came back.
    #[serde(skip_serializing_if = "Option::is_none")]
    made_in: Option<String>,
    /// `applied`, `superseded_concurrent`, `held`, `released`, `dropped` or `denied`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What a person decided about it, once it was held.
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution: Option<ResolutionBody>,
}

impl From<Past> for PastBody {
    fn from(past: Past) -> Self {
        Self {
            version: past.version,
            value: past.value.as_ref().map(raw),
            secret: past.value.as_ref().is_some_and(Shown::is_secret).then_some(true),
            secret_type: past.told.map(|told| told.secret_type.as_str()),
            expires_at: past.told.and_then(|told| told.expires_at).map(UnixMillis::to_rfc3339),
            purged: past.purged.then_some(true),
            created_at: past.created_at.to_rfc3339(),
            created_by: past.author.name.to_string(),
            claimed_user: past.author.claimed.map(|text| text.to_string()),
            change_description: past.message.map(|text| text.to_string()),
            change_type: past.change_type.as_str(),
            change: past.change.0.to_string(),
            made_in: past.made_in.map(|change| change.0.to_string()),
            status: past.status.as_str(),
            reason: past.reason.map(|text| text.to_string()),
            resolution: past.settled.map(ResolutionBody::from),
        }
    }
}

/// Both versions as JSON; secrets stay masked, and differ where their contents do.
pub(super) fn patch_of(versions: &TwoVersions) -> Vec<super::diff::PatchOperation> {
    let json = |shown: &Shown| serde_json::from_str(raw(shown).get()).expect("canonical JSON is JSON");
    let (from, to) = (versions.from.as_ref().map(json), versions.to.as_ref().map(json));
    let operations = super::diff::patch(from.as_ref(), to.as_ref());
    match to {
        Some(value) if operations.is_empty() && versions.changed => {
            vec![super::diff::PatchOperation::Replace { path: String::new(), value }]
        }
        _ => operations,
    }
}

/// What came of a bulk request.
#[derive(Serialize, ToSchema)]
pub(super) struct BulkBody {
    /// None for a dry run.
    change: Option<String>,
    dry_run: bool,
    succeeded: usize,
    failed: usize,
    /// In the order asked.
    results: Vec<BulkItemBody>,
}

/// What came of one operation.
#[derive(Serialize, ToSchema)]
struct BulkItemBody {
    /// The status that the operation alone would have had.
    status: u16,
    namespace: String,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<serde_json::Value>,
    /// What its author may want to think over. Nothing was refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl From<BulkItem> for BulkItemBody {
    fn from(item: BulkItem) -> Self {
        let mut body = Self {
            status: 200,
            namespace: item.target.namespace.to_string(),
            key: item.target.key.to_string(),
            environment: item.target.environment.map(|environment| environment.to_string()),
            version: None,
            pending: None,
            place: None,
            error: None,
            message: None,
            details: None,
            warnings: Vec::new(),
        };
        match item.outcome {
            BulkOutcome::Set { version } => body.version = Some(version),
            BulkOutcome::Deleted { version } => (body.status, body.version) = (204, Some(version)),
            BulkOutcome::Pending { place, last_version } => {
                (body.status, body.pending) = (202, Some(true));
                (body.place, body.version) = (Some(place), Some(last_version));
            }
            BulkOutcome::Failed(error) => body.fail(error),
        }
        body
    }
}

impl BulkItemBody {
    fn fail(&mut self, error: ApiError) {
        self.status = error.kind.status();
        self.error = Some(reason(&error));
        self.message = Some(error.message);
        if !error.details.is_empty() {
            self.details = Some(error.details.into_iter().collect());
        }
    }
}

impl From<BulkResult> for BulkBody {
    fn from(result: BulkResult) -> Self {
        let failed =
            result.results.iter().filter(|item| matches!(item.outcome, BulkOutcome::Failed(_))).count();
        Self {
            change: result.change.map(|change| change.0.to_string()),
            dry_run: result.dry_run,
            succeeded: result.results.len() - failed,
            failed,
            results: result.results.into_iter().map(BulkItemBody::from).collect(),
        }
    }
}

/// The answer to a bulk request as it goes out. `warnings` are those of each operation, in the order asked.
pub(super) fn bulk_answer(result: BulkResult, warnings: Vec<Vec<String>>) -> String {
    let mut body = BulkBody::from(result);
    for (item, warnings) in body.results.iter_mut().zip(warnings) {
        item.warnings = warnings;
    }
    serde_json::to_string(&body).expect("a bulk answer has only text, numbers and lists")
}

/// A secret that expires soon or has expired, as followers hear it.
#[derive(Serialize, ToSchema)]
pub(super) struct ExpiryEventBody {
    namespace: String,
    key: String,
    environment: String,
    version: u64,
    secret_type: &'static str,
    expires_at: String,
    /// Within so many days; 0: it has expired.
    days: u64,
}

impl From<ExpiryNotice> for ExpiryEventBody {
    fn from(ExpiryNotice { secret, days }: ExpiryNotice) -> Self {
        Self {
            namespace: secret.at.scope.namespace.to_string(),
            key: secret.at.key.to_string(),
            environment: secret.at.scope.environment.to_string(),
            version: secret.version,
            secret_type: secret.secret_type.as_str(),
            expires_at: secret.expires_at.to_rfc3339(),
            days,
        }
    }
}

/// One change as followers hear it.
#[derive(Serialize, ToSchema)]
pub(super) struct EventBody {
    id: String,
    namespace: String,
    key: String,
    environment: String,
    version: u64,
    change: String,
    change_type: &'static str,
    secret: bool,
    author: String,
    at: String,
    /// For `after` and `at_least`.
    position: String,
}

impl From<Event> for EventBody {
    fn from(event: Event) -> Self {
        Self {
            id: event.at.id().to_string(),
            namespace: event.at.scope.namespace.to_string(),
            key: event.at.key.to_string(),
            environment: event.at.scope.environment.to_string(),
            version: event.version,
            change: event.change.0.to_string(),
            change_type: event.change_type.as_str(),
            secret: event.secret,
            author: event.author.to_string(),
            at: event.created_at.to_rfc3339(),
            position: position::encode(&Vector::at(event.dot.shard, event.dot.position)),
        }
    }
}

/// Two writes that were made without knowledge of each other, as followers hear of them.
#[derive(Serialize, ToSchema)]
pub(super) struct ClashBody {
    /// The conflict's, for `/conflicts/{id}`; an edge does not know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    conflict: Option<String>,
    /// The entry's.
    id: String,
    namespace: String,
    key: String,
    environment: String,
    /// The version that counts; null from an edge whose hub did not say it.
    winner_version: Option<u64>,
    /// The version that lost and is kept in the history.
    loser_version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    winner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loser: Option<String>,
}

impl From<Clash> for ClashBody {
    fn from(clash: Clash) -> Self {
        Self {
            conflict: clash.conflict.map(|id| id.to_string()),
            id: clash.at.id().to_string(),
            namespace: clash.at.scope.namespace.to_string(),
            key: clash.at.key.to_string(),
            environment: clash.at.scope.environment.to_string(),
            winner_version: clash.winner_version,
            loser_version: clash.loser_version,
            winner: clash.winner.map(|name| name.to_string()),
            loser: clash.loser.map(|name| name.to_string()),
        }
    }
}

/// A write of this edge that waits at the hub for a person.
#[derive(Serialize, ToSchema)]
pub(super) struct HeldEventBody {
    id: String,
    namespace: String,
    key: String,
    environment: String,
    reason: String,
}

impl From<HeldAtHub> for HeldEventBody {
    fn from(held: HeldAtHub) -> Self {
        Self {
            id: held.at.id().to_string(),
            namespace: held.at.scope.namespace.to_string(),
            key: held.at.key.to_string(),
            environment: held.at.scope.environment.to_string(),
            reason: held.reason.to_string(),
        }
    }
}

/// How the daemon is.
#[derive(Serialize, ToSchema)]
pub(super) struct HealthBody {
    /// `healthy`, `degraded` or `unhealthy`.
    status: &'static str,
    service: &'static str,
    version: &'static str,
    /// Seconds since the start.
    uptime: u64,
    timestamp: String,
    /// Of a hub: `leader` where this process writes, `follower` where it passes writes on to another.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    /// What is missing, where it is `degraded`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

impl From<&Health> for HealthBody {
    fn from(health: &Health) -> Self {
        Self {
            status: match health.status {
                HealthStatus::Healthy => "healthy",
                HealthStatus::Degraded => "degraded",
                HealthStatus::Unhealthy => "unhealthy",
            },
            service: "llm-config-manager",
            version: env!("CARGO_PKG_VERSION"),
            uptime: health.uptime_ms / 1_000,
            timestamp: health.now.to_rfc3339(),
            role: health.role.map(|role| match role {
                HubRole::Leader => "leader",
                HubRole::Follower => "follower",
            }),
            reasons: health.reasons.clone(),
        }
    }
}
