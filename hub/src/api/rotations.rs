//! Rotation of secrets: plans, and rotations by hand.

use std::sync::Arc;

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::rotations::{
    Answer, HoldingBackup, NewValueSource, PlannedSecret, RotationPlan, RotationService, RotationState,
};
use llm_config_proto::rest::service::{Caller, Target};
use llm_config_shared::access::Permission;
use llm_config_shared::entry::Row;
use llm_config_shared::name::EntryKey;
use llm_config_shared::rotation::{Rotation, Step};
use llm_config_shared::seal::Suite;
use llm_config_shared::store::Journal;

use super::Api;
use crate::registry::{MadeBackup, PurgedVersion, Registry, RotationPolicy, Source};
use crate::rotation::produce::{ALPHABET, LENGTH_MAX, LENGTH_MIN, is_alphabet};
use crate::rotation::{self, begun};
use crate::{clock, guard};

/// What a generated text has unless it is said.
const LENGTH: u32 = 48;
/// Rotations that are shown.
const SHOWN_MAX: usize = 50;

impl<S: Journal + Registry> RotationService for Api<S> {
    async fn planned(&self, caller: &Caller) -> Answer<Vec<PlannedSecret>> {
        guard::may_read_all(caller)?;
        let store = &self.parts.store;
        let policies = store.rotation_policies(&caller.tenant).await?;
        let places: Vec<EntryKey> = policies.iter().map(|(policy, _)| policy.at.clone()).collect();
        let rows = store.entries(&places).await?.value;
        let planned = policies.into_iter().zip(rows).map(|((policy, last), row)| {
            let due_at = row.and_then(|row| rotation::due_at(&policy, &row.row));
            PlannedSecret { at: policy.at.clone(), plan: plan(policy), due_at, last }
        });
        let mut planned: Vec<PlannedSecret> = planned.collect();
        planned.sort_by_key(|secret| (secret.due_at.is_none(), secret.due_at));
        Ok(planned)
    }

    async fn rotation(&self, caller: &Caller, target: Target) -> Answer<RotationState> {
        let (_, environment) = self.environment(caller, target.environment.as_ref()).await?;
        let at = target.at(&caller.tenant, &environment);
        guard::may_read(caller, &at)?;
        self.secret(&at).await?;
        self.rotation_state(&at).await
    }

    async fn set_rotation(
        &self,
        caller: &Caller,
        target: Target,
        plan: RotationPlan,
    ) -> Answer<RotationState> {
        let at = self.writable(caller, &target).await?;
        self.secret(&at).await?;
        let source = match plan.source {
            NewValueSource::Generated { length, alphabet } => generated(length, alphabet)?,
            NewValueSource::Command { name, old_value } => {
                if !self.parts.rotation_commands.contains(&*name) {
                    let message = format!("command {name} is not among those of the hub's settings");
                    return Err(ApiError::unprocessable(message).detail("field", "command"));
                }
                // A command that hears a secret is a way to see it.
                if old_value {
                    guard::may_reveal(caller, &at)?;
                }
                Source::Command { name, old_value }
            }
        };
        let policy = RotationPolicy {
            at: at.clone(),
            source,
            every_days: plan.every_days,
            grace_ms: plan.grace_ms,
            set_by: Arc::clone(&caller.name),
            set_at: clock::now(),
        };
        self.parts.store.set_rotation_policy(&policy).await?;
        self.parts.rotate.notify_one();
        self.rotation_state(&at).await
    }

    async fn remove_rotation(&self, caller: &Caller, target: Target) -> Answer<()> {
        let at = self.writable(caller, &target).await?;
        if self.parts.store.remove_rotation_policy(&at).await? { Ok(()) } else { Err(no_plan(&at, false)) }
    }

    async fn rotate(&self, caller: &Caller, target: Target) -> Answer<Rotation> {
        let at = self.writable(caller, &target).await?;
        let row = self.secret(&at).await?;
        if self.parts.store.rotation_policy(&at).await?.is_none() {
            return Err(no_plan(&at, true));
        }
        let rotation = begun(at, Arc::clone(&caller.name), row.version, clock::now());
        if !self.parts.store.begin_rotation(&rotation).await? {
            return Err(ApiError::conflict(
                "a rotation of this secret is under way; wait until it is written",
            ));
        }
        self.parts.rotate.notify_one();
        Ok(rotation)
    }

