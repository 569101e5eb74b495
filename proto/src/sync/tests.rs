//! Every frame there and back, what is refused on the way in, and both ends over a real connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use llm_config_shared::entry::{Author, ChangeId, ChangeType, Content, HistoryRow, Metadata, Status};
use llm_config_shared::feed::{Binding, Environments, Feed};
use llm_config_shared::held::{Held, Span};
use llm_config_shared::limits::{FEEDS_MAX, REPAIR_KEYS_MAX, REPAIR_ROWS_MAX, SPANS_MAX, UPLOAD_WRITES_MAX};
use llm_config_shared::name::{EntryKey, Environment, Key, Namespace, Scope, Subtree, Tenant};
use llm_config_shared::newer::Taken;
use llm_config_shared::replication::admit::{HandIn, Upload};
use llm_config_shared::replication::frame::{
    EdgeFrame, Hello, HubFrame, Refusal, Request, Response, Welcome,
};
use llm_config_shared::replication::repair::{Mark, RepairAnswer, RepairAsk, Sums, Unrepaired};
use llm_config_shared::seal::{SealKey, Suite};
use llm_config_shared::secret::{About, KeyGrant, SealedSecret, SecretType, Told};
use llm_config_shared::stamp::{ActorId, Hlc, Stamp, WriteId};
use llm_config_shared::store::fleet::{FleetPage, Home, RegionSeats};
use llm_config_shared::store::region::{Bookmark, KeyName, RegionAsk, RegionKey, RegionPage, RegionWrite};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::value::Value;
use llm_config_shared::vector::{Dot, Epoch, EpochTable, Epochs, Position, ShardId, Vector};
use llm_config_shared::write::{Action, Answer, Base, Denial, HeldReason, Verdict, Write};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use uuid::Uuid;

use super::*;
use crate::join_token::JoinSecret;
use crate::tls::tests::{Authority, authority};
use crate::tls::{Alpn, Trust, accept_loop, fingerprint, server_config};

mod regions;

use regions::{a_key, a_page, an_ask};

fn position() -> Position {
    Position { epoch: 1 << 62, seq: 77 }
}

fn vector() -> Vector {
    let other = (ShardId(Uuid::from_u128(2)), Position { epoch: 3, seq: 1 });
    Vector::from_positions([(ShardId(Uuid::from_u128(1)), position()), other]).unwrap()
}

fn feed() -> Feed {
    Feed {
        tenant: Tenant::parse("default").unwrap(),
        environment: Environment::parse("production").unwrap(),
        subtree: Subtree::parse("app/llm").unwrap(),
        secrets: true,
    }
}

fn write_id(counter: u64) -> WriteId {
    WriteId { actor: ActorId(Uuid::from_u128(9)), incarnation: 5, counter }
}

fn write(counter: u64, action: Action) -> Write {
    let scope = Scope {
        tenant: Tenant::parse("default").unwrap(),
        environment: Environment::base(),
        namespace: Namespace::parse("app/llm").unwrap(),
    };
    Write {
        id: write_id(counter),
        hlc: Hlc(1_000),
        claimed_hlc: Some(Hlc(2_000)),
        at: EntryKey { scope, key: Key::parse("model").unwrap() },
        action,
        author: Author { name: "uid:0".into(), claimed: Some("me".into()) },
        made_at: UnixMillis(3),
        message: Some("why".into()),
        change: ChangeId(Uuid::from_u128(4)),
        context: vector(),
        without_secrets: false,
        base: Some(Base {
            stamp: Stamp { hlc: Hlc(1), id: write_id(1) },
            change: ChangeId(Uuid::from_u128(5)),
        }),
    }
}

