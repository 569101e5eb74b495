//! A hub process: sessions, a view of the database that may lag, and perhaps the lead.

use std::collections::BTreeMap;

use llm_config_shared::feed::Feed;
use llm_config_shared::held::Held;
use llm_config_shared::limits::CLOCK_EPSILON_MS;
use llm_config_shared::name::EdgeName;
use llm_config_shared::replication::admit::{HandIn, Leader, Submission, Upload};
use llm_config_shared::replication::frame::{EdgeFrame, HubFrame, Refusal, Response};
use llm_config_shared::replication::hub::{HeadReport, HubSession, Input, Output, Profile};
use llm_config_shared::replication::seats::Greeting;
use llm_config_shared::secret::KeyGrant;
use llm_config_shared::store::{Journal, Loss};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::Vector;
use llm_config_shared::write::Write;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::publisher::{Published, goes_whole};
use super::writer::{Asked, Job, Waits, Writer};
use super::{Early, Event, HUB_SKEW_MS, SHARD, World};
use crate::invariants::once::Sent;
use crate::invariants::{Check, Violation, floor, outside};
use crate::journal::{SimJournal, ready};
use crate::network::{Parcel, StreamId};

/// One session as its process holds it.
#[derive(Debug)]
pub(super) struct SessionHost {
    pub(super) edge: usize,
    /// What it said it is.
    pub(super) greeting: Option<Greeting>,
    copied: bool,
    pub(super) session: HubSession,
    pub(super) feeds: Vec<Feed>,
    timer_at: Option<u64>,
    /// Where the frames being sent now come to.
    to_seq: Option<u64>,
    sent: Sent,
}

/// A process and what is lost with it.
#[derive(Debug)]
pub(super) struct HubProcess {
    pub(super) life: u32,
    pub(super) up: bool,
    pub(super) paused_until: u64,
    pub(super) leader: Option<Leader>,
    /// The version of the database that it sees; none for the newest.
    pub(super) sees: Option<usize>,
    /// What it sees does not move on.
    pub(super) stuck: bool,
    skew_ms: i64,
    pub(super) sessions: BTreeMap<StreamId, SessionHost>,
    pub(super) writer: Writer,
    pub(super) published: Published,
}

/// What a session asked the database for.
#[derive(Debug)]
pub(super) struct FeedsWanted {
    pub(super) feeds: Vec<(Feed, Vector)>,
    pub(super) held: BTreeMap<Feed, Held>,
    pub(super) every: bool,
    pub(super) early: Early,
}

impl HubProcess {
    pub(super) fn new(_number: usize, rng: &mut ChaCha8Rng) -> Self {
        Self {
            life: 0,
            up: false,
            paused_until: 0,
            leader: None,
            sees: None,
            stuck: false,
            skew_ms: rng.random_range(-HUB_SKEW_MS..=HUB_SKEW_MS),
            sessions: BTreeMap::new(),
            writer: Writer::default(),
            published: Published::default(),
        }
    }
}

impl World {
    /// The database as this process sees it. Who leads looks at the primary.
    pub(super) fn journal_of(&self, hub: usize) -> SimJournal {
        match self.hubs[hub].sees {
            Some(version) if self.hubs[hub].leader.is_none() => self.journal.standby(version),
            _ => self.journal.clone(),
        }
    }

    pub(super) fn hub_wall(&self, hub: usize) -> UnixMillis {
        UnixMillis(self.wall().0.saturating_add_signed(self.hubs[hub].skew_ms))
    }

    /// The process that the database would obey.
    pub(super) fn true_leader(&self) -> Option<usize> {
        let head = ready(self.journal.head()).ok()?;
        let leads = |hub: &HubProcess| {
            hub.leader.as_ref().is_some_and(|leader| leader.fence().position.epoch == head.position.epoch)
        };
        self.hubs.iter().position(leads)
    }

    pub(super) fn start_hub(&mut self, hub: usize) -> Check {
        let process = &mut self.hubs[hub];
        process.up = true;
        process.life += 1;
        process.paused_until = 0;
        self.trace.write(self.now, format_args!("hub {hub} starts"));
        if self.true_leader().is_none() {
            self.take_lead(hub);
        } else {
            self.hubs[hub].sees = Some(self.journal.versions());
        }
        Ok(())
    }

