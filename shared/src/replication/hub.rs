//! The hub's half of one session: a state machine without I/O.
//!
//! A session holds a few vectors and a dirty bit, however far behind its edge is. There is at most one transfer under way:
//! what happens meanwhile sets the bit, and the next transfer carries it all at once.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::frame::{EdgeFrame, Hello, HubFrame, PROTOCOL, Refusal, Request, Response, Welcome};
use super::repair;
use super::rules::Rules;
use crate::feed::{Environments, Feed};
use crate::held::Held;
use crate::limits::{FEEDS_MAX, HEARTBEAT_MS, PROGRESS_MS_MAX, UPLOAD_BYTES_MAX, UPLOAD_WRITES_MAX};
use crate::name::{Environment, Subtree};
use crate::newer::Taken;
use crate::secret::KeyGrant;
use crate::stamp::Hlc;
use crate::store::{Head, Loss};
use crate::time::{Instant, UnixMillis};
use crate::vector::{Epochs, Vector};
use crate::write::{Answer, Write};

mod footprint;
mod mending;

use mending::Mending;

/// What the hub knows of the edge at the other end.
#[derive(Clone, Debug)]
pub struct Profile {
    pub feeds: Vec<Feed>,
    pub environments: Environments,
    pub default_environment: Environment,
    pub write: Vec<Subtree>,
}

/// The hub's position and clocks at a handshake.
#[derive(Clone, Debug)]
pub struct HeadReport {
    pub head: Head,
    pub physical: UnixMillis,
    /// At least every stamp that was admitted.
    pub hlc: Hlc,
    pub epsilon_ms: u64,
    /// Whether this process is the one that writes, and so knows the head for certain.
    pub leads: bool,
    /// What was lost of the hub's history, newest first, each with the signed statement of it. Only wanted where the
    /// edge has seen what is not in the history.
    pub lost: Vec<(Loss, Bytes)>,
    /// Another session of the same incarnation is open that is not older than this one.
    pub copied: bool,
}

/// One feed of a transfer, as the shared cache made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub feed: Feed,
    /// Empty when the edge has everything.
    pub segments: Vec<Bytes>,
    pub checkpoint: Bytes,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    Frame(EdgeFrame),
    /// The answer to [`Output::ReadHead`].
    Head(HeadReport),
    /// Something was committed at the hub.
    Advanced,
    /// The answer to [`Output::Admit`].
    Decided {
        batch: u64,
        answers: Vec<Answer>,
    },
    /// The answer to [`Output::TakeIn`].
    Taken {
        batch: u64,
        taken: Taken,
    },
    /// The answer to [`Output::ReadFeeds`]: all feeds from one snapshot at `to`.
    Feeds {
        to: Vector,
        epochs: Epochs,
        parts: Vec<Part>,
    },
    /// The answer to [`Output::SealGrants`].
    Grants(Vec<KeyGrant>),
    /// The answer to [`Output::Call`].
    Replied {
        id: u64,
        response: Response,
    },
    /// The answer to [`Output::Repair`].
    Repair(repair::Outcome),
    /// The database or the writer did not answer a request of this session.
    Unavailable,
    /// The session must end: the edge was removed, replaced, or is to receive something else.
    Close(Refusal),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Send(HubFrame),
    ReadHead,
    SealGrants,
    Admit {
        batch: u64,
        session: u64,
        /// Nothing was uploaded in this session before.
        first: bool,
        writes: Vec<Write>,
    },
    /// Writes of this loss that the edge hands in.
    TakeIn {
        batch: u64,
        loss: Loss,
        writes: Vec<Write>,
    },
    /// With `every`, each feed's checkpoint is wanted; without, feeds in which nothing is new may be left out.
    ReadFeeds {
        feeds: Vec<(Feed, Vector)>,
        /// What the receiver holds of a transfer that broke off, where it does.
        held: BTreeMap<Feed, Held>,
        every: bool,
    },
    Call {
        id: u64,
        request: Request,
    },
    /// At most one at a time.
    Repair(repair::Job),
    /// The edge has made this durable.
    Acknowledged(Vector),
    /// End the stream once everything before this has been sent.
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has been said.
    Silent,
    /// Hello has come; the head is being read.
    Greeting,
    /// Welcome was sent; uploads and calls are taken, nothing is sent yet.
    Welcomed,
    /// The edge has subscribed.
    Serving,
    Closed,
}

/// What the read under way is for.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    whole: bool,
    asked: bool,
}

