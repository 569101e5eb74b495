//! The REST API's services: what each route does, over the journal, the registry and the writer.
//!
//! Nothing here decides who may do what: that is asked of the guard.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::{Answer, Answered, Caller, Demand, Shown};
use llm_config_shared::entry::Content;
use llm_config_shared::feed::Environments;
use llm_config_shared::name::{EntryKey, Environment};
use llm_config_shared::store::Journal;
use llm_config_shared::vector::Vector;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::config::Mode;
use crate::guard::{self, Guard};
use crate::identity::Identity;
use crate::identity::repeats::RepeatMac;
use crate::processes::line::Line;
use crate::registry::Registry;
use crate::secrets::SecretStore;
use crate::sync::roster::Roster;
use crate::tail::Tail;
use crate::telemetry::Metrics;
use crate::writer::WriterHandle;

mod admin;
mod bulk;
mod carry;
mod changes;
mod configs;
mod conflicts;
mod edges;
mod environments;
mod events;
mod explain;
mod held_changes;
mod history;
mod list;
mod losses;
mod policies;
mod read;
mod receipts;
mod regions;
mod rotations;
mod subscriptions;
#[cfg(test)]
mod tests;
mod tokens;
mod undo;
mod unsealed;
mod write;

use environments::KnownEnvironments;

/// How long a read waits for a position that the hub has not come to.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// What the API is made of.
pub struct Parts<S> {
    pub store: Arc<S>,
    pub writer: WriterHandle,
    pub secrets: Arc<SecretStore<S>>,
    pub repeats: RepeatMac,
    pub guard: Arc<Guard<S>>,
    pub tail: Arc<Tail>,
    pub metrics: Metrics,
    pub mode: Mode,
    /// Where edges find this hub, as join tokens say it: `https://HOST:PORT`.
    pub edge_address: String,
    pub ca_fingerprint: [u8; 32],
    /// Signs what is stated about lost edges.
    pub identity: Arc<Identity>,
    /// The connected edges: told when what they receive may have changed.
    pub roster: Arc<Roster>,
    /// To the process that writes, where that is another one.
    pub line: Arc<Line>,
    /// The number of the last warning about a secret that expires.
    pub expiry_warnings: watch::Receiver<u64>,
    /// Names of the commands by which secrets may be rotated.
    pub rotation_commands: BTreeSet<String>,
    /// Wakes whoever rotates.
    pub rotate: Arc<Notify>,
    /// Streams of events end with it.
    pub stop: CancellationToken,
}

/// Implements both services of the REST API.
pub struct Api<S> {
    parts: Parts<S>,
    environments: KnownEnvironments,
    started: Instant,
}

impl<S: Journal + Registry> Api<S> {
    /// Over these parts.
    pub fn new(parts: Parts<S>) -> Self {
        Self { parts, environments: KnownEnvironments::default(), started: Instant::now() }
    }

    /// The tenant's environments, and the one that was asked for; `development` where none was.
    async fn environment(
        &self,
        caller: &Caller,
        asked: Option<&Environment>,
    ) -> Result<(Arc<Environments>, Environment), ApiError> {
        let environment = match asked {
            Some(environment) => environment.clone(),
            None => Environment::parse("development").expect("a literal name"),
        };
        let all = self.environments.of(&*self.parts.store, &caller.tenant, &environment).await?;
        if !all.contains(&environment) {
            return Err(ApiError::unknown_environment(&environment));
        }
        Ok((all, environment))
    }

    /// Waits until the hub has come as far as is demanded. What is read afterwards has come at least so far.
    async fn come_to(&self, demand: &Demand) -> Result<(), ApiError> {
        let Some(position) = &demand.at_least else {
            return Ok(());
        };
        let mut heads = self.parts.tail.subscribe();
        let covered = heads.wait_for(|head| head.vector().covers(position));
        match tokio::time::timeout(WAIT_MAX, covered).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                Err(ApiError::unavailable("this hub has not come to the position that at_least names", 1))
            }
        }
    }

    /// Content as the caller sees it; none for a deletion.
    async fn shown(
        &self,
        caller: &Caller,
        at: &EntryKey,
        content: &Content,
        reveal: bool,
    ) -> Result<Option<Shown>, ApiError> {
        Ok(match content {
            Content::Deleted => None,
            Content::Plain(value) => Some(Shown::Plain(value.clone())),
            Content::Secret(sealed) if !reveal || sealed.is_purged() => Some(Shown::Masked),
            Content::Secret(sealed) => {
                guard::may_reveal(caller, at)?;
                let plain = self.parts.secrets.open(at, sealed).await?;
                metrics::counter!("secret_access_total", "status" => "granted").increment(1);
                tracing::info!(caller = %caller.name, entry = %at.id(), version = sealed.version, "a secret was shown");
                Some(Shown::Revealed(text(plain)?))
            }
        })
    }
}

fn text(plain: Zeroizing<Vec<u8>>) -> Result<Zeroizing<String>, ApiError> {
    match std::str::from_utf8(&plain) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(ApiError::internal("a secret is no text")),
    }
}

/// Counts an operation on values by what came of it.
fn counted<T>(operation: &'static str, result: Result<Answered<T>, ApiError>) -> Answer<T> {
    let status = if result.is_ok() { "success" } else { "error" };
    metrics::counter!("config_operations_total", "operation" => operation, "status" => status).increment(1);
    result.map(Into::into)
}

/// An answer that names how far what was read had come.
fn at_position<T>(value: T, head: Vector) -> Answered<T> {
    Answered::new(value).at(head)
}
