//! A hub and an edge whose transfers break off: what is asked for again, what is shown, and what is left on the disk.

use ring::signature::Ed25519KeyPair;
use ring::signature::KeyPair as _;
use uuid::Uuid;

use super::super::tests::{HUB_TIME, NOW, SHARD, at, feed, head, row};
use super::super::{Alert, Identity, Input, Output};
use super::*;
use crate::digest::ScopeDigest;
use crate::entry::{Content, HubRow};
use crate::feed::Environments;
use crate::held::Span;
use crate::name::{Environment, Subtree};
use crate::replication::frame::{EdgeFrame, HubFrame, Welcome};
use crate::replication::rules::Rules;
use crate::replication::transfer::{Issue, draft_checkpoint, draft_part_in_chunks, draft_rest};
use crate::segment::VerificationKeys;
use crate::stamp::{ActorId, Hlc};
use crate::store::{FeedRows, Head};
use crate::vector::{Epoch, EpochTable, Epochs, Position, ShardId, Vector};

const ISSUE: Issue = Issue { at: HUB_TIME, key_id: 1 };

/// Keys are letters.
#[derive(Clone, Default)]
struct Hub {
    rows: BTreeMap<EntryKey, HubRow>,
    seq: u64,
}

impl Hub {
    fn with(keys: &str) -> Self {
        let mut hub = Self::default();
        keys.chars().for_each(|key| hub.set(key));
        hub
    }

    fn set(&mut self, key: char) {
        self.seq += 1;
        let row = row(&key.to_string(), self.seq);
        self.rows.insert(row.row.at.clone(), row);
    }

    fn delete(&mut self, key: char) {
        self.set(key);
        let row = self.rows.get_mut(&at(&key.to_string())).unwrap();
        (row.row.content, row.plain_seq) = (Content::Deleted, row.plain_seq - 1);
    }

    fn head(&self) -> Head {
        head(self.seq, 0)
    }

    fn rows_of_feed(&self) -> FeedRows {
        let mut digest = ScopeDigest { last_seq: self.seq, ..ScopeDigest::default() };
        let rows: Vec<HubRow> = self.rows.values().cloned().collect();
        rows.iter().filter(|row| row.row.content.is_live()).for_each(|row| digest.add(&row.row));
        FeedRows { feed: feed(), rows, bases: BTreeMap::new(), digest }
    }

    fn live(&self) -> Vec<(String, u64)> {
        let live = self.rows.values().filter(|row| row.row.content.is_live());
        live.map(|row| (row.row.at.key.to_string(), row.row.dot.position.seq)).collect()
    }
}

/// An edge on a disk that is done at once.
struct Machine {
    signing: Ed25519KeyPair,
    replica: EdgeReplica,
    disk: BTreeMap<Slot, Record>,
    /// After how many batches the power fails.
    batches_left: usize,
    subscribed: Vec<(Feed, Held)>,
    alerts: Vec<Alert>,
    session: u64,
}

fn signing() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn replica(records: Vec<Record>) -> EdgeReplica {
    let public = signing().public_key().as_ref().try_into().unwrap();
    let identity = Identity {
        edge: ActorId(Uuid::from_u128(77)),
        tenant: feed().tenant,
        keys: VerificationKeys::new([(1, public)]),
    };
    EdgeReplica::new(identity, Rules::ALL, records, 4, HUB_TIME, NOW).with_batch_changes_max(3)
}

fn welcome(head: &Head, feeds: Vec<Feed>) -> Welcome {
    Welcome {
        shard: head.shard,
        epochs: head.epochs.clone(),
        head: head.vector(),
        physical: HUB_TIME,
        hlc: Hlc::from_physical(HUB_TIME),
        epsilon_ms: 500,
        heartbeat_ms: 30_000,
        feeds,
        environments: Environments::standard(),
        default_environment: Environment::base(),
        write: vec![Subtree::ALL],
        copied: false,
        carry_key: None,
        lost_history: None,
        takes_newer: false,
    }
}

