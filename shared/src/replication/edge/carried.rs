//! Frames that somebody brought in a file: those of a session that the hub held with itself on this edge's behalf.
//!
//! They run through the same checks as a stream's, and nobody is there to be asked: what does not fit is left, before anything
//! of it is kept. Time is not taken from them, for they may be old; stamps stay as they are until a hub is met.

use super::{EdgeReplica, Effect, Output, Phase};
use crate::feed::Feed;
use crate::limits::{CARRIED_BYTES_MAX, UPLOAD_BYTES_MAX, UPLOAD_WRITES_MAX};
use crate::replication::frame::{EdgeFrame, Hello, PROTOCOL, Welcome};
use crate::segment::Rejected;
use crate::store::replica::{Batch, PendingRecord, Record};
use crate::time::Instant;
use crate::vector::Vector;
use crate::write::Write;

/// How a file begins: the frames of its transfer follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// What the hub took this edge to hold. A feed that is not named comes whole.
    pub from: Vec<(Feed, Vector)>,
    pub welcome: Welcome,
}

/// What is carried to the hub: what a session would have begun with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    pub hello: Hello,
    /// The oldest that wait, in the order of their counters.
    pub writes: Vec<Write>,
    /// What this edge holds.
    pub feeds: Vec<(Feed, Vector)>,
    /// How many more wait than fit.
    pub left: usize,
}

impl Exported {
    /// What the file holds: a greeting, what this edge holds, and uploads as a session would have sent them.
    pub fn into_frames(self) -> Vec<EdgeFrame> {
        let Self { hello, writes, feeds, .. } = self;
        let mut frames = vec![EdgeFrame::Hello(hello), EdgeFrame::Subscribe { feeds, held: Vec::new() }];
        let (mut batch, mut bytes): (Vec<Write>, usize) = (Vec::new(), 0);
        for write in writes {
            bytes += write.size();
            if batch.len() == UPLOAD_WRITES_MAX || (!batch.is_empty() && bytes > UPLOAD_BYTES_MAX) {
                let writes = std::mem::take(&mut batch);
                bytes = write.size();
                frames.push(EdgeFrame::Upload { batch: frames.len() as u64, writes });
            }
            batch.push(write);
        }
        if !batch.is_empty() {
            frames.push(EdgeFrame::Upload { batch: frames.len() as u64, writes: batch });
        }
        frames
    }
}

/// Why nothing of a file was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    #[error("the edge is connected to its hub, which tells it everything itself")]
    Connected,
    #[error("the edge is just taking in what its hub sent; try again in a moment")]
    Busy,
    #[error("the file is older than what this edge has heard from its hub already; have a new one made")]
    Older,
    #[error(
        "the file goes on from a state that this edge has not come to; have one made with \
         `llm-config fleet carry NAME --full`"
    )]
    Gap,
    #[error("something in the file was not taken: {0}")]
    Rejected(Rejected),
    #[error("the file could not be taken in to its end; try again")]
    BrokeOff,
}

impl EdgeReplica {
    pub(super) fn handle_carried(&mut self, carried: Carried, now: Instant) {
        if let Err(not_taken) = self.check_carried(&carried) {
            return self.outputs.push_back(Output::Carried(Err(not_taken)));
        }
        let Carried { welcome, .. } = carried;
        self.phase = Phase::Carried;
        self.last_heard = now;
        self.shard = Some(welcome.shard);
        self.epochs = welcome.epochs;
        for feed in &welcome.feeds {
            let state = self.feeds.entry(feed.clone()).or_default();
            if self.rules.floor {
                state.record.floor.join(&welcome.head);
            }
        }
        self.granted = welcome.feeds;
        self.state.write = welcome.write;
        self.announced = Some((welcome.environments, welcome.default_environment));
        let mut put = vec![self.state_record()];
        put.extend(
            self.granted.iter().map(|feed| Record::Feed(feed.clone(), self.feeds[feed].record.clone())),
        );
        self.commit(Batch { put, remove: Vec::new() }, Effect::Nothing, now);
    }

    /// Before anything is kept: the hub of then had seen all that this edge was told of, and this edge holds what the file
    /// goes on from.
    fn check_carried(&self, Carried { from, welcome }: &Carried) -> Result<(), NotTaken> {
        if !matches!(self.phase, Phase::Offline { .. }) || self.broken.is_some() {
            return Err(NotTaken::Connected);
        }
        if self.switching {
            return Err(NotTaken::Busy);
        }
        if self.rules.carried_age && !welcome.epochs.holds(&self.floor(), &welcome.head) {
            return Err(NotTaken::Older);
        }
        let holds = |(feed, from): &(Feed, Vector)| {
            let state = self.feeds.get(feed).filter(|state| !self.begins_anew(state));
            let reached = |at: &Vector| at.seq(welcome.shard) >= from.seq(welcome.shard);
            *from == Vector::EMPTY || state.is_some_and(|state| reached(&state.record.vector))
        };
        if !self.rules.carried_gap || from.iter().all(holds) { Ok(()) } else { Err(NotTaken::Gap) }
    }

    /// Tries to reach the hub at once: the file has said nothing of whether it can be.
    pub(super) fn end_carried(&mut self, outcome: Result<(), NotTaken>, now: Instant) {
        self.phase = Phase::Offline { retry_at: now };
        self.inbox.clear();
        self.abandon_incoming(now);
        self.outputs.push_back(Output::Carried(outcome));
    }

    /// As before an upload: from here on the writes stay as they are, and the session's number is never used again. They wait
    /// all the same, until the hub is heard to have them.
    pub(super) fn handle_export(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Offline { .. }) || self.broken.is_some() {
            return self.outputs.push_back(Output::Exported(Err(NotTaken::Connected)));
        }
        self.state.session += 1;
        let mut bytes = 0;
        let waiting = || self.outbox.iter().filter(|pending| pending.decided.is_none());
        let fits = |pending: &&PendingRecord| {
            bytes += pending.write.size();
            bytes <= CARRIED_BYTES_MAX
        };
        let taken: Vec<PendingRecord> = waiting().take_while(fits).cloned().collect();
        let hello = Hello {
            protocol: PROTOCOL,
            incarnation: self.state.incarnation,
            session: self.state.session,
            floor: self.floor(),
            pending: waiting().count() as u64,
        };
        let left = waiting().count() - taken.len();
        let held = self.feeds.iter().filter(|(_, state)| !self.begins_anew(state));
        let feeds = held.map(|(feed, state)| (feed.clone(), state.record.vector.clone())).collect();
        let mut put = Vec::with_capacity(taken.len() + 1);
        for pending in taken.iter().filter(|pending| !pending.sent) {
            let sent = PendingRecord { sent: true, ..pending.clone() };
            self.outbox.put(sent.clone());
            put.push(Record::Pending(sent));
        }
        put.push(self.state_record());
        let writes = taken.into_iter().map(|pending| pending.write).collect();
        let exported = Box::new(Exported { hello, writes, feeds, left });
        self.commit(Batch { put, remove: Vec::new() }, Effect::Exported(exported), now);
    }
}
