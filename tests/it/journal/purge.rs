//! Old deletions go, and what is left of them is enough for late writes and for who was away.

use std::sync::Arc;

use llm_config_shared::entry::Content;
use llm_config_shared::name::EntryKey;
use llm_config_shared::store::purge::{Purge, Purged, Stub, StubChange};
use llm_config_shared::store::{Fence, Journal, JournalError, Page, Planning, PlanningRequest};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::{Position, Vector};

use super::book::{Book, EPOCH, NOW, at, feed, plain, refused, secret};

fn later(ms: u64) -> UnixMillis {
    UnixMillis(NOW.0 + ms)
}

fn purge(book: &Book, admitted_by: UnixMillis) -> Purge {
    Purge { fence: Fence { shard: book.shard, position: book.position }, admitted_by, limit: 100 }
}

/// Creates a key at once and deletes it so much later.
async fn delete(journal: &impl Journal, book: &mut Book, key: &EntryKey, admitted_at: UnixMillis) -> Stub {
    book.put(key, plain("1"));
    book.put(key, Content::Deleted);
    let mut commit = book.close();
    commit.admitted_at = admitted_at;
    journal.append(&commit).await.unwrap();
    Stub::of(&book.rows[key])
}

async fn planned(journal: &impl Journal, keys: &[&EntryKey]) -> Planning {
    let keys = keys.iter().map(|at| (*at).clone()).collect();
    journal.planning(&PlanningRequest { keys, ..PlanningRequest::default() }).await.unwrap()
}

pub(super) async fn old_deletions_become_stubs_and_raise_the_horizon(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    let (old, young, live) = (at("app", "old"), at("app/llm", "young"), at("app", "live"));
    book.put(&live, secret("s"));
    let stub = delete(&**journal, &mut book, &old, NOW).await;
    delete(&**journal, &mut book, &young, later(10)).await;
    let whole = [(feed(""), Vector::EMPTY)];
    let before = journal.read_feeds(&whole).await.unwrap();
    assert_eq!(journal.purge(&purge(&book, later(9))).await, Ok(Purged { count: 1, horizon: 3 }));

    let after = journal.read_feeds(&whole).await.unwrap();
    assert_eq!((after.head.horizon, after.head.position), (3, book.position), "the head does not move");
    assert_eq!(after.feeds[0].digest, before.feeds[0].digest, "nor any digest");
    assert_eq!(after.feeds[0].rows.len(), before.feeds[0].rows.len() - 1);
    let found = journal.entries(&[old.clone(), young.clone(), live.clone()]).await.unwrap().value;
    assert_eq!(found, [None, Some(book.rows[&young].clone()), Some(book.rows[&live].clone())]);
    let history = journal.history(&old, Page { before: None, limit: 9 }).await.unwrap().value.rows;
    assert_eq!(history, book.history_of(&old), "the history stays");

    let planning =
        planned(&**journal, &[&old, &young, &live, &at("app", "never"), &at("nowhere", "old"), &old]).await;
    assert_eq!(planning.stubs, [stub]);
    assert_eq!(planning.rows.len(), 2);
    assert_eq!(journal.purge(&purge(&book, later(9))).await, Ok(Purged { count: 0, horizon: 3 }));
}

pub(super) async fn the_oldest_are_purged_first_and_so_many(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    // The clock of the hub went back after the first.
    for (key, admitted_at) in [("a", 50), ("b", 10), ("c", 20), ("d", 30)] {
        delete(&**journal, &mut book, &at("app", key), later(admitted_at)).await;
    }
    let some = Purge { limit: 2, ..purge(&book, later(100)) };
    assert_eq!(journal.purge(&some).await, Ok(Purged { count: 2, horizon: 6 }));
    let left =
        planned(&**journal, &[&at("app", "a"), &at("app", "b"), &at("app", "c"), &at("app", "d")]).await;
    let keys: Vec<&str> = left.rows.iter().map(|row| row.row.at.key.as_str()).collect();
    assert_eq!(keys, ["a", "d"]);
    assert_eq!(journal.purge(&some).await, Ok(Purged { count: 2, horizon: 8 }));
    assert_eq!(journal.head().await.unwrap().horizon, 8, "it never falls, though the last one was older");
}

