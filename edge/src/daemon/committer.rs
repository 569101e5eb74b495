//! The thread that owns the replica's store: batches go in, and come back durable, in order.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use llm_config_shared::limits::BATCH_CHANGES_MAX;
use llm_config_shared::store::replica::{Batch, Record, ReplicaStore, Slot, StoreError};
use tokio::sync::mpsc as async_mpsc;
use tokio::time::{Instant, sleep_until};

/// A disk on which one batch takes longer has failed, whether it says so or not: some wait for it for ever, and so does
/// sled 0.34 when one of its own threads is told of an error.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(20);

/// A store on a thread of its own.
pub(crate) struct Committer<S> {
    batches: mpsc::Sender<Batch>,
    done: async_mpsc::UnboundedReceiver<Result<(), StoreError>>,
    thread: JoinHandle<S>,
    /// Batches without an answer, and since when the oldest of them is at work.
    unanswered: usize,
    since: Instant,
    patience: Duration,
    given_up: bool,
}

impl<S: ReplicaStore + 'static> Committer<S> {
    /// Takes the store over.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(store: S) -> std::io::Result<Self> {
        let (batches, queue) = mpsc::channel();
        let (answers, done) = async_mpsc::unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("replica".into())
            .spawn(move || work(store, &queue, &answers))?;
        let (since, patience) = (Instant::now(), COMMIT_TIME_MAX);
        Ok(Self { batches, done, thread, unanswered: 0, since, patience, given_up: false })
    }

    /// Queues a batch; its result comes from [`Committer::done`].
    pub(crate) fn commit(&mut self, batch: Batch) {
        if self.unanswered == 0 {
            self.since = Instant::now();
        }
        self.unanswered += 1;
        metrics::counter!("sync_batches_total").increment(1);
        // The thread ends only after a failure, which has been reported: the core gives no more batches that count.
        let _ = self.batches.send(batch);
    }

    /// The result of the oldest batch that was not answered yet; a failure when it takes too long.
    pub(crate) async fn done(&mut self) -> Result<(), StoreError> {
        let late = sleep_until(self.since + self.patience);
        tokio::select! {
            result = self.done.recv() => match result {
                Some(result) => {
                    self.unanswered -= 1;
                    self.since = Instant::now();
                    result
                }
                None => std::future::pending().await,
            },
            () = late, if self.unanswered > 0 => {
                self.given_up = true;
                Err(StoreError::Io("it does not answer".to_owned()))
            }
        }
    }

    /// Waits for what is queued and gives the store back; none if its thread was lost, or takes too long: it closes the
    /// store when its disk answers after all.
    pub(crate) async fn finish(mut self) -> Option<S> {
        drop(self.batches);
        if self.given_up {
            return None;
        }
        // Its end of the answers goes with it.
        let ended = async { while self.done.recv().await.is_some() {} };
        tokio::time::timeout(self.patience, ended).await.ok()?;
        let thread = self.thread;
        tokio::task::spawn_blocking(move || thread.join().ok()).await.ok().flatten()
    }
}

/// Takes all that waits, as far as one batch may go: many small writes share one flush.
fn work<S: ReplicaStore>(
    mut store: S,
    queue: &mpsc::Receiver<Batch>,
    answers: &async_mpsc::UnboundedSender<Result<(), StoreError>>,
) -> S {
    let mut waiting = None;
    while let Some(first) = waiting.take().or_else(|| queue.recv().ok()) {
        let mut group = Group::of(first);
        while let Ok(next) = queue.try_recv() {
            if group.changes.len() + next.put.len() + next.remove.len() > BATCH_CHANGES_MAX {
                waiting = Some(next);
                break;
            }
            group.add(next);
        }
        let members = group.members;
        let result = store.commit(&group.into_batch());
        for _ in 0..members {
            // Nobody listens any more: the daemon is going down, and the batch is durable all the same.
            let _ = answers.send(result.clone());
        }
        if result.is_err() {
            break;
        }
    }
    store
}

/// Batches in order, as one: the last change of a slot counts.
struct Group {
    changes: BTreeMap<Slot, Option<Record>>,
    members: usize,
}

