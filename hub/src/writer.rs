//! The shard's single writer: everything that changes entries goes through it, and nothing else does.
//!
//! Submissions queue while a commit runs; what queued is planned and committed as one. An idle writer commits at once.
//! Callers hear only after the commit is durable. Of several processes over one database one leads; the writer of
//! another refuses, and [`crate::processes`] passes on what is to be written.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use llm_config_shared::name::{Environment, Tenant};
use llm_config_shared::newer::Taken;
use llm_config_shared::replication::admit::{
    ApiSubmission, HandIn, NotFollowed, OpOutcome, Sealer, SettleOutcome, SettleSubmission, Upload,
};
use llm_config_shared::store::region::RegionPage;
use llm_config_shared::store::{Journal, JournalError};
use llm_config_shared::vector::Vector;
use llm_config_shared::write::Answer;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::lead::Settled;
use self::purge::PurgeJob;
use self::task::Task;
use crate::processes::{ProcessAt, Processes, Role};
use crate::registry::Registry;
use crate::secrets::{PreparedSealer, SecretStore};
use crate::tail::Tail;

mod batch;
mod lead;
mod purge;
mod task;

/// Most submissions that wait; beyond it callers are told to come back.
const QUEUE_MAX: usize = 4_096;

/// Gives the keys that secrets are sealed with.
pub trait SealKeys: Send + Sync + 'static {
    /// Seals from keys that are in memory.
    type Sealer: Sealer + Send;

    /// A sealer for these tenants' environments. Where the keys cannot be had, sealing with it fails.
    fn sealer(&self, places: &BTreeSet<(Tenant, Environment)>) -> impl Future<Output = Self::Sealer> + Send;
}

impl<R: Registry> SealKeys for SecretStore<R> {
    type Sealer = PreparedSealer;

    async fn sealer(&self, places: &BTreeSet<(Tenant, Environment)>) -> PreparedSealer {
        Self::sealer(self, places).await
    }
}

/// Renders the answer that a repeated request gets again.
pub type RenderAnswer = Box<dyn FnOnce(&[OpOutcome]) -> Arc<str> + Send>;

/// What became of an API request.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// It was judged now. `position` covers everything that it wrote.
    Now { outcomes: Vec<OpOutcome>, position: Vector },
    /// The same request was answered before: that answer.
    Before { answer: Arc<str>, position: Vector },
}

/// Why a submission was not judged. It changed nothing, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("too many writes are waiting; try again in a second")]
    Busy,
    #[error("another process of this hub has just taken over writing, or is about to; try again in a second")]
    Moved,
    /// Whether the write was stored is not known where the connection broke during the commit.
    #[error("the database cannot be used; try again in a second")]
    Unavailable,
    #[error("this change and batch were sent before with another content")]
    Reused,
    #[error("the hub is shutting down")]
    Stopping,
}

/// Where submissions are handed in.
#[derive(Clone)]
pub struct WriterHandle {
    queue: mpsc::Sender<Job>,
    purges: mpsc::Sender<PurgeJob>,
    role: watch::Receiver<Role>,
}

/// A submission and who waits for its answer.
pub(crate) enum Job {
    Api {
        submission: ApiSubmission,
        render: Option<RenderAnswer>,
        reply: oneshot::Sender<Result<Written, WriteError>>,
    },
    Upload {
        upload: Upload,
        reply: oneshot::Sender<Result<Vec<Answer>, WriteError>>,
    },
    HandIn {
        hand_in: HandIn,
        reply: oneshot::Sender<Result<Taken, WriteError>>,
    },
    Settle {
        submission: SettleSubmission,
        reply: oneshot::Sender<Result<SettleOutcome, WriteError>>,
    },
    Follow {
        page: Box<RegionPage>,
        reply: oneshot::Sender<Result<Result<(), NotFollowed>, WriteError>>,
    },
}

/// A writer that leads, or knows who does.
pub struct Started {
    pub handle: WriterHandle,
    pub tail: Arc<Tail>,
    /// Ends when every handle is gone and the queue is empty. Ending before that is a failure of the process.
    pub task: JoinHandle<()>,
}

