//! Purging between two commits. Only the leader does it, and for its sake nobody takes the lead.

use std::time::Duration;

use llm_config_shared::time::UnixMillis;
use tokio::sync::oneshot;

use super::{WriteError, WriterHandle, refused};

/// Another wish is served first.
const TURN: Duration = Duration::from_millis(20);

/// A wish to purge, and who waits for what came of it.
pub(crate) struct PurgeJob {
    pub(super) admitted_by: UnixMillis,
    pub(super) limit: usize,
    pub(super) reply: oneshot::Sender<Result<usize, WriteError>>,
}

impl WriterHandle {
    /// Purges deletions that were admitted at `admitted_by` or before, the oldest first, at most `limit`; how many it
    /// were.
    ///
    /// # Errors
    /// When nothing is known to have been purged. [`WriteError::Moved`] says that another process writes now: the same
    /// is up to it.
    pub async fn purge(&self, admitted_by: UnixMillis, limit: usize) -> Result<usize, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.purges.try_send(PurgeJob { admitted_by, limit, reply }).map_err(refused)?;
        answer.await.unwrap_or(Err(WriteError::Stopping))
    }

    /// Returns when no commit is under way any more that was planned before the call: what follows sees its keys and rows
    /// as they are now.
    ///
    /// # Errors
    /// As [`WriterHandle::purge`].
    pub async fn settled(&self) -> Result<(), WriteError> {
        loop {
            // Nothing was deleted in 1970; the wish takes its turn between two commits all the same.
            match self.purge(UnixMillis(0), 1).await {
                Ok(_) => return Ok(()),
                Err(WriteError::Busy) => tokio::time::sleep(TURN).await,
                Err(error) => return Err(error),
            }
        }
    }
}
