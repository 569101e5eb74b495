//! An edge's session with the hub of a region, whole or cut off after some frames.

use std::collections::VecDeque;

use bytes::Bytes;
use llm_config_shared::feed::{Environments, Feed};
use llm_config_shared::limits::CLOCK_EPSILON_MS;
use llm_config_shared::name::{Environment, Subtree};
use llm_config_shared::replication::admit::{HandIn, Upload};
use llm_config_shared::replication::edge as replica;
use llm_config_shared::replication::frame::{EdgeFrame, HubFrame};
use llm_config_shared::replication::hub::{HeadReport, HubSession, Input, Output, Part, Profile};
use llm_config_shared::replication::repair::{Job, Outcome, compare, draft_rows};
use llm_config_shared::replication::transfer::{Issue, draft_part_in_chunks};
use llm_config_shared::secret::KeyGrant;
use llm_config_shared::segment::{LostHistory, tag};
use llm_config_shared::store::{Journal, Loss};
use llm_config_shared::vector::Vector;
use rand::RngExt;

use super::places::{self, tenant};
use super::{Regions, SITES_MAX};
use crate::invariants::{Check, Violation};
use crate::journal::ready;

pub(super) const KEY_ID: u64 = 7;
pub(super) const KEY: [u8; 32] = [7; 32];
/// Few rows already need several segments.
const ROWS_MAX: usize = 2;

enum Frame {
    Up(EdgeFrame),
    Down(HubFrame),
}

/// Both ends and what is between them.
struct Session {
    edge: usize,
    site: usize,
    hub: HubSession,
    way: VecDeque<Frame>,
    open: bool,
}

fn profile(edge: usize) -> Profile {
    Profile {
        feeds: places::feeds(edge),
        environments: Environments::standard(),
        default_environment: Environment::base(),
        write: vec![Subtree::ALL],
    }
}

/// Keys that open nothing: of every region's epoch, for what it receives with secrets.
fn grants(feeds: &[Feed]) -> Vec<KeyGrant> {
    let secret = feeds.iter().filter(|feed| feed.secrets);
    let grant = |feed: &Feed, key_epoch| KeyGrant {
        environment: feed.environment.clone(),
        subtree: feed.subtree.clone(),
        key_epoch,
        encapsulated: Bytes::from_static(b"encapsulated"),
        ciphertext: Bytes::from_static(b"ciphertext"),
    };
    secret.flat_map(|feed| (1..=SITES_MAX as u64).map(move |epoch| grant(feed, epoch))).collect()
}

impl Regions {
    /// The edge connects to the region and says and hears what there is, at most `frames` of it.
    pub(super) fn visit(&mut self, edge: usize, site: usize, frames: u32) -> Check {
        let hub = HubSession::new(profile(self.edges[edge].who), self.setup.rules, self.local());
        let mut session = Session { edge, site, hub, way: VecDeque::new(), open: true };
        self.trace.write(self.now, format_args!("edge {edge} comes to region {site}"));
        if self.edges[edge].home != site {
            self.stats.count("edges that moved to another region");
        }
        self.edge_says(&mut session, replica::Input::ConnectNow)?;
        let spare = self.rng.random_range(1..1 << 62);
        self.edge_says(&mut session, replica::Input::Connected { spare })?;
        for _ in 0..frames {
            let Some(frame) = session.way.pop_front().filter(|_| session.open) else { break };
            match frame {
                Frame::Up(frame) => {
                    if let EdgeFrame::Hello(hello) = &frame {
                        self.edges[edge].floor = hello.floor.clone();
                    }
                    session.hub.handle(Input::Frame(frame), self.local());
                    self.hub_says(&mut session)?;
                }
                Frame::Down(frame) => {
                    if let HubFrame::Welcome(_) = frame {
                        self.edges[edge].home = site;
                    }
                    self.edge_says(&mut session, replica::Input::Frame(frame))?;
                }
            }
        }
        self.past.parts(edge);
        self.edge_says(&mut session, replica::Input::Disconnected)
    }

    fn edge_says(&mut self, session: &mut Session, input: replica::Input) -> Check {
        for output in self.edge_input(session.edge, input)? {
            if let replica::Output::Send(frame) = output {
                session.way.push_back(Frame::Up(frame));
            } else if output == replica::Output::Disconnect {
                session.open = false;
            }
        }
        Ok(())
    }

