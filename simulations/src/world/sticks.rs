//! Files that people carry between the hub and its edges: made at one time, brought at another, twice, out of order or never.

use std::collections::{BTreeMap, VecDeque};

use llm_config_shared::feed::Feed;
use llm_config_shared::limits::CLOCK_EPSILON_MS;
use llm_config_shared::replication::admit::{Submission, Upload};
use llm_config_shared::replication::carry::{self, Admission, Back, Making, There};
use llm_config_shared::replication::frame::{EdgeFrame, HubFrame};
use llm_config_shared::replication::hub::{HeadReport, Part};
use llm_config_shared::store::{Head, Journal};
use llm_config_shared::vector::Vector;
use llm_config_shared::write::Answer;
use rand::RngExt;

use super::writer::{Asked, Job, Waits};
use super::{SHARD, World};
use crate::invariants::once::Sent;
use crate::invariants::{Check, Violation, outside};
use crate::journal::ready;

/// So many files of a kind lie about; what is made beyond that replaces one that then is never brought.
const LIE_ABOUT_MAX: usize = 8;

/// A file for an edge.
#[derive(Clone, Debug)]
pub(super) struct ThereFile {
    pub(super) who: usize,
    pub(super) there: There,
    answers: Vec<HubFrame>,
    /// How far the hub had come.
    pub(super) seq: u64,
    /// Which of all, in the order in which they were made.
    made: u64,
    times: u32,
}

impl ThereFile {
    /// What follows its beginning.
    pub(super) fn frames(&self) -> VecDeque<HubFrame> {
        self.answers.iter().chain(&self.there.transfer).cloned().collect()
    }
}

/// A file that an edge made.
#[derive(Clone, Debug)]
pub(super) struct BackFile {
    pub(super) who: usize,
    /// By the edge's own clock.
    pub(super) made_at: u64,
    pub(super) frames: Vec<EdgeFrame>,
    times: u32,
}

/// One that is being taken in.
#[derive(Debug)]
struct Taking {
    who: usize,
    edge: usize,
    made_at: u64,
    back: Back,
}

/// What the hub's database keeps of edges.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// How far each has acknowledged.
    acked: BTreeMap<usize, u64>,
    /// The answers to what was carried from it last, with when that was made.
    answers: BTreeMap<usize, (u64, Vec<HubFrame>)>,
}

/// All files, and where they stand.
#[derive(Debug, Default)]
pub(super) struct Sticks {
    there: Vec<ThereFile>,
    back: Vec<BackFile>,
    taking: BTreeMap<u64, Taking>,
    last: u64,
    pub(super) known: Known,
}

impl Sticks {
    /// An edge is durable up to here, as its stream says.
    pub(super) fn acknowledged(&mut self, who: usize, vector: &Vector) {
        self.known.acked.insert(who, vector.seq(SHARD));
    }

    /// Nobody takes this in any more: the process is gone, or does not lead.
    pub(super) fn drops(&mut self, file: u64) {
        self.taking.remove(&file);
    }
}

impl World {
    /// Somebody makes a file, or brings one.
    pub(super) fn somebody_carries(&mut self) -> Check {
        match self.rng.random_range(0..100) {
            0..35 => self.make_there(),
            35..65 => self.bring_there(),
            65..82 => self.make_back(),
            _ => self.bring_back(),
        }
    }

    /// A place for one more file: a new one, or that of one which is then lost.
    fn put<T>(&mut self, files: impl Fn(&mut Sticks) -> &mut Vec<T>, file: T) {
        let lost = self.rng.random_range(0..LIE_ABOUT_MAX);
        let files = files(&mut self.sticks);
        if files.len() < LIE_ABOUT_MAX { files.push(file) } else { files[lost] = file }
    }

    /// A process that answers, whether it leads or reads from a standby.
    fn some_hub(&mut self) -> Option<usize> {
        let answers = |hub: &usize| self.hubs[*hub].up && self.hubs[*hub].paused_until <= self.now;
        let hubs: Vec<usize> = (0..self.hubs.len()).filter(answers).collect();
        (!hubs.is_empty()).then(|| hubs[self.rng.random_range(0..hubs.len())])
    }

