//! What edges bring back after a loss: held, admitted or counted, and never more than they may speak of.

use super::*;
use crate::limits::HANDED_IN_WRITES_MAX;
use crate::newer::{Newer, Restored, Taken, Tally};
use crate::policy::ConflictPolicy;
use crate::store::Loss;
use crate::vector::{Epoch, EpochTable};

const SHARD: ShardId = ShardId(Uuid::from_u128(1));
const LOSS: Loss = Loss { shard: SHARD, epoch: 8, cut: 0, new_epoch: 9 };

fn restored(newer: Newer) -> Restored {
    let epoch = |ordinal, epoch| Epoch { ordinal, epoch, start_seq: 0 };
    let epochs = EpochTable::new(vec![epoch(1, 8), epoch(2, 9)]);
    Restored { loss: LOSS, newer, restored_at: UnixMillis(0), epochs, tallies: Vec::new() }
}

fn tenant() -> Tenant {
    Tenant::parse("t").unwrap()
}

/// A hub that was just restored, and lacks everything.
fn lacking(restored: Restored) -> Planner {
    let planning = Planning { restored: vec![(tenant(), restored)], ..Planning::default() };
    Planner::new(&leader(), planning, NOW)
}

/// The same once a commit is durable.
fn after(commit: &Commit, leader: &Leader, mut restored: Restored) -> Planner {
    restored.tallies.clone_from(&commit.tallies);
    let planning = Planning {
        rows: commit.rows.clone(),
        digests: commit.digests.clone(),
        frontiers: commit.frontiers.clone(),
        past: commit.history.clone(),
        known_writes: commit.history.iter().map(|row| (row.stamp.id, row.content_hash)).collect(),
        restored: vec![(tenant(), restored)],
        ..Planning::default()
    };
    Planner::new(leader, planning, NOW)
}

fn hand_in(writes: Vec<Write>) -> HandIn {
    let Upload { edge, tenant, write, feeds, environments, .. } = upload(Vec::new());
    HandIn { edge, name: "e1".into(), tenant, write, feeds, environments, new_epoch: LOSS.new_epoch, writes }
}

/// Receives everything, and may write nothing there.
fn of_reader(writes: Vec<Write>) -> HandIn {
    let edge = ActorId(Uuid::from_u128(78));
    HandIn { edge, name: "reader".into(), write: vec![], ..hand_in(writes) }
}

fn give(planner: &mut Planner, hand_in: &HandIn) -> Taken {
    planner.hand_in(hand_in, &mut NoKeys)
}

fn own(counter: u64, key: &str) -> Write {
    write(counter, key, Hlc(100 + counter), Vector::EMPTY)
}

fn by_hub(epoch: u64, counter: u64, key: &str) -> Write {
    let id = WriteId { actor: ActorId(SHARD.0), incarnation: epoch, counter };
    Write { id, ..own(counter, key) }
}

fn a_secret(counter: u64, key: &str) -> Write {
    let sealed = SealedSecret {
        key_epoch: 3,
        version: 5,
        about: Default::default(),
        body: "body".into(),
        wrap: "wrap".into(),
    };
    Write { action: Action::Sealed(sealed), ..by_hub(8, counter, key) }
}

/// Has the key of epoch 3.
struct Keys;

impl Sealer for Keys {
    fn seal(&mut self, _: &EntryKey, _: u64, _: &[u8]) -> Result<SealedSecret, SealUnavailable> {
        Err(SealUnavailable)
    }

    fn reseal(
        &mut self,
        _: &EntryKey,
        sealed: &SealedSecret,
        version: u64,
    ) -> Result<SealedSecret, SealUnavailable> {
        let opens = sealed.key_epoch == 3;
        opens.then(|| SealedSecret { version, ..sealed.clone() }).ok_or(SealUnavailable)
    }
}

