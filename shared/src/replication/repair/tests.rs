//! Repairs from end to end: an edge's and a hub's half over a table of rows, with what went over the wire counted.

use std::sync::Arc;

use ring::signature::{Ed25519KeyPair, KeyPair};
use uuid::Uuid;

use super::*;
use crate::digest::ScopeDigest;
use crate::entry::{ChangeId, Metadata};
use crate::feed::Environments;
use crate::limits::{HEARTBEAT_MS, REPAIR_KEYS_MAX, REPAIRS_PER_HOUR_MAX};
use crate::name::{Environment, Key, Namespace, Scope, Subtree, Tenant};
use crate::replication::edge::{Alert, EdgeReplica, Identity, Input as EdgeInput, Output as EdgeOutput};
use crate::replication::frame::{EdgeFrame, HubFrame};
use crate::replication::hub::{HeadReport, HubSession, Input, Output, Part, Profile};
use crate::replication::rules::Rules;
use crate::replication::transfer::draft_part;
use crate::secret::SealedSecret;
use crate::segment::{Rejected, VerificationKeys};
use crate::stamp::{ActorId, Hlc, Stamp, WriteId};
use crate::store::Base;
use crate::store::replica::{Batch, FeedRecord, Record, StateRecord};
use crate::time::{Instant, UnixMillis};
use crate::value::Value;
use crate::vector::{Dot, Epoch, EpochTable, Epochs, Position, ShardId};

const SHARD: ShardId = ShardId(Uuid::from_u128(7));
const ISSUE: Issue = Issue { at: UnixMillis(1_000_000), key_id: 11 };
/// What a frame takes beside hashes and signed bytes, far more than it does: numbers, names, a vector.
const FRAME_OVERHEAD: usize = 256;

fn feed(secrets: bool) -> Feed {
    Feed {
        tenant: Tenant::parse("t").unwrap(),
        environment: Environment::base(),
        subtree: Subtree::parse("app").unwrap(),
        secrets,
    }
}

fn place(seq: u64) -> Vector {
    Vector::at(SHARD, Position { epoch: 5, seq })
}

fn plain(text: &str) -> Content {
    Content::Plain(Value::string(text).unwrap())
}

fn row(n: u64, content: Content) -> Row {
    let scope = Scope {
        tenant: Tenant::parse("t").unwrap(),
        environment: Environment::base(),
        namespace: Namespace::parse("app/llm").unwrap(),
    };
    let id = WriteId { actor: ActorId(Uuid::from_u128(9)), incarnation: 3, counter: n };
    Row {
        at: EntryKey { scope, key: Key::parse(&format!("model/{n:06}")).unwrap() },
        dot: Dot { shard: SHARD, position: Position { epoch: 5, seq: n } },
        stamp: Stamp { hlc: Hlc(n << 20), id },
        version: 1,
        content,
        metadata: Metadata {
            created_at: UnixMillis(1_000),
            created_by: "token:admin".into(),
            updated_at: UnixMillis(1_000),
            updated_by: "token:admin".into(),
            tags: Vec::new(),
            description: None,
        },
        change: ChangeId(Uuid::from_u128(1)),
    }
}

fn secret(n: u64) -> Content {
    let (body, wrap) = (Bytes::from(vec![n as u8; 60]), Bytes::from(vec![1; 72]));
    Content::Secret(SealedSecret { key_epoch: 4, version: n, about: Default::default(), body, wrap })
}

/// A hub with one feed.
struct Hub {
    rows: Vec<HubRow>,
    /// What rows held before they were last set.
    bases: BTreeMap<EntryKey, Base>,
    feed: Feed,
    key: Ed25519KeyPair,
    session: HubSession,
    /// How many of the writes to come happen between a comparison and its answer.
    moves: u32,
    /// Its own sum is wrong by this.
    wrong_by: u128,
    /// It sends other rows than were asked for.
    mixes_up: bool,
}

