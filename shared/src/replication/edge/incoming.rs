//! A transfer on its way in: checked piece by piece, kept aside until it is whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::repair::Repaired;
use super::{Alert, EdgeReplica, Effect, FeedState, NotTaken, Output, Phase};
use crate::entry::{Content, Row};
use crate::feed::Feed;
use crate::held::Span;
use crate::replication::frame::{EdgeFrame, HubFrame};
use crate::segment::{Checkpoint, Held, Kind, Opened, Rejected, SegmentHeader, verify, verify_checkpoint};
use crate::store::replica::{Batch, FeedRecord, Record};
use crate::time::Instant;
use crate::vector::Vector;

/// What has come of a transfer so far.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    pub(super) transfer: u64,
    pub(super) parts: BTreeMap<Feed, Part>,
    /// Whether rows are on disk already, because there are too many for one batch.
    pub(super) spilled: bool,
}

/// What has come of one feed.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) from: Vector,
    pub(super) to: Vector,
    pub(super) chunks: u32,
    pub(super) next_chunk: u32,
    pub(super) rows: Vec<Arc<Row>>,
    /// What was held of a transfer that broke off, which this one goes on with, and its rows.
    pub(super) continues: Vec<Span>,
    pub(super) held_rows: Vec<Arc<Row>>,
    /// How many of `rows` are on disk.
    pub(super) spilled: usize,
    /// On disk the rows lie in their own slots, where nobody reads yet, instead of in the stage.
    pub(super) in_place: bool,
    pub(super) checkpoint: Option<Checkpoint>,
    /// The feed differed, and this is to replace what did.
    pub(super) repaired: Option<Repaired>,
}

impl Part {
    /// Nothing but that the feed has come so far.
    pub(super) fn empty(to: Vector) -> Self {
        Self {
            kind: Kind::Delta,
            from: Vector::EMPTY,
            to,
            chunks: 0,
            next_chunk: 0,
            rows: Vec::new(),
            continues: Vec::new(),
            held_rows: Vec::new(),
            spilled: 0,
            in_place: false,
            checkpoint: None,
            repaired: None,
        }
    }

    /// What came with the transfer, and what it was put right with.
    pub(super) fn all_rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        let repaired = self.repaired.iter().flat_map(|repaired| repaired.rows.values().flatten());
        self.rows.iter().chain(repaired)
    }

    /// What a checkpoint outside a transfer says.
    pub(super) fn confirming(checkpoint: Checkpoint) -> Self {
        Self { checkpoint: Some(checkpoint.clone()), ..Self::empty(checkpoint.vector) }
    }
}

impl EdgeReplica {
    /// Takes frames of transfers, as long as no switch is under way.
    pub(super) fn work_inbox(&mut self, now: Instant) {
        while !self.switching
            && let Some(frame) = self.inbox.pop_front()
        {
            if !self.passes(&frame, now) {
                continue;
            }
            let result = match frame {
                HubFrame::Segment { transfer, bytes } => self.handle_segment(transfer, &bytes, now),
                HubFrame::Checkpoint { transfer: 0, bytes } => self.handle_heartbeat(&bytes, now),
                HubFrame::Checkpoint { transfer, bytes } => self.handle_checkpoint(transfer, &bytes, now),
                HubFrame::End { transfer, feeds } => self.handle_end(transfer, feeds as usize, now),
                HubFrame::Repair { repair, answer } => self.handle_repair_answer(repair, answer, now),
                HubFrame::Welcome(_)
                | HubFrame::Refused { .. }
                | HubFrame::UploadResult { .. }
                | HubFrame::Taken { .. }
                | HubFrame::OfflineLimit(_)
                | HubFrame::Grants(_)
                | HubFrame::Reply { .. } => Ok(()),
            };
            if let Err(rejected) = result {
                self.reject(rejected, now);
            }
        }
    }

