//! The loop: one state machine, fed with frames, finished batches, local requests and time; everything impure is here.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use llm_config_proto::rest::service::{Clash, HeldAtHub, Told};
use llm_config_proto::sync::{Dial, RefusalKind, SyncError};
use llm_config_shared::name::EntryKey;
use llm_config_shared::offline::SessionMark;
use llm_config_shared::replication::edge::{
    Alert, EdgeReplica, Exported, Input, LocalWrite, NotTaken, Output, Published, WriteRefused,
};
use llm_config_shared::replication::frame::{EdgeFrame, HubFrame, Refusal, Response};
use llm_config_shared::segment::{Rejected, VerificationKeys};
use llm_config_shared::store::replica::{ReplicaStore, StoreError};
use llm_config_shared::time::Instant;
use llm_config_shared::write::Verdict;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::link::{Attempt, INCOMING_MAX, Link, LinkEvent};
use crate::offline::Offline;
use crate::run::random_u64;
use crate::view::View;

pub mod carrying;
pub(crate) mod committer;
pub mod handle;
pub mod notes;

use carrying::Carrying;
use committer::{Committer, Done};
use handle::{Command, Progress, Queued};
use notes::{Notes, Topic};

/// The disk is read again and compared this often, in milliseconds. A start does that, too.
const REREAD_EVERY_MS: u64 = 7 * 86_400_000;
/// Outputs performed in a row before other things are looked at.
const OUTPUTS_IN_A_ROW: usize = 1_024;

/// Why the loop ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Stopped,
    /// The hub's signing keys have changed: begin anew from the store.
    Reload,
    Disk(StoreError),
}

/// What the loop shares with the rest of the daemon.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) view: Arc<View>,
    pub(crate) offline: Arc<Offline>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) notes: Arc<Notes>,
    /// Replaced at every renewal.
    pub(crate) dial: Arc<ArcSwap<Dial>>,
    /// Wakes the renewal of the certificate.
    pub(crate) renew: Arc<Notify>,
}

/// The state machine with its disk and its network.
pub(crate) struct Loop<'a, S> {
    replica: EdgeReplica,
    committer: Committer<S>,
    commands: &'a mut mpsc::Receiver<Command>,
    around: Surroundings,
    link: Option<Link>,
    attempts: Attempt,
    events: mpsc::Receiver<(Attempt, LinkEvent)>,
    event_sender: mpsc::Sender<(Attempt, LinkEvent)>,
    requests: Requests,
    /// A file that takes the place of a connection.
    carrying: Option<Carrying>,
    exporting: Option<oneshot::Sender<Result<Box<Exported>, NotTaken>>>,
    /// The first batch of what readers see replaces everything.
    published: bool,
    hub_offset_ms: i64,
    /// What the hub signs with.
    keys: VerificationKeys,
    reread_at: Instant,
    failed: Option<StoreError>,
}

/// Who waits for what.
#[derive(Default)]
struct Requests {
    last_ticket: u64,
    writes: BTreeMap<u64, oneshot::Sender<Result<Queued, WriteRefused>>>,
    /// By counter.
    decisions: BTreeMap<u64, oneshot::Sender<Verdict>>,
    calls: BTreeMap<u64, oneshot::Sender<Option<Response>>>,
}

impl Requests {
    fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    fn queued(&mut self, ticket: u64, counter: u64, place: u64) {
        let Some(answer) = self.writes.remove(&ticket) else { return };
        let (decide, decided) = oneshot::channel();
        // Who gave up waiting is forgotten here, so that the map is bounded by those who wait.
        self.decisions.retain(|_, waiting| !waiting.is_closed());
        if answer.send(Ok(Queued::new(place, decided))).is_ok() {
            self.decisions.insert(counter, decide);
        }
    }
}

