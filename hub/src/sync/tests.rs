//! The port as edges see it: real TLS, a real database, the protocol's own client.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use llm_config_proto::join_token::JoinToken;
use llm_config_proto::key_statement::KeyStatement;
use llm_config_proto::possession;
use llm_config_proto::sync::{
    Client, Dial, EnrollReply, EnrollRequest, HubFrames, RefusalKind, RenewReply, RenewRequest, SyncError,
};
use llm_config_proto::tls::{Identity as TlsIdentity, Trust};
use llm_config_shared::entry::{Author, ChangeId, Row};
use llm_config_shared::feed::Binding;
use llm_config_shared::name::{EdgeName, EntryKey, Environment, Key, Namespace, Scope, Subtree, Tenant};
use llm_config_shared::removal::verify_removal;
use llm_config_shared::replication::admit::{ApiSubmission, OpAction, Operation, SetValue};
use llm_config_shared::replication::frame::{
    EdgeFrame, Hello, HubFrame, PROTOCOL, Refusal, Request, Welcome,
};
use llm_config_shared::segment::{Checkpoint, VerificationKeys, verify, verify_checkpoint};
use llm_config_shared::stamp::{ActorId, Hlc, WriteId};
use llm_config_shared::value::Value;
use llm_config_shared::vector::Vector;
use llm_config_shared::write::{Action, Verdict, Write};
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use ring::rand::SystemRandom;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::call::Calls;
use crate::clock;
use crate::guard::Guard;
use crate::identity::join_token;
use crate::journal::SqliteJournal;
use crate::processes::passing::Passing;
use crate::processes::service::HubsService;
use crate::registry::{JoinToken as StoredToken, Registry};
use crate::writer::{WriterHandle, Written};

mod copies;
mod house;
mod hubs;

use house::{House, Hub};

fn tenant() -> Tenant {
    Tenant::parse("default").unwrap()
}

impl Hub {
    async fn token(&self, binding: Binding) -> JoinToken {
        let fingerprint = self.parts.identity.ca().fingerprint();
        let hub = format!("https://{}", self.address);
        let (text, hash) = join_token::generate(&hub, fingerprint, &SystemRandom::new()).unwrap();
        let token = StoredToken {
            id: Uuid::new_v4(),
            tenant: tenant(),
            name: EdgeName::parse("kiosk").unwrap(),
            hash,
            binding,
            labels: Default::default(),
            created_at: clock::now(),
            created_by: "token:admin".into(),
            expires_at: llm_config_shared::time::UnixMillis(clock::now().0 + join_token::TTL_MS),
            max_uses: 1,
            uses: 0,
        };
        self.parts.registry.add_join_token(&token).await.unwrap();
        JoinToken::parse(&text).unwrap()
    }

    async fn set(&self, namespace: &str, key: &str, value: SetValue) -> Vector {
        set(&self.parts.writer, namespace, key, value).await
    }

    async fn edge(&self, binding: Binding) -> Edge {
        let keys = Keys::new();
        let reply = keys.enroll(&self.token(binding).await).await.unwrap();
        Edge { address: self.address.clone(), keys, reply }
    }
}

async fn set(writer: &WriterHandle, namespace: &str, key: &str, value: SetValue) -> Vector {
    let action = OpAction::Set { value, tags: None, description: None };
    let submission = ApiSubmission {
        tenant: tenant(),
        author: Author { name: "token:admin".into(), claimed: None },
        change: None,
        message: None,
        operations: vec![Operation { at: entry(namespace, key), action, if_version: None }],
        atomic: false,
        dry_run: false,
        repeat: None,
    };
    match writer.write(submission, None).await.unwrap() {
        Written::Now { outcomes, position } => {
            assert!(outcomes[0].is_ok(), "{outcomes:?}");
            position
        }
        Written::Before { .. } => panic!("was not sent before"),
    }
}

