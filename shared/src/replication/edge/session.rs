//! Opening, greeting and losing a session.

use super::{Alert, EdgeReplica, Effect, HandingIn, NotTaken, Output, Phase};
use crate::limits::PROGRESS_MS_MAX;
use crate::replication::frame::{EdgeFrame, Hello, HubFrame, PROTOCOL, Refusal, Welcome};
use crate::stamp::{Clock, Hlc};
use crate::store::replica::{Batch, Record};
use crate::time::{Instant, UnixMillis};
use crate::vector::Vector;

/// An attempt to connect or to be greeted is given up after this time.
const GREETING_MS_MAX: u64 = 20_000;

impl EdgeReplica {
    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.broken.is_some() {
            return None;
        }
        Some(match self.phase {
            Phase::Offline { retry_at } => retry_at,
            Phase::Connecting | Phase::Beginning | Phase::Greeting { .. } | Phase::Carried => {
                self.last_heard + GREETING_MS_MAX
            }
            Phase::Serving { .. } => self.last_heard + PROGRESS_MS_MAX,
        })
    }

    /// Takes the passing of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        match self.phase {
            Phase::Offline { .. } => self.connect(now),
            Phase::Connecting | Phase::Beginning | Phase::Greeting { .. } | Phase::Carried => {
                self.hang_up(0, now);
            }
            Phase::Serving { .. } => {
                self.outputs.push_back(Output::Alert(Alert::Silent));
                self.hang_up(0, now);
            }
        }
    }

    pub(super) fn connect(&mut self, now: Instant) {
        if self.broken.is_none() {
            // The attempt's patience begins now, however long nothing was heard before.
            self.last_heard = now;
            self.phase = Phase::Connecting;
            self.outputs.push_back(Output::Connect);
        }
    }

    /// Ends the stream from this side and tries again later.
    pub(super) fn hang_up(&mut self, at_least_ms: u64, now: Instant) {
        self.outputs.push_back(Output::Disconnect);
        self.handle_disconnected(at_least_ms, now);
    }

    pub(super) fn handle_connected(&mut self, spare: u64, now: Instant) {
        if self.phase != Phase::Connecting {
            return;
        }
        self.phase = Phase::Beginning;
        self.spare = Some(spare);
        self.state.session += 1;
        let batch = Batch { put: vec![self.state_record()], remove: Vec::new() };
        self.commit(batch, Effect::SessionBegun { session: self.state.session }, now);
    }

    /// The session's number is durable: nobody will ever use it again. That of a session which broke off before its own was
    /// says nothing of the next one's.
    pub(super) fn say_hello(&mut self, session: u64, now: Instant) {
        if self.phase != Phase::Beginning || session != self.state.session {
            return;
        }
        self.phase = Phase::Greeting { sent_at: now };
        let hello = Hello {
            protocol: PROTOCOL,
            incarnation: self.state.incarnation,
            session: self.state.session,
            floor: self.floor(),
            pending: self.outbox.undecided() as u64,
        };
        self.send(EdgeFrame::Hello(hello), now);
    }

    /// The highest that any hub told this edge, all feeds joined.
    pub fn floor(&self) -> Vector {
        let mut floor = Vector::EMPTY;
        for state in self.feeds.values() {
            floor.join(&state.record.floor);
            floor.join(&state.record.vector);
        }
        floor
    }

    pub(super) fn handle_disconnected(&mut self, at_least_ms: u64, now: Instant) {
        if matches!(self.phase, Phase::Offline { .. }) {
            return;
        }
        if self.phase == Phase::Carried {
            return self.end_carried(Err(NotTaken::BrokeOff), now);
        }
        self.keep_incoming(now);
        self.phase = Phase::Offline { retry_at: now + self.backoff.next_delay(at_least_ms) };
        self.upload_in_flight = None;
        self.inbox.clear();
        self.recovering = None;
        self.handing_in = HandingIn::Nothing;
        for ticket in std::mem::take(&mut self.calls).into_values() {
            self.outputs.push_back(Output::CallFailed { ticket });
        }
    }

    pub(super) fn handle_frame(&mut self, frame: HubFrame, now: Instant) {
        let greeted = matches!(self.phase, Phase::Serving { .. } | Phase::Carried);
        self.last_heard = now;
        match frame {
            HubFrame::Welcome(welcome) => self.handle_welcome(welcome, now),
            HubFrame::Refused { refusal, retry_after_ms } => {
                self.handle_refused(refusal, retry_after_ms, now)
            }
            _ if !greeted => {}
            HubFrame::UploadResult { batch, answers } => self.handle_upload_result(batch, answers, now),
            HubFrame::Taken { batch, taken } => self.handle_taken(batch, taken, now),
            // Whoever opens secrets has looked at it.
            HubFrame::OfflineLimit(_) => {}
            HubFrame::Grants(grants) => self.handle_grants(grants, now),
            HubFrame::Reply { id, response } => {
                if let Some(ticket) = self.calls.remove(&id) {
                    self.outputs.push_back(Output::Replied { ticket, response });
                }
            }
            frame @ (HubFrame::Segment { .. }
            | HubFrame::Checkpoint { .. }
            | HubFrame::End { .. }
            | HubFrame::Repair { .. }) => {
                self.inbox.push_back(frame);
                self.work_inbox(now);
            }
        }
    }

    fn handle_refused(&mut self, refusal: Refusal, retry_after_ms: u64, now: Instant) {
        if refusal != Refusal::Resubscribe {
            self.outputs.push_back(Output::Alert(Alert::Refused(refusal)));
        }
        self.hang_up(retry_after_ms, now);
    }

    fn handle_welcome(&mut self, welcome: Welcome, now: Instant) {
        let Phase::Greeting { sent_at } = self.phase else { return };
        if let Err(rejected) = self.check_lost_history(&welcome) {
            return self.reject(rejected, now);
        }
        // As if the answer had taken no time: the estimate is late by at most the way back, and never ahead of the hub,
        // which would hold what is stamped ahead of it.
        self.hub_offset_ms = welcome.physical.0 as i64 - now.0 as i64;
        self.newest_issue = self.newest_issue.max(welcome.physical);
        self.round_trip_ms = now - sent_at;
        self.state.clock_offset_ms = self.hub_offset_ms.saturating_sub(self.wall_offset_ms);
        self.epsilon_ms = welcome.epsilon_ms;
        self.heartbeat_ms = welcome.heartbeat_ms;
        self.shard = Some(welcome.shard);
        self.epochs = welcome.epochs;
        if self.rules.clock_receive {
            self.clock.receive(welcome.hlc, Hlc::MAX);
        }
        let restamped = self.fix_stamps(welcome.physical, welcome.hlc);
        let taken_up = self.take_up_again();
        for feed in &welcome.feeds {
            let state = self.feeds.entry(feed.clone()).or_default();
            if self.rules.floor && self.recovering.is_none() {
                state.record.floor.join(&welcome.head);
            }
        }
        self.granted = welcome.feeds;
        self.state.write = welcome.write;
        self.copied = welcome.copied;
        self.announced = Some((welcome.environments, welcome.default_environment));
        self.phase = Phase::Serving { subscribed: false };
        self.backlog = self.outbox.last_counter();

        let mut put = vec![self.state_record()];
        put.extend(restamped);
        put.extend(taken_up);
        put.extend(
            self.granted.iter().map(|feed| Record::Feed(feed.clone(), self.feeds[feed].record.clone())),
        );
        self.commit(Batch { put, remove: Vec::new() }, Effect::Nothing, now);
        self.upload_or_subscribe(now);
    }

    /// Session rule of clocks: before anything is transmitted, stamps that are ahead of the hub are replaced, also those
    /// of writes that are just becoming durable. The clock that gave them comes back as well; it stays above everything
    /// that was or may have been transmitted, which never was beyond the limit.
    fn fix_stamps(&mut self, physical: UnixMillis, hlc: Hlc) -> Vec<Record> {
        let limit = Hlc::from_physical(UnixMillis(physical.0 + self.epsilon_ms));
        let hybrid = hlc.max(self.state.decided_hlc);
        let physical = Hlc::from_physical(physical);
        let renewed = if self.rules.restamp_hybrid { hybrid.max(physical) } else { physical };
        let restamped = self.outbox.restamp(limit, renewed);
        let least = limit.max(hybrid).max(self.outbox.last_hlc());
        if self.clock.last() > least {
            self.clock = Clock::resume(least);
        }
        restamped.into_iter().map(Record::Pending).collect()
    }

    /// The hub's physical clock as this edge knows it.
    pub(super) fn hub_time(&self, now: Instant) -> UnixMillis {
        UnixMillis((now.0 as i64).saturating_add(self.hub_offset_ms).max(0) as u64)
    }

    /// Stamps beyond this are not let into the clock. The hub had come to `issued_at` when it signed them, whatever this
    /// machine's clock says.
    pub(super) fn clock_bound(&self, issued_at: UnixMillis, now: Instant) -> Hlc {
        let latest = (self.hub_time(now).0 + self.round_trip_ms).max(issued_at.0) + 2 * self.epsilon_ms;
        Hlc::from_physical(UnixMillis(latest)).max(self.clock.last())
    }

    /// A session may last longer than a crystal is good for: each newer heartbeat sets the time again, as if it had
    /// taken no time on its way, so that the estimate is late and never ahead.
    pub(super) fn hear_time(&mut self, issued_at: UnixMillis, now: Instant) {
        if issued_at > self.newest_issue {
            self.newest_issue = issued_at;
            self.hub_offset_ms = issued_at.0 as i64 - now.0 as i64;
            self.state.clock_offset_ms = self.hub_offset_ms.saturating_sub(self.wall_offset_ms);
        }
    }

    /// Uploads what waits; once nothing of before the session does, hands in what the hub lost, and then asks for what the
    /// hub has.
    pub(super) fn upload_or_subscribe(&mut self, now: Instant) {
        let Phase::Serving { subscribed } = self.phase else { return };
        if self.reidentifying {
            return;
        }
        let decided = self.outbox.first_undecided().is_none_or(|counter| counter > self.backlog);
        if self.copied && decided && self.upload_in_flight.is_none() {
            // What the other replica has uploaded as well is settled under the name that it has there.
            return self.reidentify(now);
        }
        if !subscribed && !self.copied && decided && !self.hands_in(now) {
            self.subscribe(now);
        }
        if self.upload_in_flight.is_none() {
            self.begin_upload(now);
        }
    }

    pub(super) fn subscribe(&mut self, now: Instant) {
        self.phase = Phase::Serving { subscribed: true };
        let held = self.granted.iter().filter_map(|feed| {
            let state = &self.feeds[feed];
            (!self.begins_anew(state)).then(|| (feed.clone(), state.record.vector.clone()))
        });
        let feeds = held.collect();
        let held = self.held(now);
        self.send(EdgeFrame::Subscribe { feeds, held }, now);
    }
}