impl Hub {
    fn new(contents: impl IntoIterator<Item = Content>, feed: Feed) -> Self {
        let rows = (1..).zip(contents).map(|(n, content)| row(n, content)).map(stored).collect();
        let profile = Profile {
            feeds: vec![feed.clone()],
            environments: Environments::standard(),
            default_environment: Environment::base(),
            write: Vec::new(),
        };
        let session = HubSession::new(profile, Rules::ALL, Instant(0));
        let key = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        Self { rows, bases: BTreeMap::new(), feed, key, session, moves: 0, wrong_by: 0, mixes_up: false }
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).as_ref().try_into().unwrap()
    }

    fn head(&self) -> Head {
        let newest = self.rows.iter().map(|row| row.row.dot.position.seq).max().unwrap_or(0);
        Head {
            shard: SHARD,
            position: Position { epoch: 5, seq: newest },
            hlc: Hlc(newest << 20),
            horizon: 0,
            epochs: Epochs::of(SHARD, EpochTable::new(vec![Epoch { ordinal: 0, epoch: 5, start_seq: 0 }])),
            regions: Vector::EMPTY,
        }
    }

    fn set(&mut self, n: usize, text: &str) {
        self.put(n, plain(text));
    }

    fn put(&mut self, n: usize, content: Content) {
        let seq = self.head().position.seq + 1;
        let before = &self.rows[n].row;
        if let Content::Plain(value) = &before.content {
            let base = Base { seq: before.dot.position.seq, value: value.clone() };
            self.bases.insert(before.at.clone(), base);
        }
        let mut newer = row(n as u64 + 1, content);
        newer.dot.position.seq = seq;
        newer.stamp.hlc = Hlc(seq << 20);
        self.rows[n] = stored(newer);
    }

    fn read(&self, from: &Vector) -> FeedRows {
        let mut digest = ScopeDigest::default();
        for row in &self.rows {
            digest.add(&row.row);
            let seq = row.row.dot.position.seq;
            digest.last_seq = digest.last_seq.max(seq);
            if !row.row.content.is_secret() {
                digest.plain_last_seq = digest.plain_last_seq.max(seq);
            }
        }
        digest.plain_sum = digest.plain_sum.wrapping_add(self.wrong_by);
        let rows = self.rows.iter().filter(|row| !from.covers_dot(row.row.dot)).cloned().collect();
        let mut bases = self.bases.clone();
        bases.retain(|_, base| base.seq <= from.seq(SHARD));
        FeedRows { feed: self.feed.clone(), rows, bases, digest }
    }

    fn part(&self, from: &Vector) -> Part {
        let draft = draft_part(&self.read(from), from, &self.head(), ISSUE);
        let signed = |draft: Draft| {
            let signature = self.sign(&draft.message());
            draft.signed(&signature)
        };
        let segments = draft.segments.into_iter().map(signed).collect();
        let signature = self.sign(&draft.checkpoint.message());
        Part { feed: self.feed.clone(), segments, checkpoint: draft.checkpoint.signed(&signature) }
    }

    fn repair(&mut self, job: Job) -> Outcome {
        match job {
            Job::Compare { at, sums, .. } => {
                if self.moves > 0 {
                    self.moves -= 1;
                    self.set(0, &format!("moved {}", self.moves));
                }
                compare(&self.read(&Vector::EMPTY), &self.head(), &at, &sums)
                    .map_or_else(Outcome::Not, Outcome::Listed)
            }
            Job::Rows { at, keys, .. } => {
                let find = |at: &EntryKey| self.rows.iter().find(|row| row.row.at == *at).cloned();
                let mut found: Vec<_> = keys.iter().map(find).collect();
                if self.mixes_up {
                    found[0] = Some(self.rows[0].clone());
                }
                match draft_rows(&self.read(&at), &self.head(), &at, &found, ISSUE) {
                    Ok(draft) => {
                        let signature = self.sign(&draft.message());
                        Outcome::Rows(draft.signed(&signature))
                    }
                    Err(why) => Outcome::Not(why),
                }
            }
        }
    }
}

fn stored(row: Row) -> HubRow {
    let plain_seq = if row.content.is_secret() { 0 } else { row.dot.position.seq };
    HubRow { top_version: 1, plain_seq, context: Vector::EMPTY, base: None, origin: None, row }
}

/// An edge, connected to the hub.
struct Bench {
    hub: Hub,
    edge: EdgeReplica,
    now: Instant,
    bytes: usize,
    alerts: Vec<Alert>,
    /// How many rows readers were shown as changed.
    shown: usize,
    whole: bool,
}