/// The hub's half of one session.
#[derive(Debug)]
pub struct HubSession {
    rules: Rules,
    profile: Profile,
    phase: Phase,
    session: u64,
    uploaded: bool,
    /// The loss that the edge was told of in this session.
    told_of: Option<Loss>,
    /// What the edge was told of, by this hub or another.
    floor: Vector,
    /// The history as the edge knows it.
    epochs: Epochs,
    /// Where the next transfer of each feed begins.
    sent: BTreeMap<Feed, Vector>,
    /// What the edge holds of a transfer that broke off, until the next one has been sent.
    held: BTreeMap<Feed, Held>,
    /// The transfer that has not been acknowledged, and what it brings the edge to.
    in_flight: Option<(u64, Vector)>,
    last_transfer: u64,
    reading: Option<Reading>,
    /// What is being read was asked for before the edge subscribed again.
    outdated: bool,
    dirty: bool,
    /// The next transfer names every feed, changed or not.
    whole: bool,
    /// A checkpoint was asked for.
    asked: bool,
    mending: Mending,
    heartbeat_at: Instant,
    progress_by: Instant,
    outputs: VecDeque<Output>,
}

impl HubSession {
    /// A stream of an edge whose certificate has been checked.
    pub fn new(profile: Profile, rules: Rules, now: Instant) -> Self {
        Self {
            rules,
            profile,
            phase: Phase::Silent,
            session: 0,
            uploaded: false,
            told_of: None,
            floor: Vector::EMPTY,
            epochs: Epochs::default(),
            sent: BTreeMap::new(),
            held: BTreeMap::new(),
            in_flight: None,
            last_transfer: 0,
            reading: None,
            outdated: false,
            dirty: false,
            whole: false,
            asked: false,
            mending: Mending::default(),
            heartbeat_at: now + HEARTBEAT_MS,
            progress_by: now + PROGRESS_MS_MAX,
            outputs: VecDeque::new(),
        }
    }

    /// Takes what happened. Drain [`poll_output`](Self::poll_output) afterwards.
    pub fn handle(&mut self, input: Input, now: Instant) {
        if self.phase == Phase::Closed {
            return;
        }
        match input {
            Input::Frame(frame) => self.handle_frame(frame, now),
            Input::Head(report) => self.handle_head(report),
            Input::Advanced => {
                self.dirty = true;
                self.read();
            }
            Input::Decided { batch, answers } => self.send(HubFrame::UploadResult { batch, answers }),
            Input::Taken { batch, taken } => self.send(HubFrame::Taken { batch, taken }),
            Input::Feeds { to, epochs, parts } => self.handle_feeds(to, &epochs, parts, now),
            Input::Grants(grants) if grants.is_empty() => {}
            Input::Grants(grants) => self.send(HubFrame::Grants(grants)),
            Input::Replied { id, response } => self.send(HubFrame::Reply { id, response }),
            Input::Repair(outcome) => self.handle_outcome(outcome),
            Input::Unavailable => self.refuse(Refusal::Busy),
            Input::Close(refusal) => self.refuse(refusal),
        }
    }