fn entry(namespace: &str, key: &str) -> EntryKey {
    let scope = Scope {
        tenant: tenant(),
        environment: Environment::base(),
        namespace: Namespace::parse(namespace).unwrap(),
    };
    EntryKey { scope, key: Key::parse(key).unwrap() }
}

fn plain(text: &str) -> SetValue {
    SetValue::Plain { value: Value::parse(text).unwrap(), over_secret: false }
}

fn binding(namespaces: &[&str]) -> Binding {
    Binding {
        namespaces: namespaces.iter().map(|text| Subtree::parse(text).unwrap()).collect(),
        environments: vec![Environment::base()],
        write: vec![Subtree::parse("edges/kiosk").unwrap()],
    }
}

struct Keys {
    pair: KeyPair,
    sealing_key: Vec<u8>,
}

impl Keys {
    fn new() -> Self {
        Self { pair: KeyPair::generate().unwrap(), sealing_key: vec![9; 32] }
    }

    async fn enroll(&self, token: &JoinToken) -> Result<EnrollReply, SyncError> {
        let trust = Trust::Fingerprint(token.ca_fingerprint);
        let address = token.hub.strip_prefix("https://").unwrap().to_owned();
        let mut client = Client::connect(&Dial { address, trust, identity: None }).await?;
        let public_key = self.pair.subject_public_key_info();
        let message = possession::join_message(&token.secret, &public_key, &self.sealing_key);
        let request = EnrollRequest {
            secret: token.secret.clone(),
            public_key: public_key.into(),
            sealing_key: self.sealing_key.clone().into(),
            requested_name: None,
            proof: self.pair.sign(&message).unwrap().into(),
        };
        client.enroll(request).await
    }
}

struct Edge {
    address: String,
    keys: Keys,
    reply: EnrollReply,
}

impl Edge {
    fn dial(&self, identity: bool) -> Dial {
        let identity = identity.then(|| TlsIdentity {
            chain_pem: self.reply.credentials.certificate_chain_pem.clone(),
            key_pem: Zeroizing::new(self.keys.pair.serialize_pem()),
        });
        let trust = Trust::Ca { pem: self.reply.credentials.ca_pem.clone() };
        Dial { address: self.address.clone(), trust, identity }
    }

    fn verification(&self) -> VerificationKeys {
        let credentials = &self.reply.credentials;
        let ca = CertificateDer::from_pem_slice(credentials.ca_pem.as_bytes()).unwrap();
        let statement =
            KeyStatement::verify(&ca, &credentials.key_statement, &credentials.key_statement_signature)
                .unwrap();
        VerificationKeys::new(statement.keys.iter().map(|key| (key.id(), *key.as_bytes())))
    }

    async fn connect(&self) -> Result<Talk, SyncError> {
        let mut client = Client::connect(&self.dial(true)).await?;
        let (say, said) = mpsc::channel(16);
        let frames = client.stream(ReceiverStream::new(said)).await?;
        Ok(Talk { say, frames, keys: self.verification(), _client: client })
    }

    /// Connected, welcomed and subscribed from nothing.
    async fn follow(&self, session: u64) -> (Talk, Welcome, Got) {
        let mut talk = self.connect().await.unwrap();
        let welcome = talk.greet(session, Vector::EMPTY).await;
        let feeds = welcome.feeds.iter().map(|feed| (feed.clone(), Vector::EMPTY)).collect();
        talk.say(EdgeFrame::Subscribe { feeds, held: Vec::new() }).await;
        let got = talk.transfer().await;
        (talk, welcome, got)
    }
}

struct Talk {
    say: mpsc::Sender<EdgeFrame>,
    frames: HubFrames,
    keys: VerificationKeys,
    _client: Client,
}

#[derive(Default)]
struct Got {
    transfer: u64,
    rows: Vec<Row>,
    segments: Vec<bytes::Bytes>,
    checkpoints: Vec<Checkpoint>,
    grants: usize,
}

impl Talk {
    async fn say(&self, frame: EdgeFrame) {
        self.say.send(frame).await.unwrap();
    }