fn set(tags: Option<Vec<Arc<str>>>) -> Action {
    let value = Value::parse(r#"{"big":9007199254740993,"none":null}"#).unwrap();
    Action::Set { value, tags, description: Some("text".into()) }
}

fn about() -> About {
    let told = Told { secret_type: SecretType::JwtSigningKey, expires_at: Some(UnixMillis(1 << 41)) };
    About { told, suite: Suite::Aes256Gcm }
}

fn sealed() -> Action {
    let (body, wrap) = (Bytes::from_static(&[1; 60]), Bytes::from_static(&[2; 72]));
    Action::Sealed(SealedSecret { key_epoch: 1 << 62, version: 7, about: about(), body, wrap })
}

fn edge_frames() -> Vec<EdgeFrame> {
    let writes =
        vec![write(1, set(None)), write(2, set(Some(vec![]))), write(3, set(Some(vec!["a".into()]))), {
            let deletion = write(4, Action::Delete);
            Write { claimed_hlc: None, message: None, base: None, context: Vector::EMPTY, ..deletion }
        }];
    let request = Request {
        method: "GET".into(),
        target: "/api/v1/configs/a/b/history?env=base".into(),
        body: Bytes::from_static(b"{}"),
        caller: "uid:0".into(),
    };
    vec![
        EdgeFrame::Hello(Hello { protocol: 1, incarnation: 2, session: 3, floor: vector(), pending: 4 }),
        EdgeFrame::Upload { batch: 9, writes: writes.clone() },
        EdgeFrame::HandIn { batch: 10, writes: [writes, vec![write(5, sealed())]].concat() },
        EdgeFrame::Subscribe {
            feeds: vec![(feed(), vector()), (feed(), Vector::EMPTY)],
            held: vec![(feed(), held()), (feed(), Held::default())],
        },
        EdgeFrame::Ack { transfer: u64::MAX },
        EdgeFrame::Ask,
        EdgeFrame::Call { id: 3, request },
        EdgeFrame::Repair { repair: 1, ask: RepairAsk::Compare { feed: feed(), at: vector(), sums: sums() } },
        EdgeFrame::Repair { repair: 2, ask: RepairAsk::Rows { keys: vec![0, 1, u64::MAX] } },
    ]
}

fn held() -> Held {
    let through = Some(write(4, Action::Delete).at);
    let spans = vec![Span { through, to: vector() }, Span { through: None, to: Vector::EMPTY }];
    Held { from: vector(), spans }
}

fn sums() -> Sums {
    let bytes: Vec<u8> = (0..4_096_u32).map(|n| (n * 7 % 251) as u8).collect();
    Sums::from_bytes(&bytes).unwrap()
}

fn welcome() -> Welcome {
    Welcome {
        shard: ShardId(Uuid::from_u128(1)),
        epochs: Epochs::from_parts(
            [1, 10].map(|n| {
                (
                    ShardId(Uuid::from_u128(n)),
                    EpochTable::new(vec![Epoch { ordinal: 0, epoch: 1 << 62, start_seq: 0 }]),
                )
            }),
            [Dot { shard: ShardId(Uuid::from_u128(10)), position: Position { epoch: 4, seq: 9 } }],
        ),
        head: vector(),
        physical: UnixMillis(5),
        hlc: Hlc(6),
        epsilon_ms: 500,
        heartbeat_ms: 30_000,
        feeds: vec![feed(), Feed { subtree: Subtree::ALL, secrets: false, ..feed() }],
        environments: Environments::standard(),
        default_environment: Environment::base(),
        write: vec![Subtree::ALL],
        lost_history: None,
        takes_newer: false,
        copied: false,
        carry_key: Some(Box::new([7; 32])),
    }
}

fn hub_frames() -> Vec<HubFrame> {
    let verdicts = [
        Verdict::Admitted { version: 1 },
        Verdict::Lost { version: 2, to: 1 },
        Verdict::Held(HeldReason::ClockAhead),
        Verdict::Held(HeldReason::ConcurrentSecret),
        Verdict::Held(HeldReason::Policy),
        Verdict::Held(HeldReason::Newer),
        Verdict::Denied(Denial::Policy),
        Verdict::Denied(Denial::Namespace),
        Verdict::Denied(Denial::Environment),
        Verdict::Denied(Denial::Reused),
        Verdict::Duplicate,
        Verdict::Reidentify,
    ];
    let dot = Dot { shard: ShardId(Uuid::from_u128(1)), position: position() };
    let answers = verdicts.into_iter().zip([Some(dot), None].into_iter().cycle());
    let answers = answers.map(|(verdict, current)| Answer { id: write_id(1), verdict, current });
    let grant = KeyGrant {
        environment: Environment::base(),
        subtree: Subtree::ALL,
        key_epoch: 1,
        encapsulated: Bytes::from_static(&[1; 32]),
        ciphertext: Bytes::from_static(&[2; 48]),
    };
    let response = Response {
        status: 404,
        headers: vec![("content-type".into(), "application/json".into())],
        body: Bytes::from_static(b"{}"),
    };
    let refusals = [
        Refusal::Behind,
        Refusal::Ahead,
        Refusal::Removed,
        Refusal::Replaced,
        Refusal::Resubscribe,
        Refusal::Busy,
        Refusal::Protocol("why".into()),
    ];
    let mut frames = vec![
        HubFrame::Welcome(welcome()),
        HubFrame::Welcome(Welcome { lost_history: Some(Bytes::from_static(b"statement")), ..welcome() }),
        HubFrame::Welcome(Welcome { copied: true, takes_newer: true, ..welcome() }),
        HubFrame::UploadResult { batch: 9, answers: answers.collect() },
        HubFrame::Taken {
            batch: 10,
            taken: Taken { known: 1, admitted: 2, held: 3, denied: 4, discarded: 5, refused: 6, left_out: 7 },
        },
        HubFrame::Grants(vec![grant]),
        HubFrame::Segment { transfer: 1, bytes: Bytes::from_static(b"segment") },
        HubFrame::Checkpoint { transfer: 0, bytes: Bytes::from_static(b"checkpoint") },
        HubFrame::End { transfer: 1, feeds: 2 },
        HubFrame::Reply { id: 3, response },
    ];
    let marks = vec![Mark { key: 1 << 63, row: 7 }, Mark { key: u64::MAX, row: 0 }];
    let answers = [
        RepairAnswer::Differing { buckets: vec![0, 128, 255], marks },
        RepairAnswer::Rows(Bytes::from_static(b"segment")),
        RepairAnswer::Not(Unrepaired::Moved),
        RepairAnswer::Not(Unrepaired::Unfit),
        RepairAnswer::Not(Unrepaired::Busy),
    ];
    frames.extend(answers.map(|answer| HubFrame::Repair { repair: 4, answer }));
    frames.extend(refusals.map(|refusal| HubFrame::Refused { refusal, retry_after_ms: 250 }));
    frames
}

#[test]
fn every_frame_comes_back_as_it_went() {
    for frame in edge_frames() {
        let bytes = wire::EdgeMessage::from(frame.clone()).encode_to_vec();
        assert_eq!(EdgeFrame::try_from(wire::EdgeMessage::decode(&bytes[..]).unwrap()), Ok(frame));
    }
    for frame in hub_frames() {
        let bytes = wire::HubMessage::from(frame.clone()).encode_to_vec();
        assert_eq!(HubFrame::try_from(wire::HubMessage::decode(&bytes[..]).unwrap()), Ok(frame));
    }
}

#[test]
fn a_segment_is_the_same_bytes_in_every_message() {
    let bytes = Bytes::from(vec![7; 100]);
    let message = wire::HubMessage::from(HubFrame::Segment { transfer: 1, bytes: bytes.clone() });
    let Some(wire::hub_message::Frame::Segment(part)) = message.frame else { panic!("a segment went in") };
    assert_eq!(part.bytes.as_ptr(), bytes.as_ptr());
}

#[test]
fn what_breaks_the_protocol_is_refused_by_name() {
    let parse = |frame| EdgeFrame::try_from(wire::EdgeMessage { frame }).unwrap_err();
    assert_eq!(parse(None), InvalidMessage::Missing { field: "frame" });

    let one = wire::Write::from(&write(1, set(None)));
    let refused = |change: fn(&mut wire::Write)| {
        let mut write = one.clone();
        change(&mut write);
        let upload = wire::Upload { batch: 1, writes: vec![write] };
        parse(Some(wire::edge_message::Frame::Upload(upload)))
    };
    assert!(matches!(refused(|write| write.hlc = 1 << 63), InvalidMessage::TooLarge { field: "hlc", .. }));
    assert!(matches!(refused(|write| write.change = Bytes::new()), InvalidMessage::Length { .. }));
    assert!(matches!(refused(|write| write.at.as_mut().unwrap().key = "ü".into()), InvalidMessage::Name(_)));
    assert!(matches!(refused(|write| write.author = "x".repeat(5_000)), InvalidMessage::TooMany { .. }));
    let bad = wire::Set { value: "{".into(), tags: None, description: None };
    let mut write = one.clone();
    write.action = Some(wire::write::Action::Set(bad));
    let upload = |writes| Some(wire::edge_message::Frame::Upload(wire::Upload { batch: 1, writes }));
    assert!(matches!(parse(upload(vec![write])), InvalidMessage::Value(_)));
    assert!(matches!(
        parse(upload(vec![one.clone(); UPLOAD_WRITES_MAX + 1])),
        InvalidMessage::TooMany { field: "writes", .. }
    ));

    let feeds = vec![wire::FeedFrom::default(); FEEDS_MAX + 1];
    let subscribe = wire::edge_message::Frame::Subscribe(wire::Subscribe { feeds, held: Vec::new() });
    assert!(matches!(parse(Some(subscribe)), InvalidMessage::TooMany { field: "feeds", .. }));
    let spans = vec![wire::HeldSpan::default(); SPANS_MAX + 1];
    let held = vec![wire::FeedHeld { spans, ..wire::FeedHeld::default() }];
    let subscribe = wire::edge_message::Frame::Subscribe(wire::Subscribe { feeds: Vec::new(), held });
    assert!(matches!(parse(Some(subscribe)), InvalidMessage::TooMany { field: "spans", .. }));
    let place = wire::Position { shard: Bytes::from_static(&[0; 16]), epoch: 0, seq: 0 };
    let floor = Some(wire::Vector { positions: vec![place; 9] });
    let hello = wire::Hello { floor, ..wire::Hello::default() };
    assert!(matches!(parse(Some(wire::edge_message::Frame::Hello(hello))), InvalidMessage::Vector(_)));
}

#[test]
fn hashes_of_a_wrong_number_or_length_are_refused_before_they_are_read() {
    let ask = |ask| {
        let repair = wire::edge_message::Frame::Repair(wire::Repair { repair: 1, ask: Some(ask) });
        EdgeFrame::try_from(wire::EdgeMessage { frame: Some(repair) }).unwrap_err()
    };
    let compare =
        wire::CompareSums { feed: Some((&feed()).into()), at: None, sums: Bytes::from(vec![0; 4_095]) };
    let refused = ask(wire::repair::Ask::Compare(compare));
    assert_eq!(refused, InvalidMessage::Length { field: "sums", length: 4_095, expected: 4_096 });
    let rows = |length| ask(wire::repair::Ask::Rows(wire::FetchRows { keys: Bytes::from(vec![0; length]) }));
    assert!(matches!(rows(9), InvalidMessage::Length { field: "keys", .. }));
    assert!(matches!(rows(8 * (REPAIR_KEYS_MAX + 1)), InvalidMessage::TooMany { field: "keys", .. }));

    let marks = Bytes::from(vec![0; 16 * (REPAIR_ROWS_MAX + 1)]);
    let differing = wire::DifferingRows { buckets: Bytes::new(), marks };
    let answer = Some(wire::repair_answer::Answer::Differing(differing));
    let frame = wire::hub_message::Frame::Repair(wire::RepairAnswer { repair: 1, answer });
    let refused = HubFrame::try_from(wire::HubMessage { frame: Some(frame) });
    assert!(matches!(refused, Err(InvalidMessage::TooMany { field: "marks", .. })));
}

#[test]
fn the_frames_of_a_repair_take_little_more_than_their_hashes() {
    let (marks, keys) = (vec![Mark { key: u64::MAX, row: u64::MAX }; 400], vec![u64::MAX; 3]);
    let compare =
        EdgeFrame::Repair { repair: 1, ask: RepairAsk::Compare { feed: feed(), at: vector(), sums: sums() } };
    let rows = EdgeFrame::Repair { repair: 1, ask: RepairAsk::Rows { keys } };
    let listed = HubFrame::Repair { repair: 1, answer: RepairAnswer::Differing { buckets: vec![7], marks } };
    let up = |frame: EdgeFrame| wire::EdgeMessage::from(frame).encoded_len();
    assert!(up(compare) < 4_096 + 256 && up(rows) < 24 + 256);
    assert!(wire::HubMessage::from(listed).encoded_len() < 16 * 400 + 256);
}

fn credentials() -> Credentials {
    Credentials {
        certificate_chain_pem: "chain".into(),
        ca_pem: "ca".into(),
        key_statement: Bytes::from_static(&[8; 41]),
        key_statement_signature: Bytes::from_static(&[9; 64]),
    }
}

fn enrol_reply() -> EnrollReply {
    EnrollReply {
        edge: ActorId(Uuid::from_u128(3)),
        tenant: Tenant::parse("default").unwrap(),
        name: llm_config_shared::name::EdgeName::parse("kiosk-7").unwrap(),
        credentials: credentials(),
        binding: Binding::everything(),
        default_environment: Environment::parse("production").unwrap(),
    }
}

fn enrol_request() -> EnrollRequest {
    EnrollRequest {
        secret: JoinSecret::new([1; 32]),
        public_key: Bytes::from_static(b"key"),
        sealing_key: Bytes::from_static(b"sealing"),
        requested_name: None,
        proof: Bytes::from_static(b"proof"),
    }
}

/// Answers what it was asked, and echoes a session: an `Ask` gets all the hub's frames.
struct Echo;

impl SyncEndpoint for Echo {
    async fn enroll(&self, peer: Peer, request: EnrollRequest) -> Result<EnrollReply, SyncRefusal> {
        assert!(peer.certificates.is_none());
        assert!(request == enrol_request());
        Ok(enrol_reply())
    }

    async fn challenge(&self, _: Peer, edge: ActorId) -> Result<Challenge, SyncRefusal> {
        Ok(Challenge { nonce: Bytes::copy_from_slice(edge.0.as_bytes()) })
    }

    async fn renew(&self, _: Peer, _: RenewRequest) -> Result<RenewReply, SyncRefusal> {
        Err(SyncRefusal::busy("not now", Duration::from_millis(1_500)))
    }

    async fn report_wipe(&self, _: Peer, _: WipeReport) -> Result<(), SyncRefusal> {
        Ok(())
    }

    async fn stream(&self, peer: Peer, mut frames: EdgeFrames) -> Result<HubOut, SyncRefusal> {
        if peer.certificates.is_none() {
            return Err(SyncRefusal::new(RefusalKind::Unauthenticated, "a client certificate is required"));
        }
        for expected in edge_frames() {
            assert_eq!(frames.next().await.unwrap().unwrap(), expected);
        }
        Ok(Box::pin(tokio_stream::iter(hub_frames())))
    }
}

/// Answers with what it was given, and knows everybody with a certificate.
struct EchoHubs;

impl HubsEndpoint for EchoHubs {
    fn judge(&self, peer: &Peer) -> Result<(), SyncRefusal> {
        let refused = || SyncRefusal::new(RefusalKind::Unauthenticated, "not a process of this hub");
        peer.certificates.as_ref().map(|_| ()).ok_or_else(refused)
    }

    async fn pass(&self, request: PassedRequest) -> Result<Response, SyncRefusal> {
        assert_eq!(request, passed(request.asker.clone()));
        Ok(Response { status: 201, headers: vec![("etag".into(), "\"1\"".into())], body: request.body })
    }

    async fn admit(&self, upload: Upload) -> Result<Vec<Answer>, SyncRefusal> {
        assert_eq!(format!("{upload:?}"), format!("{:?}", an_upload()));
        Ok(vec![Answer { id: write_id(1), verdict: Verdict::Duplicate, current: None }])
    }

    async fn follow(&self, ask: RegionAsk) -> Result<RegionPage, SyncRefusal> {
        assert_eq!(ask, an_ask());
        Ok(a_page())
    }

    async fn keys(&self, after: Option<KeyName>) -> Result<Vec<RegionKey>, SyncRefusal> {
        Ok(if after.is_some() { Vec::new() } else { vec![a_key()] })
    }

    async fn fleet(&self, after: u64) -> Result<FleetPage, SyncRefusal> {
        let region = ShardId(Uuid::from_u128(1));
        Ok(FleetPage { region, home: Home { region, term: 1 }, rows: vec![], read: after, more: false })
    }

    async fn seats(&self, region: ShardId) -> Result<RegionSeats, SyncRefusal> {
        Ok(RegionSeats { head: 3, has: 2, edges: vec![(ActorId(region.0), 3)] })
    }

    async fn join(&self, join: PassedJoin) -> Result<Joined, SyncRefusal> {
        assert_eq!(join.requested_name, None);
        Ok(Joined::Refused(JoinRefused::Used))
    }

    async fn take_in(&self, hand_in: HandIn) -> Result<Taken, SyncRefusal> {
        assert_eq!(format!("{hand_in:?}"), format!("{:?}", a_hand_in()));
        Ok(Taken { known: 1, held: 2, ..Taken::default() })
    }
}

fn a_hand_in() -> HandIn {
    let Upload { edge, tenant, write, feeds, environments, writes, .. } = an_upload();
    let name = "kiosk-7".into();
    HandIn { edge, name, tenant, write, feeds, environments, new_epoch: 1 << 62, writes }
}

fn passed(asker: Asker) -> PassedRequest {
    let (method, target) = ("PUT".into(), "/api/v1/configs/a/b".into());
    PassedRequest { method, target, body: Bytes::from_static(b"{}"), asker, from_region: false }
}

fn an_upload() -> Upload {
    Upload {
        edge: ActorId(Uuid::from_u128(9)),
        tenant: Tenant::parse("default").unwrap(),
        write: vec![Subtree::ALL, Subtree::parse("app").unwrap()],
        feeds: vec![feed()],
        environments: Environments::standard(),
        session: 7,
        first: true,
        writes: vec![write(1, set(None)), write(2, Action::Delete)],
    }
}

async fn hub(authority: &Authority) -> (String, tokio::sync::oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = server_config(&authority.hub, Some(&authority.ca_pem), Alpn::H2).unwrap();
    let connections = accept_loop(listener, watch::channel(config).1);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let shutdown = async {
        let _ = stopped.await;
    };
    let (edges, hubs) = (Arc::new(Echo), Arc::new(EchoHubs));
    tokio::spawn(serve(edges, hubs, connections, ServerLimits::default(), shutdown));
    (address, stop)
}

#[tokio::test]
async fn an_edge_that_knows_only_the_fingerprint_enrols_and_is_refused_the_rest() {
    let authority = authority();
    let (address, _stop) = hub(&authority).await;
    let trust = Trust::Fingerprint(fingerprint(&authority.ca_pem).unwrap());
    let mut client = Client::connect(&Dial { address, trust, identity: None }).await.unwrap();
    assert_eq!(fingerprint(client.ca_pem().unwrap()).unwrap(), fingerprint(&authority.ca_pem).unwrap());
    assert_eq!(client.enroll(enrol_request()).await.unwrap(), enrol_reply());
    let edge = ActorId(Uuid::from_u128(3));
    let nonce = client.challenge(edge).await.unwrap().nonce;
    assert_eq!(&nonce[..], edge.0.as_bytes());
    let request = RenewRequest {
        edge,
        nonce,
        sealing_key: Bytes::from_static(&[1; 32]),
        proof: Bytes::from_static(b"proof"),
    };
    let Err(SyncError::Refused(refusal)) = client.renew(request).await else { panic!("busy") };
    assert_eq!(refusal, SyncRefusal::busy("not now", Duration::from_millis(1_500)));
    let Err(SyncError::Refused(refusal)) = client.stream(tokio_stream::empty()).await else {
        panic!("no certificate was shown")
    };
    assert_eq!(refusal.kind, RefusalKind::Unauthenticated);
}

#[tokio::test]
async fn a_session_carries_every_frame_in_both_directions() {
    let authority = authority();
    let (address, _stop) = hub(&authority).await;
    let trust = Trust::Ca { pem: authority.ca_pem.clone() };
    let identity = Some(authority.edge.clone());
    let mut client = Client::connect(&Dial { address, trust, identity }).await.unwrap();
    let frames = client.stream(tokio_stream::iter(edge_frames())).await.unwrap();
    let heard: Vec<HubFrame> = frames.map(|frame| frame.unwrap()).collect().await;
    assert_eq!(heard, hub_frames());
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused_and_so_is_a_hub_of_another() {
    let (ours, other) = (authority(), authority());
    let (address, _stop) = hub(&ours).await;
    let dial = |trust_in: &Authority, identity: &Authority| Dial {
        address: address.clone(),
        trust: Trust::Ca { pem: trust_in.ca_pem.clone() },
        identity: Some(identity.edge.clone()),
    };
    let Err(error) = Client::connect(&dial(&other, &ours)).await else { panic!("another CA's hub") };
    assert!(matches!(error, SyncError::UntrustedHub(_)), "{error}");
    // The client's half of the handshake is done before the hub looks: the refusal comes with either step.
    let refused = match Client::connect(&dial(&ours, &other)).await {
        Ok(mut client) => client.stream(tokio_stream::empty()).await.err(),
        Err(error) => Some(error),
    };
    assert!(matches!(refused, Some(SyncError::CertificateRefused(_) | SyncError::Lost(_))), "{refused:?}");
}

#[tokio::test]
async fn a_hub_that_is_not_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let trust = Trust::Fingerprint([0; 32]);
    let Err(error) = Client::connect(&Dial { address, trust, identity: None }).await else {
        panic!("nobody")
    };
    assert!(matches!(error, SyncError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn what_is_passed_to_the_leader_arrives_as_it_went_and_only_from_those_it_knows() {
    let authority = authority();
    let (address, _stop) = hub(&authority).await;
    let trust = Trust::Ca { pem: authority.ca_pem.clone() };
    let dial = Dial { address, trust, identity: Some(authority.edge.clone()) };
    let mut client = HubsClient::connect(&dial).await.unwrap();
    let authorization = zeroize::Zeroizing::new("Bearer lcm_secret".to_owned());
    let token = Asker::Token { authorization, address: "10.0.0.7".parse().unwrap() };
    assert!(!format!("{:?}", passed(token.clone())).contains("lcm_secret"));
    for asker in [token, Asker::Edge { edge: ActorId(Uuid::from_u128(3)), caller: "uid:0".into() }] {
        let answer = client.pass(passed(asker)).await.unwrap();
        assert_eq!((answer.status, &answer.body[..], answer.headers.len()), (201, &b"{}"[..], 1));
    }
    assert_eq!(client.admit(&an_upload()).await.unwrap()[0].verdict, Verdict::Duplicate);
    assert_eq!(client.follow(&an_ask()).await.unwrap(), a_page());
    assert_eq!(client.keys(None).await.unwrap(), [a_key()]);
    assert_eq!(client.keys(Some(&a_key().name)).await.unwrap(), []);
    assert_eq!(client.take_in(&a_hand_in()).await.unwrap(), Taken { known: 1, held: 2, ..Taken::default() });

    let mut stranger = HubsClient::connect(&Dial { identity: None, ..dial }).await.unwrap();
    let Err(SyncError::Refused(refusal)) = stranger.admit(&an_upload()).await else { panic!("served") };
    assert_eq!(refusal.kind, RefusalKind::Unauthenticated);
}
