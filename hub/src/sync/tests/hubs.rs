//! Two processes of one hub: what one passes on, the other does; and nobody else may ask for it.

use std::net::SocketAddr;

use axum::Extension;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::middleware::from_fn_with_state;
use axum::routing::put;
use http::header::AUTHORIZATION;
use llm_config_proto::rest::position;
use llm_config_proto::rest::service::Caller;
use llm_config_proto::sync::{Asker, HubsClient, HubsEndpoint as _, PassedRequest};
use llm_config_shared::access::Role as ApiRole;
use llm_config_shared::newer::Taken;
use llm_config_shared::replication::admit::{HandIn, Upload};
use llm_config_shared::store::Journal as _;
use llm_config_shared::time::UnixMillis;
use tower::ServiceExt as _;

use super::*;
use crate::guard::edge_caller;
use crate::identity::api_token;
use crate::processes::passing::{Through, pass_on};
use crate::registry::ApiToken;

/// One leads, the other follows. `PUT /api/v1/write/{value}` writes, and says where and for whom.
async fn two() -> (House, Hub, Hub) {
    let house = House::new().await;
    let leads = Hub::start_in(&house, writing).await;
    let follows = Hub::start_in(&house, writing).await;
    assert!(follows.parts.writer.role().is_elsewhere());
    (house, leads, follows)
}

fn writing(passing: Passing) -> Router {
    let writer = passing.writer().clone();
    let write = async move |Extension(caller): Extension<Caller>| {
        let position = set(&writer, "app", "passed", plain("1")).await;
        ([("x-config-position", position::encode(&position))], caller.name.to_string())
    };
    Router::new()
        .route("/api/v1/write", put(write).get(|| async { "read here" }))
        .route_layer(from_fn_with_state(passing, pass_on))
}

async fn admin_token(house: &House) -> (ApiToken, Zeroizing<String>) {
    let (text, hash) = api_token::generate(&SystemRandom::new()).unwrap();
    let token = ApiToken {
        id: Uuid::new_v4(),
        tenant: tenant(),
        name: "ci".to_owned(),
        hash,
        role: ApiRole::Admin,
        created_at: UnixMillis(1),
        created_by: "test".to_owned(),
        expires_at: None,
    };
    house.journal.add_token(&token).await.unwrap();
    (token, text)
}

fn caller(name: &str) -> Caller {
    Caller {
        tenant: tenant(),
        name: name.into(),
        role: ApiRole::Admin,
        read: None,
        write: None,
        reveal: true,
    }
}

/// As the door of the API hands it in.
fn at_the_door(method: &str, token: &str) -> http::Request<Body> {
    let mut request = http::Request::builder().method(method).uri("/api/v1/write");
    request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    let mut request = request.body(Body::from("{}")).unwrap();
    request.extensions_mut().insert(caller("token:as the follower says"));
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([10, 0, 0, 7], 1))));
    request
}

async fn text(response: axum::response::Response) -> String {
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8_lossy(&body).into_owned()
}

#[tokio::test]
async fn a_write_is_passed_on_with_the_callers_own_token_and_answered_once_it_is_known_here() {
    let (house, leads, follows) = two().await;
    let (token, secret) = admin_token(&house).await;
    let routes = writing(Passing::new(
        follows.parts.writer.clone(),
        Arc::clone(&follows.parts.line),
        Arc::clone(&follows.parts.tail),
    ));
    for seq in 1..=3 {
        let answer = routes.clone().oneshot(at_the_door("PUT", &secret)).await.unwrap();
        assert_eq!(answer.status(), 200);
        let written = answer.headers()["x-config-position"].to_str().unwrap().to_owned();
        let here = follows.parts.tail.head();
        assert!(
            here.vector().covers(&position::parse(&written).unwrap()),
            "the answer is for a hub that knows"
        );
        assert_eq!(
            (here.position.seq, text(answer).await.as_str()),
            (seq, "token:ci"),
            "not as the follower says"
        );
    }
    assert_eq!(
        house.journal.head().await.unwrap().own_epochs().epochs().len(),
        1,
        "nobody took the lead from anybody"
    );
    let read = routes.clone().oneshot(at_the_door("GET", &secret)).await.unwrap();
    assert_eq!(text(read).await, "read here");

    // The one that leads believes only what it sees itself.
    house.journal.remove_token(&tenant(), token.id).await.unwrap();
    let wrong = routes.clone().oneshot(at_the_door("PUT", "lcm_wrong")).await.unwrap();
    assert_eq!(wrong.status(), 401);
    drop(leads);
}

