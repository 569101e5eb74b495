//! Rotation of secrets' values: by the process that leads, in steps that are written down, each of which may be done again.
//!
//! A rotation's id is also the id of the change that it writes, under which the writer writes once whatever happens: who
//! goes on after a crash finds either nothing written, and produces a value again, or the version that was written. So a
//! generated value is written exactly once. A command may be run again when the hub died between its end and the write;
//! it is told the rotation's id to know that by.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use llm_config_shared::entry::{Author, Content, HubRow, Row, Status};
use llm_config_shared::name::EntryKey;
use llm_config_shared::replication::admit::{
    ApiSubmission, NewSecret, OpAction, OpOutcome, OpRefused, Operation, RepeatKey, SetValue,
};
use llm_config_shared::rotation::{Found, Next, Rotation, Step};
use llm_config_shared::secret::Told;
use llm_config_shared::store::{Journal, JournalError};
use llm_config_shared::time::UnixMillis;
use ring::rand::SystemRandom;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::processes::Role;
use crate::receipts;
use crate::registry::{ExposedPlan, Registry, RotationPolicy, Source};
use crate::secrets::{SecretError, SecretStore, examined};
use crate::sync::roster::Roster;
use crate::writer::{RenderAnswer, WriteError, WriterHandle, Written};

mod command;
pub mod produce;
pub mod webhook;

use produce::NotProduced;
use webhook::Webhook;

/// Who writes, in every history.
const AUTHOR: &str = "rotation";
const DAY_MS: u64 = 86_400_000;
/// How often it is looked what is due and who uses what.
pub const CHECK_EVERY: Duration = Duration::from_secs(10);

/// Programs with their arguments, by the name that policies use.
pub type Commands = BTreeMap<String, Vec<String>>;

/// Services, by the name that policies use: no command has the same.
pub type Webhooks = BTreeMap<String, Webhook>;

/// Rotates.
pub struct Rotator<S> {
    store: Arc<S>,
    secrets: Arc<SecretStore<S>>,
    writer: WriterHandle,
    roster: Arc<Roster>,
    commands: Commands,
    webhooks: Webhooks,
    /// Somebody asks for a rotation now.
    wake: Arc<Notify>,
    check_every: Duration,
}

/// Why a step was not done now. It is tried again.
#[derive(Debug, thiserror::Error)]
enum NotNow {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Produced(#[from] NotProduced),
}

/// A rotation of this entry, from this version on.
pub fn begun(at: EntryKey, by: Arc<str>, old_version: u64, now: UnixMillis) -> Rotation {
    Rotation::begun(Uuid::now_v7(), at, by, old_version, now)
}

/// When a plan rotates its secret: so many days after the current version was written, by whomever.
pub fn due_at(policy: &RotationPolicy, row: &Row) -> Option<UnixMillis> {
    let days = policy.every_days.filter(|_| row.content.is_secret())?;
    Some(UnixMillis(row.metadata.updated_at.0.saturating_add(days * DAY_MS)))
}

impl<S: Journal + Registry> Rotator<S> {
    /// Over the hub's parts; `wake` is told when somebody asks for a rotation.
    pub fn new(
        config: &Config,
        store: &Arc<S>,
        secrets: &Arc<SecretStore<S>>,
        writer: &WriterHandle,
        roster: &Arc<Roster>,
        wake: &Arc<Notify>,
    ) -> Self {
        let settings = &config.secrets.rotation;
        Self {
            store: Arc::clone(store),
            secrets: Arc::clone(secrets),
            writer: writer.clone(),
            roster: Arc::clone(roster),
            commands: settings.commands.clone(),
            webhooks: settings.webhooks.clone(),
            wake: Arc::clone(wake),
            check_every: settings.check_every,
        }
    }

