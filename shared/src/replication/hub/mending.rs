//! Helping an edge to put a feed right: one look into the database at a time, and a bounded list in between.

use super::{HubSession, Output};
use crate::feed::Feed;
use crate::limits::REPAIR_KEYS_MAX;
use crate::replication::frame::{HubFrame, Refusal};
use crate::replication::repair::{Job, Listed, Outcome, RepairAnswer, RepairAsk, Unrepaired};
use crate::vector::Vector;

/// Comparisons that one session may ask for; an edge that finds more wrong connects again.
const COMPARISONS_MAX: u32 = 16;

/// Where the help for this edge stands.
#[derive(Debug, Default)]
pub(super) struct Mending {
    /// What is being read, under the edge's number.
    pub(super) reading: Option<(u64, Job)>,
    /// What the edge asked for meanwhile: the newest only, it has given up the others.
    pub(super) next: Option<(u64, Job)>,
    /// What was listed last.
    pub(super) listed: Option<(u64, Feed, Vector, Listed)>,
    pub(super) comparisons: u32,
}

impl HubSession {
    pub(super) fn handle_repair(&mut self, repair: u64, ask: RepairAsk) {
        let job = match ask {
            RepairAsk::Compare { feed, at, sums } if self.sent.contains_key(&feed) => {
                self.mending.listed = None;
                self.mending.comparisons += 1;
                if self.mending.comparisons > COMPARISONS_MAX {
                    return self.answer_repair(repair, RepairAnswer::Not(Unrepaired::Busy));
                }
                Job::Compare { feed, at, sums }
            }
            RepairAsk::Compare { .. } => {
                return self.refuse(Refusal::Protocol("a feed of another edge".into()));
            }
            RepairAsk::Rows { keys } => match self.named(repair, &keys) {
                Some(job) => job,
                None => return self.refuse(Refusal::Protocol("rows that were not listed".into())),
            },
        };
        self.mending.next = Some((repair, job));
        self.begin_job();
    }

    /// The keys behind the hashes, of the list that the edge has just been given. It is used once.
    fn named(&mut self, repair: u64, hashes: &[u64]) -> Option<Job> {
        let (number, feed, at, listed) = self.mending.listed.take()?;
        if number != repair || hashes.len() > REPAIR_KEYS_MAX {
            return None;
        }
        let keys = hashes.iter().map(|hash| listed.keys.get(hash).cloned()).collect::<Option<Vec<_>>>()?;
        Some(Job::Rows { feed, at, keys })
    }

    fn begin_job(&mut self) {
        if self.mending.reading.is_some() {
            return;
        }
        if let Some((repair, job)) = self.mending.next.take() {
            self.mending.reading = Some((repair, job.clone()));
            self.outputs.push_back(Output::Repair(job));
        }
    }

    pub(super) fn handle_outcome(&mut self, outcome: Outcome) {
        let Some((repair, job)) = self.mending.reading.take() else { return };
        let answer = match (outcome, job) {
            (Outcome::Listed(listed), Job::Compare { feed, at, .. }) => {
                let (buckets, marks) = (listed.buckets.clone(), listed.marks.clone());
                self.mending.listed = Some((repair, feed, at, listed));
                RepairAnswer::Differing { buckets, marks }
            }
            (Outcome::Rows(bytes), Job::Rows { .. }) => RepairAnswer::Rows(bytes),
            (Outcome::Not(why), Job::Compare { .. } | Job::Rows { .. }) => RepairAnswer::Not(why),
            (Outcome::Listed(_), Job::Rows { .. }) | (Outcome::Rows(_), Job::Compare { .. }) => {
                RepairAnswer::Not(Unrepaired::Unfit)
            }
        };
        self.answer_repair(repair, answer);
        self.begin_job();
    }

    fn answer_repair(&mut self, repair: u64, answer: RepairAnswer) {
        self.send(HubFrame::Repair { repair, answer });
    }
}
