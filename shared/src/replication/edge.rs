//! The edge's half of replication: a state machine without I/O.
//!
//! Feed it with [`EdgeReplica::handle`] and [`EdgeReplica::handle_timeout`]; after either, drain
//! [`EdgeReplica::poll_output`], then arm a timer for [`EdgeReplica::poll_timeout`]. `now` never decreases. Batches are
//! committed in the order given, and each is answered by one [`Input::Committed`] in that order. Memory changes when a
//! batch comes back, never before: what readers see and what the hub is told is always durable.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::backoff::Backoff;
use super::frame::{EdgeFrame, HubFrame, Request};
use super::outbox::Outbox;
use super::rules::Rules;
use crate::digest::FeedDigest;
use crate::entry::Row;
use crate::feed::{Environments, Feed};
use crate::limits::{BATCH_CHANGES_MAX, CLOCK_EPSILON_MS, HEARTBEAT_MS};
use crate::name::{EntryKey, Environment};
use crate::secret::KeyGrant;
use crate::stamp::Clock;
use crate::store::replica::{Batch, FeedRecord, PendingRecord, Record, StateRecord, StoreError};
use crate::time::{Instant, UnixMillis};
use crate::vector::{Epochs, ShardId, Vector};
use crate::write::{Verdict, Write};

mod apply;
mod carried;
mod copies;
mod footprint;
mod grace;
mod incoming;
mod local;
mod messages;
mod newer;
mod recover;
mod repair;
mod reread;
mod restore;
mod session;
mod stage;

pub use carried::{Carried, Exported, NotTaken};
pub use messages::{Alert, Identity, Input, LocalWrite, Output, Published, WriteRefused};

use apply::Switch;
use grace::Grace;
use incoming::Incoming;
use newer::HandingIn;
use repair::Repair;
use stage::Stage;

/// Where the session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// No stream; the next attempt is due at the time given.
    Offline { retry_at: Instant },
    /// The stream is being opened.
    Connecting,
    /// The session's number is being made durable.
    Beginning,
    /// Hello was sent at the time given.
    Greeting { sent_at: Instant },
    /// The hub serves. Subscribed once the writes of before have been uploaded.
    Serving { subscribed: bool },
    /// Frames come from a file.
    Carried,
}

/// One feed in memory.
#[derive(Clone, Debug, Default)]
struct FeedState {
    record: FeedRecord,
    digest: FeedDigest,
    /// The replica was found to differ: the next transfer is to bring everything.
    refetch: bool,
    /// When it was last begun to be put right key by key.
    repairs: Vec<Instant>,
}

/// What a batch that comes back makes true.
#[derive(Debug)]
enum Effect {
    Nothing,
    SessionBegun {
        session: u64,
    },
    Queued {
        ticket: u64,
        counter: u64,
    },
    /// Stamps are fixed and marked as sent.
    Sendable {
        pending: Vec<PendingRecord>,
    },
    Answered {
        kept: Vec<PendingRecord>,
        removed: Vec<(u64, EntryKey)>,
        verdicts: Vec<(u64, EntryKey, Verdict)>,
    },
    Switched(Box<Switch>),
    Folded {
        last: bool,
    },
    /// The new incarnation is durable, and so are the writes that bear it.
    Reidentified {
        touched: Vec<EntryKey>,
    },
    Granted(Vec<KeyGrant>),
    /// The hub's answer to a batch that was handed in is noted.
    HandedIn,
    /// Writes are marked as sent, and may leave.
    Exported(Box<Exported>),
    Confirmed {
        feeds: Vec<(Feed, FeedRecord)>,
        removed: Vec<(u64, EntryKey)>,
    },
}

/// The edge's half of replication.
#[derive(Debug)]
pub struct EdgeReplica {
    identity: Identity,
    rules: Rules,
    batch_changes_max: usize,
    phase: Phase,
    state: StateRecord,
    clock: Clock,
    /// The hub's physical clock minus `now`, in milliseconds, as well as it is known.
    hub_offset_ms: i64,
    /// The edge's own wall clock minus `now` at the start.
    wall_offset_ms: i64,
    /// Of the last handshake.
    round_trip_ms: u64,
    /// The newest time of the hub's clock that was heard.
    newest_issue: UnixMillis,
    next_counter: u64,
    /// The shard of the hub that welcomed this edge, and the histories that it knows.
    shard: Option<ShardId>,
    epochs: Epochs,
    epsilon_ms: u64,
    heartbeat_ms: u64,
    feeds: BTreeMap<Feed, FeedState>,
    /// What the hub said that this edge receives, and how environments inherit there; readers see it with the first
    /// transfer.
    granted: Vec<Feed>,
    announced: Option<(Environments, Environment)>,
    rows: BTreeMap<EntryKey, Arc<Row>>,
    grants: Vec<KeyGrant>,
    outbox: Outbox,
    /// Which writes are kept on the disk after the hub has admitted them.
    grace: Grace,
    /// Writes up to this one were made before the session: they go up before anything is asked for.
    backlog: u64,
    upload_in_flight: Option<u64>,
    last_batch: u64,
    incoming: Option<Incoming>,
    /// What is held of a transfer that broke off.
    stage: Stage,
    /// Of a feed of `incoming`, which waits for it.
    repair: Option<Repair>,
    last_repair: u64,
    /// The session that is given up next is not begun again before this.
    pause_ms: u64,
    /// The hub of this session lost a part of what this edge has seen: where the hub was at the handshake. Everything is
    /// fetched anew then.
    recovering: Option<Vector>,
    /// What that hub lacks and this edge knows, on its way there.
    handing_in: HandingIn,
    /// Frames that wait until a switch is complete.
    inbox: VecDeque<HubFrame>,
    /// A switch or its folding is not durable yet.
    switching: bool,
    folding: VecDeque<Batch>,
    effects: VecDeque<Effect>,
    calls: BTreeMap<u64, u64>,
    last_call: u64,
    /// The incarnation to take if there is another replica under the present one.
    spare: Option<u64>,
    /// The hub has said so in this session.
    copied: bool,
    /// The batch that takes the spare incarnation is under way.
    reidentifying: bool,
    last_heard: Instant,
    last_sent: Instant,
    backoff: Backoff,
    broken: Option<StoreError>,
    outputs: VecDeque<Output>,
}

