//! What a hub process sends, made once per feed and range: the product's layout of transfers, signed and remembered.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use llm_config_shared::feed::Feed;
use llm_config_shared::held::{Held, Span, seen};
use llm_config_shared::name::EntryKey;
use llm_config_shared::replication::carry::draft_parts;
use llm_config_shared::replication::hub::Part;
use llm_config_shared::replication::transfer::{Issue, draft_checkpoint, draft_part_in_chunks, draft_rest};
use llm_config_shared::segment::{
    Draft, Kind, Opened, Rejected, SIGNATURE_BYTES, SegmentHeader, VerificationKeys, tag, verify,
};
use llm_config_shared::store::{FeedRows, FeedSnapshot, Head, Journal};
use llm_config_shared::vector::{Epochs, Position, Vector};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::hub::FeedsWanted;
use super::{SHARD, World};
use crate::invariants::once::Stretch;
use crate::invariants::{Check, Violation, encodings, sizes};
use crate::journal::{SimJournal, ready};

/// A checkpoint is said again with a new time after so long.
const CHECKPOINT_MS: u64 = 3_000;
/// One of so many encodings is opened and compared.
const OPENED_EACH: u64 = 4;
/// One of so many worlds has real signatures.
const SIGNED_EACH: u64 = 15;
/// At one of so many places deltas go as snapshots.
const WHOLE_EACH: u64 = 7;
pub(super) const KEY_ID: u64 = 7;

/// The hub's signing key, the same in every world. Nobody in these worlds forges, and signatures would take three quarters
/// of the time: most worlds use tags for them.
#[derive(Debug)]
pub(super) enum Signer {
    Signatures(Box<Ed25519KeyPair>),
    Tags,
}

impl Signer {
    const SEED: [u8; 32] = [7; 32];

    pub(super) fn new(seed: u64) -> Self {
        if !seed.is_multiple_of(SIGNED_EACH) {
            return Self::Tags;
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(&Self::SEED).expect("a seed of 32 bytes");
        Self::Signatures(Box::new(pair))
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        match self {
            Self::Signatures(pair) => {
                pair.sign(message).as_ref().try_into().expect("Ed25519 signatures have 64 bytes")
            }
            Self::Tags => tag(&Self::SEED, message),
        }
    }

    pub(super) fn keys(&self) -> VerificationKeys {
        match self {
            Self::Signatures(pair) => {
                let public = pair.public_key().as_ref().try_into().expect("Ed25519 keys have 32 bytes");
                VerificationKeys::new([(KEY_ID, public)])
            }
            Self::Tags => VerificationKeys::tags([(KEY_ID, Self::SEED)]),
        }
    }
}

/// A feed, from where to where it is sent: (epoch, seq) twice, what its patches are made against, and what is held of it: key
/// and (epoch, seq).
pub(super) type Range = (Feed, (u64, u64), (u64, u64), Bases, Vec<(Option<EntryKey>, (u64, u64))>);

/// What the rows of a part may be patches of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bases {
    /// What the receiver has: nothing lies between its place and where the part begins.
    Held,
    /// Nothing: the part begins before the last change that the receiver has.
    Left,
    /// Such a part all the same: the fault that the receiver's check of bases guards against.
    Earlier,
}

/// Where a part begins.
struct Start {
    from: Vector,
    bases: Bases,
    /// What it goes on with.
    held: Option<Held>,
}

impl Start {
    fn at(from: Vector, bases: Bases) -> Self {
        Self { from, bases, held: None }
    }
}

/// What one process has made.
#[derive(Debug, Default)]
pub(super) struct Published {
    segments: BTreeMap<Range, Vec<Bytes>>,
    checkpoints: BTreeMap<(Feed, (u64, u64)), (u64, Bytes)>,
}

/// What all processes have made, to be compared.
#[derive(Debug, Default)]
pub(super) struct Encodings {
    rows: BTreeMap<Range, [u8; 32]>,
    /// By process life: made once each.
    made: BTreeSet<(usize, u32, Range)>,
}

/// Whether what a receiver lacks at this place goes as everything there is: as if that were smaller.
pub(super) fn goes_whole(to: u64) -> bool {
    to.is_multiple_of(WHOLE_EACH)
}

fn place(vector: &Vector) -> (u64, u64) {
    vector.iter().next().map_or((0, 0), |(_, position)| (position.epoch, position.seq))
}

