//! The writer of a process that leads, or believes so: plans what queued, appends it, and answers.

use std::collections::VecDeque;

use llm_config_shared::name::EntryKey;
use llm_config_shared::newer::Taken;
use llm_config_shared::replication::admit::{
    ApiSubmission, Leader, OpOutcome, Planner, RepeatKey, SealUnavailable, Sealer, SettleOutcome,
    SettleSubmission, Submission,
};
use llm_config_shared::replication::hub::Input;
use llm_config_shared::secret::SealedSecret;
use llm_config_shared::store::purge::Purge;
use llm_config_shared::store::{Commit, Journal, JournalError, PlanningRequest, Repeat};
use llm_config_shared::write::Answer;
use rand::RngExt;

use super::{Event, World};
use crate::invariants::{Check, Violation, admission};
use crate::journal::ready;
use crate::network::StreamId;

/// What waits to be written, and for whom.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) asked: Asked,
    pub(super) waits: Waits,
}

/// What the writer is asked.
#[derive(Debug)]
pub(super) enum Asked {
    Writes(Submission),
    Decision(SettleSubmission),
}

impl Asked {
    fn needs(&self, request: &mut PlanningRequest) {
        match self {
            Self::Writes(submission) => submission.needs(request),
            Self::Decision(submission) => submission.needs(request),
        }
    }
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waits {
    Session {
        stream: StreamId,
        batch: u64,
    },
    Client {
        request: u64,
    },
    File {
        file: u64,
        batch: u64,
    },
    /// A person, who looks at the lists again.
    Nobody,
}

/// An answer that waits for its commit.
#[derive(Debug)]
enum Reply {
    Upload(Vec<Answer>),
    HandIn(Taken),
    /// None when it had been given before.
    Api(Option<Vec<OpOutcome>>),
    Decided(SettleOutcome),
}

#[derive(Debug)]
struct Flight {
    planned: Option<Box<(Commit, Leader)>>,
    purge: Option<Purge>,
    replies: Vec<(Waits, Reply)>,
    result: Result<(), JournalError>,
}

/// The queue, and the commit under way.
#[derive(Debug, Default)]
pub(super) struct Writer {
    queue: VecDeque<Job>,
    flight: Option<Flight>,
    purge_due: bool,
}

impl Writer {
    pub(super) fn wants_to_purge(&mut self) {
        self.purge_due = true;
    }
}

/// Makes ciphertext that nobody can open, the same for the same input.
struct FakeSealer;

impl Sealer for FakeSealer {
    fn seal(&mut self, at: &EntryKey, version: u64, text: &[u8]) -> Result<SealedSecret, SealUnavailable> {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(at.id().as_bytes());
        context.update(&version.to_be_bytes());
        context.update(text);
        let body = bytes::Bytes::copy_from_slice(context.finish().as_ref());
        Ok(SealedSecret { key_epoch: 1, version, about: Default::default(), wrap: body.clone(), body })
    }

    fn reseal(
        &mut self,
        at: &EntryKey,
        sealed: &SealedSecret,
        version: u64,
    ) -> Result<SealedSecret, SealUnavailable> {
        self.seal(at, version, &sealed.body)
    }
}

impl World {
    pub(super) fn submit(&mut self, hub: usize, job: Job) -> Check {
        self.hubs[hub].writer.queue.push_back(job);
        self.begin_commit(hub);
        Ok(())
    }

    /// Plans all that waits; the commit reaches the database later.
    pub(super) fn begin_commit(&mut self, hub: usize) {
        if self.hubs[hub].writer.flight.is_some() {
            return;
        }
        if std::mem::take(&mut self.hubs[hub].writer.purge_due)
            && let Some(purge) = self.old_deletions(hub)
        {
            return self.take_off(
                hub,
                Flight { planned: None, purge: Some(purge), replies: Vec::new(), result: Ok(()) },
            );
        }
        let process = &mut self.hubs[hub];
        if process.writer.queue.is_empty() {
            return;
        }
        let Some(leader) = process.leader.clone() else { return };
        let jobs: Vec<Job> = process.writer.queue.drain(..).collect();
        if jobs.len() > 1 {
            self.stats.count("group commits");
        }
        let mut request = PlanningRequest::default();
        for job in &jobs {
            job.asked.needs(&mut request);
        }
        let planning = ready(self.journal.planning(&request)).expect("the database is there");
        let mut planner = Planner::new(&leader, planning, self.hub_wall(hub)).with_rules(self.setup.rules);
        let replies = jobs.into_iter().map(|job| plan(&mut planner, job)).collect();
        let planned = planner.finish().map(Box::new);
        self.take_off(hub, Flight { planned, purge: None, replies, result: Ok(()) });
    }

