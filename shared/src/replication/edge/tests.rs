//! A feed that is fetched anew although the edge holds it, because deletions that it has not heard of are gone.

use std::collections::{BTreeMap, BTreeSet};

use ring::signature::Ed25519KeyPair;
use ring::signature::KeyPair as _;
use uuid::Uuid;

use super::*;
use crate::digest::ScopeDigest;
use crate::entry::{Author, ChangeId, Content, HubRow, Metadata};
use crate::name::{Key, Namespace, Scope, Subtree, Tenant};
use crate::replication::frame::Welcome;
use crate::replication::transfer::{Issue, PartDraft, draft_part};
use crate::segment::VerificationKeys;
use crate::stamp::{ActorId, Hlc, Stamp, WriteId};
use crate::store::replica::Slot;
use crate::store::{FeedRows, Head};
use crate::value::Value;
use crate::vector::{Dot, Epoch, EpochTable, Position, ShardId};
use crate::write::Action;
use crate::write::Answer;

pub(super) const SHARD: ShardId = ShardId(Uuid::from_u128(1));
pub(super) const NOW: Instant = Instant(1_000);
pub(super) const HUB_TIME: UnixMillis = UnixMillis(1_795_000_000_000);

pub(super) fn feed() -> Feed {
    Feed {
        tenant: Tenant::parse("t").unwrap(),
        environment: Environment::base(),
        subtree: Subtree::parse("app").unwrap(),
        secrets: true,
    }
}

pub(super) fn at(key: &str) -> EntryKey {
    let Feed { tenant, environment, .. } = feed();
    let scope = Scope { tenant, environment, namespace: Namespace::parse("app").unwrap() };
    EntryKey { scope, key: Key::parse(key).unwrap() }
}

pub(super) fn row(key: &str, seq: u64) -> HubRow {
    let id = WriteId { actor: ActorId(SHARD.0), incarnation: 5, counter: seq };
    let metadata = Metadata {
        created_at: HUB_TIME,
        created_by: "token:a".into(),
        updated_at: HUB_TIME,
        updated_by: "token:a".into(),
        tags: Vec::new(),
        description: None,
    };
    let row = Row {
        at: at(key),
        dot: Dot { shard: SHARD, position: Position { epoch: 5, seq } },
        stamp: Stamp { hlc: Hlc(seq), id },
        version: 1,
        content: Content::Plain(Value::parse(&seq.to_string()).unwrap()),
        metadata,
        change: ChangeId(Uuid::nil()),
    };
    HubRow { row, top_version: 1, plain_seq: seq, context: Vector::EMPTY, base: None, origin: None }
}

pub(super) fn head(seq: u64, horizon: u64) -> Head {
    let epochs = Epochs::of(SHARD, EpochTable::new(vec![Epoch { ordinal: 1, epoch: 5, start_seq: 0 }]));
    Head {
        shard: SHARD,
        position: Position { epoch: 5, seq },
        hlc: Hlc(seq),
        horizon,
        epochs,
        regions: Vector::EMPTY,
    }
}

/// A hub with one key pair and one edge, whose disk is done at once.
struct Bench {
    signing: Ed25519KeyPair,
    replica: EdgeReplica,
    transfers: u64,
}

/// Of a hub whose clocks say this.
fn welcome(physical: UnixMillis, hlc: Hlc) -> Welcome {
    let Head { shard, epochs, .. } = head(3, 0);
    Welcome {
        shard,
        epochs,
        head: head(3, 0).vector(),
        physical,
        hlc,
        epsilon_ms: 500,
        heartbeat_ms: 30_000,
        feeds: vec![feed()],
        environments: Environments::standard(),
        default_environment: Environment::base(),
        write: vec![Subtree::ALL],
        copied: false,
        carry_key: None,
        lost_history: None,
        takes_newer: false,
    }
}

impl Bench {
    fn connected() -> Self {
        let signing = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public = signing.public_key().as_ref().try_into().unwrap();
        let identity = Identity {
            edge: ActorId(Uuid::from_u128(77)),
            tenant: feed().tenant,
            keys: VerificationKeys::new([(1, public)]),
        };
        let replica = EdgeReplica::new(identity, Rules::ALL, Vec::new(), 4, HUB_TIME, NOW);
        let mut bench = Self { signing, replica, transfers: 0 };
        for input in [Input::ConnectNow, Input::Connected { spare: 9 }] {
            bench.happen(input);
        }
        bench.happen(Input::Frame(HubFrame::Welcome(welcome(HUB_TIME, Hlc::from_physical(HUB_TIME)))));
        bench
    }

