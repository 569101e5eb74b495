//! Two regions that read each other end with the same, whatever brought a write to both.

use super::*;
use crate::policy::{ConflictPolicy, Policies};
use crate::store::region::{Bookmark, RegionPage, RegionWrite};

fn region(n: u128) -> Leader {
    let shard = ShardId(Uuid::from_u128(n));
    let position = Position { epoch: 9, seq: 0 };
    let (epochs, following) = (EpochTable::default(), Following::default());
    Leader::new(&Leadership { shard, position, hlc: Hlc::default(), epochs, following })
}

/// What the commit added to the region's history, as another reads it.
fn page(commit: &Commit) -> RegionPage {
    let shard = commit.fence.shard;
    let write = |row: &HistoryRow| {
        let here = row.seq.map(|seq| Dot { shard, position: Position { epoch: 9, seq } });
        RegionWrite::of(row.clone(), here, None)
    };
    let position = Position { epoch: 9, seq: commit.seq };
    RegionPage {
        shard,
        after: None,
        writes: commit.history.iter().map(write).collect(),
        read: Bookmark { position, number: commit.history.len() as u64, epoch: 9 },
        epochs: EpochTable::default(),
        regions: None,
    }
}

/// The region's database after its last commit.
fn known(last: &Commit, past: Vec<HistoryRow>) -> Planning {
    Planning { rows: last.rows.clone(), digests: last.digests.clone(), past, ..Planning::default() }
}

/// Each reads what the other has; what each then holds under the key.
fn exchanged(one: (Commit, Leader), other: (Commit, Leader)) -> [(Commit, Row); 2] {
    let read = |(mine, leader): &(Commit, Leader), theirs: &Commit| {
        let mut planner = Planner::new(leader, known(mine, mine.history.clone()), NOW);
        planner.follow_region(page(theirs)).unwrap();
        let current = planner.rows[&at("k")].row.clone();
        (planner.finish().unwrap().0, current)
    };
    [read(&one, &other.0), read(&other, &one.0)]
}

fn uploaded(n: u128, write: Write) -> (Commit, Leader) {
    let mut planner = Planner::new(&region(n), Planning::default(), NOW);
    verdicts(&mut planner, vec![write]);
    planner.finish().unwrap()
}

fn said(text: &str, change: u128, hlc: Hlc) -> Write {
    let value = Value::parse(text).unwrap();
    Write {
        action: Action::Set { value, tags: None, description: None },
        change: ChangeId(Uuid::from_u128(change)),
        ..write(1, "k", hlc, Vector::EMPTY)
    }
}

#[test]
fn what_lost_by_a_policy_loses_in_other_regions_too() {
    let mut policies = Policies::default();
    policies.set(Tenant::parse("t").unwrap(), Namespace::parse("app").unwrap(), ConflictPolicy::HubWins);
    let mut planner = Planner::new(&region(1), Planning { policies, ..Planning::default() }, NOW);
    planner.api(submission(vec![set("k", "1", None)], false), &mut NoKeys);
    let late = Hlc::from_physical(UnixMillis(NOW.0 + 5));
    assert!(matches!(verdicts(&mut planner, vec![said("2", 6, late)])[..], [Verdict::Lost { .. }]));
    let (commit, _) = planner.finish().unwrap();
    assert_eq!(commit.history[1].claimed_hlc, Some(late), "what the author's clock said is kept");
    let mut other = Planner::new(&region(2), Planning::default(), NOW);
    other.follow_region(page(&commit)).unwrap();
    assert_eq!(other.rows[&at("k")].row.stamp, commit.rows[0].row.stamp);
}

#[test]
fn one_number_that_copies_gave_twice_is_two_writes_in_every_region() {
    for (first, second) in [(Hlc(1), Hlc(2)), (Hlc(2), Hlc(1)), (Hlc(1), Hlc(1))] {
        let (one, other) = (uploaded(1, said("1", 6, first)), uploaded(2, said("2", 7, second)));
        let [(here, at_one), (there, at_other)] = exchanged(one, other);
        assert_eq!((&at_one.content, at_one.stamp.hlc), (&at_other.content, at_other.stamp.hlc));
        for commit in [here, there] {
            assert_eq!(commit.history.len(), 1, "the other's is here as well");
            assert_eq!(commit.history[0].version, 2);
            assert_eq!(commit.conflicts.len(), 1, "and both authors hear");
        }
    }
}

#[test]
fn what_came_under_another_name_is_known_by_it() {
    let one = uploaded(1, said("1", 6, Hlc(1)));
    let theirs = page(&uploaded(2, said("2", 7, Hlc(2))).0);
    let mut request = PlanningRequest::default();
    theirs.needs(&mut request);
    let mut planner = Planner::new(&one.1, known(&one.0, one.0.history.clone()), NOW);
    planner.follow_region(theirs.clone()).unwrap();
    let (commit, _) = planner.finish().unwrap();
    assert!(request.past.contains(&commit.history[0].stamp.id), "it is looked for");
    let past = [one.0.history, commit.history.clone()].concat();
    let mut again = Planner::new(&one.1, known(&commit, past), NOW);
    again.follow_region(theirs).unwrap();
    assert_eq!(again.finish().unwrap().0.history, [], "nothing new");
}