    fn take_off(&mut self, hub: usize, flight: Flight) {
        self.hubs[hub].writer.flight = Some(flight);
        let life = self.hubs[hub].life;
        let after = self.rng.random_range(1..15);
        self.schedule(after, Event::Append { hub, life });
    }

    pub(super) fn append(&mut self, hub: usize, life: u32) -> Check {
        if self.hubs[hub].life != life {
            return Ok(());
        }
        let Some(mut flight) = self.hubs[hub].writer.flight.take() else { return Ok(()) };
        if let Some(purge) = &flight.purge {
            flight.result = self.purge(hub, purge)?;
        }
        if let Some(planned) = &flight.planned {
            flight.result = ready(self.journal.append(&planned.0));
            match &flight.result {
                Ok(()) => self.has_committed(hub, &planned.0)?,
                Err(JournalError::Fenced) => self.stats.count("fenced commits"),
                Err(error) => return Err(Violation::new("order", format!("hub {hub}: {error}"))),
            }
        }
        self.hubs[hub].writer.flight = Some(flight);
        let after = self.rng.random_range(0..6);
        self.schedule(after, Event::Appended { hub, life });
        Ok(())
    }

    fn has_committed(&mut self, hub: usize, commit: &Commit) -> Check {
        self.stats.count("commits");
        let (head, rows) = (commit.seq, commit.history.len());
        self.trace.write(self.now, format_args!("hub {hub} commits {rows} to {head}"));
        for row in &commit.history {
            let (id, place) = (row.stamp.id, (row.status, row.seq));
            let edge = id.actor.0.as_u128() & 0xffff;
            let at = &row.at;
            let line =
                format_args!("  {edge:x}:{} {} {} {place:?}", id.counter, at.scope.environment, at.key);
            self.trace.write(self.now, line);
        }
        let wall = self.wall();
        self.check_decisions(commit)?;
        admission::committed(&mut self.truth, &mut self.stats, commit, wall)?;
        self.count_stubs(commit);
        self.set_trap(commit);
        for other in 0..self.hubs.len() {
            let (life, after) = (self.hubs[other].life, self.latency());
            self.schedule(after, Event::Advanced { hub: other, life });
        }
        Ok(())
    }

    pub(super) fn appended(&mut self, hub: usize, life: u32) -> Check {
        if self.hubs[hub].life != life {
            return Ok(());
        }
        let Some(flight) = self.hubs[hub].writer.flight.take() else { return Ok(()) };
        // The process may have lost the lead and taken it anew since the commit was planned.
        let planned = flight.planned.as_ref().map(|planned| planned.0.fence);
        let planned_in =
            planned.or_else(|| flight.purge.map(|purge| purge.fence)).map(|fence| fence.position.epoch);
        let leads_in = self.hubs[hub].leader.as_ref().map(|leader| leader.fence().position.epoch);
        let same = planned_in.is_none() || planned_in == leads_in;
        if flight.result.is_err() {
            if same {
                self.step_down(hub);
            }
            return self.refuse(hub, flight.replies);
        }
        if let (Some(planned), true) = (flight.planned, same) {
            self.hubs[hub].leader = Some(planned.1);
        }
        for (waits, reply) in flight.replies {
            match (waits, reply) {
                (Waits::Session { stream, batch }, Reply::Upload(answers)) => {
                    self.hub_input(hub, stream, Input::Decided { batch, answers })?;
                }
                (Waits::Client { request }, Reply::Api(outcomes)) => self.answered(request, outcomes)?,
                (Waits::Session { stream, batch }, Reply::HandIn(taken)) => {
                    self.hub_input(hub, stream, Input::Taken { batch, taken })?;
                }
                (Waits::File { file, batch }, Reply::Upload(answers)) => {
                    self.file_decided(hub, file, batch, answers)?;
                }
                (Waits::Nobody, Reply::Decided(outcome)) => self.has_decided(&outcome),
                (Waits::Session { .. }, Reply::Api(_) | Reply::Decided(_))
                | (Waits::Client { .. }, Reply::Upload(_) | Reply::HandIn(_) | Reply::Decided(_))
                | (Waits::File { .. }, Reply::Api(_) | Reply::HandIn(_) | Reply::Decided(_))
                | (Waits::Nobody, Reply::Api(_) | Reply::Upload(_) | Reply::HandIn(_)) => {}
            }
        }
        self.begin_commit(hub);
        Ok(())
    }