#[test]
fn what_is_held_is_one_change_that_says_whose_it_is() {
    let mut planner = lacking(restored(Newer::Hold));
    let taken = give(&mut planner, &hand_in(vec![own(1, "a"), own(2, "a"), by_hub(8, 3, "b")]));
    assert_eq!(taken, Taken { held: 3, ..Taken::default() });
    let (commit, leader) = planner.finish().unwrap();
    assert!(
        commit.history.iter().all(|row| row.status == Status::Held && row.returned_in == Some(LOSS.change()))
    );
    assert_eq!((commit.rows.len(), commit.changes.len(), commit.changes[0].writes), (0, 1, 3));
    assert!(commit.retold[0].message.ends_with("3 by e1"), "{:?}", commit.retold);
    let named: Vec<_> =
        commit.frontiers.iter().map(|frontier| (frontier.edge, frontier.last_counter)).collect();
    assert_eq!(named, [(EDGE, 0)], "its numbers will be looked for, and none counts as used");

    let mut planner = after(&commit, &leader, restored(Newer::Hold));
    let again = give(&mut planner, &of_reader(vec![own(2, "a"), by_hub(8, 3, "b")]));
    assert_eq!(again, Taken { known: 2, ..Taken::default() }, "whoever brings it");
    assert_eq!(verdicts(&mut planner, vec![own(2, "a")]), [Verdict::Duplicate], "also as an upload");
    assert!(planner.finish().unwrap().0.history.is_empty());
}

#[test]
fn what_is_discarded_is_only_counted() {
    let mut planner = lacking(restored(Newer::Discard));
    let taken = give(&mut planner, &hand_in(vec![own(1, "a"), a_secret(2, "s")]));
    assert_eq!(taken, Taken { discarded: 2, ..Taken::default() });
    let (commit, _) = planner.finish().unwrap();
    assert_eq!((commit.history.len(), commit.changes.len(), commit.retold.len()), (0, 0, 0));
    assert_eq!(commit.tallies[0].taken.discarded, 2);
}

#[test]
fn what_is_accepted_is_judged_by_its_time_also_behind_what_followed_it() {
    let mut planner = lacking(restored(Newer::Accept));
    assert_eq!(verdicts(&mut planner, vec![own(5, "k")]), [Verdict::Admitted { version: 1 }]);
    let late = vec![own(3, "k"), own(4, "other")];
    assert_eq!(give(&mut planner, &hand_in(late)), Taken { admitted: 2, ..Taken::default() });
    let (commit, _) = planner.finish().unwrap();
    let statuses: Vec<_> =
        commit.history.iter().map(|row| (row.stamp.id.counter, row.version, row.status)).collect();
    let applied = Status::Applied;
    assert_eq!(statuses, [(5, 1, applied), (3, 2, Status::SupersededConcurrent), (4, 1, applied)]);
    assert_eq!(commit.conflicts, [], "its author had seen it");
    assert_eq!(commit.frontiers[0].last_counter, 5, "what comes late takes no number back");
}

#[test]
fn nothing_comes_back_ahead_of_its_time() {
    // The other of two copies of a replica, which passes for the author and has another clock.
    let copy = Write { hlc: Hlc(500), ..own(2, "k") };
    let mut planner = lacking(restored(Newer::Accept));
    assert_eq!(verdicts(&mut planner, vec![copy.clone()]), [Verdict::Admitted { version: 1 }]);
    assert_eq!(give(&mut planner, &hand_in(vec![own(3, "k")])), Taken { admitted: 1, ..Taken::default() });
    let (commit, _) = planner.finish().unwrap();
    assert_eq!(commit.rows[0].row.stamp, copy.stamp());
    assert_eq!(commit.history[1].status, Status::SupersededConcurrent);
}

#[test]
fn of_others_nothing_is_admitted_through_who_may_not_write_it_until_somebody_may() {
    let mut planner = lacking(restored(Newer::Accept));
    let brought = vec![own(1, "k"), by_hub(8, 2, "k")];
    assert_eq!(give(&mut planner, &of_reader(brought.clone())), Taken { held: 2, ..Taken::default() });
    let (commit, leader) = planner.finish().unwrap();
    assert_eq!(commit.rows, []);

    let mut planner = after(&commit, &leader, restored(Newer::Accept));
    assert_eq!(give(&mut planner, &hand_in(brought)), Taken { admitted: 2, ..Taken::default() });
    let (commit, _) = planner.finish().unwrap();
    let waited = [own(1, "k"), by_hub(8, 2, "k")];
    assert_eq!(commit.withdrawn, waited.clone().map(|write| write.id), "as if they had never waited");
    let row = &commit.rows[0].row;
    assert_eq!((row.version, row.stamp, row.change), (2, waited[1].stamp(), waited[1].change));
    assert!(commit.history.iter().all(|row| row.returned_in == Some(LOSS.change())));
}

