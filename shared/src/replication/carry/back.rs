//! A file that an edge made: its writes are admitted as if it had uploaded them.

use std::collections::VecDeque;

use super::mark;
use crate::feed::Feed;
use crate::replication::frame::{EdgeFrame, HubFrame, Refusal};
use crate::replication::hub::{HeadReport, HubSession, Input, Output, Profile};
use crate::replication::rules::Rules;
use crate::time::Instant;
use crate::vector::{ShardId, Vector};
use crate::write::{Answer, Write};

/// So many answers count together: an edge that has heard of one of them already waits for the next file for the others.
const ANSWERS_MAX: usize = 16;

/// One batch of writes that is to be admitted. That its session has uploaded before says nothing of copies: a file may be
/// brought again.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    pub batch: u64,
    pub session: u64,
    pub writes: Vec<Write>,
}

/// A file on its way in.
#[derive(Debug)]
pub struct Back {
    core: HubSession,
    shard: ShardId,
    /// How many feeds the edge receives.
    feeds: usize,
    frames: VecDeque<EdgeFrame>,
    held: Vec<(Feed, Vector)>,
    /// The batch that is being decided.
    asked: Vec<Write>,
    answers: Vec<HubFrame>,
}

impl Back {
    /// Whether frames stand in the order in which an edge puts them: a greeting, what it holds, its writes.
    pub fn makes_sense(frames: &[EdgeFrame]) -> bool {
        let [EdgeFrame::Hello(_), rest @ ..] = frames else { return false };
        rest.iter().all(|frame| matches!(frame, EdgeFrame::Subscribe { .. } | EdgeFrame::Upload { .. }))
    }

    /// Hears its greeting.
    ///
    /// # Errors
    /// When a hub at this place does not take anything of the edge: it has seen less than the edge was told.
    pub fn begin(
        frames: Vec<EdgeFrame>,
        profile: Profile,
        rules: Rules,
        report: HeadReport,
        now: Instant,
    ) -> Result<Self, Refusal> {
        if !Self::makes_sense(&frames) {
            return Err(Refusal::Protocol("message out of order".into()));
        }
        let (shard, feeds) = (report.head.shard, profile.feeds.len());
        let mut frames = VecDeque::from(frames);
        let mut core = HubSession::new(profile, rules, now);
        core.handle(frames.pop_front().map(Input::Frame).expect("looked at above"), now);
        core.handle(Input::Head(report), now);
        let mut back =
            Self { core, shard, feeds, frames, held: Vec::new(), asked: Vec::new(), answers: Vec::new() };
        back.admission().map(|_| back)
    }

    /// The next writes to be admitted; none once all have been.
    ///
    /// # Errors
    /// When they are nothing that an edge may upload.
    pub fn next(&mut self, now: Instant) -> Result<Option<Admission>, Refusal> {
        while let Some(frame) = self.frames.pop_front() {
            if let EdgeFrame::Subscribe { feeds, .. } = frame {
                self.held = feeds;
                continue;
            }
            self.core.handle(Input::Frame(frame), now);
            if let Some(admission) = self.admission()? {
                return Ok(Some(admission));
            }
        }
        Ok(None)
    }

    /// The hub has decided a batch.
    pub fn decided(&mut self, batch: u64, answers: Vec<Answer>, now: Instant) {
        let writes = std::mem::take(&mut self.asked);
        for (writes, answers) in writes.chunks(ANSWERS_MAX).zip(answers.chunks(ANSWERS_MAX)) {
            let batch = mark(writes.iter());
            self.answers.push(HubFrame::UploadResult { batch, answers: answers.to_vec() });
        }
        self.core.handle(Input::Decided { batch, answers }, now);
    }

    /// All answers, for the edge that waits for them. Each frame says to which writes it is.
    pub fn answers(&self) -> &[HubFrame] {
        &self.answers
    }

    /// How far the edge had come in this hub's order when it made the file, in all that it receives; 0 where it held less.
    pub fn held(&self) -> u64 {
        let places = self.held.iter().map(|(_, at)| at.seq(self.shard));
        places.min().filter(|_| self.held.len() >= self.feeds).unwrap_or(0)
    }

    fn admission(&mut self) -> Result<Option<Admission>, Refusal> {
        let mut found = None;
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send(HubFrame::Refused { refusal, .. }) => return Err(refusal),
                Output::Admit { batch, session, writes, .. } => {
                    self.asked.clone_from(&writes);
                    found = Some(Admission { batch, session, writes });
                }
                Output::Send(_)
                | Output::ReadHead
                | Output::SealGrants
                | Output::TakeIn { .. }
                | Output::ReadFeeds { .. }
                | Output::Call { .. }
                | Output::Repair(_)
                | Output::Acknowledged(_)
                | Output::Close => {}
            }
        }
        Ok(found)
    }
}