    pub(super) fn restart_hub(&mut self, hub: usize, life: u32) -> Check {
        if self.hubs[hub].up || self.hubs[hub].life != life { Ok(()) } else { self.start_hub(hub) }
    }

    pub(super) fn take_lead(&mut self, hub: usize) {
        let epoch = self.rng.random_range(1..1 << 62);
        let leadership = ready(self.journal.lead(epoch, SHARD)).expect("the database is there");
        self.hubs[hub].leader = Some(Leader::new(&leadership));
        if let Some(epochs) = &mut self.truth.cut_history {
            *epochs = ready(self.journal.head()).expect("it was just led").own_epochs();
        }
        self.hubs[hub].sees = None;
        self.stats.count("leaderships");
        self.trace.write(self.now, format_args!("hub {hub} leads from {}", leadership.position.seq));
    }

    /// The process is gone, with its sessions, its queue and whatever it had not answered.
    pub(super) fn crash_hub(&mut self, hub: usize) -> Check {
        if !self.hubs[hub].up {
            return Ok(());
        }
        self.stats.count("hub crashes");
        self.trace.write(self.now, format_args!("hub {hub} crashes"));
        let process = &mut self.hubs[hub];
        process.up = false;
        process.life += 1;
        process.leader = None;
        process.published = Published::default();
        let writer = std::mem::take(&mut process.writer);
        self.abandon_writer(writer);
        for (stream, _) in std::mem::take(&mut self.hubs[hub].sessions) {
            self.network.cut(stream);
            self.hub_gives_up(stream);
            self.reset_edge_end(stream);
        }
        Ok(())
    }

    /// The edge's end of a broken stream learns of it, soon or by its own patience.
    pub(super) fn reset_edge_end(&mut self, stream: StreamId) {
        if !self.chance(15) {
            let after = self.latency();
            self.schedule(after, Event::Arrives { stream, parcel: Parcel::ClosedDown });
        }
    }

    fn hub_gives_up(&mut self, stream: StreamId) {
        if let Some(stream) = self.network.stream_mut(stream) {
            stream.hub_open = false;
        }
        self.network.sweep(stream);
    }

    /// The process has accepted a stream of this edge.
    pub(super) fn hub_accepts(&mut self, stream: StreamId, edge: usize, hub: usize) -> Check {
        let actor = self.actor(edge);
        // Which replica it is will only be known when it greets; of those that have not, the newest stays.
        let surplus = |host: &SessionHost| {
            self.actor(host.edge) == actor && (host.greeting.is_none() || !self.setup.rules.clones)
        };
        let sessions = self.hubs[hub].sessions.iter();
        let older = sessions.filter(|(_, host)| surplus(host)).map(|(id, _)| *id).collect();
        self.replaced(hub, older)?;
        let profile = self.profile(edge);
        let feeds = profile.feeds.clone();
        let session = HubSession::new(profile, self.setup.rules, self.hub_now());
        let (greeting, copied) = (None, false);
        let sent = Sent::default();
        let host = SessionHost { edge, greeting, copied, session, feeds, timer_at: None, to_seq: None, sent };
        self.hubs[hub].sessions.insert(stream, host);
        self.stats.count("sessions");
        self.arm_hub_timer(hub, stream);
        Ok(())
    }

    pub(super) fn profile(&self, edge: usize) -> Profile {
        self.profile_of(self.who(edge))
    }

    pub(super) fn profile_of(&self, who: usize) -> Profile {
        let binding = &self.bindings[who];
        let name = EdgeName::parse(&format!("e{who}")).expect("a literal name");
        Profile {
            feeds: binding.feeds(&self.tenant, &name, &self.environments),
            environments: self.environments.clone(),
            default_environment: binding.environments[0].clone(),
            write: binding.write.clone(),
        }
    }

    fn replaced(&mut self, hub: usize, older: Vec<StreamId>) -> Check {
        for older in older {
            self.stats.count("sessions replaced");
            self.hub_input(hub, older, Input::Close(Refusal::Replaced))?;
        }
        Ok(())
    }

