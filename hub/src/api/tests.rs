//! The services over a real SQLite journal and a real writer, without HTTP in between.

use llm_config_proto::rest::admin::NewToken;
use llm_config_proto::rest::service::{
    Answered, Bulk, BulkAction, BulkOperation, BulkOutcome, BulkResult, Call, ConfigService as _,
    DeleteEntry, Deleted, Entry, Follow, GetDiff, GetEntry, GetHistory, ListEntries, NewSecret, NewValue,
    Original, OwnChange, RollbackEntry, Served, SetEntry, Target, Told, WriteOptions, Written,
};
use llm_config_shared::access::Role;
use llm_config_shared::entry::{ChangeId, Status};
use llm_config_shared::name::{Key, Namespace, Subtree, Tenant};
use llm_config_shared::store::Page;
use llm_config_shared::time::UnixMillis;
use llm_config_shared::value::Value;
use tokio_stream::StreamExt as _;
use uuid::Uuid;

use super::*;
use crate::identity::repeats::RepeatMac;
use crate::journal::SqliteJournal;
use crate::processes::ProcessAt;
use crate::secrets::LocalKeyring;
use crate::writer;

mod conflicts;

struct Hub {
    api: Api<SqliteJournal>,
    _directory: tempfile::TempDir,
}

async fn hub() -> Hub {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteJournal::open(&directory.path().join("hub.sqlite")).await.unwrap());
    store.migrate().await.unwrap();
    store.create_tenant(&tenant(), UnixMillis(1)).await.unwrap();
    let keyring = Arc::new(LocalKeyring::open_or_create(&directory.path().join("keyring")).unwrap());
    let secrets = Arc::new(SecretStore::new(Arc::clone(&store), keyring));
    let started =
        writer::start(Arc::clone(&store), Arc::clone(&store), Arc::clone(&secrets), ProcessAt::new("here"))
            .await
            .unwrap();
    let identity = Arc::new(Identity::fresh(UnixMillis(1_795_000_000_000)).unwrap());
    let line = Arc::new(Line::new(Uuid::from_u128(1), started.handle.roles(), Arc::clone(&identity)));
    let api = Api::new(Parts {
        guard: Arc::new(Guard::new(Arc::clone(&store), 10)),
        store,
        writer: started.handle,
        secrets,
        repeats: RepeatMac::from_stored(&[5; 32]),
        tail: started.tail,
        metrics: Metrics::unrecorded(),
        mode: Mode::Dev,
        edge_address: "https://127.0.0.1:8443".to_owned(),
        ca_fingerprint: [1; 32],
        identity,
        line,
        roster: Arc::default(),
        rotation_commands: BTreeSet::new(),
        rotate: Arc::default(),
        expiry_warnings: watch::channel(0).1,
        stop: CancellationToken::new(),
    });
    Hub { api, _directory: directory }
}

fn tenant() -> Tenant {
    Tenant::parse("default").unwrap()
}

fn call(role: Role) -> Call {
    let caller = Caller {
        tenant: tenant(),
        name: format!("token:{}", role.as_str()).into(),
        role,
        read: None,
        write: None,
        reveal: role >= Role::Writer,
    };
    let original = Original { method: http::Method::GET, uri: "/".parse().unwrap(), body: "{}".into() };
    Call { caller, original }
}

fn writer_call() -> Call {
    call(Role::Writer)
}

fn target(key: &str, environment: &str) -> Target {
    Target {
        namespace: Namespace::parse("app/llm").unwrap(),
        key: Key::parse(key).unwrap(),
        environment: Some(Environment::parse(environment).unwrap()),
    }
}

fn plain(text: &str) -> NewValue {
    NewValue::Plain { value: Value::parse(text).unwrap(), over_secret: false }
}

fn secret(text: &str) -> NewValue {
    NewValue::Secret(NewSecret { text: Zeroizing::new(text.to_owned()), told: Default::default() })
}

