//! An edge: its machine with disk and clocks, and the replica that runs on it.

use std::collections::{BTreeMap, BTreeSet};

use llm_config_shared::name::EntryKey;
use llm_config_shared::replication::edge::{Alert, EdgeReplica, Identity, Input, Output};
use llm_config_shared::segment::Rejected;
use llm_config_shared::stamp::WriteId;
use llm_config_shared::store::replica::{Batch, ReplicaStore, StoreError};
use llm_config_shared::time::{Instant, UnixMillis};
use llm_config_shared::write::Verdict;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::copies::numbered;
use super::{Event, World};
use crate::disk::SimDisk;
use crate::invariants::{Check, Violation};
use crate::network::{Parcel, StreamId};
use crate::view::View;

mod carrying;
mod readers;
mod stream;

use carrying::Carrying;

/// A day, in milliseconds.
const DAY_MS: i64 = 86_400_000;

/// The machine and what runs on it.
#[derive(Debug)]
pub(super) struct EdgeHost {
    /// Which edge it is; none while its disk is empty and nobody has copied one to it.
    pub(super) who: Option<usize>,
    pub(super) life: u32,
    pub(super) replica: Option<EdgeReplica>,
    pub(super) disk: SimDisk,
    pub(super) view: View,
    pub(super) stream: Option<StreamId>,
    /// How often it began, or gave up, to connect.
    attempts: u64,
    /// Names of its writes by their numbers.
    pub(super) numbered: BTreeMap<u64, WriteId>,
    /// When this life began, and how fast its clock runs, in millionths too fast.
    booted_at: u64,
    drift_ppm: i64,
    /// The machine's wall clock minus true time.
    pub(super) wall_error_ms: i64,
    timer_at: Option<u64>,
    disk_at: u64,
    pub(super) heard_at: u64,
    pub(super) disk_slow: bool,
    /// The highest seq that a hub told of, once that is durable here; and what is to be so soon.
    pub(super) told: u64,
    told_soon: Vec<(u64, u64)>,
    /// The highest seq in any frame that a hub itself sent here.
    pub(super) heard: u64,
    /// A relay said here that a transfer was complete: feeds may have moved apart.
    pub(super) foreign: bool,
    /// A hub sent patches here that are not of what the edge has.
    pub(super) wrong_bases: bool,
    /// A hub went on here with more of a transfer than the edge has.
    pub(super) wrong_held: bool,
    /// Nothing was published in this life yet.
    fresh: bool,
    /// The next commit holds a new write.
    pub(super) expecting: bool,
    /// The hub has said that it lost a part of what this edge has seen.
    pub(super) excused: bool,
    /// Readers here were shown what the hub has lost since.
    pub(super) astray: bool,
    /// Writes that are not durable yet, and the batch that makes them so.
    unsynced: Vec<(u64, WriteId)>,
    /// Entries that changed on the disk by themselves, until their feed has been compared with the hub's.
    pub(super) rotten: BTreeSet<EntryKey>,
    /// The file that is being taken in.
    carrying: Option<Carrying>,
}

impl EdgeHost {
    pub(super) fn new(who: Option<usize>, rng: &mut ChaCha8Rng) -> Self {
        Self {
            who,
            life: 0,
            replica: None,
            disk: SimDisk::default(),
            view: View::default(),
            stream: None,
            attempts: 0,
            numbered: BTreeMap::new(),
            booted_at: 0,
            drift_ppm: random_drift(rng),
            wall_error_ms: random_error(rng),
            timer_at: None,
            disk_at: 0,
            heard_at: 0,
            disk_slow: false,
            told: 0,
            told_soon: Vec::new(),
            heard: 0,
            foreign: false,
            fresh: true,
            expecting: false,
            wrong_bases: false,
            wrong_held: false,
            excused: false,
            astray: false,
            unsynced: Vec::new(),
            rotten: BTreeSet::new(),
            carrying: None,
        }
    }

    /// The machine's boot-time clock.
    pub(super) fn local(&self, now: u64) -> Instant {
        let up = now.saturating_sub(self.booted_at);
        Instant(1_000 + up.saturating_add_signed(up as i64 * self.drift_ppm / 1_000_000))
    }

