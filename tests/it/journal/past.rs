//! History, changes, conflicts, held writes and events.

use std::sync::Arc;

use llm_config_shared::entry::{ChangeId, Content, Status};
use llm_config_shared::name::{EntryKey, Key};
use llm_config_shared::settled::held_id;
use llm_config_shared::store::{Commit, Journal, Page};
use llm_config_shared::vector::Vector;
use uuid::Uuid;

use super::book::{Book, at, plain, scope, secret, tenant};

const ALL: Page = Page { before: None, limit: 1_000 };

fn of_other_tenant(key: &str) -> EntryKey {
    EntryKey { scope: scope("other", "base", "app"), key: Key::parse(key).unwrap() }
}

pub(super) async fn history_is_paged_newest_first(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    let (a, b) = (at("app", "a"), at("app", "b"));
    for n in 0..7 {
        book.put(&a, plain(&n.to_string()));
        book.put(&b, secret("s"));
        if n % 2 == 1 {
            book.lose(&a, plain("\"lost\""));
            book.set_aside(&a, Content::Deleted, Status::Denied, "not\0 there");
            book.commit(&**journal).await;
        }
    }
    book.put(&a, Content::Deleted);
    book.commit(&**journal).await;
    let expected = book.history_of(&a);
    let whole = journal.history(&a, ALL).await.unwrap();
    assert_eq!(whole.value.rows, expected, "every field comes back");
    assert_eq!((whole.value.next, whole.head), (None, Vector::at(book.shard, book.position)));

    let mut pages = Vec::new();
    let mut page = Page { before: None, limit: 3 };
    loop {
        let read = journal.history(&a, page).await.unwrap().value;
        assert!(read.rows.len() <= 3);
        pages.extend(read.rows);
        page.before = read.next;
        if page.before.is_none() {
            break;
        }
    }
    assert_eq!(pages, expected);
    let beyond = Page { before: Some(u64::MAX), limit: 1 };
    assert_eq!(journal.history(&a, beyond).await.unwrap().value.rows, expected[..1]);
    assert!(journal.history(&at("app", "x"), ALL).await.unwrap().value.rows.is_empty());
}

pub(super) async fn a_version_is_found_once_admitted(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    let a = at("app", "a");
    book.put(&a, plain("1"));
    book.lose(&a, plain("2"));
    book.put(&a, plain("3"));
    book.set_aside(&a, plain("4"), Status::Held, "its clock is ahead");
    book.commit(&**journal).await;
    for version in 1..=3 {
        let found = journal.version(&a, version).await.unwrap().unwrap();
        let expected = book.history.iter().find(|write| write.version == version).unwrap();
        assert_eq!(found, *expected);
    }
    for version in [0, 4, u64::MAX] {
        assert_eq!(journal.version(&a, version).await.unwrap(), None, "{version}");
    }
}

pub(super) async fn a_write_that_lost_later_says_so(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    let a = at("app", "a");
    let early = book.put(&a, plain("1"));
    book.commit(&**journal).await;
    let second = book.put(&a, plain("2"));
    book.supersede(early);
    book.put(&a, plain("3"));
    // Lost within its own commit.
    book.supersede(second);
    book.commit(&**journal).await;
    let rows = journal.history(&a, ALL).await.unwrap().value.rows;
    assert_eq!(rows, book.history_of(&a));
    let statuses: Vec<Status> = rows.iter().map(|row| row.status).collect();
    assert_eq!(statuses, [Status::Applied, Status::SupersededConcurrent, Status::SupersededConcurrent]);
}

pub(super) async fn changes_hold_their_writes(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    for n in 0..9 {
        book.put(&at("app", &format!("k{n}")), plain("1"));
        if n % 2 == 0 {
            book.put(&of_other_tenant("k"), plain("1"));
        }
        book.commit(&**journal).await;
    }
    let acme = tenant("acme");
    let mut ids: Vec<ChangeId> = Vec::new();
    for write in book.history.iter().filter(|write| write.at.scope.tenant == acme) {
        if !ids.contains(&write.change) {
            ids.push(write.change);
        }
    }
    let newest: Vec<ChangeId> = ids.iter().rev().copied().collect();
    let first = journal.changes(&acme, Page { before: None, limit: 2 }).await.unwrap();
    let rest = journal.changes(&acme, Page { before: first.next, limit: 100 }).await.unwrap();
    assert!(first.rows.len() == 2 && rest.next.is_none());
    let found: Vec<ChangeId> = first.rows.iter().chain(&rest.rows).map(|row| row.id).collect();
    assert_eq!(found, newest);
    for id in ids {
        let (row, writes) = journal.change(&acme, id).await.unwrap().unwrap();
        let of_change = |write: &&llm_config_shared::entry::HistoryRow| {
            write.change == id && write.at.scope.tenant == acme
        };
        let expected: Vec<_> = book.history.iter().filter(of_change).cloned().collect();
        assert_eq!(writes, expected, "in the order they were decided");
        assert_eq!((row.id, row.writes), (id, expected.len() as u64), "over all commits");
        assert_eq!((row.author, row.message), (expected[0].author.name.clone(), expected[0].message.clone()));
    }
    let unknown = ChangeId(Uuid::from_u128(1));
    assert!(journal.change(&acme, unknown).await.unwrap().is_none());
    let foreign = journal.change(&tenant("third"), book.history[0].change).await.unwrap();
    assert!(foreign.is_none(), "a change's id does not open another tenant's");
}