impl<'a, S: ReplicaStore + 'static> Loop<'a, S> {
    pub(crate) fn new(
        replica: EdgeReplica,
        committer: Committer<S>,
        commands: &'a mut mpsc::Receiver<Command>,
        around: Surroundings,
        hub_offset_ms: i64,
        keys: VerificationKeys,
    ) -> Self {
        let (event_sender, events) = mpsc::channel(INCOMING_MAX);
        let reread_at = around.clock.now() + REREAD_EVERY_MS;
        Self {
            replica,
            committer,
            commands,
            around,
            link: None,
            attempts: 0,
            events,
            event_sender,
            requests: Requests::default(),
            carrying: None,
            exporting: None,
            published: false,
            hub_offset_ms,
            keys,
            reread_at,
            failed: None,
        }
    }

    /// Runs until told to stop, or until it has to begin anew. Gives the store back with everything durable that was
    /// queued.
    pub(crate) async fn run(mut self, stop: &CancellationToken) -> (Ended, Option<S>) {
        let ended = loop {
            let drained = self.perform_outputs();
            self.around.view.set_connected(self.replica.is_connected());
            if let Some(error) = self.failed.take() {
                break Ended::Disk(error);
            }
            if !drained {
                tokio::task::yield_now().await;
                continue;
            }
            let due = self.replica.poll_timeout();
            let clock = Arc::clone(&self.around.clock);
            tokio::select! {
                () = stop.cancelled() => break Ended::Stopped,
                done = self.committer.done() => self.handle_done(done),
                Some((attempt, event)) = self.events.recv() => self.handle_event(attempt, event),
                command = self.commands.recv() => match command {
                    Some(command) => {
                        if let Some(ended) = self.handle_command(command) {
                            break ended;
                        }
                    }
                    None => break Ended::Stopped,
                },
                () = until(&clock, due) => self.replica.handle_timeout(clock.now()),
                () = until(&clock, Some(self.reread_at)) => {
                    self.reread_at = clock.now() + REREAD_EVERY_MS;
                    self.committer.reread();
                }
            }
        };
        self.around.view.set_connected(false);
        drop(self.link);
        (ended, self.committer.finish().await)
    }

    fn now(&self) -> Instant {
        self.around.clock.now()
    }

    fn handle_done(&mut self, done: Done) {
        let now = self.now();
        match done {
            Done::Committed(Ok(())) => self.replica.handle(Input::Committed, now),
            Done::Reread(Ok(records)) => {
                metrics::counter!("sync_rereads_total").increment(1);
                self.replica.handle(Input::Reread(records), now);
            }
            Done::Recalled(Ok(records)) => self.replica.handle(Input::Recalled(records), now),
            Done::Reread(Err(error)) | Done::Recalled(Err(error)) => {
                tracing::error!(%error, "the replica on the disk cannot be read again; it is opened anew");
                self.failed = Some(error);
            }
            Done::Committed(Err(error)) => {
                self.failed = Some(error.clone());
                self.replica.handle(Input::CommitFailed(error), now);
            }
        }
    }

    fn handle_event(&mut self, attempt: Attempt, event: LinkEvent) {
        if self.link.as_ref().is_none_or(|link| link.attempt != attempt) {
            return;
        }
        let now = self.now();
        match event {
            LinkEvent::Opened => match random_u64() {
                Ok(random) => self.replica.handle(Input::Connected { spare: random >> 1 }, now),
                Err(error) => {
                    tracing::warn!(%error, "no session without random numbers");
                    self.link = None;
                    self.replica.handle(Input::Disconnected, now);
                }
            },
            LinkEvent::Frame(frame) => {
                self.look_at(&frame);
                if let HubFrame::OfflineLimit(statement) = &frame
                    && !self.heard_carried(statement)
                {
                    self.heard(statement);
                }
                self.replica.handle(Input::Frame(frame), now);
            }
            LinkEvent::Closed(error) => {
                self.link = None;
                self.note_closed(error.as_ref());
                self.replica.handle(Input::Disconnected, now);
            }
        }
    }

    fn look_at(&self, frame: &HubFrame) {
        match frame {
            HubFrame::Welcome(welcome) => {
                metrics::counter!("sync_connections_total", "outcome" => "served").increment(1);
                self.around.notes.clear(Topic::Hub);
                self.around.offline.keep_hub_key(welcome.carry_key.as_deref());
                self.around.view.set_hub_clock(welcome.physical);
                tracing::info!("the hub is connected");
            }
            HubFrame::Segment { bytes, .. } => {
                metrics::counter!("sync_received_bytes_total").increment(bytes.len() as u64);
            }
            // Whether it is so the hub says signed, to a renewal.
            HubFrame::Refused { refusal: Refusal::Removed, .. } => self.around.renew.notify_one(),
            HubFrame::Refused { .. }
            | HubFrame::UploadResult { .. }
            | HubFrame::Taken { .. }
            | HubFrame::OfflineLimit(_)
            | HubFrame::Grants(_)
            | HubFrame::Checkpoint { .. }
            | HubFrame::End { .. }
            | HubFrame::Reply { .. }
            | HubFrame::Repair { .. } => {}
        }
    }

    /// The hub has said how long secrets stay open from now on.
    fn heard(&self, statement: &Bytes) {
        match self.around.offline.heard(statement, &self.keys) {
            Ok(()) => {
                self.around.view.unlock_secrets();
                self.around.notes.clear(Topic::Offline);
            }
            Err(reason) => {
                metrics::counter!("sync_rejected_total", "reason" => reason_label(&reason)).increment(1);
                tracing::warn!(%reason, "the hub's word on the offline limit is not taken");
                // A key that is not known yet may be in the statement that comes with a renewal; and a hub that was restored
                // learns by it what to seal to.
                if matches!(reason, Rejected::UnknownKey | Rejected::Hash) {
                    self.around.renew.notify_one();
                }
            }
        }
    }

    /// Whatever it was, the loop goes on and nothing is discarded; a certificate that is not taken is renewed.
    fn note_closed(&self, error: Option<&SyncError>) {
        let Some(error) = error else { return tracing::info!("the hub ended the connection") };
        let outcome = match error {
            SyncError::CertificateRefused(_) => {
                self.around.renew.notify_one();
                "certificate"
            }
            SyncError::Refused(refusal) => {
                if refusal.kind == RefusalKind::Removed {
                    self.around.renew.notify_one();
                }
                "refused"
            }
            SyncError::UntrustedHub(_) | SyncError::Tls(_) => "untrusted",
            SyncError::Invalid(_) => "invalid",
            SyncError::Unreachable { .. } | SyncError::Lost(_) => "unreachable",
        };
        metrics::counter!("sync_connections_total", "outcome" => outcome).increment(1);
        if self.around.notes.warn(Topic::Hub, error.to_string()) {
            tracing::warn!(%error, "no connection to the hub; reads go on, writes wait");
        }
    }

    fn handle_command(&mut self, command: Command) -> Option<Ended> {
        let now = self.now();
        match command {
            Command::Write { write, answer } => {
                let ticket = self.requests.ticket();
                self.requests.writes.insert(ticket, answer);
                let write = LocalWrite {
                    ticket,
                    at: write.at,
                    action: write.action,
                    author: write.author,
                    message: write.message,
                    change: write.change,
                };
                self.replica.handle(Input::Write(write), now);
            }
            Command::Call { request, answer } => {
                let ticket = self.requests.ticket();
                self.requests.calls.insert(ticket, answer);
                self.replica.handle(Input::Call { ticket, request }, now);
            }
            Command::Ask => self.replica.handle(Input::Ask, now),
            Command::ConnectNow => self.replica.handle(Input::ConnectNow, now),
            // Nobody waits for it any more.
            Command::Progress(answer) => drop(answer.send(self.progress())),
            Command::Carry { carried, frames, answer } => self.carry(carried, frames, answer),
            Command::Export(answer) => self.export(answer),
            Command::Reload => return Some(Ended::Reload),
        }
        None
    }

    fn progress(&self) -> Progress {
        let behind = self.replica.feeds().map(|(_, _, vector, floor)| {
            floor.iter().map(|(shard, told)| told.seq.saturating_sub(vector.seq(shard))).sum()
        });
        Progress { behind: behind.max().unwrap_or(0), undecided: self.replica.undecided() }
    }

    /// Whether nothing is left to be performed.
    fn perform_outputs(&mut self) -> bool {
        for _ in 0..OUTPUTS_IN_A_ROW {
            let Some(output) = self.replica.poll_output() else { return true };
            self.perform(output);
        }
        false
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Connect => {
                self.attempts += 1;
                let dial = Dial::clone(&self.around.dial.load());
                self.link = Some(Link::open(dial, self.attempts, self.event_sender.clone()));
            }
            Output::Disconnect => self.link = None,
            Output::Send(frame) => {
                if let EdgeFrame::Hello(hello) = &frame {
                    let mark = SessionMark { incarnation: hello.incarnation, session: hello.session };
                    self.around.offline.asked(mark);
                }
                let stuck = self.link.as_ref().is_some_and(|link| link.send(frame).is_err());
                if stuck {
                    tracing::warn!("the connection to the hub takes nothing any more; it is given up");
                    self.link = None;
                    let now = self.now();
                    self.replica.handle(Input::Disconnected, now);
                }
            }
            Output::Commit(batch) => self.committer.commit(batch),
            Output::Recall => self.committer.recall(),
            Output::Publish(published) => self.publish(published),
            Output::Carried(outcome) => self.end_carrying(outcome),
            Output::Exported(exported) => self.exported(exported),
            Output::Queued { ticket, counter, place } => self.requests.queued(ticket, counter, place),
            Output::WriteRefused { ticket, reason } => {
                if let Some(answer) = self.requests.writes.remove(&ticket) {
                    let _ = answer.send(Err(reason));
                }
            }
            Output::Decided { counter, at, verdict } => {
                self.tell_decision(at, &verdict);
                if let Some(answer) = self.requests.decisions.remove(&counter) {
                    let _ = answer.send(verdict);
                }
            }
            Output::Replied { ticket, response } => self.answer_call(ticket, Some(response)),
            Output::CallFailed { ticket } => self.answer_call(ticket, None),
            Output::Alert(alert) => self.note(&alert),
        }
    }

    fn publish(&mut self, published: Published) {
        if let Some(carrying) = &mut self.carrying {
            carrying.count(&published);
        }
        if std::mem::replace(&mut self.published, true) {
            self.around.view.switch(published);
        } else {
            self.around.view.replace(published, self.hub_offset_ms);
        }
    }

    /// What became of an own write that is nobody's value now.
    fn tell_decision(&self, at: EntryKey, verdict: &Verdict) {
        match verdict {
            Verdict::Lost { version, to } => {
                self.around.notes.count_lost();
                metrics::counter!("sync_conflicts_total").increment(1);
                tracing::warn!(
                    entry = %at.id(), version, winner = to,
                    "a write of this edge lost to one made at the same time; the hub's history has it"
                );
                self.around.view.tell(Told::Conflict(Clash {
                    conflict: None,
                    at,
                    winner_version: Some(*to).filter(|version| *version > 0),
                    loser_version: *version,
                    winner: None,
                    loser: None,
                    position: None,
                }));
            }
            Verdict::Held(reason) => {
                let reason = reason.to_string().into();
                self.around.view.tell(Told::Held(HeldAtHub { at, reason }));
            }
            Verdict::Admitted { .. } | Verdict::Denied(_) | Verdict::Duplicate | Verdict::Reidentify => {}
        }
    }

    fn answer_call(&mut self, ticket: u64, response: Option<Response>) {
        if let Some(answer) = self.requests.calls.remove(&ticket) {
            let _ = answer.send(response);
        }
    }

    fn note(&self, alert: &Alert) {
        let notes = &self.around.notes;
        match alert {
            Alert::Refused(_) => drop(notes.warn(Topic::Hub, alert.to_string())),
            Alert::Rejected(reason) => {
                metrics::counter!("sync_rejected_total", "reason" => reason_label(reason)).increment(1);
                // A key that is not known yet may be in the statement that comes with a renewal.
                if *reason == Rejected::UnknownKey {
                    self.around.renew.notify_one();
                }
            }
            Alert::Held { .. } => notes.count_held(),
            Alert::Denied { .. } => notes.count_denied(),
            Alert::Store(_) => drop(notes.warn(Topic::Disk, alert.to_string())),
            Alert::LostHistory => drop(notes.warn(Topic::Hub, alert.to_string())),
            Alert::HandedIn(taken) => {
                for (outcome, count) in taken.counts() {
                    metrics::counter!("sync_newer_writes_total", "outcome" => outcome).increment(count);
                }
            }
            Alert::Copied { .. } => {
                metrics::counter!("sync_copied_replicas_total").increment(1);
                notes.warn(Topic::Copy, alert.to_string());
            }
            Alert::Differs(_) => metrics::counter!("sync_repairs_total").increment(1),
            Alert::Rewritten { entries } => {
                metrics::counter!("sync_rewritten_entries_total").increment(*entries as u64);
            }
            Alert::Repaired { entries, .. } => {
                metrics::counter!("sync_repaired_entries_total").increment(*entries as u64);
            }
            Alert::Silent => {}
        }
        tracing::warn!("{alert}");
    }
}

/// A label for each way in which a message is not taken; what exactly it was is in the log.
fn reason_label(reason: &Rejected) -> &'static str {
    match reason {
        Rejected::TooLarge { .. } => "too_large",
        Rejected::Format(_) => "format",
        Rejected::UnknownKey => "unknown_key",
        Rejected::Signature => "signature",
        Rejected::NotMine(_) => "not_mine",
        Rejected::BelowFloor => "older_than_seen",
        Rejected::Gap { .. } => "gap",
        Rejected::UnknownEpoch => "unknown_history",
        Rejected::LostHistory => "lost_history",
        Rejected::NotHeld => "not_held",
        Rejected::Hash => "hash",
        Rejected::Inflate => "inflate",
        Rejected::Decode(_) => "unreadable",
        Rejected::ForeignRow => "foreign_entry",
        Rejected::Order => "order",
        Rejected::Base => "base",
        Rejected::Digest => "digest",
    }
}

async fn until(clock: &Clock, due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep(clock.until(due)).await,
        None => std::future::pending().await,
    }
}