    fn head_report(&self, hub: usize, head: Head) -> HeadReport {
        let leader = self.hubs[hub].leader.as_ref();
        HeadReport {
            physical: self.hub_wall(hub),
            hlc: leader.map_or(head.hlc, |leader| leader.hlc().max(head.hlc)),
            epsilon_ms: CLOCK_EPSILON_MS,
            leads: true,
            lost: Vec::new(),
            copied: false,
            head,
        }
    }

    /// Mostly an edge that does not hear from a hub now.
    fn who_needs_one(&mut self) -> usize {
        let is_away = |edge: &usize| {
            let host = &self.edges[*edge];
            host.replica.as_ref().is_some_and(|replica| !replica.is_connected())
        };
        let away: Vec<usize> = self.awake().into_iter().filter(is_away).collect();
        if away.is_empty() || self.rng.random_range(0..3) == 0 {
            return self.rng.random_range(0..self.bindings.len());
        }
        let edge = away[self.rng.random_range(0..away.len())];
        self.who(edge)
    }

    /// The file for an edge that was made last of those that nobody has brought yet.
    fn newest_unused(&self) -> usize {
        let files = self.sticks.there.iter().enumerate().filter(|(_, file)| file.times == 0);
        files.max_by_key(|(_, file)| file.made).map_or(0, |(n, _)| n)
    }

    fn make_there(&mut self) -> Check {
        let who = self.who_needs_one();
        let whole = self.rng.random_range(0..4) == 0;
        let Some(hub) = self.some_hub() else { return Ok(()) };
        let journal = self.journal_of(hub);
        let Ok(head) = ready(journal.head()) else { return Ok(()) };
        let profile = self.profile_of(who);
        let acked = if whole { 0 } else { self.sticks.known.acked.get(&who).copied().unwrap_or(0) };
        let from = match carry::place(&head, acked) {
            None => Vec::new(),
            Some(place) => {
                let at = |vector: &Vector| -> Vec<_> {
                    profile.feeds.iter().map(|feed| (feed.clone(), vector.clone())).collect()
                };
                let read = |from: &[_]| ready(journal.read_feeds(from)).expect("it was led before").feeds;
                carry::held(&head, acked, &read(&at(&Vector::EMPTY)), &read(&at(&place)))
            }
        };
        let (feeds, seq) = (profile.feeds.clone(), head.position.seq);
        let report = self.head_report(hub, head);
        let begun = Making::begin(profile, self.setup.rules, from, report, self.hub_now());
        let Ok((making, wanted)) = begun else {
            self.stats.count("files that a late hub could not make");
            return Ok(());
        };
        let (to, epochs, parts) = self.parts_of_file(hub, &wanted)?;
        outside::parts(&feeds, &parts)?;
        self.check_file(&wanted, &parts, seq)?;
        let made = making.finish(to, epochs, parts, self.hub_now());
        let there = made.map_err(|refusal| Violation::new("protocol", format!("no file: {refusal}")))?;
        let answers = self.sticks.known.answers.get(&who).map(|(_, answers)| answers.clone());
        self.stats.count(if acked == 0 {
            "files made of everything"
        } else {
            "files made of what is lacking"
        });
        self.trace.write(self.now, format_args!("hub {hub} makes a file for {who} from {acked} to {seq}"));
        self.sticks.last += 1;
        let (answers, made) = (answers.unwrap_or_default(), self.sticks.last);
        let file = ThereFile { who, there, answers, seq, made, times: 0 };
        self.put(|sticks| &mut sticks.there, file);
        Ok(())
    }

    /// Each feed goes on from where it was asked for, or comes whole where deletions are gone since.
    fn check_file(&self, wanted: &[(Feed, Vector)], parts: &[Part], seq: u64) -> Check {
        let mut sent = Sent::default();
        sent.begins(wanted.iter().map(|(feed, at)| (feed.clone(), at.seq(SHARD))));
        sent.is_given(self.stretches(parts)?, seq);
        parts.iter().flat_map(|part| &part.segments).for_each(|_| sent.segment());
        sent.end(self.truth.horizon, |_| false, |_, came_to| came_to)
    }

