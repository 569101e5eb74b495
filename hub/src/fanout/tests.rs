//! The fan-out over a real database and writer: one building for everybody, all feeds of one position.

use llm_config_shared::entry::{Author, Row};
use llm_config_shared::feed::Feed;
use llm_config_shared::name::{EntryKey, Environment, Key, Namespace, Scope, Subtree, Tenant};
use llm_config_shared::replication::admit::{ApiSubmission, OpAction, Operation, SetValue};
use llm_config_shared::replication::repair::{Job, Outcome, Tally, Unrepaired};
use llm_config_shared::segment::{Kind, VerificationKeys, verify, verify_checkpoint};
use llm_config_shared::value::Value;

use super::*;
use crate::journal::SqliteJournal;
use crate::processes::ProcessAt;
use crate::secrets::{LocalKeyring, SecretStore};
use crate::writer::{self, WriterHandle};

struct Bench {
    fanout: Arc<Fanout<SqliteJournal>>,
    writer: WriterHandle,
    tail: Arc<Tail>,
    keys: VerificationKeys,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = Arc::new(SqliteJournal::open(&folder.path().join("hub.sqlite")).await.unwrap());
        journal.migrate().await.unwrap();
        let keyring = LocalKeyring::open_or_create(&folder.path().join("keyring")).unwrap();
        let secrets = Arc::new(SecretStore::new(Arc::clone(&journal), Arc::new(keyring)));
        let started =
            writer::start(Arc::clone(&journal), Arc::clone(&journal), secrets, ProcessAt::new("here"))
                .await
                .unwrap();
        let identity = Arc::new(Identity::fresh(now()).unwrap());
        let key = identity.signing().verification_key();
        Self {
            fanout: Arc::new(Fanout::new(journal, Arc::clone(&started.tail), identity)),
            writer: started.handle,
            tail: started.tail,
            keys: VerificationKeys::new([(key.id(), *key.as_bytes())]),
            _folder: folder,
        }
    }

    /// One change of `k` in these namespaces.
    async fn set(&self, namespaces: &[&str], value: u64) -> Vector {
        self.set_all(namespaces.iter().map(|namespace| at(namespace, "k")), value).await
    }

    /// One change of these entries.
    async fn set_all(&self, entries: impl Iterator<Item = EntryKey>, value: u64) -> Vector {
        let operation = |at| Operation {
            at,
            action: OpAction::Set {
                value: SetValue::Plain {
                    value: Value::parse(&value.to_string()).unwrap(),
                    over_secret: false,
                },
                tags: None,
                description: None,
            },
            if_version: None,
        };
        let submission = ApiSubmission {
            tenant: Tenant::parse("t").unwrap(),
            author: Author { name: "token:test".into(), claimed: None },
            change: None,
            message: None,
            operations: entries.map(operation).collect(),
            atomic: true,
            dry_run: false,
            repeat: None,
        };
        self.writer.write(submission, None).await.unwrap();
        self.tail.head().vector()
    }

    /// Deletes `k` of a namespace.
    async fn delete(&self, namespace: &str) -> Vector {
        let at = at(namespace, "k");
        let submission = ApiSubmission {
            tenant: Tenant::parse("t").unwrap(),
            author: Author { name: "token:test".into(), claimed: None },
            change: None,
            message: None,
            operations: vec![Operation { at, action: OpAction::Delete, if_version: None }],
            atomic: true,
            dry_run: false,
            repeat: None,
        };
        self.writer.write(submission, None).await.unwrap();
        self.tail.head().vector()
    }

    async fn get(&self, feeds: &[(Feed, Vector)], every: bool) -> Transfer {
        self.fanout.transfer(&ask(feeds, every)).await.unwrap()
    }

    fn rows(&self, part: &Part) -> usize {
        part.segments
            .iter()
            .map(|bytes| verify(bytes, &self.keys).unwrap().open().unwrap().as_sent().count())
            .sum()
    }
}