pub(super) async fn who_does_not_lead_purges_nothing(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    let key = at("app", "k");
    delete(&**journal, &mut book, &key, NOW).await;
    for position in [Position { epoch: EPOCH, seq: 1 }, Position { epoch: EPOCH + 1, seq: 2 }] {
        let fence = Fence { shard: book.shard, position };
        let wish = Purge { fence, ..purge(&book, NOW) };
        assert_eq!(journal.purge(&wish).await, Err(JournalError::Fenced));
    }
    let old = purge(&book, NOW);
    book.lead_again(&**journal, 9).await;
    assert_eq!(journal.purge(&old).await, Err(JournalError::Fenced));
    let planning = planned(&**journal, &[&key]).await;
    assert_eq!((planning.rows.len(), planning.stubs.len()), (1, 0));
    assert_eq!(journal.head().await.unwrap().horizon, 0);
    assert_eq!(journal.purge(&purge(&book, NOW)).await, Ok(Purged { count: 1, horizon: 2 }));
    book.lead_again(&**journal, 10).await;
    assert_eq!(journal.head().await.unwrap().horizon, 2, "a new leader finds it");
}

pub(super) async fn below_the_horizon_a_feed_is_read_whole(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    book.put(&at("app", "a"), plain("1"));
    delete(&**journal, &mut book, &at("other", "gone"), NOW).await;
    book.put(&at("app", "b"), plain("2"));
    book.commit(&**journal).await;
    journal.purge(&purge(&book, NOW)).await.unwrap();
    let position = |seq| Vector::at(book.shard, Position { epoch: EPOCH, seq });
    for (from, expected) in [(0, 2), (2, 2), (3, 1), (4, 0)] {
        let snapshot = journal.read_feeds(&[(feed("app"), position(from))]).await.unwrap();
        assert_eq!(snapshot.feeds[0].rows.len(), expected, "from {from}");
    }
}

pub(super) async fn stubs_are_raised_and_replaced(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    let (lost, won) = (at("app", "lost"), at("app", "won"));
    let stub = delete(&**journal, &mut book, &lost, NOW).await;
    delete(&**journal, &mut book, &won, NOW).await;
    journal.purge(&purge(&book, NOW)).await.unwrap();

    book.lose(&lost, plain("2"));
    book.put(&won, plain("3"));
    let mut commit = book.close();
    commit.raised.clear();
    commit.stubs = vec![(lost.clone(), StubChange::Raised(3)), (won.clone(), StubChange::Replaced)];
    journal.append(&commit).await.unwrap();
    let planning = planned(&**journal, &[&lost, &won]).await;
    assert_eq!(planning.stubs, [Stub { top_version: 3, ..stub }]);
    assert_eq!(planning.rows, [book.rows[&won].clone()]);

    book.put(&won, Content::Deleted);
    book.commit(&**journal).await;
    assert_eq!(journal.purge(&purge(&book, NOW)).await, Ok(Purged { count: 1, horizon: book.position.seq }));
    let planning = planned(&**journal, &[&lost, &won]).await;
    assert_eq!((planning.stubs.len(), planning.rows.len()), (2, 0));
}

pub(super) async fn a_change_of_a_stub_that_is_not_there_aborts(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    delete(&**journal, &mut book, &at("app", "k"), NOW).await;
    journal.purge(&purge(&book, NOW)).await.unwrap();
    book.put(&at("app", "other"), plain("1"));
    let commit = book.close();
    for change in [StubChange::Replaced, StubChange::Raised(7)] {
        let mut wrong = commit.clone();
        wrong.stubs.push((at("app", "other"), change));
        let error = refused(&**journal, &wrong).await;
        assert!(matches!(error, JournalError::Corrupt(_)), "{error:?}");
    }
    let mut raised = commit.clone();
    raised.raised.push((at("app", "k"), 7));
    let error = refused(&**journal, &raised).await;
    assert!(matches!(error, JournalError::Corrupt(_)), "{error:?}");
    journal.append(&commit).await.unwrap();
}
