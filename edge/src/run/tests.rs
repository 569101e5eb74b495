//! The daemon with a replica that was filled before and a hub that is not there.

use std::sync::Arc;

use llm_config_shared::entry::{ChangeId, Content, Metadata, Row};
use llm_config_shared::feed::{Binding, Environments, Feed};
use llm_config_shared::name::{EdgeName, EntryKey, Environment, Key, Namespace, Scope, Subtree, Tenant};
use llm_config_shared::segment::VerificationKeys;
use llm_config_shared::stamp::{ActorId, Hlc, Stamp, WriteId};
use llm_config_shared::store::replica::{Batch, FeedRecord, ReplicaStore, StateRecord};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::value::Value;
use llm_config_shared::vector::{Dot, Position, ShardId, Vector};
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::*;
use crate::identity::StoredCredentials;

const TOKEN: &str = "a-token-of-some-length";

fn production() -> Environment {
    Environment::parse("production").unwrap()
}

fn identity(hub: &str) -> EdgeIdentity {
    let pem = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let now = Clock::start().wall();
    let keys = VerificationKeys::default();
    EdgeIdentity {
        tenant: Tenant::parse("t").unwrap(),
        edge: ActorId(Uuid::from_u128(7)),
        name: EdgeName::parse("kiosk").unwrap(),
        hub: hub.to_owned(),
        credentials: StoredCredentials::new(pem.clone(), pem, keys, now, now).unwrap(),
        binding: Binding {
            namespaces: Vec::new(),
            environments: vec![production()],
            write: vec![Subtree::ALL],
        },
        default_environment: production(),
        joined_at: now,
    }
}

fn row(environment: Environment, namespace: &str, key: &str, value: &str, seq: u64) -> Record {
    let scope = Scope {
        tenant: Tenant::parse("t").unwrap(),
        environment,
        namespace: Namespace::parse(namespace).unwrap(),
    };
    let actor = ActorId(Uuid::from_u128(1));
    Record::Row(Arc::new(Row {
        at: EntryKey { scope, key: Key::parse(key).unwrap() },
        dot: Dot { shard: ShardId(Uuid::from_u128(1)), position: Position { epoch: 1, seq } },
        stamp: Stamp { hlc: Hlc(seq), id: WriteId { actor, incarnation: 1, counter: seq } },
        version: seq,
        content: Content::Plain(Value::parse(value).unwrap()),
        metadata: Metadata {
            created_at: UnixMillis(1),
            created_by: "token:admin".into(),
            updated_at: UnixMillis(2),
            updated_by: "token:admin".into(),
            tags: Vec::new(),
            description: None,
        },
        change: ChangeId(Uuid::from_u128(9)),
    }))
}

fn feed(environment: Environment, seq: u64) -> Record {
    let feed = Feed {
        tenant: Tenant::parse("t").unwrap(),
        secrets: environment.is_base(),
        environment,
        subtree: Subtree::ALL,
    };
    let vector = Vector::at(ShardId(Uuid::from_u128(1)), Position { epoch: 1, seq });
    Record::Feed(
        feed,
        FeedRecord { floor: vector.clone(), vector, ready: true, checkpoint_issued_at: 5, folding: false },
    )
}

/// A joined edge whose replica holds two values, as a daemon before this one left it.
fn filled(directory: &Path) -> SledStore {
    let identity = identity("https://127.0.0.1:1");
    identity.store(directory).unwrap();
    let keys = EdgeKeys::load_or_generate(directory).unwrap();
    let owner = Owner { tenant: identity.tenant.clone(), edge: identity.edge.0 };
    let replica = directory.join(REPLICA);
    let mut opened = store::open(&replica, &keys.replica, &owner, StoreOptions::default()).unwrap();
    let mut environments = Environments::standard();
    environments.set_parent(production(), Some(Environment::base())).unwrap();
    let state = StateRecord {
        incarnation: 4,
        environments,
        default_environment: Some(production()),
        write: vec![Subtree::ALL],
        confirmed_at: Clock::start().wall().0 - 60_000,
        ..StateRecord::default()
    };
    let put = vec![
        Record::State(state),
        feed(Environment::base(), 2),
        feed(production(), 3),
        row(production(), "app/llm", "model", "{\"name\":\"a\"}", 1),
        row(Environment::base(), "app/llm", "limit", "18446744073709551615", 2),
    ];
    opened.store.commit(&Batch { put, remove: Vec::new() }).unwrap();
    opened.store
}

