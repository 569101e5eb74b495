//! The JSON of conflicts, held writes and policies.

use llm_config_shared::name::EntryKey;
use llm_config_shared::policy::ConflictPolicy;
use llm_config_shared::settled::{ConflictState, Settled};
use llm_config_shared::time::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::admin_types::PlacedBody;
use super::conflicts::{
    ChangeDecided, ConflictDetail, ConflictInfo, DecideOptions, HadSeen, HeldDetail, HeldInfo, PolicyInfo,
    Side, Site, Undecided,
};
use super::error::ApiError;
use super::requests::text;
use super::types::PastBody;

/// Who decided, when, and what came of it.
#[derive(Serialize, ToSchema)]
pub(super) struct ResolutionBody {
    by: String,
    at: String,
    /// The change that was made; absent where nothing was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<String>,
    /// The version that was written; absent where nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

impl From<Settled> for ResolutionBody {
    fn from(settled: Settled) -> Self {
        Self {
            by: settled.by.to_string(),
            at: settled.at.to_rfc3339(),
            change: settled.wrote.map(|(change, _)| change.0.to_string()),
            version: settled.wrote.map(|(_, version)| version),
        }
    }
}

/// Two concurrent writes of one entry, of which one lost.
#[derive(Serialize, ToSchema)]
pub(super) struct ConflictBody {
    id: String,
    namespace: String,
    key: String,
    environment: String,
    detected_at: String,
    /// `open`, `restored` or `dismissed`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution: Option<ResolutionBody>,
    winner: PastBody,
    loser: PastBody,
}

impl From<ConflictInfo> for ConflictBody {
    fn from(conflict: ConflictInfo) -> Self {
        let EntryKey { scope, key } = conflict.at;
        Self {
            id: conflict.id.to_string(),
            namespace: scope.namespace.to_string(),
            key: key.to_string(),
            environment: scope.environment.to_string(),
            detected_at: conflict.detected_at.to_rfc3339(),
            state: ConflictState::of(conflict.settled.as_ref()).as_str(),
            resolution: conflict.settled.map(ResolutionBody::from),
            winner: conflict.winner.into(),
            loser: conflict.loser.into(),
        }
    }
}

/// A write with where it was made, its times, and what its author had seen.
#[derive(Serialize, ToSchema)]
struct SideBody {
    #[serde(flatten)]
    write: PastBody,
    /// `hub` or `edge`.
    site: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    edge: Option<String>,
    /// The time that decided which of the two is the later one.
    compared_at: String,
    /// What the author's clock said, where it was ahead or the namespace's policy made the write win.
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_at: Option<String>,
    /// `version 3`, `no value` or `a write that was not admitted`.
    had_seen: String,
}

impl From<Side> for SideBody {
    fn from(side: Side) -> Self {
        let (site, edge) = match side.site {
            Site::Hub => ("hub", None),
            Site::Edge(name) => ("edge", Some(name.to_string())),
        };
        Self {
            write: side.past.into(),
            site,
            edge,
            compared_at: side.compared_at.to_rfc3339(),
            claimed_at: side.claimed_at.map(UnixMillis::to_rfc3339),
            had_seen: match side.had_seen {
                HadSeen::Nothing => "no value".to_owned(),
                HadSeen::Version(version) => format!("version {version}"),
                HadSeen::Unadmitted => "a write that was not admitted".to_owned(),
            },
        }
    }
}

/// A conflict with both its sides in full.
#[derive(Serialize, ToSchema)]
pub(super) struct ConflictDetailBody {
    id: String,
    namespace: String,
    key: String,
    environment: String,
    detected_at: String,
    /// `open`, `restored` or `dismissed`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution: Option<ResolutionBody>,
    /// The entry's version now; null when it is deleted.
    current_version: Option<u64>,
    winner: SideBody,
    loser: SideBody,
}

impl From<ConflictDetail> for ConflictDetailBody {
    fn from(conflict: ConflictDetail) -> Self {
        let EntryKey { scope, key } = conflict.at;
        Self {
            id: conflict.id.to_string(),
            namespace: scope.namespace.to_string(),
            key: key.to_string(),
            environment: scope.environment.to_string(),
            detected_at: conflict.detected_at.to_rfc3339(),
            state: ConflictState::of(conflict.settled.as_ref()).as_str(),
            resolution: conflict.settled.map(ResolutionBody::from),
            current_version: conflict.current_version,
            winner: conflict.winner.into(),
            loser: conflict.loser.into(),
        }
    }
}

/// A write that waits for a person. `id` is the entry's, as everywhere.
#[derive(Serialize, ToSchema)]
pub(super) struct HeldBody {
    /// To release or to drop it.
    held_id: String,
    #[serde(flatten)]
    write: PlacedBody,
}

impl From<HeldInfo> for HeldBody {
    fn from(held: HeldInfo) -> Self {
        Self { held_id: held.id.to_string(), write: held.write.into() }
    }
}

/// A write that waits or has waited for a person, in full.
#[derive(Serialize, ToSchema)]
pub(super) struct HeldDetailBody {
    held_id: String,
    /// The entry's.
    id: String,
    namespace: String,
    key: String,
    environment: String,
    /// The entry's version now; null when there is none.
    current_version: Option<u64>,
    #[serde(flatten)]
    write: SideBody,
}

impl From<HeldDetail> for HeldDetailBody {
    fn from(held: HeldDetail) -> Self {
        let id = held.at.id().to_string();
        let EntryKey { scope, key } = held.at;
        Self {
            held_id: held.id.to_string(),
            id,
            namespace: scope.namespace.to_string(),
            key: key.to_string(),
            environment: scope.environment.to_string(),
            current_version: held.current_version,
            write: held.write.into(),
        }
    }
}

/// What was decided about all held writes of a change.
#[derive(Serialize, ToSchema)]
pub(super) struct ChangeDecidedBody {
    change: String,
    /// The change that was written; null when nothing was.
    wrote: Option<String>,
    /// How many were decided so, those included that were before.
    decided: u64,
    /// Those that could not be, and why.
    undecided: Vec<UndecidedBody>,
}

/// A held write that was left as it was.
#[derive(Serialize, ToSchema)]
pub(super) struct UndecidedBody {
    held_id: String,
    namespace: String,
    key: String,
    environment: String,
    message: String,
}

impl From<ChangeDecided> for ChangeDecidedBody {
    fn from(decided: ChangeDecided) -> Self {
        Self {
            change: decided.change.0.to_string(),
            wrote: decided.wrote.map(|change| change.0.to_string()),
            decided: decided.decided,
            undecided: decided.undecided.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Undecided> for UndecidedBody {
    fn from(left: Undecided) -> Self {
        let EntryKey { scope, key } = left.at;
        Self {
            held_id: left.id.to_string(),
            namespace: scope.namespace.to_string(),
            key: key.to_string(),
            environment: scope.environment.to_string(),
            message: left.why,
        }
    }
}

/// What one who restores or releases may say.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DecideBody {
    /// Refuse with 409 unless the entry is at this version; 0: unless it does not exist.
    if_version: Option<u64>,
    /// False: also where the entry holds a secret, which then is none any more.
    secret: Option<bool>,
    user: Option<String>,
    #[serde(alias = "message")]
    change_description: Option<String>,
}

impl DecideBody {
    pub(super) fn parse(self) -> Result<DecideOptions, ApiError> {
        if self.secret == Some(true) {
            return Err(ApiError::unprocessable("what was a plain value cannot be made a secret here")
                .detail("field", "secret"));
        }
        Ok(DecideOptions {
            if_version: self.if_version,
            over_secret: self.secret == Some(false),
            claimed_user: text("user", self.user)?,
            message: text("change_description", self.change_description)?,
        })
    }
}

/// What a namespace is to do with concurrent writes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyRequest {
    /// `last_write_wins`, `hub_wins`, `edge_wins`, `reject` or `manual`.
    conflicts: String,
}

impl PolicyRequest {
    pub(super) fn parse(&self) -> Result<ConflictPolicy, ApiError> {
        ConflictPolicy::parse(&self.conflicts).ok_or_else(|| {
            ApiError::unprocessable(
                "conflicts must be last_write_wins, hub_wins, edge_wins, reject or manual",
            )
            .detail("field", "conflicts")
        })
    }
}

/// What a namespace does with concurrent writes.
#[derive(Serialize, ToSchema)]
pub(super) struct PolicyBody {
    namespace: String,
    /// `last_write_wins`, `hub_wins`, `edge_wins`, `reject` or `manual`.
    conflicts: &'static str,
    /// The namespace that has it: this one or one above. Null: nobody set one.
    set_in: Option<String>,
}

impl From<PolicyInfo> for PolicyBody {
    fn from(info: PolicyInfo) -> Self {
        Self {
            namespace: info.namespace.to_string(),
            conflicts: info.policy.as_str(),
            set_in: info.set_in.map(|namespace| namespace.to_string()),
        }
    }
}