/// What a reader's row of `of` says, as it comes back from there.
fn as_brought(commit: &Commit, of: &Write) -> Write {
    let rows = commit.rows.iter().map(|row| &row.row);
    let row = rows.into_iter().find(|row| row.at == of.at).expect("it is the entry's value");
    Write { id: row.stamp.id, hlc: row.stamp.hlc, change: row.change, ..of.clone() }
}

#[test]
fn what_is_lost_a_second_time_is_still_the_write_that_its_author_made() {
    let author_is_late = |first: &Commit, write: &Write| {
        let mut planner = lacking(restored(Newer::Accept));
        let brought = hand_in(vec![as_brought(first, write)]);
        assert_eq!(give(&mut planner, &brought), Taken { admitted: 1, ..Taken::default() });
        let (commit, leader) = planner.finish().unwrap();
        let mut planner = after(&commit, &leader, restored(Newer::Accept));
        assert_eq!(verdicts(&mut planner, vec![write.clone()]), [Verdict::Duplicate]);
    };
    let write = own(3, "k");
    let mut planner = lacking(restored(Newer::Accept));
    give(&mut planner, &hand_in(vec![write.clone()]));
    author_is_late(&planner.finish().unwrap().0, &write);

    // It waited first, because a reader brought it.
    let mut planner = lacking(restored(Newer::Accept));
    give(&mut planner, &of_reader(vec![write.clone()]));
    let (commit, leader) = planner.finish().unwrap();
    let mut planner = after(&commit, &leader, restored(Newer::Accept));
    give(&mut planner, &hand_in(vec![write.clone()]));
    author_is_late(&planner.finish().unwrap().0, &write);
}

#[test]
fn an_edge_speaks_of_what_it_receives_and_in_no_name_that_is_still_to_be_given() {
    let mut planner = lacking(restored(Newer::Accept));
    let mut foreign = own(1, "a");
    foreign.at.scope.tenant = Tenant::parse("other").unwrap();
    let mut outside = hand_in(vec![by_hub(8, 1, "a")]);
    outside.feeds.clear();
    for brought in [hand_in(vec![foreign]), outside, hand_in(vec![by_hub(9, 4_000, "a")])] {
        assert_eq!(give(&mut planner, &brought), Taken { refused: 1, ..Taken::default() });
    }
    let unknown = HandIn { new_epoch: 404, ..hand_in(vec![own(1, "a")]) };
    assert_eq!(give(&mut planner, &unknown), Taken { refused: 1, ..Taken::default() });
    let (commit, _) = planner.finish().unwrap();
    assert_eq!((commit.history.len(), commit.tallies[0].taken.refused), (0, 3));
}

#[test]
fn one_edge_brings_only_so_much() {
    let full = Tally {
        tenant: tenant(),
        new_epoch: LOSS.new_epoch,
        edge: EDGE,
        name: "e1".into(),
        taken: Taken { held: HANDED_IN_WRITES_MAX - 1, ..Taken::default() },
        bytes: 0,
    };
    let mut planner = lacking(Restored { tallies: vec![full], ..restored(Newer::Hold) });
    let taken = give(&mut planner, &hand_in(vec![own(1, "a"), own(2, "a")]));
    assert_eq!(taken, Taken { held: 1, refused: 1, ..Taken::default() });
    assert_eq!(give(&mut planner, &of_reader(vec![own(2, "a")])).held, 1, "another one has its own");
}