    /// Whether the frame is to be looked at. Nothing was asked for before the edge has subscribed: what comes then was kept by
    /// somebody on the way, and no hub would answer a question about it. A transfer that is being put right is whole, and what is said of it again, or
    /// late of others, is passed over; a repair that no transfer asked for ends when one begins.
    fn passes(&mut self, frame: &HubFrame, now: Instant) -> bool {
        let transfer = match frame {
            HubFrame::Segment { transfer, .. }
            | HubFrame::Checkpoint { transfer, .. }
            | HubFrame::End { transfer, .. } => *transfer,
            HubFrame::Welcome(_)
            | HubFrame::Refused { .. }
            | HubFrame::UploadResult { .. }
            | HubFrame::Taken { .. }
            | HubFrame::OfflineLimit(_)
            | HubFrame::Grants(_)
            | HubFrame::Reply { .. }
            | HubFrame::Repair { .. } => 0,
        };
        if transfer != 0 && !self.is_subscribed() && self.phase != Phase::Carried {
            return false;
        }
        if transfer == 0 || self.repair.is_none() {
            return true;
        }
        let alone = self.incoming.as_ref().is_none_or(|incoming| incoming.transfer == 0);
        if alone {
            self.abandon_incoming(now);
        }
        alone
    }

    /// The last good state stays; the session begins anew after a pause.
    pub(super) fn reject(&mut self, rejected: Rejected, now: Instant) {
        if self.phase == Phase::Carried {
            return self.end_carried(Err(NotTaken::Rejected(rejected)), now);
        }
        self.outputs.push_back(Output::Alert(Alert::Rejected(rejected)));
        // Whatever of it was wrong, nothing of it is gone on with.
        self.abandon_incoming(now);
        self.discard_stage(now);
        let pause_ms = std::mem::take(&mut self.pause_ms);
        self.hang_up(pause_ms, now);
    }

    fn handle_segment(&mut self, transfer: u64, bytes: &Bytes, now: Instant) -> Result<(), Rejected> {
        let verified = verify(bytes, &self.identity.keys)?;
        let header = verified.header().clone();
        if !self.may_take(&header)? {
            return Ok(());
        }
        let rows = self.resolve(&header.feed, verified.open()?)?;
        self.check_rows(&header, &rows)?;
        if self.rules.clock_receive {
            let bound = self.clock_bound(header.issued_at, now);
            for row in &rows {
                self.clock.receive(row.stamp.hlc, bound);
            }
        }
        self.take_rows(transfer, &header, rows, now)?;
        self.spill_if_large(now);
        Ok(())
    }

    /// Values that came as patches, made whole from the replica's rows. Where those are not what the hub takes them for,
    /// everything of the feed is fetched anew.
    fn resolve(&mut self, feed: &Feed, opened: Opened) -> Result<Vec<Row>, Rejected> {
        let named = self.rules.patch_base;
        let opened = if named { opened } else { opened.unchecked() };
        let rows = opened.resolve(|row, base| {
            let mine = self.rows.get(&row.at)?;
            let Content::Plain(value) = &mine.content else { return None };
            let here = mine.dot.position.seq;
            match mine.dot == row.dot {
                true => Some(Held::Result(value)),
                false => {
                    (!named || (mine.dot.shard == row.dot.shard && here == base)).then_some(Held::Base(value))
                }
            }
        });
        if rows == Err(Rejected::Base) {
            self.feed_state(feed).refetch = true;
        }
        rows
    }

    /// Whether the segment is for this edge and continues what it has. False for one that brings nothing new.
    fn may_take(&self, header: &SegmentHeader) -> Result<bool, Rejected> {
        if !self.granted.contains(&header.feed) {
            return Err(Rejected::NotMine(Box::new(header.feed.clone())));
        }
        if !self.is_in_history(&header.to) {
            return Err(Rejected::UnknownEpoch);
        }
        if header.kind == Kind::Repair {
            // Not a part of any transfer.
            return Err(Rejected::Order);
        }
        let state = &self.feeds[&header.feed];
        let mine = &state.record.vector;
        let fresh = self.begins_anew(state);
        if self.rules.continuity {
            if !fresh && self.reaches(mine, &header.to) {
                return Ok(false);
            }
            if self.is_below_floor(&header.feed, &header.to) {
                return Err(Rejected::BelowFloor);
            }
            if header.kind == Kind::Delta && (fresh || !self.reaches(mine, &header.from)) {
                return Err(Rejected::Gap { from: header.from.clone() });
            }
        }
        Ok(true)
    }

    /// Every row lies in the range that the header states.
    fn check_rows(&self, header: &SegmentHeader, rows: &[Row]) -> Result<(), Rejected> {
        let inside = rows.iter().all(|row| {
            let (since, with_deletions) = header.since(&row.at);
            header.to.covers_dot(row.dot)
                && !since.covers_dot(row.dot)
                && header.feed.contains(&row.at)
                && (with_deletions || row.content.is_live())
        });
        if inside { Ok(()) } else { Err(Rejected::ForeignRow) }
    }

