//! Writes that are made here: durable in the queue, answered with the hub's decision if it comes in time.

use std::sync::Arc;
use std::time::Duration;

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::{
    Answered, Bulk, BulkAction, BulkItem, BulkOperation, BulkOutcome, BulkResult, Call, DeleteEntry, Deleted,
    Entry, NewValue, Pending, SetEntry, Shown, Written,
};
use llm_config_shared::entry::{Author, ChangeId, Metadata};
use llm_config_shared::name::EntryKey;
use llm_config_shared::replication::edge::WriteRefused;
use llm_config_shared::store::replica::StoreError;
use llm_config_shared::value::Value;
use llm_config_shared::vector::Vector;
use llm_config_shared::write::{Action, Denial, Verdict};
use tokio::time::Instant;
use uuid::Uuid;

use super::forward::needs_hub;
use super::service::EdgeService;
use crate::daemon::handle::{NewWrite, Unanswered};
use crate::view::{Missing, View, Wanted};

/// A connected edge answers 200 within this time, or 202.
const DECISION_PATIENCE: Duration = Duration::from_secs(2);

/// What the hub made of a write, or where it waits.
enum Fate {
    Admitted { version: u64 },
    Waits(Pending),
}

impl EdgeService {
    pub(super) async fn set_here(
        &self,
        call: &Call,
        at: EntryKey,
        value: Value,
        request: &SetEntry,
    ) -> Result<Answered<Written>, ApiError> {
        let action = Action::Set {
            value: value.clone(),
            tags: request.tags.clone(),
            description: request.description.clone(),
        };
        let options = &request.options;
        let write = self.new_write(call, &at, action, options.claimed_user.clone(), options.message.clone());
        let (change, author) = (write.change, write.author.name.clone());
        let until = Instant::now() + DECISION_PATIENCE;
        match self.decide(write, until).await? {
            Fate::Waits(pending) => Ok(Answered::new(Written::Pending(pending)).of_change(change)),
            Fate::Admitted { version } => {
                self.seen(&at, until, |view| view.row(&at).is_some_and(|row| row.version >= version)).await;
                let (entry, position) = self.admitted(&at, version, value, request, author);
                Ok(Answered::new(Written::Applied(entry)).at(position).of_change(change))
            }
        }
    }

    pub(super) async fn delete_here(
        &self,
        call: &Call,
        at: EntryKey,
        request: &DeleteEntry,
    ) -> Result<Answered<Deleted>, ApiError> {
        if let Err(missing) = self.view.get(&exact(&at)) {
            // What this edge does not receive may be there all the same.
            if missing != Missing::NotReceived {
                return Err(missing.into());
            }
        }
        let options = &request.options;
        let write =
            self.new_write(call, &at, Action::Delete, options.claimed_user.clone(), options.message.clone());
        let change = write.change;
        let until = Instant::now() + DECISION_PATIENCE;
        match self.decide(write, until).await? {
            Fate::Waits(pending) => Ok(Answered::new(Deleted::Pending(pending)).of_change(change)),
            Fate::Admitted { .. } => {
                self.seen(&at, until, |view| view.row(&at).is_none()).await;
                Ok(Answered::new(Deleted::Applied).at(self.view.position()).of_change(change))
            }
        }
    }

    /// Without the hub there is no all-or-nothing, and no answer that could be repeated.
    pub(super) async fn bulk_here(
        &self,
        call: &Call,
        request: Bulk,
    ) -> Result<Answered<BulkResult>, ApiError> {
        if request.atomic || request.dry_run || request.own.is_some() {
            return Err(needs_hub().detail("hint", "with atomic=false the operations are queued one by one"));
        }
        let change = ChangeId(Uuid::new_v4());
        let mut results = Vec::with_capacity(request.operations.len());
        for operation in request.operations {
            let (claimed, message) = (request.claimed_user.clone(), request.message.clone());
            let outcome = self.queue(call, &operation, change, claimed, message).await;
            let outcome = outcome.unwrap_or_else(BulkOutcome::Failed);
            results.push(BulkItem { target: operation.target, outcome });
        }
        Ok(Answered::new(BulkResult { change: Some(change), dry_run: false, results }).of_change(change))
    }

    async fn queue(
        &self,
        call: &Call,
        operation: &BulkOperation,
        change: ChangeId,
        claimed: Option<Arc<str>>,
        message: Option<Arc<str>>,
    ) -> Result<BulkOutcome, ApiError> {
        let environment = self.environment(operation.target.environment.as_ref())?;
        let at = operation.target.at(self.view.tenant(), &environment);
        let action = match &operation.action {
            BulkAction::Delete => Action::Delete,
            BulkAction::Set { value: NewValue::Plain { value, .. }, tags, description } => {
                Action::Set { value: value.clone(), tags: tags.clone(), description: description.clone() }
            }
            BulkAction::Set { value: NewValue::Secret(_), .. } => return Err(needs_hub()),
        };
        if operation.if_version.is_some() {
            return Err(needs_hub());
        }
        let write = NewWrite { change, ..self.new_write(call, &at, action, claimed, message) };
        let last_version = self.last_version(&at);
        let queued = self.handle.write(write).await.map_err(refused)?;
        Ok(BulkOutcome::Pending { place: queued.place, last_version })
    }

