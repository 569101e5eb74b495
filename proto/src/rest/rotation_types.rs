//! The JSON about the rotation of secrets.

use llm_config_shared::limits::NAME_BYTES_MAX;
use llm_config_shared::rotation::Rotation;
use llm_config_shared::time::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::duration;
use super::error::ApiError;
use super::rotations::{HoldingBackup, NewValueSource, PlannedSecret, RotationPlan, RotationState};

/// A day, unless another time is said.
const GRACE_MS: u64 = 86_400_000;
const GRACE_MS_MAX: u64 = 3_650 * 86_400_000;
const DAYS_MAX: u64 = 3_650;

/// How a secret is rotated: by one of `generate` and `command`.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RotationPlanBody {
    /// So many days after its value was written last; by hand only where this is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    every_days: Option<u64>,
    /// How long the old version is still needed at most, as `24h`, which is what holds unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    grace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generate: Option<GenerateBody>,
    /// The name of a command in the hub's settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    /// Whether the command is told the old value, on its stdin.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    old_value: bool,
}

/// Random characters: as a generic secret, or as the member of a document that is secret.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GenerateBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alphabet: Option<String>,
}

impl RotationPlanBody {
    pub(super) fn parse(self) -> Result<RotationPlan, ApiError> {
        let refused = |field: &'static str, what: String| {
            Err(ApiError::unprocessable(format!("{field} {what}")).detail("field", field))
        };
        let source = match (self.generate, self.command) {
            (Some(generate), None) if !self.old_value => NewValueSource::Generated {
                length: generate.length,
                alphabet: generate.alphabet.map(Into::into),
            },
            (Some(_), None) => return refused("old_value", "is for commands".to_owned()),
            (None, Some(name)) if (1..=NAME_BYTES_MAX).contains(&name.len()) => {
                NewValueSource::Command { name: name.into(), old_value: self.old_value }
            }
            (None, Some(_)) => {
                return refused("command", "must be a name from the hub's settings".to_owned());
            }
            (None, None) | (Some(_), Some(_)) => {
                return refused(
                    "generate",
                    "or command says where a new value comes from: give one".to_owned(),
                );
            }
        };
        if self.every_days.is_some_and(|days| !(1..=DAYS_MAX).contains(&days)) {
            return refused("every_days", format!("must be from 1 to {DAYS_MAX}"));
        }
        let grace_ms = match self.grace.as_deref().map(duration::parse_ms) {
            None => GRACE_MS,
            Some(Some(ms)) if ms <= GRACE_MS_MAX => ms,
            Some(_) => return refused("grace", "must be a time like 24h or 7d".to_owned()),
        };
        Ok(RotationPlan { source, every_days: self.every_days, grace_ms })
    }
}

impl From<RotationPlan> for RotationPlanBody {
    fn from(plan: RotationPlan) -> Self {
        let (generate, command, old_value) = match plan.source {
            NewValueSource::Generated { length, alphabet } => {
                let alphabet = alphabet.map(|text| text.to_string());
                (Some(GenerateBody { length, alphabet }), None, false)
            }
            NewValueSource::Command { name, old_value } => (None, Some(name.to_string()), old_value),
        };
        let grace = Some(format!("{}ms", plan.grace_ms));
        Self { every_days: plan.every_days, grace, generate, command, old_value }
    }
}

/// How a secret is rotated, and its rotations.
#[derive(Serialize, ToSchema)]
pub(super) struct RotationStateBody {
    /// Null: not at all.
    plan: Option<RotationPlanBody>,
    /// Newest first.
    rotations: Vec<RotationBody>,
}

/// A secret with a plan.
#[derive(Serialize, ToSchema)]
pub(super) struct PlannedSecretBody {
    environment: String,
    namespace: String,
    key: String,
    plan: RotationPlanBody,
    /// When its plan rotates it next; null for a plan by hand, and for a secret that is gone.
    due_at: Option<String>,
    /// Its newest rotation.
    last: Option<RotationBody>,
}