    fn take_rows(
        &mut self,
        transfer: u64,
        header: &SegmentHeader,
        rows: Vec<Row>,
        now: Instant,
    ) -> Result<(), Rejected> {
        self.begin_incoming(transfer, now);
        if self.rules.floor {
            self.remember_told(&header.feed, &header.to);
        }
        if !self.rules.vector_last {
            // The fault that the rule guards against: the vector is ahead of the rows.
            self.move_vector_first(header, now);
        }
        let begun = |incoming: &Incoming| incoming.parts.contains_key(&header.feed);
        let part = if self.incoming.as_ref().is_some_and(begun) {
            None
        } else {
            Some(self.begin_part(header, now)?)
        };
        let incoming = self.incoming.as_mut().expect("begun above");
        // What it goes on with is on the disk.
        incoming.spilled |= !header.continues.is_empty();
        if let Some(part) = part {
            incoming.parts.insert(header.feed.clone(), part);
        }
        let part = incoming.parts.get_mut(&header.feed).expect("inserted above");
        if header.chunk < part.next_chunk {
            return Ok(());
        }
        let continues = part.kind == header.kind
            && part.chunks == header.chunks
            && part.to == header.to
            && part.continues == header.continues;
        if header.chunk != part.next_chunk || !continues {
            return Err(Rejected::Order);
        }
        part.next_chunk += 1;
        part.rows.extend(rows.into_iter().map(Arc::new));
        Ok(())
    }

    fn feed_state(&mut self, feed: &Feed) -> &mut FeedState {
        self.feeds.get_mut(feed).expect("granted feeds are in the table")
    }

    fn begin_incoming(&mut self, transfer: u64, now: Instant) {
        if self.incoming.as_ref().is_none_or(|incoming| incoming.transfer != transfer) {
            self.abandon_incoming(now);
            self.incoming = Some(Incoming { transfer, ..Incoming::default() });
        }
    }

    /// Only a feed's first transfer, and only where no other feed's rows lie.
    pub(super) fn may_go_in_place(&self, feed: &Feed) -> bool {
        let overlaps = |other: &Feed| {
            other.tenant == feed.tenant
                && other.environment == feed.environment
                && (other.subtree.covers(&feed.subtree) || feed.subtree.covers(&other.subtree))
        };
        !self.feeds[feed].record.ready && !self.feeds.keys().any(|other| other != feed && overlaps(other))
    }

    fn handle_checkpoint(&mut self, transfer: u64, bytes: &Bytes, now: Instant) -> Result<(), Rejected> {
        let checkpoint = self.verified_checkpoint(bytes)?;
        self.receive_clock(&checkpoint, now);
        let begun = |incoming: &Incoming| incoming.parts.contains_key(&checkpoint.feed);
        if !self.incoming.as_ref().is_some_and(begun) {
            // Nothing comes of this feed: what is held of it is not gone on with.
            self.discard_staged(&checkpoint.feed, now);
        }
        let state = &self.feeds[&checkpoint.feed];
        let complete = !self.begins_anew(state) && state.record.vector.covers(&checkpoint.changed);
        let current = self.incoming.as_ref().is_some_and(|incoming| incoming.transfer == transfer);
        if !current {
            // A transfer whose first feed brings nothing begins with its checkpoint.
            if self.incoming.is_some() {
                return Err(Rejected::Order);
            }
            self.incoming = Some(Incoming { transfer, ..Incoming::default() });
        }
        let incoming = self.incoming.as_mut().expect("set above");
        let part = match incoming.parts.get_mut(&checkpoint.feed) {
            Some(part) => part,
            None => {
                if !complete && self.rules.continuity {
                    return Err(Rejected::Order);
                }
                let part = Part::empty(checkpoint.vector.clone());
                incoming.parts.entry(checkpoint.feed.clone()).or_insert(part)
            }
        };
        if part.next_chunk != part.chunks || part.to != checkpoint.vector {
            return Err(Rejected::Order);
        }
        part.checkpoint = Some(checkpoint);
        Ok(())
    }

    /// What a checkpoint covers has been seen here, also what was deleted before anybody told of it.
    fn receive_clock(&mut self, checkpoint: &Checkpoint, now: Instant) {
        if self.rules.clock_receive {
            let bound = self.clock_bound(checkpoint.issued_at, now);
            self.clock.receive(checkpoint.hlc, bound);
        }
    }