    /// Batches and what readers saw until nothing more happens.
    fn happen(&mut self, input: Input) -> (Vec<Batch>, Vec<Published>) {
        self.replica.handle(input, NOW);
        let (mut batches, mut published) = (Vec::new(), Vec::new());
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::Commit(batch) => {
                    batches.push(batch);
                    self.replica.handle(Input::Committed, NOW);
                }
                Output::Publish(shown) => published.push(shown),
                Output::Alert(alert) => panic!("{alert:?}"),
                _ => {}
            }
        }
        (batches, published)
    }

    /// What the hub sends to a receiver at `from`, as one transfer.
    fn transfer(&mut self, rows: Vec<HubRow>, from: &Vector, head: &Head) -> (Vec<Batch>, Vec<Published>) {
        self.transfers += 1;
        let transfer = self.transfers;
        let mut digest = ScopeDigest { last_seq: head.position.seq, ..ScopeDigest::default() };
        rows.iter().for_each(|row| digest.add(&row.row));
        let rows = FeedRows { feed: feed(), rows, bases: BTreeMap::new(), digest };
        let PartDraft { segments, checkpoint } =
            draft_part(&rows, from, head, Issue { at: HUB_TIME, key_id: 1 });
        let sign = |message: Vec<u8>| self.signing.sign(&message).as_ref().try_into().unwrap();
        let mut frames: Vec<HubFrame> = Vec::new();
        for draft in segments {
            let signature = sign(draft.message());
            frames.push(HubFrame::Segment { transfer, bytes: draft.signed(&signature) });
        }
        let signature = sign(checkpoint.message());
        frames.push(HubFrame::Checkpoint { transfer, bytes: checkpoint.signed(&signature) });
        frames.push(HubFrame::End { transfer, feeds: 1 });
        let (mut batches, mut published) = (Vec::new(), Vec::new());
        for frame in frames {
            let (some, more) = self.happen(Input::Frame(frame));
            batches.extend(some);
            published.extend(more);
        }
        (batches, published)
    }
}

#[test]
fn what_a_feed_fetched_anew_does_not_name_is_gone_and_pending_writes_stay() {
    let mut bench = Bench::connected();
    bench.transfer(vec![row("a", 1), row("b", 2), row("c", 3)], &Vector::EMPTY, &head(3, 0));
    assert_eq!(bench.replica.rows().count(), 3);
    bench.happen(Input::Write(LocalWrite {
        ticket: 1,
        at: at("b"),
        action: Action::Delete,
        author: Author { name: "edge:e/uid:0".into(), claimed: None },
        message: None,
        change: ChangeId(Uuid::from_u128(9)),
    }));

    // b was deleted at 4, a written at 5, and the deletion purged.
    let now = head(5, 4);
    let (batches, published) = bench.transfer(vec![row("a", 5), row("c", 3)], &head(3, 0).vector(), &now);
    let [shown] = published.as_slice() else { panic!("{published:?}") };
    let keys: BTreeSet<_> = shown.rows.iter().map(|(at, row)| (at.key.as_str(), row.is_some())).collect();
    assert_eq!(keys, BTreeSet::from([("a", true), ("b", false)]), "c was there already and is no news");
    assert_eq!(shown.feeds, [(feed(), Some(now.vector()))]);
    assert!(bench.replica.row(&at("b")).is_none());
    assert!(bench.replica.visible_pending(&at("b")).is_some(), "its own write still goes up");
    let written: Vec<Slot> = batches
        .iter()
        .flat_map(|batch| batch.put.iter().map(Record::slot).chain(batch.remove.iter().cloned()))
        .filter(|slot| matches!(slot, Slot::Row(_)))
        .collect();
    assert_eq!(
        written.iter().collect::<BTreeSet<_>>(),
        BTreeSet::from([&Slot::Row(at("a")), &Slot::Row(at("b"))])
    );
}

#[test]
fn a_feed_in_which_nothing_was_purged_is_not_fetched_anew() {
    // All that happened after 1 was elsewhere.
    let rows = FeedRows {
        feed: feed(),
        rows: Vec::new(),
        bases: BTreeMap::new(),
        digest: ScopeDigest { last_seq: 1, ..ScopeDigest::default() },
    };
    let part = draft_part(&rows, &head(1, 0).vector(), &head(9, 8), Issue { at: HUB_TIME, key_id: 1 });
    assert!(part.segments.is_empty());
}