fn here<T>(answer: Result<Served<T>, ApiError>) -> Result<Answered<T>, ApiError> {
    match answer? {
        Served::Here(answered) => Ok(answered),
        Served::Ready(_) => panic!("the hub answers itself"),
    }
}

impl Hub {
    async fn set(&self, target: Target, value: NewValue, if_version: Option<u64>) -> Result<Entry, u16> {
        let options = WriteOptions { if_version, claimed_user: Some("mallory".into()), message: None };
        let request = SetEntry { target, value, tags: None, description: None, options };
        match here(self.api.set(&writer_call(), request).await).map_err(|error| error.kind.status())?.value {
            Written::Applied(entry) => Ok(entry),
            Written::Pending(_) => panic!("the hub does not queue"),
        }
    }

    async fn delete(&self, target: Target) -> Result<Deleted, u16> {
        let request = DeleteEntry { target, options: WriteOptions::default() };
        let answer = here(self.api.delete(&writer_call(), request).await);
        answer.map(|answered| answered.value).map_err(|error| error.kind.status())
    }

    async fn get(&self, call: &Call, target: Target, resolve: bool, reveal: bool) -> Result<Entry, ApiError> {
        let request = GetEntry { target, resolve, version: None, reveal, demand: Demand::default() };
        Ok(here(self.api.get(call, request).await)?.value)
    }

    async fn bulk(
        &self,
        operations: Vec<BulkOperation>,
        atomic: bool,
        batch: u64,
        body: &'static str,
    ) -> Result<BulkResult, ApiError> {
        let mut call = writer_call();
        call.original.body = body.into();
        let own = Some(OwnChange { change: ChangeId(Uuid::from_u128(9)), batch });
        let request = Bulk { operations, atomic, dry_run: false, claimed_user: None, message: None, own };
        Ok(here(self.api.bulk(&call, request).await)?.value)
    }
}

fn operation(key: &str, if_version: Option<u64>, action: BulkAction) -> BulkOperation {
    BulkOperation { target: target(key, "production"), if_version, action }
}

fn put(text: &str) -> BulkAction {
    BulkAction::Set { value: plain(text), tags: None, description: None }
}

#[tokio::test]
async fn versions_go_on_through_deletion_and_the_author_is_the_caller() {
    let hub = hub().await;
    let first = hub.set(target("model", "prod"), plain("9007199254740993"), Some(0)).await.unwrap();
    assert_eq!((first.version, &*first.metadata.created_by), (1, "token:writer"));
    assert_eq!(first.value, Shown::Plain(Value::parse("9007199254740993").unwrap()));
    assert_eq!(hub.set(target("model", "prod"), plain("null"), Some(7)).await.err(), Some(409));
    assert_eq!(hub.set(target("model", "prod"), plain("null"), Some(1)).await.unwrap().version, 2);
    assert_eq!(hub.delete(target("model", "prod")).await, Ok(Deleted::Applied));
    assert_eq!(hub.delete(target("model", "prod")).await, Err(404));
    let again = hub.set(target("model", "prod"), plain("\"x\""), Some(0)).await.unwrap();
    assert_eq!((again.version, again.id()), (4, first.id()));

    let page = Page { before: None, limit: 10 };
    let request = GetHistory { target: target("model", "prod"), reveal: false, page };
    let history = here(hub.api.history(&writer_call(), request).await).unwrap().value.rows;
    assert_eq!(history.iter().map(|past| past.version).collect::<Vec<_>>(), [4, 3, 2, 1]);
    assert_eq!((history[0].author.claimed.as_deref(), history[1].value.clone()), (Some("mallory"), None));
    assert!(history.iter().all(|past| past.status == Status::Applied));
}