impl World {
    /// All the feeds in one snapshot of the database, as parts of a transfer.
    pub(super) fn publish(
        &mut self,
        hub: usize,
        edge: usize,
        request: FeedsWanted,
    ) -> Result<(Vector, Epochs, Vec<Part>), Violation> {
        let journal = self.journal_of(hub);
        let mut starts = self.starts(&journal, &request.feeds);
        self.go_on(&journal, edge, &request, &mut starts);
        let places = request.feeds.iter().zip(&starts);
        let wanted: Vec<(Feed, Vector)> =
            places.map(|((feed, _), start)| (feed.clone(), start.from.clone())).collect();
        let mut snapshot =
            ready(journal.read_feeds(&wanted)).expect("the database was led before it is read");
        if let Some(early) = request.early {
            // The fault that rule 3 guards against. What was read early is labelled as if it were as new as the rest.
            let FeedSnapshot { feeds, .. } = *early;
            for (n, rows) in feeds.into_iter().enumerate() {
                snapshot.feeds[n] = rows;
            }
        }
        let head = snapshot.head;
        let mut parts = Vec::with_capacity(snapshot.feeds.len());
        for (rows, ((_, from), start)) in snapshot.feeds.iter_mut().zip(request.feeds.iter().zip(&starts)) {
            match start.bases {
                Bases::Held => {}
                Bases::Left => rows.bases.clear(),
                Bases::Earlier if rows.bases.is_empty() => {}
                Bases::Earlier => {
                    self.stats.count("parts with patches of an earlier value");
                    self.edges[edge].wrong_bases = true;
                }
            }
            let start =
                Start { from: head.served_from(&start.from), bases: start.bases, held: start.held.clone() };
            let part = self.part(hub, rows, from, &start, &head)?;
            if request.every || !part.segments.is_empty() {
                parts.push(part);
            }
        }
        Ok((head.vector(), head.epochs, parts))
    }

    /// Where the parts of all feeds begin, as far as the process knows; that something was purged by another it may only
    /// find while it reads.
    fn starts(&mut self, journal: &SimJournal, feeds: &[(Feed, Vector)]) -> Vec<Start> {
        let head = ready(journal.head()).expect("the database was led before it is read");
        let informed = !self.chance(10);
        let faulty = self.chaos && self.chance(20);
        let start = |(feed, from): &(Feed, Vector)| {
            let Start { from: shared, bases, .. } = self.start(feed, from);
            let bases = if faulty && bases == Bases::Left { Bases::Earlier } else { bases };
            if !shared.is_empty() && goes_whole(head.position.seq) {
                return Start::at(Vector::EMPTY, Bases::Held);
            }
            Start::at(if informed { head.shared_from(from, shared) } else { shared }, bases)
        };
        feeds.iter().map(start).collect()
    }

    /// Where a transfer broke off and can be gone on with, that is how the part begins.
    fn go_on(&mut self, journal: &SimJournal, edge: usize, request: &FeedsWanted, starts: &mut [Start]) {
        let mut head = ready(journal.head()).expect("the database was led before it is read");
        if !self.setup.held_horizon {
            // The fault that this part of rule 3 guards against.
            head.horizon = 0;
        }
        for ((feed, from), start) in request.feeds.iter().zip(starts) {
            let Some(held) = request.held.get(feed) else { continue };
            if !head.continues(held) {
                self.stats.count("broken transfers begun again");
                continue;
            }
            self.stats.count("transfers continued");
            let bases = if place(&held.from) == place(from) { Bases::Held } else { Bases::Left };
            let mut held = held.clone();
            if self.chaos && self.chance(10) {
                // As if the receiver held more than it does: the fault that its own check guards against.
                held.spans.truncate(1);
                held.spans[0].through = None;
                self.edges[edge].wrong_held = true;
            }
            *start = Start { from: held.from.clone(), bases, held: Some(held) };
        }
    }

    /// Where a part begins, so that many receivers share it: at the feed's change before the receiver's position, or
    /// now and then at one further back.
    fn start(&self, feed: &Feed, from: &Vector) -> Start {
        let Some((shard, position)) = from.iter().next() else {
            return Start::at(Vector::EMPTY, Bases::Held);
        };
        let skipped = usize::from(position.seq % 3 == 0) * 2;
        let seqs = (1..=position.seq).rev();
        let changes = seqs.filter(|seq| {
            self.truth.winners.get(*seq as usize - 1).is_some_and(|winner| feed.contains(&winner.at))
        });
        match changes.into_iter().nth(skipped) {
            Some(seq) => Start::at(
                Vector::at(shard, Position { epoch: position.epoch, seq }),
                if skipped > 0 { Bases::Left } else { Bases::Held },
            ),
            None => Start::at(from.clone(), Bases::Held),
        }
    }

