//! The writer's loop: collect, plan, commit, answer; and what happens when the lead is lost, or another process has it.

use std::collections::BTreeSet;
use std::sync::Arc;

use llm_config_shared::limits::COMMIT_WRITES_MAX;
use llm_config_shared::name::{Environment, Tenant};
use llm_config_shared::replication::admit::Leader;
use llm_config_shared::store::purge::Purge;
use llm_config_shared::store::region::Following;
use llm_config_shared::store::{Commit, Head, Journal, JournalError};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::batch::{self, Plan, Waiting};
use super::lead::{self, Lead, Stood};
use super::purge::PurgeJob;
use super::{Job, SealKeys, WriteError};
use crate::clock::now;
use crate::processes::{ProcessAt, Processes, Role};
use crate::tail::Tail;

pub(super) struct Task<J, P, S> {
    pub(super) journal: Arc<J>,
    pub(super) processes: Arc<P>,
    pub(super) keys: Arc<S>,
    pub(super) tail: Arc<Tail>,
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) purges: mpsc::Receiver<PurgeJob>,
    pub(super) me: ProcessAt,
    pub(super) role: watch::Sender<Role>,
    /// Did not fit the last commit.
    pub(super) next: Option<Job>,
    /// Attempts to take the lead that failed, one after the other.
    pub(super) failures: u32,
}

/// What is done next.
enum Turn {
    Writes(Vec<Job>),
    Purge(PurgeJob),
    /// The lock is lost: another process may lead now.
    Lost,
    /// It is time to see whether the lead is to be had.
    Stand,
}

/// The lead is lost, or it is not known how far the database has come.
struct SteppedDown;

impl<J: Journal, P: Processes, S: SealKeys> Task<J, P, S> {
    pub(super) async fn run(mut self, mut lead: Option<Lead>) {
        metrics::gauge!("hub_leads").set(if lead.is_some() { 1.0 } else { 0.0 });
        let mut stand_at = Instant::now() + lead::watch();
        while let Some(turn) = self.turn(lead.as_mut(), stand_at).await {
            let led = lead.is_some();
            lead = match turn {
                Turn::Purge(job) => self.purge(lead, job).await,
                Turn::Writes(jobs) => self.write(lead, jobs).await,
                Turn::Stand => self.stand().await.ok().flatten(),
                Turn::Lost => {
                    tracing::warn!(
                        "the lead in writing is lost: the database ended this process's hold on it"
                    );
                    None
                }
            };
            if lead.is_none() {
                if led {
                    self.plays(Role::Vacant);
                }
                stand_at = Instant::now()
                    + if self.failures > 0 { lead::pause(self.failures) } else { lead::watch() };
            }
        }
    }

    /// None when nobody can send any more.
    async fn turn(&mut self, lead: Option<&mut Lead>, stand_at: Instant) -> Option<Turn> {
        let led = lead.is_some();
        let lost = async {
            match lead {
                Some(lead) => lead.hold.lost().await,
                None => std::future::pending().await,
            }
        };
        let first = match self.next.take() {
            Some(job) => job,
            None => tokio::select! {
                biased;
                () = lost => return Some(Turn::Lost),
                Some(job) = self.purges.recv() => return Some(Turn::Purge(job)),
                job = self.jobs.recv() => job?,
                () = sleep_until(stand_at), if !led => return Some(Turn::Stand),
            },
        };
        Some(Turn::Writes(self.collect(first)))
    }

    /// Commits what was handed in; a process that does not lead tries to, and else refuses.
    async fn write(&mut self, lead: Option<Lead>, jobs: Vec<Job>) -> Option<Lead> {
        let lead = match lead {
            Some(lead) => Ok(Some(lead)),
            None => self.stand().await,
        };
        match lead {
            Ok(Some(Lead { leader, hold })) => {
                let leader = self.commit(leader, jobs).await.ok()?;
                Some(Lead { leader, hold })
            }
            Ok(None) => {
                refuse_all(jobs.into_iter(), &JournalError::Fenced);
                None
            }
            Err(error) => {
                refuse_all(jobs.into_iter(), &error);
                // Callers that come back at once do not ask a database that is away as often.
                sleep(lead::pause(self.failures)).await;
                None
            }
        }
    }

    /// Takes the lead, unless another process has it.
    async fn stand(&mut self) -> Result<Option<Lead>, JournalError> {
        match lead::stand(&*self.journal, &*self.processes, &self.me).await {
            Ok(Stood::Leads(led)) => {
                let (lead, head) = *led;
                self.failures = 0;
                self.tail.observed(head);
                self.plays(Role::Leading);
                Ok(Some(lead))
            }
            Ok(Stood::Follows(leader)) => {
                self.failures = 0;
                self.plays(Role::Following(leader));
                Ok(None)
            }
            Err(error) => {
                if self.failures == 0 {
                    tracing::warn!(%error, "cannot take the lead in writing");
                }
                self.failures += 1;
                // Whoever followed still does: the one that leads may well reach the database.
                if !self.role.borrow().is_elsewhere() {
                    self.plays(Role::Vacant);
                }
                Err(error)
            }
        }
    }

    fn plays(&self, role: Role) {
        metrics::gauge!("hub_leads").set(if role == Role::Leading { 1.0 } else { 0.0 });
        self.role.send_if_modified(|known| {
            let changed = *known != role;
            if changed && let Some(at) = role.leader() {
                tracing::info!(leader = at.address, "another process of this hub leads; writes go there");
            }
            *known = role;
            changed
        });
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
        let started = std::time::Instant::now();
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

    /// Whoever does not lead leaves it to who does.
    async fn purge(&mut self, lead: Option<Lead>, job: PurgeJob) -> Option<Lead> {
        let PurgeJob { admitted_by, limit, reply } = job;
        let Some(lead) = lead else {
            drop(reply.send(Err(WriteError::Moved)));
            return None;
        };
        match self.journal.purge(&Purge { fence: lead.leader.fence(), admitted_by, limit }).await {
            Ok(purged) => {
                self.tail.purged(purged.horizon);
                drop(reply.send(Ok(purged.count)));
                Some(lead)
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
        let (regions, epochs) = match &commit.following {
            Some(Following { regions, epochs, .. }) => {
                (regions.clone(), epochs.clone().with(commit.fence.shard, known.own_epochs()))
            }
            None => (known.regions.clone(), known.epochs.clone()),
        };
        let shard = commit.fence.shard;
        let head = Head { shard, position, hlc: commit.hlc, horizon: known.horizon, epochs, regions };
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
        Job::HandIn { hand_in, .. } => hand_in.seals_in(),
        Job::Upload { .. } | Job::Follow { .. } => BTreeSet::new(),
    });
    places.collect()
}
