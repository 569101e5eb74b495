//! What a restored hub lacks and this edge knows goes back to it: kept writes, and rows whose place is beyond the cut.
//!
//! It goes up in the order of stamps, a message at a time, behind what waits and before everything is fetched anew: then the
//! rows are gone. How far it has come is durable, so that a restart goes on there; what is given twice changes nothing.

use std::collections::{BTreeMap, VecDeque};

use super::grace::as_write;
use super::{Alert, EdgeReplica, Effect, Output};
use crate::entry::Row;
use crate::limits::{UPLOAD_BYTES_MAX, UPLOAD_WRITES_MAX};
use crate::newer::Taken;
use crate::replication::frame::EdgeFrame;
use crate::stamp::Stamp;
use crate::store::replica::{Batch, HandedIn, Record};
use crate::time::Instant;
use crate::write::Write;

/// Where that stands in this session.
#[derive(Debug)]
pub(super) enum HandingIn {
    /// The hub lacks nothing, or takes nothing.
    Nothing,
    /// It takes what was lost, under this leadership.
    Due {
        leadership: u64,
    },
    /// Kept writes are being read from the disk.
    Recalling {
        leadership: u64,
    },
    Giving(Giving),
}

#[derive(Debug)]
pub(super) struct Giving {
    leadership: u64,
    waiting: VecDeque<Write>,
    /// The last of the message that is under way.
    under_way: Option<(u64, Stamp)>,
    taken: Taken,
}

impl EdgeReplica {
    /// Begins to hand in what there is; false when nothing is left to be.
    pub(super) fn hands_in(&mut self, now: Instant) -> bool {
        let HandingIn::Due { leadership } = self.handing_in else {
            return !matches!(self.handing_in, HandingIn::Nothing);
        };
        self.handing_in = HandingIn::Recalling { leadership };
        if self.grace.is_empty() {
            self.handle_recalled(Vec::new(), now);
        } else {
            self.outputs.push_back(Output::Recall);
        }
        !matches!(self.handing_in, HandingIn::Nothing)
    }

    pub(super) fn handle_recalled(&mut self, records: Vec<Record>, now: Instant) {
        let HandingIn::Recalling { leadership } = self.handing_in else { return };
        let mark = self.state.handed_in.filter(|mark| mark.leadership == leadership);
        let through = mark.map(|mark| mark.through);
        let known = self.rows().filter(|row| self.is_lost(row)).map(|row| as_write(row));
        let kept = records.into_iter().filter_map(|record| match record {
            Record::Kept(kept) => Some(kept.write),
            Record::Row(_)
            | Record::Staged(_)
            | Record::Stage(..)
            | Record::Feed(..)
            | Record::Pending(_)
            | Record::Grant(_)
            | Record::State(_) => None,
        });
        // Of a write that is in both, what its own author kept says more.
        let all: BTreeMap<Stamp, Write> = known.chain(kept).map(|write| (write.stamp(), write)).collect();
        let waiting = all.into_iter().filter(|(stamp, _)| through.is_none_or(|through| *stamp > through));
        self.handing_in = HandingIn::Giving(Giving {
            leadership,
            waiting: waiting.map(|(_, write)| write).collect(),
            under_way: None,
            taken: Taken::default(),
        });
        self.hand_in_next(now);
    }

    /// Whether the hub does not have the place of this row any more.
    fn is_lost(&self, row: &Row) -> bool {
        let head = self.recovering.as_ref().map_or(u64::MAX, |head| head.seq(row.dot.shard));
        !self.epochs.contains(row.dot.shard, row.dot.position, head)
    }

    /// The next message, or the end of it.
    pub(super) fn hand_in_next(&mut self, now: Instant) {
        let batch = self.last_batch + 1;
        let HandingIn::Giving(giving) = &mut self.handing_in else { return };
        let writes = giving.next_message();
        let Some(last) = writes.last().map(Write::stamp) else {
            let taken = giving.taken;
            self.handing_in = HandingIn::Nothing;
            if taken != Taken::default() {
                self.outputs.push_back(Output::Alert(Alert::HandedIn(taken)));
            }
            return self.upload_or_subscribe(now);
        };
        giving.under_way = Some((batch, last));
        self.last_batch = batch;
        self.send(EdgeFrame::HandIn { batch, writes }, now);
    }

    /// What the hub has taken need not be given again, once that is durable.
    pub(super) fn handle_taken(&mut self, batch: u64, taken: Taken, now: Instant) {
        let HandingIn::Giving(giving) = &mut self.handing_in else { return };
        let Some((_, last)) = giving.under_way.take_if(|(under_way, _)| *under_way == batch) else { return };
        giving.taken.add(&taken);
        self.state.handed_in = Some(HandedIn { leadership: giving.leadership, through: last });
        let batch = Batch { put: vec![self.state_record()], remove: Vec::new() };
        self.commit(batch, Effect::HandedIn, now);
    }
}

impl Giving {
    /// How many have not gone up yet.
    pub(super) fn left(&self) -> usize {
        self.waiting.len()
    }

    fn next_message(&mut self) -> Vec<Write> {
        let mut bytes = 0;
        let fits = |write: &&Write| {
            let first = bytes == 0;
            bytes += write.size();
            first || bytes <= UPLOAD_BYTES_MAX
        };
        let count = self.waiting.iter().take(UPLOAD_WRITES_MAX).take_while(fits).count();
        self.waiting.drain(..count).collect()
    }
}

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one output among many")]
mod tests;