    /// Looks what is to be done at once, and then again and again until `stop`.
    pub async fn keep(self, clock: impl Fn() -> UnixMillis, stop: CancellationToken) {
        let passes = async {
            loop {
                if self.writer.role() == Role::Leading
                    && let Err(error) = self.pass(clock()).await
                {
                    tracing::warn!(%error, "could not look for secrets to rotate");
                }
                let _ = tokio::time::timeout(self.check_every, self.wake.notified()).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = passes => {}
        }
    }

    async fn pass(&self, now: UnixMillis) -> Result<(), JournalError> {
        // First of all what a stranger may hold.
        for ExposedPlan { at, version, edge } in self.store.exposed_plans().await? {
            let rotation = begun(at, format!("loss of edge {edge}").into(), version, now);
            self.store.begin_rotation(&rotation).await?;
        }
        for policy in self.store.timed_rotation_policies().await? {
            if let Some(rotation) = self.due(&policy, now).await? {
                self.store.begin_rotation(&rotation).await?;
            }
        }
        for rotation in self.store.rotations_under_way().await? {
            let step = match rotation.step {
                Step::Begun if rotation.again_at > now => continue,
                Step::Begun => self.write(&rotation, now).await,
                Step::Written => self.retire(&rotation, now).await,
                Step::Retired | Step::Failed => continue,
            };
            if let Err(error) = step {
                self.later(rotation, &error, now).await?;
            }
        }
        Ok(())
    }

    async fn row(&self, at: &EntryKey) -> Result<Option<HubRow>, JournalError> {
        Ok(self.store.entries(std::slice::from_ref(at)).await?.value.into_iter().flatten().next())
    }

    /// A rotation whose time has come.
    async fn due(&self, policy: &RotationPolicy, now: UnixMillis) -> Result<Option<Rotation>, JournalError> {
        let Some(HubRow { row, .. }) = self.row(&policy.at).await? else { return Ok(None) };
        let due = due_at(policy, &row).is_some_and(|at| at <= now);
        Ok(due.then(|| begun(policy.at.clone(), "schedule".into(), row.version, now)))
    }

    async fn write(&self, rotation: &Rotation, now: UnixMillis) -> Result<(), NotNow> {
        let policy = self.store.rotation_policy(&rotation.at).await?;
        let wrote = self.written_before(rotation).await?;
        let current = self.row(&rotation.at).await?.map(|row| row.row);
        let current = current.and_then(|row| match row.content {
            Content::Secret(sealed) => Some((row.at, row.version, sealed)),
            Content::Plain(_) | Content::Deleted => None,
        });
        let version = current.as_ref().map(|(_, version, _)| *version);
        match rotation.next(Found { wrote, planned: policy.is_some(), current: version }) {
            Next::Note(version) => return self.written(rotation, policy.as_ref(), version, now).await,
            Next::GiveUp(why) => return self.fail(rotation, why).await,
            Next::Write => {}
        }
        let (Some(policy), Some((row, _, sealed))) = (policy, current) else {
            return self.fail(rotation, Rotation::OVERTAKEN).await;
        };
        let old = self.secrets.open(&row, &sealed).await?;
        let secret_type = sealed.about.told.secret_type;
        let new = self.produce(rotation, &policy.source, secret_type, &old, now).await?;
        let told = examined(&new, Told { secret_type, expires_at: None });
        let told = told.map_err(|invalid| NotProduced::Invalid(invalid.to_string()))?;
        match self.submit(rotation, &new, told).await? {
            Some(version) => self.written(rotation, Some(&policy), version, now).await,
            None => self.fail(rotation, Rotation::OVERTAKEN).await,
        }
    }

    /// What this rotation has written, if the step after that was not written down.
    async fn written_before(&self, rotation: &Rotation) -> Result<Option<u64>, JournalError> {
        let found = self.store.change(&rotation.at.scope.tenant, rotation.change()).await?;
        let rows = found.map(|(_, rows)| rows).unwrap_or_default();
        let applied = |status| matches!(status, Status::Applied | Status::SupersededConcurrent);
        Ok(rows.iter().find(|row| row.at == rotation.at && applied(row.status)).map(|row| row.version))
    }

    async fn produce(
        &self,
        rotation: &Rotation,
        source: &Source,
        secret_type: llm_config_shared::secret::SecretType,
        old: &[u8],
        now: UnixMillis,
    ) -> Result<Zeroizing<String>, NotProduced> {
        let old = std::str::from_utf8(old).map_err(|_| NotProduced::Document)?;
        match source {
            Source::Generated { length, alphabet } => {
                produce::generated(secret_type, old, *length, alphabet, &SystemRandom::new())
            }
            Source::Command { name, old_value } => {
                let mut told = json!({
                    "rotation": rotation.id.to_string(),
                    "namespace": rotation.at.scope.namespace.as_str(),
                    "key": rotation.at.key.as_str(),
                    "environment": rotation.at.scope.environment.as_str(),
                    "secret_type": secret_type.as_str(),
                });
                if *old_value {
                    told["old_value"] = old.into();
                }
                if let Some(webhook) = self.webhooks.get(&**name) {
                    told["type"] = "secret.rotate".into();
                    told["phase"] = "create".into();
                    told["tenant"] = rotation.at.scope.tenant.as_str().into();
                    let told = Zeroizing::new(told.to_string().into_bytes());
                    return Box::pin(webhook::ask(name, webhook, rotation.id, told, now)).await;
                }
                let words =
                    self.commands.get(&**name).ok_or_else(|| NotProduced::NoCommand(Arc::clone(name)))?;
                command::run(name, words, Zeroizing::new(format!("{told}\n").into_bytes())).await
            }
        }
    }

    /// Writes the value, unless this rotation has written one: its version, or none when the entry was changed.
    async fn submit(&self, rotation: &Rotation, new: &str, told: Told) -> Result<Option<u64>, WriteError> {
        let plaintext = Zeroizing::new(new.as_bytes().to_vec());
        let value = SetValue::Secret(NewSecret { plaintext, told });
        let submission = ApiSubmission {
            tenant: rotation.at.scope.tenant.clone(),
            author: Author { name: AUTHOR.into(), claimed: Some(Arc::clone(&rotation.by)) },
            change: Some(rotation.change()),
            message: Some("rotation".into()),
            operations: vec![Operation {
                at: rotation.at.clone(),
                action: OpAction::Set { value, tags: None, description: None },
                if_version: Some(rotation.old_version),
            }],
            atomic: true,
            dry_run: false,
            // The value is another at each attempt; what must happen once is the rotation.
            repeat: Some(RepeatKey { batch: 0, request_hash: hash(rotation.id) }),
        };
        let render: RenderAnswer = Box::new(|outcomes| version_of(outcomes).unwrap_or(0).to_string().into());
        match self.writer.write(submission, Some(render)).await? {
            Written::Now { outcomes, .. } => match outcomes.first() {
                Some(Err(OpRefused::Seal(_))) => Err(WriteError::Unavailable),
                _ => Ok(version_of(&outcomes)),
            },
            Written::Before { answer, .. } => Ok(answer.parse().ok().filter(|version| *version > 0)),
        }
    }

    async fn written(
        &self,
        rotation: &Rotation,
        policy: Option<&RotationPolicy>,
        version: u64,
        now: UnixMillis,
    ) -> Result<(), NotNow> {
        let written = rotation.written(version, policy.map_or(0, |policy| policy.grace_ms), now);
        if self.store.step_rotation(&written, Step::Begun).await? {
            metrics::counter!("secret_rotations_total", "outcome" => "written").increment(1);
            tracing::info!(rotation = %rotation.id, entry = %rotation.at.id(), version, "a secret was rotated");
        }
        Ok(())
    }

    /// The old version is not needed any more once everything uses the new one, or when its time is over.
    async fn retire(&self, rotation: &Rotation, now: UnixMillis) -> Result<(), NotNow> {
        let tenant = &rotation.at.scope.tenant;
        let found = receipts::of_change(&*self.store, &self.roster, tenant, rotation.change()).await?;
        let in_use = found.is_some_and(|receipts| receipts.in_use());
        let Some(why) = rotation.over(in_use, now) else { return Ok(()) };
        Ok(retire(&*self.store, rotation, why, now).await.map(drop)?)
    }

    async fn fail(&self, rotation: &Rotation, why: &str) -> Result<(), NotNow> {
        if self.store.step_rotation(&rotation.failed(why), Step::Begun).await? {
            metrics::counter!("secret_rotations_total", "outcome" => "failed").increment(1);
            tracing::warn!(rotation = %rotation.id, entry = %rotation.at.id(), why, "a rotation was given up");
        }
        Ok(())
    }

    /// Stays at its step, and says what went wrong.
    async fn later(&self, rotation: Rotation, error: &NotNow, now: UnixMillis) -> Result<(), JournalError> {
        metrics::counter!("secret_rotations_total", "outcome" => "put_off").increment(1);
        tracing::warn!(rotation = %rotation.id, entry = %rotation.at.id(), %error, "a rotation has to wait");
        let step = rotation.step;
        let later = rotation.put_off(&error.to_string(), now);
        self.store.step_rotation(&later, step).await.map(drop)
    }
}

/// Says that the old version of a rotation is not needed any more; false when that was said before.
///
/// # Errors
/// When the database cannot be used.
pub async fn retire<R: Registry>(
    registry: &R,
    rotation: &Rotation,
    why: &str,
    now: UnixMillis,
) -> Result<bool, JournalError> {
    let done = registry.step_rotation(&rotation.retired(why, now), Step::Written).await?;
    if done {
        metrics::counter!("secret_rotations_total", "outcome" => "retired").increment(1);
        tracing::info!(rotation = %rotation.id, entry = %rotation.at.id(), version = rotation.old_version, why,
            "the old version of a rotated secret is not needed any more");
    }
    Ok(done)
}

fn version_of(outcomes: &[OpOutcome]) -> Option<u64> {
    outcomes.first()?.as_ref().ok().map(|row| row.row.version)
}

fn hash(id: Uuid) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, id.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
