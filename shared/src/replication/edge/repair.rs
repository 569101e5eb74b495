//! A feed that differs from its checkpoint: the transfer waits aside, and readers see the last good state, until the rows
//! that differ have come or the feed is given up to be fetched whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::incoming::{Incoming, Part};
use super::{Alert, EdgeReplica, Output, Phase};
use crate::digest::{FeedDigest, key_hash};
use crate::entry::Row;
use crate::feed::Feed;
use crate::limits::{REPAIR_KEYS_MAX, REPAIRS_PER_HOUR_MAX};
use crate::name::EntryKey;
use crate::replication::frame::EdgeFrame;
use crate::replication::repair::{Mark, RepairAnswer, RepairAsk, Tally, Unrepaired, bucket};
use crate::segment::{Checkpoint, Kind, Rejected, verify};
use crate::time::Instant;

const HOUR_MS: u64 = 3_600_000;
/// A hub that helps others now is asked again after this time.
const BUSY_PAUSE_MS: u64 = 10_000;
/// A feed that differs even when it was fetched whole is not the edge's to put right: it is not asked for often.
const REFETCH_PAUSE_MS: u64 = 60_000;

/// A repair under way, of one feed of the transfer that has come.
#[derive(Debug)]
pub(super) struct Repair {
    number: u64,
    feed: Feed,
    /// Of the rows themselves, the transfer's among them.
    digest: FeedDigest,
    asked: Option<Asked>,
}

/// What is to be replaced.
#[derive(Debug)]
struct Asked {
    /// Hashes of keys whose rows are on their way.
    keys: BTreeSet<u64>,
    /// Entries that the hub does not have.
    gone: Vec<EntryKey>,
}

impl Repair {
    /// How many entries are named in it.
    pub(super) fn entries(&self) -> usize {
        self.asked.as_ref().map_or(0, |asked| asked.keys.len() + asked.gone.len())
    }
}

/// What a repair makes of a feed.
#[derive(Debug)]
pub(super) struct Repaired {
    pub(super) digest: FeedDigest,
    pub(super) rows: BTreeMap<EntryKey, Option<Arc<Row>>>,
}

impl EdgeReplica {
    /// Rows of the store could not be read, and nobody can say of which entries. What readers find is right; what they
    /// do not find may be missing, until the feed has been compared with the hub's. To be called before anything else.
    pub fn with_damage(mut self) -> Self {
        let ready = self.feeds.iter().filter(|(_, state)| state.record.ready);
        let doubted: Vec<Feed> = ready.map(|(feed, _)| feed.clone()).collect();
        for output in &mut self.outputs {
            if let Output::Publish(published) = output {
                published.doubted.clone_from(&doubted);
            }
        }
        self
    }

    /// A feed of the transfer that has come does not have the digest that its checkpoint states. What is there already
    /// is put right if that is likely to help; else the session's end starts that all of it is fetched.
    pub(super) fn differs(&mut self, feed: Feed, now: Instant) -> Result<(), Rejected> {
        self.outputs.push_back(Output::Alert(Alert::Differs(Box::new(feed.clone()))));
        let incoming = self.incoming.as_ref().expect("the transfer that differs");
        let part = &incoming.parts[&feed];
        let (whole, again) = (part.kind != Kind::Delta, part.repaired.is_some());
        // Nobody is there to be asked.
        let carried = self.phase == Phase::Carried;
        let state = self.feeds.get_mut(&feed).expect("granted feeds are in the table");
        state.repairs.retain(|at| now - *at < HOUR_MS);
        if whole || again || carried || state.repairs.len() >= REPAIRS_PER_HOUR_MAX {
            state.refetch = true;
            self.pause_ms = if whole { REFETCH_PAUSE_MS } else { 0 };
            return Err(Rejected::Digest);
        }
        state.repairs.push(now);
        self.begin_repair(feed, now)
    }

    /// The same of a checkpoint outside a transfer: as if a transfer had brought nothing but that.
    pub(super) fn heartbeat_differs(&mut self, checkpoint: Checkpoint, now: Instant) -> Result<(), Rejected> {
        if self.incoming.is_some() || !self.is_subscribed() {
            // The end of what is on its way will tell, or the first transfer of this session.
            return Ok(());
        }
        let mut incoming = Incoming::default();
        incoming.parts.insert(checkpoint.feed.clone(), Part::confirming(checkpoint));
        self.incoming = Some(incoming);
        self.switch(now)
    }