    async fn hear(&mut self) -> HubFrame {
        let heard = tokio::time::timeout(Duration::from_secs(20), self.frames.next());
        heard.await.expect("the hub says something").expect("the stream is open").unwrap()
    }

    async fn greet(&mut self, session: u64, floor: Vector) -> Welcome {
        self.say(EdgeFrame::Hello(Hello { protocol: PROTOCOL, incarnation: 1, session, floor, pending: 0 }))
            .await;
        let frame = self.hear().await;
        let HubFrame::Welcome(welcome) = frame else { panic!("not a welcome: {frame:?}") };
        welcome
    }

    /// One transfer, verified and acknowledged.
    async fn transfer(&mut self) -> Got {
        let mut got = Got::default();
        loop {
            match self.hear().await {
                HubFrame::Segment { bytes, .. } => {
                    let verified = verify(&bytes, &self.keys).unwrap();
                    got.rows.extend(verified.open().unwrap().resolve(|_, _| None).unwrap());
                    got.segments.push(bytes);
                }
                HubFrame::Checkpoint { transfer: 0, .. } => {}
                HubFrame::Checkpoint { bytes, .. } => {
                    got.checkpoints.push(verify_checkpoint(&bytes, &self.keys).unwrap());
                }
                HubFrame::Grants(grants) => got.grants += grants.len(),
                HubFrame::OfflineLimit(_) => {}
                HubFrame::End { transfer, feeds } => {
                    assert_eq!(feeds as usize, got.checkpoints.len());
                    got.transfer = transfer;
                    self.say(EdgeFrame::Ack { transfer }).await;
                    return got;
                }
                other => panic!("not of a transfer: {other:?}"),
            }
        }
    }

    /// What becomes of these writes.
    async fn upload(&mut self, writes: Vec<Write>) -> Vec<Verdict> {
        self.say(EdgeFrame::Upload { batch: 1, writes }).await;
        loop {
            match self.hear().await {
                HubFrame::UploadResult { answers, .. } => {
                    return answers.into_iter().map(|answer| answer.verdict).collect();
                }
                HubFrame::End { transfer, .. } => self.say(EdgeFrame::Ack { transfer }).await,
                _ => {}
            }
        }
    }

    async fn refused(&mut self) -> Refusal {
        loop {
            if let HubFrame::Refused { refusal, .. } = self.hear().await {
                return refusal;
            }
        }
    }
}