#[test]
fn what_waits_goes_on_waiting_where_its_author_may_bring_no_more_or_a_person_decides() {
    let waits = || {
        let mut planner = lacking(restored(Newer::Accept));
        give(&mut planner, &of_reader(vec![own(1, "k")]));
        planner.finish().unwrap()
    };
    let full = Tally {
        tenant: tenant(),
        new_epoch: LOSS.new_epoch,
        edge: EDGE,
        name: "e1".into(),
        taken: Taken { held: HANDED_IN_WRITES_MAX, ..Taken::default() },
        bytes: 0,
    };
    let (commit, leader) = waits();
    let mut planner = after(&commit, &leader, restored(Newer::Accept));
    planner.restored.values_mut().for_each(|restored| restored.tallies.push(full.clone()));
    let known = Taken { known: 1, ..Taken::default() };
    assert_eq!(give(&mut planner, &hand_in(vec![own(1, "k")])), known);
    assert_eq!(planner.finish().unwrap().0.withdrawn, [], "it is where it was");

    for policy in [ConflictPolicy::Manual, ConflictPolicy::Reject] {
        let (commit, leader) = waits();
        let mut planner = after(&commit, &leader, restored(Newer::Accept));
        planner.policies.set(tenant(), own(1, "k").at.scope.namespace, policy);
        assert_eq!(give(&mut planner, &hand_in(vec![own(1, "k")])), known, "{policy:?}");
        assert_eq!(planner.finish().unwrap().0.withdrawn, []);
    }
}

#[test]
fn the_same_number_with_another_content_is_not_the_same_write() {
    let mut planner = lacking(restored(Newer::Hold));
    give(&mut planner, &hand_in(vec![own(1, "a")]));
    let (commit, leader) = planner.finish().unwrap();
    let mut planner = after(&commit, &leader, restored(Newer::Hold));
    assert_eq!(give(&mut planner, &hand_in(vec![own(1, "b")])), Taken { refused: 1, ..Taken::default() });
}

#[test]
fn a_secret_waits_for_a_person_whoever_brings_it_and_only_if_it_can_be_opened() {
    let brought = hand_in(vec![a_secret(1, "s")]);
    let mut planner = lacking(restored(Newer::Accept));
    assert_eq!(give(&mut planner, &brought), Taken { left_out: 1, ..Taken::default() }, "its key is lost");
    assert_eq!(planner.hand_in(&brought, &mut Keys), Taken { held: 1, ..Taken::default() });
    let (commit, leader) = planner.finish().unwrap();
    let mut planner = after(&commit, &leader, restored(Newer::Accept));
    assert_eq!(planner.hand_in(&brought, &mut Keys), Taken { known: 1, ..Taken::default() });

    let held = a_secret(1, "s").id;
    let (terms, by_its_time, secret) = (Terms::default(), true, true);
    let submission = SettleSubmission {
        at: at("s"),
        author: Author { name: "token:a".into(), claimed: None },
        change: ChangeId(Uuid::from_u128(9)),
        message: None,
        decision: Decision::Release { held, terms, by_its_time, secret },
    };
    assert_eq!(submission.seals_in(), brought.seals_in());
    assert!(planner.settle(&submission, &mut NoKeys).is_err());
    planner.settle(&submission, &mut Keys).unwrap();
    let (commit, _) = planner.finish().unwrap();
    let Content::Secret(sealed) = &commit.rows[0].row.content else { panic!("a secret") };
    assert_eq!((sealed.version, commit.rows[0].row.version), (1, 1), "sealed for its version here");
}

#[test]
fn a_time_that_has_not_come_is_let_in_by_nobody() {
    let ahead = Write { hlc: Hlc::from_physical(UnixMillis(NOW.0 + 86_400_000)), ..own(1, "k") };
    let mut planner = lacking(restored(Newer::Accept));
    assert_eq!(give(&mut planner, &of_reader(vec![ahead.clone()])), Taken { held: 1, ..Taken::default() });
    let (commit, leader) = planner.finish().unwrap();
    let mut planner = after(&commit, &leader, restored(Newer::Accept));
    assert_eq!(give(&mut planner, &hand_in(vec![ahead.clone()])), Taken { known: 1, ..Taken::default() });
    let (terms, by_its_time, secret) = (Terms::default(), true, false);
    let submission = SettleSubmission {
        at: at("k"),
        author: Author { name: "token:a".into(), claimed: None },
        change: ChangeId(Uuid::from_u128(9)),
        message: None,
        decision: Decision::Release { held: ahead.id, terms, by_its_time, secret },
    };
    planner.settle(&submission, &mut NoKeys).unwrap();
    let (commit, _) = planner.finish().unwrap();
    assert!(commit.rows[0].row.stamp.hlc < ahead.hlc, "a person lets it in as of now");
}