    async fn purge(&self, caller: &Caller, target: Target, version: u64) -> Answer<Vec<HoldingBackup>> {
        guard::may(caller, Permission::Administer)?;
        let at = self.writable(caller, &target).await?;
        let purged = self.parts.store.purge_version(&at, version, &caller.name, clock::now()).await?;
        let backups = match purged {
            PurgedVersion::Gone { backups } => backups,
            PurgedVersion::Current => {
                let message =
                    format!("version {version} is the current one; write another value first, or delete it");
                return Err(ApiError::conflict(message).detail("version", version));
            }
            PurgedVersion::NotFound => {
                return Err(ApiError::not_found(format!("{} has no version {version}", at.key)));
            }
            PurgedVersion::NotSecret => {
                let message = format!("version {version} of {} is no secret", at.key);
                return Err(ApiError::unprocessable(message).detail("field", "version"));
            }
        };
        tracing::warn!(caller = %caller.name, entry = %at.id(), version, "the value of a secret's version was purged");
        let holding = |backup: MadeBackup| {
            let MadeBackup { id, made_at, file, .. } = backup;
            HoldingBackup { id, made_at, file }
        };
        Ok(backups.into_iter().map(holding).collect())
    }

    async fn suite(&self, caller: &Caller) -> Answer<Suite> {
        guard::may_read_all(caller)?;
        Ok(self.parts.store.suite(&caller.tenant).await?)
    }

    async fn set_suite(&self, caller: &Caller, suite: Suite) -> Answer<Suite> {
        guard::may(caller, Permission::Administer)?;
        self.parts.store.set_suite(&caller.tenant, suite).await?;
        tracing::info!(caller = %caller.name, suite = suite.as_str(), "secrets are sealed with another cipher from now on");
        Ok(suite)
    }

    async fn retire(&self, caller: &Caller, target: Target) -> Answer<Rotation> {
        let at = self.writable(caller, &target).await?;
        let last = self.parts.store.rotations(&at, 1).await?.into_iter().next();
        let last = last.filter(|rotation| rotation.step == Step::Written);
        let nothing = || ApiError::conflict("there is no old version that is still needed");
        let rotation = last.ok_or_else(nothing)?;
        let why = format!("{} said so", caller.name);
        if !rotation::retire(&*self.parts.store, &rotation, &why, clock::now()).await? {
            return Err(nothing());
        }
        let done = self.parts.store.rotations(&at, 1).await?.into_iter().next();
        done.ok_or_else(nothing)
    }
}

impl<S: Journal + Registry> Api<S> {
    /// The current row of what has to be a secret.
    async fn secret(&self, at: &EntryKey) -> Result<Row, ApiError> {
        let read = self.parts.store.entries(std::slice::from_ref(at)).await?;
        let row = read.value.into_iter().flatten().next().map(|row| row.row);
        row.filter(|row| row.content.is_secret()).ok_or_else(|| {
            let scope = &at.scope;
            let (namespace, environment) = (&scope.namespace, &scope.environment);
            ApiError::not_found(format!(
                "there is no secret {} in namespace {namespace} and environment {environment}",
                at.key
            ))
        })
    }

    async fn rotation_state(&self, at: &EntryKey) -> Answer<RotationState> {
        let plan = self.parts.store.rotation_policy(at).await?.map(plan);
        let rotations = self.parts.store.rotations(at, SHOWN_MAX).await?;
        Ok(RotationState { plan, rotations })
    }
}

fn generated(length: Option<u32>, alphabet: Option<Arc<str>>) -> Result<Source, ApiError> {
    let length = length.unwrap_or(LENGTH);
    if !(LENGTH_MIN..=LENGTH_MAX).contains(&length) {
        let message = format!("length must be from {LENGTH_MIN} to {LENGTH_MAX}");
        return Err(ApiError::unprocessable(message).detail("field", "length"));
    }
    let alphabet = alphabet.unwrap_or_else(|| ALPHABET.into());
    if !is_alphabet(&alphabet) {
        let message = "alphabet must be 10 to 94 printable ASCII characters, none of them twice";
        return Err(ApiError::unprocessable(message).detail("field", "alphabet"));
    }
    Ok(Source::Generated { length, alphabet })
}

fn plan(policy: RotationPolicy) -> RotationPlan {
    let source = match policy.source {
        Source::Generated { length, alphabet } => {
            NewValueSource::Generated { length: Some(length), alphabet: Some(alphabet) }
        }
        Source::Command { name, old_value } => NewValueSource::Command { name, old_value },
    };
    RotationPlan { source, every_days: policy.every_days, grace_ms: policy.grace_ms }
}

fn no_plan(at: &EntryKey, needed: bool) -> ApiError {
    let message = format!("nothing says how {} is rotated", at.key);
    if needed {
        ApiError::conflict(format!("{message}; say it first: PUT …/rotation, or `llm-config secrets plan`"))
    } else {
        ApiError::not_found(message)
    }
}