impl EdgeReplica {
    /// Goes on from what the store held; an empty store is a new replica. `incarnation` (random, below 2^63) is used
    /// by a new replica only. `wall` is the machine's own clock.
    pub fn new(
        identity: Identity,
        rules: Rules,
        records: Vec<Record>,
        incarnation: u64,
        wall: UnixMillis,
        now: Instant,
    ) -> Self {
        let wall_offset_ms = wall.0 as i64 - now.0 as i64;
        let mut replica = Self {
            identity,
            rules,
            batch_changes_max: BATCH_CHANGES_MAX,
            phase: Phase::Offline { retry_at: now },
            state: StateRecord { incarnation, ..StateRecord::default() },
            clock: Clock::default(),
            hub_offset_ms: wall_offset_ms,
            wall_offset_ms,
            round_trip_ms: 0,
            newest_issue: UnixMillis(0),
            next_counter: 1,
            shard: None,
            epochs: Epochs::default(),
            epsilon_ms: CLOCK_EPSILON_MS,
            heartbeat_ms: HEARTBEAT_MS,
            feeds: BTreeMap::new(),
            granted: Vec::new(),
            announced: None,
            rows: BTreeMap::new(),
            grants: Vec::new(),
            outbox: Outbox::default(),
            grace: Grace::default(),
            backlog: 0,
            upload_in_flight: None,
            last_batch: 0,
            incoming: None,
            stage: Stage::new(),
            repair: None,
            last_repair: 0,
            pause_ms: 0,
            recovering: None,
            handing_in: HandingIn::Nothing,
            inbox: VecDeque::new(),
            switching: false,
            folding: VecDeque::new(),
            effects: VecDeque::new(),
            calls: BTreeMap::new(),
            last_call: 0,
            spare: None,
            copied: false,
            reidentifying: false,
            last_heard: now,
            last_sent: now,
            backoff: Backoff::new(incarnation ^ wall.0),
            broken: None,
            outputs: VecDeque::new(),
        };
        replica.restore(records);
        replica.publish_everything();
        replica
    }

    /// The same with smaller batches, so that a few rows already need several.
    pub fn with_batch_changes_max(mut self, max: usize) -> Self {
        self.batch_changes_max = max;
        self
    }

    /// Takes what happened.
    pub fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Connected { spare } => self.handle_connected(spare, now),
            Input::Disconnected => self.handle_disconnected(0, now),
            Input::Frame(frame) => self.handle_frame(frame, now),
            Input::Committed => self.handle_committed(now),
            Input::CommitFailed(error) => self.handle_commit_failed(error, now),
            Input::Write(write) => self.handle_write(write, now),
            Input::Call { ticket, request } => self.handle_call(ticket, request),
            Input::Ask => self.handle_ask(),
            Input::Reread(records) => self.handle_reread(records, now),
            Input::Recalled(records) => self.handle_recalled(records, now),
            Input::Carried(carried) => self.handle_carried(*carried, now),
            Input::Export => self.handle_export(now),
            Input::ConnectNow => {
                if matches!(self.phase, Phase::Offline { .. }) {
                    self.connect(now);
                }
            }
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How many writes wait for the hub's decision.
    pub fn undecided(&self) -> usize {
        self.outbox.undecided()
    }

    /// How many writes are pending, decided or not.
    pub fn pending(&self) -> usize {
        self.outbox.len()
    }

