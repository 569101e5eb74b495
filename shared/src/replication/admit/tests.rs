//! Admission, planned without a database: versions, conflicts, duplicates, clocks ahead, atomic submissions.

use uuid::Uuid;

use super::*;
use crate::feed::{Environments, Feed};
use crate::name::{Environment, Key, Namespace, Subtree};
use crate::secret::SealedSecret;
use crate::value::Value;
use crate::write::{Action, Denial, HeldReason, Verdict, Write};

mod contest;
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
        change: ChangeId(Uuid::from_u128(5)),
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
    let value = SetValue::Secret(zeroize::Zeroizing::new(b"x".to_vec()));
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
    let by_base = Write { base: Some(outcome.row.stamp), ..write(1, "k", hlc(1), Vector::EMPTY) };
    let own_follow_up = write(2, "k", hlc(2), Vector::EMPTY);
    let by_context = write(3, "k", hlc(3), seen);
    verdicts(&mut planner, vec![by_base, own_follow_up, by_context]);
    let (commit, _) = planner.finish().unwrap();
    assert_eq!(commit.conflicts, []);
    assert_eq!(commit.rows[0].row.version, 4);
}

#[test]
fn a_repeated_write_is_a_duplicate_and_with_other_content_it_is_denied() {
    let mut planner = planner();
    let first = write(1, "k", Hlc(5), Vector::EMPTY);
    let other = Write { action: Action::Delete, ..first.clone() };
    let found = verdicts(&mut planner, vec![first.clone()]);
    assert_eq!(found, [Verdict::Admitted { version: 1 }]);
    assert_eq!(verdicts(&mut planner, vec![first]), [Verdict::Duplicate]);
    assert_eq!(verdicts(&mut planner, vec![other]), [Verdict::Denied(Denial::Reused)]);
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
