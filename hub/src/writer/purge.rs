//! Purging between two commits. Only the leader does it, and for its sake nobody takes the lead.

use llm_config_shared::time::UnixMillis;
use tokio::sync::oneshot;

use super::{WriteError, WriterHandle, refused};

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
}