    fn bring_there(&mut self) -> Check {
        if self.sticks.there.is_empty() {
            return Ok(());
        }
        let n = match self.rng.random_range(0..3) {
            0 => self.rng.random_range(0..self.sticks.there.len()),
            _ => self.newest_unused(),
        };
        let file = &mut self.sticks.there[n];
        file.times += 1;
        if file.times > 1 {
            self.stats.count("files brought again");
        }
        let file = file.clone();
        let machines: Vec<usize> =
            self.awake().into_iter().filter(|edge| self.who(*edge) == file.who).collect();
        let edge = machines[self.rng.random_range(0..machines.len())];
        self.goes_out_of_reach(edge)?;
        self.takes_file(edge, file)
    }

    fn make_back(&mut self) -> Check {
        let awake = self.awake();
        let edge = awake[self.rng.random_range(0..awake.len())];
        self.goes_out_of_reach(edge)?;
        self.exports(edge)
    }

    /// The edge has written its file.
    pub(super) fn back_is_made(&mut self, edge: usize, made_at: u64, frames: Vec<EdgeFrame>) {
        let who = self.who(edge);
        self.stats.count("files made by edges");
        self.trace.write(self.now, format_args!("edge {edge} makes a file of {} parts", frames.len()));
        self.put(|sticks| &mut sticks.back, BackFile { who, made_at, frames, times: 0 });
    }

    fn bring_back(&mut self) -> Check {
        let Some(hub) = self.true_leader().filter(|hub| self.hubs[*hub].paused_until <= self.now) else {
            return Ok(());
        };
        if self.sticks.back.is_empty() || !self.hubs[hub].up {
            return Ok(());
        }
        let n = self.rng.random_range(0..self.sticks.back.len());
        let file = &mut self.sticks.back[n];
        file.times += 1;
        if file.times > 1 {
            self.stats.count("files brought to the hub again");
        }
        let BackFile { who, made_at, frames, .. } = file.clone();
        let head = ready(self.journal.head()).expect("it is led");
        let (profile, report) = (self.profile_of(who), self.head_report(hub, head));
        let begun = Back::begin(frames, profile, self.setup.rules, report, self.hub_now());
        let Ok(back) = begun else {
            self.stats.count("files that the hub could not take");
            return Ok(());
        };
        self.sticks.last += 1;
        let edge = self.edges.iter().position(|host| host.who == Some(who)).unwrap_or(who);
        self.trace.write(self.now, format_args!("hub {hub} takes a file of {who}"));
        self.sticks.taking.insert(self.sticks.last, Taking { who, edge, made_at, back });
        self.takes_on(hub, self.sticks.last)
    }

    /// The next writes of a file go to the writer, or all have.
    fn takes_on(&mut self, hub: usize, file: u64) -> Check {
        let now = self.hub_now();
        let Some(Taking { who, edge, made_at, back }) = self.sticks.taking.get_mut(&file) else {
            return Ok(());
        };
        let (who, edge, made_at) = (*who, *edge, *made_at);
        let next = back.next(now);
        let next =
            next.map_err(|refusal| Violation::new("protocol", format!("a file's writes: {refusal}")))?;
        if let Some(Admission { batch, session, writes }) = next {
            let profile = self.profile_of(who);
            let upload = Upload {
                edge: self.actor(edge),
                tenant: self.tenant.clone(),
                write: profile.write,
                feeds: profile.feeds,
                environments: profile.environments,
                session,
                first: false,
                writes,
            };
            let waits = Waits::File { file, batch };
            return self.submit(hub, Job { asked: Asked::Writes(Submission::Upload(upload)), waits });
        }
        let Some(Taking { back, .. }) = self.sticks.taking.remove(&file) else { return Ok(()) };
        self.stats.count("files taken by the hub");
        let Known { acked, answers } = &mut self.sticks.known;
        if answers.get(&who).is_none_or(|(before, _)| *before < made_at) {
            answers.insert(who, (made_at, back.answers().to_vec()));
        }
        if back.held() > 0 {
            acked.insert(who, back.held());
        }
        Ok(())
    }

    /// The writer has decided a batch of a file.
    pub(super) fn file_decided(&mut self, hub: usize, file: u64, batch: u64, answers: Vec<Answer>) -> Check {
        self.stats.add("writes brought in files", answers.len() as u64);
        let now = self.hub_now();
        let Some(taking) = self.sticks.taking.get_mut(&file) else { return Ok(()) };
        taking.back.decided(batch, answers, now);
        self.takes_on(hub, file)
    }
}