    pub(super) fn hub_hears(&mut self, stream: StreamId, frame: EdgeFrame) -> Check {
        let Some(hub) = self.network.stream(stream).map(|stream| stream.hub) else { return Ok(()) };
        if let (EdgeFrame::Hello(hello), true) = (&frame, self.setup.rules.clones) {
            let greeting = Greeting { incarnation: hello.incarnation, session: hello.session };
            let (copied, older) = self.greeted(hub, stream, greeting);
            if copied {
                self.stats.count("copies that met at a hub");
            }
            if let Some(host) = self.hubs[hub].sessions.get_mut(&stream) {
                (host.greeting, host.copied) = (Some(greeting), copied);
            }
            self.replaced(hub, older)?;
        }
        if let (EdgeFrame::Subscribe { feeds, .. }, Some(host)) =
            (&frame, self.hubs[hub].sessions.get_mut(&stream))
        {
            let came_to = |(feed, at): &(Feed, Vector)| (feed.clone(), at.seq(SHARD));
            host.sent.begins(feeds.iter().map(came_to));
        }
        self.hub_input(hub, stream, Input::Frame(frame))
    }

    pub(super) fn hub_closed(&mut self, stream: StreamId) -> Check {
        let Some(hub) = self.network.stream(stream).map(|stream| stream.hub) else { return Ok(()) };
        self.hubs[hub].sessions.remove(&stream);
        self.hub_gives_up(stream);
        Ok(())
    }

    pub(super) fn hub_timer(&mut self, hub: usize, life: u32, stream: StreamId) -> Check {
        let (now, at) = (self.hub_now(), self.now);
        let process = &mut self.hubs[hub];
        if process.life != life {
            return Ok(());
        }
        let Some(host) = process.sessions.get_mut(&stream) else { return Ok(()) };
        if host.timer_at.is_some_and(|due| due <= at) {
            host.timer_at = None;
            host.session.handle_timeout(now);
        }
        self.drain_hub(hub, stream)
    }

    fn arm_hub_timer(&mut self, hub: usize, stream: StreamId) {
        let life = self.hubs[hub].life;
        let Some(host) = self.hubs[hub].sessions.get_mut(&stream) else { return };
        let Some(due) = host.session.poll_timeout() else { return };
        if host.timer_at.is_none_or(|at| due.0 < at) {
            host.timer_at = Some(due.0);
            self.schedule_at(due.0, Event::HubTimer { hub, life, stream });
        }
    }

    /// Gives a session its input and carries out what comes of it.
    pub(super) fn hub_input(&mut self, hub: usize, stream: StreamId, input: Input) -> Check {
        let now = self.hub_now();
        let Some(host) = self.hubs[hub].sessions.get_mut(&stream) else { return Ok(()) };
        host.session.handle(input, now);
        self.drain_hub(hub, stream)
    }

    fn drain_hub(&mut self, hub: usize, stream: StreamId) -> Check {
        loop {
            let Some(host) = self.hubs[hub].sessions.get_mut(&stream) else { return Ok(()) };
            let Some(output) = host.session.poll_output() else { break };
            self.hub_output(hub, stream, output)?;
        }
        self.arm_hub_timer(hub, stream);
        Ok(())
    }

    fn hub_output(&mut self, hub: usize, stream: StreamId, output: Output) -> Check {
        let life = self.hubs[hub].life;
        match output {
            Output::Send(frame) => self.hub_sends(hub, stream, frame),
            Output::ReadHead => {
                let after = self.rng.random_range(0..5);
                self.schedule(after, Event::HeadRead { hub, life, stream });
                Ok(())
            }
            Output::SealGrants => self.seal_grants(hub, stream),
            Output::Admit { batch, session, first, writes } => {
                self.admit(hub, stream, batch, (session, first), writes)
            }
            Output::TakeIn { batch, loss, writes } => self.take_in(hub, stream, batch, loss, writes),
            Output::ReadFeeds { feeds, held, every } => {
                let early = if self.setup.one_snapshot { None } else { self.read_early(hub, &feeds) };
                let after = self.rng.random_range(0..20);
                let request = FeedsWanted { feeds, held, every, early };
                self.schedule(after, Event::FeedsRead { hub, life, stream, request });
                Ok(())
            }
            Output::Call { id, .. } => {
                let body = bytes::Bytes::from_static(b"{}");
                let response = Response { status: 200, headers: Vec::new(), body };
                self.hub_input(hub, stream, Input::Replied { id, response })
            }
            Output::Repair(job) => {
                let after = self.rng.random_range(0..20);
                self.schedule(after, Event::RepairRead { hub, life, stream, job });
                Ok(())
            }
            Output::Acknowledged(vector) => {
                if let Some(edge) = self.hubs[hub].sessions.get(&stream).map(|host| host.edge) {
                    self.sticks.acknowledged(self.who(edge), &vector);
                }
                Ok(())
            }
            Output::Close => {
                self.hubs[hub].sessions.remove(&stream);
                self.send(stream, Parcel::ClosedDown);
                self.hub_gives_up(stream);
                Ok(())
            }
        }
    }