    /// Whether the hub serves this edge now.
    pub fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Serving { .. })
    }

    /// How far the feed has come that this entry belongs to.
    pub fn vector_of(&self, at: &EntryKey) -> Option<&Vector> {
        self.feed_of(at).map(|(_, state)| &state.record.vector)
    }

    /// The feeds, whether they may be read, how far they have come, and the highest that any hub told of.
    pub fn feeds(&self) -> impl Iterator<Item = (&Feed, bool, &Vector, &Vector)> {
        self.feeds
            .iter()
            .map(|(feed, state)| (feed, state.record.ready, &state.record.vector, &state.record.floor))
    }

    /// The row that the replica holds, pending writes aside.
    pub fn row(&self, at: &EntryKey) -> Option<&Arc<Row>> {
        let (_, state) = self.feed_of(at)?;
        if state.record.ready { self.rows.get(at) } else { None }
    }

    /// All rows that readers may see, pending writes aside.
    pub fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.values().filter(|row| self.feed_of(&row.at).is_some_and(|(_, state)| state.record.ready))
    }

    /// The pending write that readers see under a key.
    pub fn visible_pending(&self, at: &EntryKey) -> Option<&Write> {
        self.outbox.visible(at)
    }

    /// Pending writes in the order they were made.
    pub fn pending_writes(&self) -> impl Iterator<Item = &PendingRecord> {
        self.outbox.iter()
    }

    /// While a wider feed replaces a narrower one, both hold the entry; the one that readers see counts.
    fn feed_of(&self, at: &EntryKey) -> Option<(&Feed, &FeedState)> {
        let holding = || self.feeds.iter().filter(|(feed, _)| feed.contains(at));
        holding().find(|(_, state)| state.record.ready).or_else(|| holding().next())
    }

    fn send(&mut self, frame: EdgeFrame, now: Instant) {
        self.last_sent = now;
        self.outputs.push_back(Output::Send(frame));
    }

    fn commit(&mut self, batch: Batch, effect: Effect, now: Instant) {
        if self.broken.is_some() {
            return;
        }
        self.effects.push_back(effect);
        self.outputs.push_back(Output::Commit(batch));
        if !self.rules.durable_first {
            // The fault that the rule guards against: as if the batch were durable already.
            self.complete_oldest(now);
        }
    }

    /// Writes something whose completion changes nothing.
    fn commit_nothing_new(&mut self, batch: Batch) {
        if self.rules.durable_first {
            self.effects.push_back(Effect::Nothing);
        }
        self.outputs.push_back(Output::Commit(batch));
    }

    fn handle_committed(&mut self, now: Instant) {
        if self.rules.durable_first {
            self.complete_oldest(now);
        }
    }

    fn complete_oldest(&mut self, now: Instant) {
        let effect =
            self.effects.pop_front().expect("every commit has an effect, and commits come back in order");
        match effect {
            Effect::Nothing => {}
            Effect::SessionBegun { session } => self.say_hello(session, now),
            Effect::Queued { ticket, counter } => self.complete_write(ticket, counter, now),
            Effect::Sendable { pending } => self.send_upload(pending, now),
            Effect::Answered { kept, removed, verdicts } => {
                self.complete_answers(kept, removed, verdicts, now)
            }
            Effect::Switched(switch) => self.complete_switch(*switch, now),
            Effect::Folded { last } => self.complete_fold(last, now),
            Effect::Reidentified { touched } => self.complete_reidentify(touched, now),
            Effect::Granted(grants) => self.complete_grants(grants),
            Effect::HandedIn => self.hand_in_next(now),
            Effect::Exported(exported) => self.outputs.push_back(Output::Exported(Ok(exported))),
            Effect::Confirmed { feeds, removed } => self.complete_confirmed(feeds, removed),
        }
    }

    /// A disk that failed once is not trusted again by this process: reads go on from memory, nothing new is taken.
    fn handle_commit_failed(&mut self, error: StoreError, now: Instant) {
        for effect in std::mem::take(&mut self.effects) {
            if let Effect::Queued { ticket, .. } = effect {
                let reason = WriteRefused::Store(error.clone());
                self.outputs.push_back(Output::WriteRefused { ticket, reason });
            }
        }
        self.outputs.push_back(Output::Alert(Alert::Store(error.clone())));
        self.broken = Some(error);
        self.handle_disconnected(0, now);
        self.outputs.push_back(Output::Disconnect);
    }

    fn state_record(&mut self) -> Record {
        self.state.hlc = self.clock.last();
        Record::State(self.state.clone())
    }

    fn handle_call(&mut self, ticket: u64, request: Request) {
        if !self.is_connected() {
            return self.outputs.push_back(Output::CallFailed { ticket });
        }
        self.last_call += 1;
        self.calls.insert(self.last_call, ticket);
        self.outputs.push_back(Output::Send(EdgeFrame::Call { id: self.last_call, request }));
    }

    fn handle_ask(&mut self) {
        if matches!(self.phase, Phase::Serving { subscribed: true }) {
            self.outputs.push_back(Output::Send(EdgeFrame::Ask));
        }
    }

    /// What readers now see of a key's pending writes.
    fn overlay(&self, at: EntryKey) -> (EntryKey, Option<Write>) {
        let visible = self.outbox.visible(&at).cloned();
        (at, visible)
    }
}

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one output among many")]
mod tests;
