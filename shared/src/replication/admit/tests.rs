//! Admission, planned without a database: versions, conflicts, duplicates, clocks ahead, atomic submissions.

use uuid::Uuid;

use super::*;
use crate::feed::{Environments, Feed};
use crate::name::{Environment, Key, Namespace, Subtree};
use crate::secret::SealedSecret;
use crate::value::Value;
use crate::write::{Action, Denial, HeldReason, Verdict, Write};

mod contest;
mod newer;
mod regions;
mod settle;

const NOW: UnixMillis = UnixMillis(1_000_000);
const EDGE: ActorId = ActorId(Uuid::from_u128(77));

fn at(key: &str) -> EntryKey {
    let scope = Scope {
        tenant: Tenant::parse("t").unwrap(),
        environment: Environment::base(),
        namespace: Namespace::parse("app").unwrap(),
    };
    EntryKey { scope, key: Key::parse(key).unwrap() }
}

fn leader() -> Leader {
    Leader::new(&Leadership {
        shard: ShardId(Uuid::from_u128(1)),
        position: Position { epoch: 9, seq: 0 },
        hlc: Hlc::default(),
        epochs: EpochTable::default(),
        following: Following::default(),
    })
}

fn planner() -> Planner {
    Planner::new(&leader(), Planning::default(), NOW)
}

struct NoKeys;

impl Sealer for NoKeys {
    fn seal(&mut self, _: &EntryKey, _: u64, _: &[u8]) -> Result<SealedSecret, SealUnavailable> {
        Err(SealUnavailable)
    }

    fn reseal(&mut self, _: &EntryKey, _: &SealedSecret, _: u64) -> Result<SealedSecret, SealUnavailable> {
        Err(SealUnavailable)
    }
}

fn set(key: &str, value: &str, if_version: Option<u64>) -> Operation {
    let value = SetValue::Plain { value: Value::parse(value).unwrap(), over_secret: false };
    Operation { at: at(key), action: OpAction::Set { value, tags: None, description: None }, if_version }
}

fn submission(operations: Vec<Operation>, atomic: bool) -> ApiSubmission {
    ApiSubmission {
        tenant: Tenant::parse("t").unwrap(),
        author: Author { name: "token:a".into(), claimed: None },
        change: Some(ChangeId(Uuid::from_u128(5))),
        message: None,
        operations,
        atomic,
        dry_run: false,
        repeat: None,
    }
}

fn write(counter: u64, key: &str, hlc: Hlc, context: Vector) -> Write {
    Write {
        id: WriteId { actor: EDGE, incarnation: 4, counter },
        hlc,
        claimed_hlc: None,
        at: at(key),
        action: Action::Set { value: Value::parse("\"edge\"").unwrap(), tags: None, description: None },
        author: Author { name: "edge:e/uid:0".into(), claimed: None },
        made_at: NOW,
        message: None,
        change: ChangeId(Uuid::from_u128(6)),
        context,
        without_secrets: false,
        base: None,
    }
}

fn upload(writes: Vec<Write>) -> Upload {
    let tenant = Tenant::parse("t").unwrap();
    Upload {
        edge: EDGE,
        feeds: vec![Feed {
            tenant: tenant.clone(),
            environment: Environment::base(),
            subtree: Subtree::ALL,
            secrets: true,
        }],
        tenant,
        write: vec![Subtree::parse("app").unwrap()],
        environments: Environments::standard(),
        session: 1,
        first: false,
        writes,
    }
}

fn verdicts(planner: &mut Planner, writes: Vec<Write>) -> Vec<Verdict> {
    planner.upload(&upload(writes)).into_iter().map(|answer| answer.verdict).collect()
}