    /// The fault that rule 3 guards against: some of the feeds are read before the others.
    fn read_early(&self, hub: usize, feeds: &[(Feed, Vector)]) -> Early {
        let half = &feeds[..feeds.len().div_ceil(2)];
        ready(self.journal_of(hub).read_feeds(half)).ok().map(Box::new)
    }

    fn hub_sends(&mut self, hub: usize, stream: StreamId, frame: HubFrame) -> Check {
        let Some(host) = self.hubs[hub].sessions.get(&stream) else { return Ok(()) };
        let (edge, mut to_seq) = (host.edge, None);
        match &frame {
            HubFrame::Welcome(welcome) => to_seq = Some(welcome.head.seq(SHARD)),
            HubFrame::Segment { transfer, .. } => {
                to_seq = host.to_seq;
                self.stats.count("segments");
                self.note_transfer(stream, *transfer);
                self.note_segment(hub, stream);
            }
            HubFrame::Checkpoint { transfer, .. } => {
                self.stats.count("checkpoints");
                to_seq = host.to_seq;
                self.note_transfer(stream, *transfer);
            }
            HubFrame::Refused { refusal, .. } => match refusal {
                Refusal::Behind => self.stats.count("stale-hub refusals"),
                Refusal::Ahead => self.stats.count("ahead refusals"),
                Refusal::Resubscribe => self.stats.count("resubscriptions"),
                Refusal::Busy => self.stats.count("busy refusals"),
                Refusal::Replaced => self.stats.count("replaced refusals"),
                Refusal::Removed | Refusal::Protocol(_) => {
                    return Err(Violation::new("protocol", format!("edge {edge} refused: {refusal}")));
                }
            },
            HubFrame::UploadResult { .. }
            | HubFrame::Taken { .. }
            | HubFrame::OfflineLimit(_)
            | HubFrame::Grants(_)
            | HubFrame::Reply { .. }
            | HubFrame::Repair { .. } => {}
            HubFrame::End { .. } => self.check_sent(hub, stream)?,
        }
        let again = matches!(frame, HubFrame::Segment { .. } | HubFrame::Checkpoint { .. }) && self.chance(6);
        if again {
            self.stats.count("duplicated segments");
            self.send_down(stream, frame.clone(), to_seq);
            self.tamper(stream);
        }
        self.send_down(stream, frame.clone(), to_seq);
        self.may_break_behind(stream, edge, &frame);
        Ok(())
    }

    fn note_segment(&mut self, hub: usize, stream: StreamId) {
        if let Some(host) = self.hubs[hub].sessions.get_mut(&stream) {
            host.sent.segment();
        }
    }

    fn check_sent(&mut self, hub: usize, stream: StreamId) -> Check {
        let Some(host) = self.hubs[hub].sessions.get_mut(&stream) else { return Ok(()) };
        let mut sent = std::mem::take(&mut host.sent);
        // A late process may not have heard of the newest.
        sent.end(self.truth.horizon, goes_whole, |feed, seq| self.shared_start(feed, seq))?;
        if let Some(host) = self.hubs[hub].sessions.get_mut(&stream) {
            host.sent = sent;
        }
        Ok(())
    }

    fn note_transfer(&mut self, stream: StreamId, transfer: u64) {
        if let Some(stream) = self.network.stream_mut(stream) {
            stream.transfer = stream.transfer.max(transfer);
        }
    }

    pub(super) fn head_read(&mut self, hub: usize, life: u32, stream: StreamId) -> Check {
        if self.hubs[hub].life != life {
            return Ok(());
        }
        let Ok(head) = ready(self.journal_of(hub).head()) else {
            return self.hub_input(hub, stream, Input::Unavailable);
        };
        let leader = self.hubs[hub].leader.as_ref();
        let hlc = leader.map_or(head.hlc, |leader| leader.hlc().max(head.hlc));
        let report = HeadReport {
            physical: self.hub_wall(hub),
            hlc,
            epsilon_ms: CLOCK_EPSILON_MS,
            leads: leader.is_some(),
            lost: self.said_of_losses(hub),
            copied: self.hubs[hub].sessions.get(&stream).is_some_and(|host| host.copied),
            head,
        };
        self.hub_input(hub, stream, Input::Head(report))
    }