    /// The first true time at which the boot-time clock shows at least `local`.
    fn true_time(&self, local: Instant) -> u64 {
        let up = local.0.saturating_sub(1_000) as i64;
        let at = self.booted_at + (up - up * self.drift_ppm / 1_000_000).max(0) as u64;
        (at..at + 1_000).find(|at| self.local(*at) >= local).unwrap_or(at + 1_000)
    }

    /// The hub goes back to `cut`: nobody remembers more of it.
    pub(super) fn go_back(&mut self, cut: u64) {
        self.told = self.told.min(cut);
        self.heard = self.heard.min(cut);
        for (_, seq) in &mut self.told_soon {
            *seq = (*seq).min(cut);
        }
    }

    /// How far hubs have told this edge that they had come, as far as it must remember.
    pub(super) fn told(&self) -> u64 {
        self.told
    }
}

/// What became of handed-in writes, among everything that is counted.
fn handed_in(outcome: &str) -> &'static str {
    match outcome {
        "known" => "handed in: known",
        "admitted" => "handed in: admitted",
        "held" => "handed in: held",
        "denied" => "handed in: denied",
        "discarded" => "handed in: discarded",
        "refused" => "handed in: refused",
        _ => "handed in: secrets left out",
    }
}

/// Mostly a bad crystal; now and then a broken one.
fn random_drift(rng: &mut ChaCha8Rng) -> i64 {
    let most = if rng.random_range(0..5) == 0 { 30_000 } else { 1_000 };
    rng.random_range(-most..=most)
}

/// Mostly right; now and then off by up to a day, either way.
pub(super) fn random_error(rng: &mut ChaCha8Rng) -> i64 {
    match rng.random_range(0..10) {
        0..3 => 0,
        3..7 => rng.random_range(-900..900),
        _ => rng.random_range(-DAY_MS..DAY_MS),
    }
}

impl World {
    pub(super) fn start_edge(&mut self, edge: usize, life: u32) -> Check {
        let asleep = self.edges[edge].who.is_none();
        if asleep || self.edges[edge].life != life || self.edges[edge].replica.is_some() {
            return Ok(());
        }
        let incarnation = self.rng.random_range(1..1 << 62);
        let actor = self.actor(edge);
        let (keys, tenant) = (self.signer.keys(), self.tenant.clone());
        let wall = UnixMillis(self.wall().0.saturating_add_signed(self.edges[edge].wall_error_ms));
        let (rules, max, now) = (self.setup.rules, self.batch_changes_max, self.now);
        let host = &mut self.edges[edge];
        host.life += 1;
        host.booted_at = now;
        host.timer_at = None;
        host.disk_at = now;
        host.heard_at = now;
        host.view = View::default();
        host.fresh = true;
        host.expecting = false;
        let records = host.disk.load().expect("the simulator's disk can be read");
        host.numbered = numbered(&self.truth, &records);
        let identity = Identity { edge: actor, tenant, keys };
        let local = host.local(now);
        let replica = EdgeReplica::new(identity, rules, records, incarnation, wall, local);
        host.replica = Some(replica.with_batch_changes_max(max));
        self.trace.write(now, format_args!("edge {edge} starts, wall {}", self.edges[edge].wall_error_ms));
        self.drain_edge(edge)?;
        self.check_readers_after_restart(edge)
    }

    /// The power goes; some of what was not yet synced may have made it.
    pub(super) fn crash_edge(&mut self, edge: usize) {
        if self.edges[edge].replica.is_none() {
            return;
        }
        self.stats.count("edge crashes");
        let waiting = self.edges[edge].disk.waiting();
        let kept = if waiting > 0 && self.rng.random_range(0..4) == 0 {
            self.rng.random_range(0..=waiting)
        } else {
            0
        };
        if waiting > kept {
            self.stats.add("batches lost in power cuts", (waiting - kept) as u64);
        }
        self.trace.write(self.now, format_args!("edge {edge} crashes, {kept} of {waiting} kept"));
        let host = &mut self.edges[edge];
        host.disk.cut_power(kept);
        host.replica = None;
        host.carrying = None;
        self.settle_told(edge);
        self.forget_unsynced(edge);
        let host = &mut self.edges[edge];
        host.told_soon.clear();
        host.heard = host.told;
        self.drop_stream(edge, true);
    }

