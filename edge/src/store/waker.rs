//! sled 0.34 may wait for ever: when the write that its own thread does after a reservation fails, it keeps the error and tells
//! nobody (`exit_reservation` in its `pagecache/logger.rs`; its other paths do). A flush finds a kept error, and in
//! returning it wakes whoever waits.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use ::sled::Db;

/// A batch that takes longer is looked after, so often.
const PAUSE: Duration = Duration::from_millis(500);

/// A thread that looks after batches that take long. It ends with this.
pub(super) struct Waker {
    batches: Option<mpsc::Sender<mpsc::Receiver<Over>>>,
    thread: Option<JoinHandle<()>>,
}

/// Never sent: the sender's end is what counts.
type Over = Infallible;

/// A batch under way; over when dropped.
pub(super) struct Watched(#[allow(dead_code, reason = "its end tells")] mpsc::Sender<Over>);

impl Waker {
    /// Looks after the batches of a replica.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn of(db: Db) -> io::Result<Self> {
        Self::start(PAUSE, move || wake(&db))
    }

    fn start(pause: Duration, wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (batches, begun) = mpsc::channel::<mpsc::Receiver<Over>>();
        let thread = std::thread::Builder::new().name("replica-waker".into()).spawn(move || {
            for batch in begun {
                while batch.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                    wake();
                }
            }
        })?;
        Ok(Self { batches: Some(batches), thread: Some(thread) })
    }

    /// A batch begins.
    pub(super) fn watch(&self) -> Watched {
        let (over, batch) = mpsc::channel();
        if let Some(batches) = &self.batches {
            // The thread ends only with this.
            let _ = batches.send(batch);
        }
        Watched(over)
    }
}

impl Drop for Waker {
    /// Its handle of sled would keep the replica locked.
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Without an error a flush would wait as well, and be no help when there is one.
fn wake(db: &Db) {
    if let Err(kept) = db.context.global_error() {
        tracing::warn!(error = %kept, "the replica's engine waits after an error of the disk; it is woken");
        let _ = db.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_batch_that_takes_long_is_looked_after_until_it_is_over() {
        let (wake, woken) = mpsc::channel();
        let waker = Waker::start(Duration::from_millis(1), move || wake.send(()).unwrap()).unwrap();
        for _ in 0..2 {
            let watched = waker.watch();
            for _ in 0..3 {
                woken.recv_timeout(PATIENCE).unwrap();
            }
            drop(watched);
        }
        drop(waker);
        while woken.try_recv().is_ok() {}
        assert_eq!(woken.try_recv(), Err(mpsc::TryRecvError::Disconnected), "its thread has ended");
    }
}
