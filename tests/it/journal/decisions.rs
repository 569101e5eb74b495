//! Conflicts and held writes as people find them, and what they decide about them.

use std::sync::Arc;

use llm_config_shared::entry::{ChangeId, Status};
use llm_config_shared::settled::{ConflictState, Settled, Settlement, Waited, held_id};
use llm_config_shared::store::{Journal, Page, PlanningRequest};
use uuid::Uuid;

use super::book::{Book, NOW, at, plain, refused, tenant};

const ALL: Page = Page { before: None, limit: 100 };

fn wrote(version: u64) -> Option<(ChangeId, u64)> {
    Some((ChangeId(Uuid::from_u128(77)), version))
}

/// Four conflicts of one entry: two that are open, one that was restored, one that was dismissed.
async fn four(journal: &Arc<impl Journal>) -> Book {
    let mut book = Book::begin(&**journal).await;
    let a = at("app", "a");
    book.put(&a, plain("1"));
    for n in 0..4 {
        book.lose(&a, plain(&format!("\"lost {n}\"")));
    }
    book.commit(&**journal).await;
    let ids: Vec<Uuid> = book.conflicts.iter().map(|conflict| conflict.id).collect();
    book.put(&a, plain("\"lost 1\""));
    book.settle(Waited::Conflict(ids[1]), wrote(6));
    book.settle(Waited::Conflict(ids[2]), None);
    book.commit(&**journal).await;
    book
}

pub(super) async fn conflicts_are_found_by_id_and_state(journal: &Arc<impl Journal>) {
    let book = four(journal).await;
    let acme = tenant("acme");
    for (state, expected) in [
        (None, vec![3, 2, 1, 0]),
        (Some(ConflictState::Open), vec![3, 0]),
        (Some(ConflictState::Restored), vec![1]),
        (Some(ConflictState::Dismissed), vec![2]),
    ] {
        let found = journal.conflicts(&acme, state, ALL).await.unwrap();
        let expected: Vec<_> = expected.into_iter().map(|n: usize| book.conflicts[n].clone()).collect();
        assert_eq!((found.rows, found.next), (expected, None), "{state:?}");
    }
    let first = journal.conflicts(&acme, Some(ConflictState::Open), Page { before: None, limit: 1 }).await;
    let first = first.unwrap();
    let rest =
        journal.conflicts(&acme, Some(ConflictState::Open), Page { before: first.next, limit: 1 }).await;
    assert_eq!(rest.unwrap().rows, [book.conflicts[0].clone()]);
    for conflict in &book.conflicts {
        assert_eq!(journal.conflict(&acme, conflict.id).await.unwrap().as_ref(), Some(conflict));
        assert_eq!(journal.conflict(&tenant("other"), conflict.id).await.unwrap(), None);
        let sides = journal.writes(&[conflict.winner, conflict.loser]).await.unwrap();
        assert_eq!(sides.len(), 2);
        assert!(sides.iter().all(|side| book.history.contains(side)), "every field comes back");
    }
    assert_eq!(journal.conflict(&acme, Uuid::from_u128(9_999)).await.unwrap(), None);
    assert_eq!(journal.writes(&[]).await.unwrap(), []);
}

pub(super) async fn a_decision_is_taken_once(journal: &Arc<impl Journal>) {
    let mut book = four(journal).await;
    let (acme, a) = (tenant("acme"), at("app", "a"));
    let ids: Vec<Uuid> = book.conflicts.iter().map(|conflict| conflict.id).collect();
    let held = book.set_aside(&a, plain("9"), Status::Held, "its clock is ahead");
    book.commit(&**journal).await;

    // What was restored stays so, and nothing of a commit that says otherwise is kept.
    for what in [Waited::Conflict(ids[1]), Waited::Conflict(Uuid::from_u128(9_999))] {
        let mut commit = book.close();
        let settled = Settled { by: "token:late".into(), at: NOW, wrote: None };
        commit.settled.push(Settlement { what, settled });
        refused(&**journal, &commit).await;
    }
    assert_eq!(journal.conflict(&acme, ids[1]).await.unwrap().unwrap(), book.conflicts[1]);

    // What was dismissed may still be restored; what is held is released once.
    book.put(&a, plain("9"));
    book.settle(Waited::Conflict(ids[2]), wrote(8));
    book.settle(Waited::Held(held), wrote(8));
    book.commit(&**journal).await;
    assert_eq!(journal.conflict(&acme, ids[2]).await.unwrap().unwrap(), book.conflicts[2]);
    assert_eq!(journal.history(&a, ALL).await.unwrap().value.rows, book.history_of(&a));
    assert_eq!(journal.held(&acme, ALL).await.unwrap().rows, []);
    let mut commit = book.close();
    let settled = Settled { by: "token:late".into(), at: NOW, wrote: None };
    let what = Waited::Held(held);
    commit.settled.push(Settlement { what, settled });
    refused(&**journal, &commit).await;
}