#[test]
fn versions_go_on_after_a_delete_and_seqs_are_dense() {
    let mut planner = planner();
    let delete = Operation { at: at("k"), action: OpAction::Delete, if_version: None };
    let operations = vec![set("k", "1", None), delete, set("k", "2", None)];
    let outcomes = planner.api(submission(operations, false), &mut NoKeys);
    let rows: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(rows.iter().map(|row| row.row.version).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(rows.iter().map(|row| row.row.dot.position.seq).collect::<Vec<_>>(), [1, 2, 3]);
    let (commit, leader) = planner.finish().unwrap();
    assert_eq!((commit.rows.len(), commit.history.len(), commit.seq), (1, 3, 3));
    assert_eq!(leader.vector().seq(ShardId(Uuid::from_u128(1))), 3);
    assert_eq!(commit.history[2].change_type, ChangeType::Create);
    assert_eq!(commit.changes[0].writes, 3);
}

#[test]
fn a_refused_operation_undoes_an_atomic_submission_and_only_that() {
    let mut planner = planner();
    planner.api(submission(vec![set("a", "1", None)], true), &mut NoKeys);
    let outcomes =
        planner.api(submission(vec![set("b", "1", None), set("a", "2", Some(7))], true), &mut NoKeys);
    assert_eq!(outcomes[1], Err(OpRefused::VersionMismatch { expected: 7, current: 1 }));
    let (commit, _) = planner.finish().unwrap();
    assert_eq!(commit.rows.iter().map(|row| row.row.at.key.as_str()).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_dry_run_judges_and_writes_nothing() {
    let mut planner = planner();
    let trial = ApiSubmission { dry_run: true, ..submission(vec![set("a", "1", None)], false) };
    assert!(planner.api(trial, &mut NoKeys)[0].is_ok());
    assert!(planner.finish().is_none());
}

#[test]
fn a_secret_without_keys_is_refused_by_name() {
    let mut planner = planner();
    let value = SetValue::Secret(b"x".to_vec().into());
    let action = OpAction::Set { value, tags: None, description: None };
    let outcomes = planner
        .api(submission(vec![Operation { at: at("s"), action, if_version: None }], false), &mut NoKeys);
    assert_eq!(outcomes[0], Err(OpRefused::Seal(SealUnavailable)));
}

#[test]
fn concurrent_writes_conflict_and_the_larger_stamp_wins_either_way() {
    for (hlc, wins) in [(Hlc::from_physical(UnixMillis(NOW.0 + 5)), true), (Hlc(1), false)] {
        let mut planner = planner();
        planner.api(submission(vec![set("k", "1", None)], false), &mut NoKeys);
        let verdict = verdicts(&mut planner, vec![write(1, "k", hlc, Vector::EMPTY)]).remove(0);
        let (commit, _) = planner.finish().unwrap();
        assert_eq!(commit.conflicts.len(), 1);
        if wins {
            assert_eq!(verdict, Verdict::Admitted { version: 2 });
            assert_eq!(commit.superseded, [commit.history[0].stamp.id]);
            assert_eq!((commit.conflicts[0].winner_version, commit.conflicts[0].loser_version), (2, 1));
        } else {
            assert_eq!(verdict, Verdict::Lost { version: 2, to: 1 });
            assert_eq!(commit.history[1].status, Status::SupersededConcurrent);
            assert_eq!((commit.rows[0].row.version, commit.rows[0].top_version), (1, 2));
            assert_eq!((commit.conflicts[0].winner_version, commit.conflicts[0].loser_version), (1, 2));
        }
    }
}

#[test]
fn a_write_that_has_seen_the_current_one_does_not_conflict() {
    let hlc = |n| Hlc::from_physical(UnixMillis(NOW.0 + n));
    let mut planner = planner();
    let outcome = planner.api(submission(vec![set("k", "1", None)], false), &mut NoKeys).remove(0).unwrap();
    let seen = Vector::at(outcome.row.dot.shard, outcome.row.dot.position);
    let by_base = Write { base: Some(outcome.row.as_base()), ..write(1, "k", hlc(1), Vector::EMPTY) };
    let own_follow_up = write(2, "k", hlc(2), Vector::EMPTY);
    let by_context = write(3, "k", hlc(3), seen);
    verdicts(&mut planner, vec![by_base, own_follow_up, by_context]);
    let (commit, _) = planner.finish().unwrap();
    assert_eq!(commit.conflicts, []);
    assert_eq!(commit.rows[0].row.version, 4);
}

#[test]
fn a_repeated_write_is_a_duplicate_and_another_under_its_number_comes_again() {
    let mut planner = planner();
    let first = write(1, "k", Hlc(5), Vector::EMPTY);
    let behind = write(2, "k", Hlc(6), Vector::EMPTY);
    let found = verdicts(&mut planner, vec![first.clone()]);
    assert_eq!(found, [Verdict::Admitted { version: 1 }]);
    let others = [
        Write { action: Action::Delete, ..first.clone() },
        Write { change: ChangeId(Uuid::from_u128(7)), ..first.clone() },
    ];
    for other in others {
        let found = verdicts(&mut planner, vec![other, behind.clone()]);
        assert_eq!(
            found,
            [Verdict::Reidentify, Verdict::Reidentify],
            "nor what follows it, or the order would change"
        );
    }
    assert_eq!(verdicts(&mut planner, vec![first]), [Verdict::Duplicate]);
    let (commit, _) = planner.finish().unwrap();
    assert_eq!((commit.history.len(), commit.frontiers[0].last_counter), (1, 1));
}

#[test]
fn a_session_number_counts_once_and_what_is_known_stays_known() {
    let of = |session, first, writes| Upload { session, first, ..upload(writes) };
    let judge = |planner: &mut Planner, upload: &Upload| -> Vec<Verdict> {
        planner.upload(upload).into_iter().map(|answer| answer.verdict).collect()
    };
    let mut planner = planner();
    let known = write(1, "a", Hlc(5), Vector::EMPTY);
    let next = write(2, "b", Hlc(6), Vector::EMPTY);
    let admitted = [Verdict::Admitted { version: 1 }];
    assert_eq!(judge(&mut planner, &of(3, true, vec![known.clone()])), admitted);
    let of_copy = [Verdict::Duplicate, Verdict::Reidentify];
    for (session, first) in [(3, true), (2, true), (2, false)] {
        let found = judge(&mut planner, &of(session, first, vec![known.clone(), next.clone()]));
        assert_eq!(found, of_copy, "session {session}, first: {first}");
    }
    assert_eq!(judge(&mut planner, &of(3, false, vec![next.clone()])), admitted, "the session goes on");
    assert_eq!(judge(&mut planner, &of(4, true, vec![next])), [Verdict::Duplicate]);
    let (commit, _) = planner.finish().unwrap();
    assert_eq!((commit.frontiers[0].last_counter, commit.frontiers[0].session), (2, 4));
    assert_eq!(commit.history.len(), 2);
}

#[test]
fn what_two_copies_both_had_is_decided_once() {
    let mut planner = planner();
    let both = write(1, "k", Hlc(5), Vector::EMPTY);
    assert_eq!(verdicts(&mut planner, vec![both.clone()]), [Verdict::Admitted { version: 1 }]);
    let renamed = Write { id: WriteId { incarnation: 5, ..both.id }, ..both };
    let after = write(2, "k", Hlc(6), Vector::EMPTY);
    let own = WriteId { incarnation: 5, ..after.id };
    let after = Write { id: own, base: Some(renamed.as_base()), ..after };
    let other = Write { change: ChangeId(Uuid::from_u128(77)), ..renamed.clone() };
    let found = verdicts(&mut planner, vec![renamed, after]);
    assert_eq!(found, [Verdict::Duplicate, Verdict::Admitted { version: 2 }]);
    let (commit, _) = planner.clone().finish().unwrap();
    assert_eq!(commit.conflicts, [], "what followed it follows it");
    let other = Write { id: WriteId { incarnation: 6, ..other.id }, ..other };
    let found = verdicts(&mut planner, vec![other]);
    assert_eq!(found, [Verdict::Lost { version: 3, to: 2 }], "the number alone is no proof");
}

#[test]
fn times_of_one_replica_that_do_not_rise_are_of_two() {
    let mut planner = planner();
    verdicts(&mut planner, vec![write(1, "k", Hlc(9), Vector::EMPTY)]);
    let slower = write(2, "k", Hlc(8), Vector::EMPTY);
    assert_eq!(verdicts(&mut planner, vec![slower.clone()]), [Verdict::Reidentify]);
    let renamed = Write { id: WriteId { incarnation: 5, ..slower.id }, ..slower };
    assert_eq!(verdicts(&mut planner, vec![renamed]), [Verdict::Lost { version: 2, to: 1 }]);
    assert_eq!(
        planner.finish().unwrap().0.conflicts.len(),
        1,
        "and reported, unlike one's own earlier write"
    );
}

#[test]
fn a_clock_ahead_is_held_and_does_not_carry_the_hubs_clock_away() {
    let mut planner = planner();
    let ahead = Hlc::from_physical(UnixMillis(NOW.0 + 86_400_000));
    let found = verdicts(&mut planner, vec![write(1, "k", ahead, Vector::EMPTY)]);
    assert_eq!(found, [Verdict::Held(HeldReason::ClockAhead)]);
    let (commit, _) = planner.finish().unwrap();
    assert_eq!(commit.rows, []);
    assert_eq!((commit.history[0].status, commit.history[0].version), (Status::Held, 0));
    assert_eq!(commit.frontiers[0].last_counter, 1);
    assert!(commit.hlc < ahead);
}

#[test]
fn an_edge_writes_only_where_it_may_and_only_as_itself() {
    let mut planner = planner();
    let mut elsewhere = write(1, "k", Hlc(5), Vector::EMPTY);
    elsewhere.at.scope.namespace = Namespace::parse("application").unwrap();
    let mut tenant = write(2, "k", Hlc(6), Vector::EMPTY);
    tenant.at.scope.tenant = Tenant::parse("other").unwrap();
    let mut nowhere = write(3, "k", Hlc(7), Vector::EMPTY);
    nowhere.at.scope.environment = Environment::parse("nowhere").unwrap();
    let mut impostor = write(4, "k", Hlc(8), Vector::EMPTY);
    impostor.id.actor = ActorId(Uuid::from_u128(0xBAD));
    let found = verdicts(&mut planner, vec![elsewhere, tenant, nowhere, impostor]);
    let expected = [Denial::Namespace, Denial::Namespace, Denial::Environment, Denial::Namespace];
    assert_eq!(found, expected.map(Verdict::Denied));
    let (commit, _) = planner.finish().unwrap();
    let recorded: Vec<_> = commit.history.iter().map(|row| row.stamp.id.counter).collect();
    assert_eq!(recorded, [1, 3], "nothing in another tenant's history, nothing in another's name");
}

/// A key deleted at version 3 whose loser took 4, as a row and as what is left of it.
fn deleted_long_ago(key: &str) -> (HubRow, Stub) {
    let stub = Stub {
        at: at(key),
        dot: Dot { shard: ShardId(Uuid::from_u128(1)), position: Position { epoch: 2, seq: 40 } },
        stamp: Stamp {
            hlc: Hlc(500),
            id: WriteId { actor: ActorId(Uuid::from_u128(8)), incarnation: 1, counter: 3 },
        },
        version: 3,
        top_version: 4,
        plain_seq: 40,
        origin: None,
    };
    (stub.clone().tombstone(), stub)
}

fn planner_at(seq: u64, planning: Planning) -> Planner {
    let position = Position { epoch: 9, seq };
    let mut leader = leader();
    leader.position = position;
    Planner::new(&leader, planning, NOW)
}

#[test]
fn a_purged_deletion_judges_as_if_it_were_still_there() {
    let seen = Vector::at(ShardId(Uuid::from_u128(1)), Position { epoch: 2, seq: 40 });
    let (tombstone, stub) = deleted_long_ago("k");
    let seen_deletion = Base { stamp: stub.stamp, change: ChangeId(Uuid::from_u128(3)) };
    let by_base = Write { base: Some(seen_deletion), ..write(1, "k", Hlc(600), Vector::EMPTY) };
    let writes = [
        write(1, "k", Hlc(5), Vector::EMPTY),
        write(1, "k", Hlc(600), Vector::EMPTY),
        write(1, "k", Hlc(600), seen),
        by_base,
    ];
    let expected = [
        (Verdict::Lost { version: 5, to: stub.version }, 1, StubChange::Raised(5)),
        (Verdict::Admitted { version: 5 }, 1, StubChange::Replaced),
        (Verdict::Admitted { version: 5 }, 0, StubChange::Replaced),
        (Verdict::Admitted { version: 5 }, 0, StubChange::Replaced),
    ];
    for (write, (verdict, conflicts, change)) in writes.into_iter().zip(expected) {
        let upload = upload(vec![write]);
        let mut with_row = planner_at(90, Planning { rows: vec![tombstone.clone()], ..Planning::default() });
        let mut with_stub = planner_at(90, Planning { stubs: vec![stub.clone()], ..Planning::default() });
        let answers = with_stub.upload(&upload);
        assert_eq!(with_row.upload(&upload), answers);
        assert_eq!(answers[0].verdict, verdict);
        let ((row_commit, _), (commit, _)) = (with_row.finish().unwrap(), with_stub.finish().unwrap());
        assert_eq!((&row_commit.rows, &row_commit.history), (&commit.rows, &commit.history));
        assert_eq!(row_commit.conflicts, commit.conflicts);
        assert_eq!(commit.conflicts.len(), conflicts);
        assert_eq!(commit.stubs, [(at("k"), change)]);
        assert_eq!((commit.raised, row_commit.stubs), (vec![], vec![]));
    }
}

#[test]
fn versions_go_on_after_a_purge_and_what_only_looked_changes_no_stub() {
    let (_, stub) = deleted_long_ago("k");
    let planning = || Planning { stubs: vec![stub.clone()], ..Planning::default() };
    let mut created = planner_at(90, planning());
    let row = created.api(submission(vec![set("k", "1", Some(0))], false), &mut NoKeys).remove(0).unwrap();
    assert_eq!((row.row.version, row.row.dot.position.seq), (5, 91));
    let (commit, _) = created.finish().unwrap();
    assert_eq!(
        (commit.history[0].change_type, commit.stubs),
        (ChangeType::Create, vec![(at("k"), StubChange::Replaced)])
    );

    let mut refused = planner_at(90, planning());
    let delete = Operation { at: at("k"), action: OpAction::Delete, if_version: None };
    let outcomes = refused.api(submission(vec![delete, set("other", "1", None)], false), &mut NoKeys);
    assert_eq!(outcomes[0], Err(OpRefused::NotFound));
    assert_eq!(refused.finish().unwrap().0.stubs, []);
}

#[test]
fn a_write_that_loses_to_a_purged_deletion_and_one_that_wins_make_one_change() {
    let (_, stub) = deleted_long_ago("k");
    let to = stub.version;
    let mut planner = planner_at(90, Planning { stubs: vec![stub], ..Planning::default() });
    let found = verdicts(
        &mut planner,
        vec![write(1, "k", Hlc(5), Vector::EMPTY), write(2, "k", Hlc(600), Vector::EMPTY)],
    );
    assert_eq!(found, [Verdict::Lost { version: 5, to }, Verdict::Admitted { version: 6 }]);
    let (commit, _) = planner.finish().unwrap();
    assert_eq!((commit.stubs, commit.rows[0].top_version), (vec![(at("k"), StubChange::Replaced)], 6));
}

#[test]
fn who_received_no_secrets_has_not_seen_one_whatever_they_receive_by_now() {
    let (mut secret, _) = deleted_long_ago("k");
    let sealed = SealedSecret {
        key_epoch: 1,
        version: 3,
        about: Default::default(),
        body: "b".into(),
        wrap: "w".into(),
    };
    secret.row.content = Content::Secret(sealed);
    let covering = Vector::at(ShardId(Uuid::from_u128(1)), Position { epoch: 2, seq: 41 });
    let mut digest = ScopeDigest::default();
    digest.add(&secret.row);
    let digests = vec![(secret.row.at.scope.clone(), digest)];
    let planning = Planning { rows: vec![secret], digests, ..Planning::default() };
    let seeing = write(1, "k", Hlc(600), covering);
    let blind = Write { without_secrets: true, ..seeing.clone() };
    assert_eq!(
        verdicts(&mut planner_at(50, planning.clone()), vec![seeing]),
        [Verdict::Admitted { version: 5 }]
    );
    let found = verdicts(&mut planner_at(50, planning), vec![blind]);
    assert_eq!(found, [Verdict::Held(HeldReason::ConcurrentSecret)]);
}
