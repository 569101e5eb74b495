//! Commits that must not happen, and leave nothing behind.

use std::sync::Arc;

use llm_config_shared::entry::Content;
use llm_config_shared::store::{Journal, JournalError};
use llm_config_shared::vector::Position;

use super::book::{Book, EPOCH, at, plain, refused};

pub(super) async fn a_leader_of_an_earlier_epoch_is_fenced(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    book.put(&at("app", "a"), plain("1"));
    book.commit(&**journal).await;
    book.lead_again(&**journal, 9).await;
    // The old leader wakes up and commits what it had planned.
    book.position.epoch = EPOCH;
    book.put(&at("app", "a"), plain("2"));
    let late = book.close();
    assert_eq!(refused(&**journal, &late).await, JournalError::Fenced);
}

pub(super) async fn a_database_that_was_set_back_is_noticed(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    book.put(&at("app", "a"), plain("1"));
    book.commit(&**journal).await;
    for seq in [0, 7] {
        book.position = Position { epoch: EPOCH, seq };
        book.put(&at("app", "b"), plain("2"));
        let planned = book.close();
        assert_eq!(refused(&**journal, &planned).await, JournalError::Fenced, "from {seq}");
    }
}

async fn corrupt(journal: &impl Journal, commit: &llm_config_shared::store::Commit) {
    let error = refused(journal, commit).await;
    assert!(matches!(error, JournalError::Corrupt(_)), "{error:?}");
}

pub(super) async fn a_write_id_is_taken_once(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    let taken = book.put(&at("app", "a"), plain("1"));
    book.commit(&**journal).await;
    book.put(&at("app", "b"), plain("2"));
    book.put(&at("app", "c"), plain("3"));
    let mut commit = book.close();
    commit.history[1].stamp.id = taken;
    let error = journal.append(&commit).await.unwrap_err();
    assert!(matches!(error, JournalError::Corrupt(_)), "{error:?}");
    let head = journal.head().await.unwrap();
    assert_eq!(head.position.seq, 1);
    let found = journal.entries(&[at("app", "b"), at("app", "c")]).await.unwrap();
    assert_eq!(found.value, [None, None], "what was written before the failure is gone with it");
}

pub(super) async fn places_are_dense(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    book.put(&at("app", "a"), plain("1"));
    book.put(&at("app", "b"), plain("2"));
    let commit = book.close();
    let mut hole = commit.clone();
    hole.history[0].seq = None;
    corrupt(&**journal, &hole).await;
    let mut beyond = commit.clone();
    beyond.seq += 1;
    corrupt(&**journal, &beyond).await;
    let mut twice = commit.clone();
    twice.history[0].seq = Some(2);
    corrupt(&**journal, &twice).await;
    let mut foreign = commit.clone();
    foreign.rows[0].row.dot.position.seq = 9;
    corrupt(&**journal, &foreign).await;
    journal.append(&commit).await.unwrap();
}

pub(super) async fn a_count_that_differs_from_the_plan_aborts(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    book.put(&at("app", "a"), plain("1"));
    book.commit(&**journal).await;
    book.put(&at("app", "b"), Content::Deleted);
    let commit = book.close();
    let mut raised = commit.clone();
    raised.raised.push((at("app", "nowhere"), 3));
    corrupt(&**journal, &raised).await;
    let mut superseded = commit.clone();
    superseded.superseded.push(book.history[0].stamp.id);
    superseded.superseded[0].counter = 1_000;
    corrupt(&**journal, &superseded).await;
    journal.append(&commit).await.unwrap();
}