impl Machine {
    fn new() -> Self {
        Self {
            signing: signing(),
            replica: replica(Vec::new()),
            disk: BTreeMap::new(),
            batches_left: usize::MAX,
            subscribed: Vec::new(),
            alerts: Vec::new(),
            session: 0,
        }
    }

    fn happen(&mut self, input: Input) {
        self.replica.handle(input, NOW);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::Commit(_) if self.batches_left == 0 => {}
                Output::Commit(batch) => {
                    self.batches_left -= 1;
                    batch.remove.iter().for_each(|slot| drop(self.disk.remove(slot)));
                    self.disk.extend(batch.put.into_iter().map(|record| (record.slot(), record)));
                    self.replica.handle(Input::Committed, NOW);
                }
                Output::Send(EdgeFrame::Subscribe { held, .. }) => self.subscribed = held,
                Output::Alert(alert) => self.alerts.push(alert),
                _ => {}
            }
        }
    }

    fn connects(&mut self, hub: &Hub) {
        self.is_welcomed(welcome(&hub.head(), vec![feed()]));
    }

    fn is_welcomed(&mut self, welcome: Welcome) {
        self.session += 1;
        self.happen(Input::ConnectNow);
        self.happen(Input::Connected { spare: 9 });
        self.happen(Input::Frame(HubFrame::Welcome(welcome)));
    }

    fn restarts(&mut self) {
        self.batches_left = usize::MAX;
        self.replica = replica(self.disk.values().cloned().collect());
        self.drain();
    }

    /// What the hub answers to the last subscription: one chunk has two rows.
    fn transfer(&self, hub: &Hub) -> Vec<HubFrame> {
        let (rows, head, transfer) = (hub.rows_of_feed(), hub.head(), self.session);
        let held = self.subscribed.first().map(|(_, held)| held).filter(|held| head.continues(held));
        let from = self.replica.feeds().find(|(_, ready, ..)| *ready).map(|(_, _, vector, _)| vector.clone());
        let drafts = match held {
            Some(held) => draft_rest(&rows, held, &head, ISSUE, 2),
            None => draft_part_in_chunks(&rows, &from.unwrap_or_default(), &head, ISSUE, 2).segments,
        };
        let sign = |message: Vec<u8>| self.signing.sign(&message).as_ref().try_into().unwrap();
        let segment = |draft: crate::segment::Draft| {
            let signature = sign(draft.message());
            HubFrame::Segment { transfer, bytes: draft.signed(&signature) }
        };
        let mut frames: Vec<HubFrame> = drafts.into_iter().map(segment).collect();
        let checkpoint = draft_checkpoint(&rows, &head, ISSUE);
        let signature = sign(checkpoint.message());
        frames.push(HubFrame::Checkpoint { transfer, bytes: checkpoint.signed(&signature) });
        frames.push(HubFrame::End { transfer, feeds: 1 });
        frames
    }

    fn hears(&mut self, frames: &[HubFrame]) {
        frames.iter().for_each(|frame| self.happen(Input::Frame(frame.clone())));
    }

    fn shows(&self) -> Vec<(String, u64)> {
        self.replica.rows().map(|row| (row.at.key.to_string(), row.dot.position.seq)).collect()
    }

    /// Nothing of any transfer is left beside the rows themselves.
    fn is_tidy(&self) -> bool {
        let rows = self.disk.values().filter(|record| matches!(record, Record::Row(_))).count();
        let left = self.disk.values().any(|record| matches!(record, Record::Staged(_) | Record::Stage(..)));
        !left && rows == self.shows().len()
    }

    fn holds(&self) -> Option<Held> {
        self.subscribed.first().map(|(_, held)| held.clone())
    }
}

fn segments(frames: &[HubFrame]) -> usize {
    frames.iter().filter(|frame| matches!(frame, HubFrame::Segment { .. })).count()
}

fn span(through: &str, seq: u64) -> Span {
    Span { through: Some(at(through)), to: head(seq, 0).vector() }
}