impl Group {
    fn of(batch: Batch) -> Self {
        let mut group = Self { changes: BTreeMap::new(), members: 0 };
        group.add(batch);
        group
    }

    /// Within a batch, what is put counts more than what is removed.
    fn add(&mut self, batch: Batch) {
        self.changes.extend(batch.remove.into_iter().map(|slot| (slot, None)));
        self.changes.extend(batch.put.into_iter().map(|record| (record.slot(), Some(record))));
        self.members += 1;
    }

    fn into_batch(self) -> Batch {
        let mut batch = Batch::default();
        for (slot, record) in self.changes {
            match record {
                Some(record) => batch.put.push(record),
                None => batch.remove.push(slot),
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use llm_config_shared::store::replica::StateRecord;

    use super::*;

    /// Remembers what it was asked, and fails from a batch on.
    struct Recorder {
        commits: Arc<Mutex<Vec<Batch>>>,
        fail: bool,
    }

    impl ReplicaStore for Recorder {
        fn load(&mut self) -> Result<Vec<Record>, StoreError> {
            Ok(Vec::new())
        }

        fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
            self.commits.lock().unwrap().push(batch.clone());
            if self.fail { Err(StoreError::Full) } else { Ok(()) }
        }
    }

    fn state(session: u64) -> Batch {
        let state = StateRecord { session, ..StateRecord::default() };
        Batch { put: vec![Record::State(state)], remove: Vec::new() }
    }

    #[tokio::test]
    async fn every_batch_is_answered_and_the_store_comes_back() {
        let commits = Arc::new(Mutex::new(Vec::new()));
        let mut committer = Committer::start(Recorder { commits: commits.clone(), fail: false }).unwrap();
        for session in 0..100 {
            committer.commit(state(session));
        }
        for _ in 0..100 {
            assert_eq!(committer.done().await, Ok(()));
        }
        assert!(committer.finish().await.is_some());
        assert_eq!(commits.lock().unwrap().last(), Some(&state(99)));
    }

    #[tokio::test]
    async fn nothing_is_tried_after_a_failure() {
        let commits = Arc::new(Mutex::new(Vec::new()));
        let mut committer = Committer::start(Recorder { commits: commits.clone(), fail: true }).unwrap();
        committer.commit(state(1));
        assert_eq!(committer.done().await, Err(StoreError::Full));
        committer.commit(state(2));
        assert!(committer.finish().await.is_some());
        assert_eq!(commits.lock().unwrap().len(), 1);
    }

    /// Answers when it is let go.
    struct Stuck(mpsc::Receiver<()>);

    impl ReplicaStore for Stuck {
        fn load(&mut self) -> Result<Vec<Record>, StoreError> {
            Ok(Vec::new())
        }

        fn commit(&mut self, _batch: &Batch) -> Result<(), StoreError> {
            let _ = self.0.recv();
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_disk_that_does_not_answer_has_failed_and_is_not_waited_for() {
        let (_held, let_go) = mpsc::channel();
        let mut committer = Committer::start(Stuck(let_go)).unwrap();
        committer.patience = Duration::from_millis(50);
        committer.commit(state(1));
        assert_eq!(committer.done().await, Err(StoreError::Io("it does not answer".to_owned())));
        assert!(committer.finish().await.is_none());

        let (_held, let_go) = mpsc::channel();
        let mut committer = Committer::start(Stuck(let_go)).unwrap();
        committer.patience = Duration::from_millis(50);
        committer.commit(state(1));
        assert!(committer.finish().await.is_none(), "nor by a daemon that is told to stop");
    }

    #[test]
    fn the_last_change_of_a_slot_counts() {
        let mut group = Group::of(state(1));
        group.add(Batch { put: Vec::new(), remove: vec![Slot::State, Slot::Pending(4)] });
        group.add(state(3));
        assert_eq!(group.members, 3);
        let batch = group.into_batch();
        assert_eq!((batch.put, batch.remove), (state(3).put, vec![Slot::Pending(4)]));
    }
}
