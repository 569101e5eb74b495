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

/// The same for reading all of a large replica from a slow card.
const REREAD_TIME_MAX: Duration = Duration::from_secs(600);

/// A store on a thread of its own.
pub(crate) struct Committer<S> {
    jobs: mpsc::Sender<Job>,
    done: async_mpsc::UnboundedReceiver<Done>,
    thread: JoinHandle<S>,
    /// Jobs without an answer, those of them that read, and since when the oldest is at work.
    unanswered: usize,
    rereads: usize,
    since: Instant,
    patience: Duration,
    given_up: bool,
}

/// What the store is to do.
enum Job {
    Commit(Batch),
    /// Read everything as it is once what was queued before is durable.
    Reread,
    /// The same, of which only kept writes are wanted.
    Recall,
}

/// What came of the oldest job that was not answered yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Done {
    Committed(Result<(), StoreError>),
    Reread(Result<Vec<Record>, StoreError>),
    Recalled(Result<Vec<Record>, StoreError>),
}

impl<S: ReplicaStore + 'static> Committer<S> {
    /// Takes the store over.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(store: S) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let (answers, done) = async_mpsc::unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("replica".into())
            .spawn(move || work(store, &queue, &answers))?;
        let (since, patience) = (Instant::now(), COMMIT_TIME_MAX);
        Ok(Self { jobs, done, thread, unanswered: 0, rereads: 0, since, patience, given_up: false })
    }

    /// Queues a batch; its result comes from [`Committer::done`].
    pub(crate) fn commit(&mut self, batch: Batch) {
        self.begin();
        metrics::counter!("sync_batches_total").increment(1);
        // The thread ends only after a failure, which has been reported: the core gives no more batches that count.
        let _ = self.jobs.send(Job::Commit(batch));
    }

    /// Queues a reading of everything; it comes from [`Committer::done`] in its turn.
    pub(crate) fn reread(&mut self) {
        self.begin();
        self.rereads += 1;
        // As with a batch: after a failure there is nobody to read, and the daemon begins anew.
        let _ = self.jobs.send(Job::Reread);
    }

    fn begin(&mut self) {
        if self.unanswered == 0 {
            self.since = Instant::now();
        }
        self.unanswered += 1;
    }

    /// Queues a reading of kept writes; they come from [`Committer::done`] in their turn.
    pub(crate) fn recall(&mut self) {
        self.begin();
        self.rereads += 1;
        let _ = self.jobs.send(Job::Recall);
    }

    /// The result of the oldest job that was not answered yet; a failure when it takes too long.
    pub(crate) async fn done(&mut self) -> Done {
        let patience = if self.rereads > 0 { REREAD_TIME_MAX } else { self.patience };
        let late = sleep_until(self.since + patience);
        tokio::select! {
            done = self.done.recv() => match done {
                Some(done) => {
                    self.unanswered -= 1;
                    self.rereads -= usize::from(matches!(done, Done::Reread(_) | Done::Recalled(_)));
                    self.since = Instant::now();
                    done
                }
                None => std::future::pending().await,
            },
            () = late, if self.unanswered > 0 => {
                self.given_up = true;
                Done::Committed(Err(StoreError::Io("it does not answer".to_owned())))
            }
        }
    }

    /// Waits for what is queued and gives the store back; none if its thread was lost, or takes too long: it closes the
    /// store when its disk answers after all.
    pub(crate) async fn finish(mut self) -> Option<S> {
        drop(self.jobs);
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
    queue: &mpsc::Receiver<Job>,
    answers: &async_mpsc::UnboundedSender<Done>,
) -> S {
    let mut waiting = None;
    while let Some(first) = waiting.take().or_else(|| queue.recv().ok()) {
        let first = match first {
            Job::Commit(first) => first,
            // Nobody listens any more, here and below: the daemon is going down, and what is durable stays so.
            Job::Reread => {
                let _ = answers.send(Done::Reread(store.load()));
                continue;
            }
            Job::Recall => {
                let _ = answers.send(Done::Recalled(store.load().map(kept)));
                continue;
            }
        };
        let mut group = Group::of(first);
        while let Ok(next) = queue.try_recv() {
            match next {
                Job::Commit(next) if group.has_room_for(&next) => group.add(next),
                other @ (Job::Commit(_) | Job::Reread | Job::Recall) => {
                    waiting = Some(other);
                    break;
                }
            }
        }
        let members = group.members;
        let result = store.commit(&group.into_batch());
        for _ in 0..members {
            let _ = answers.send(Done::Committed(result.clone()));
        }
        if result.is_err() {
            break;
        }
    }
    store
}

fn kept(mut records: Vec<Record>) -> Vec<Record> {
    records.retain(|record| matches!(record, Record::Kept(_)));
    records
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

    fn has_room_for(&self, batch: &Batch) -> bool {
        self.changes.len() + batch.put.len() + batch.remove.len() <= BATCH_CHANGES_MAX
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
            assert_eq!(committer.done().await, Done::Committed(Ok(())));
        }
        assert!(committer.finish().await.is_some());
        assert_eq!(commits.lock().unwrap().last(), Some(&state(99)));
    }

    #[tokio::test]
    async fn nothing_is_tried_after_a_failure() {
        let commits = Arc::new(Mutex::new(Vec::new()));
        let mut committer = Committer::start(Recorder { commits: commits.clone(), fail: true }).unwrap();
        committer.commit(state(1));
        assert_eq!(committer.done().await, Done::Committed(Err(StoreError::Full)));
        committer.commit(state(2));
        assert!(committer.finish().await.is_some());
        assert_eq!(commits.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn what_is_read_again_is_answered_between_the_batches_around_it() {
        let commits = Arc::new(Mutex::new(Vec::new()));
        let mut committer = Committer::start(Recorder { commits: commits.clone(), fail: false }).unwrap();
        committer.commit(state(1));
        committer.reread();
        committer.commit(state(2));
        assert_eq!(committer.done().await, Done::Committed(Ok(())));
        assert_eq!(committer.done().await, Done::Reread(Ok(vec![])));
        assert_eq!(committer.done().await, Done::Committed(Ok(())));
        assert_eq!(*commits.lock().unwrap(), [state(1), state(2)]);
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
        let failed = StoreError::Io("it does not answer".to_owned());
        assert_eq!(committer.done().await, Done::Committed(Err(failed)));
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