    fn begin_repair(&mut self, feed: Feed, now: Instant) -> Result<(), Rejected> {
        let part = self.part(&feed);
        let checkpoint = part.checkpoint.as_ref().expect("a part differs from its checkpoint");
        let at = checkpoint.vector.clone();
        let right = checkpoint.digest;
        let tally = Tally::of(self.rows_after(&feed, part).into_values().map(AsRef::as_ref));
        self.last_repair += 1;
        self.repair =
            Some(Repair { number: self.last_repair, feed: feed.clone(), digest: tally.digest, asked: None });
        if tally.digest == right {
            // The rows are as they should be, only the sum over them was not.
            return self.finish_repair(BTreeMap::new(), now);
        }
        let ask = RepairAsk::Compare { feed, at, sums: tally.sums };
        self.send(EdgeFrame::Repair { repair: self.last_repair, ask }, now);
        Ok(())
    }

    pub(super) fn handle_repair_answer(
        &mut self,
        number: u64,
        answer: RepairAnswer,
        now: Instant,
    ) -> Result<(), Rejected> {
        let Some(repair) = self.repair.as_ref().filter(|repair| repair.number == number) else {
            // Of a repair that was given up.
            return Ok(());
        };
        match (answer, &repair.asked) {
            (RepairAnswer::Differing { buckets, marks }, None) => self.ask_for_rows(&buckets, marks, now),
            (RepairAnswer::Rows(bytes), Some(_)) => self.take_repaired(&bytes, now),
            (RepairAnswer::Not(Unrepaired::Moved), _) => {
                // There is a newer checkpoint to compare with.
                self.abandon_incoming(now);
                self.subscribe(now);
                Ok(())
            }
            (RepairAnswer::Not(Unrepaired::Busy), _) => {
                self.pause_ms = BUSY_PAUSE_MS;
                Err(Rejected::Digest)
            }
            (RepairAnswer::Not(Unrepaired::Unfit), _) => self.give_up_repair(),
            (RepairAnswer::Differing { .. }, Some(_)) | (RepairAnswer::Rows(_), None) => Err(Rejected::Order),
        }
    }

    /// The feed cannot be put right key by key: all of it is fetched in the next session.
    fn give_up_repair(&mut self) -> Result<(), Rejected> {
        if let Some(repair) = self.repair.take()
            && let Some(state) = self.feeds.get_mut(&repair.feed)
        {
            state.refetch = true;
        }
        Err(Rejected::Digest)
    }

    /// Finds out from the hub's list what differs, and asks for it.
    fn ask_for_rows(&mut self, buckets: &[u8], marks: Vec<Mark>, now: Instant) -> Result<(), Rejected> {
        let Some(repair) = &self.repair else { return Ok(()) };
        let mut keys: BTreeMap<u64, u64> = marks.into_iter().map(|mark| (mark.key, mark.row)).collect();
        let part = self.part(&repair.feed);
        let spilled: BTreeSet<&EntryKey> = part.rows[..part.spilled].iter().map(|row| &row.at).collect();
        let (mut gone, mut fits) = (Vec::new(), true);
        for (at, row) in self.rows_after(&repair.feed, part) {
            let key = key_hash(at);
            if !buckets.contains(&bucket(key)) {
                continue;
            }
            let theirs = keys.get(&key).copied();
            if theirs == Some(Mark::of(row).row) {
                keys.remove(&key);
                continue;
            }
            if theirs.is_none() {
                gone.push(at.clone());
            }
            // What has just come, signed, is not what differs; on disk it lies where a repair does not reach.
            fits &= !spilled.contains(at);
        }
        let differing = keys.len() + gone.len();
        if !fits || differing == 0 || differing > REPAIR_KEYS_MAX {
            return self.give_up_repair();
        }
        let number = repair.number;
        let keys: BTreeSet<u64> = keys.into_keys().collect();
        if keys.is_empty() {
            let gone = gone.into_iter().map(|at| (at, None)).collect();
            return self.finish_repair(gone, now);
        }
        let ask = RepairAsk::Rows { keys: keys.iter().copied().collect() };
        if let Some(repair) = &mut self.repair {
            repair.asked = Some(Asked { keys, gone });
        }
        self.send(EdgeFrame::Repair { repair: number, ask }, now);
        Ok(())
    }

