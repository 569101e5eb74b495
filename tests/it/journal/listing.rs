//! Current rows by key, and lists.

use std::sync::Arc;

use llm_config_shared::entry::Content;
use llm_config_shared::name::{EntryKey, Environment, Key, Subtree};
use llm_config_shared::store::{Journal, Listing};
use llm_config_shared::vector::Vector;

use super::book::{Book, at, plain, scope, secret, tenant};

fn listing(subtree: &str, recursive: bool) -> Listing {
    Listing {
        tenant: tenant("acme"),
        environment: Environment::base(),
        subtree: Subtree::parse(subtree).unwrap(),
        recursive,
        key_prefix: None,
        after: None,
        limit: 1_000,
    }
}

async fn names(journal: &impl Journal, listing: &Listing) -> Vec<String> {
    let read = journal.list(listing).await.unwrap();
    read.value.iter().map(|row| format!("{} {}", row.row.at.scope.namespace, row.row.at.key)).collect()
}

pub(super) async fn entries_come_back_in_the_order_asked(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    let (a, b, c) = (at("app", "a"), at("app/llm", "b"), at("app", "c"));
    book.put(&a, plain("9007199254740993"));
    book.put(&b, secret("s"));
    book.put(&c, plain("null"));
    book.put(&c, Content::Deleted);
    book.commit(&**journal).await;
    let asked = [c.clone(), at("app", "x"), a.clone(), b.clone(), a.clone()];
    let read = journal.entries(&asked).await.unwrap();
    let row = |at: &EntryKey| book.rows.get(at).cloned();
    assert_eq!(read.value, [row(&c), None, row(&a), row(&b), row(&a)]);
    assert_eq!(read.head, Vector::at(book.shard, book.position));
    assert_eq!(journal.entries(&[at("app", "x")]).await.unwrap().value, [None]);
    assert_eq!(journal.entries(&[]).await.unwrap().value, []);
}

pub(super) async fn lists_are_in_the_order_of_bytes(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    for (namespace, key) in [
        ("app", "b"),
        ("app", "B"),
        ("app", "_"),
        ("app", "a-b"),
        ("app", "ab"),
        ("app/x", "k"),
        ("app-x", "k"),
        ("App", "k"),
        ("app/x/y", "k"),
    ] {
        book.put(&at(namespace, key), plain("1"));
    }
    let other = EntryKey { scope: scope("acme", "edge", "app"), key: Key::parse("k").unwrap() };
    book.put(&other, plain("1"));
    book.commit(&**journal).await;
    let alone = names(&**journal, &listing("app", false)).await;
    assert_eq!(alone, ["app B", "app _", "app a-b", "app ab", "app b"]);
    let below = names(&**journal, &listing("app", true)).await;
    assert_eq!(below, ["app B", "app _", "app a-b", "app ab", "app b", "app/x k", "app/x/y k"]);
    let all = names(&**journal, &listing("", true)).await;
    assert_eq!(all[0], "App k");
    assert_eq!(all[6..], ["app-x k", "app/x k", "app/x/y k"]);
    assert!(names(&**journal, &listing("", false)).await.is_empty(), "no entry lies above all namespaces");
    assert!(names(&**journal, &listing("nowhere", true)).await.is_empty());
}

pub(super) async fn pages_join_without_gap_or_repetition(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    for n in 0..23 {
        book.put(&at(["a", "a/b", "a-b"][n % 3], &format!("k{n}")), plain("1"));
    }
    book.commit(&**journal).await;
    let whole = names(&**journal, &listing("a", true)).await;
    let mut page = Listing { limit: 4, ..listing("a", true) };
    let mut joined = Vec::new();
    loop {
        let read = journal.list(&page).await.unwrap().value;
        let Some(last) = read.last() else { break };
        page.after = Some((last.row.at.scope.namespace.clone(), last.row.at.key.clone()));
        joined.extend(read.iter().map(|row| format!("{} {}", row.row.at.scope.namespace, row.row.at.key)));
    }
    assert_eq!(joined, whole);
}

pub(super) async fn prefixes_are_taken_literally(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    for key in ["a_b", "axb", "a%b", "a", "ab", "A_b", "a_", "~", "~~", "a\\b"] {
        book.put(&at("app", key), plain("1"));
    }
    book.commit(&**journal).await;
    for (prefix, expected) in [
        ("a_", &["a_", "a_b"][..]),
        ("a%", &["a%b"]),
        ("a\\", &["a\\b"]),
        ("~", &["~", "~~"]),
        ("A", &["A_b"]),
        ("%", &[]),
        ("ü", &[]),
        ("\0", &[]),
    ] {
        let asked = Listing { key_prefix: Some(prefix.to_owned()), ..listing("app", false) };
        let found = journal.list(&asked).await.unwrap().value;
        let found: Vec<&str> = found.iter().map(|row| row.row.at.key.as_str()).collect();
        assert_eq!(found, expected, "{prefix:?}");
    }
}

pub(super) async fn what_was_deleted_is_not_listed(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    for key in ["a", "b", "c"] {
        book.put(&at("app", key), plain("1"));
    }
    book.put(&at("app", "b"), Content::Deleted);
    book.commit(&**journal).await;
    let two = Listing { limit: 2, ..listing("app", false) };
    assert_eq!(names(&**journal, &two).await, ["app a", "app c"], "it takes no place on a page");
}