    /// Takes the passing of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.phase == Phase::Closed {
            return;
        }
        if now >= self.progress_by {
            return self.refuse(Refusal::Busy);
        }
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + HEARTBEAT_MS;
            self.asked = true;
            self.read();
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (self.phase != Phase::Closed).then(|| self.heartbeat_at.min(self.progress_by))
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether nothing more will happen.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    fn send(&mut self, frame: HubFrame) {
        self.outputs.push_back(Output::Send(frame));
    }

    fn refuse(&mut self, refusal: Refusal) {
        let retry_after_ms = match refusal {
            Refusal::Resubscribe => 0,
            Refusal::Behind | Refusal::Busy => 1_000,
            Refusal::Replaced | Refusal::Protocol(_) => 5_000,
            Refusal::Ahead | Refusal::Removed => 60_000,
        };
        self.send(HubFrame::Refused { refusal, retry_after_ms });
        self.outputs.push_back(Output::Close);
        self.phase = Phase::Closed;
    }

    fn handle_frame(&mut self, frame: EdgeFrame, now: Instant) {
        self.progress_by = now + PROGRESS_MS_MAX;
        match (self.phase, frame) {
            (Phase::Silent, EdgeFrame::Hello(hello)) => self.handle_hello(hello),
            (Phase::Welcomed | Phase::Serving, EdgeFrame::Upload { batch, writes }) => {
                self.handle_upload(batch, writes);
            }
            (Phase::Welcomed, EdgeFrame::HandIn { batch, writes }) => self.handle_hand_in(batch, writes),
            (Phase::Welcomed | Phase::Serving, EdgeFrame::Subscribe { feeds, held }) => {
                self.handle_subscribe(feeds, held)
            }
            (Phase::Serving, EdgeFrame::Ack { transfer }) => self.handle_ack(transfer),
            (Phase::Serving, EdgeFrame::Ask) => {
                self.asked = true;
                self.read();
            }
            // The answer to the first request will serve this one too.
            (Phase::Welcomed, EdgeFrame::Ask) => {}
            (Phase::Welcomed | Phase::Serving, EdgeFrame::Call { id, request }) => {
                self.outputs.push_back(Output::Call { id, request });
            }
            (Phase::Serving, EdgeFrame::Repair { repair, ask }) => self.handle_repair(repair, ask),
            (Phase::Closed, _) => {}
            (Phase::Silent | Phase::Greeting | Phase::Welcomed | Phase::Serving, _) => {
                self.refuse(Refusal::Protocol("message out of order".into()));
            }
        }
    }

    fn handle_hello(&mut self, hello: Hello) {
        if hello.protocol != PROTOCOL {
            let text = format!("version {} is spoken, {PROTOCOL} is understood", hello.protocol);
            return self.refuse(Refusal::Protocol(text.into()));
        }
        self.phase = Phase::Greeting;
        self.session = hello.session;
        self.floor = hello.floor;
        self.outputs.push_back(Output::ReadHead);
    }

    fn handle_head(&mut self, report: HeadReport) {
        if self.phase != Phase::Greeting {
            return;
        }
        let mut lost_history = None;
        if let Some(refusal) = self.dominated(&report.head.vector(), &report.head.epochs) {
            if let Some((loss, statement)) = self.lost_history(&report) {
                // What another region has lost is taken in there.
                self.told_of = Some(loss).filter(|loss| loss.shard == report.head.shard);
                lost_history = Some(statement);
            } else {
                // Only the process that writes knows that there is no more; any other may just be late.
                let certain = report.leads && refusal == Refusal::Behind && self.is_ahead(&report.head);
                return self.refuse(if certain { Refusal::Ahead } else { refusal });
            }
            self.floor = Vector::EMPTY;
        }
        self.phase = Phase::Welcomed;
        self.epochs = report.head.epochs.clone();
        self.floor.join(&report.head.vector());
        let welcome = Welcome {
            shard: report.head.shard,
            head: report.head.vector(),
            epochs: report.head.epochs,
            physical: report.physical,
            hlc: report.hlc.max(report.head.hlc),
            epsilon_ms: report.epsilon_ms,
            heartbeat_ms: HEARTBEAT_MS,
            feeds: self.profile.feeds.clone(),
            environments: self.profile.environments.clone(),
            default_environment: self.profile.default_environment.clone(),
            write: self.profile.write.clone(),
            takes_newer: self.told_of.is_some(),
            lost_history,
            copied: report.copied,
            carry_key: None,
        };
        self.send(HubFrame::Welcome(welcome));
        if self.profile.feeds.iter().any(|feed| feed.secrets) {
            self.outputs.push_back(Output::SealGrants);
        }
    }

    /// Session rule 1: a hub that has seen less than its edge was told of must not serve it.
    fn dominated(&self, head: &Vector, epochs: &Epochs) -> Option<Refusal> {
        if !self.rules.dominance {
            return None;
        }
        let dominates =
            if self.rules.lost_history { epochs.holds(&self.floor, head) } else { head.covers(&self.floor) };
        (!dominates).then_some(Refusal::Behind)
    }

    /// Whether the edge has seen more of this shard's own history than there is.
    fn is_ahead(&self, head: &Head) -> bool {
        let own = self.floor.get(head.shard).map(|position| Vector::at(head.shard, position));
        own.is_some_and(|own| !head.epochs.holds(&own, &head.vector()))
    }

    /// The statement of a loss that is why this edge has seen what the hub has not. Only the process that writes knows.
    fn lost_history(&self, report: &HeadReport) -> Option<(Loss, Bytes)> {
        let (head, epochs) = (report.head.vector(), &report.head.epochs);
        let explains =
            |loss: &Loss| report.leads && loss.explains(&self.floor, epochs, &head, report.head.shard);
        report.lost.iter().find(|(loss, _)| explains(loss)).cloned()
    }

    /// What the author of a write had seen, as far as it is still in the history. The edge knows of no epoch but from
    /// this session or from before it.
    fn as_far_as_known(&self, context: &Vector) -> Vector {
        let known = context.iter().filter_map(|(shard, at)| Some((shard, self.epochs.clamp(shard, at)?)));
        Vector::from_positions(known).unwrap_or_default()
    }

    fn handle_upload(&mut self, batch: u64, mut writes: Vec<Write>) {
        let bytes: usize = writes.iter().map(Write::size).sum();
        let ordered = writes.windows(2).all(|pair| pair[0].id.counter < pair[1].id.counter);
        if writes.len() > UPLOAD_WRITES_MAX || bytes > 2 * UPLOAD_BYTES_MAX || !ordered {
            return self.refuse(Refusal::Protocol("upload too large or out of order".into()));
        }
        if writes.iter().any(|write| write.action.content().is_secret()) {
            return self.refuse(Refusal::Protocol("secrets are written at the hub".into()));
        }
        if self.rules.lost_history {
            for write in &mut writes {
                write.context = self.as_far_as_known(&write.context);
            }
        }
        let first = !std::mem::replace(&mut self.uploaded, true);
        self.outputs.push_back(Output::Admit { batch, session: self.session, first, writes });
    }

    /// Only of a loss that the edge was told of, and before it has taken what the hub has instead.
    fn handle_hand_in(&mut self, batch: u64, mut writes: Vec<Write>) {
        let Some(loss) = self.told_of else {
            return self.refuse(Refusal::Protocol("nothing was lost".into()));
        };
        let bytes: usize = writes.iter().map(Write::size).sum();
        if writes.len() > UPLOAD_WRITES_MAX || bytes > 2 * UPLOAD_BYTES_MAX {
            return self.refuse(Refusal::Protocol("more is handed in than fits".into()));
        }
        for write in &mut writes {
            write.context = self.as_far_as_known(&write.context);
        }
        self.outputs.push_back(Output::TakeIn { batch, loss, writes });
    }

    fn handle_subscribe(&mut self, feeds: Vec<(Feed, Vector)>, held: Vec<(Feed, Held)>) {
        if feeds.len().max(held.len()) > FEEDS_MAX {
            return self.refuse(Refusal::Protocol("too many feeds".into()));
        }
        let mut reached: BTreeMap<Feed, Vector> = feeds.into_iter().collect();
        let granted = &self.profile.feeds;
        let from = |feed: &Feed| (feed.clone(), reached.remove(feed).unwrap_or_default());
        self.sent = granted.iter().map(from).collect();
        self.held = held.into_iter().filter(|(feed, _)| granted.contains(feed)).collect();
        self.phase = Phase::Serving;
        self.in_flight = None;
        self.outdated = self.reading.is_some();
        self.whole = true;
        self.dirty = true;
        self.read();
    }

    fn handle_ack(&mut self, transfer: u64) {
        let Some((id, _)) = self.in_flight.as_ref() else { return };
        if *id != transfer {
            return;
        }
        if let Some((_, to)) = self.in_flight.take() {
            self.outputs.push_back(Output::Acknowledged(to));
        }
        self.read();
    }

    /// Begins the next transfer or heartbeat, if one is due and nothing is under way.
    fn read(&mut self) {
        let due = self.dirty || self.asked;
        if self.phase != Phase::Serving || self.reading.is_some() || self.in_flight.is_some() || !due {
            return;
        }
        let reading =
            Reading { whole: std::mem::take(&mut self.whole), asked: std::mem::take(&mut self.asked) };
        self.reading = Some(reading);
        self.dirty = false;
        let feeds = self.sent.iter().map(|(feed, from)| (feed.clone(), from.clone())).collect();
        let (held, every) = (self.held.clone(), reading.whole || reading.asked);
        self.outputs.push_back(Output::ReadFeeds { feeds, held, every });
    }

    fn handle_feeds(&mut self, to: Vector, epochs: &Epochs, parts: Vec<Part>, now: Instant) {
        let Some(Reading { whole, asked }) = self.reading.take() else { return };
        if std::mem::take(&mut self.outdated) {
            self.asked |= asked;
            return self.read();
        }
        if let Some(refusal) = self.dominated(&to, epochs) {
            return self.refuse(refusal);
        }
        self.epochs = epochs.clone();
        if whole || parts.iter().any(|part| !part.segments.is_empty()) {
            self.send_transfer(&to, parts, whole || asked, now);
        } else if asked {
            self.floor.join(&to);
            for part in parts {
                self.send(HubFrame::Checkpoint { transfer: 0, bytes: part.checkpoint });
            }
        }
        self.read();
    }

    fn send_transfer(&mut self, to: &Vector, parts: Vec<Part>, every_feed: bool, now: Instant) {
        self.held.clear();
        self.last_transfer += 1;
        let transfer = self.last_transfer;
        let mut feeds = 0;
        for part in parts {
            if !every_feed && part.segments.is_empty() {
                continue;
            }
            feeds += 1;
            for bytes in part.segments {
                self.send(HubFrame::Segment { transfer, bytes });
            }
            self.send(HubFrame::Checkpoint { transfer, bytes: part.checkpoint });
            self.sent.insert(part.feed, to.clone());
        }
        self.send(HubFrame::End { transfer, feeds });
        self.floor.join(to);
        self.in_flight = Some((transfer, to.clone()));
        self.progress_by = now + PROGRESS_MS_MAX;
    }
}

#[cfg(test)]
mod tests;
