//! The processes of one hub, over one database: which of them leads, where it is reached, and how the others pass writes
//! on to it.
//!
//! Nothing here makes a write right: that is the fence of each commit. A lock keeps the processes from taking the lead
//! from one another with every write, and its loss lets another one take over.

use std::collections::BTreeSet;
use std::future::Future;

use llm_config_shared::name::Scope;
use llm_config_shared::stamp::{ActorId, Hlc};
use llm_config_shared::store::JournalError;
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::Position;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

pub mod line;
pub mod passing;
pub mod service;

/// One process of the hub, and where the others reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessAt {
    /// Of this run of the program.
    pub process: Uuid,
    /// `https://HOST:PORT` of its sync port.
    pub address: String,
}

impl ProcessAt {
    /// A process that has just begun.
    pub fn new(address: impl Into<String>) -> Self {
        Self { process: Uuid::new_v4(), address: address.into() }
    }
}

/// Who writes, as far as this process knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// This process.
    Leading,
    /// Perhaps nobody: this process takes the lead for the next write, if it can.
    Vacant,
    /// Another process. Where it is, is not known in the moment after it took the lead.
    Following(Option<ProcessAt>),
}

impl Role {
    /// Whether a write is to be passed on to another process.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Following(_))
    }

    /// The other process that writes.
    pub fn leader(&self) -> Option<&ProcessAt> {
        match self {
            Self::Following(leader) => leader.as_ref(),
            Self::Leading | Self::Vacant => None,
        }
    }
}

/// What a process tells the others of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The last seq before it.
    pub after: u64,
    /// How far the shard has come with it.
    pub position: Position,
    pub hlc: Hlc,
    /// Where entries moved.
    pub scopes: Vec<Scope>,
}

/// What the processes of a hub share beside the journal. Every method may be called by any of them.
pub trait Processes: Send + Sync + 'static {
    /// Takes the lock of whoever leads; none when another process has it.
    fn stand(&self) -> impl Future<Output = Result<Option<Hold>, JournalError>> + Send;

    /// Says where the process that leads is reached. [`JournalError::Fenced`] when `epoch` is not the newest leadership.
    fn announce(&self, at: &ProcessAt, epoch: u64) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// What the last leader said.
    fn leader(&self) -> impl Future<Output = Result<Option<ProcessAt>, JournalError>> + Send;

    /// Whether there may be others. Else nothing has to be said to them.
    const SHARED: bool;

    /// Says which edges came to this process and went from it since it last said so.
    fn say_seats(
        &self,
        process: Uuid,
        came: &[ActorId],
        went: &[ActorId],
        now: UnixMillis,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The edges of all other processes that have said so since `since`.
    fn seats_elsewhere(
        &self,
        process: Uuid,
        since: UnixMillis,
    ) -> impl Future<Output = Result<BTreeSet<ActorId>, JournalError>> + Send;

    /// Waits until some process has committed, and gives what it told of that; none when it told nothing. May miss commits:
    /// the head is to be asked now and then all the same.
    fn news(&self) -> impl Future<Output = Result<Option<News>, JournalError>> + Send;
}

/// The lock, held until this is dropped or it is lost.
#[derive(Debug)]
pub struct Hold {
    /// Closed when it is lost. None: it cannot be lost.
    lost: Option<oneshot::Receiver<()>>,
    _give_up: Option<DropGuard>,
}

impl Hold {
    /// Where there is only one process.
    pub fn for_ever() -> Self {
        Self { lost: None, _give_up: None }
    }

    /// A lock that a task keeps: until the token is cancelled, or until it ends because the lock is lost.
    pub fn kept<F>(keep: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let given_up = CancellationToken::new();
        let (alive, lost) = oneshot::channel::<()>();
        let keeping = keep(given_up.clone());
        tokio::spawn(async move {
            keeping.await;
            drop(alive);
        });
        Self { lost: Some(lost), _give_up: Some(given_up.drop_guard()) }
    }

    /// Returns when the lock is lost. May be asked again and again.
    pub async fn lost(&mut self) {
        match &mut self.lost {
            Some(lost) => drop(lost.await),
            None => std::future::pending().await,
        }
        // Whoever asks once more is told at once, instead of asking a channel that has ended.
        self.lost = Some(oneshot::channel().1);
    }
}

#[cfg(test)]
pub(crate) mod tests;
