//! A file for an edge.

use crate::feed::Feed;
use crate::replication::frame::{EdgeFrame, Hello, HubFrame, PROTOCOL, Refusal, Welcome};
use crate::replication::hub::{HeadReport, HubSession, Input, Output, Part, Profile};
use crate::replication::rules::Rules;
use crate::replication::transfer::{Issue, PartDraft, draft_part_in_chunks};
use crate::store::{FeedRows, FeedSnapshot};
use crate::time::Instant;
use crate::vector::{Epochs, Vector};

/// What a file for an edge holds, beside keys and answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct There {
    /// What the edge is taken to hold. A feed that is not named comes whole.
    pub from: Vec<(Feed, Vector)>,
    pub welcome: Welcome,
    pub transfer: Vec<HubFrame>,
}

/// The parts of a file, to be signed: the feeds in a snapshot, from where each was read. Values are whole, for the edge may have
/// gone on meanwhile by another file, and a patch is of one state alone.
pub fn draft_parts(
    snapshot: &mut FeedSnapshot,
    from: &[(Feed, Vector)],
    issue: Issue,
    rows_max: usize,
) -> Vec<PartDraft> {
    let head = &snapshot.head;
    let draft = |(rows, (_, from)): (&mut FeedRows, &(Feed, Vector))| {
        rows.bases.clear();
        draft_part_in_chunks(rows, from, head, issue, rows_max)
    };
    snapshot.feeds.iter_mut().zip(from).map(draft).collect()
}

/// A file of which the beginning is made.
#[derive(Debug)]
pub struct Making {
    core: HubSession,
    from: Vec<(Feed, Vector)>,
    welcome: Welcome,
}

fn unfit() -> Refusal {
    Refusal::Protocol("a session of the hub with itself went astray".into())
}

impl Making {
    /// Greets in the name of an edge that holds `from`, and says what has to be read for it, all in one snapshot.
    ///
    /// # Errors
    /// When a hub at this place would not serve the edge: it has seen less than the edge acknowledged.
    pub fn begin(
        profile: Profile,
        rules: Rules,
        from: Vec<(Feed, Vector)>,
        report: HeadReport,
        now: Instant,
    ) -> Result<(Self, Vec<(Feed, Vector)>), Refusal> {
        let mut floor = Vector::EMPTY;
        from.iter().for_each(|(_, vector)| floor.join(vector));
        let mut core = HubSession::new(profile, rules, now);
        let hello = Hello { protocol: PROTOCOL, incarnation: 0, session: 0, floor, pending: 0 };
        core.handle(Input::Frame(EdgeFrame::Hello(hello)), now);
        core.handle(Input::Head(report), now);
        let subscribe = EdgeFrame::Subscribe { feeds: from.clone(), held: Vec::new() };
        let (mut welcome, mut asked) = (None, None);
        while let Some(output) = core.poll_output() {
            match output {
                Output::Send(HubFrame::Welcome(said)) => {
                    welcome = Some(said);
                    core.handle(Input::Frame(subscribe.clone()), now);
                }
                Output::Send(HubFrame::Refused { refusal, .. }) => return Err(refusal),
                Output::ReadFeeds { feeds, .. } => asked = Some(feeds),
                // The head is known; keys are sealed once it is known what needs them.
                Output::ReadHead
                | Output::SealGrants
                | Output::Send(_)
                | Output::Admit { .. }
                | Output::TakeIn { .. }
                | Output::Call { .. }
                | Output::Repair(_)
                | Output::Acknowledged(_)
                | Output::Close => {}
            }
        }
        let (welcome, asked) = welcome.zip(asked).ok_or_else(unfit)?;
        Ok((Self { core, from, welcome }, asked))
    }

    /// The whole of it, with the parts that were read.
    ///
    /// # Errors
    /// When what was read is from before what the edge acknowledged.
    pub fn finish(
        mut self,
        to: Vector,
        epochs: Epochs,
        parts: Vec<Part>,
        now: Instant,
    ) -> Result<There, Refusal> {
        self.core.handle(Input::Feeds { to, epochs, parts }, now);
        let mut transfer = Vec::new();
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send(HubFrame::Refused { refusal, .. }) => return Err(refusal),
                Output::Send(frame) => transfer.push(frame),
                Output::ReadHead
                | Output::SealGrants
                | Output::Admit { .. }
                | Output::TakeIn { .. }
                | Output::ReadFeeds { .. }
                | Output::Call { .. }
                | Output::Repair(_)
                | Output::Acknowledged(_)
                | Output::Close => {}
            }
        }
        Ok(There { from: self.from, welcome: self.welcome, transfer })
    }
}
