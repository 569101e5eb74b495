//! What each database must do by itself: last, bring its tables up to date, say what is wrong.

use std::fs;
use std::path::Path;

use llm_config_hub::journal::dialect::Dialect;
use llm_config_hub::journal::{Database, PostgresJournal, SqliteJournal};
use llm_config_shared::store::{Journal as _, JournalError};
use llm_config_shared::vector::Vector;
use llm_config_tests::postgres;

use super::book::{Book, at, feed, plain};

/// Writes, lets go of the database, and finds everything again.
async fn lasts<D: Dialect>(open: impl AsyncFn() -> Database<D>) {
    let journal = open().await;
    let pending = journal.pending_migrations().await.unwrap();
    assert_eq!(
        pending,
        [
            "0001 begin",
            "0003 purge",
            "0004 resolutions",
            "0005 restores",
            "0006 processes",
            "0007 newer",
            "0008 regions",
            "0013 offline limits",
            "0014 losses",
            "0016 expiry",
            "0017 in use",
            "0018 rotation",
            "0020 carried",
            "0023 source",
            "0025 fleet",
            "0026 returned"
        ]
    );
    let missing = journal.head().await.unwrap_err();
    assert!(matches!(missing, JournalError::Unavailable(_)), "{missing:?}");
    journal.migrate().await.unwrap();
    journal.migrate().await.unwrap();
    assert!(journal.pending_migrations().await.unwrap().is_empty());
    let mut book = Book::begin(&journal).await;
    for n in 0..10 {
        book.put(&at("app", &format!("k{n}")), plain("1"));
        book.commit(&journal).await;
    }
    let before = journal.read_feeds(&[(feed(""), Vector::EMPTY)]).await.unwrap();
    journal.close().await;
    drop(journal);

    let journal = open().await;
    assert_eq!(journal.read_feeds(&[(feed(""), Vector::EMPTY)]).await.unwrap(), before);
    book.lead_again(&journal, 3).await;
    book.put(&at("app", "k0"), plain("2"));
    book.commit(&journal).await;
    journal.close().await;
}

#[tokio::test]
async fn sqlite_lasts() {
    let folder = tempfile::tempdir().unwrap();
    lasts(async || SqliteJournal::open(&folder.path().join("hub.sqlite")).await.unwrap()).await;
}

#[tokio::test]
async fn postgres_lasts() {
    let url = tokio::task::spawn_blocking(postgres::database).await.unwrap();
    lasts(async || PostgresJournal::open(url.as_str()).await.unwrap()).await;
}

fn copy(from: &Path, to: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let with = |path: &Path| format!("{}{suffix}", path.display());
        let _ = fs::remove_file(with(to));
        if Path::new(&with(from)).exists() {
            fs::copy(with(from), with(to)).unwrap();
        }
    }
}

/// An image of the disk comes back under a leader that goes on.
#[tokio::test]
async fn a_restored_file_fences_its_leader() {
    let folder = tempfile::tempdir().unwrap();
    let (live, image) = (folder.path().join("hub.sqlite"), folder.path().join("image"));
    let journal = SqliteJournal::open(&live).await.unwrap();
    journal.migrate().await.unwrap();
    let mut book = Book::begin(&journal).await;
    book.put(&at("app", "a"), plain("1"));
    book.commit(&journal).await;
    journal.copy_to(&image).await.unwrap();
    assert!(journal.copy_to(&image).await.is_err(), "a copy overwrites nothing");
    book.put(&at("app", "a"), plain("2"));
    book.commit(&journal).await;
    journal.close().await;
    copy(&image, &live);

    let journal = SqliteJournal::open(&live).await.unwrap();
    book.put(&at("app", "b"), plain("3"));
    assert_eq!(journal.append(&book.close()).await, Err(JournalError::Fenced));
    assert_eq!(journal.head().await.unwrap().position.seq, 1);
}

#[tokio::test]
async fn what_is_no_database_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.sqlite");
    fs::write(&file, vec![b'x'; 8_192]).unwrap();
    let refused = SqliteJournal::open(&file).await.err().unwrap();
    assert!(matches!(refused, JournalError::Corrupt(_)), "{refused:?}");
    let away = SqliteJournal::open(&folder.path().join("nowhere/hub.sqlite")).await.err().unwrap();
    assert!(matches!(away, JournalError::Unavailable(_)), "{away:?}");
    let away = PostgresJournal::open("postgres://app:hidden@127.0.0.1:1/x").await.err().unwrap();
    assert!(matches!(away, JournalError::Unavailable(_)) && !away.to_string().contains("hidden"), "{away}");
    let wrong = PostgresJournal::open("mysql://app:hidden@127.0.0.1/x").await.err().unwrap();
    assert!(!wrong.to_string().contains("hidden"), "{wrong}");
}

/// Other tests keep the shared cluster; this one takes its own away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_is_unavailable_and_comes_back() {
    let cluster = tokio::task::spawn_blocking(postgres::Cluster::start).await.unwrap();
    let journal = PostgresJournal::open(cluster.database().as_str()).await.unwrap();
    journal.migrate().await.unwrap();
    let mut book = Book::begin(&journal).await;
    book.put(&at("app", "a"), plain("1"));
    book.commit(&journal).await;
    cluster.stop();
    book.put(&at("app", "a"), plain("2"));
    let commit = book.close();
    let error = journal.append(&commit).await.unwrap_err();
    assert!(matches!(error, JournalError::Unavailable(_)), "{error:?}");
    let error = journal.head().await.unwrap_err();
    assert!(matches!(error, JournalError::Unavailable(_)), "{error:?}");
    cluster.resume();
    // A connection that broke may be found broken once more.
    let mut done = journal.append(&commit).await;
    for _ in 0..5 {
        if done.is_ok() {
            break;
        }
        done = journal.append(&commit).await;
    }
    assert_eq!(done, Ok(()));
    assert_eq!(journal.head().await.unwrap().position, book.position);
}