#[tokio::test]
async fn a_caller_at_an_edge_writes_through_the_process_that_the_edge_is_connected_to() {
    let (_house, _leads, follows) = two().await;
    let edge = follows.edge(binding(&["app"])).await;
    let known = follows.parts.registry.edge(edge.reply.edge).await.unwrap().unwrap();
    let environments = follows.parts.registry.environments(&tenant()).await.unwrap();
    let request = Request {
        method: "PUT".into(),
        target: "/api/v1/write".into(),
        body: "{}".into(),
        caller: "uid:7".into(),
    };
    let through = Through::Edge { edge: known.id, caller: "uid:7".into() };
    let caller = edge_caller(&known, &environments, "uid:7");
    let answer = follows.parts.calls.answer(caller.clone(), through.clone(), request.clone()).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"edge:kiosk/uid:7"[..]));

    follows.parts.registry.remove_edge(&tenant(), &known.name, clock::now()).await.unwrap();
    let answer = follows.parts.calls.answer(caller, through, request).await;
    assert_eq!(answer.status, 503, "the one that leads does not know it any more");
}

#[tokio::test]
async fn an_edge_uploads_wherever_it_is_connected() {
    let (house, leads, follows) = two().await;
    let edge = follows.edge(binding(&["app"])).await;
    let (mut talk, welcome, _) = edge.follow(1).await;
    let write = |counter: u64| Write {
        id: WriteId { actor: edge.reply.edge, incarnation: 1, counter },
        hlc: Hlc(welcome.hlc.0 + counter),
        claimed_hlc: None,
        at: entry("edges/kiosk", &format!("k{counter}")),
        action: Action::Set { value: Value::parse("true").unwrap(), tags: None, description: None },
        author: Author { name: "uid:0".into(), claimed: None },
        made_at: welcome.physical,
        message: None,
        change: ChangeId(Uuid::from_u128(u128::from(counter))),
        context: Vector::EMPTY,
        without_secrets: false,
        base: None,
    };
    assert_eq!(talk.upload(vec![write(1), write(2)]).await, [const { Verdict::Admitted { version: 1 } }; 2]);
    assert_eq!(leads.parts.tail.head().position.seq, 2, "decided there");
    drop(talk);
    let mut heads = follows.parts.tail.subscribe();
    let heard = tokio::time::timeout(Duration::from_secs(20), heads.wait_for(|head| head.position.seq == 2));
    drop(heard.await.expect("it asks the database now and then").unwrap());
    let (mut again, _, got) = edge.follow(2).await;
    assert_eq!(names(&got.rows), ["k1", "k2"]);
    assert_eq!(again.upload(vec![write(2)]).await, [Verdict::Duplicate]);
    assert_eq!(house.journal.head().await.unwrap().own_epochs().epochs().len(), 1);
}