    fn hub_says(&mut self, session: &mut Session) -> Check {
        let feeds = places::feeds(self.edges[session.edge].who);
        while let Some(output) = session.hub.poll_output() {
            let answer = match output {
                Output::Send(frame) => {
                    self.note_refusal(&frame)?;
                    session.way.push_back(Frame::Down(frame));
                    None
                }
                Output::ReadHead => Some(Input::Head(self.head_report(session.site))),
                Output::SealGrants => Some(Input::Grants(grants(&feeds))),
                Output::Admit { batch, session: number, first, writes } => {
                    let upload = Upload {
                        edge: self.edges[session.edge].actor,
                        tenant: tenant(),
                        write: vec![Subtree::ALL],
                        feeds: feeds.clone(),
                        environments: Environments::standard(),
                        session: number,
                        first,
                        writes,
                    };
                    let answers = self.upload(session.site, &upload)?;
                    Some(Input::Decided { batch, answers })
                }
                Output::TakeIn { batch, loss, writes } => {
                    let hand_in = HandIn {
                        edge: self.edges[session.edge].actor,
                        name: format!("e{}", self.edges[session.edge].who).into(),
                        tenant: tenant(),
                        write: vec![Subtree::ALL],
                        feeds: feeds.clone(),
                        environments: Environments::standard(),
                        new_epoch: loss.new_epoch,
                        writes,
                    };
                    let taken = self.take_in(session.site, &hand_in)?;
                    Some(Input::Taken { batch, taken })
                }
                Output::ReadFeeds { feeds: wanted, .. } => {
                    self.past.sends(session.edge, session.site, &feeds);
                    Some(self.read_feeds(session.site, &wanted))
                }
                Output::Close => {
                    session.way.retain(|frame| matches!(frame, Frame::Down(_)));
                    None
                }
                Output::Repair(job) => Some(Input::Repair(self.mend(session.site, job))),
                Output::Call { .. } | Output::Acknowledged(_) => None,
            };
            if let Some(answer) = answer {
                session.hub.handle(answer, self.local());
            }
        }
        Ok(())
    }

    fn note_refusal(&mut self, frame: &HubFrame) -> Check {
        use llm_config_shared::replication::frame::Refusal;
        if let HubFrame::Refused { refusal, .. } = frame {
            match refusal {
                Refusal::Behind => self.stats.count("regions that were behind an edge"),
                Refusal::Ahead => self.stats.count("regions that edges were ahead of"),
                Refusal::Busy | Refusal::Replaced | Refusal::Resubscribe => {}
                Refusal::Removed | Refusal::Protocol(_) => {
                    return Err(Violation::new("protocol", format!("an edge was refused: {refusal}")));
                }
            }
        }
        Ok(())
    }

    fn head_report(&self, site: usize) -> HeadReport {
        let host = &self.sites[site];
        let head = ready(host.journal.head()).expect("it was led");
        let losses = ready(host.journal.losses()).expect("it was led");
        let issued_at = self.site_wall(site);
        let signed = |loss: Loss| {
            let draft = LostHistory { loss, issued_at, key_id: KEY_ID }.draft();
            let signature = tag(&KEY, &draft.message());
            (loss, draft.signed(&signature))
        };
        HeadReport {
            physical: self.site_wall(site),
            hlc: host.leader.hlc().max(head.hlc),
            epsilon_ms: CLOCK_EPSILON_MS,
            leads: true,
            lost: losses.into_iter().map(signed).collect(),
            copied: false,
            head,
        }
    }

    /// The hub compares what the edge has with its own, and sends what differs.
    fn mend(&mut self, site: usize, job: Job) -> Outcome {
        let journal = &self.sites[site].journal;
        let read = |feed: Feed, from| {
            let mut snapshot = ready(journal.read_feeds(&[(feed, from)])).expect("it was led");
            (snapshot.head, snapshot.feeds.remove(0))
        };
        match job {
            Job::Compare { feed, at, sums } => {
                self.stats.count("feeds compared in worlds of regions");
                let (head, rows) = read(feed, Vector::EMPTY);
                compare(&rows, &head, &at, &sums).map_or_else(Outcome::Not, Outcome::Listed)
            }
            Job::Rows { feed, at, keys } => {
                let (head, rows) = read(feed, at.clone());
                let found = ready(journal.entries(&keys)).expect("it was led").value;
                let issue = Issue { at: self.site_wall(site), key_id: KEY_ID };
                let draft = draft_rows(&rows, &head, &at, &found, issue);
                draft.map_or_else(Outcome::Not, |draft| {
                    let signature = tag(&KEY, &draft.message());
                    Outcome::Rows(draft.signed(&signature))
                })
            }
        }
    }

    fn read_feeds(&self, site: usize, feeds: &[(Feed, Vector)]) -> Input {
        let snapshot = ready(self.sites[site].journal.read_feeds(feeds)).expect("it was led");
        let issue = Issue { at: self.site_wall(site), key_id: KEY_ID };
        let part = |(rows, (_, from)): (&llm_config_shared::store::FeedRows, &(_, Vector))| {
            let draft = draft_part_in_chunks(rows, from, &snapshot.head, issue, ROWS_MAX);
            let sign = |draft: llm_config_shared::segment::Draft| {
                let signature = tag(&KEY, &draft.message());
                draft.signed(&signature)
            };
            let segments: Vec<Bytes> = draft.segments.into_iter().map(sign).collect();
            let signature = tag(&KEY, &draft.checkpoint.message());
            Part { feed: rows.feed.clone(), segments, checkpoint: draft.checkpoint.signed(&signature) }
        };
        let parts = snapshot.feeds.iter().zip(feeds).map(part).collect();
        Input::Feeds { to: snapshot.head.vector(), epochs: snapshot.head.epochs.clone(), parts }
    }
}