#[tokio::test]
async fn rolling_back_is_a_new_version_of_the_same_entry() {
    let hub = hub().await;
    let first = hub.set(target("model", "prod"), plain("1"), None).await.unwrap();
    hub.set(target("model", "prod"), plain("2"), None).await.unwrap();
    let back = async |version| {
        let options = WriteOptions::default();
        let request = RollbackEntry { target: target("model", "prod"), version, options };
        here(hub.api.rollback(&writer_call(), request).await).map_err(|error| error.kind.status())
    };
    let Written::Applied(entry) = back(1).await.unwrap().value else { panic!("applied") };
    assert_eq!((entry.version, entry.id(), entry.value), (3, first.id(), first.value));
    assert_eq!(back(9).await.err(), Some(404));
    let request = GetDiff { target: target("model", "prod"), from: 1, to: 3 };
    assert!(!here(hub.api.diff(&writer_call(), request).await).unwrap().value.changed);
}

#[tokio::test]
async fn a_secret_is_shown_to_those_who_may_and_inherited_from_base_only() {
    let hub = hub().await;
    let set = hub.set(target("key", "staging"), secret("sk-1"), None).await.unwrap();
    assert_eq!(set.value, Shown::Masked);
    assert_eq!(
        hub.set(target("key", "staging"), plain("1"), None).await.err(),
        Some(409),
        "a forgotten flag"
    );
    let ask = async |role, reveal| hub.get(&call(role), target("key", "staging"), false, reveal).await;
    assert_eq!(ask(Role::Reader, false).await.unwrap().value, Shown::Masked);
    assert_eq!(ask(Role::Reader, true).await.unwrap_err().kind.status(), 403);
    assert_eq!(ask(Role::Writer, true).await.unwrap().value, Shown::Revealed(Zeroizing::new("sk-1".into())));

    let inherited = async || hub.get(&writer_call(), target("key", "prod"), true, true).await;
    assert_eq!(inherited().await.unwrap_err().kind.status(), 404);
    hub.set(target("key", "base"), secret("sk-0"), None).await.unwrap();
    let entry = inherited().await.unwrap();
    assert_eq!(entry.origin.clone().unwrap().environment, Environment::base());
    assert_eq!(entry.value, Shown::Revealed(Zeroizing::new("sk-0".into())));
}

#[tokio::test]
async fn what_is_missing_says_where_it_would_be_inherited_from() {
    let hub = hub().await;
    hub.set(target("model", "base"), plain("1"), None).await.unwrap();
    let missing = hub.get(&writer_call(), target("model", "prod"), false, false).await.unwrap_err();
    assert_eq!((missing.kind.status(), &missing.details["inherited_from"]), (404, &"base".into()));
    let found = hub.get(&writer_call(), target("model", "prod"), true, false).await.unwrap();
    assert_eq!(found.version, 1);
    let nowhere = hub.get(&writer_call(), target("model", "nowhere"), false, false).await.unwrap_err();
    assert_eq!(nowhere.kind.status(), 400);
}

#[tokio::test]
async fn a_list_is_complete_in_order_whatever_its_pages() {
    let hub = hub().await;
    for n in 0..25 {
        hub.set(target(&format!("k{n:02}"), "base"), plain("0"), None).await.unwrap();
    }
    for n in (0..25).step_by(3) {
        hub.set(target(&format!("k{n:02}"), "prod"), plain("1"), None).await.unwrap();
    }
    for limit in [1, 4, 100] {
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let request = ListEntries {
                namespace: Namespace::parse("app").unwrap(),
                environment: Some(Environment::parse("prod").unwrap()),
                recursive: true,
                prefix: Some("k".to_owned()),
                tag: None,
                resolve: true,
                reveal: false,
                limit,
                after,
                demand: Demand::default(),
            };
            let page = here(hub.api.list(&writer_call(), request).await).unwrap().value;
            assert!(page.entries.len() <= limit);
            seen.extend(page.entries.iter().map(|entry| (entry.at.key.to_string(), entry.value.clone())));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let value =
            |n: usize| Shown::Plain(Value::parse(if n.is_multiple_of(3) { "1" } else { "0" }).unwrap());
        assert_eq!(
            seen,
            (0..25).map(|n| (format!("k{n:02}"), value(n))).collect::<Vec<_>>(),
            "limit {limit}"
        );
    }
}