impl Bench {
    /// The edge's rows are the hub's, with something done to them.
    fn new(hub: Hub, damage: impl FnOnce(&mut Vec<Row>)) -> Self {
        let mut rows: Vec<Row> = hub.rows.iter().map(|row| row.row.clone()).collect();
        rows.retain(|row| shows(&hub.feed, row));
        damage(&mut rows);
        let vector = hub.head().vector();
        let record = FeedRecord { floor: vector.clone(), vector, ready: true, ..FeedRecord::default() };
        let mut records = vec![Record::Feed(hub.feed.clone(), record)];
        records.push(Record::State(StateRecord { incarnation: 3, ..StateRecord::default() }));
        records.extend(rows.into_iter().map(|row| Record::Row(Arc::new(row))));
        let public = hub.key.public_key().as_ref().try_into().unwrap();
        let identity = Identity {
            edge: ActorId(Uuid::from_u128(2)),
            tenant: Tenant::parse("t").unwrap(),
            keys: VerificationKeys::new([(11, public)]),
        };
        let edge = EdgeReplica::new(identity, Rules::ALL, records, 3, UnixMillis(1_000_000), Instant(0));
        Self { hub, edge, now: Instant(0), bytes: 0, alerts: Vec::new(), shown: 0, whole: false }
    }

    /// Connects and lets both talk until neither has anything to say.
    fn meet(&mut self) {
        while self.edge.poll_output().is_some() {}
        (self.bytes, self.shown) = (0, 0);
        let profile = Profile {
            feeds: vec![self.hub.feed.clone()],
            environments: Environments::standard(),
            default_environment: Environment::base(),
            write: Vec::new(),
        };
        self.hub.session = HubSession::new(profile, Rules::ALL, self.now);
        self.edge.handle(EdgeInput::ConnectNow, self.now);
        self.talk();
    }

    fn talk(&mut self) {
        loop {
            if let Some(output) = self.edge.poll_output() {
                self.edge_output(output);
            } else if let Some(output) = self.hub.session.poll_output() {
                self.hub_output(output);
            } else {
                return;
            }
        }
    }

    fn edge_output(&mut self, output: EdgeOutput) {
        match output {
            EdgeOutput::Connect => self.edge.handle(EdgeInput::Connected { spare: 4 }, self.now),
            EdgeOutput::Disconnect => {}
            EdgeOutput::Send(frame) => {
                self.bytes += FRAME_OVERHEAD + up(&frame);
                self.hub.session.handle(Input::Frame(frame), self.now);
            }
            EdgeOutput::Commit(_) => self.edge.handle(EdgeInput::Committed, self.now),
            EdgeOutput::Publish(published) => self.shown += published.rows.len(),
            EdgeOutput::Alert(alert) => self.alerts.push(alert),
            EdgeOutput::Recall
            | EdgeOutput::Queued { .. }
            | EdgeOutput::WriteRefused { .. }
            | EdgeOutput::Decided { .. }
            | EdgeOutput::Replied { .. }
            | EdgeOutput::Carried(_)
            | EdgeOutput::Exported(_)
            | EdgeOutput::CallFailed { .. } => {}
        }
    }

    fn hub_output(&mut self, output: Output) {
        let input = match output {
            Output::Send(frame) => {
                self.bytes += FRAME_OVERHEAD + down(&frame);
                return self.edge.handle(EdgeInput::Frame(frame), self.now);
            }
            Output::ReadHead => Input::Head(HeadReport {
                head: self.hub.head(),
                physical: UnixMillis(1_000_000),
                hlc: Hlc(0),
                epsilon_ms: 500,
                leads: true,
                copied: false,
                lost: Vec::new(),
            }),
            Output::SealGrants => Input::Grants(Vec::new()),
            Output::ReadFeeds { feeds, .. } => {
                self.whole |= feeds[0].1.is_empty();
                let head = self.hub.head();
                let parts = vec![self.hub.part(&feeds[0].1)];
                Input::Feeds { to: head.vector(), epochs: head.epochs, parts }
            }
            Output::Repair(job) => Input::Repair(self.hub.repair(job)),
            Output::Admit { .. }
            | Output::TakeIn { .. }
            | Output::Call { .. }
            | Output::Acknowledged(_)
            | Output::Close => return,
        };
        self.hub.session.handle(input, self.now);
    }

    fn holds_what_the_hub_has(&self) -> bool {
        let hub = self.hub.rows.iter().map(|row| &row.row).filter(|row| shows(&self.hub.feed, row));
        self.edge.rows().map(AsRef::as_ref).eq(hub)
    }

    fn count(&self, wanted: impl Fn(&Alert) -> bool) -> usize {
        self.alerts.iter().filter(|alert| wanted(alert)).count()
    }

