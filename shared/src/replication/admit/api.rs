//! Writes through the hub's API: they have seen the current row, so they follow it.

use std::collections::BTreeSet;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Entering, Planner};
use crate::entry::{Author, ChangeId, Content, HubRow};
use crate::name::{EntryKey, Tenant};
use crate::secret::{SealedSecret, Told};
use crate::stamp::{Hlc, Stamp};
use crate::store::{PlanningRequest, Repeat};
use crate::value::Value;
use crate::write::Base;

/// A caller's own name for a request, so that it may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepeatKey {
    pub batch: u64,
    pub request_hash: [u8; 32],
}

/// One request of the API: one change.
#[derive(Debug)]
pub struct ApiSubmission {
    pub tenant: Tenant,
    pub author: Author,
    /// Chosen outside; without, it follows from the first write ([`ChangeId::of_write`]).
    pub change: Option<ChangeId>,
    pub message: Option<Arc<str>>,
    pub operations: Vec<Operation>,
    /// All or nothing.
    pub atomic: bool,
    /// Judge, but change nothing.
    pub dry_run: bool,
    /// Only with a change of the caller's own.
    pub repeat: Option<RepeatKey>,
}

/// One entry to be changed.
#[derive(Debug)]
pub struct Operation {
    pub at: EntryKey,
    pub action: OpAction,
    /// The version that the caller saw; 0 for none.
    pub if_version: Option<u64>,
}

/// What is done to it.
#[derive(Debug)]
pub enum OpAction {
    Set {
        value: SetValue,
        tags: Option<Vec<Arc<str>>>,
        description: Option<Arc<str>>,
    },
    Delete,
    /// The content of an earlier version, as found in the history.
    Rollback {
        content: Content,
    },
}

/// A new value.
#[derive(Debug)]
pub enum SetValue {
    Plain {
        value: Value,
        /// Also where the entry holds a secret. Without it, a forgotten flag would put a secret into the clear.
        over_secret: bool,
    },
    Secret(NewSecret),
}

/// Plaintext on its way to being sealed: the version that it is bound to is only known to the planner.
pub struct NewSecret {
    pub plaintext: Zeroizing<Vec<u8>>,
    pub told: Told,
}

impl From<Zeroizing<Vec<u8>>> for NewSecret {
    /// Of which nothing is told.
    fn from(plaintext: Zeroizing<Vec<u8>>) -> Self {
        Self { plaintext, told: Told::default() }
    }
}

impl From<Vec<u8>> for NewSecret {
    fn from(plaintext: Vec<u8>) -> Self {
        Zeroizing::new(plaintext).into()
    }
}

impl std::fmt::Debug for NewSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewSecret({})", self.told.secret_type.as_str())
    }
}

/// Why one operation was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpRefused {
    #[error("the entry does not exist")]
    NotFound,
    #[error("the entry has version {current}, not {expected}")]
    VersionMismatch { expected: u64, current: u64 },
    #[error("the entry holds a secret, and the new value is not said to be one, or not to be one")]
    HoldsSecret,
    #[error("secrets cannot be sealed now")]
    Seal(#[from] SealUnavailable),
}

/// The keys for secrets are not at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the keys for secrets are not available")]
pub struct SealUnavailable;

/// Seals secrets for their place and version.
pub trait Sealer {
    /// # Errors
    /// When the keys are not at hand.
    fn seal(
        &mut self,
        at: &EntryKey,
        version: u64,
        plaintext: &[u8],
    ) -> Result<SealedSecret, SealUnavailable>;

    /// The same for a secret of which something is told.
    ///
    /// # Errors
    /// When the keys are not at hand, or this sealer knows of no such secrets.
    fn seal_told(
        &mut self,
        at: &EntryKey,
        version: u64,
        plaintext: &[u8],
        told: Told,
    ) -> Result<SealedSecret, SealUnavailable> {
        if told == Told::default() { self.seal(at, version, plaintext) } else { Err(SealUnavailable) }
    }

    /// The same secret for another version, with what is told of it.
    ///
    /// # Errors
    /// When the keys are not at hand.
    fn reseal(
        &mut self,
        at: &EntryKey,
        sealed: &SealedSecret,
        version: u64,
    ) -> Result<SealedSecret, SealUnavailable>;
}

/// What one operation did: the row afterwards.
pub type OpOutcome = Result<HubRow, OpRefused>;

impl ApiSubmission {
    /// Adds what planning it needs to `request`.
    pub fn needs(&self, request: &mut PlanningRequest) {
        request.keys.extend(self.operations.iter().map(|operation| operation.at.clone()));
        if let Some((change, repeat)) = self.change.zip(self.repeat) {
            request.repeats.push((self.tenant.clone(), change, repeat.batch));
        }
    }
}