fn names(rows: &[Row]) -> Vec<&str> {
    let mut names: Vec<_> = rows.iter().map(|row| row.at.key.as_str()).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_token_lets_one_edge_in_and_only_its_key_again() {
    let hub = Hub::start().await;
    let token = hub.token(binding(&["app"])).await;
    let keys = Keys::new();
    let joined = keys.enroll(&token).await.unwrap();
    assert_eq!((joined.tenant, joined.name.as_str()), (tenant(), "kiosk"));
    assert_eq!(joined.default_environment, Environment::base());
    assert_eq!(keys.enroll(&token).await.unwrap().edge, joined.edge, "the same key is the same edge");

    let refused = |result: Result<EnrollReply, SyncError>| match result {
        Err(SyncError::Refused(refusal)) => refusal.kind,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(Keys::new().enroll(&token).await), RefusalKind::TokenUsed);
    let unknown =
        JoinToken { secret: llm_config_proto::join_token::JoinSecret::new([1; 32]), ..token.clone() };
    assert_eq!(refused(Keys::new().enroll(&unknown).await), RefusalKind::TokenUnknown);

    let mut other_hub = token;
    other_hub.ca_fingerprint[0] ^= 1;
    assert!(matches!(Keys::new().enroll(&other_hub).await, Err(SyncError::UntrustedHub(_))));
}

#[tokio::test]
async fn renewal_takes_the_enrolled_key_and_ends_with_removal() {
    let hub = Hub::start().await;
    let edge = hub.edge(binding(&["app"])).await;
    let mut client = Client::connect(&edge.dial(false)).await.unwrap();
    let request = async |client: &mut Client, keys: &Keys| {
        let nonce = client.challenge(edge.reply.edge).await.unwrap().nonce;
        let message = possession::renew_message(&nonce, edge.reply.edge.0, &keys.sealing_key);
        let proof = keys.pair.sign(&message).unwrap().into();
        RenewRequest { edge: edge.reply.edge, nonce, sealing_key: keys.sealing_key.clone().into(), proof }
    };
    let renewal = request(&mut client, &edge.keys).await;
    let RenewReply::Renewed(renewed) = client.renew(renewal.clone()).await.unwrap() else {
        panic!("removed")
    };
    assert_ne!(renewed.certificate_chain_pem, edge.reply.credentials.certificate_chain_pem);
    let kind = |result: Result<_, SyncError>| match result {
        Err(SyncError::Refused(refusal)) => refusal.kind,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("renewed"),
    };
    assert_eq!(kind(client.renew(renewal).await), RefusalKind::NonceUnknown, "a nonce is good once");
    let stranger = request(&mut client, &Keys::new()).await;
    assert_eq!(kind(client.renew(stranger).await), RefusalKind::Unauthenticated);

    let name = EdgeName::parse("kiosk").unwrap();
    assert!(hub.parts.registry.remove_edge(&tenant(), &name, clock::now()).await.unwrap());
    let late = request(&mut client, &edge.keys).await;
    let nonce = late.nonce.clone();
    let RenewReply::Removed(removal) = client.renew(late).await.unwrap() else { panic!("renewed") };
    let signing = hub.parts.identity.signing();
    let keys = VerificationKeys::new([(signing.id(), *signing.verification_key().as_bytes())]);
    assert!(verify_removal(&removal.statement, &keys, &tenant(), edge.reply.edge, &nonce).is_ok());
    let stranger = request(&mut client, &Keys::new()).await;
    assert_eq!(kind(client.renew(stranger).await), RefusalKind::Unauthenticated, "told to nobody else");
    let unknown = RenewRequest { edge: ActorId(Uuid::new_v4()), ..request(&mut client, &edge.keys).await };
    assert_eq!(kind(client.renew(unknown).await), RefusalKind::Removed);
    match edge.connect().await {
        Err(SyncError::Refused(refusal)) => assert_eq!(refusal.kind, RefusalKind::Removed),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("a removed edge was served"),
    }
}

#[tokio::test]
async fn a_stream_needs_a_certificate_of_this_hub() {
    let (hub, other) = (Hub::start().await, Hub::start().await);
    let edge = hub.edge(binding(&["app"])).await;
    let mut anonymous = Client::connect(&edge.dial(false)).await.unwrap();
    let (_say, said) = mpsc::channel(1);
    match anonymous.stream(ReceiverStream::new(said)).await {
        Err(SyncError::Refused(refusal)) => assert_eq!(refusal.kind, RefusalKind::Unauthenticated),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("served without a certificate"),
    }
    let foreign = other.edge(binding(&["app"])).await;
    let dial = Dial { identity: foreign.dial(true).identity, ..edge.dial(false) };
    let refused = match Client::connect(&dial).await {
        Ok(mut client) => {
            let (_say, said) = mpsc::channel(1);
            client.stream(ReceiverStream::new(said)).await.map(|_| ())
        }
        Err(error) => Err(error),
    };
    assert!(matches!(refused, Err(SyncError::CertificateRefused(_) | SyncError::Lost(_))), "{refused:?}");
}

#[tokio::test]
async fn an_edge_follows_its_feeds_and_hears_of_nothing_else() {
    let hub = Hub::start().await;
    hub.set("app/llm", "model", plain(r#""one""#)).await;
    hub.set("other", "hidden", plain("1")).await;
    let edge = hub.edge(binding(&["app"])).await;
    let (mut talk, welcome, got) = edge.follow(1).await;
    assert_eq!(names(&got.rows), ["model"]);
    assert_eq!(got.checkpoints.len(), welcome.feeds.len());
    assert!(got.checkpoints.iter().all(|checkpoint| checkpoint.vector == welcome.head));

    hub.set("other", "hidden", plain("2")).await;
    let position = hub.set("app", "new", plain("[3]")).await;
    let got = talk.transfer().await;
    assert_eq!(names(&got.rows), ["new"], "live, and only what moved");
    assert_eq!((got.checkpoints.len(), &got.checkpoints[0].vector), (1, &position));

    hub.set("app", "key", SetValue::Secret(b"top-secret-text".to_vec().into())).await;
    let got = talk.transfer().await;
    assert_eq!(names(&got.rows), ["key"]);
    assert!(got.segments.iter().all(|bytes| !bytes.windows(10).any(|window| window == b"top-secret")));

    talk.say(EdgeFrame::Ask).await;
    let vector = loop {
        if let HubFrame::Checkpoint { transfer: 0, bytes } = talk.hear().await {
            break verify_checkpoint(&bytes, &talk.keys).unwrap().vector;
        }
    };
    assert_eq!(vector, hub.parts.tail.head().vector());
}

#[tokio::test]
async fn edges_with_the_same_feed_get_the_same_bytes_from_one_building() {
    let hub = Hub::start().await;
    hub.set("app", "a", plain("1")).await;
    let one = hub.edge(binding(&["app"])).await;
    let token = hub.token(binding(&["app"])).await;
    hub.parts
        .registry
        .remove_edge(&tenant(), &EdgeName::parse("nobody").unwrap(), clock::now())
        .await
        .unwrap();
    // Of another name, so that both exist.
    let two_keys = Keys::new();
    let refused = two_keys.enroll(&token).await;
    assert!(matches!(refused, Err(SyncError::Refused(refusal)) if refusal.kind == RefusalKind::NameTaken));

    let (mut first, _, bootstrap) = one.follow(1).await;
    // The newest session wins over the one before it.
    let (mut second, _, again) = one.follow(2).await;
    assert_eq!(first.refused().await, Refusal::Replaced);
    assert_eq!(bootstrap.segments, again.segments, "made once, whoever asks");

    // Between the last change of the feed and now lies another's: both begin at the feed's own.
    hub.set("other", "x", plain("1")).await;
    hub.set("app", "b", plain("2")).await;
    let live = second.transfer().await;
    let header = verify(&live.segments[0], &second.keys).unwrap().header().clone();
    assert_eq!(header.from.iter().next().map(|(_, position)| position.seq), Some(1));
}

#[tokio::test]
async fn writes_of_an_edge_are_decided_and_come_back() {
    let hub = Hub::start().await;
    let edge = hub.edge(binding(&["app"])).await;
    let (mut talk, welcome, _) = edge.follow(1).await;
    let write = |counter: u64, namespace: &str| Write {
        id: WriteId { actor: edge.reply.edge, incarnation: 1, counter },
        hlc: Hlc(welcome.hlc.0 + counter),
        claimed_hlc: None,
        at: entry(namespace, "state"),
        action: Action::Set { value: Value::parse("true").unwrap(), tags: None, description: None },
        author: Author { name: "uid:0".into(), claimed: None },
        made_at: welcome.physical,
        message: None,
        change: ChangeId(Uuid::new_v4()),
        context: Vector::EMPTY,
        without_secrets: false,
        base: None,
    };
    let writes = vec![write(1, "edges/kiosk"), write(2, "app")];
    talk.say(EdgeFrame::Upload { batch: 1, writes: writes.clone() }).await;
    let (mut verdicts, mut rows) = (Vec::new(), Vec::new());
    while verdicts.is_empty() || rows.is_empty() {
        match talk.hear().await {
            HubFrame::UploadResult { batch: 1, answers } => {
                verdicts = answers.into_iter().map(|answer| answer.verdict).collect();
            }
            HubFrame::Segment { bytes, .. } => {
                rows = verify(&bytes, &talk.keys).unwrap().open().unwrap().resolve(|_, _| None).unwrap()
            }
            HubFrame::End { transfer, .. } => talk.say(EdgeFrame::Ack { transfer }).await,
            _ => {}
        }
    }
    assert_eq!(verdicts[0], Verdict::Admitted { version: 1 });
    assert!(matches!(verdicts[1], Verdict::Denied(_)));
    assert_eq!(names(&rows), ["state"]);
}

#[tokio::test]
async fn a_removed_edge_is_cut_off_and_a_changed_one_subscribes_anew() {
    let hub = Hub::start().await;
    let edge = hub.edge(binding(&["app"])).await;
    let (mut talk, _, _) = edge.follow(1).await;
    let fresh = Environment::parse("lab").unwrap();
    hub.parts.registry.set_environment(&tenant(), &fresh, Some(&Environment::base())).await.unwrap();
    hub.parts.roster.recheck();
    assert_eq!(talk.refused().await, Refusal::Resubscribe);

    let (mut talk, _, _) = edge.follow(2).await;
    let name = EdgeName::parse("kiosk").unwrap();
    hub.parts.registry.remove_edge(&tenant(), &name, clock::now()).await.unwrap();
    hub.parts.roster.recheck();
    assert_eq!(talk.refused().await, Refusal::Removed);
}

#[tokio::test]
async fn new_key_epochs_reach_connected_edges() {
    let hub = Hub::start().await;
    let edge = hub.edge(binding(&["app"])).await;
    let (mut talk, _, got) = edge.follow(1).await;
    let mut granted = got.grants > 0;
    while !granted {
        granted = matches!(talk.hear().await, HubFrame::Grants(_));
    }
    hub.parts.secrets.begin_epoch(&tenant(), &[Environment::base()]).await.unwrap();
    hub.parts.roster.recheck();
    let grants = loop {
        match talk.hear().await {
            HubFrame::Grants(grants) if grants.iter().any(|grant| grant.key_epoch == 2) => break grants,
            _ => {}
        }
    };
    assert!(grants.iter().any(|grant| grant.key_epoch == 1), "what was sealed before stays readable");
}

#[tokio::test]
async fn a_forwarded_request_is_answered_and_a_stop_ends_the_stream() {
    let mut hub = Hub::start().await;
    let edge = hub.edge(binding(&["app"])).await;
    let (mut talk, _, _) = edge.follow(1).await;
    let request = Request {
        method: "GET".into(),
        target: "/api/v1/configs/app".into(),
        body: bytes::Bytes::new(),
        caller: "uid:0".into(),
    };
    talk.say(EdgeFrame::Call { id: 7, request }).await;
    let response = loop {
        if let HubFrame::Reply { id: 7, response } = talk.hear().await {
            break response;
        }
    };
    assert_eq!((response.status, &response.body[..]), (200, &b"from the hub"[..]));

    let known = hub.parts.registry.edge(edge.reply.edge).await.unwrap().unwrap();
    assert_eq!(known.last_seen_at, None, "not yet written down");
    hub.stop.take().unwrap().send(()).unwrap();
    assert_eq!(talk.refused().await, Refusal::Busy);
    hub.served.await.unwrap().unwrap();
    let known = hub.parts.registry.edge(edge.reply.edge).await.unwrap().unwrap();
    assert!(known.last_seen_at.is_some() && known.acked_seq == 0);
}

#[tokio::test]
async fn an_edge_that_was_told_more_than_the_hub_knows_is_not_served() {
    let hub = Hub::start().await;
    let edge = hub.edge(binding(&["app"])).await;
    let head = hub.parts.tail.head();
    let mut position = head.position;
    position.seq += 5;
    let mut talk = edge.connect().await.unwrap();
    let floor = Vector::at(head.shard, position);
    talk.say(EdgeFrame::Hello(Hello { protocol: PROTOCOL, incarnation: 1, session: 1, floor, pending: 0 }))
        .await;
    assert_eq!(talk.refused().await, Refusal::Ahead);
}
