//! An edge before a hub that was restored: what goes up, in which order, and where it goes on after a restart.

use std::sync::Arc;

use ring::signature::{Ed25519KeyPair, KeyPair as _};
use uuid::Uuid;

use super::super::*;
use super::*;
use crate::entry::{Author, ChangeId, Content, Metadata};
use crate::name::{Key, Namespace, Scope, Subtree, Tenant};
use crate::replication::frame::Welcome;
use crate::segment::{LostHistory, VerificationKeys};
use crate::stamp::{ActorId, Hlc, WriteId};
use crate::store::Loss;
use crate::store::replica::{KeptRecord, Slot};
use crate::value::Value;
use crate::vector::{Dot, Epoch, EpochTable, Epochs, Position, ShardId};
use crate::write::Action;

const SHARD: ShardId = ShardId(Uuid::from_u128(1));
const EDGE: ActorId = ActorId(Uuid::from_u128(9));
const NOW: Instant = Instant(0);

fn at(key: &str) -> EntryKey {
    let scope = Scope {
        tenant: Tenant::parse("t").unwrap(),
        environment: Environment::base(),
        namespace: Namespace::parse("app").unwrap(),
    };
    EntryKey { scope, key: Key::parse(key).unwrap() }
}

fn feed() -> Feed {
    let Scope { tenant, environment, .. } = at("k").scope;
    Feed { tenant, environment, subtree: Subtree::ALL, secrets: true }
}

/// Written by the hub at this place of the leadership that was cut at 40.
fn row(key: &str, seq: u64, content: Content) -> Record {
    let id = WriteId { actor: ActorId(SHARD.0), incarnation: 11, counter: seq };
    let metadata = Metadata {
        created_at: UnixMillis(1),
        created_by: "token:a".into(),
        updated_at: UnixMillis(2),
        updated_by: "token:b".into(),
        tags: vec!["t".into()],
        description: None,
    };
    Record::Row(Arc::new(Row {
        at: at(key),
        dot: Dot { shard: SHARD, position: Position { epoch: 11, seq } },
        stamp: Stamp { hlc: Hlc(seq), id },
        version: 1,
        content,
        metadata,
        change: ChangeId(Uuid::from_u128(seq.into())),
    }))
}

fn plain() -> Content {
    Content::Plain(Value::parse("1").unwrap())
}

fn secret() -> Content {
    let (body, wrap) = ("b".into(), "w".into());
    Content::Secret(crate::secret::SealedSecret {
        key_epoch: 1,
        version: 1,
        about: Default::default(),
        body,
        wrap,
    })
}

fn kept(counter: u64, hlc: u64) -> Record {
    let write = Write {
        id: WriteId { actor: EDGE, incarnation: 3, counter },
        hlc: Hlc(hlc),
        claimed_hlc: None,
        at: at("own"),
        action: Action::Delete,
        author: Author { name: "uid:0".into(), claimed: None },
        made_at: UnixMillis(1),
        message: None,
        change: ChangeId(Uuid::from_u128(u128::from(counter) << 64)),
        context: Vector::EMPTY,
        without_secrets: false,
        base: None,
    };
    Record::Kept(KeptRecord { write, kept_at: UnixMillis(1) })
}

/// An edge that has come to 50, on a disk with some more, before a hub that lost everything after 40.
struct Bench {
    replica: EdgeReplica,
    disk: Vec<Record>,
}

impl Bench {
    fn starts(disk: Vec<Record>, takes_newer: bool) -> Self {
        let epochs = [(11, 0), (22, 40)];
        Self::starts_before(disk, takes_newer, &epochs)
    }

    /// The same before a hub whose leaderships are these, each with where it began.
    fn starts_before(mut disk: Vec<Record>, takes_newer: bool, epochs: &[(u64, u64)]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
        let keys = VerificationKeys::new([(7, pair.public_key().as_ref().try_into().unwrap())]);
        let identity = Identity { edge: EDGE, tenant: Tenant::parse("t").unwrap(), keys };
        let (vector, floor) = (Vector::at(SHARD, Position { epoch: 11, seq: 50 }), Vector::EMPTY);
        let come_to = FeedRecord { vector, floor, ready: true, checkpoint_issued_at: 2_000, folding: false };
        disk.push(Record::Feed(feed(), come_to));
        let replica = EdgeReplica::new(identity, Rules::ALL, disk.clone(), 3, UnixMillis(5_000), NOW);
        let mut bench = Self { replica, disk };
        bench.handle(Input::ConnectNow);
        bench.handle(Input::Connected { spare: 2 });
        bench.sent();
        let loss = Loss { shard: SHARD, epoch: 11, cut: 40, new_epoch: 22 };
        let draft = LostHistory { loss, issued_at: UnixMillis(2_001), key_id: 7 }.draft();
        let signature = pair.sign(&draft.message()).as_ref().try_into().unwrap();
        let ordered = (1..).zip(epochs);
        let table = ordered.map(|(ordinal, (epoch, start_seq))| Epoch {
            ordinal,
            epoch: *epoch,
            start_seq: *start_seq,
        });
        let leads = epochs.last().unwrap().0;
        bench.handle(Input::Frame(HubFrame::Welcome(Welcome {
            shard: SHARD,
            epochs: Epochs::of(SHARD, EpochTable::new(table.collect())),
            head: Vector::at(SHARD, Position { epoch: leads, seq: 60 }),
            physical: UnixMillis(3_000),
            hlc: Hlc(0),
            epsilon_ms: 500,
            heartbeat_ms: 30_000,
            feeds: vec![feed()],
            environments: Environments::standard(),
            default_environment: Environment::base(),
            write: vec![Subtree::ALL],
            lost_history: Some(draft.signed(&signature)),
            takes_newer,
            copied: false,
            carry_key: None,
        })));
        bench
    }

