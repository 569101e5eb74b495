//! Concurrent writes under each policy of their namespace.

use super::*;
use crate::policy::{ConflictPolicy, Policies};

const EARLY: Hlc = Hlc(1);

fn late() -> Hlc {
    Hlc::from_physical(UnixMillis(NOW.0 + 5))
}

/// A planner in whose namespace the policy holds, with one row that the edge has not seen.
fn under(policy: ConflictPolicy) -> Planner {
    let mut policies = Policies::default();
    policies.set(Tenant::parse("t").unwrap(), Namespace::parse("app").unwrap(), policy);
    let mut planner = Planner::new(&leader(), Planning { policies, ..Planning::default() }, NOW);
    planner.api(submission(vec![set("k", "1", None)], false), &mut NoKeys);
    planner
}

fn one(planner: &mut Planner, counter: u64, hlc: Hlc) -> Verdict {
    verdicts(planner, vec![write(counter, "k", hlc, Vector::EMPTY)]).remove(0)
}

#[test]
fn where_the_hub_wins_its_row_stays_whatever_the_clocks_say() {
    for hlc in [EARLY, late()] {
        let mut planner = under(ConflictPolicy::HubWins);
        assert_eq!(one(&mut planner, 1, hlc), Verdict::Lost { version: 2, to: 1 });
        let (commit, _) = planner.finish().unwrap();
        assert_eq!((commit.rows[0].row.version, commit.rows[0].top_version), (1, 2));
        assert_eq!((commit.conflicts[0].winner_version, commit.conflicts[0].loser_version), (1, 2));
        assert_eq!(commit.history[1].status, Status::SupersededConcurrent);
        assert_eq!(commit.superseded, []);
    }
}

#[test]
fn where_the_edge_wins_its_write_gets_a_stamp_above_the_row_and_keeps_its_id() {
    let mut planner = under(ConflictPolicy::EdgeWins);
    assert_eq!(one(&mut planner, 1, EARLY), Verdict::Admitted { version: 2 });
    let (commit, after) = planner.finish().unwrap();
    let (lost, won) = (&commit.history[0], &commit.history[1]);
    assert!(won.stamp > lost.stamp, "everybody who compares them agrees");
    assert!(won.stamp.hlc <= after.hlc(), "and what follows is above it");
    assert_eq!(won.stamp.id, write(1, "k", EARLY, Vector::EMPTY).id);
    assert_eq!(won.claimed_hlc, Some(EARLY), "what the author's clock said is kept");
    assert_eq!(commit.rows[0].row.stamp, won.stamp);
    assert_eq!(commit.superseded, [lost.stamp.id]);
    assert_eq!((commit.conflicts[0].winner, commit.conflicts[0].loser), (won.stamp.id, lost.stamp.id));
}

#[test]
fn a_later_stamp_that_wins_anyway_is_left_alone() {
    let mut planner = under(ConflictPolicy::EdgeWins);
    assert_eq!(one(&mut planner, 1, late()), Verdict::Admitted { version: 2 });
    let (commit, _) = planner.finish().unwrap();
    assert_eq!((commit.history[1].stamp.hlc, commit.history[1].claimed_hlc), (late(), None));
}

#[test]
fn an_own_later_write_follows_one_that_was_put_ahead_of_it() {
    let mut planner = under(ConflictPolicy::EdgeWins);
    assert_eq!(one(&mut planner, 1, EARLY), Verdict::Admitted { version: 2 });
    assert_eq!(one(&mut planner, 2, EARLY.next()), Verdict::Admitted { version: 3 });
    let (commit, _) = planner.finish().unwrap();
    assert_eq!(commit.conflicts.len(), 1, "it had seen the first");
    assert!(commit.history[2].stamp > commit.history[1].stamp);
    assert_eq!(commit.rows[0].row.stamp.id.counter, 2);
}

#[test]
fn where_such_writes_are_rejected_they_are_denied_with_the_reason() {
    let mut planner = under(ConflictPolicy::Reject);
    assert_eq!(one(&mut planner, 1, late()), Verdict::Denied(Denial::Policy));
    let (commit, _) = planner.finish().unwrap();
    assert_eq!((commit.history[1].status, commit.history[1].version), (Status::Denied, 0));
    assert_eq!(commit.history[1].reason.as_deref(), Some(Denial::Policy.to_string().as_str()));
    assert_eq!((commit.conflicts.as_slice(), commit.rows[0].top_version), (&[][..], 1));
}

#[test]
fn where_a_person_decides_they_are_held() {
    let mut planner = under(ConflictPolicy::Manual);
    assert_eq!(one(&mut planner, 1, late()), Verdict::Held(HeldReason::Policy));
    let (commit, _) = planner.finish().unwrap();
    assert_eq!((commit.history[1].status, commit.rows[0].row.version), (Status::Held, 1));
}

#[test]
fn a_policy_says_nothing_about_writes_that_have_seen_the_row_nor_about_new_keys() {
    let all = [ConflictPolicy::HubWins, ConflictPolicy::Reject, ConflictPolicy::Manual];
    for policy in all {
        let mut planner = under(policy);
        let seen = planner.leader.vector();
        let writes = vec![write(1, "k", late(), seen), write(2, "new", EARLY, Vector::EMPTY)];
        let expected = [Verdict::Admitted { version: 2 }, Verdict::Admitted { version: 1 }];
        assert_eq!(verdicts(&mut planner, writes), expected);
    }
}
