//! The writer over a real database: what is grouped, what is answered, and what a lost lead does.

use std::sync::Arc;
use std::time::Duration;

use llm_config_shared::entry::{Author, ChangeId};
use llm_config_shared::limits::COMMIT_WRITES_MAX;
use llm_config_shared::name::{EntryKey, Environment, Key, Namespace, Scope, Tenant};
use llm_config_shared::replication::admit::{
    ApiSubmission, OpAction, OpRefused, Operation, RepeatKey, SetValue,
};
use llm_config_shared::store::Journal;
use llm_config_shared::time::UnixMillis;
use llm_config_shared::value::Value;
use uuid::Uuid;

use super::*;
use crate::clock::now;
use crate::journal::SqliteJournal;
use crate::processes::tests::Room;
use crate::secrets::LocalKeyring;

/// Whatever takes longer never happens.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    room: Arc<Room>,
    journal: Arc<SqliteJournal>,
    keys: Arc<SecretStore<SqliteJournal>>,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = Arc::new(SqliteJournal::open(&folder.path().join("hub.sqlite")).await.unwrap());
        journal.migrate().await.unwrap();
        let keyring = LocalKeyring::open_or_create(&folder.path().join("keyring")).unwrap();
        let keys = Arc::new(SecretStore::new(Arc::clone(&journal), Arc::new(keyring)));
        Self { room: Arc::default(), journal, keys, _folder: folder }
    }

    async fn start(&self) -> Started {
        self.start_in(&self.room).await
    }

    /// A process that heeds the lock of this room, and no other.
    async fn start_in(&self, room: &Arc<Room>) -> Started {
        let (journal, keys) = (Arc::clone(&self.journal), Arc::clone(&self.keys));
        let me = ProcessAt::new(format!("https://{}", Uuid::new_v4()));
        start(journal, Arc::clone(room), keys, me).await.unwrap()
    }

    async fn epochs(&self) -> usize {
        self.journal.head().await.unwrap().own_epochs().epochs().len()
    }
}

fn entry(key: &str) -> EntryKey {
    let scope = Scope {
        tenant: Tenant::parse("t").unwrap(),
        environment: Environment::base(),
        namespace: Namespace::parse("app").unwrap(),
    };
    EntryKey { scope, key: Key::parse(key).unwrap() }
}

fn set(keys: &[&str], value: &str) -> ApiSubmission {
    let operation = |key: &&str| Operation {
        at: entry(key),
        action: OpAction::Set {
            value: SetValue::Plain { value: Value::parse(value).unwrap(), over_secret: false },
            tags: None,
            description: None,
        },
        if_version: None,
    };
    ApiSubmission {
        tenant: Tenant::parse("t").unwrap(),
        author: Author { name: "token:test".into(), claimed: None },
        change: Some(ChangeId(Uuid::new_v4())),
        message: None,
        operations: keys.iter().map(operation).collect(),
        atomic: false,
        dry_run: false,
        repeat: None,
    }
}

fn outcomes(written: Written) -> Vec<OpOutcome> {
    match written {
        Written::Now { outcomes, .. } => outcomes,
        Written::Before { .. } => panic!("was not sent before"),
    }
}

#[tokio::test]
async fn every_one_of_many_writers_of_a_key_gets_its_own_version() {
    let bench = Bench::new().await;
    let Started { handle, tail, .. } = bench.start().await;
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..40 {
        let handle = handle.clone();
        writers
            .spawn(async move { outcomes(handle.write(set(&["k"], &n.to_string()), None).await.unwrap()) });
    }
    let mut versions: Vec<u64> =
        writers.join_all().await.into_iter().map(|out| out[0].as_ref().unwrap().row.version).collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=40).collect::<Vec<_>>());
    assert_eq!(tail.head().position.seq, 40);
    assert_eq!(bench.journal.head().await.unwrap().position, tail.head().position, "answered is durable");
}

