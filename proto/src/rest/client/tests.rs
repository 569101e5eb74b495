//! The client against small servers on real sockets.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::response::sse::{Event, Sse};
use axum::routing::{get, put};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use super::*;
use crate::tls::tests::authority;
use crate::tls::{HUB_SERVER_NAME, TlsListener, server_config};

async fn events() -> Sse<impl tokio_stream::Stream<Item = Result<Event, std::convert::Infallible>>> {
    let events = [Event::default().event("change").id("1").data("{}"), Event::default().data("two")];
    Sse::new(tokio_stream::iter(events.map(Ok)))
}

fn app() -> Router {
    Router::new()
        .route(
            "/echo",
            put(async |headers: HeaderMap, body: String| {
                let token =
                    headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("none");
                format!("{token} {body}")
            }),
        )
        .route(
            "/refused",
            get(async || (http::StatusCode::CONFLICT, r#"{"error": "Conflict", "message": "no"}"#)),
        )
        .route("/events", get(events))
}

async fn tcp() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let ports = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let count = axum::middleware::map_request(
        move |ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>, request: axum::extract::Request| {
            if ports.lock().unwrap().insert(peer.port()) {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            std::future::ready(request)
        },
    );
    let service = app().layer(count).into_make_service_with_connect_info::<std::net::SocketAddr>();
    tokio::spawn(axum::serve(listener, service).into_future());
    (base, connections)
}

#[tokio::test]
async fn requests_share_a_connection_and_refusals_are_answers() {
    let (base, connections) = tcp().await;
    let client = Client::http(&base, Some("lcm_x")).unwrap();
    for _ in 0..5 {
        let answer = client.request(Method::PUT, "/echo", Some("{}".into())).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"Bearer lcm_x {}"[..]));
    }
    let answer = client.request(Method::GET, "/refused", None).await.unwrap();
    assert_eq!((answer.status, answer.refusal().message.as_str()), (409, "no"));
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let mut events = client.events("/events", None).await.unwrap().ok().unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().id, "1");
    assert_eq!(events.next().await.unwrap().unwrap().data, "two");
    assert_eq!(events.next().await.unwrap(), None);
    assert_eq!(client.events("/refused", None).await.unwrap().err().unwrap().status, 409);
}

#[tokio::test]
async fn a_unix_socket_is_spoken_to_and_a_missing_one_is_unreachable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edge.sock");
    let missing = Client::unix(&path).request(Method::GET, "/", None).await.unwrap_err();
    assert!(matches!(missing, ClientError::Unreachable { .. }), "{missing}");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(axum::serve(listener, app()).into_future());
    let answer = Client::unix(&path).request(Method::PUT, "/echo", Some("x".into())).await.unwrap();
    assert_eq!(&answer.body[..], b"none x");
}

#[tokio::test]
async fn tls_trusts_the_given_ca_only() {
    let (ours, other) = (authority(), authority());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = server_config(&ours.hub, None, Alpn::Either).unwrap();
    let listener = TlsListener::new(listener, watch::channel(config).1).unwrap();
    tokio::spawn(axum::serve(listener, app()).into_future());
    let ask = async |ca_pem: &str| {
        // The test's certificate carries the name of a hub, not the address of this listener.
        let mut client = Client::https(&format!("https://{address}"), ca_pem, None).unwrap();
        let Way::Tls { name, .. } = &mut client.way else { panic!("https is over TLS") };
        *name = ServerName::try_from(HUB_SERVER_NAME).unwrap();
        client.request(Method::GET, "/refused", None).await
    };
    assert_eq!(ask(&ours.ca_pem).await.unwrap().status, 409);
    assert!(matches!(ask(&other.ca_pem).await, Err(ClientError::Untrusted { .. })));
}

#[test]
fn addresses_that_would_show_a_token_are_refused() {
    for base in [
        "http://10.0.0.1:80",
        "http://example.org",
        "https://x",
        "ftp://x",
        "http://a:b@localhost",
        "http://",
    ] {
        assert!(matches!(Client::http(base, None), Err(ClientError::Address { .. })), "{base}");
    }
    for base in ["http://localhost:8080", "http://127.0.0.1:8080/", "http://[::1]:8080"] {
        assert!(Client::http(base, None).is_ok(), "{base}");
    }
}

#[test]
fn names_are_encoded_so_that_one_decoding_gives_them_back() {
    assert_eq!(encode_segment("app/llm"), "app%2Fllm");
    assert_eq!(encode_segment("azure/gpt-4:2024@v1*%"), "azure%2Fgpt-4%3A2024%40v1%2A%25");
    assert_eq!((encode_segment(".."), encode_segment("a.b")), ("%2E%2E".into(), "a.b".into()));
    assert_eq!(encode_query(&[("env", "prod"), ("prefix", "a&b")]), "?env=prod&prefix=a%26b");
    assert_eq!(encode_query(&[]), "");
}
