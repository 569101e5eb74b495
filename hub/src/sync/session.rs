//! The task of one stream: performs what the session's state machine asks for, and tells it what happened.
//!
//! It holds one transfer at a time, as shared bytes, and a channel of a few frames. An edge that reads slowly costs its
//! own task some waiting and nobody else anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use llm_config_proto::sync::{EdgeFrames, SyncError};
use llm_config_shared::entry::Author;
use llm_config_shared::limits::{CLOCK_EPSILON_MS, PROGRESS_MS_MAX};
use llm_config_shared::name::{EdgeName, Environment};
use llm_config_shared::newer::Taken;
use llm_config_shared::offline::SessionMark;
use llm_config_shared::replication::admit::{HandIn, Upload};
use llm_config_shared::replication::frame::{EdgeFrame, HubFrame, Refusal, Request};
use llm_config_shared::replication::hub::{HeadReport, HubSession, Input, Output, Part, Profile};
use llm_config_shared::replication::repair::Job;
use llm_config_shared::replication::rules::Rules;
use llm_config_shared::replication::seats::Greeting;
use llm_config_shared::secret::KeyGrant;
use llm_config_shared::segment::{LostHistory, newest_key_epoch};
use llm_config_shared::stamp::Hlc;
use llm_config_shared::store::{Head, Journal, JournalError, Loss};
use llm_config_shared::time::Instant;
use llm_config_shared::vector::Vector;
use llm_config_shared::write::{Answer, Verdict, Write};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;

use super::call::too_many;
use super::lag::Lag;
use super::limit::Said;
use super::measure;
use super::roster::Seat;
use super::service::Parts;
use crate::clock;
use crate::fanout::{Ask, Transfer};
use crate::guard::edge_caller;
use crate::processes::passing::Through;
use crate::registry::{Edge, Registry};

/// Frames that wait for the transport.
pub(super) const FRAMES_WAITING_MAX: usize = 4;
/// Requests of local callers under way.
const CALLS_MAX: usize = 32;
/// How long a frame may wait for the edge to read.
const SEND_TIME_MAX: Duration = Duration::from_millis(PROGRESS_MS_MAX);

/// One stream and everything that it needs.
pub(super) struct Session<J, R> {
    pub(super) parts: Arc<Parts<J, R>>,
    pub(super) edge: Arc<Edge>,
    pub(super) profile: Arc<Profile>,
    pub(super) seat: Seat,
    pub(super) out: mpsc::Sender<HubFrame>,
}

/// What the loop keeps beside the state machine.
struct Running {
    core: HubSession,
    jobs: JoinSet<Done>,
    calls: usize,
    /// What was said of the offline limits.
    limit: Said,
    /// The newest key epochs of environments whose keys the edge was sent.
    granted: BTreeMap<Environment, u64>,
    /// The sum of key epochs that the keys were last sent for.
    granted_for: u64,
    /// Keys for secrets are on their way: what needs them follows them.
    granting: bool,
    after_grants: Option<Ask>,
    /// What the edge said it has been told, in its first frame.
    floor: Vector,
    /// There are two of this replica.
    copied: bool,
    acknowledged_seq: u64,
    /// When the last transfer was complete.
    sent_at: Instant,
}

/// A job that is finished.
enum Done {
    Call(Input),
    Grants(Vec<KeyGrant>),
    /// A transfer, with keys that it turned out to need first.
    Feeds(Vec<KeyGrant>, Input),
    Other(Input),
}

/// The stream is over.
pub(super) struct Ended;