#[tokio::test]
async fn an_edges_certificate_opens_nothing_between_hubs_and_a_hubs_nothing_for_edges() {
    let (_house, leads, _follows) = two().await;
    let edge = leads.edge(binding(&["app"])).await;
    let refused = |error: SyncError| match error {
        SyncError::Refused(refusal) => refusal.kind,
        other => panic!("{other:?}"),
    };
    let asker = Asker::Edge { edge: edge.reply.edge, caller: "uid:0".into() };
    let request = PassedRequest {
        method: "PUT".into(),
        target: "/api/v1/write".into(),
        body: bytes::Bytes::new(),
        asker,
        from_region: false,
    };
    for identity in [true, false] {
        let mut client = HubsClient::connect(&edge.dial(identity)).await.unwrap();
        let error = client.pass(request.clone()).await.unwrap_err();
        assert_eq!(refused(error), RefusalKind::Unauthenticated);
        let error = client.admit(&nothing(&edge)).await.unwrap_err();
        assert_eq!(refused(error), RefusalKind::Unauthenticated);
        let error = client.take_in(&made_up(&edge, 1)).await.unwrap_err();
        assert_eq!(refused(error), RefusalKind::Unauthenticated);
    }

    let process = leads.parts.identity.ca().issue_process(Uuid::new_v4(), clock::now()).unwrap();
    let dial = Dial { identity: Some(process), ..edge.dial(false) };
    let mut between = HubsClient::connect(&dial).await.unwrap();
    assert_eq!(between.pass(request).await.unwrap().status, 200);
    let mut client = Client::connect(&dial).await.unwrap();
    let (_say, said) = mpsc::channel(1);
    let error = client.stream(ReceiverStream::new(said)).await.err().expect("it is no edge");
    assert_eq!(refused(error), RefusalKind::Unauthenticated);
}

fn nothing(edge: &Edge) -> Upload {
    Upload {
        edge: edge.reply.edge,
        tenant: tenant(),
        write: vec![],
        feeds: vec![],
        environments: llm_config_shared::feed::Environments::standard(),
        session: 1,
        first: true,
        writes: vec![],
    }
}

/// Of a loss that there was not.
fn made_up(edge: &Edge, counter: u64) -> HandIn {
    let Upload { edge: id, tenant, write, feeds, environments, .. } = nothing(edge);
    let write_of = Write {
        id: WriteId { actor: id, incarnation: 1, counter },
        hlc: Hlc(counter),
        claimed_hlc: None,
        at: entry("edges/kiosk", "k"),
        action: Action::Delete,
        author: Author { name: "uid:0".into(), claimed: None },
        made_at: UnixMillis(1),
        message: None,
        change: ChangeId(Uuid::nil()),
        context: Vector::EMPTY,
        without_secrets: false,
        base: None,
    };
    let (name, writes) = ("kiosk".into(), vec![write_of]);
    HandIn { edge: id, name, tenant, write, feeds, environments, new_epoch: 404, writes }
}

#[tokio::test]
async fn what_is_handed_in_is_judged_by_the_process_that_leads() {
    let (house, _leads, follows) = two().await;
    let edge = follows.edge(binding(&["app"])).await;
    let taken = follows.parts.line.take_in(&follows.parts.writer, made_up(&edge, 1)).await.unwrap();
    assert_eq!(taken, Taken { refused: 1, ..Taken::default() }, "there it is known that nothing was lost");
    assert_eq!(house.journal.head().await.unwrap().own_epochs().epochs().len(), 1);
}

#[tokio::test]
async fn what_was_passed_on_goes_no_further() {
    let (_house, leads, follows) = two().await;
    let edge = leads.edge(binding(&["app"])).await;
    let service = HubsService {
        writer: follows.parts.writer.clone(),
        calls: follows.parts.calls.clone(),
        guard: Arc::new(Guard::new(Arc::clone(&follows.parts.registry), 10)),
        registry: Arc::clone(&follows.parts.registry),
        journal: Arc::clone(&follows.parts.journal),
        roster: Arc::clone(&follows.parts.roster),
        secrets: Arc::clone(&follows.parts.secrets),
    };
    let refusal = service.admit(nothing(&edge)).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Busy);
    let refusal = service.take_in(made_up(&edge, 1)).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Busy);
    // Also where it does not lead any more by the time that the request is at its route.
    let request = Request {
        method: "PUT".into(),
        target: "/api/v1/write".into(),
        body: "{}".into(),
        caller: "x".into(),
    };
    let answer = follows.parts.calls.answer(caller("x"), Through::Process, request).await;
    assert_eq!(answer.status, 503);
    assert!(answer.headers.iter().any(|(name, _)| &**name == "retry-after"));
    assert_eq!(leads.parts.tail.head().position.seq, 0);
}
