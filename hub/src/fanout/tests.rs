//! The fan-out over a real database and writer: one building for everybody, all feeds of one position.

use llm_config_shared::entry::Author;
use llm_config_shared::feed::Feed;
use llm_config_shared::name::{EntryKey, Environment, Key, Namespace, Scope, Subtree, Tenant};
use llm_config_shared::replication::admit::{ApiSubmission, OpAction, Operation, SetValue};
use llm_config_shared::segment::{VerificationKeys, verify, verify_checkpoint};
use llm_config_shared::value::Value;

use super::*;
use crate::journal::SqliteJournal;
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
        let started = writer::start(Arc::clone(&journal), secrets).await.unwrap();
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

    /// One change of these namespaces.
    async fn set(&self, namespaces: &[&str], value: u64) -> Vector {
        let operation = |namespace: &&str| Operation {
            at: EntryKey {
                scope: Scope {
                    tenant: Tenant::parse("t").unwrap(),
                    environment: Environment::base(),
                    namespace: Namespace::parse(namespace).unwrap(),
                },
                key: Key::parse("k").unwrap(),
            },
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
            operations: namespaces.iter().map(operation).collect(),
            atomic: true,
            dry_run: false,
            repeat: None,
        };
        self.writer.write(submission, None).await.unwrap();
        self.tail.head().vector()
    }

    async fn get(&self, feeds: &[(Feed, Vector)], every: bool) -> Transfer {
        self.fanout.transfer(feeds, every).await.unwrap()
    }

    fn rows(&self, part: &Part) -> usize {
        part.segments
            .iter()
            .map(|bytes| verify(bytes, &self.keys).unwrap().open().unwrap().as_sent().count())
            .sum()
    }
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
        receivers.spawn(async move { fanout.transfer(&[(feed("app"), position)], false).await.unwrap() });
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
