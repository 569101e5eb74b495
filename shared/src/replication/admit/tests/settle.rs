//! What people decide: restoring, dismissing, releasing, dropping.

use super::*;
use crate::secret::SealedSecret;
use crate::settled::{ConflictState, Waited};

/// The journal after a commit, as the next plan finds it.
fn after(commit: &Commit) -> Planning {
    Planning {
        rows: commit.rows.clone(),
        conflicts: commit.conflicts.clone(),
        past: commit.history.clone(),
        digests: commit.digests.clone(),
        ..Planning::default()
    }
}

/// An entry at version 1, and an edge's write of version 2 that lost to it.
fn lost(action: Action) -> (Planner, Conflict) {
    let mut planner = planner();
    planner.api(submission(vec![set("k", "1", None)], false), &mut NoKeys);
    verdicts(&mut planner, vec![Write { action, ..write(1, "k", Hlc(1), Vector::EMPTY) }]);
    let (commit, leader) = planner.finish().unwrap();
    let conflict = commit.conflicts[0].clone();
    (Planner::new(&leader, after(&commit), NOW), conflict)
}

fn edge_value() -> Action {
    write(1, "k", Hlc(1), Vector::EMPTY).action
}

fn decide(planner: &mut Planner, change: u128, decision: Decision) -> SettleOutcome {
    let submission = SettleSubmission {
        at: at("k"),
        author: Author { name: "token:ann".into(), claimed: None },
        change: ChangeId(Uuid::from_u128(change)),
        message: Some("restores version 2".into()),
        decision,
    };
    planner.settle(&submission, &mut NoKeys)
}

fn restore(conflict: &Conflict, if_version: Option<u64>) -> Decision {
    let terms = Terms { if_version, over_secret: false };
    Decision::Restore { conflict: conflict.id, loser: conflict.loser, secret: false, terms }
}

#[test]
fn a_restored_loser_is_a_new_version_that_has_seen_the_winner() {
    let (mut planner, conflict) = lost(edge_value());
    let done = decide(&mut planner, 8, restore(&conflict, None)).unwrap();
    assert_eq!(done.settled.wrote, Some((ChangeId(Uuid::from_u128(8)), 3)));
    let (commit, _) = planner.finish().unwrap();
    let row = &commit.rows[0];
    assert_eq!((row.row.version, &row.row.content), (3, &Content::Plain(Value::parse("\"edge\"").unwrap())));
    assert_eq!(row.base.unwrap().stamp.id, conflict.winner);
    assert_eq!(commit.history[0].change_type, ChangeType::Rollback);
    assert_eq!(&*commit.history[0].author.name, "token:ann");
    assert_eq!((commit.conflicts.as_slice(), commit.changes[0].writes), (&[][..], 1));
    assert_eq!(commit.settled[0].what, Waited::Conflict(conflict.id));
}

#[test]
fn restoring_twice_writes_once_and_answers_the_same() {
    let (mut planner, conflict) = lost(edge_value());
    let first = decide(&mut planner, 8, restore(&conflict, None)).unwrap();
    let again = decide(&mut planner, 9, restore(&conflict, None)).unwrap();
    assert_eq!((&again.settled, again.row), (&first.settled, None));
    let otherwise = decide(&mut planner, 10, Decision::Dismiss { conflict: conflict.id });
    assert_eq!(otherwise, Err(SettleRefused::Otherwise(first.settled)));
    assert_eq!(planner.finish().unwrap().0.history.len(), 1);
}

#[test]
fn a_third_value_is_only_replaced_by_who_knows_it() {
    let (mut planner, conflict) = lost(edge_value());
    planner.api(submission(vec![set("k", "7", None)], false), &mut NoKeys);
    let refused = decide(&mut planner, 8, restore(&conflict, None));
    assert_eq!(refused, Err(SettleRefused::Changed { current: 3 }));
    let wrong = decide(&mut planner, 8, restore(&conflict, Some(1)));
    let mismatch = OpRefused::VersionMismatch { expected: 1, current: 3 };
    assert_eq!(wrong, Err(SettleRefused::Operation(mismatch)));
    assert!(decide(&mut planner, 8, restore(&conflict, Some(3))).is_ok());
}

#[test]
fn restoring_a_deletion_deletes() {
    let (mut planner, conflict) = lost(Action::Delete);
    decide(&mut planner, 8, restore(&conflict, None)).unwrap();
    let (commit, _) = planner.finish().unwrap();
    assert_eq!(commit.rows[0].row.content, Content::Deleted);
    assert_eq!(commit.history[0].change_type, ChangeType::Delete);
}