    fn repaired(&self) -> usize {
        let entries = |alert: &Alert| if let Alert::Repaired { entries, .. } = alert { *entries } else { 0 };
        self.alerts.iter().map(entries).sum()
    }
}

fn up(frame: &EdgeFrame) -> usize {
    let EdgeFrame::Repair { ask, .. } = frame else { return 0 };
    match ask {
        RepairAsk::Compare { sums, .. } => sums.to_bytes().len(),
        RepairAsk::Rows { keys } => 8 * keys.len(),
    }
}

fn down(frame: &HubFrame) -> usize {
    match frame {
        HubFrame::Segment { bytes, .. }
        | HubFrame::Checkpoint { bytes, .. }
        | HubFrame::Repair { answer: RepairAnswer::Rows(bytes), .. } => bytes.len(),
        HubFrame::Repair { answer: RepairAnswer::Differing { buckets, marks }, .. } => {
            buckets.len() + 16 * marks.len()
        }
        HubFrame::Repair { answer: RepairAnswer::Not(_), .. }
        | HubFrame::Welcome(_)
        | HubFrame::Refused { .. }
        | HubFrame::UploadResult { .. }
        | HubFrame::Taken { .. }
        | HubFrame::OfflineLimit(_)
        | HubFrame::Grants(_)
        | HubFrame::End { .. }
        | HubFrame::Reply { .. } => 0,
    }
}

