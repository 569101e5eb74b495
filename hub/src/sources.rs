//! Namespaces that follow a KV store of Vault: what changes there becomes an ordinary change of secrets here.
//!
//! Whoever leads looks at the versions now and then and reads what has a new one. A source deletes only what it wrote
//! itself, and nothing at all where everything is gone at once: that is a wrong path more often than an intention. While
//! Vault is away nothing changes; what is here stays and is served, and /health says why it may be old.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use llm_config_shared::entry::{Author, Content, HubRow};
use llm_config_shared::name::{EntryKey, Key, Scope, Subtree};
use llm_config_shared::replication::admit::{ApiSubmission, OpAction, OpOutcome, Operation, SetValue};
use llm_config_shared::store::{Journal, JournalError, Listing};
use tokio_util::sync::CancellationToken;

use crate::config::Source;
use crate::processes::Role;
use crate::registry::Registry;
use crate::secrets::vault::Vault;
use crate::secrets::vault::kv::{KvError, KvVersion};
use crate::secrets::{SecretError, SecretStore};
use crate::writer::{WriteError, WriterHandle, Written};

mod through;

/// Entries of a namespace.
type Rows = BTreeMap<Key, HubRow>;

/// Most rows that are looked at to find what a source wrote before.
const ROWS_MAX: usize = 2_000;
/// Writes of one submission.
const BATCH: usize = 200;

/// Why a look came to nothing, or not to its end.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("there is nothing at {0} any more; what came from there stays until something is there again")]
    Empty(String),
    #[error("{count} of the secrets have no name that a key can have, {first} for one")]
    Names { count: usize, first: String },
    #[error("{0} of the secrets could not be written; the hub's log says why")]
    Refused(usize),
}

impl LookError {
    /// For /health, which anybody may ask: no paths and no names of secrets.
    fn told(&self) -> &'static str {
        match self {
            Self::Kv(KvError::Vault(_)) => "Vault cannot be used",
            Self::Kv(KvError::Denied(_)) => "Vault denies the hub what it is to follow",
            Self::Empty(_) => "there is nothing in Vault any more, and nothing is deleted here for that",
            Self::Kv(KvError::TooMany(_) | KvError::NoKv2(_) | KvError::NoText(_))
            | Self::Journal(_)
            | Self::Secret(_)
            | Self::Write(_)
            | Self::Names { .. }
            | Self::Refused(_) => "not all of it could be taken over; the hub's log says why",
        }
    }
}

/// One source, followed by this process while it leads.
pub(crate) struct Follower<S> {
    pub(crate) source: Source,
    pub(crate) vault: Arc<Vault>,
    pub(crate) journal: Arc<S>,
    pub(crate) secrets: Arc<SecretStore<S>>,
    pub(crate) writer: WriterHandle,
}

