//! The key-encryption key in a real OpenBao: what a hub on it does, and what edges do not notice when it is away.

use llm_config_tests::bao::Bao;
use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, Client, entry};
use llm_config_tests::hub::Hub;
use llm_config_tests::postgres;
use llm_config_tests::scratch::Scratch;
use serde_json::json;

mod backup;
pub(crate) mod conformance;
mod kubernetes;
mod login;
mod outages;
pub(crate) mod rotation;
mod source;

/// The path of an entry of namespace `app`.
fn at(key: &str, environment: &str) -> String {
    format!("{}?env={environment}", entry("app", key))
}

pub(crate) async fn set_secret(client: &Client, key: &str, environment: &str, value: &str) -> Answer {
    let body = json!({"value": value, "env": environment, "secret": true});
    client.put(&entry("app", key), body).await
}

async fn set(client: &Client, key: &str, value: u64) -> Answer {
    client.put(&entry("app", key), json!({"value": value, "env": "development"})).await
}

pub(crate) async fn revealed(client: &Client, key: &str, environment: &str) -> Answer {
    client.get(&format!("{}&reveal=true", at(key, environment))).await
}

/// The tables of a hub.toml on a new PostgreSQL database and on this Vault.
async fn tables(bao: &Bao, scratch: &Scratch) -> String {
    format!("[database]\nurl = \"{}\"\n\n{}", postgres::database(), bao.tables(scratch).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_on_vault_needs_it_for_its_start_and_gives_edges_what_they_may_open() {
    let scratch = Scratch::new("vault");
    let bao = Bao::start(&scratch).await;
    let mut hub = Hub::serve(&scratch, &tables(&bao, &scratch).await).await;
    assert!(!scratch.path("hub").join("keyring").exists() && !scratch.path("keyring").exists());
    let edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    set_secret(&hub.client(), "key", "development", "sk-hunter2").await.expect(200);
    let shown = |answer: &Answer| answer.status == 200 && answer.json()["value"] == "sk-hunter2";
    edge.client().until(&format!("{}&reveal=true", at("key", "development")), shown).await;
    hub.kill();
    hub.start().await;
    assert_eq!(revealed(&hub.client(), "key", "development").await.expect(200)["value"], "sk-hunter2");

    let metrics = hub.client().get("/metrics").await.text();
    let counted = |operation: &str| {
        let line = format!("vault_operations_total{{operation=\"{operation}\",status=\"success\"}}");
        metrics.lines().any(|told| told.starts_with(&line))
    };
    assert!(counted("login") && counted("read_key") && counted("decrypt"), "{metrics}");
    let secret_id = std::fs::read_to_string(scratch.path("secret-id")).unwrap();
    for secret in ["sk-hunter2", secret_id.trim()] {
        assert!(!hub.log().contains(secret), "no secret is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_starts_while_vault_is_sealed_waits_says_so_and_begins() {
    let scratch = Scratch::new("vault-start");
    let mut bao = Bao::start(&scratch).await;
    let mut hub = Hub::serve(&scratch, &tables(&bao, &scratch).await).await;
    set_secret(&hub.client(), "key", "development", "sk-1").await.expect(200);
    hub.stop();
    bao.seal().await;
    hub.launch();
    let told =
        |reason: &'static str| move |answer: &Answer| answer.status == 503 && answer.text().contains(reason);
    hub.anonymous().until("/health", told("Vault is sealed")).await;
    hub.anonymous().get("/health/live").await.expect(200);
    assert!(revealed(&hub.client(), "key", "development").await.refusal(503).contains("Vault is sealed"));
    bao.stop();
    hub.anonymous().until("/health", told("Vault cannot be reached")).await;
    bao.resume().await;
    hub.anonymous().until("/health", |answer| answer.status == 200).await;
    assert_eq!(revealed(&hub.client(), "key", "development").await.expect(200)["value"], "sk-1");
    assert_eq!(hub.process().ended(), None, "one process all the time");
}