/// A first transfer of ten entries, of which six came before the stream broke.
fn broken(hub: &Hub) -> Machine {
    let mut machine = Machine::new();
    machine.connects(hub);
    let frames = machine.transfer(hub);
    machine.hears(&frames[..3]);
    machine.happen(Input::Disconnected);
    machine
}

#[test]
fn a_first_transfer_goes_on_where_it_broke_off_also_after_a_restart() {
    for restarts in [false, true] {
        let mut hub = Hub::with("abcdefghij");
        let mut machine = broken(&hub);
        assert!(machine.shows().is_empty(), "nothing is shown of a part");
        if restarts {
            machine.restarts();
        }
        hub.set('b');
        hub.delete('c');
        hub.set('h');
        machine.connects(&hub);
        assert_eq!(machine.holds(), Some(Held { from: Vector::EMPTY, spans: vec![span("f", 10)] }));
        let frames = machine.transfer(&hub);
        assert_eq!(segments(&frames), 3, "b, c, and the four from g on");
        machine.hears(&frames);
        assert_eq!(machine.alerts, []);
        assert_eq!(machine.shows(), hub.live());
        assert!(machine.is_tidy(), "{:?}", machine.disk.keys());
        machine.restarts();
        assert_eq!(machine.shows(), hub.live());
    }
}

#[test]
fn what_readers_have_stays_until_a_delta_that_broke_off_has_come_whole() {
    let mut hub = Hub::with("abcdefghij");
    let mut machine = Machine::new();
    machine.connects(&hub);
    let frames = machine.transfer(&hub);
    machine.hears(&frames);
    machine.happen(Input::Disconnected);
    let before = machine.shows();
    "abcdefgh".chars().for_each(|key| hub.set(key));
    hub.delete('i');
    machine.connects(&hub);
    let frames = machine.transfer(&hub);
    machine.hears(&frames[..2]);
    machine.restarts();
    assert_eq!(machine.shows(), before);
    hub.delete('a');
    hub.set('k');
    machine.connects(&hub);
    let held = machine.holds().unwrap();
    assert_eq!((held.from, held.spans), (head(10, 0).vector(), vec![span("d", 19)]));
    let frames = machine.transfer(&hub);
    machine.hears(&frames);
    assert_eq!((machine.alerts.as_slice(), machine.shows()), ([].as_slice(), hub.live()));
    assert!(machine.is_tidy(), "{:?}", machine.disk.keys());
}

#[test]
fn it_may_break_again_and_again_with_changes_in_between() {
    let mut hub = Hub::with("abcdefghijklmnopqrst");
    let mut machine = Machine::new();
    let mut sent = 0;
    for round in 0_usize.. {
        machine.connects(&hub);
        let frames = machine.transfer(&hub);
        let come = 2.min(frames.len());
        sent += segments(&frames[..come]);
        machine.hears(&frames[..come]);
        if frames.len() == come + 1 {
            machine.hears(&frames[come..]);
            break;
        }
        machine.happen(Input::Disconnected);
        if round % 2 == 1 {
            machine.restarts();
        }
        assert!(round < 20, "it never ends: {:?}", machine.subscribed);
        let key = b'a' + (round * 7 % 20) as u8;
        if round % 3 == 0 { hub.delete(key as char) } else { hub.set(key as char) }
    }
    assert_eq!((machine.alerts.as_slice(), machine.shows()), ([].as_slice(), hub.live()));
    assert!(machine.is_tidy() && sent < 25, "{sent}");
}

