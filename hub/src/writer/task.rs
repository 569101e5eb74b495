//! The writer's loop: collect, plan, commit, answer; and what happens when the lead is lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use llm_config_shared::limits::COMMIT_WRITES_MAX;
use llm_config_shared::name::{Environment, Tenant};
use llm_config_shared::replication::admit::Leader;
use llm_config_shared::store::purge::Purge;
use llm_config_shared::store::{Commit, Head, Journal, JournalError};
use tokio::sync::mpsc;

use super::batch::{self, Plan, Waiting};
use super::lead::{self, Led};
use super::purge::PurgeJob;
use super::{Job, SealKeys, WriteError};
use crate::clock::now;
use crate::tail::Tail;

pub(super) struct Task<J, S> {
    journal: Arc<J>,
    keys: Arc<S>,
    tail: Arc<Tail>,
    jobs: mpsc::Receiver<Job>,
    purges: mpsc::Receiver<PurgeJob>,
    /// Did not fit the last commit.
    next: Option<Job>,
}

/// What is done next.
enum Turn {
    Writes(Vec<Job>),
    Purge(PurgeJob),
}

/// The lead is lost, or it is not known how far the database has come.
struct SteppedDown;

impl<J: Journal, S: SealKeys> Task<J, S> {
    pub(super) fn new(
        journal: Arc<J>,
        keys: Arc<S>,
        tail: Arc<Tail>,
        jobs: mpsc::Receiver<Job>,
        purges: mpsc::Receiver<PurgeJob>,
    ) -> Self {
        Self { journal, keys, tail, jobs, purges, next: None }
    }

    pub(super) async fn run(mut self, leader: Leader) {
        let mut leading = Some(leader);
        let mut failures = 0;
        while let Some(turn) = self.turn().await {
            let jobs = match turn {
                Turn::Writes(jobs) => jobs,
                Turn::Purge(job) => {
                    leading = self.purge(leading, job).await;
                    continue;
                }
            };
            let leader = match leading.take() {
                Some(leader) => leader,
                None => match lead::take(&*self.journal).await {
                    Ok(Led { leader, head }) => {
                        self.tail.observed(head);
                        failures = 0;
                        leader
                    }
                    Err(error) => {
                        tracing::warn!(%error, failures, "cannot take the lead in writing");
                        refuse_all(jobs.into_iter(), &error);
                        failures += 1;
                        tokio::time::sleep(lead::pause(failures)).await;
                        continue;
                    }
                },
            };
            leading = self.commit(leader, jobs).await.ok();
        }
    }

    /// None when nobody can send any more.
    async fn turn(&mut self) -> Option<Turn> {
        let first = match self.next.take() {
            Some(job) => job,
            None => tokio::select! {
                job = self.jobs.recv() => job?,
                Some(job) = self.purges.recv() => return Some(Turn::Purge(job)),
            },
        };
        Some(Turn::Writes(self.collect(first)))
    }

    /// Everything that waits, up to what one commit takes.
    fn collect(&mut self, first: Job) -> Vec<Job> {
        let mut writes = first.writes();
        let mut jobs = vec![first];
        while let Ok(job) = self.jobs.try_recv() {
            if writes + job.writes() > COMMIT_WRITES_MAX {
                self.next = Some(job);
                break;
            }
            writes += job.writes();
            jobs.push(job);
        }
        jobs
    }

    async fn commit(&mut self, leader: Leader, jobs: Vec<Job>) -> Result<Leader, SteppedDown> {
        let started = Instant::now();
        let planning = match self.journal.planning(&batch::needs(&jobs)).await {
            Ok(planning) => planning,
            Err(error) => {
                tracing::warn!(%error, "a batch of writes could not be planned");
                refuse_all(jobs.into_iter(), &error);
                return Err(SteppedDown);
            }
        };
        let mut sealer = self.keys.sealer(&places_to_seal_in(&jobs)).await;
        let writes: usize = jobs.iter().map(Job::writes).sum();
        let Plan { commit, waiting } = batch::plan(&leader, planning, now(), jobs, &mut sealer);
        let Some((commit, after)) = commit else {
            answer_all(waiting, &leader);
            return Ok(leader);
        };
        if let Err(error) = self.journal.append(&commit).await {
            tracing::warn!(%error, "a batch of writes was not committed");
            let refusal = refusal(&error);
            waiting.into_iter().for_each(|waiting| waiting.refuse(refusal.clone()));
            return Err(SteppedDown);
        }
        self.publish(&commit);
        answer_all(waiting, &after);
        metrics::histogram!("hub_commit_seconds").record(started.elapsed().as_secs_f64());
        metrics::histogram!("hub_commit_writes").record(writes as f64);
        Ok(after)
    }

    /// Whoever does not lead leaves it to who does: taking the lead would refuse that one's next write.
    async fn purge(&mut self, leading: Option<Leader>, job: PurgeJob) -> Option<Leader> {
        let PurgeJob { admitted_by, limit, reply } = job;
        let Some(leader) = leading else {
            drop(reply.send(Err(WriteError::Moved)));
            return None;
        };
        match self.journal.purge(&Purge { fence: leader.fence(), admitted_by, limit }).await {
            Ok(purged) => {
                self.tail.purged(purged.horizon);
                drop(reply.send(Ok(purged.count)));
                Some(leader)
            }
            Err(error) => {
                drop(reply.send(Err(refusal(&error))));
                None
            }
        }
    }

    fn publish(&self, commit: &Commit) {
        let known = self.tail.head();
        let mut position = commit.fence.position;
        position.seq = commit.seq;
        let head = Head {
            shard: commit.fence.shard,
            position,
            hlc: commit.hlc,
            horizon: known.horizon,
            epochs: known.epochs.clone(),
        };
        self.tail.committed(head, batch::moved_scopes(commit));
    }
}

fn answer_all(waiting: Vec<Waiting>, leader: &Leader) {
    let position = leader.vector();
    waiting.into_iter().for_each(|waiting| waiting.answer(&position));
}

fn refuse_all(jobs: impl Iterator<Item = Job>, error: &JournalError) {
    let refusal = refusal(error);
    jobs.for_each(|job| job.refuse(refusal.clone()));
}

fn refusal(error: &JournalError) -> WriteError {
    match error {
        JournalError::Fenced => WriteError::Moved,
        JournalError::Unavailable(_) | JournalError::Corrupt(_) => WriteError::Unavailable,
    }
}

fn places_to_seal_in(jobs: &[Job]) -> BTreeSet<(Tenant, Environment)> {
    let places = jobs.iter().flat_map(|job| match job {
        Job::Api { submission, .. } => submission.seals_in(),
        Job::Settle { submission, .. } => submission.seals_in(),
        Job::Upload { .. } => BTreeSet::new(),
    });
    places.collect()
}