    /// The rows that were asked for, no more and no fewer, whatever their place in the hub's order.
    fn take_repaired(&mut self, bytes: &Bytes, now: Instant) -> Result<(), Rejected> {
        let Some(Repair { feed, asked: Some(asked), .. }) = &mut self.repair else { return Ok(()) };
        let (feed, asked) = (feed.clone(), std::mem::replace(asked, Asked::nothing()));
        let verified = verify(bytes, &self.identity.keys)?;
        let header = verified.header().clone();
        let at = self.part(&feed).to.clone();
        if header.kind != Kind::Repair
            || header.feed != feed
            || header.chunks != 1
            || !self.reaches(&header.to, &at)
        {
            return Err(Rejected::Order);
        }
        // What differs is no base for anything: these rows come whole.
        let rows = verified.open()?.resolve(|_, _| None)?;
        let (mut wanted, mut replaced) = (asked.keys, BTreeMap::new());
        let bound = self.clock_bound(header.issued_at, now);
        for row in rows {
            let fits = row.content.is_live() && at.covers_dot(row.dot) && wanted.remove(&key_hash(&row.at));
            if !fits {
                return Err(Rejected::ForeignRow);
            }
            if self.rules.clock_receive {
                self.clock.receive(row.stamp.hlc, bound);
            }
            replaced.insert(row.at.clone(), Some(Arc::new(row)));
        }
        if !wanted.is_empty() {
            return Err(Rejected::Order);
        }
        replaced.extend(asked.gone.into_iter().map(|at| (at, None)));
        self.finish_repair(replaced, now)
    }

    /// The transfer is looked at again, with these rows in place of what was there.
    fn finish_repair(
        &mut self,
        rows: BTreeMap<EntryKey, Option<Arc<Row>>>,
        now: Instant,
    ) -> Result<(), Rejected> {
        let Some(Repair { feed, mut digest, .. }) = self.repair.take() else { return Ok(()) };
        let part = self.part(&feed);
        for (at, row) in &rows {
            if let Some(before) = self.row_after(&feed, part, at) {
                digest.remove(before);
            }
            if let Some(row) = row {
                digest.add(row);
            }
        }
        let incoming = self.incoming.as_mut().expect("a repair is of a transfer");
        let part = incoming.parts.get_mut(&feed).expect("the part that differs");
        part.repaired = Some(Repaired { digest, rows });
        self.switch(now)
    }

    fn part(&self, feed: &Feed) -> &Part {
        let incoming = self.incoming.as_ref().expect("a repair ends with the transfer that it is of");
        &incoming.parts[feed]
    }

    /// The feed's rows as they will be with the transfer.
    fn rows_after<'a>(&'a self, feed: &Feed, part: &'a Part) -> BTreeMap<&'a EntryKey, &'a Arc<Row>> {
        let mut rows: BTreeMap<_, _> = self.rows.iter().filter(|(at, _)| feed.contains(at)).collect();
        for row in self.news(feed, part) {
            match row.content.is_live() {
                true => drop(rows.insert(&row.at, row)),
                false => drop(rows.remove(&row.at)),
            }
        }
        rows
    }

    fn row_after<'a>(&'a self, feed: &Feed, part: &'a Part, at: &EntryKey) -> Option<&'a Arc<Row>> {
        let news = self.news(feed, part).filter(|row| row.at == *at).last();
        news.map_or_else(|| self.rows.get(at), Some).filter(|row| row.content.is_live())
    }

    /// Rows of the transfer that are not covered yet.
    fn news<'a>(&self, feed: &Feed, part: &'a Part) -> impl Iterator<Item = &'a Arc<Row>> + use<'a> {
        let known = self.rules.skip_covered.then(|| self.feeds[feed].record.vector.clone());
        part.rows.iter().filter(move |row| known.as_ref().is_none_or(|known| !known.covers_dot(row.dot)))
    }
}

impl Asked {
    fn nothing() -> Self {
        Self { keys: BTreeSet::new(), gone: Vec::new() }
    }
}