#[test]
fn a_write_that_regions_have_under_two_times_counts_under_the_later() {
    let (one, other) = (uploaded(1, said("1", 6, Hlc(1))), uploaded(2, said("1", 6, Hlc(5))));
    let [(here, at_one), (there, at_other)] = exchanged(one, other);
    assert_eq!((at_one.stamp.hlc, at_other.stamp.hlc), (Hlc(5), Hlc(5)));
    assert_eq!(here.conflicts, [], "it is one write");
    assert_eq!((here.history.len(), there.history.len()), (1, 0));
}

fn of_copy(incarnation: u64, change: u128) -> Write {
    let write = said(&change.to_string(), change, Hlc(5));
    Write { id: WriteId { incarnation, ..write.id }, ..write }
}

#[test]
fn of_two_writes_of_copies_at_one_time_one_wins_whatever_their_names_and_ways() {
    // Two incarnations for each order of the names, and two for each way: uploaded to one region, or read of another.
    let orders = [(4, 9), (9, 4)].map(|(one, other)| (of_copy(one, 6), of_copy(other, 7)));
    let winners = orders.map(|(one, other)| {
        let [(_, at_one), (_, at_other)] = exchanged(uploaded(1, one.clone()), uploaded(2, other.clone()));
        assert_eq!(at_one.change, at_other.change);
        for writes in [[one.clone(), other.clone()], [other, one]] {
            let mut planner = Planner::new(&region(3), Planning::default(), NOW);
            verdicts(&mut planner, writes.to_vec());
            let (commit, _) = planner.finish().unwrap();
            assert_eq!(commit.conflicts.len(), 1);
            assert_eq!(commit.rows[0].row.change, at_one.change);
        }
        at_one.change
    });
    assert_eq!(winners[0], winners[1], "incarnations are names");
}

#[test]
fn of_one_time_the_higher_number_wins_under_any_name() {
    let second = |incarnation| {
        let write = of_copy(incarnation, 7);
        Write { id: WriteId { counter: 2, ..write.id }, ..write }
    };
    for (first, second) in [(of_copy(4, 6), second(9)), (of_copy(9, 6), second(4))] {
        let [(_, at_one), (_, at_other)] = exchanged(uploaded(1, first), uploaded(2, second));
        assert_eq!((at_one.stamp.id.counter, at_other.stamp.id.counter), (2, 2));
    }
}

/// What becomes of a write that follows `base`, where the region has the copy's write of change 6.
fn after(base: Base) -> Commit {
    let mut planner = Planner::new(&region(1), Planning::default(), NOW);
    let later = Write { hlc: Hlc(9), ..of_copy(9, 6) };
    verdicts(&mut planner, vec![later]);
    let id = WriteId { incarnation: 11, counter: 2, ..write(1, "k", Hlc(7), Vector::EMPTY).id };
    let next = Write { id, base: Some(base), ..said("3", 8, Hlc(7)) };
    assert!(matches!(
        verdicts(&mut planner, vec![next])[..],
        [Verdict::Admitted { .. } | Verdict::Lost { .. }]
    ));
    planner.finish().unwrap().0
}

#[test]
fn what_follows_a_write_of_copies_follows_the_one_that_its_author_saw() {
    // Seen under another incarnation and an earlier time, as it was before another copy brought it.
    let seen = after(of_copy(4, 6).as_base());
    assert_eq!((seen.conflicts.len(), seen.rows[0].row.change), (0, ChangeId(Uuid::from_u128(8))));
    assert!(seen.rows[0].row.stamp.hlc > Hlc(9), "it comes after what it follows");
    // The other copy's write, under the very name and time that this one has here.
    let other = Write { hlc: Hlc(9), ..of_copy(9, 7) };
    assert_eq!(after(other.as_base()).conflicts.len(), 1);
}

#[test]
fn what_another_region_has_admitted_counts_over_a_decision_in_the_same_commit() {
    let mut policies = Policies::default();
    policies.set(Tenant::parse("t").unwrap(), at("k").scope.namespace, ConflictPolicy::Manual);
    let planning = Planning { policies, ..Planning::default() };
    let mut planner = Planner::new(&region(1), planning, NOW);
    planner.api(submission(vec![set("k", "1", None)], false), &mut NoKeys);
    let waits = said("2", 7, Hlc(5));
    assert!(matches!(verdicts(&mut planner, vec![waits.clone()])[..], [Verdict::Held(_)]));
    let (here, leader) = planner.finish().unwrap();
    let there = uploaded(2, waits.clone()).0;
    let drop = SettleSubmission {
        at: at("k"),
        author: Author { name: "token:a".into(), claimed: None },
        change: ChangeId(Uuid::from_u128(9)),
        message: None,
        decision: Decision::Drop { held: waits.id },
    };
    for person_first in [true, false] {
        let mut planner = Planner::new(&leader, known(&here, here.history.clone()), NOW);
        if person_first {
            planner.settle(&drop, &mut NoKeys).unwrap();
        }
        planner.follow_region(page(&there)).unwrap();
        if !person_first {
            assert_eq!(planner.settle(&drop, &mut NoKeys), Err(SettleRefused::Admitted));
        }
        let (commit, _) = planner.finish().unwrap();
        assert_eq!((commit.settled, commit.withdrawn), (vec![], vec![waits.id]));
        assert_eq!(commit.history.iter().map(|row| row.stamp.id).collect::<Vec<_>>(), [waits.id]);
    }
}