    /// Somebody else writes: this process only reads from now on, and from a standby that may lag.
    fn step_down(&mut self, hub: usize) {
        self.trace.write(self.now, format_args!("hub {hub} steps down"));
        let behind = self.rng.random_range(0..4);
        let process = &mut self.hubs[hub];
        process.leader = None;
        process.sees = Some(self.journal.versions().saturating_sub(behind).max(1));
        // It looks by itself as well: after a purge no commit may follow that would tell it.
        let (life, after) = (process.life, self.latency());
        self.schedule(after, Event::Advanced { hub, life });
    }

    fn refuse(&mut self, hub: usize, replies: Vec<(Waits, Reply)>) -> Check {
        let queued = std::mem::take(&mut self.hubs[hub].writer.queue);
        let replies = replies.into_iter().map(|(waits, _)| waits);
        for waits in replies.chain(queued.into_iter().map(|job| job.waits)) {
            match waits {
                Waits::Session { stream, .. } => self.hub_input(hub, stream, Input::Unavailable)?,
                Waits::Client { request } => self.unanswered(request),
                Waits::File { file, .. } => self.sticks.drops(file),
                Waits::Nobody => {}
            }
        }
        Ok(())
    }

    /// A crash takes what was queued and what was not answered; clients only notice that nothing comes.
    pub(super) fn abandon_writer(&mut self, writer: Writer) {
        let replies = writer.flight.into_iter().flat_map(|flight| flight.replies).map(|(waits, _)| waits);
        for waits in replies.chain(writer.queue.into_iter().map(|job| job.waits)) {
            self.stats.count("answers lost with the hub");
            match waits {
                Waits::Client { request } => self.unanswered(request),
                Waits::File { file, .. } => self.sticks.drops(file),
                Waits::Session { .. } | Waits::Nobody => {}
            }
        }
    }
}

fn plan(planner: &mut Planner, job: Job) -> (Waits, Reply) {
    let reply = match job.asked {
        Asked::Writes(Submission::Upload(upload)) => Reply::Upload(planner.upload(&upload)),
        Asked::Writes(Submission::HandIn(hand_in)) => {
            Reply::HandIn(planner.hand_in(&hand_in, &mut FakeSealer))
        }
        Asked::Writes(Submission::Api(api)) => Reply::Api(plan_api(planner, api)),
        Asked::Decision(submission) => Reply::Decided(planner.settle(&submission, &mut FakeSealer)),
    };
    (job.waits, reply)
}

fn plan_api(planner: &mut Planner, api: ApiSubmission) -> Option<Vec<OpOutcome>> {
    let (tenant, repeat) = (api.tenant.clone(), api.change.zip(api.repeat));
    if repeat.is_some_and(|(change, repeat)| planner.repeated(&tenant, change, repeat.batch).is_some()) {
        return None;
    }
    let outcomes = planner.api(api, &mut FakeSealer);
    if let Some((change, RepeatKey { batch, request_hash })) = repeat {
        planner.remember(Repeat { tenant, change, batch, request_hash, answer: "done".into() });
    }
    Some(outcomes)
}