#[test]
fn what_was_written_over_it_before_the_loss_was_no_conflict() {
    let lost = own(1, "k");
    let mut planner = lacking(restored(Newer::Hold));
    give(&mut planner, &hand_in(vec![lost.clone()]));
    let (commit, leader) = planner.finish().unwrap();
    let mut planner = after(&commit, &leader, restored(Newer::Hold));
    let other = ActorId(Uuid::from_u128(78));
    let over = Write {
        id: WriteId { actor: other, ..lost.id },
        change: ChangeId(Uuid::from_u128(7)),
        base: Some(Base { stamp: lost.stamp(), change: lost.change }),
        ..own(9, "k")
    };
    let answers = planner.upload(&Upload { edge: other, ..upload(vec![over]) });
    assert_eq!(answers[0].verdict, Verdict::Admitted { version: 1 });
    let submission = SettleSubmission {
        at: at("k"),
        author: Author { name: "token:a".into(), claimed: None },
        change: ChangeId(Uuid::from_u128(9)),
        message: None,
        decision: Decision::Release {
            held: lost.id,
            terms: Terms::default(),
            by_its_time: true,
            secret: false,
        },
    };
    planner.settle(&submission, &mut NoKeys).unwrap();
    let (commit, _) = planner.finish().unwrap();
    let released = commit.history.last().unwrap();
    assert_eq!((released.version, released.status), (2, Status::SupersededConcurrent));
    assert_eq!(commit.conflicts, [], "its author had seen what is released");
}

#[test]
fn one_commit_knows_what_it_holds_already() {
    // Two contents under one number, and the same write by two edges.
    let mut planner = lacking(restored(Newer::Hold));
    let other = Write { action: Action::Delete, ..own(1, "k") };
    let taken = give(&mut planner, &hand_in(vec![own(1, "k"), other.clone(), own(1, "k")]));
    assert_eq!(taken, Taken { held: 1, refused: 1, known: 1, ..Taken::default() });
    assert_eq!(planner.finish().unwrap().0.history.len(), 1);
    let mut planner = lacking(restored(Newer::Hold));
    verdicts(&mut planner, vec![own(1, "k")]);
    assert_eq!(give(&mut planner, &of_reader(vec![other])), Taken { refused: 1, ..Taken::default() });

    let mut planner = lacking(restored(Newer::Accept));
    assert_eq!(give(&mut planner, &of_reader(vec![own(1, "k")])), Taken { held: 1, ..Taken::default() });
    assert_eq!(give(&mut planner, &hand_in(vec![own(1, "k")])), Taken { admitted: 1, ..Taken::default() });
    let (commit, _) = planner.finish().unwrap();
    let made: Vec<_> = commit.history.iter().map(|row| (row.stamp.id, row.status)).collect();
    assert_eq!(made, [(own(1, "k").id, Status::Applied)]);
    assert_eq!((&commit.withdrawn, commit.changes[0].writes), (&vec![], 1), "it never waited");
}

#[test]
fn a_decision_in_the_same_commit_is_told_what_became_of_the_write() {
    let mut planner = lacking(restored(Newer::Accept));
    give(&mut planner, &of_reader(vec![own(1, "k")]));
    let (commit, leader) = planner.finish().unwrap();
    let drop = SettleSubmission {
        at: at("k"),
        author: Author { name: "token:a".into(), claimed: None },
        change: ChangeId(Uuid::from_u128(9)),
        message: None,
        decision: Decision::Drop { held: own(1, "k").id },
    };
    let mut planner = after(&commit, &leader, restored(Newer::Accept));
    give(&mut planner, &hand_in(vec![own(1, "k")]));
    assert_eq!(planner.settle(&drop, &mut NoKeys), Err(SettleRefused::Admitted));
    assert_eq!(planner.finish().unwrap().0.settled, []);

    let mut planner = after(&commit, &leader, restored(Newer::Accept));
    assert!(planner.settle(&drop, &mut NoKeys).is_ok());
    let known = Taken { known: 1, ..Taken::default() };
    assert_eq!(give(&mut planner, &hand_in(vec![own(1, "k")])), known, "a person has decided");
}