pub(super) async fn what_was_brought_back_is_found_in_its_own_change_and_in_that_of_the_loss(
    journal: &Arc<impl Journal>,
) {
    let mut book = Book::begin(&**journal).await;
    let (acme, loss) = (tenant("acme"), ChangeId(Uuid::from_u128(3_000)));
    let brought_back = |mut commit: Commit| {
        commit.history.iter_mut().for_each(|write| write.returned_in = Some(loss));
        let writes = commit.history.len() as u64;
        commit.changes.iter_mut().for_each(|change| (change.id, change.writes) = (loss, writes));
        commit
    };
    let held = book.set_aside(&at("app", "a"), plain("1"), Status::Held, "lost");
    book.put(&at("app", "b"), plain("1"));
    let commit = brought_back(book.close());
    journal.append(&commit).await.unwrap();
    let (row, writes) = journal.change(&acme, loss).await.unwrap().unwrap();
    assert_eq!((row, &writes), (commit.changes[0].clone(), &commit.history));
    let own = commit.history[0].change;
    let (row, found) = journal.change(&acme, own).await.unwrap().unwrap();
    assert_eq!((row.id, row.writes, row.author), (own, 2, writes[0].author.name.clone()));
    assert_eq!(found, writes, "the hub has lost the change itself");

    // Somebody comes through whom it may be admitted.
    book.put(&at("app", "a"), plain("1"));
    let mut commit = brought_back(book.close());
    (commit.history[0].stamp.id, commit.rows[0].row.stamp.id) = (held, held);
    commit.withdrawn = vec![held];
    journal.append(&commit).await.unwrap();
    let (row, writes) = journal.change(&acme, loss).await.unwrap().unwrap();
    assert_eq!((row.writes, writes.len()), (2, 2), "it counts once");
    assert!(writes.iter().all(|write| write.status == Status::Applied));
    let became = journal.held_write(&acme, held_id(held)).await.unwrap();
    assert_eq!(became.map(|write| write.version), Some(commit.history[0].version), "whoever looks for it");
}

pub(super) async fn conflicts_and_held_writes_are_of_their_tenant(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    let (mine, theirs) = (at("app", "a"), of_other_tenant("a"));
    book.put(&mine, plain("1"));
    book.put(&theirs, plain("1"));
    for n in 0..5 {
        let of = if n % 2 == 0 { &mine } else { &theirs };
        book.lose(of, plain(&n.to_string()));
        book.set_aside(of, plain(&n.to_string()), Status::Held, "its clock is ahead");
        book.set_aside(of, plain(&n.to_string()), Status::Denied, "not allowed");
        book.commit(&**journal).await;
    }
    let acme = tenant("acme");
    let expected: Vec<_> =
        book.conflicts.iter().rev().filter(|conflict| conflict.at == mine).cloned().collect();
    let first = journal.conflicts(&acme, None, Page { before: None, limit: 2 }).await.unwrap();
    let rest = journal.conflicts(&acme, None, Page { before: first.next, limit: 2 }).await.unwrap();
    assert_eq!(first.rows, expected[..2]);
    assert_eq!((rest.rows.as_slice(), rest.next), (&expected[2..], None));

    let held = |write: &llm_config_shared::entry::HistoryRow| write.status == Status::Held;
    let expected: Vec<_> = book.history_of(&mine).into_iter().filter(held).collect();
    let first = journal.held(&acme, Page { before: None, limit: 2 }).await.unwrap();
    let rest = journal.held(&acme, Page { before: first.next, limit: 2 }).await.unwrap();
    assert_eq!(first.rows, expected[..2]);
    assert_eq!((rest.rows.as_slice(), rest.next), (&expected[2..], None));
}

pub(super) async fn events_follow_the_order_of_commits(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    let a = at("app", "a");
    book.put(&a, plain("1"));
    book.put(&of_other_tenant("a"), plain("1"));
    book.lose(&a, plain("0"));
    book.commit(&**journal).await;
    book.lead_again(&**journal, 77).await;
    book.put(&a, secret("s"));
    book.put(&a, Content::Deleted);
    book.commit(&**journal).await;
    let acme = tenant("acme");
    let events = journal.events_after(&acme, 0, 100).await.unwrap();
    let expected: Vec<_> = book.history.iter().filter(|write| write.at == a && write.seq.is_some()).collect();
    assert_eq!(events.len(), 3);
    for (event, write) in events.iter().zip(expected) {
        assert_eq!(Some(event.dot.position.seq), write.seq);
        assert_eq!((&event.at, event.version, event.change), (&write.at, write.version, write.change));
        assert_eq!((event.change_type, event.secret), (write.change_type, write.content.is_secret()));
        assert_eq!((&event.author, event.created_at), (&write.author.name, write.created_at));
    }
    assert_eq!((events[0].dot.position.epoch, events[2].dot.position.epoch), (super::book::EPOCH, 77));
    assert_eq!(events[2].dot, book.rows[&a].row.dot);
    assert_eq!(journal.events_after(&acme, 1, 1).await.unwrap(), events[1..2]);
    assert!(journal.events_after(&acme, u64::MAX, 10).await.unwrap().is_empty());
}