#[test]
fn an_admitted_write_is_kept_by_the_batch_that_takes_it_out_and_seen_by_nobody() {
    let mut bench = Bench::connected();
    bench.transfer(vec![row("a", 1)], &Vector::EMPTY, &head(3, 0));
    bench.happen(Input::Write(LocalWrite {
        ticket: 1,
        at: at("a"),
        action: Action::Delete,
        author: Author { name: "edge:e/uid:0".into(), claimed: None },
        message: None,
        change: ChangeId(Uuid::from_u128(9)),
    }));
    let id = WriteId { actor: ActorId(Uuid::from_u128(77)), incarnation: 4, counter: 1 };
    let current = Some(Dot { shard: SHARD, position: Position { epoch: 5, seq: 4 } });
    let answers = vec![Answer { id, verdict: Verdict::Admitted { version: 2 }, current }];
    bench.happen(Input::Frame(HubFrame::UploadResult { batch: 1, answers }));
    assert_eq!((bench.replica.pending(), bench.replica.kept()), (1, 0), "its row has not come yet");

    let mut gone = row("a", 4);
    (gone.row.content, gone.row.stamp.id) = (Content::Deleted, id);
    let (batches, published) = bench.transfer(vec![gone], &head(3, 0).vector(), &head(4, 0));
    let out = batches.iter().find(|batch| batch.remove.contains(&Slot::Pending(1))).expect("it is taken out");
    assert!(out.put.iter().any(|record| record.slot() == Slot::Kept(id)), "{out:?}");
    assert_eq!((bench.replica.pending(), bench.replica.kept()), (0, 1));
    assert!(published.iter().all(|shown| shown.pending.iter().all(|(_, write)| write.is_none())));
}

#[test]
fn a_session_greets_under_its_own_number_once_that_is_durable() {
    let identity = Identity {
        edge: ActorId(Uuid::from_u128(77)),
        tenant: feed().tenant,
        keys: VerificationKeys::default(),
    };
    let mut replica = EdgeReplica::new(identity, Rules::ALL, Vec::new(), 4, HUB_TIME, NOW);
    let hello = |replica: &mut EdgeReplica| {
        let outputs = std::iter::from_fn(|| replica.poll_output());
        let hellos = outputs.filter_map(|output| {
            let Output::Send(EdgeFrame::Hello(hello)) = output else { return None };
            Some(hello.session)
        });
        hellos.last()
    };
    for input in [Input::ConnectNow, Input::Connected { spare: 9 }, Input::Disconnected] {
        replica.handle(input, NOW);
    }
    for input in [Input::ConnectNow, Input::Connected { spare: 9 }] {
        replica.handle(input, NOW);
    }
    replica.handle(Input::Committed, NOW);
    assert_eq!(hello(&mut replica), None, "only the first session's number is durable");
    replica.handle(Input::Committed, NOW);
    assert_eq!(hello(&mut replica), Some(2));
}

#[test]
fn a_time_that_is_replaced_is_not_below_the_hubs_physical_clock_either() {
    let mut bench = Bench::connected();
    bench.transfer(vec![row("a", 3)], &Vector::EMPTY, &head(3, 0));
    bench.happen(Input::Disconnected);
    let change = ChangeId(Uuid::from_u128(5));
    let author = Author { name: "uid:0".into(), claimed: None };
    let write = LocalWrite { ticket: 0, at: at("k"), action: Action::Delete, author, message: None, change };
    bench.happen(Input::Write(write));
    // A restored hub's hybrid clock may be older than a deletion that the author saw, of which nothing is left here.
    let (earlier, long_ago) = (UnixMillis(HUB_TIME.0 - 10_000), UnixMillis(HUB_TIME.0 - 3_600_000));
    for input in [Input::ConnectNow, Input::Connected { spare: 10 }] {
        bench.happen(input);
    }
    let hello = HubFrame::Welcome(welcome(earlier, Hlc::from_physical(long_ago)));
    let (batches, _) = bench.happen(Input::Frame(hello));
    let pending = batches.iter().flat_map(|batch| &batch.put).find_map(|record| {
        let Record::Pending(pending) = record else { return None };
        Some(&pending.write)
    });
    let write = pending.expect("its time was ahead");
    assert!(write.claimed_hlc.is_some());
    assert_eq!(write.hlc, Hlc::from_physical(earlier).next());
}