    /// The same for a file, which one edge alone gets.
    pub(super) fn parts_of_file(
        &mut self,
        hub: usize,
        wanted: &[(Feed, Vector)],
    ) -> Result<(Vector, Epochs, Vec<Part>), Violation> {
        let mut snapshot =
            ready(self.journal_of(hub).read_feeds(wanted)).expect("the database was led before it is read");
        let issue = Issue { at: self.hub_wall(hub), key_id: KEY_ID };
        let drafts = draft_parts(&mut snapshot, wanted, issue, self.segment_rows_max);
        let head = snapshot.head;
        let mut parts = Vec::with_capacity(drafts.len());
        for ((draft, rows), (feed, from)) in drafts.into_iter().zip(&snapshot.feeds).zip(wanted) {
            let segments: Vec<Bytes> = draft.segments.into_iter().map(|draft| self.signed(draft)).collect();
            let opened = encodings::open(&segments, &self.signer.keys())?;
            encodings::told(feed, &opened, &self.truth)?;
            if !segments.is_empty() {
                let (from, to) = (place(&head.served_from(from)), place(&head.vector()));
                let range = (feed.clone(), from, to, Bases::Left, Vec::new());
                self.weigh(rows, &range, &[], &segments, &opened)?;
            }
            let signature = self.signer.sign(&draft.checkpoint.message());
            let checkpoint = draft.checkpoint.signed(&signature);
            parts.push(Part { feed: feed.clone(), segments, checkpoint });
        }
        Ok((head.vector(), head.epochs, parts))
    }

    fn signed(&self, draft: Draft) -> Bytes {
        let signature = self.signer.sign(&draft.message());
        draft.signed(&signature)
    }

    /// What the parts of a transfer say of themselves.
    pub(super) fn stretches(&self, parts: &[Part]) -> Result<Vec<Stretch>, Violation> {
        let stretch = |part: &Part| {
            let header = match part.segments.first() {
                Some(bytes) => Some(verify(bytes, &self.signer.keys())?.header().clone()),
                None => None,
            };
            let continues = header.as_ref().is_some_and(|header| !header.continues.is_empty());
            let from =
                header.filter(|header| header.kind != Kind::Snapshot).map(|header| place(&header.from).1);
            Ok(Stretch { feed: part.feed.clone(), segments: part.segments.len(), from, continues })
        };
        let broken = |error: Rejected| Violation::new("encodings", format!("what was just made: {error}"));
        parts.iter().map(stretch).collect::<Result<_, _>>().map_err(broken)
    }

    /// From where on a feed is sent to an edge that has come to `seq`, at the latest; the horizon may raise that.
    pub(super) fn shared_start(&self, feed: &Feed, seq: u64) -> u64 {
        let position = Position { epoch: 0, seq };
        place(&self.start(feed, &Vector::at(SHARD, position)).from).1
    }

    fn part(
        &mut self,
        hub: usize,
        rows: &FeedRows,
        from: &Vector,
        start: &Start,
        head: &Head,
    ) -> Result<Part, Violation> {
        let feed = rows.feed.clone();
        let changed = rows.digest.changed(feed.secrets);
        let current = start.held.is_none() && !from.is_empty() && place(from).1 >= changed;
        let segments = if current { Vec::new() } else { self.segments(hub, rows, start, head)? };
        let below = from.seq(head.shard) < head.horizon;
        if !from.is_empty() && below && start.from.is_empty() && !current {
            self.stats.count("fetched anew from below the horizon");
        }
        if segments.len() > 1 {
            self.stats.count("multi-page transfers");
        }
        let checkpoint = self.checkpoint(hub, rows, head);
        Ok(Part { feed, segments, checkpoint })
    }