impl<S: Journal + Registry> Follower<S> {
    /// Follows until `stop`.
    pub(crate) async fn keep(self, stop: CancellationToken) {
        let mut seen = BTreeMap::new();
        loop {
            let pause = self.source.every.mul_f64(0.8 + rand::random::<f64>() * 0.4);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.turn(&mut seen) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause.max(Duration::from_millis(500))) => {}
            }
        }
    }

    async fn turn(&self, seen: &mut BTreeMap<String, KvVersion>) {
        if !matches!(self.writer.role(), Role::Leading) {
            // Whoever leads next begins with a comparison of everything.
            seen.clear();
            self.secrets.note_trouble(&self.source.name, None);
            return;
        }
        let outcome = if self.source.write_through { self.reconcile().await } else { self.look(seen).await };
        let status = if outcome.is_ok() { "success" } else { "error" };
        metrics::counter!("vault_source_looks_total", "status" => status).increment(1);
        let trouble = outcome.err().map(|error| {
            tracing::warn!(source = %self.source.name, %error, "a source cannot be followed");
            format!("source {}: {}", self.source.name, error.told())
        });
        self.secrets.note_trouble(&self.source.name, trouble);
    }

    /// Takes over what has changed since `seen`.
    async fn look(&self, seen: &mut BTreeMap<String, KvVersion>) -> Result<(), LookError> {
        let Source { mount, path, .. } = &self.source;
        let listed = self.vault.kv_list(mount, path).await?;
        let mut rows = self.own_rows().await?;
        if listed.is_empty() && !rows.is_empty() {
            return Err(LookError::Empty(format!("{mount}/{path}")));
        }
        let (mut operations, mut came, mut odd) = (Vec::new(), BTreeMap::new(), Vec::new());
        for name in listed {
            let Ok(key) = Key::parse(&name) else {
                odd.push(name);
                continue;
            };
            let (row, at) = (rows.remove(&key), format!("{path}/{name}"));
            let version = self.vault.kv_version(mount, &at).await?;
            let action = match version.filter(|version| version.live) {
                None => row.map(|_| OpAction::Delete),
                Some(version) if seen.get(&name) == Some(&version) => None,
                Some(version) => self.new_value(&key, &at, version).await?,
            };
            operations.extend(action.map(|action| self.operation(key, action)));
            if let Some(version) = version {
                came.insert(name, version);
            }
        }
        // Not listed any more: gone with all of its versions.
        operations.extend(rows.into_keys().map(|key| self.operation(key, OpAction::Delete)));
        self.write(operations).await?;
        *seen = came;
        match odd.first() {
            Some(first) => Err(LookError::Names { count: odd.len(), first: first.clone() }),
            None => Ok(()),
        }
    }

    /// What a version brings; none where that is here already.
    async fn new_value(
        &self,
        key: &Key,
        at: &str,
        version: KvVersion,
    ) -> Result<Option<OpAction>, LookError> {
        let value = self.vault.kv_read(&self.source.mount, at, version.number).await?;
        let Some(value) = value else { return Ok(None) };
        if self.holds(key, &value).await? {
            return Ok(None);
        }
        Ok(Some(OpAction::Set { value: SetValue::Secret(value.into()), tags: None, description: None }))
    }

    fn author(&self) -> String {
        format!("vault:{}/{}", self.source.mount, self.source.path)
    }

    fn scope(&self) -> Scope {
        let Source { tenant, namespace, environment, .. } = self.source.clone();
        Scope { tenant, namespace, environment }
    }

    fn operation(&self, key: Key, action: OpAction) -> Operation {
        Operation { at: EntryKey { scope: self.scope(), key }, action, if_version: None }
    }

    /// What this source wrote before and is still there.
    async fn own_rows(&self) -> Result<Rows, LookError> {
        let (author, mut rows) = (self.author(), self.rows().await?);
        rows.retain(|_, row| *row.row.metadata.updated_by == *author);
        Ok(rows)
    }

    /// What there is in the namespace.
    async fn rows(&self) -> Result<Rows, LookError> {
        let (mut after, mut all) = (None, BTreeMap::new());
        loop {
            let listing = Listing {
                tenant: self.source.tenant.clone(),
                environment: self.source.environment.clone(),
                subtree: Subtree::of(self.source.namespace.clone()),
                recursive: false,
                key_prefix: None,
                after,
                limit: ROWS_MAX,
            };
            let rows = self.journal.list(&listing).await?.value;
            let last = rows.last().map(|row| (row.row.at.scope.namespace.clone(), row.row.at.key.clone()));
            let whole = rows.len() < ROWS_MAX;
            all.extend(rows.into_iter().map(|row| (row.row.at.key.clone(), row)));
            if whole {
                return Ok(all);
            }
            after = last;
        }
    }

    /// Whether the entry is this secret already: a version that was seen before a restart is not written twice.
    async fn holds(&self, key: &Key, value: &[u8]) -> Result<bool, LookError> {
        let at = EntryKey { scope: self.scope(), key: key.clone() };
        let row = self.journal.entries(std::slice::from_ref(&at)).await?.value.into_iter().next().flatten();
        match row.map(|row| row.row.content) {
            Some(Content::Secret(sealed)) => Ok(self.secrets.open(&at, &sealed).await?.as_slice() == value),
            Some(Content::Plain(_) | Content::Deleted) | None => Ok(false),
        }
    }

    async fn write(&self, mut operations: Vec<Operation>) -> Result<(), LookError> {
        let mut refused = BTreeSet::new();
        while !operations.is_empty() {
            let later = operations.split_off(operations.len().min(BATCH));
            let written = self.write_batch(operations).await?;
            refused.extend(written.into_iter().filter_map(|(key, version)| version.is_none().then_some(key)));
            operations = later;
        }
        if refused.is_empty() { Ok(()) } else { Err(LookError::Refused(refused.len())) }
    }

    /// The version that each became; none where it was refused, which the log says.
    async fn write_batch(&self, operations: Vec<Operation>) -> Result<Vec<(Key, Option<u64>)>, LookError> {
        let Source { tenant, environment, .. } = &self.source;
        if operations.iter().any(|operation| !matches!(operation.action, OpAction::Delete)) {
            self.secrets.ready_to_seal(tenant, environment).await?;
        }
        let keys: Vec<Key> = operations.iter().map(|operation| operation.at.key.clone()).collect();
        let submission = ApiSubmission {
            tenant: tenant.clone(),
            author: Author { name: self.author().into(), claimed: None },
            change: None,
            message: None,
            operations,
            atomic: false,
            dry_run: false,
            repeat: None,
        };
        let Written::Now { outcomes, .. } = self.writer.write(submission, None).await? else {
            return Ok(Vec::new());
        };
        let version = |(key, outcome): (Key, OpOutcome)| match outcome {
            Ok(row) => (key, Some(row.row.version)),
            Err(error) => {
                tracing::warn!(source = %self.source.name, %key, %error, "a secret was not taken over");
                (key, None)
            }
        };
        Ok(keys.into_iter().zip(outcomes).map(version).collect())
    }
}
