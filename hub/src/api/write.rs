//! Writing one entry: set, delete, roll back. What a write does is decided by the writer, which knows the current row.

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::{
    Answered, Caller, DeleteEntry, Deleted, Entry, NewValue, RollbackEntry, SetEntry, Shown, Target,
    WriteOptions, Written,
};
use llm_config_shared::entry::{Author, Content, HubRow};
use llm_config_shared::limits::VALUE_BYTES_MAX;
use llm_config_shared::name::EntryKey;
use llm_config_shared::replication::admit::{
    ApiSubmission, NewSecret, OpAction, OpRefused, Operation, SetValue,
};
use llm_config_shared::store::Journal;
use llm_config_shared::vector::Vector;
use zeroize::Zeroizing;

use super::Api;
use super::read::purged;
use crate::guard;
use crate::registry::Registry;
use crate::secrets::examined;
use crate::writer::{self, WriteError};

impl<S: Journal + Registry> Api<S> {
    pub(super) async fn set_one(
        &self,
        caller: &Caller,
        request: SetEntry,
    ) -> Result<Answered<Written>, ApiError> {
        let at = self.writable(caller, &request.target).await?;
        let SetEntry { value, tags, description, options, .. } = request;
        let action = OpAction::Set { value: new_value(value)?, tags, description };
        let written = self.write_one(caller, at, action, options).await?;
        Ok(mapped(written, |row| Written::Applied(applied(row))))
    }

    pub(super) async fn delete_one(
        &self,
        caller: &Caller,
        request: DeleteEntry,
    ) -> Result<Answered<Deleted>, ApiError> {
        let at = self.writable(caller, &request.target).await?;
        let written = self.write_one(caller, at, OpAction::Delete, request.options).await?;
        Ok(mapped(written, |_| Deleted::Applied))
    }

    pub(super) async fn roll_back_one(
        &self,
        caller: &Caller,
        request: RollbackEntry,
    ) -> Result<Answered<Written>, ApiError> {
        let at = self.writable(caller, &request.target).await?;
        let content = self.past(&at, request.version).await?.content;
        if content.is_purged() {
            return Err(purged(&at, request.version));
        }
        if !content.is_live() {
            let version = request.version;
            return Err(ApiError::unprocessable(format!(
                "version {version} of {} is a deletion; delete the entry instead",
                at.key
            )));
        }
        let action = OpAction::Rollback { content };
        let written = self.write_one(caller, at, action, request.options).await?;
        Ok(mapped(written, |row| Written::Applied(applied(row))))
    }

    /// The place of an entry that the caller may write.
    pub(super) async fn writable(&self, caller: &Caller, target: &Target) -> Result<EntryKey, ApiError> {
        guard::may_write(caller, &target.namespace)?;
        let (_, environment) = self.environment(caller, target.environment.as_ref()).await?;
        Ok(target.at(&caller.tenant, &environment))
    }

    /// Refuses a secret that cannot be sealed now, with the reason, before the writer is asked to.
    pub(super) async fn sealable(&self, at: &EntryKey, action: &OpAction) -> Result<(), ApiError> {
        if matches!(action, OpAction::Set { value: SetValue::Secret(_), .. }) {
            self.parts.secrets.ready_to_seal(&at.scope.tenant, &at.scope.environment).await?;
        }
        Ok(())
    }

    async fn write_one(
        &self,
        caller: &Caller,
        at: EntryKey,
        action: OpAction,
        options: WriteOptions,
    ) -> Result<Answered<HubRow>, ApiError> {
        let refused_at = at.clone();
        self.sealable(&at, &action).await?;
        let submission = ApiSubmission {
            tenant: caller.tenant.clone(),
            author: Author { name: caller.name.clone(), claimed: options.claimed_user },
            change: None,
            message: options.message,
            operations: vec![Operation { at, action, if_version: options.if_version }],
            atomic: false,
            dry_run: false,
            repeat: None,
        };
        let outcomes = match self.parts.writer.write(submission, None).await.map_err(not_judged)? {
            writer::Written::Now { outcomes, .. } => outcomes,
            writer::Written::Before { .. } => unreachable!("a request without a name is not repeated"),
        };
        let outcome = outcomes.into_iter().next().expect("one operation has one outcome");
        let row = outcome.map_err(|refused| refusal(&refused_at, &refused))?;
        let position = Vector::at(row.row.dot.shard, row.row.dot.position);
        let change = row.row.change;
        Ok(Answered::new(row).at(position).of_change(change))
    }
}

/// What the planner takes for a caller's value.
pub(super) fn new_value(value: NewValue) -> Result<SetValue, ApiError> {
    match value {
        NewValue::Plain { value, over_secret } => Ok(SetValue::Plain { value, over_secret }),
        NewValue::Secret(secret) if secret.text.len() > VALUE_BYTES_MAX => {
            let length = secret.text.len();
            let message = format!("value has {length} bytes; at most {VALUE_BYTES_MAX} are allowed");
            Err(ApiError::too_large(message).detail("field", "value").detail("limit", VALUE_BYTES_MAX))
        }
        NewValue::Secret(secret) => {
            let told = examined(&secret.text, secret.told).map_err(|invalid| {
                ApiError::unprocessable(invalid.to_string()).detail("field", invalid.field())
            })?;
            let plaintext = Zeroizing::new(secret.text.as_bytes().to_vec());
            Ok(SetValue::Secret(NewSecret { plaintext, told }))
        }
    }
}

fn mapped<T, U>(answered: Answered<T>, value: impl FnOnce(T) -> U) -> Answered<U> {
    let Answered { value: before, position, change, freshness } = answered;
    Answered { value: value(before), position, change, freshness }
}

fn applied(row: HubRow) -> Entry {
    let row = row.row;
    let told = row.content.told();
    let value = match row.content {
        Content::Plain(value) => Shown::Plain(value),
        Content::Secret(_) | Content::Deleted => Shown::Masked,
    };
    Entry {
        at: row.at,
        origin: None,
        value,
        version: row.version,
        metadata: row.metadata,
        told,
        pending: false,
    }
}

/// Why the writer did not do one operation, for its caller.
pub(super) fn refusal(at: &EntryKey, refused: &OpRefused) -> ApiError {
    match refused {
        OpRefused::NotFound => ApiError::not_found(format!(
            "there is no {} in namespace {} and environment {}",
            at.key, at.scope.namespace, at.scope.environment
        )),
        OpRefused::VersionMismatch { expected, current } => ApiError::version_mismatch(*expected, *current),
        OpRefused::HoldsSecret => ApiError::conflict(
            "the entry holds a secret: send secret: true to replace it by another, or secret: false to make it plain",
        )
        .detail("field", "secret"),
        OpRefused::Seal(_) => ApiError::unavailable("secrets cannot be sealed at the moment", 5),
    }
}

/// Why the writer judged nothing, for its caller.
pub(super) fn not_judged(error: WriteError) -> ApiError {
    let message = error.to_string();
    match error {
        WriteError::Busy | WriteError::Moved | WriteError::Unavailable | WriteError::Stopping => {
            ApiError::unavailable(message, 1)
        }
        WriteError::Reused => ApiError::conflict(message).detail("field", "batch"),
    }
}
