//! What the windows ask of the loop: writes, requests for the hub, and how things are.

use std::sync::Arc;
use std::time::Duration;

use llm_config_shared::entry::{Author, ChangeId};
use llm_config_shared::name::EntryKey;
use llm_config_shared::replication::edge::{Carried, Exported, NotTaken, WriteRefused};
use llm_config_shared::replication::frame::{HubFrame, Request, Response};
use llm_config_shared::write::{Action, Verdict};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};

use super::carrying::Applied;

/// Local requests that may wait for the loop or the hub at one time.
const WAITING_MAX: usize = 1_024;
/// A forwarded request is given up after this time.
const CALL_PATIENCE: Duration = Duration::from_secs(30);

/// A write by somebody on this machine.
#[derive(Clone, Debug)]
pub struct NewWrite {
    pub at: EntryKey,
    pub action: Action,
    pub author: Author,
    pub message: Option<Arc<str>>,
    pub change: ChangeId,
}

/// A write that is durable here.
#[derive(Debug)]
pub struct Queued {
    /// 1 is the next to go.
    pub place: u64,
    decided: oneshot::Receiver<Verdict>,
}

impl Queued {
    pub(crate) fn new(place: u64, decided: oneshot::Receiver<Verdict>) -> Self {
        Self { place, decided }
    }

    /// The hub's decision, if it comes in time.
    pub async fn decided(self, patience: Duration) -> Option<Verdict> {
        tokio::time::timeout(patience, self.decided).await.ok()?.ok()
    }
}

/// How far replication has come, as the loop knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Places in the hub's order between what it told of and what readers see; of the feed that is furthest behind.
    pub behind: u64,
    pub undecided: usize,
}

/// Why the loop did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    #[error("too many requests wait already")]
    Busy,
    #[error("the edge is going down")]
    Stopped,
    #[error("the hub cannot be reached")]
    Unreachable,
    #[error("the hub did not answer in time")]
    Late,
    #[error(transparent)]
    Refused(#[from] WriteRefused),
}

pub(crate) enum Command {
    Write {
        write: Box<NewWrite>,
        answer: oneshot::Sender<Result<Queued, WriteRefused>>,
    },
    Call {
        request: Request,
        answer: oneshot::Sender<Option<Response>>,
    },
    Ask,
    ConnectNow,
    /// The keys that the hub signs with have changed: begin anew from the store.
    Reload,
    Progress(oneshot::Sender<Progress>),
    /// What waits for the hub, to be carried there.
    Export(oneshot::Sender<Result<Box<Exported>, NotTaken>>),
    /// A file that somebody brought, and its frames.
    Carry {
        carried: Box<Carried>,
        frames: mpsc::Receiver<HubFrame>,
        answer: oneshot::Sender<Result<Applied, NotTaken>>,
    },
}

/// The other end of `Command`s; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    waiting: Arc<Semaphore>,
}

impl Handle {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Command>) {
        let (commands, queue) = mpsc::channel(64);
        (Self { commands, waiting: Arc::new(Semaphore::new(WAITING_MAX)) }, queue)
    }

    fn permit(&self) -> Result<SemaphorePermit<'_>, Unanswered> {
        self.waiting.try_acquire().map_err(|_| Unanswered::Busy)
    }

    async fn ask<T>(&self, command: Command, answer: oneshot::Receiver<T>) -> Result<T, Unanswered> {
        self.commands.send(command).await.map_err(|_| Unanswered::Stopped)?;
        answer.await.map_err(|_| Unanswered::Stopped)
    }

    /// Queues a write; durable when this returns.
    ///
    /// # Errors
    /// When it was not taken; then nothing of it is kept.
    pub async fn write(&self, write: NewWrite) -> Result<Queued, Unanswered> {
        let _permit = self.permit()?;
        let (answer, answered) = oneshot::channel();
        Ok(self.ask(Command::Write { write: Box::new(write), answer }, answered).await??)
    }

    /// Has the hub answer a request.
    ///
    /// # Errors
    /// When it cannot be reached or does not answer.
    pub async fn call(&self, request: Request) -> Result<Response, Unanswered> {
        let _permit = self.permit()?;
        let (answer, answered) = oneshot::channel();
        let asking = self.ask(Command::Call { request, answer }, answered);
        let answered = tokio::time::timeout(CALL_PATIENCE, asking).await.map_err(|_| Unanswered::Late)?;
        answered?.ok_or(Unanswered::Unreachable)
    }

    /// Asks the hub how far it has come, without waiting for the answer.
    pub async fn ask_hub(&self) {
        // The loop is gone: whoever waits for the answer runs into their own bound.
        let _ = self.commands.send(Command::Ask).await;
    }

    /// Tries to reach the hub now instead of at the next time due.
    pub async fn connect_now(&self) {
        let _ = self.commands.send(Command::ConnectNow).await;
    }

    /// Takes in what somebody brought in a file; durable and seen by readers when this returns.
    ///
    /// # Errors
    /// When the loop is gone; within, why nothing of the file was taken.
    pub(crate) async fn carry(
        &self,
        carried: Box<Carried>,
        frames: mpsc::Receiver<HubFrame>,
    ) -> Result<Result<Applied, NotTaken>, Unanswered> {
        let _permit = self.permit()?;
        let (answer, answered) = oneshot::channel();
        self.ask(Command::Carry { carried, frames, answer }, answered).await
    }

    /// What waits for the hub, for somebody who carries it there. It waits all the same.
    ///
    /// # Errors
    /// When the loop is gone; within, when the hub can be reached.
    pub(crate) async fn export(&self) -> Result<Result<Box<Exported>, NotTaken>, Unanswered> {
        let _permit = self.permit()?;
        let (answer, answered) = oneshot::channel();
        self.ask(Command::Export(answer), answered).await
    }

    pub(crate) async fn reload(&self) {
        let _ = self.commands.send(Command::Reload).await;
    }

    /// How far replication has come; none when the loop is busy for long or gone.
    pub async fn progress(&self) -> Option<Progress> {
        let (answer, answered) = oneshot::channel();
        let asking = self.ask(Command::Progress(answer), answered);
        tokio::time::timeout(Duration::from_secs(2), asking).await.ok()?.ok()
    }
}