    pub(super) fn edge_input(&mut self, edge: usize, input: Input) -> Check {
        let now = self.now;
        let host = &mut self.edges[edge];
        let local = host.local(now);
        let Some(replica) = &mut host.replica else { return Ok(()) };
        replica.handle(input, local);
        self.drain_edge(edge)
    }

    pub(super) fn edge_timer(&mut self, edge: usize, life: u32) -> Check {
        let now = self.now;
        let host = &mut self.edges[edge];
        if host.life != life || host.timer_at.is_none_or(|at| at > now) {
            return Ok(());
        }
        host.timer_at = None;
        let local = host.local(now);
        let Some(replica) = &mut host.replica else { return Ok(()) };
        replica.handle_timeout(local);
        self.drain_edge(edge)
    }

    fn drain_edge(&mut self, edge: usize) -> Check {
        while let Some(output) = self.edges[edge].replica.as_mut().and_then(EdgeReplica::poll_output) {
            self.edge_output(edge, output)?;
        }
        let host = &self.edges[edge];
        let Some(due) = host.replica.as_ref().and_then(EdgeReplica::poll_timeout) else { return Ok(()) };
        let (at, life) = (host.true_time(due), host.life);
        if host.timer_at.is_none_or(|before| at < before || before <= self.now) {
            self.edges[edge].timer_at = Some(at);
            self.schedule_at(at, Event::EdgeTimer { edge, life });
        }
        Ok(())
    }

    fn edge_output(&mut self, edge: usize, output: Output) -> Check {
        match output {
            Output::Connect => self.connect(edge),
            Output::Disconnect => self.drop_stream(edge, false),
            Output::Send(frame) => {
                if let Some(stream) = self.edges[edge].stream {
                    self.send(stream, Parcel::Up(frame));
                }
            }
            Output::Commit(batch) => return self.commit(edge, batch),
            Output::Recall => self.recall(edge),
            Output::Publish(published) => return self.published(edge, &published),
            Output::Queued { counter, .. } => self.queued(edge, counter),
            Output::WriteRefused { .. } => self.stats.count("edge writes refused"),
            Output::Decided { counter, verdict, .. } => {
                self.trace.write(self.now, format_args!("edge {edge} hears of {counter}: {verdict:?}"));
                self.stats.count(match verdict {
                    Verdict::Admitted { .. } => "verdicts admitted",
                    Verdict::Lost { .. } => "verdicts lost",
                    Verdict::Duplicate => "verdicts duplicate",
                    Verdict::Held(_) => "verdicts held",
                    Verdict::Denied(_) => "verdicts denied",
                    Verdict::Reidentify => "verdicts put off",
                });
            }
            Output::Replied { .. } => self.stats.count("calls answered"),
            Output::CallFailed { .. } => self.stats.count("calls failed"),
            Output::Carried(outcome) => return self.has_taken(edge, outcome),
            Output::Exported(exported) => self.exported(edge, exported),
            Output::Alert(alert) => return self.alert(edge, &alert),
        }
        Ok(())
    }

    fn commit(&mut self, edge: usize, batch: Batch) -> Check {
        self.note_writes(edge, &batch)?;
        let latency = match (self.edges[edge].disk_slow, self.rng.random_range(0..10)) {
            (true, _) => self.rng.random_range(50..800),
            (false, 0) => self.rng.random_range(10..60),
            (false, _) => self.rng.random_range(0..6),
        };
        let host = &mut self.edges[edge];
        host.disk.enqueue(batch);
        host.disk_at = host.disk_at.max(self.now + latency);
        let (at, life) = (host.disk_at, host.life);
        self.schedule_at(at, Event::Synced { edge, life });
        Ok(())
    }

    pub(super) fn synced(&mut self, edge: usize, life: u32) -> Check {
        if self.edges[edge].life != life || self.edges[edge].disk.waiting() == 0 {
            return Ok(());
        }
        if self.chaos && self.rng.random_range(0..4_000) == 0 {
            return self.disk_fails(edge);
        }
        let now = self.now;
        let later = self.rng.random_range(0..3);
        let host = &mut self.edges[edge];
        host.disk.sync_oldest();
        host.heard_at = host.heard_at.max(now + later);
        let at = host.heard_at;
        self.settle_told(edge);
        self.schedule_at(at, Event::Committed { edge, life });
        Ok(())
    }