impl Planner {
    /// The answer that was given to the same request before, if it was.
    pub fn repeated(&self, tenant: &Tenant, change: ChangeId, batch: u64) -> Option<&Repeat> {
        let same =
            |repeat: &&Repeat| repeat.tenant == *tenant && repeat.change == change && repeat.batch == batch;
        self.repeats.iter().chain(&self.known_repeats).find(same)
    }

    /// Keeps the answer for a repetition.
    pub fn remember(&mut self, repeat: Repeat) {
        self.repeats.push(repeat);
    }

    /// Judges a submission. With `atomic`, one refusal leaves everything undone; its outcome tells which.
    pub fn api(&mut self, submission: ApiSubmission, sealer: &mut impl Sealer) -> Vec<OpOutcome> {
        let undo = (submission.atomic || submission.dry_run).then(|| self.clone());
        let ApiSubmission { author, change, message, operations, .. } = submission;
        let change = change.unwrap_or_else(|| ChangeId::of_write(self.next_write_id()));
        let mut outcomes = Vec::with_capacity(operations.len());
        for operation in operations {
            outcomes.push(self.operation(operation, &author, change, message.as_ref(), sealer));
        }
        let refused = outcomes.iter().any(Result::is_err);
        if let Some(before) = undo
            && (submission.dry_run || refused)
        {
            *self = before;
        }
        outcomes
    }

    pub(super) fn operation(
        &mut self,
        operation: Operation,
        author: &Author,
        change: ChangeId,
        message: Option<&Arc<str>>,
        sealer: &mut impl Sealer,
    ) -> OpOutcome {
        let Operation { at, action, if_version } = operation;
        let current = self.rows.get(&at).filter(|row| row.row.content.is_live());
        let shown = current.map_or(0, |row| row.row.version);
        if let Some(expected) = if_version
            && expected != shown
        {
            return Err(OpRefused::VersionMismatch { expected, current: shown });
        }
        if matches!(action, OpAction::Delete) && current.is_none() {
            return Err(OpRefused::NotFound);
        }
        let uncovers =
            matches!(action, OpAction::Set { value: SetValue::Plain { over_secret: false, .. }, .. });
        if uncovers && current.is_some_and(|row| row.row.content.is_secret()) {
            return Err(OpRefused::HoldsSecret);
        }
        let version = self.next_version(&at);
        let rollback = matches!(action, OpAction::Rollback { .. });
        let (content, tags, description) = content(action, &at, version, sealer)?;
        let seen = self.rows.get(&at).map(|row| row.row.as_base());
        if let Some(Base { stamp, .. }) = seen {
            self.leader.clock.receive(stamp.hlc, Hlc::MAX);
        }
        let hlc = self.leader.clock.tick(self.physical);
        let entering = Entering {
            stamp: Stamp { hlc, id: self.hub_write_id() },
            claimed_hlc: None,
            content_hash: content.hash(),
            content,
            author: author.clone(),
            made_at: self.physical,
            message: message.cloned(),
            change,
            returned_in: None,
            tags,
            description,
            rollback,
            context: self.leader.vector(),
            base: seen,
            known: None,
            at,
        };
        Ok(self.win(entering, version).clone())
    }
}

type Contents = (Content, Option<Vec<Arc<str>>>, Option<Arc<str>>);

fn content(
    action: OpAction,
    at: &EntryKey,
    version: u64,
    sealer: &mut impl Sealer,
) -> Result<Contents, OpRefused> {
    Ok(match action {
        OpAction::Delete => (Content::Deleted, None, None),
        OpAction::Set { value: SetValue::Plain { value, .. }, tags, description } => {
            (Content::Plain(value), tags, description)
        }
        OpAction::Set { value: SetValue::Secret(NewSecret { plaintext, told }), tags, description } => {
            (Content::Secret(sealer.seal_told(at, version, &plaintext, told)?), tags, description)
        }
        OpAction::Rollback { content: Content::Secret(sealed) } => {
            (Content::Secret(sealer.reseal(at, &sealed, version)?), None, None)
        }
        OpAction::Rollback { content } => (content, None, None),
    })
}

/// The namespaces' environments for which keys must be at hand before planning.
impl ApiSubmission {
    /// Tenants and environments in which this submission seals something.
    pub fn seals_in(&self) -> BTreeSet<(Tenant, crate::name::Environment)> {
        let sealing = self.operations.iter().filter(|operation| {
            matches!(
                operation.action,
                OpAction::Set { value: SetValue::Secret(_), .. }
                    | OpAction::Rollback { content: Content::Secret(_) }
            )
        });
        sealing.map(|op| (op.at.scope.tenant.clone(), op.at.scope.environment.clone())).collect()
    }
}