impl<J: Journal, R: Registry> Session<J, R> {
    pub(super) async fn run(mut self, mut frames: EdgeFrames) {
        let now = clock::instant();
        let mut running = Running {
            core: HubSession::new((*self.profile).clone(), Rules::ALL, now),
            jobs: JoinSet::new(),
            calls: 0,
            limit: Said::default(),
            granted: BTreeMap::new(),
            granted_for: self.seat.notice.borrow().key_epochs,
            granting: false,
            after_grants: None,
            floor: Vector::EMPTY,
            copied: false,
            acknowledged_seq: 0,
            sent_at: now,
        };
        let mut heads = self.parts.tail.subscribe();
        let mut told = heads.borrow_and_update().position.seq;
        self.heard(&running);
        loop {
            if self.perform(&mut running).await.is_err() || running.core.is_closed() {
                return;
            }
            let Some(at) = running.core.poll_timeout() else { return };
            let input = tokio::select! {
                frame = frames.next() => match self.take_frame(frame, &mut running) {
                    Some(input) => input,
                    None => return,
                },
                Some(done) = running.jobs.join_next(), if !running.jobs.is_empty() => match done {
                    Ok(done) => self.take_done(done, &mut running),
                    Err(_) => Input::Unavailable,
                },
                Ok(()) = heads.changed() => match self.news(&mut heads, &mut told) {
                    Some(input) => input,
                    None => continue,
                },
                Ok(()) = self.seat.notice.changed() => match self.noticed(&mut running) {
                    Some(input) => input,
                    None => match self.say_changed_limit(&mut running.limit).await {
                        Ok(()) => continue,
                        Err(Ended) => return,
                    },
                },
                () = running.limit.due() => match self.say_limit(&mut running.limit).await {
                    Ok(()) => continue,
                    Err(Ended) => return,
                },
                () = tokio::time::sleep_until(clock::deadline(at)) => {
                    running.core.handle_timeout(clock::instant());
                    continue;
                }
            };
            running.core.handle(input, clock::instant());
        }
    }

    fn take_frame(
        &self,
        frame: Option<Result<EdgeFrame, SyncError>>,
        running: &mut Running,
    ) -> Option<Input> {
        match frame? {
            Ok(frame) => {
                if let EdgeFrame::Hello(hello) = &frame {
                    running.floor = hello.floor.clone();
                    let mark = SessionMark { incarnation: hello.incarnation, session: hello.session };
                    running.limit.mark = Some(mark);
                    let greeting = Greeting { incarnation: hello.incarnation, session: hello.session };
                    if self.seat.greet(greeting) {
                        self.found_copy(running, "two of them are connected");
                    }
                }
                if let EdgeFrame::Subscribe { feeds, .. } = &frame {
                    let shard = self.parts.tail.head().shard;
                    let held = feeds.iter().map(|(_, vector)| vector.seq(shard)).max().unwrap_or(0);
                    running.acknowledged_seq = running.acknowledged_seq.max(held);
                }
                self.heard(running);
                Some(Input::Frame(frame))
            }
            Err(SyncError::Invalid(invalid)) => {
                tracing::info!(edge = %self.edge.name, %invalid, "a frame was not understood");
                Some(Input::Close(Refusal::Protocol(invalid.to_string().into())))
            }
            Err(error) => {
                tracing::debug!(edge = %self.edge.name, %error, "stream ended");
                None
            }
        }
    }

    fn take_done(&self, done: Done, running: &mut Running) -> Input {
        match done {
            Done::Other(input) => {
                let again = |answer: &Answer| answer.verdict == Verdict::Reidentify;
                if matches!(&input, Input::Decided { answers, .. } if answers.iter().any(again)) {
                    self.found_copy(running, "its writes bear numbers of others");
                }
                input
            }
            Done::Call(input) => {
                running.calls -= 1;
                input
            }
            Done::Grants(grants) => {
                running.sent(&grants);
                running.granting = false;
                if let Some(ask) = running.after_grants.take() {
                    self.read_feeds(running, ask);
                }
                Input::Grants(grants)
            }
            Done::Feeds(grants, input) => {
                running.sent(&grants);
                running.core.handle(Input::Grants(grants), clock::instant());
                input
            }
        }
    }

    /// Nothing of it is lost; but somebody restored an old state of a machine, or runs its image twice.
    fn found_copy(&self, running: &mut Running, why: &str) {
        if !std::mem::replace(&mut running.copied, true) {
            metrics::counter!("sync_copied_replicas_total").increment(1);
            tracing::warn!(
                edge = %self.edge.name,
                "the edge's data was copied or set back to an earlier state ({why}); the copy goes on under an identity of its own"
            );
        }
    }