/// Takes the lead, or finds out which other process has it, and starts the writer. `me` is where that one would find this
/// process.
///
/// # Errors
/// When the database cannot be used.
pub async fn start<J: Journal, P: Processes, S: SealKeys>(
    journal: Arc<J>,
    processes: Arc<P>,
    keys: Arc<S>,
    me: ProcessAt,
) -> Result<Started, JournalError> {
    let Settled { lead, role, head } = lead::settle(&*journal, &*processes, &me).await?;
    let tail = Arc::new(Tail::new(head));
    let (role, playing) = watch::channel(role);
    let (queue, jobs) = mpsc::channel(QUEUE_MAX);
    // One at a time is enough, and keeps none waiting.
    let (purges, wishes) = mpsc::channel(1);
    let task = Task {
        journal,
        processes,
        keys,
        tail: Arc::clone(&tail),
        jobs,
        purges: wishes,
        me,
        role,
        next: None,
        failures: 0,
    };
    let handle = WriterHandle { queue, purges, role: playing };
    Ok(Started { handle, tail, task: tokio::spawn(task.run(lead)) })
}

impl WriterHandle {
    /// Who writes, now.
    pub fn role(&self) -> Role {
        self.role.borrow().clone()
    }

    /// The same, to wait for changes.
    pub fn roles(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// Judges and commits an API request. With `submission.repeat`, `render` gives the answer that is kept with it.
    ///
    /// # Errors
    /// When it was not judged.
    pub async fn write(
        &self,
        submission: ApiSubmission,
        render: Option<RenderAnswer>,
    ) -> Result<Written, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Job::Api { submission, render, reply })?;
        answer.await.unwrap_or(Err(WriteError::Stopping))
    }

    /// Judges and commits an edge's writes.
    ///
    /// # Errors
    /// When they were not judged.
    pub async fn upload(&self, upload: Upload) -> Result<Vec<Answer>, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Job::Upload { upload, reply })?;
        answer.await.unwrap_or(Err(WriteError::Stopping))
    }

    /// Judges and commits what an edge hands in of a loss.
    ///
    /// # Errors
    /// When it was not judged.
    pub async fn take_in(&self, hand_in: HandIn) -> Result<Taken, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Job::HandIn { hand_in, reply })?;
        answer.await.unwrap_or(Err(WriteError::Stopping))
    }

    /// Judges and commits what a person decided about a conflict or a held write.
    ///
    /// # Errors
    /// When it was not judged.
    pub async fn settle(&self, submission: SettleSubmission) -> Result<SettleOutcome, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Job::Settle { submission, reply })?;
        answer.await.unwrap_or(Err(WriteError::Stopping))
    }

    /// The same for many decisions, in that order.
    ///
    /// # Errors
    /// For each that was not judged.
    pub async fn settle_all(
        &self,
        submissions: Vec<SettleSubmission>,
    ) -> Vec<Result<SettleOutcome, WriteError>> {
        let queued = submissions.into_iter().map(|submission| {
            let (reply, answer) = oneshot::channel();
            self.enqueue(Job::Settle { submission, reply }).map(|()| answer)
        });
        let queued: Vec<_> = queued.collect();
        let mut outcomes = Vec::with_capacity(queued.len());
        for answer in queued {
            outcomes.push(match answer {
                Ok(answer) => answer.await.unwrap_or(Err(WriteError::Stopping)),
                Err(error) => Err(error),
            });
        }
        outcomes
    }

    /// Takes in what another region has decided.
    ///
    /// # Errors
    /// When it was not judged; within that, why it was not taken.
    pub async fn follow(&self, page: RegionPage) -> Result<Result<(), NotFollowed>, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Job::Follow { page: Box::new(page), reply })?;
        answer.await.unwrap_or(Err(WriteError::Stopping))
    }

    fn enqueue(&self, job: Job) -> Result<(), WriteError> {
        self.queue.try_send(job).map_err(refused)
    }
}

fn refused<T>(refused: mpsc::error::TrySendError<T>) -> WriteError {
    match refused {
        mpsc::error::TrySendError::Full(_) => WriteError::Busy,
        mpsc::error::TrySendError::Closed(_) => WriteError::Stopping,
    }
}

#[cfg(test)]
mod tests;
