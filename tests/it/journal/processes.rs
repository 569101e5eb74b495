//! What several processes share: who leads and where, on PostgreSQL the lock of whoever leads, and news of commits.

use std::sync::Arc;
use std::time::Duration;

use llm_config_hub::journal::PostgresJournal;
use llm_config_hub::processes::{Hold, ProcessAt, Processes};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::{Journal, JournalError};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::ShardId;
use llm_config_tests::postgres;
use llm_config_tests::wait::eventually;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::book::{Book, EPOCH, at, plain};

/// Whatever takes longer never happens.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn only_the_newest_leadership_says_where_it_is(journal: &Arc<impl Journal + Processes>) {
    let (one, other) = (ProcessAt::new("https://one:1"), ProcessAt::new("https://other:2"));
    assert_eq!(journal.announce(&one, 7).await, Err(JournalError::Fenced), "nobody has led yet");
    journal.lead(7, ShardId(Uuid::from_u128(1))).await.unwrap();
    assert_eq!(journal.leader().await, Ok(None));
    journal.announce(&one, 7).await.unwrap();
    assert_eq!(journal.leader().await, Ok(Some(one.clone())));

    journal.lead(8, ShardId(Uuid::from_u128(2))).await.unwrap();
    assert_eq!(journal.leader().await, Ok(None), "that one leads no more");
    assert_eq!(journal.announce(&one, 7).await, Err(JournalError::Fenced));
    journal.announce(&other, 8).await.unwrap();
    assert_eq!(journal.leader().await, Ok(Some(other)));
}

pub(super) async fn each_hears_of_the_edges_of_others_that_spoke_lately(
    journal: &Arc<impl Journal + Processes>,
) {
    let process = |n| Uuid::from_u128(n);
    let edge = |n| ActorId(Uuid::from_u128(n));
    let elsewhere = async |me, since| -> Vec<u128> {
        let edges = journal.seats_elsewhere(process(me), UnixMillis(since)).await.unwrap();
        edges.into_iter().map(|edge| edge.0.as_u128()).collect()
    };
    let say = async |me, came: &[ActorId], went: &[ActorId], at| {
        journal.say_seats(process(me), came, went, UnixMillis(at)).await.unwrap();
    };
    let hour = 3_600_000;
    say(1, &[edge(7), edge(8)], &[], hour).await;
    say(1, &[edge(7)], &[], hour).await;
    say(2, &[edge(8), edge(9)], &[], hour + 5).await;
    assert_eq!(elsewhere(1, hour).await, [8, 9]);
    assert_eq!(elsewhere(2, hour).await, [7, 8]);
    assert_eq!(elsewhere(3, hour).await, [7, 8, 9], "an edge that moves is at both for a moment");
    say(2, &[], &[edge(8)], hour + 6).await;
    assert_eq!(elsewhere(3, hour + 1).await, [9], "the first has said nothing since");
    say(2, &[], &[], 2 * hour + 1).await;
    say(1, &[], &[], 2 * hour + 1).await;
    assert_eq!(elsewhere(2, 0).await, [], "who was silent for an hour was forgotten");
}

async fn two_of_one_database() -> (PostgresJournal, PostgresJournal, postgres::PgUrl) {
    let url = tokio::task::spawn_blocking(postgres::database).await.unwrap();
    let open = async || PostgresJournal::open(url.as_str()).await.unwrap();
    let (one, other) = (open().await, open().await);
    one.migrate().await.unwrap();
    (one, other, url)
}

async fn until_it_is_free(journal: &PostgresJournal) -> Hold {
    eventually("the lock is free", async || journal.stand().await.unwrap().ok_or("another has it")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_has_the_lock_until_it_is_given_up_or_its_session_ends() {
    let (one, other, url) = two_of_one_database().await;
    let held = one.stand().await.unwrap().expect("nobody has it");
    assert!(other.stand().await.unwrap().is_none());
    assert!(other.stand().await.unwrap().is_none(), "and none the second time, on the same connection");
    drop(held);
    let mut held = until_it_is_free(&other).await;
    assert!(one.stand().await.unwrap().is_none());

    let mut administrator = PgConnection::connect(url.as_str()).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks
               WHERE locktype = 'advisory' AND granted
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    sqlx::query(end).execute(&mut administrator).await.unwrap();
    tokio::time::timeout(PATIENCE, held.lost()).await.expect("whoever had it is told");
    drop(until_it_is_free(&one).await);
    let elsewhere = tokio::task::spawn_blocking(postgres::database).await.unwrap();
    let elsewhere = PostgresJournal::open(elsewhere.as_str()).await.unwrap();
    assert!(elsewhere.stand().await.unwrap().is_some(), "another database has a lock of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_told_to_the_processes_that_listen() {
    let (one, other, _) = two_of_one_database().await;
    let other = Arc::new(other);
    let mut book = Book::begin(&one).await;
    let listens = Arc::clone(&other);
    let heard = tokio::spawn(async move { listens.news().await });
    // It listens from some moment on; a commit after that is told.
    eventually("a commit is heard of", async || {
        book.put(&at("app", "k"), plain("1"));
        book.commit(&one).await;
        if heard.is_finished() { Ok(()) } else { Err("not yet") }
    })
    .await;
    let news = heard.await.unwrap().unwrap().expect("it is told what moved");
    assert_eq!((news.after + 1, news.position.epoch), (news.position.seq, EPOCH));
    assert_eq!(news.scopes, [at("app", "k").scope]);
}