#[tokio::test]
async fn a_repeated_batch_gets_the_first_answer_and_changes_nothing() {
    let hub = hub().await;
    let operations = || vec![operation("a", None, put("1")), operation("b", Some(5), BulkAction::Delete)];
    let first = hub.bulk(operations(), false, 1, "{}").await.unwrap();
    assert_eq!(first.results[0].outcome, BulkOutcome::Set { version: 1 });
    assert!(matches!(&first.results[1].outcome, BulkOutcome::Failed(error) if error.kind.status() == 409));
    let again = hub.bulk(operations(), false, 1, "{}").await.unwrap();
    assert_eq!(again.results[0], first.results[0]);
    assert_eq!(hub.get(&writer_call(), target("a", "prod"), false, false).await.unwrap().version, 1);
    let other = hub.bulk(operations(), false, 1, "{ }").await.unwrap_err();
    assert_eq!(other.kind.status(), 409);
}

#[tokio::test]
async fn an_atomic_request_is_done_whole_or_not_at_all() {
    let hub = hub().await;
    let refused =
        hub.bulk(vec![operation("a", None, put("1")), operation("b", Some(5), put("2"))], true, 1, "1").await;
    assert_eq!(refused.unwrap_err().details["operation"], 1);
    assert_eq!(
        hub.get(&writer_call(), target("a", "prod"), false, false).await.unwrap_err().kind.status(),
        404
    );
    let done =
        hub.bulk(vec![operation("a", None, put("1")), operation("a", Some(1), put("2"))], true, 2, "2").await;
    let versions: Vec<_> = done.unwrap().results.into_iter().map(|item| item.outcome).collect();
    assert_eq!(versions, [BulkOutcome::Set { version: 1 }, BulkOutcome::Set { version: 2 }]);
}

#[tokio::test]
async fn followers_hear_of_changes_in_order_and_can_resume() {
    let hub = hub().await;
    let follow = async |after| {
        let request = Follow { subtree: Some(Subtree::parse("app").unwrap()), environment: None, after };
        hub.api.events(&writer_call(), request).await.unwrap()
    };
    let mut live = follow(None).await;
    for n in 0..3 {
        hub.set(target("model", "prod"), plain(&n.to_string()), None).await.unwrap();
    }
    let mut told = Vec::new();
    while told.len() < 3 {
        let Some(Told::Change(event)) = live.next().await else { panic!("a change") };
        told.push(event);
    }
    assert_eq!(told.iter().map(|event| event.version).collect::<Vec<_>>(), [1, 2, 3]);
    let after = Vector::at(told[0].dot.shard, told[0].dot.position);
    let Some(Told::Change(next)) = follow(Some(after)).await.next().await else { panic!("a change") };
    assert_eq!(next.version, 2);
}

#[tokio::test]
async fn readers_cannot_write_and_writers_cannot_administer() {
    let hub = hub().await;
    let request = DeleteEntry { target: target("k", "prod"), options: WriteOptions::default() };
    let refused = here(hub.api.delete(&call(Role::Reader), request).await).unwrap_err();
    assert_eq!(refused.kind.status(), 403);
    let token = NewToken { name: "x".to_owned(), role: Role::Reader, tenant: None, ttl_ms: None };
    let refused = hub.api.add_token(&writer_call().caller, token.clone()).await.err().unwrap();
    assert_eq!(refused.kind.status(), 403);
    let elsewhere = NewToken { tenant: Some(Tenant::parse("acme").unwrap()), ..token };
    let admin = call(Role::Admin).caller;
    assert_eq!(hub.api.add_token(&admin, elsewhere.clone()).await.err().unwrap().kind.status(), 422);
    hub.api.add_tenant(&admin, Tenant::parse("acme").unwrap()).await.unwrap();
    assert_eq!(hub.api.add_token(&admin, elsewhere).await.unwrap().info.tenant.as_str(), "acme");
}
