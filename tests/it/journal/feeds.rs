//! Feeds: the latest of each key from any position, in one snapshot.

use std::sync::Arc;

use llm_config_shared::entry::{Content, HubRow};
use llm_config_shared::feed::Feed;
use llm_config_shared::name::{EntryKey, Key};
use llm_config_shared::store::{FeedRows, Journal};
use llm_config_shared::vector::{Position, ShardId, Vector};
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

use super::book::{Book, at, feed, plain, scope, secret};

/// Worth a patch, when it changes.
fn large(round: u32) -> Content {
    plain(&format!("{{\"round\":{round},\"text\":\"{}\"}}", "x".repeat(80)))
}

fn sorted(read: &FeedRows) -> Vec<HubRow> {
    let mut rows = read.rows.clone();
    rows.sort_by(|a, b| a.row.at.cmp(&b.row.at));
    rows
}

async fn check(journal: &impl Journal, book: &Book, feeds: &[(Feed, Vector)]) {
    let snapshot = journal.read_feeds(feeds).await.unwrap();
    assert_eq!(snapshot.head.position, book.position);
    assert_eq!(snapshot.feeds.len(), feeds.len());
    for ((feed, from), read) in feeds.iter().zip(&snapshot.feeds) {
        assert_eq!(read.feed, *feed);
        assert_eq!(sorted(read), book.rows_of(feed, from.seq(book.shard)), "{feed:?} from {from:?}");
        assert_eq!(read.digest, book.digest_of(feed), "{feed:?}");
        assert_eq!(read.bases, book.bases_of(feed, from), "{feed:?} from {from:?}");
    }
}

pub(super) async fn any_position_gives_the_latest_of_each_key(journal: &Arc<impl Journal>) {
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let mut bases = 0;
    let mut book = Book::begin(&**journal).await;
    let namespaces = ["app", "app/llm", "app/llm/x", "apple", "edges/k"];
    for round in 0..30_u32 {
        for _ in 0..random.random_range(1..12) {
            let namespace = namespaces[random.random_range(0..namespaces.len())];
            let at = at(namespace, &format!("k{}", random.random_range(0..6)));
            match random.random_range(0..7) {
                0 => drop(book.put(&at, Content::Deleted)),
                1 => drop(book.put(&at, secret(&round.to_string()))),
                2 if book.rows.contains_key(&at) => drop(book.lose(&at, plain("0"))),
                3 => drop(book.put(&at, plain(&format!("{{\"round\":{round}}}")))),
                _ => drop(book.put(&at, large(round))),
            }
        }
        book.commit(&**journal).await;
        let mut feeds = Vec::new();
        for subtree in ["", "app", "app/llm", "apple", "nowhere"] {
            let seq = random.random_range(0..=book.position.seq);
            feeds.push((feed(subtree), Vector::at(book.shard, Position { epoch: 1, seq })));
        }
        feeds.push((feed("app"), Vector::EMPTY));
        bases += feeds.iter().map(|(feed, from)| book.bases_of(feed, from).len()).sum::<usize>();
        check(&**journal, &book, &feeds).await;
    }
    assert!(bases > 20, "earlier values were asked for {bases} times");
    // Places of another shard say nothing about this one.
    let elsewhere = Vector::at(ShardId(Uuid::from_u128(1)), Position { epoch: 1, seq: 1_000 });
    check(&**journal, &book, &[(feed(""), elsewhere), (feed("app"), Vector::at(book.shard, book.position))])
        .await;
}