    /// Something was committed; nothing if it was in none of the edge's feeds.
    fn news(&self, heads: &mut watch::Receiver<Arc<Head>>, told: &mut u64) -> Option<Input> {
        let seq = heads.borrow_and_update().position.seq;
        let moved = self.parts.tail.any_may_have_moved(&self.profile.feeds, *told, seq);
        *told = seq;
        moved.then_some(Input::Advanced)
    }

    fn noticed(&mut self, running: &mut Running) -> Option<Input> {
        let notice = self.seat.notice.borrow_and_update().clone();
        match notice.close {
            Some(refusal) => Some(Input::Close(refusal)),
            None if notice.key_epochs > running.granted_for => {
                running.granted_for = notice.key_epochs;
                self.seal_grants(running);
                None
            }
            None => None,
        }
    }

    /// Does what the state machine asks for, until it asks for nothing more.
    async fn perform(&mut self, running: &mut Running) -> Result<(), Ended> {
        while let Some(output) = running.core.poll_output() {
            match output {
                Output::Send(mut frame) => {
                    self.name_key(&mut frame).await;
                    if matches!(frame, HubFrame::End { .. }) {
                        running.sent_at = clock::instant();
                        let head = self.parts.tail.head().position.seq;
                        let changes = head.saturating_sub(running.acknowledged_seq);
                        self.seat.lags(Some(Lag { since: running.sent_at, changes }));
                    }
                    let welcome = matches!(frame, HubFrame::Welcome(_));
                    self.send(frame).await?;
                    if welcome {
                        self.say_limit(&mut running.limit).await?;
                    }
                }
                Output::ReadHead => self.read_head(running),
                Output::SealGrants => self.seal_grants(running),
                Output::Admit { batch, session, first, writes } => {
                    self.admit(running, batch, (session, first), writes);
                }
                Output::TakeIn { batch, loss, writes } => self.take_in(running, batch, loss, writes),
                Output::ReadFeeds { feeds, held, every } => {
                    self.read_feeds(running, Ask { feeds, held, every });
                }
                Output::Repair(job) => self.repair(running, job),
                Output::Call { id, request } => self.call(running, id, request),
                Output::Acknowledged(vector) => {
                    let shard = self.parts.tail.head().shard;
                    running.acknowledged_seq = running.acknowledged_seq.max(vector.seq(shard));
                    self.seat.lags(None);
                    let took_ms = clock::instant() - running.sent_at;
                    metrics::histogram!("sync_acknowledge_seconds").record(took_ms as f64 / 1_000.0);
                    self.heard(running);
                }
                Output::Close => return Err(Ended),
            }
        }
        Ok(())
    }

    /// What the edge seals to that is carried here.
    async fn name_key(&self, frame: &mut HubFrame) {
        let HubFrame::Welcome(welcome) = frame else { return };
        welcome.carry_key = self.parts.secrets.carry_key().await;
    }