    fn segments(
        &mut self,
        hub: usize,
        rows: &FeedRows,
        start: &Start,
        head: &Head,
    ) -> Result<Vec<Bytes>, Violation> {
        let spans = start.held.iter().flat_map(|held| &held.spans);
        let spans = spans.map(|span| (span.through.clone(), place(&span.to))).collect();
        let range: Range = (rows.feed.clone(), place(&start.from), place(&head.vector()), start.bases, spans);
        if let Some(segments) = self.hubs[hub].published.segments.get(&range) {
            self.stats.count("segments shared");
            return Ok(segments.clone());
        }
        self.stats.count("encodings");
        let issue = Issue { at: self.hub_wall(hub), key_id: KEY_ID };
        let rows_max = self.segment_rows_max;
        let drafts = match &start.held {
            Some(held) => draft_rest(rows, held, head, issue, rows_max),
            None => draft_part_in_chunks(rows, &start.from, head, issue, rows_max).segments,
        };
        let segments: Vec<Bytes> = drafts.into_iter().map(|draft| self.signed(draft)).collect();
        let opened = encodings::open(&segments, &self.signer.keys())?;
        self.stats
            .add("rows sent as patches", opened.iter().map(|(_, opened)| opened.patches() as u64).sum());
        self.compare(hub, &range, &opened)?;
        let spans = start.held.as_ref().map_or(&[][..], |held| &held.spans);
        self.weigh(rows, &range, spans, &segments, &opened)?;
        self.hubs[hub].published.segments.insert(range, segments.clone());
        Ok(segments)
    }

    /// A part holds what its receiver lacks, and nothing else, in few bytes.
    fn weigh(
        &self,
        rows: &FeedRows,
        (feed, from, to, ..): &Range,
        spans: &[Span],
        segments: &[Bytes],
        opened: &[(SegmentHeader, Opened)],
    ) -> Check {
        if !self.setup.one_snapshot || !self.setup.horizon {
            return Ok(());
        }
        let whole = opened.iter().any(|(header, _)| header.kind == Kind::Snapshot);
        let lacking = self.lacking(feed, (!whole).then_some(from.1), spans, to.1);
        let sent = opened.iter().flat_map(|(_, opened)| opened.as_sent());
        let sent: Vec<_> = sent.map(|row| (row.at.clone(), row.dot.position.seq)).collect();
        sizes::exactly(feed, &sent, &lacking)?;
        if !to.1.is_multiple_of(OPENED_EACH) {
            return Ok(());
        }
        let whole: BTreeMap<_, _> = rows.rows.iter().map(|row| (&row.row.at, &row.row)).collect();
        for (bytes, (_, opened)) in segments.iter().zip(opened) {
            let brought: Vec<_> = opened.as_sent().filter_map(|row| whole.get(&row.at).copied()).collect();
            sizes::few(feed, &brought, bytes.len())?;
        }
        Ok(())
    }

    /// By key, what a receiver lacks that has come to `from`, and of some keys further.
    fn lacking(&self, feed: &Feed, from: Option<u64>, spans: &[Span], to: u64) -> BTreeMap<EntryKey, u64> {
        let since = |span: Option<&Span>, from| {
            let place = span.map(|span| &span.to);
            let mut lacking = sizes::lacking(&self.truth, feed, from, to);
            lacking.retain(|at, _| seen(spans, at) == place);
            lacking
        };
        let mut lacking = since(None, from);
        for span in spans {
            lacking.extend(since(Some(span), Some(place(&span.to).1)));
        }
        lacking
    }

    fn compare(&mut self, hub: usize, range: &Range, segments: &[(SegmentHeader, Opened)]) -> Check {
        if !self.encodings.made.insert((hub, self.hubs[hub].life, range.clone())) {
            return Err(Violation::new("encodings", format!("{range:?} was made twice by hub {hub}")));
        }
        // Opening costs more than making: a part of them stands for all.
        if !range.2.1.is_multiple_of(OPENED_EACH) {
            return Ok(());
        }
        let digest = encodings::told(&range.0, segments, &self.truth)?;
        match self.encodings.rows.insert(range.clone(), digest) {
            Some(before) if before != digest && self.setup.one_snapshot && self.setup.horizon => {
                Err(Violation::new("encodings", format!("{range:?} holds other rows than before")))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn checkpoint(&mut self, hub: usize, rows: &FeedRows, head: &Head) -> Bytes {
        let key = (rows.feed.clone(), place(&head.vector()));
        if let Some((at, bytes)) = self.hubs[hub].published.checkpoints.get(&key)
            && *at + CHECKPOINT_MS > self.now
        {
            return bytes.clone();
        }
        let quiet = FeedRows {
            feed: rows.feed.clone(),
            rows: Vec::new(),
            bases: BTreeMap::new(),
            digest: rows.digest,
        };
        let issue = Issue { at: self.hub_wall(hub), key_id: KEY_ID };
        let draft = draft_checkpoint(&quiet, head, issue);
        let signature = self.signer.sign(&draft.message());
        let bytes = draft.signed(&signature);
        self.hubs[hub].published.checkpoints.insert(key, (self.now, bytes.clone()));
        bytes
    }
}