pub(super) async fn feeds_end_at_the_borders_of_segments(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    for namespace in ["app", "app-x", "app.x", "app/x", "app0", "apple", "ap", "APP", "app_", "zapp/app"] {
        book.put(&at(namespace, "k"), plain("1"));
    }
    for (tenant, environment) in [("acme", "production"), ("acme2", "base")] {
        let scope = scope(tenant, environment, "app");
        book.put(&EntryKey { scope, key: Key::parse("k").unwrap() }, plain("2"));
    }
    book.commit(&**journal).await;
    let snapshot = journal.read_feeds(&[(feed("app"), Vector::EMPTY)]).await.unwrap();
    let found: Vec<String> =
        sorted(&snapshot.feeds[0]).iter().map(|row| row.row.at.scope.namespace.to_string()).collect();
    assert_eq!(found, ["app", "app/x"]);
    check(&**journal, &book, &[(feed(""), Vector::EMPTY), (feed("zapp"), Vector::EMPTY)]).await;
}

pub(super) async fn quiet_scopes_are_not_read(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    for scope in 0..20 {
        book.put(&at(&format!("app/{scope}"), "k"), plain("1"));
    }
    book.commit(&**journal).await;
    let before = Vector::at(book.shard, book.position);
    book.put(&at("app/7", "other"), plain("2"));
    book.commit(&**journal).await;
    let snapshot = journal.read_feeds(&[(feed("app"), before.clone())]).await.unwrap();
    assert_eq!(snapshot.feeds[0].rows.len(), 1);
    check(&**journal, &book, &[(feed("app"), before)]).await;
}

/// Every commit writes the same number everywhere: a reader that sees two numbers has seen half a commit.
pub(super) async fn a_snapshot_holds_whole_commits_only(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    let keys: Vec<EntryKey> = (0..12).map(|n| at(&format!("app/{}", n % 4), &format!("k{n}"))).collect();
    for key in &keys {
        book.put(key, plain("0"));
    }
    book.commit(&**journal).await;
    let (done, mut running) = tokio::sync::watch::channel(false);
    let (read, mut reads) = tokio::sync::watch::channel(0);
    let reader = {
        let journal = Arc::clone(journal);
        tokio::spawn(async move {
            let feeds: Vec<_> = (0..4).map(|n| (feed(&format!("app/{n}")), Vector::EMPTY)).collect();
            while !*running.borrow_and_update() {
                let snapshot = journal.read_feeds(&feeds).await.unwrap();
                let rows: Vec<_> = snapshot.feeds.iter().flat_map(|feed| &feed.rows).collect();
                assert_eq!(rows.len(), 12);
                assert!(
                    rows.iter().all(|row| row.row.content == rows[0].row.content),
                    "half a commit was seen"
                );
                let newest = rows.iter().map(|row| row.row.dot.position.seq).max();
                assert_eq!(newest, Some(snapshot.head.position.seq), "head and rows are of one snapshot");
                for read in &snapshot.feeds {
                    let mut digest = llm_config_shared::digest::ScopeDigest::default();
                    read.rows.iter().for_each(|row| digest.add(&row.row));
                    assert_eq!(digest.of_feed(true), read.digest.of_feed(true));
                }
                read.send_modify(|seen| *seen += 1);
            }
        })
    };
    for round in 1..60 {
        for key in &keys {
            book.put(key, plain(&round.to_string()));
        }
        book.commit(&**journal).await;
        if round == 30 {
            // However busy the machine is, somebody has looked in between.
            reads.wait_for(|seen| *seen > 0).await.unwrap();
        }
    }
    done.send(true).unwrap();
    reader.await.unwrap();
}

pub(super) async fn a_large_commit_is_one(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    let filler = "x".repeat(300);
    for n in 0..500 {
        book.put(
            &at(&format!("app/{}", n % 7), &format!("key-{n:04}")),
            plain(&format!("[{n},\"{filler}\"]")),
        );
    }
    book.commit(&**journal).await;
    check(&**journal, &book, &[(feed("app"), Vector::EMPTY)]).await;
    let large = plain(&format!("\"{}\"", "y".repeat((1 << 20) - 2)));
    book.put(&at("app/0", "key-0000"), large);
    book.commit(&**journal).await;
    check(&**journal, &book, &[(feed("app"), Vector::at(book.shard, Position { epoch: 1, seq: 500 }))]).await;
}