#[test]
fn a_dismissed_conflict_may_still_be_restored() {
    let (mut planner, conflict) = lost(edge_value());
    let dismissed = decide(&mut planner, 8, Decision::Dismiss { conflict: conflict.id }).unwrap();
    assert_eq!(ConflictState::of(Some(&dismissed.settled)), ConflictState::Dismissed);
    let again = decide(&mut planner, 9, Decision::Dismiss { conflict: conflict.id }).unwrap();
    assert_eq!(again.settled, dismissed.settled);
    decide(&mut planner, 10, restore(&conflict, None)).unwrap();
    let (commit, _) = planner.finish().unwrap();
    assert_eq!(commit.settled.len(), 1, "one decision holds");
    assert!(commit.settled[0].settled.wrote.is_some());
}

#[test]
fn a_decision_alone_is_a_commit() {
    let (mut planner, conflict) = lost(edge_value());
    decide(&mut planner, 8, Decision::Dismiss { conflict: conflict.id }).unwrap();
    let (commit, _) = planner.finish().unwrap();
    assert_eq!((commit.history.len(), commit.settled.len()), (0, 1));
    let unknown = decide(&mut lost(edge_value()).0, 8, Decision::Dismiss { conflict: Uuid::nil() });
    assert_eq!(unknown, Err(SettleRefused::Missing));
}

/// A write held because its clock is ahead, over what the key holds now.
fn held(current: Option<Content>) -> (Planner, WriteId) {
    let mut planner = planner();
    let ahead = Hlc::from_physical(UnixMillis(NOW.0 + 86_400_000));
    verdicts(&mut planner, vec![write(1, "k", ahead, Vector::EMPTY)]);
    let (commit, leader) = planner.finish().unwrap();
    let mut planning = after(&commit);
    if let Some(content) = current {
        let mut planner = Planner::new(&leader, Planning::default(), NOW);
        planner.api(submission(vec![set("k", "1", None)], false), &mut NoKeys);
        let mut row = planner.finish().unwrap().0.rows.remove(0);
        row.row.content = content;
        let mut digest = ScopeDigest::default();
        digest.add(&row.row);
        planning.digests = vec![(row.row.at.scope.clone(), digest)];
        planning.rows.push(row);
    }
    (Planner::new(&leader, planning, NOW), commit.history[0].stamp.id)
}

#[test]
fn a_released_write_is_one_of_now_with_the_old_value() {
    let (mut planner, id) = held(Some(Content::Plain(Value::parse("1").unwrap())));
    let terms = Terms::default();
    let done =
        decide(&mut planner, 8, Decision::Release { held: id, terms, by_its_time: false, secret: false })
            .unwrap();
    let again =
        decide(&mut planner, 9, Decision::Release { held: id, terms, by_its_time: false, secret: false })
            .unwrap();
    assert_eq!((&again.settled, again.row), (&done.settled, None));
    let dropped = decide(&mut planner, 10, Decision::Drop { held: id });
    assert_eq!(dropped, Err(SettleRefused::Otherwise(done.settled)));
    let (commit, _) = planner.finish().unwrap();
    assert_eq!(commit.history.len(), 1);
    let row = &commit.rows[0].row;
    assert_eq!(row.content, Content::Plain(Value::parse("\"edge\"").unwrap()));
    assert!(row.stamp.hlc < Hlc::from_physical(UnixMillis(NOW.0 + 1_000)) && row.stamp.id != id);
    assert_eq!(commit.history[0].change_type, ChangeType::Update);
    assert_eq!(commit.settled[0].what, Waited::Held(id));
}

#[test]
fn a_release_never_uncovers_a_secret_unless_it_says_so() {
    let sealed = SealedSecret {
        key_epoch: 1,
        version: 1,
        about: Default::default(),
        body: "b".into(),
        wrap: "w".into(),
    };
    let (mut planner, id) = held(Some(Content::Secret(sealed)));
    let refused = decide(
        &mut planner,
        8,
        Decision::Release { held: id, terms: Terms::default(), by_its_time: false, secret: false },
    );
    assert_eq!(refused, Err(SettleRefused::Operation(OpRefused::HoldsSecret)));
    let terms = Terms { if_version: None, over_secret: true };
    assert!(
        decide(&mut planner, 8, Decision::Release { held: id, terms, by_its_time: false, secret: false })
            .is_ok()
    );
}

#[test]
fn a_dropped_write_stays_dropped() {
    let (mut planner, id) = held(None);
    let done = decide(&mut planner, 8, Decision::Drop { held: id }).unwrap();
    assert_eq!(done.settled.wrote, None);
    assert_eq!(decide(&mut planner, 9, Decision::Drop { held: id }).unwrap().settled, done.settled);
    let released = decide(
        &mut planner,
        10,
        Decision::Release { held: id, terms: Terms::default(), by_its_time: false, secret: false },
    );
    assert_eq!(released, Err(SettleRefused::Otherwise(done.settled)));
    let (commit, _) = planner.finish().unwrap();
    assert_eq!((commit.rows.as_slice(), commit.settled.len()), (&[][..], 1));
}
