//! Who gets in: join tokens, certificates, and what an edge may do once it is in.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use llm_config_tests::edge::{Edge, try_join};
use llm_config_tests::http::entry;
use llm_config_tests::hub::Hub;
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

async fn edges(hub: &Hub) -> Vec<String> {
    let all = hub.client().get("/api/v1/edges").await.expect(200);
    all.as_array().unwrap().iter().map(|edge| edge["name"].as_str().unwrap().to_owned()).collect()
}

fn refused(said: &llm_config_tests::process::Said, words: &[&str]) {
    assert_ne!(said.code, 0, "it must not join: {}", said.out);
    let told = said.err.to_lowercase();
    assert_eq!(said.err.trim().lines().count(), 1, "one line: {}", said.err);
    assert!(words.iter().all(|word| told.contains(word)), "{words:?} in {}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_is_good_once() {
    let scratch = Scratch::new("join-once");
    let hub = Hub::dev(&scratch).await;
    let token = hub.open_token("e1").await;
    try_join(&scratch, "e1", &token, &[]).await.done();
    refused(&try_join(&scratch, "copy", &token, &[]).await, &["used"]);
    assert_eq!(edges(&hub).await, ["e1"]);
    let metrics = hub.client().get("/metrics").await.text();
    assert!(metrics.contains("sync_join_refusals_total{reason=\"used\"} 1"), "an alarm is raised: {metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_join_token_is_refused() {
    let scratch = Scratch::new("join-late");
    let hub = Hub::dev(&scratch).await;
    let body = json!({"name": "e1", "namespaces": [], "environments": [], "write": [], "ttl": "1s"});
    let token = hub.join_token(body).await;
    let made = SystemTime::now();
    eventually("two seconds pass", async || {
        made.elapsed().unwrap().as_secs().checked_sub(2).ok_or("not yet")
    })
    .await;
    refused(&try_join(&scratch, "e1", &token, &[]).await, &["expired"]);
    assert!(edges(&hub).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_invented_join_token_is_refused() {
    let scratch = Scratch::new("join-damaged");
    let hub = Hub::dev(&scratch).await;
    let token = hub.open_token("e1").await;
    refused(&try_join(&scratch, "cut", &token[..token.len() - 4], &[]).await, &["damaged"]);
    refused(&try_join(&scratch, "other", "hello", &[]).await, &["token"]);
    refused(&try_join(&scratch, "empty", "", &[]).await, &["token"]);
    try_join(&scratch, "e1", &token, &[]).await.done();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_decides_what_an_edge_is_called() {
    let scratch = Scratch::new("join-name");
    let hub = Hub::dev(&scratch).await;
    let token = hub.open_token("e1").await;
    // Whether it joins as e1 or not at all: nothing is called as it wished.
    let _ = try_join(&scratch, "e1", &token, &["--name", "root"]).await;
    assert!(!edges(&hub).await.contains(&"root".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_with_another_ca_gets_neither_the_token_nor_an_edge() {
    let scratch = Scratch::new("other-ca");
    let mut real = Hub::dev(&scratch).await;
    let path = entry("app", "who") + "?env=development";
    real.client().put(&path, json!({"value": "real", "env": "development"})).await.expect(200);
    let waiting = real.open_token("late").await;
    let mut edge = Edge::join(&scratch, "e1", &real.open_token("e1").await).await;
    edge.client().until_value(&path, "real").await;
    real.stop();

    let mut false_hub = Hub::dev_at(&scratch.path("false"), real.api, real.sync).await;
    false_hub.client().put(&path, json!({"value": "false", "env": "development"})).await.expect(200);
    refused(&try_join(&scratch, "late", &waiting, &[]).await, &["certificate"]);
    edge.kill();
    edge.start().await;
    let log = || async { if edge.log().contains("certificate") { Ok(()) } else { Err(()) } };
    eventually("the edge says that it does not trust this hub", log).await;
    assert_eq!(edge.client().get(&path).await.expect(200)["value"], "real");
    assert!(edges(&false_hub).await.is_empty());
    false_hub.stop();

    real.start().await;
    real.client().put(&path, json!({"value": "still real", "env": "development"})).await.expect(200);
    edge.client().until_value(&path, "still real").await;
    try_join(&scratch, "late", &waiting, &[]).await.done();
}

/// A certificate as the hub would write it for an edge, but by a CA of our own.
fn forged_identity() -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = rcgen::Issuer::new(ca, rcgen::KeyPair::generate().unwrap());
    let mut edge = rcgen::CertificateParams::default();
    let uri = "spiffe://llm-config/t/default/edge/00000000-0000-4000-8000-000000000001";
    edge.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().unwrap()));
    edge.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = edge.signed_by(&key, &issuer).unwrap();
    (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

fn roots(hub: &Hub) -> RootCertStore {
    let pem = std::fs::read(hub.data().join("ca.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    roots
}

/// Opens TLS to the sync port, speaks the first words of HTTP/2, and waits for the hub's.
async fn first_words(hub: &Hub, mut config: ClientConfig) -> std::io::Result<Vec<u8>> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(hub.sync).await?;
    let name = ServerName::try_from("hub.llm-config.internal").unwrap();
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    let mut words = vec![0; 9];
    tls.read_exact(&mut words).await?;
    Ok(words)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_and_an_older_tls_are_refused() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let scratch = Scratch::new("tls");
    let hub = Hub::dev(&scratch).await;
    let tls = |versions: &[&'static rustls::SupportedProtocolVersion]| {
        ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots(&hub))
    };
    let anonymous = tls(&[&rustls::version::TLS13]).with_no_client_auth();
    first_words(&hub, anonymous).await.expect("without a certificate one may speak, to join");
    let (chain, key) = forged_identity();
    let forged = tls(&[&rustls::version::TLS13]).with_client_auth_cert(chain, key).unwrap();
    first_words(&hub, forged).await.expect_err("a certificate of another CA ends the connection");
    let old = tls(&[&rustls::version::TLS12]).with_no_client_auth();
    first_words(&hub, old).await.expect_err("TLS 1.2 is not spoken");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_writes_only_where_its_token_said() {
    let scratch = Scratch::new("write-scope");
    let mut hub = Hub::dev(&scratch).await;
    let body = json!({"name": "e1", "namespaces": [], "environments": ["production"], "write": ["edges/e1"]});
    let mut edge = Edge::join(&scratch, "e1", &hub.join_token(body).await).await;
    edge.client().until("/health", |answer| answer.json()["status"] == "healthy").await;
    let set = json!({"value": 1, "env": "production"});
    let own = entry("edges/e1/app", "k");
    let foreign = [entry("app", "k"), entry("edges/e10", "k"), entry("edges", "k")];
    edge.client().put(&own, set.clone()).await.expect(200);
    for path in &foreign {
        edge.client().put(path, set.clone()).await.refusal(403);
    }
    // Cut off it refuses as well, instead of queueing what can never arrive.
    hub.stop();
    edge.kill();
    edge.start().await;
    for path in &foreign {
        edge.client().put(path, set.clone()).await.refusal(403);
    }
    hub.start().await;
    hub.client().until_value(&(own + "?env=production"), 1).await;
    for path in &foreign {
        hub.client().get(&format!("{path}?env=production")).await.refusal(404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_tcp_an_edge_wants_its_local_token() {
    let scratch = Scratch::new("local-token");
    let hub = Hub::dev(&scratch).await;
    hub.client().put(&entry("app", "k"), json!({"value": 1, "env": "development"})).await.expect(200);
    let edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    let path = entry("app", "k") + "?env=development";
    edge.tcp().until_value(&path, 1).await;
    edge.tcp_without_token().get(&path).await.refusal(401);
    edge.tcp_without_token().with_token("wrong").get(&path).await.refusal(401);
    edge.tcp_without_token().get("/health").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_edge_hears_nothing_more_and_destroys_what_it_has() {
    let scratch = Scratch::new("removed");
    let hub = Hub::dev(&scratch).await;
    let path = entry("app", "k") + "?env=development";
    let body = |value: u8| json!({"value": value, "env": "development"});
    hub.client().put(&path, body(1)).await.expect(200);
    let mut removed = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    let kept = Edge::join(&scratch, "e2", &hub.open_token("e2").await).await;
    removed.client().until_value(&path, 1).await;
    assert!(matches!(hub.client().delete("/api/v1/edges/e1").await.status, 200 | 204));
    hub.client().put(&path, body(2)).await.expect(200);
    kept.client().until_value(&path, 2).await;
    eventually("the edge goes", async || removed.process().ended().ok_or("it runs")).await;
    for name in ["keys", "edge.json", "replica"] {
        assert!(!removed.data().join(name).exists(), "{name} is still there");
    }
    // Its name is free again, for another machine with a token of its own.
    let again = Edge::join(&scratch, "e1-again", &hub.open_token("e1").await).await;
    again.client().until_value(&path, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_in_an_image_joins_when_it_first_runs() {
    let scratch = Scratch::new("image");
    let hub = Hub::dev(&scratch).await;
    hub.client().put(&entry("app", "k"), json!({"value": 1, "env": "development"})).await.expect(200);
    let token = scratch.file("image.join", &hub.open_token("e1").await);
    let mut edge = Edge::at(&scratch, "e1");
    edge.launch(&["--join-token-file", token.to_str().unwrap()]);
    let path = entry("app", "k") + "?env=development";
    edge.client().until_value(&path, 1).await;
    edge.kill();
    edge.launch(&["--join-token-file", token.to_str().unwrap()]);
    edge.client().until_value(&path, 1).await;
    assert_eq!(edges(&hub).await, ["e1"], "the second start does not join again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_listens_beyond_loopback_only_with_tls() {
    let scratch = Scratch::new("open");
    let data = scratch.path("hub");
    let said = llm_config_tests::process::run(
        "llm-config-hub",
        ["dev", "--listen", "0.0.0.0:0", "--data", data.to_str().unwrap()],
    )
    .await;
    assert_ne!(said.code, 0);
    assert!((said.out + &said.err).contains("TLS"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_token_expires() {
    let scratch = Scratch::new("token-expiry");
    let hub = Hub::dev(&scratch).await;
    let made =
        hub.client().post("/api/v1/tokens", json!({"name": "short", "role": "reader", "ttl": "1s"})).await;
    let token = made.expect(200)["token"].as_str().unwrap().to_owned();
    let client = hub.anonymous().with_token(&token);
    client.until("/api/v1/configs/app", |answer| answer.status == 401).await.refusal(401);
    let listed: Value = hub.client().get("/api/v1/tokens").await.expect(200);
    assert!(!listed.to_string().contains(&token), "a token is shown once");
    assert!(SystemTime::now() > UNIX_EPOCH);
}