impl From<PlannedSecret> for PlannedSecretBody {
    fn from(planned: PlannedSecret) -> Self {
        let scope = planned.at.scope;
        Self {
            environment: scope.environment.to_string(),
            namespace: scope.namespace.to_string(),
            key: planned.at.key.to_string(),
            plan: planned.plan.into(),
            due_at: planned.due_at.map(UnixMillis::to_rfc3339),
            last: planned.last.map(RotationBody::from),
        }
    }
}

/// One rotation and how far it has come.
#[derive(Serialize, ToSchema)]
pub(super) struct RotationBody {
    /// Also the change that it writes.
    id: String,
    /// `begun`: nothing is written yet. `written`: the new version holds, the old one may still be used. `retired`: the old
    /// version is not needed any more. `failed`: given up, nothing was written.
    step: &'static str,
    by: String,
    old_version: u64,
    new_version: Option<u64>,
    began_at: String,
    written_at: Option<String>,
    /// When the old version is not needed any more, whoever still uses it.
    retire_at: Option<String>,
    retired_at: Option<String>,
    /// Why it retired or failed, or what went wrong last.
    why: Option<String>,
}

/// The version whose value is to go.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PurgeBody {
    pub(super) version: u64,
}

/// What came of it.
#[derive(Serialize, ToSchema)]
pub(super) struct PurgedBody {
    pub(super) version: u64,
    /// Backups that the hub made while it was there: whoever restores one has it again.
    pub(super) backups: Vec<HoldingBackupBody>,
}

/// A backup that still holds a value.
#[derive(Serialize, ToSchema)]
pub(super) struct HoldingBackupBody {
    id: String,
    made_at: String,
    file: String,
}

impl From<HoldingBackup> for HoldingBackupBody {
    fn from(backup: HoldingBackup) -> Self {
        let (id, made_at) = (backup.id.to_string(), backup.made_at.to_rfc3339());
        Self { id, made_at, file: backup.file.to_string() }
    }
}

/// How the bodies of a tenant's secrets are sealed.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SealingBody {
    /// `xchacha20poly1305` (the default), `aes256gcm` or `chacha20poly1305`.
    pub(super) cipher: String,
}

impl From<RotationState> for RotationStateBody {
    fn from(state: RotationState) -> Self {
        let rotations = state.rotations.into_iter().map(RotationBody::from).collect();
        Self { plan: state.plan.map(RotationPlanBody::from), rotations }
    }
}

impl From<Rotation> for RotationBody {
    fn from(rotation: Rotation) -> Self {
        let time = |at: Option<UnixMillis>| at.map(UnixMillis::to_rfc3339);
        Self {
            id: rotation.id.to_string(),
            step: rotation.step.as_str(),
            by: rotation.by.to_string(),
            old_version: rotation.old_version,
            new_version: rotation.new_version,
            began_at: rotation.began_at.to_rfc3339(),
            written_at: time(rotation.written_at),
            retire_at: time(rotation.retire_at),
            retired_at: time(rotation.retired_at),
            why: rotation.why.map(|why| why.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Result<RotationPlan, String> {
        let body: RotationPlanBody = serde_json::from_str(json).unwrap();
        body.parse().map_err(|error| error.details["field"].as_str().unwrap_or_default().to_owned())
    }

    #[test]
    fn a_plan_says_where_a_new_value_comes_from_once() {
        let plan = parsed(r#"{"generate":{"length":40},"every_days":90,"grace":"7d"}"#).unwrap();
        assert_eq!((plan.every_days, plan.grace_ms), (Some(90), 7 * 86_400_000));
        assert_eq!(parsed(r#"{"command":"openai"}"#).unwrap().grace_ms, GRACE_MS);
        for (json, field) in [
            ("{}", "generate"),
            (r#"{"generate":{},"command":"c"}"#, "generate"),
            (r#"{"generate":{},"old_value":true}"#, "old_value"),
            (r#"{"command":""}"#, "command"),
            (r#"{"generate":{},"every_days":0}"#, "every_days"),
            (r#"{"generate":{},"grace":"soon"}"#, "grace"),
        ] {
            assert_eq!(parsed(json), Err(field.to_owned()), "{json}");
        }
    }
}