    fn disk_fails(&mut self, edge: usize) -> Check {
        self.stats.count("disk failures");
        let half_done = self.rng.random_range(0..2);
        self.edges[edge].disk.cut_power(half_done);
        self.settle_told(edge);
        let life = self.edges[edge].life;
        self.edge_input(edge, Input::CommitFailed(StoreError::Full))?;
        let after = self.rng.random_range(500..4_000);
        self.crash_edge(edge);
        self.schedule(after, Event::EdgeStarts { edge, life });
        Ok(())
    }

    fn settle_told(&mut self, edge: usize) {
        let host = &mut self.edges[edge];
        let synced = host.disk.synced();
        let durable =
            host.told_soon.extract_if(.., |(needed, _)| *needed <= synced).map(|(_, seq)| seq).max();
        host.told = host.told.max(durable.unwrap_or(0));
    }

    /// Behind everything that was handed to the disk before.
    fn recall(&mut self, edge: usize) {
        let host = &mut self.edges[edge];
        host.disk_at = host.disk_at.max(self.now);
        host.heard_at = host.heard_at.max(host.disk_at);
        let (at, life) = (host.heard_at, host.life);
        self.schedule_at(at, Event::Recalled { edge, life });
    }

    pub(super) fn recalled(&mut self, edge: usize, life: u32) -> Check {
        if self.edges[edge].life != life {
            return Ok(());
        }
        let records = self.edges[edge].disk.load().expect("the simulator's disk can be read");
        self.edge_input(edge, Input::Recalled(records))
    }

    pub(super) fn committed(&mut self, edge: usize, life: u32) -> Check {
        if self.edges[edge].life != life { Ok(()) } else { self.edge_input(edge, Input::Committed) }
    }

    fn alert(&mut self, edge: usize, alert: &Alert) -> Check {
        let tampered = self.is_tampered(edge);
        let rotten = !self.edges[edge].rotten.is_empty();
        match alert {
            Alert::Differs(_) if rotten => self.stats.count("replicas found rotten"),
            Alert::Repaired { .. } => self.stats.count("repairs"),
            Alert::Rejected(Rejected::Digest) if rotten => self.stats.count("repairs given up"),
            Alert::Rejected(Rejected::Base) if rotten => self.stats.count("patches of what had rotted"),
            Alert::Rejected(Rejected::UnknownEpoch) => self.stats.count("unknown epochs"),
            Alert::Rejected(Rejected::Base) if std::mem::take(&mut self.edges[edge].wrong_bases) => {
                self.stats.count("patches of another base refused");
            }
            Alert::Rejected(Rejected::NotHeld) if std::mem::take(&mut self.edges[edge].wrong_held) => {
                self.stats.count("continuations of something else refused");
            }
            Alert::Rejected(_) if tampered => self.stats.count("rejections of tampered streams"),
            Alert::Rejected(rejected) => {
                return Err(Violation::new(
                    "protocol",
                    format!("edge {edge} rejects the hub's own: {rejected}"),
                ));
            }
            Alert::Differs(feed) => {
                return Err(Violation::new("convergence", format!("edge {edge} differs in {feed:?}")));
            }
            Alert::LostHistory => {
                self.trace.write(self.now, format_args!("edge {edge} hears that history was lost"));
                self.edges[edge].excused = true;
                // What was on its way when the hub was lost may have told more since.
                self.edges[edge].go_back(self.truth.winners.len() as u64);
            }
            Alert::HandedIn(taken) => {
                for (outcome, count) in taken.counts() {
                    self.stats.add(handed_in(outcome), count);
                }
            }
            Alert::Held { .. } => self.stats.count("held"),
            Alert::Denied { .. } => self.stats.count("denied"),
            Alert::Copied { .. } if self.truth.copied.contains(&self.actor(edge)) => {
                self.stats.count("copies that went on under another incarnation");
            }
            Alert::Copied { .. } => {
                return Err(Violation::new("protocol", format!("edge {edge} was never copied")));
            }
            Alert::Silent => self.stats.count("silent streams"),
            Alert::Rewritten { .. } => self.stats.count("rows rewritten"),
            Alert::Refused(_) | Alert::Store(_) => {}
        }
        Ok(())
    }
}