    pub(super) fn feeds_read(
        &mut self,
        hub: usize,
        life: u32,
        stream: StreamId,
        request: FeedsWanted,
    ) -> Check {
        if self.hubs[hub].life != life {
            return Ok(());
        }
        let Some(edge) = self.hubs[hub].sessions.get(&stream).map(|host| host.edge) else { return Ok(()) };
        let (to, epochs, parts) = self.publish(hub, edge, request)?;
        let stretches = self.stretches(&parts)?;
        let host = self.hubs[hub].sessions.get_mut(&stream).expect("looked at above");
        outside::parts(&host.feeds, &parts)?;
        host.to_seq = to.iter().map(|(_, position)| position.seq).next();
        host.sent.is_given(stretches, host.to_seq.unwrap_or(0));
        self.hub_input(hub, stream, Input::Feeds { to, epochs, parts })
    }

    fn seal_grants(&mut self, hub: usize, stream: StreamId) -> Check {
        let Some(host) = self.hubs[hub].sessions.get(&stream) else { return Ok(()) };
        let secret = host.feeds.iter().filter(|feed| feed.secrets);
        let grants = secret.map(|feed| KeyGrant {
            environment: feed.environment.clone(),
            subtree: feed.subtree.clone(),
            key_epoch: 1,
            encapsulated: bytes::Bytes::from_static(b"encapsulated"),
            ciphertext: bytes::Bytes::from_static(b"ciphertext"),
        });
        let grants = grants.collect();
        self.hub_input(hub, stream, Input::Grants(grants))
    }

    fn admit(
        &mut self,
        hub: usize,
        stream: StreamId,
        batch: u64,
        (session, first): (u64, bool),
        writes: Vec<Write>,
    ) -> Check {
        if self.hubs[hub].leader.is_none() {
            return self.hub_input(hub, stream, Input::Unavailable);
        }
        let Some(host) = self.hubs[hub].sessions.get(&stream) else { return Ok(()) };
        let edge = host.edge;
        let profile = self.profile(edge);
        let upload = Upload {
            edge: self.actor(edge),
            tenant: self.tenant.clone(),
            write: profile.write,
            feeds: profile.feeds,
            environments: profile.environments,
            session,
            first,
            writes,
        };
        let waits = Waits::Session { stream, batch };
        self.submit(hub, Job { asked: Asked::Writes(Submission::Upload(upload)), waits })
    }

    fn take_in(&mut self, hub: usize, stream: StreamId, batch: u64, loss: Loss, writes: Vec<Write>) -> Check {
        if self.hubs[hub].leader.is_none() {
            return self.hub_input(hub, stream, Input::Unavailable);
        }
        let Some(host) = self.hubs[hub].sessions.get(&stream) else { return Ok(()) };
        let edge = host.edge;
        self.truth.brought_back(loss);
        let profile = self.profile(edge);
        let hand_in = HandIn {
            edge: self.actor(edge),
            name: format!("e{}", self.who(edge)).into(),
            tenant: self.tenant.clone(),
            write: profile.write,
            feeds: profile.feeds,
            environments: profile.environments,
            new_epoch: loss.new_epoch,
            writes,
        };
        let waits = Waits::Session { stream, batch };
        self.submit(hub, Job { asked: Asked::Writes(Submission::HandIn(hand_in)), waits })
    }

    pub(super) fn advanced(&mut self, hub: usize, life: u32) -> Check {
        let process = &mut self.hubs[hub];
        if process.life != life || (process.stuck && process.leader.is_none()) {
            return Ok(());
        }
        if process.leader.is_none() {
            process.sees = Some(self.journal.versions());
        }
        let streams: Vec<StreamId> = self.hubs[hub].sessions.keys().copied().collect();
        for stream in streams {
            self.hub_input(hub, stream, Input::Advanced)?;
        }
        Ok(())
    }

    /// Nothing that a hub says is older than what this edge was told before.
    pub(super) fn check_told(&self, edge: usize, seq: u64) -> Check {
        floor::not_older(edge, self.edges[edge].told(), seq)
    }
}
