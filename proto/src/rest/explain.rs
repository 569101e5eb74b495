//! Why a reader gets the value that they get: every place that is looked at, in order, and what it holds.

use std::fmt;

use llm_config_shared::name::{EdgeName, EntryKey};
use llm_config_shared::resolve::Looked;
use serde::Serialize;
use utoipa::ToSchema;

use super::service::{Demand, Entry, Target};
use super::types::EntryBody;

/// `GET /configs/{namespace}/{key}/explain`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainEntry {
    pub target: Target,
    /// As readers at this edge get it; none for readers of the service that is asked.
    pub edge: Option<EdgeName>,
    pub demand: Demand,
}

/// Where a reader looks for an entry, the most specific place first.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    pub at: EntryKey,
    pub edge: Option<EdgeName>,
    pub places: Vec<Place>,
}

/// One place where a reader looks.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub at: EntryKey,
    pub found: Found,
    /// What it holds, if anything; secrets are not shown in clear.
    pub entry: Option<Entry>,
}

/// What there is for a reader in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Looked(Looked),
    /// A deletion of this edge waits for the hub: to readers here there is nothing.
    DeletionWaits,
    /// The edge is not sent this place.
    NotReceived,
    /// The edge is sent no secrets of this place, and anything else is not there.
    SecretsNotReceived,
    /// The caller may not read there.
    Denied,
}

impl Found {
    /// As programs see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Looked(Looked::Used) => "used",
            Self::Looked(Looked::Covered) => "covered",
            Self::Looked(Looked::SecretOfAnother) => "secret_not_inherited",
            Self::Looked(Looked::Empty) => "empty",
            Self::DeletionWaits => "deletion_waits",
            Self::NotReceived => "not_received",
            Self::SecretsNotReceived => "secrets_not_received",
            Self::Denied => "denied",
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a reader looks for an entry.
#[derive(Serialize, ToSchema)]
pub(super) struct ExplainedBody {
    namespace: String,
    key: String,
    environment: String,
    /// As readers at this edge get it; absent at a hub, unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    edge: Option<String>,
    /// The most specific first; at most one is `used`.
    places: Vec<PlaceBody>,
}

/// One place where a reader looks.
#[derive(Serialize, ToSchema)]
pub(super) struct PlaceBody {
    namespace: String,
    environment: String,
    /// `used`, `covered` by a place before it, `secret_not_inherited`, `empty`, `deletion_waits` at an edge, `not_received` or
    /// `secrets_not_received` by the edge, or `denied`.
    found: &'static str,
    /// What it holds; absent where there is nothing, or nothing that may be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<EntryBody>,
}

impl From<Explained> for ExplainedBody {
    fn from(explained: Explained) -> Self {
        let EntryKey { scope, key } = explained.at;
        Self {
            namespace: scope.namespace.to_string(),
            key: key.to_string(),
            environment: scope.environment.to_string(),
            edge: explained.edge.map(|edge| edge.to_string()),
            places: explained.places.into_iter().map(PlaceBody::from).collect(),
        }
    }
}

impl From<Place> for PlaceBody {
    fn from(place: Place) -> Self {
        Self {
            namespace: place.at.scope.namespace.to_string(),
            environment: place.at.scope.environment.to_string(),
            found: place.found.as_str(),
            entry: place.entry.map(EntryBody::from),
        }
    }
}