    fn new_write(
        &self,
        call: &Call,
        at: &EntryKey,
        action: Action,
        claimed: Option<Arc<str>>,
        message: Option<Arc<str>>,
    ) -> NewWrite {
        let name = format!("edge:{}/{}", self.view.edge(), call.caller.name).into();
        let author = Author { name, claimed };
        NewWrite { at: at.clone(), action, author, message, change: ChangeId(Uuid::new_v4()) }
    }

    fn last_version(&self, at: &EntryKey) -> u64 {
        self.view.row(at).map_or(0, |row| row.version)
    }

    /// Makes the write durable, and waits for the hub while it is there.
    async fn decide(&self, write: NewWrite, until: Instant) -> Result<Fate, ApiError> {
        let at = write.at.clone();
        let last_version = self.last_version(&at);
        let connected = self.view.is_connected();
        let queued = self.handle.write(write).await.map_err(refused)?;
        let waits = Fate::Waits(Pending { at, place: queued.place, last_version });
        if !connected {
            return Ok(waits);
        }
        match queued.decided(until.saturating_duration_since(Instant::now())).await {
            // Not decided, or not under the number that it had: it waits.
            None | Some(Verdict::Reidentify) => Ok(waits),
            Some(Verdict::Admitted { version }) => Ok(Fate::Admitted { version }),
            Some(Verdict::Duplicate) => Ok(Fate::Admitted { version: last_version }),
            Some(Verdict::Lost { version, to }) => Err(ApiError::conflict(
                "another write of this entry was made at the same time and counts; yours is kept in the history",
            )
            .detail("version", version)
            .detail("winner_version", to)
            .detail("status", "superseded_concurrent")),
            Some(Verdict::Held(reason)) => {
                Err(ApiError::conflict(format!("the hub holds this write for a person to decide: {reason}"))
                    .detail("status", "held"))
            }
            Some(Verdict::Denied(reason)) => Err(denied(reason)),
        }
    }

    /// Gives readers here the time that is left to see what was admitted.
    async fn seen(&self, at: &EntryKey, until: Instant, seen: impl Fn(&View) -> bool) {
        let scope = &at.scope;
        if self.view.reached(&scope.environment, &scope.namespace).is_some() {
            self.view.wait_until(until.saturating_duration_since(Instant::now()), seen).await;
        }
    }

    /// The entry as the replica holds it now, or, where that has not come back, as it was sent.
    fn admitted(
        &self,
        at: &EntryKey,
        version: u64,
        value: Value,
        request: &SetEntry,
        author: Arc<str>,
    ) -> (Entry, Vector) {
        if let Some(row) = self.view.row(at).filter(|row| row.version >= version)
            && let Ok(answered) = self.view.get(&exact(at))
        {
            return (answered.value, Vector::at(row.dot.shard, row.dot.position));
        }
        let now = self.clock.wall();
        let metadata = Metadata {
            created_at: now,
            created_by: author.clone(),
            updated_at: now,
            updated_by: author,
            tags: request.tags.clone().unwrap_or_default(),
            description: request.description.clone(),
        };
        let before = self.view.row(at).map(|row| row.metadata.clone());
        let metadata = match before {
            Some(before) => {
                Metadata { created_at: before.created_at, created_by: before.created_by, ..metadata }
            }
            None => metadata,
        };
        let value = Shown::Plain(value);
        (
            Entry { at: at.clone(), origin: None, value, version, metadata, told: None, pending: false },
            self.view.position(),
        )
    }
}

fn exact(at: &EntryKey) -> Wanted<'_> {
    Wanted {
        environment: &at.scope.environment,
        namespace: &at.scope.namespace,
        key: &at.key,
        resolve: false,
        reveal: false,
    }
}

fn denied(reason: Denial) -> ApiError {
    match reason {
        Denial::Namespace => ApiError::forbidden(reason.to_string()),
        Denial::Environment => ApiError::bad_request(reason.to_string()).detail("field", "env"),
        Denial::Reused | Denial::Policy => ApiError::conflict(reason.to_string()),
    }
}

fn refused(error: Unanswered) -> ApiError {
    let Unanswered::Refused(reason) = error else { return ApiError::unavailable(error.to_string(), 1) };
    let message = reason.to_string();
    match reason {
        WriteRefused::Namespace(_) => ApiError::forbidden(message).detail("field", "namespace"),
        WriteRefused::Environment(environment) => ApiError::unknown_environment(&environment),
        WriteRefused::Secret => needs_hub(),
        WriteRefused::Full { waiting } => ApiError::unavailable(message, 60).detail("pending", waiting),
        WriteRefused::Store(StoreError::Full) => {
            ApiError::unavailable("the disk of this edge is full: nothing can be written, reads go on", 60)
        }
        WriteRefused::Store(StoreError::Io(_) | StoreError::Corrupt(_)) => {
            ApiError::unavailable("the disk of this edge failed: nothing can be written, reads go on", 60)
        }
    }
}
