//! One group commit: jobs in, plan, answers out.

use std::collections::BTreeSet;
use std::sync::Arc;

use llm_config_shared::name::Scope;
use llm_config_shared::newer::Taken;
use llm_config_shared::replication::admit::{
    ApiSubmission, Leader, NotFollowed, OpOutcome, Planner, Sealer, SettleOutcome,
};
use llm_config_shared::store::{Commit, Planning, PlanningRequest, Repeat};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::Vector;
use llm_config_shared::write::Answer;
use tokio::sync::oneshot;

use super::{Job, RenderAnswer, WriteError, Written};

impl Job {
    /// How many writes it counts for; one that has none still takes a place.
    pub(super) fn writes(&self) -> usize {
        match self {
            Self::Api { submission, .. } => submission.operations.len().max(1),
            Self::Upload { upload, .. } => upload.writes.len().max(1),
            Self::HandIn { hand_in, .. } => hand_in.writes.len().max(1),
            Self::Settle { .. } => 1,
            Self::Follow { page, .. } => page.writes.len().max(1),
        }
    }

    /// Answers without having judged.
    pub(super) fn refuse(self, error: WriteError) {
        match self {
            Self::Api { reply, .. } => drop(reply.send(Err(error))),
            Self::Upload { reply, .. } => drop(reply.send(Err(error))),
            Self::HandIn { reply, .. } => drop(reply.send(Err(error))),
            Self::Settle { reply, .. } => drop(reply.send(Err(error))),
            Self::Follow { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// An answer that must wait for the commit.
pub(super) enum Waiting {
    Api {
        reply: oneshot::Sender<Result<Written, WriteError>>,
        outcome: Judged,
    },
    Upload {
        reply: oneshot::Sender<Result<Vec<Answer>, WriteError>>,
        answers: Vec<Answer>,
    },
    Settle {
        reply: oneshot::Sender<Result<SettleOutcome, WriteError>>,
        outcome: SettleOutcome,
    },
    Follow {
        reply: oneshot::Sender<Result<Result<(), NotFollowed>, WriteError>>,
        taken: Result<(), NotFollowed>,
    },
    HandIn {
        reply: oneshot::Sender<Result<Taken, WriteError>>,
        taken: Taken,
    },
}

pub(super) enum Judged {
    Now(Vec<OpOutcome>),
    Before(Arc<str>),
    Reused,
}

impl Waiting {
    /// The commit is durable up to `position`.
    pub(super) fn answer(self, position: &Vector) {
        match self {
            Self::Upload { reply, answers } => drop(reply.send(Ok(answers))),
            Self::HandIn { reply, taken } => drop(reply.send(Ok(taken))),
            Self::Settle { reply, outcome } => drop(reply.send(Ok(outcome))),
            Self::Follow { reply, taken } => drop(reply.send(Ok(taken))),
            Self::Api { reply, outcome } => drop(reply.send(match outcome {
                Judged::Now(outcomes) => Ok(Written::Now { outcomes, position: position.clone() }),
                Judged::Before(answer) => Ok(Written::Before { answer, position: position.clone() }),
                Judged::Reused => Err(WriteError::Reused),
            })),
        }
    }

    /// The commit did not happen, or is not known to have.
    pub(super) fn refuse(self, error: WriteError) {
        match self {
            Self::Upload { reply, .. } => drop(reply.send(Err(error))),
            Self::HandIn { reply, .. } => drop(reply.send(Err(error))),
            Self::Settle { reply, .. } => drop(reply.send(Err(error))),
            Self::Follow { reply, .. } => drop(reply.send(Err(error))),
            Self::Api { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// What the plan of all jobs needs to know.
pub(super) fn needs(jobs: &[Job]) -> PlanningRequest {
    let mut request = PlanningRequest::default();
    for job in jobs {
        match job {
            Job::Api { submission, .. } => submission.needs(&mut request),
            Job::Upload { upload, .. } => upload.needs(&mut request),
            Job::HandIn { hand_in, .. } => hand_in.needs(&mut request),
            Job::Settle { submission, .. } => submission.needs(&mut request),
            Job::Follow { page, .. } => page.needs(&mut request),
        }
    }
    request.keys.sort();
    request.keys.dedup();
    request
}

/// A planned batch.
pub(super) struct Plan {
    /// None when nothing is to be written.
    pub(super) commit: Option<(Commit, Leader)>,
    pub(super) waiting: Vec<Waiting>,
}

/// Judges the jobs in the order they came, each seeing the ones before it.
pub(super) fn plan(
    leader: &Leader,
    planning: Planning,
    physical: UnixMillis,
    jobs: Vec<Job>,
    sealer: &mut impl Sealer,
) -> Plan {
    let mut planner = Planner::new(leader, planning, physical);
    let waiting = jobs
        .into_iter()
        .map(|job| match job {
            Job::Upload { upload, reply } => Waiting::Upload { reply, answers: planner.upload(&upload) },
            Job::HandIn { hand_in, reply } => {
                Waiting::HandIn { reply, taken: planner.hand_in(&hand_in, sealer) }
            }
            Job::Settle { submission, reply } => {
                Waiting::Settle { reply, outcome: planner.settle(&submission, sealer) }
            }
            Job::Follow { page, reply } => Waiting::Follow { reply, taken: planner.follow_region(*page) },
            Job::Api { submission, render, reply } => {
                let outcome = judge(&mut planner, submission, render, sealer);
                Waiting::Api { reply, outcome }
            }
        })
        .collect();
    Plan { commit: planner.finish(), waiting }
}

fn judge(
    planner: &mut Planner,
    submission: ApiSubmission,
    render: Option<RenderAnswer>,
    sealer: &mut impl Sealer,
) -> Judged {
    let (tenant, dry_run) = (submission.tenant.clone(), submission.dry_run);
    let Some((change, key)) = submission.change.zip(submission.repeat) else {
        return Judged::Now(planner.api(submission, sealer));
    };
    if let Some(known) = planner.repeated(&tenant, change, key.batch) {
        return if known.request_hash == key.request_hash {
            Judged::Before(Arc::clone(&known.answer))
        } else {
            Judged::Reused
        };
    }
    let outcomes = planner.api(submission, sealer);
    if let Some(render) = render.filter(|_| !dry_run) {
        let answer = render(&outcomes);
        let (batch, request_hash) = (key.batch, key.request_hash);
        planner.remember(Repeat { tenant, change, batch, request_hash, answer });
    }
    Judged::Now(outcomes)
}

/// The scopes in which a reader may find something else after the commit.
pub(super) fn moved_scopes(commit: &Commit) -> Vec<Scope> {
    let scopes: BTreeSet<&Scope> = commit.rows.iter().map(|row| &row.row.at.scope).collect();
    scopes.into_iter().cloned().collect()
}