    /// A checkpoint that is the hub's, of a feed of this edge, and not older than what was heard before.
    fn verified_checkpoint(&self, bytes: &Bytes) -> Result<Checkpoint, Rejected> {
        let checkpoint = verify_checkpoint(bytes, &self.identity.keys)?;
        if !self.granted.contains(&checkpoint.feed) {
            return Err(Rejected::NotMine(Box::new(checkpoint.feed)));
        }
        if !self.is_in_history(&checkpoint.vector) {
            return Err(Rejected::UnknownEpoch);
        }
        if self.rules.continuity && self.is_below_floor(&checkpoint.feed, &checkpoint.vector) {
            return Err(Rejected::BelowFloor);
        }
        Ok(checkpoint)
    }

    fn handle_end(&mut self, transfer: u64, feeds: usize, now: Instant) -> Result<(), Rejected> {
        if self.incoming.is_none() && feeds == 0 {
            self.incoming = Some(Incoming { transfer, ..Incoming::default() });
        }
        let Some(incoming) = &self.incoming else { return Ok(()) };
        let closed = incoming.parts.values().filter(|part| part.checkpoint.is_some()).count();
        let whole = closed == feeds && incoming.parts.len() == feeds && self.brings_enough(incoming);
        if incoming.transfer != transfer || !whole {
            return Err(Rejected::Order);
        }
        self.switch(now)
    }

    /// A checkpoint outside a transfer: if nothing has changed that this edge lacks, it has come as far as the hub.
    fn handle_heartbeat(&mut self, bytes: &Bytes, now: Instant) -> Result<(), Rejected> {
        let checkpoint = self.verified_checkpoint(bytes)?;
        self.hear_time(checkpoint.issued_at, now);
        self.receive_clock(&checkpoint, now);
        if now - self.last_sent > self.heartbeat_ms / 2 {
            self.send(EdgeFrame::Ack { transfer: 0 }, now);
        }
        let state = &self.feeds[&checkpoint.feed];
        if self.begins_anew(state) || !state.record.vector.covers(&checkpoint.changed) {
            // What is missing is on its way, or comes with the next transfer.
            return Ok(());
        }
        if state.digest != checkpoint.digest && self.rules.digest {
            return self.heartbeat_differs(checkpoint, now);
        }
        self.confirm(checkpoint, now);
        Ok(())
    }

    fn confirm(&mut self, checkpoint: Checkpoint, now: Instant) {
        self.state.confirmed_at = self.state.confirmed_at.max(checkpoint.issued_at.0);
        if self.rules.floor {
            // At once, as with a segment: while the batch is under way, an earlier checkpoint that a relay repeats must
            // not lead to a switch that goes back.
            self.feed_state(&checkpoint.feed).record.floor.join(&checkpoint.vector);
        }
        let mut record = self.feeds[&checkpoint.feed].record.clone();
        record.vector.join(&checkpoint.vector);
        let moved = record.vector != self.feeds[&checkpoint.feed].record.vector;
        record.checkpoint_issued_at = record.checkpoint_issued_at.max(checkpoint.issued_at.0);
        let feeds = vec![(checkpoint.feed.clone(), record.clone())];
        if !moved {
            // Nothing that a restart would miss: the disk is left alone.
            return self.complete_confirmed(feeds, Vec::new());
        }
        let removed = self.covered_pending(&[(checkpoint.feed.clone(), record.vector.clone())], &[]);
        let mut batch = self.begin_removals(&removed, now);
        batch.put.extend([Record::Feed(checkpoint.feed, record), self.state_record()]);
        self.commit(batch, Effect::Confirmed { feeds, removed }, now);
    }

    fn move_vector_first(&mut self, header: &SegmentHeader, now: Instant) {
        let state = self.feed_state(&header.feed);
        state.record.vector.join(&header.to);
        state.record.ready = true;
        let record: FeedRecord = state.record.clone();
        let put = vec![Record::Feed(header.feed.clone(), record)];
        self.commit(Batch { put, remove: Vec::new() }, Effect::Nothing, now);
    }

    /// Whether the edge has subscribed in this session.
    pub fn is_subscribed(&self) -> bool {
        matches!(self.phase, Phase::Serving { subscribed: true })
    }
}