    /// Waits until the edge reads, but not for ever, and not once the session is to end.
    pub(super) async fn send(&mut self, frame: HubFrame) -> Result<(), Ended> {
        measure::sent(&frame);
        let closing = async {
            let closed = self.seat.notice.wait_for(|notice| notice.close.is_some()).await.is_ok();
            if !closed {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            sent = self.out.send(frame) => sent.map_err(|_| Ended),
            () = closing => Err(Ended),
            () = tokio::time::sleep(SEND_TIME_MAX) => {
                tracing::info!(edge = %self.edge.name, "the edge does not read; its stream is given up");
                Err(Ended)
            }
        }
    }

    /// From memory, unless the edge has been told of more than this process knows of.
    fn read_head(&self, running: &mut Running) {
        let (parts, floor, copied) = (Arc::clone(&self.parts), running.floor.clone(), running.copied);
        running.jobs.spawn(async move {
            let mut head = (*parts.tail.head()).clone();
            let mut lost = Vec::new();
            // Whoever has just asked the database knows for certain that there is no more.
            let leads = !head.epochs.holds(&floor, &head.vector());
            if leads {
                (head, lost) = match asked(&parts).await {
                    Ok(asked) => asked,
                    Err(error) => return unavailable(&error, "the head"),
                };
            }
            let physical = clock::now();
            let hlc = head.hlc.max(Hlc::from_physical(physical));
            let epsilon_ms = CLOCK_EPSILON_MS;
            let report = HeadReport { head, physical, hlc, epsilon_ms, leads, copied, lost };
            Done::Other(Input::Head(report))
        });
    }

    fn seal_grants(&self, running: &mut Running) {
        running.granting = true;
        let (parts, edge, profile) =
            (Arc::clone(&self.parts), Arc::clone(&self.edge), Arc::clone(&self.profile));
        running.jobs.spawn(async move {
            match parts.secrets.grants_for(&edge, &profile.feeds, clock::now()).await {
                Ok(grants) => Done::Grants(grants),
                Err(error) => unavailable(&error, "the keys for secrets"),
            }
        });
    }

    fn admit(
        &self,
        running: &mut Running,
        batch: u64,
        (session, first): (u64, bool),
        mut writes: Vec<Write>,
    ) {
        for write in &mut writes {
            write.author.name = author(&self.edge.name, &write.author.name);
        }
        let upload = Upload {
            edge: self.edge.id,
            tenant: self.edge.tenant.clone(),
            write: self.profile.write.clone(),
            feeds: self.profile.feeds.clone(),
            environments: self.profile.environments.clone(),
            session,
            first,
            writes,
        };
        let parts = Arc::clone(&self.parts);
        running.jobs.spawn(async move {
            match parts.line.upload(&parts.writer, upload).await {
                Ok(answers) => Done::Other(Input::Decided { batch, answers }),
                Err(error) => unavailable(&error, "a decision on writes"),
            }
        });
    }

    /// Of what others wrote, the edge is who said it, and the author is hearsay.
    fn take_in(&self, running: &mut Running, batch: u64, loss: Loss, mut writes: Vec<Write>) {
        for write in &mut writes {
            let said = Arc::clone(&write.author.name);
            if write.id.actor == self.edge.id {
                write.author.name = author(&self.edge.name, &said);
            } else {
                write.author =
                    Author { name: format!("edge:{}", self.edge.name).into(), claimed: Some(said) };
            }
        }
        let hand_in = HandIn {
            edge: self.edge.id,
            name: self.edge.name.as_str().into(),
            tenant: self.edge.tenant.clone(),
            write: self.profile.write.clone(),
            feeds: self.profile.feeds.clone(),
            environments: self.profile.environments.clone(),
            new_epoch: loss.new_epoch,
            writes,
        };
        let (parts, edge) = (Arc::clone(&self.parts), self.edge.name.clone());
        running.jobs.spawn(async move {
            match parts.line.take_in(&parts.writer, hand_in).await {
                Ok(taken) => {
                    tell(&edge, &taken, loss);
                    Done::Other(Input::Taken { batch, taken })
                }
                Err(error) => unavailable(&error, "a decision on what was lost"),
            }
        });
    }

    fn read_feeds(&self, running: &mut Running, ask: Ask) {
        if running.granting {
            running.after_grants = Some(ask);
            return;
        }
        let (parts, edge, profile) =
            (Arc::clone(&self.parts), Arc::clone(&self.edge), Arc::clone(&self.profile));
        let granted = running.granted.clone();
        running.jobs.spawn(async move {
            let Transfer { to, epochs, parts: feeds } = match parts.fanout.transfer(&ask).await {
                Ok(transfer) => transfer,
                Err(error) => return unavailable(&error, "feeds"),
            };
            let mut grants = Vec::new();
            // A key epoch may have begun a moment ago, and nobody was told of it yet.
            if needs_keys(&feeds, &granted) {
                grants = match parts.secrets.grants_for(&edge, &profile.feeds, clock::now()).await {
                    Ok(grants) => grants,
                    Err(error) => return unavailable(&error, "the keys for secrets"),
                };
            }
            Done::Feeds(grants, Input::Feeds { to, epochs, parts: feeds })
        });
    }

    fn repair(&self, running: &mut Running, job: Job) {
        tracing::warn!(edge = %self.edge.name, "the edge's replica differs from the hub and is put right");
        let parts = Arc::clone(&self.parts);
        running.jobs.spawn(async move {
            match parts.fanout.repair(job).await {
                Ok(outcome) => Done::Other(Input::Repair(outcome)),
                Err(error) => unavailable(&error, "what differs"),
            }
        });
    }

    fn call(&self, running: &mut Running, id: u64, request: Request) {
        if running.calls >= CALLS_MAX {
            running.core.handle(Input::Replied { id, response: too_many() }, clock::instant());
            return;
        }
        running.calls += 1;
        let caller = edge_caller(&self.edge, &self.profile.environments, &request.caller);
        let calls = self.parts.calls.clone();
        let through = Through::Edge { edge: self.edge.id, caller: Arc::clone(&request.caller) };
        running.jobs.spawn(async move {
            Done::Call(Input::Replied { id, response: calls.answer(caller, through, request).await })
        });
    }

    fn heard(&self, running: &Running) {
        self.parts.presence.heard(self.edge.id, clock::now(), running.acknowledged_seq);
    }
}

impl Running {
    /// Keys are on their way to the edge.
    fn sent(&mut self, grants: &[KeyGrant]) {
        for grant in grants {
            let newest = self.granted.entry(grant.environment.clone()).or_default();
            *newest = grant.key_epoch.max(*newest);
        }
    }
}

/// Whether a transfer has secrets of a key epoch whose keys the edge was not sent.
fn needs_keys(parts: &[Part], granted: &BTreeMap<Environment, u64>) -> bool {
    parts.iter().filter(|part| part.feed.secrets).any(|part| {
        let newest = granted.get(&part.feed.environment).copied().unwrap_or(0);
        part.segments.iter().any(|segment| newest_key_epoch(segment).is_some_and(|epoch| epoch > newest))
    })
}

/// How far the database has come, and what it ever lost, said anew: an edge takes only what is newer than all that it
/// heard before.
async fn asked<J: Journal, R>(parts: &Parts<J, R>) -> Result<(Head, Vec<(Loss, Bytes)>), JournalError> {
    let (head, losses) = (parts.journal.head().await?, parts.journal.losses().await?);
    let signing = parts.identity.signing();
    let said = |loss: Loss| {
        let draft = LostHistory { loss, issued_at: clock::now(), key_id: signing.id() }.draft();
        let signature = signing.sign(&draft.message());
        (loss, draft.signed(&signature))
    };
    Ok((head, losses.into_iter().map(said).collect()))
}

/// Somebody has to look at what is held, and to know what is not kept.
fn tell(edge: &EdgeName, taken: &Taken, loss: Loss) {
    let Taken { known, admitted, held, denied, discarded, refused, left_out } = *taken;
    tracing::warn!(
        %edge, change = %loss.change().0, known, admitted, held, denied, discarded, refused, secrets_left_out = left_out,
        "an edge brought back what this hub lost when it was restored from a backup"
    );
}

/// The edge is told to come back; why is only for the log.
fn unavailable(error: &dyn std::error::Error, what: &str) -> Done {
    tracing::warn!(%error, "{what} cannot be had for an edge");
    Done::Other(Input::Unavailable)
}

/// Who wrote: the hub says which edge, the edge only which of its local callers.
pub(super) fn author(edge: &EdgeName, said: &str) -> Arc<str> {
    let prefix = format!("edge:{edge}/");
    if said.starts_with(&prefix) { said.into() } else { format!("{prefix}{said}").into() }
}