fn at(namespace: &str, key: &str) -> EntryKey {
    let scope = Scope {
        tenant: Tenant::parse("t").unwrap(),
        environment: Environment::base(),
        namespace: Namespace::parse(namespace).unwrap(),
    };
    EntryKey { scope, key: Key::parse(key).unwrap() }
}

fn ask(feeds: &[(Feed, Vector)], every: bool) -> Ask {
    Ask { feeds: feeds.to_vec(), held: BTreeMap::new(), every }
}

fn feed(subtree: &str) -> Feed {
    Feed {
        tenant: Tenant::parse("t").unwrap(),
        environment: Environment::base(),
        subtree: Subtree::parse(subtree).unwrap(),
        secrets: true,
    }
}

#[tokio::test]
async fn many_receivers_at_different_positions_share_one_part() {
    let bench = Bench::new().await;
    bench.set(&["app"], 1).await;
    let before = bench.get(&[(feed("app"), Vector::EMPTY)], true).await;
    let mut positions = vec![before.to.clone()];
    for n in 0..5 {
        positions.push(bench.set(&["other"], n).await);
    }
    bench.set(&["app"], 2).await;
    let mut receivers = tokio::task::JoinSet::new();
    for position in positions.into_iter().cycle().take(60) {
        let fanout = Arc::clone(&bench.fanout);
        receivers
            .spawn(async move { fanout.transfer(&ask(&[(feed("app"), position)], false)).await.unwrap() });
    }
    let transfers = receivers.join_all().await;
    let first = &transfers[0].parts[0];
    assert_eq!(bench.rows(first), 1);
    for transfer in &transfers {
        assert_eq!(transfer.parts.len(), 1);
        assert_eq!(transfer.parts[0].segments[0].as_ptr(), first.segments[0].as_ptr(), "the same bytes");
    }
}

#[tokio::test]
async fn quiet_feeds_are_left_out_or_confirmed_at_the_position_of_the_others() {
    let bench = Bench::new().await;
    let start = bench.set(&["app", "quiet"], 1).await;
    let both = |at: &Vector| [(feed("app"), at.clone()), (feed("quiet"), at.clone())];
    bench.get(&both(&start), true).await;
    let to = bench.set(&["app"], 2).await;
    let moved = bench.get(&both(&start), false).await;
    assert_eq!((moved.to.clone(), moved.parts.len()), (to.clone(), 1));
    let every = bench.get(&both(&start), true).await;
    assert_eq!(every.parts.len(), 2);
    for part in &every.parts {
        assert_eq!(verify_checkpoint(&part.checkpoint, &bench.keys).unwrap().vector, to);
    }
    assert!(every.parts[1].segments.is_empty());
}