struct Running {
    directory: tempfile::TempDir,
    socket: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    async fn start(directory: tempfile::TempDir, listen: Option<SocketAddr>) -> Self {
        let token_file = directory.path().join("token");
        std::fs::write(&token_file, TOKEN).unwrap();
        let options = RunOptions {
            directory: directory.path().to_owned(),
            listen,
            token_file: Some(token_file),
            ..RunOptions::default()
        };
        let (stop, socket) = (CancellationToken::new(), directory.path().join(SOCKET));
        let task = tokio::spawn(run_until(options, stop.clone()));
        let running = Self { directory, socket, stop, task };
        while UnixStream::connect(&running.socket).await.is_err() {
            assert!(!running.task.is_finished(), "the daemon ended");
            tokio::task::yield_now().await;
        }
        running
    }

    async fn ask(&self, method: &str, target: &str, body: &str) -> Answer {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        exchange(&mut stream, method, target, "", body).await
    }

    async fn end(self) -> tempfile::TempDir {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        assert!(!self.socket.exists());
        self.directory
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: serde_json::Value,
}

async fn exchange<S: AsyncReadExt + AsyncWriteExt + Unpin>(
    stream: &mut S,
    method: &str,
    target: &str,
    header: &str,
    body: &str,
) -> Answer {
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n{header}content-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: serde_json::from_str(body).unwrap_or_default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_served_without_a_hub_and_say_how_old_they_are() {
    let directory = tempfile::tempdir().unwrap();
    drop(filled(directory.path()));
    let edge = Running::start(directory, None).await;

    let exact = edge.ask("GET", "/api/v1/configs/app%2Fllm/model", "").await;
    assert_eq!((exact.status, &exact.body["value"]["name"]), (200, &"a".into()), "{exact:?}");
    assert!(exact.head.contains("x-config-source: replica"), "{}", exact.head);
    let age = exact.head.lines().find_map(|line| line.strip_prefix("x-config-age-ms: ")).unwrap();
    assert!((60_000..600_000).contains(&age.parse::<u64>().unwrap()), "{age}");

    let missing = edge.ask("GET", "/api/v1/configs/app%2Fllm/limit", "").await;
    assert_eq!((missing.status, &missing.body["details"]["inherited_from"]), (404, &"base".into()));
    let inherited = edge.ask("GET", "/api/v1/configs/app%2Fllm/limit?resolve=true", "").await;
    assert_eq!(inherited.body["value"].as_u64(), Some(u64::MAX), "{inherited:?}");
    assert_eq!(inherited.body["origin"]["environment"], "base");
    let listed = edge.ask("GET", "/api/v1/configs/app?recursive=true&resolve=true&format=object", "").await;
    assert_eq!(listed.body["llm/model"]["name"], "a", "{listed:?}");
    assert_eq!(listed.body["llm/limit"].as_u64(), Some(u64::MAX));

    let stale = edge.ask("GET", "/api/v1/configs/app%2Fllm/model?max_staleness=30s", "").await;
    assert_eq!(stale.status, 503);
    assert!(stale.body["details"]["age_ms"].as_u64().unwrap() >= 60_000);
    let unknown = edge.ask("GET", "/api/v1/configs/app%2Fllm/model?env=nowhere", "").await;
    assert_eq!(unknown.status, 400, "{unknown:?}");
    assert_eq!(edge.ask("GET", "/api/v1/configs/app%2Fllm/model/history", "").await.status, 503);
    assert_eq!(edge.ask("GET", "/health", "").await.body["status"], "degraded");
    let status = edge.ask("GET", "/api/v1/edge/status", "").await;
    assert_eq!(
        (&status.body["entries"], &status.body["connected"]),
        (&2.into(), &false.into()),
        "{status:?}"
    );
    edge.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bad_disk_took_is_neither_not_found_nor_replaced_by_what_lies_beneath() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = filled(directory.path());
    let over = row(production(), "app/llm", "limit", "7", 3);
    store.commit(&Batch { put: vec![over.clone()], remove: Vec::new() }).unwrap();
    store.damage(&over.slot());
    drop(store);
    let edge = Running::start(directory, None).await;
    for target in ["limit", "limit?resolve=true", "never-there", "never-there?resolve=true"] {
        let lost = edge.ask("GET", &format!("/api/v1/configs/app%2Fllm/{target}"), "").await;
        assert_eq!(lost.status, 503, "{target}: {lost:?}");
        assert!(lost.body["details"]["age_ms"].is_u64(), "{lost:?}");
    }
    assert_eq!(edge.ask("GET", "/api/v1/configs/app?recursive=true", "").await.status, 503);
    let whole = edge.ask("GET", "/api/v1/configs/app%2Fllm/model", "").await;
    assert_eq!((whole.status, &whole.body["value"]["name"]), (200, &"a".into()), "{whole:?}");
    let beneath = edge.ask("GET", "/api/v1/configs/app%2Fllm/limit?env=base", "").await;
    assert_eq!(beneath.body["value"].as_u64(), Some(u64::MAX), "{beneath:?}");
    let status = edge.ask("GET", "/api/v1/edge/status", "").await;
    assert!(status.body["warnings"].to_string().contains("damaged"), "{status:?}");
    edge.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_wait_for_the_hub_and_survive_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    drop(filled(directory.path()));
    let edge = Running::start(directory, None).await;
    let queued = edge.ask("PUT", "/api/v1/configs/app%2Fllm/model", r#"{"value": {"name": "b"}}"#).await;
    assert_eq!(queued.status, 202, "{queued:?}");
    assert_eq!((&queued.body["pending"], &queued.body["version"]), (&true.into(), &1.into()), "{queued:?}");
    let deleted = edge.ask("DELETE", "/api/v1/configs/app%2Fllm/limit?env=base", "").await;
    assert_eq!(deleted.status, 202, "{deleted:?}");
    let secret = edge.ask("PUT", "/api/v1/configs/app%2Fllm/key", r#"{"value": "s", "secret": true}"#).await;
    assert_eq!(secret.status, 503);
    let compared =
        edge.ask("PUT", "/api/v1/configs/app%2Fllm/model", r#"{"value": 1, "if_version": 1}"#).await;
    assert_eq!(compared.status, 503);

    let directory = edge.end().await;
    let edge = Running::start(directory, None).await;
    let read = edge.ask("GET", "/api/v1/configs/app%2Fllm/model", "").await;
    assert_eq!((read.status, &read.body["value"]["name"]), (200, &"b".into()), "{read:?}");
    assert!(read.head.contains("x-config-source: pending"), "{}", read.head);
    let gone = edge.ask("GET", "/api/v1/configs/app%2Fllm/limit?resolve=true", "").await;
    assert_eq!(gone.status, 404, "{gone:?}");
    assert_eq!(edge.ask("GET", "/api/v1/edge/status", "").await.body["pending"], 2);
    edge.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_asks_for_the_token_and_health_for_none() {
    let directory = tempfile::tempdir().unwrap();
    drop(filled(directory.path()));
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let edge = Running::start(directory, Some(address)).await;
    let target = "/api/v1/configs/app%2Fllm/model";
    let mut answers = Vec::new();
    for header in ["", "authorization: Bearer wrong\r\n", &format!("authorization: Bearer {TOKEN}\r\n")] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        answers.push(exchange(&mut stream, "GET", target, header, "").await.status);
    }
    assert_eq!(answers, [401, 401, 200]);
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(exchange(&mut stream, "GET", "/health/live", "", "").await.status, 200);
    edge.end().await;
}

#[tokio::test]
async fn what_cannot_begin_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let options = RunOptions { directory: directory.path().to_owned(), ..RunOptions::default() };
    let not_joined = run_until(options.clone(), CancellationToken::new()).await.unwrap_err();
    assert!(not_joined.to_string().contains("join a hub first"), "{not_joined}");
    let long = RunOptions { socket: Some("x".repeat(108).into()), ..options.clone() };
    let refused = run_until(long, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(refused, RunError::Socket(SocketError::TooLong { .. })), "{refused}");
    let open = RunOptions { listen: Some("127.0.0.1:0".parse().unwrap()), ..options };
    let refused = run_until(open, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(refused, RunError::Tcp(TcpError::NoToken)), "{refused}");
}