    fn handle(&mut self, input: Input) {
        self.replica.handle(input, NOW);
    }

    /// What goes up, with a disk that is done at once.
    fn sent(&mut self) -> Vec<EdgeFrame> {
        let mut sent = Vec::new();
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::Commit(batch) => {
                    self.commit(batch);
                    self.handle(Input::Committed);
                }
                Output::Recall => self.handle(Input::Recalled(self.disk.clone())),
                Output::Send(frame) => sent.push(frame),
                _ => {}
            }
        }
        sent
    }

    fn commit(&mut self, batch: Batch) {
        let gone =
            |slot: &Slot| batch.remove.contains(slot) || batch.put.iter().any(|put| put.slot() == *slot);
        self.disk.retain(|record| !gone(&record.slot()));
        self.disk.extend(batch.put);
    }

    fn taken(&mut self, batch: u64) -> Vec<EdgeFrame> {
        self.handle(Input::Frame(HubFrame::Taken { batch, taken: Taken { held: 1, ..Taken::default() } }));
        self.sent()
    }
}

fn handed_in(frames: &[EdgeFrame]) -> (u64, Vec<u64>) {
    let [.., EdgeFrame::HandIn { batch, writes }] = frames else { panic!("{frames:?}") };
    (*batch, writes.iter().map(|write| write.hlc.0).collect())
}

#[test]
fn all_beyond_the_cut_goes_up_by_its_time_before_anything_is_fetched() {
    let disk = vec![
        kept(1, 45),
        row("old", 40, plain()),
        row("lost", 47, plain()),
        row("hidden", 48, secret()),
        kept(2, 49),
    ];
    let mut bench = Bench::starts(disk, true);
    let (batch, times) = handed_in(&bench.sent());
    assert_eq!(times, [45, 47, 48, 49], "in the order of times");
    assert_eq!(bench.taken(batch + 1), [], "an answer to something else");
    assert_eq!(bench.taken(batch), [EdgeFrame::Subscribe { feeds: vec![], held: vec![] }]);
    assert_eq!(bench.replica.kept(), 2, "what was given is kept for the next time");
}

#[test]
fn a_restart_goes_on_behind_what_the_hub_has_taken() {
    let many: Vec<Record> =
        (1..=UPLOAD_WRITES_MAX as u64 + 5).map(|counter| kept(counter, counter)).collect();
    let mut bench = Bench::starts(many, true);
    let (batch, first) = handed_in(&bench.sent());
    assert_eq!(first.len(), UPLOAD_WRITES_MAX);
    let (_, rest) = handed_in(&bench.taken(batch));
    let mut bench = Bench::starts(bench.disk, true);
    let (batch, again) = handed_in(&bench.sent());
    assert_eq!((again.len(), &again), (5, &rest));
    bench.taken(batch);
    let mut bench = Bench::starts(bench.disk, true);
    assert!(matches!(bench.sent()[..], [.., EdgeFrame::Subscribe { .. }]), "nothing is given twice");
}

#[test]
fn what_was_given_is_given_again_to_a_hub_that_may_have_lost_it_since() {
    let mut bench = Bench::starts(vec![kept(1, 45), kept(2, 49)], true);
    let (batch, _) = handed_in(&bench.sent());
    bench.taken(batch);
    let mut bench = Bench::starts_before(bench.disk, true, &[(11, 0), (22, 40), (33, 41)]);
    let (_, times) = handed_in(&bench.sent());
    assert_eq!(times, [45, 49]);
}

#[test]
fn what_is_kept_after_all_was_given_goes_up_as_well() {
    let disk = vec![kept(1, 45), kept(2, 49)];
    let mut bench = Bench::starts(disk, true);
    let (batch, _) = handed_in(&bench.sent());
    bench.taken(batch);
    bench.disk.push(kept(3, 60));
    let mut bench = Bench::starts(bench.disk, true);
    let (_, times) = handed_in(&bench.sent());
    assert_eq!(times, [60], "what was given is not given twice");

    let Record::Kept(KeptRecord { write: earlier, .. }) = kept(4, 47) else { unreachable!() };
    let batch = bench.replica.keep(vec![earlier], NOW);
    bench.commit(batch);
    let mut bench = Bench::starts(bench.disk, true);
    let (_, times) = handed_in(&bench.sent());
    assert_eq!(times, [45, 47, 49, 60], "its time is before the last that was given");
}

#[test]
fn a_hub_of_before_is_given_nothing() {
    let mut bench = Bench::starts(vec![kept(1, 45), row("lost", 47, plain())], false);
    assert!(matches!(bench.sent()[..], [.., EdgeFrame::Subscribe { .. }]));
}