/// An object of which little changes.
fn object(n: u64) -> Content {
    let text = format!(r#"{{"long":"{}","n":{n}}}"#, "x".repeat(100));
    Content::Plain(Value::parse(&text).unwrap())
}

fn values(count: u64) -> impl Iterator<Item = Content> {
    (0..count).map(|n| plain(&format!("value {n}")))
}

#[test]
fn one_flipped_value_of_100_000_costs_less_than_16_kib_on_the_wire() {
    let hub = Hub::new(values(100_000), feed(true));
    let mut bench = Bench::new(hub, |rows| rows[77_777].content = plain("flipped"));
    bench.meet();
    assert!(bench.holds_what_the_hub_has());
    assert_eq!((bench.repaired(), bench.shown, bench.whole), (1, 1, false));
    // The whole session, greeting and transfer among it.
    assert!(bench.bytes <= 16 << 10, "{} bytes", bench.bytes);
}

#[test]
fn what_was_lost_changed_or_never_there_is_put_right_and_nothing_else_is_touched() {
    let contents = (0..500).map(|n| if n % 5 == 0 { secret(n) } else { plain("same") });
    let mut bench = Bench::new(Hub::new(contents, feed(true)), |rows| {
        rows[3].content = plain("flipped");
        rows[4].stamp.hlc = Hlc(1);
        rows[5].content = secret(99);
        rows[6].at.key = Key::parse("never-there").unwrap();
        rows.remove(10);
    });
    bench.meet();
    assert!(bench.holds_what_the_hub_has());
    assert_eq!((bench.repaired(), bench.shown, bench.whole), (6, 6, false));
    assert_eq!(bench.count(|alert| matches!(alert, Alert::Differs(_))), 1);
}

#[test]
fn a_feed_without_secrets_is_compared_without_them() {
    let contents = (0..100).map(|n| if n % 2 == 0 { secret(n) } else { plain("same") });
    let mut bench = Bench::new(Hub::new(contents, feed(false)), |rows| drop(rows.remove(7)));
    bench.meet();
    assert!(bench.holds_what_the_hub_has());
    assert_eq!((bench.repaired(), bench.whole), (1, false));
}

#[test]
fn only_an_entry_too_many_needs_no_rows() {
    let mut bench = Bench::new(Hub::new(values(50), feed(true)), |rows| {
        let mut double = rows[0].clone();
        double.at.key = Key::parse("double").unwrap();
        rows.push(double);
    });
    bench.meet();
    assert!(bench.holds_what_the_hub_has());
    assert_eq!((bench.repaired(), bench.whole), (1, false));
}

#[test]
fn a_transfer_that_brings_news_is_put_right_together_with_them() {
    let mut hub = Hub::new(values(100), feed(true));
    let vector = hub.head().vector();
    let mut bench = Bench::new(Hub::new(values(100), feed(true)), |rows| {
        rows[3].content = plain("flipped");
        rows.remove(4);
    });
    hub.set(3, "newer");
    hub.set(9, "newer");
    assert!(!vector.covers(&hub.head().vector()));
    bench.hub = hub;
    bench.meet();
    assert!(bench.holds_what_the_hub_has());
    assert_eq!((bench.repaired(), bench.shown, bench.whole), (1, 3, false), "the news cured one already");
}

#[test]
fn a_patch_of_what_was_damaged_is_not_taken_and_the_feed_is_fetched_whole() {
    let hub = || Hub::new((0..100).map(object), feed(true));
    let damages: [fn(&mut Vec<Row>); 3] = [
        |rows| rows[3].content = plain("flipped"),
        |rows| rows[3].dot.position.seq = 1,
        |rows| drop(rows.remove(3)),
    ];
    for damage in damages {
        let mut bench = Bench::new(hub(), damage);
        bench.hub.put(3, object(1_000));
        bench.meet();
        assert_eq!(bench.alerts, [Alert::Rejected(Rejected::Base)]);
        assert_eq!((bench.shown, bench.whole), (0, false), "readers keep what they had");
        bench.meet();
        assert!(bench.holds_what_the_hub_has() && bench.whole);
        assert_eq!(bench.alerts.len(), 1);
    }
    let mut bench = Bench::new(hub(), |rows| drop(rows.remove(4)));
    bench.hub.put(3, object(1_000));
    bench.meet();
    assert!(bench.holds_what_the_hub_has());
    assert_eq!(
        (bench.repaired(), bench.whole),
        (1, false),
        "a patch of what is whole goes along with a repair"
    );
}

#[test]
fn a_feed_that_moves_meanwhile_is_compared_again_where_it_is_then() {
    let mut bench = Bench::new(Hub::new(values(100), feed(true)), |rows| drop(rows.remove(4)));
    bench.hub.moves = 2;
    bench.meet();
    assert!(bench.holds_what_the_hub_has());
    assert_eq!((bench.repaired(), bench.whole), (1, false));
    assert_eq!(bench.count(|alert| matches!(alert, Alert::Differs(_))), 3);
}

#[test]
fn too_much_that_differs_is_fetched_whole() {
    let mut bench = Bench::new(Hub::new(values(2_000), feed(true)), |rows| {
        rows[..=REPAIR_KEYS_MAX].iter_mut().for_each(|row| row.content = plain("flipped"));
    });
    bench.meet();
    assert!(!bench.edge.is_connected() && !bench.whole, "readers keep what they had");
    assert_eq!(bench.count(|alert| *alert == Alert::Rejected(Rejected::Digest)), 1);
    bench.meet();
    assert!(bench.holds_what_the_hub_has() && bench.whole);
}

#[test]
fn a_feed_is_put_right_a_few_times_an_hour_and_then_fetched_whole() {
    let mut bench = Bench::new(Hub::new(values(100), feed(true)), |rows| drop(rows.remove(4)));
    // A hub whose feed moves each time it is compared.
    bench.hub.moves = u32::MAX;
    bench.meet();
    let begun = bench.count(|alert| matches!(alert, Alert::Differs(_)));
    assert_eq!((begun, bench.edge.is_connected()), (REPAIRS_PER_HOUR_MAX + 1, false));
    bench.meet();
    assert!(bench.holds_what_the_hub_has() && bench.whole);
}

#[test]
fn a_checkpoint_between_transfers_is_compared_and_put_right_like_one_of_a_transfer() {
    let mut bench = Bench::new(Hub::new(values(100), feed(true)), |_| {});
    bench.meet();
    assert!(bench.holds_what_the_hub_has() && bench.alerts.is_empty());
    // A bug of the hub: a row changes without taking a place in its order.
    bench.hub.rows[4].row.content = plain("of the hub");
    bench.now = Instant(HEARTBEAT_MS);
    bench.hub.session.handle_timeout(bench.now);
    bench.talk();
    assert!(bench.holds_what_the_hub_has() && bench.edge.is_connected());
    assert_eq!((bench.repaired(), bench.shown, bench.whole), (1, 1, false));

    bench.hub.set(7, "afterwards");
    bench.hub.session.handle(Input::Advanced, bench.now);
    bench.talk();
    assert!(bench.holds_what_the_hub_has(), "and it goes on as before");
}

#[test]
fn rows_that_were_not_asked_for_are_not_taken_and_readers_keep_what_they_had() {
    let mut hub = Hub::new(values(100), feed(true));
    hub.mixes_up = true;
    let mut bench = Bench::new(hub, |rows| rows[50].content = plain("flipped"));
    bench.meet();
    assert_eq!((bench.repaired(), bench.shown, bench.edge.is_connected()), (0, 0, false));
    assert_eq!(bench.count(|alert| *alert == Alert::Rejected(Rejected::ForeignRow)), 1);
}

#[test]
fn a_hub_that_is_wrong_about_itself_is_asked_for_everything_once_a_minute_at_most() {
    let mut hub = Hub::new(values(100), feed(true));
    hub.wrong_by = 1;
    let mut bench = Bench::new(hub, |_| {});
    bench.meet();
    assert!(!bench.edge.is_connected() && !bench.whole, "there is nothing to put right");
    bench.meet();
    assert!(!bench.edge.is_connected() && bench.whole, "and all of it differs as well");
    assert!(bench.edge.poll_timeout().is_some_and(|at| at >= bench.now + 60_000));
    assert!(bench.holds_what_the_hub_has(), "readers keep what they had");
}

#[test]
fn what_changed_on_the_disk_is_written_anew_from_memory() {
    let mut bench = Bench::new(Hub::new(values(20), feed(true)), |_| {});
    while bench.edge.poll_output().is_some() {}
    let records: Vec<Record> = bench.edge.rows().cloned().map(Record::Row).collect();
    bench.edge.handle(EdgeInput::Reread(records.clone()), bench.now);
    assert_eq!(bench.edge.poll_output(), None);

    let mut rotten = records.clone();
    rotten.remove(3);
    rotten[9] = Record::Row(Arc::new(row(11, plain("rotten"))));
    rotten.push(Record::Row(Arc::new(row(99, plain("never there")))));
    bench.edge.handle(EdgeInput::Reread(rotten), bench.now);
    assert_eq!(bench.edge.poll_output(), Some(EdgeOutput::Alert(Alert::Rewritten { entries: 3 })));
    let put = vec![records[3].clone(), records[10].clone()];
    let remove = vec![Record::Row(Arc::new(row(99, plain("x")))).slot()];
    let batches = [Batch { put, remove: Vec::new() }, Batch { put: Vec::new(), remove }];
    for batch in batches {
        assert_eq!(bench.edge.poll_output(), Some(EdgeOutput::Commit(batch)));
    }
    assert_eq!(bench.edge.poll_output(), None);
}

#[test]
fn rows_are_compared_only_where_they_differ_and_only_with_those_of_the_same_time() {
    let hub = Hub::new(values(100), feed(true));
    let rows = hub.read(&Vector::EMPTY);
    let sums = Tally::of(hub.rows.iter().map(|row| &row.row)).sums;
    assert_eq!(compare(&rows, &hub.head(), &place(100), &sums), Err(Unrepaired::Unfit), "nothing differs");
    let other = Tally::of(hub.rows[1..].iter().map(|row| &row.row)).sums;
    let listed = compare(&rows, &hub.head(), &place(100), &other).unwrap();
    assert_eq!(listed.buckets, [bucket(key_hash(&hub.rows[0].row.at))]);
    assert!(listed.marks.contains(&Mark::of(&hub.rows[0].row)) && listed.marks.len() < 20);
    assert_eq!(compare(&rows, &hub.head(), &place(99), &other), Err(Unrepaired::Moved), "it changed since");
    assert_eq!(compare(&rows, &hub.head(), &place(101), &other), Err(Unrepaired::Moved), "not come so far");
}

#[test]
fn rows_that_changed_after_they_were_listed_are_not_sent() {
    let mut hub = Hub::new(values(10), feed(true));
    let (rows, head, at) = (hub.read(&place(10)), hub.head(), place(10));
    hub.set(3, "later");
    let found = [Some(hub.rows[3].clone())];
    assert_eq!(draft_rows(&rows, &head, &at, &found, ISSUE).err(), Some(Unrepaired::Moved));
    assert_eq!(draft_rows(&rows, &head, &at, &[None], ISSUE).err(), Some(Unrepaired::Moved));
    let found = [Some(hub.rows[5].clone()), Some(hub.rows[1].clone())];
    assert!(draft_rows(&rows, &head, &at, &found, ISSUE).is_ok());
}

#[test]
fn sums_come_back_as_they_went() {
    let hub = Hub::new(values(300), feed(true));
    let sums = Tally::of(hub.rows.iter().map(|row| &row.row)).sums;
    let bytes = sums.to_bytes();
    assert_eq!(Sums::from_bytes(&bytes), Some(sums));
    assert_eq!(Sums::from_bytes(&bytes[1..]), None);
}