#[tokio::test]
async fn what_queues_is_committed_in_batches_of_bounded_size() {
    let bench = Bench::new().await;
    let Started { handle, tail, .. } = bench.start().await;
    let names: Vec<String> = (0..300).map(|n| format!("k{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(2 * names.len() > COMMIT_WRITES_MAX);
    let (one, two) =
        tokio::join!(handle.write(set(&names, "1"), None), handle.write(set(&names, "2"), None),);
    assert!(outcomes(one.unwrap()).iter().all(|outcome| outcome.as_ref().unwrap().row.version == 1));
    assert!(outcomes(two.unwrap()).iter().all(|outcome| outcome.as_ref().unwrap().row.version == 2));
    assert_eq!(tail.head().position.seq, 600);
}

#[tokio::test]
async fn a_repeated_request_gets_its_first_answer_and_another_content_none() {
    let bench = Bench::new().await;
    let Started { handle, .. } = bench.start().await;
    let change = ChangeId(Uuid::new_v4());
    let request = |value: &str, hash: u8| ApiSubmission {
        change: Some(change),
        repeat: Some(RepeatKey { batch: 1, request_hash: [hash; 32] }),
        ..set(&["k"], value)
    };
    let render =
        || -> Option<RenderAnswer> { Some(Box::new(|outcomes| format!("{} done", outcomes.len()).into())) };
    let first = handle.write(request("1", 1), render()).await.unwrap();
    assert!(outcomes(first)[0].is_ok());
    match handle.write(request("1", 1), render()).await.unwrap() {
        Written::Before { answer, .. } => assert_eq!(&*answer, "1 done"),
        Written::Now { .. } => panic!("done twice"),
    }
    assert_eq!(handle.write(request("2", 2), render()).await, Err(WriteError::Reused));
}

#[tokio::test]
async fn a_refused_or_dry_write_changes_nothing() {
    let bench = Bench::new().await;
    let Started { handle, tail, .. } = bench.start().await;
    let mut mismatch = set(&["k"], "1");
    mismatch.operations[0].if_version = Some(3);
    let refused = outcomes(handle.write(mismatch, None).await.unwrap());
    assert_eq!(refused, [Err(OpRefused::VersionMismatch { expected: 3, current: 0 })]);
    let dry = handle.write(ApiSubmission { dry_run: true, ..set(&["k"], "1") }, None).await.unwrap();
    assert!(outcomes(dry)[0].is_ok());
    assert_eq!(tail.head().position.seq, 0);
}

#[tokio::test]
async fn a_writer_that_was_overtaken_says_so_and_takes_the_lead_anew() {
    let bench = Bench::new().await;
    let old = bench.start().await;
    outcomes(old.handle.write(set(&["k"], "1"), None).await.unwrap());
    let new = bench.start_in(&Arc::default()).await;
    outcomes(new.handle.write(set(&["k"], "2"), None).await.unwrap());

    assert_eq!(
        old.handle.write(set(&["k"], "3"), None).await,
        Err(WriteError::Moved),
        "and nothing was written"
    );
    let again = outcomes(old.handle.write(set(&["k"], "4"), None).await.unwrap());
    assert_eq!(again[0].as_ref().unwrap().row.version, 3);
    assert_eq!(old.tail.head().position.seq, 3);
    assert_eq!(old.tail.head().own_epochs().epochs().len(), 3);
}

#[tokio::test]
async fn a_database_that_is_gone_is_told_and_nothing_waits_for_it() {
    let bench = Bench::new().await;
    let Started { handle, task, .. } = bench.start().await;
    bench.journal.close().await;
    for _ in 0..2 {
        assert_eq!(handle.write(set(&["k"], "1"), None).await, Err(WriteError::Unavailable));
    }
    drop(handle);
    task.await.unwrap();
}

#[tokio::test]
async fn a_secret_is_sealed_for_the_version_that_it_takes() {
    let bench = Bench::new().await;
    let Started { handle, .. } = bench.start().await;
    outcomes(handle.write(set(&["k"], "1"), None).await.unwrap());
    let mut secret = set(&["k"], "1");
    let value = SetValue::Secret(b"\"hidden\"".to_vec().into());
    secret.operations[0].action = OpAction::Set { value, tags: None, description: None };
    let written = outcomes(handle.write(secret, None).await.unwrap());
    let row = &written[0].as_ref().unwrap().row;
    let llm_config_shared::entry::Content::Secret(sealed) = &row.content else { panic!("not sealed") };
    assert_eq!((row.version, sealed.version), (2, 2));
    assert_eq!(bench.keys.open(&row.at, sealed).await.unwrap().as_slice(), b"\"hidden\"");
}

fn delete(key: &str) -> ApiSubmission {
    let mut submission = set(&[key], "1");
    submission.operations[0].action = OpAction::Delete;
    submission
}

#[tokio::test]
async fn an_entry_that_was_purged_is_gone_and_goes_on_counting_its_versions() {
    let bench = Bench::new().await;
    let Started { handle, tail, .. } = bench.start().await;
    for key in ["a", "b", "kept"] {
        outcomes(handle.write(set(&[key], "1"), None).await.unwrap());
    }
    outcomes(handle.write(delete("a"), None).await.unwrap());
    outcomes(handle.write(delete("b"), None).await.unwrap());
    assert_eq!(
        handle.purge(UnixMillis(now().0 - 3_600_000), 9).await,
        Ok(0),
        "they are younger than an hour"
    );
    assert_eq!(handle.purge(now(), 1).await, Ok(1), "the oldest first");
    assert_eq!((tail.head().horizon, tail.head().position.seq), (4, 5));
    assert_eq!(handle.purge(now(), 9).await, Ok(1));
    assert_eq!(handle.purge(now(), 9).await, Ok(0));
    assert_eq!((tail.head().horizon, bench.journal.head().await.unwrap().horizon), (5, 5));

    let again = outcomes(handle.write(set(&["a"], "2"), None).await.unwrap()).remove(0).unwrap();
    assert_eq!((again.row.version, again.row.dot.position.seq), (3, 6));
    outcomes(handle.write(delete("a"), None).await.unwrap());
    assert_eq!(handle.purge(now(), 9).await, Ok(1), "what was left of it had gone");
    let once_more = outcomes(handle.write(set(&["a"], "3"), None).await.unwrap()).remove(0).unwrap();
    assert_eq!(once_more.row.version, 5);
}

#[tokio::test]
async fn a_writer_that_does_not_lead_purges_nothing_and_takes_no_lead() {
    let bench = Bench::new().await;
    let leads = bench.start().await;
    outcomes(leads.handle.write(set(&["k"], "1"), None).await.unwrap());
    outcomes(leads.handle.write(delete("k"), None).await.unwrap());
    let follows = bench.start().await;
    for _ in 0..2 {
        assert_eq!(follows.handle.purge(now(), 9).await, Err(WriteError::Moved));
    }
    outcomes(leads.handle.write(set(&["other"], "1"), None).await.unwrap());
    assert_eq!(leads.handle.purge(now(), 9).await, Ok(1));
    assert_eq!(bench.epochs().await, 1);
}

#[tokio::test]
async fn a_process_that_follows_goes_on_following_while_the_database_is_away_from_it() {
    let bench = Bench::new().await;
    let (leads, follows) = (bench.start().await, bench.start().await);
    let known = follows.handle.role();
    bench.room.away(true);
    // Asked directly, its writer tries, and says why it cannot.
    let refused = follows.handle.write(set(&["k"], "0"), None).await;
    assert_eq!((refused, follows.handle.role()), (Err(WriteError::Unavailable), known));
    bench.room.away(false);
    leads.task.abort();
    becomes(&follows, |role| *role == Role::Leading).await;
}

async fn becomes(started: &Started, wanted: impl Fn(&Role) -> bool) -> Role {
    let mut roles = started.handle.roles();
    let role = tokio::time::timeout(PATIENCE, roles.wait_for(wanted)).await;
    role.expect("it plays the role in time").unwrap().clone()
}

#[tokio::test]
async fn of_two_writers_one_leads_however_much_both_are_asked() {
    let bench = Bench::new().await;
    let (leads, follows) = (bench.start().await, bench.start().await);
    assert_eq!(leads.handle.role(), Role::Leading);
    let known = follows.handle.role();
    assert!(known.is_elsewhere() && known.leader().is_some(), "{known:?}");
    for n in 0..10 {
        assert_eq!(follows.handle.write(set(&["k"], "0"), None).await, Err(WriteError::Moved));
        let written = outcomes(leads.handle.write(set(&["k"], &n.to_string()), None).await.unwrap());
        assert_eq!(written[0].as_ref().unwrap().row.version, n + 1);
    }
    assert_eq!(bench.epochs().await, 1);
}

#[tokio::test]
async fn who_loses_the_hold_steps_down_and_who_is_gone_is_followed_by_another() {
    let bench = Bench::new().await;
    let (first, second) = (bench.start().await, bench.start().await);
    outcomes(first.handle.write(set(&["k"], "1"), None).await.unwrap());
    bench.room.cut();
    becomes(&first, |role| *role != Role::Leading).await;
    // Either may have it now; the first is gone in any case.
    first.task.abort();
    becomes(&second, |role| *role == Role::Leading).await;
    let written = outcomes(second.handle.write(set(&["k"], "2"), None).await.unwrap());
    assert_eq!(written[0].as_ref().unwrap().row.version, 2);
    assert_eq!(second.tail.head().position.seq, 2);
}