#[tokio::test]
async fn a_receiver_sees_all_or_nothing_of_an_atomic_change() {
    let bench = Bench::new().await;
    let start = bench.set(&["one", "two"], 0).await;
    let (writer, reader) = (&bench, &bench);
    let writing = async {
        for n in 1..40 {
            writer.set(&["one", "two"], n).await;
        }
    };
    let reading = async {
        for _ in 0..40 {
            let feeds = [(feed("one"), start.clone()), (feed("two"), start.clone())];
            let transfer = reader.get(&feeds, true).await;
            let value = |part: &Part| -> String {
                let opened =
                    part.segments.iter().map(|bytes| verify(bytes, &reader.keys).unwrap().open().unwrap());
                let rows = opened.flat_map(|opened| opened.resolve(|_, _| None).unwrap());
                rows.map(|row| format!("{:?}", row.content)).collect()
            };
            assert_eq!(value(&transfer.parts[0]), value(&transfer.parts[1]));
            for part in &transfer.parts {
                assert_eq!(verify_checkpoint(&part.checkpoint, &reader.keys).unwrap().vector, transfer.to);
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(writing, reading);
}

#[tokio::test]
async fn a_receiver_of_a_process_that_knows_nothing_yet_is_served_from_where_it_is() {
    let bench = Bench::new().await;
    let early = bench.set(&["app"], 1).await;
    bench.set(&["other"], 1).await;
    let later = bench.set(&["other"], 2).await;
    bench.set(&["app"], 2).await;
    let feeds = [(feed("app"), later), (feed("other"), early)];
    let transfer = bench.get(&feeds, true).await;
    assert_eq!(transfer.parts.iter().map(|part| bench.rows(part)).collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test]
async fn an_edge_that_differs_is_told_where_and_sent_what_it_lacks() {
    let bench = Bench::new().await;
    let at = bench.set(&["app", "app/db", "app/llm"], 1).await;
    let whole = bench.get(&[(feed("app"), Vector::EMPTY)], true).await;
    let open = |bytes| verify(bytes, &bench.keys).unwrap();
    let rows_of = |bytes| open(bytes).open().unwrap().resolve(|_, _| None).unwrap();
    let rows: Vec<Row> = whole.parts[0].segments.iter().flat_map(rows_of).collect();
    let compare = || Job::Compare { feed: feed("app"), at: at.clone(), sums: Tally::of(&rows[1..]).sums };
    let Outcome::Listed(listed) = bench.fanout.repair(compare()).await.unwrap() else { panic!("it differs") };
    assert_eq!((listed.buckets.len(), listed.keys.values().next()), (1, Some(&rows[0].at)));

    let fetch = || Job::Rows { feed: feed("app"), at: at.clone(), keys: vec![rows[0].at.clone()] };
    let Outcome::Rows(bytes) = bench.fanout.repair(fetch()).await.unwrap() else { panic!("it is there") };
    assert_eq!(open(&bytes).header().kind, Kind::Repair);
    assert_eq!(rows_of(&bytes), rows[..1]);

    bench.set(&["other"], 2).await;
    assert!(matches!(bench.fanout.repair(compare()).await.unwrap(), Outcome::Listed(_)), "not of this feed");
    bench.set(&["app/llm"], 2).await;
    for job in [compare(), fetch()] {
        assert_eq!(bench.fanout.repair(job).await.unwrap(), Outcome::Not(Unrepaired::Moved));
    }
}

/// What a receiver is sent: the sort of its segments, and the places that they begin at.
fn begins(bench: &Bench, part: &Part) -> Vec<(Kind, u64)> {
    let headers = part.segments.iter().map(|bytes| verify(bytes, &bench.keys).unwrap().header().clone());
    headers.map(|header| (header.kind, header.from.iter().map(|(_, at)| at.seq).sum())).collect()
}

#[tokio::test]
async fn below_the_horizon_everything_is_sent_and_nothing_that_was_made_before_the_purge() {
    let bench = Bench::new().await;
    let start = bench.set(&["app/a", "app/b", "quiet"], 1).await;
    let deleted = bench.delete("app/b").await;
    let later = bench.set(&["app/a"], 2).await;
    let both = |at: &Vector| [(feed("app"), at.clone()), (feed("quiet"), at.clone())];
    let before = bench.get(&both(&start), true).await;
    assert_eq!(begins(&bench, &before.parts[0]), [(Kind::Delta, 3)]);
    assert_eq!(bench.rows(&before.parts[0]), 2);

    assert_eq!(bench.writer.purge(now(), 10).await, Ok(1));
    assert_eq!((bench.tail.head().horizon, bench.tail.head().position.seq), (4, 5));
    let after = bench.get(&both(&start), true).await;
    assert_eq!(begins(&bench, &after.parts[0]), [(Kind::Snapshot, 0)], "not the delta made before");
    assert_eq!(bench.rows(&after.parts[0]), 1);
    assert!(after.parts[1].segments.is_empty(), "nothing happened in it since");
    let heard = bench.get(&[(feed("app"), deleted)], true).await;
    assert_eq!(begins(&bench, &heard.parts[0]), [(Kind::Delta, 4)]);
    assert!(bench.get(&[(feed("app"), later)], true).await.parts[0].segments.is_empty());
}

#[tokio::test]
async fn a_process_that_has_not_heard_of_the_purge_finds_it_while_it_reads() {
    let bench = Bench::new().await;
    let start = bench.set(&["app/a", "app/b"], 1).await;
    let deleted = bench.delete("app/b").await;
    bench.set(&["app/a"], 2).await;
    let unaware = Arc::new(Tail::new((*bench.tail.head()).clone()));
    let journal = Arc::clone(&bench.fanout.journal);
    let other = Fanout::new(journal, unaware, Arc::clone(&bench.fanout.identity));
    bench.writer.purge(now(), 10).await.unwrap();
    let transfer = other.transfer(&ask(&[(feed("app"), start)], true)).await.unwrap();
    assert_eq!(begins(&bench, &transfer.parts[0]), [(Kind::Snapshot, 0)]);
    let transfer = other.transfer(&ask(&[(feed("app"), deleted)], true)).await.unwrap();
    assert_eq!(begins(&bench, &transfer.parts[0]), [(Kind::Delta, 3)]);
}

#[tokio::test]
async fn a_transfer_that_broke_off_goes_on_with_what_it_lacks_unless_deletions_are_gone() {
    let bench = Bench::new().await;
    let reached = bench.set(&["app/a", "app/b", "app/c"], 1).await;
    bench.delete("app/a").await;
    bench.set(&["app/d"], 1).await;
    let held = |to: &Vector| Held {
        from: Vector::EMPTY,
        spans: vec![Span { through: Some(at("app/b", "k")), to: to.clone() }],
    };
    let ask = |to: &Vector| Ask {
        feeds: vec![(feed("app"), Vector::EMPTY)],
        held: BTreeMap::from([(feed("app"), held(to))]),
        every: true,
    };
    let headers = |transfer: &Transfer| {
        let segments = transfer.parts[0].segments.iter();
        segments.map(|bytes| verify(bytes, &bench.keys).unwrap().header().clone()).collect::<Vec<_>>()
    };
    let rest = bench.fanout.transfer(&ask(&reached)).await.unwrap();
    let [header] = &headers(&rest)[..] else { panic!("a few rows are one segment") };
    assert_eq!((header.kind, &header.continues), (Kind::Snapshot, &held(&reached).spans));
    assert_eq!(bench.rows(&rest.parts[0]), 3, "that a is gone, and c and d; b is there");
    let whole = bench.get(&[(feed("app"), Vector::EMPTY)], true).await;
    assert_eq!((headers(&whole)[0].continues.len(), bench.rows(&whole.parts[0])), (0, 3), "b, c and d");

    assert_eq!(bench.writer.purge(now(), 10).await, Ok(1));
    let again = bench.fanout.transfer(&ask(&reached)).await.unwrap();
    assert_eq!((headers(&again)[0].continues.len(), bench.rows(&again.parts[0])), (0, 3));
}

#[tokio::test]
async fn a_delta_that_is_nearly_everything_goes_as_the_snapshot_that_others_get() {
    let bench = Bench::new().await;
    let keys: Vec<EntryKey> = (0..300).map(|n| at("app", &format!("k{n:03}"))).collect();
    let start = bench.set_all(keys.iter().cloned(), 1).await;
    let half = bench.set_all(keys[..150].iter().cloned(), 2).await;
    let part = bench.get(&[(feed("app"), start.clone())], true).await;
    assert_eq!((begins(&bench, &part.parts[0])[0].0, bench.rows(&part.parts[0])), (Kind::Delta, 150));

    bench.set_all(keys[150..].iter().cloned(), 2).await;
    let most = bench.get(&[(feed("app"), start)], true).await;
    assert_eq!(begins(&bench, &most.parts[0]), [(Kind::Snapshot, 0)]);
    let fresh = bench.get(&[(feed("app"), Vector::EMPTY)], true).await;
    let bytes = |transfer: &Transfer| transfer.parts[0].segments[0].as_ptr();
    assert_eq!(bytes(&most), bytes(&fresh), "made once");
    let later = bench.get(&[(feed("app"), half)], true).await;
    assert_eq!((begins(&bench, &later.parts[0])[0].0, bench.rows(&later.parts[0])), (Kind::Delta, 150));
}