pub(super) async fn held_writes_are_found_by_their_id(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    let (acme, a) = (tenant("acme"), at("app", "a"));
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(book.set_aside(&a, plain(&n.to_string()), Status::Held, "its clock is ahead"));
    }
    let denied = book.set_aside(&a, plain("9"), Status::Denied, "not allowed");
    book.commit(&**journal).await;
    book.settle(Waited::Held(ids[1]), wrote(1));
    book.settle(Waited::Held(ids[2]), None);
    book.put(&a, plain("1"));
    book.commit(&**journal).await;
    for id in &ids {
        let found = journal.held_write(&acme, held_id(*id)).await.unwrap().unwrap();
        let expected = book.history.iter().find(|write| write.stamp.id == *id).unwrap();
        assert_eq!(found, *expected, "also once it is decided");
        assert_eq!(journal.held_write(&tenant("other"), held_id(*id)).await.unwrap(), None);
    }
    assert_eq!(journal.held_write(&acme, held_id(denied)).await.unwrap(), None);
    let followed = journal.held_after(&acme, 0, 10).await.unwrap();
    assert_eq!(followed.iter().map(|(_, row)| row.stamp.id).collect::<Vec<_>>(), [ids[0]]);
    let mark = journal.held_mark().await.unwrap();
    assert!(followed[0].0 < mark && journal.held_after(&acme, mark, 10).await.unwrap().is_empty());
    assert_eq!(journal.held_after(&tenant("other"), 0, 10).await.unwrap(), []);
    let waiting = journal.held(&acme, ALL).await.unwrap().rows;
    assert_eq!(waiting.iter().map(|row| row.stamp.id).collect::<Vec<_>>(), [ids[0]]);
}

pub(super) async fn conflicts_are_followed_in_order(journal: &Arc<impl Journal>) {
    let acme = tenant("acme");
    let mut book = Book::begin(&**journal).await;
    assert_eq!(journal.conflict_mark(&acme, None).await.unwrap(), 0);
    let a = at("app", "a");
    book.put(&a, plain("1"));
    book.lose(&a, plain("2"));
    book.commit(&**journal).await;
    let first = journal.conflict_mark(&acme, None).await.unwrap();
    book.put(&a, plain("3"));
    book.lose(&a, plain("4"));
    book.lose(&a, plain("5"));
    book.commit(&**journal).await;
    let after = journal.conflicts_after(&acme, first, 100).await.unwrap();
    let found: Vec<_> = after.iter().map(|(_, conflict)| conflict.clone()).collect();
    assert_eq!(found, book.conflicts[1..]);
    assert!(after[0].0 > first && after[0].0 < after[1].0);
    assert_eq!(journal.conflicts_after(&acme, first, 1).await.unwrap(), after[..1]);
    assert_eq!(journal.conflicts_after(&acme, after[1].0, 100).await.unwrap(), []);
    assert_eq!(journal.conflicts_after(&tenant("other"), 0, 100).await.unwrap(), []);
    // Who was told up to a place hears again of what was found there, and of nothing before it.
    for (seq, mark) in [(1, 0), (2, first), (3, after[1].0), (u64::MAX, after[1].0)] {
        assert_eq!(journal.conflict_mark(&acme, Some(seq)).await.unwrap(), mark, "{seq}");
    }
}

pub(super) async fn planning_finds_what_is_decided_about(journal: &Arc<impl Journal>) {
    let book = four(journal).await;
    let ids: Vec<Uuid> = book.conflicts.iter().map(|conflict| conflict.id).collect();
    let request = PlanningRequest {
        conflicts: vec![ids[1], ids[0], Uuid::from_u128(9_999)],
        past: vec![book.conflicts[0].loser, book.conflicts[0].winner],
        policies: vec![tenant("acme")],
        ..PlanningRequest::default()
    };
    let mut found = journal.planning(&request).await.unwrap();
    found.conflicts.sort_by_key(|conflict| conflict.id);
    let mut expected = book.conflicts[..2].to_vec();
    expected.sort_by_key(|conflict| conflict.id);
    assert_eq!(found.conflicts, expected);
    assert_eq!(found.past.len(), 2);
    assert!(found.past.iter().all(|row| book.history.contains(row)));
    assert_eq!(found.policies.count(&tenant("acme")), 0);
}