#[test]
fn wherever_the_power_fails_the_rest_fits_what_the_disk_kept() {
    for survived in 0..60 {
        let mut hub = Hub::with("abcdefghij");
        let mut machine = broken(&hub);
        hub.delete('b');
        hub.set('e');
        machine.batches_left = survived;
        machine.connects(&hub);
        let frames = machine.transfer(&hub);
        machine.hears(&frames);
        let whole = machine.batches_left > 0;
        machine.restarts();
        hub.set('d');
        machine.connects(&hub);
        let frames = machine.transfer(&hub);
        machine.hears(&frames);
        assert_eq!((machine.alerts.as_slice(), machine.shows()), ([].as_slice(), hub.live()), "{survived}");
        assert!(machine.is_tidy(), "{survived}: {:?}", machine.disk.keys());
        if whole {
            return;
        }
    }
    panic!("it never ended");
}

#[test]
fn a_hub_that_sends_everything_again_is_taken_at_its_word() {
    let hub = Hub::with("abcdefghij");
    let mut machine = broken(&hub);
    machine.connects(&hub);
    machine.subscribed.clear();
    let frames = machine.transfer(&hub);
    assert_eq!(segments(&frames), 5);
    machine.hears(&frames);
    assert_eq!((machine.alerts.as_slice(), machine.shows()), ([].as_slice(), hub.live()));
    assert!(machine.is_tidy(), "{:?}", machine.disk.keys());
}

#[test]
fn what_goes_on_from_something_else_is_refused_and_everything_asked_for() {
    let others: [fn(&mut Held); 4] = [
        |held| held.spans = vec![span("g", 10)],
        |held| held.spans = vec![span("f", 9)],
        |held| held.spans.push(Span { through: None, to: head(10, 0).vector() }),
        |held| held.from = head(1, 0).vector(),
    ];
    for other in others {
        let hub = Hub::with("abcdefghij");
        let mut machine = broken(&hub);
        machine.connects(&hub);
        other(&mut machine.subscribed[0].1);
        let frames = machine.transfer(&hub);
        machine.hears(&frames[..1]);
        let [Alert::Rejected(why)] = &machine.alerts[..] else { panic!("{:?}", machine.alerts) };
        assert!(matches!(why, Rejected::NotHeld | Rejected::Gap { .. }), "{why}");
        machine.alerts.clear();
        machine.connects(&hub);
        assert_eq!(machine.holds(), None);
        let frames = machine.transfer(&hub);
        machine.hears(&frames);
        assert_eq!((machine.alerts.as_slice(), machine.shows()), ([].as_slice(), hub.live()));
        assert!(machine.is_tidy());
    }
}

#[test]
fn nothing_is_gone_on_with_under_another_history_region_or_subscription() {
    let hub = Hub::with("abcdefghij");
    let elsewhere = ShardId(Uuid::from_u128(2));
    let table = |epoch, cut| {
        EpochTable::new(vec![
            Epoch { ordinal: 1, epoch, start_seq: 0 },
            Epoch { ordinal: 2, epoch: 6, start_seq: cut },
        ])
    };
    let at_another = Head {
        shard: elsewhere,
        position: Position { epoch: 6, seq: 90 },
        epochs: Epochs::of(elsewhere, table(4, 20)),
        ..hub.head()
    };
    let lost = Head {
        position: Position { epoch: 6, seq: 12 },
        epochs: Epochs::of(SHARD, table(5, 8)),
        ..hub.head()
    };
    let led_anew = Head { epochs: Epochs::of(SHARD, table(5, 10)), ..lost.clone() };
    let narrower = Feed { subtree: Subtree::parse("app/db").unwrap(), ..feed() };
    let cases = [
        ("of another region", welcome(&at_another, vec![feed()]), false),
        ("beyond what is left of its history", welcome(&lost, vec![feed()]), false),
        ("of another subscription", welcome(&hub.head(), vec![narrower]), false),
        ("of an earlier leadership", welcome(&led_anew, vec![feed()]), true),
    ];
    for (what, welcome, goes_on) in cases {
        let mut machine = broken(&hub);
        machine.is_welcomed(welcome);
        assert_eq!(machine.holds().is_some(), goes_on, "{what}");
        let left = machine.disk.values().any(|record| matches!(record, Record::Row(_) | Record::Stage(..)));
        assert_eq!(left, goes_on, "{what}");
    }
}
