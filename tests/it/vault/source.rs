//! A namespace that follows a KV store: versions, deletions, and what happens while Vault is away or all is gone.

use llm_config_tests::bao::Bao;
use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, Client, entry};
use llm_config_tests::hub::Hub;
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;
use serde_json::{Value, json};

use super::{at, revealed, set_secret, tables};

const SOURCE: &str = "[sources.team]\npath = \"team/llm\"\nnamespace = \"app\"\nenvironment = \"development\"\nevery_seconds = 1";

async fn put(bao: &Bao, name: &str, fields: Value) {
    bao.client().post(&format!("/v1/secret/data/team/llm/{name}"), json!({"data": fields})).await.fine();
}

async fn becomes(client: &Client, key: &str, value: &str) {
    let shown = |answer: &Answer| answer.status == 200 && answer.json()["value"] == value;
    client.until(&format!("{}&reveal=true", at(key, "development")), shown).await;
}

async fn goes(client: &Client, key: &str) {
    client.until(&at(key, "development"), |answer| answer.status == 404).await;
}

async fn versions(hub: &Hub, key: &str) -> Vec<Value> {
    let path = format!("{}/history?env=development", entry("app", key));
    hub.client().get(&path).await.expect(200).as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_follows_a_kv_store_and_loses_nothing_while_vault_is_away() {
    let scratch = Scratch::new("source");
    let bao = Bao::start(&scratch).await;
    put(&bao, "openai", json!({"value": "sk-1"})).await;
    put(&bao, "db", json!({"user": "u", "password": "p"})).await;
    put(&bao, "deep/er", json!({"value": "below"})).await;
    let text = format!("{}\n{SOURCE}\n", tables(&bao, &scratch).await);
    let mut hub = Hub::serve(&scratch, &text).await;
    let edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    set_secret(&hub.client(), "mine", "development", "of a person").await.expect(200);
    becomes(&edge.client(), "openai", "sk-1").await;
    becomes(&edge.client(), "deep/er", "below").await;
    becomes(&edge.client(), "db", r#"{"password":"p","user":"u"}"#).await;
    assert_eq!(versions(&hub, "openai").await[0]["created_by"], "vault:secret/team/llm");

    put(&bao, "openai", json!({"value": "sk-2"})).await;
    becomes(&edge.client(), "openai", "sk-2").await;
    // The same again is a version of Vault's, and none here.
    put(&bao, "openai", json!({"value": "sk-2"})).await;
    bao.client().delete("/v1/secret/data/team/llm/db").await.fine();
    goes(&edge.client(), "db").await;
    bao.client().delete("/v1/secret/metadata/team/llm/deep/er").await.fine();
    goes(&edge.client(), "deep/er").await;
    bao.client().post("/v1/secret/undelete/team/llm/db", json!({"versions": [1]})).await.fine();
    becomes(&edge.client(), "db", r#"{"password":"p","user":"u"}"#).await;
    bao.client().post("/v1/secret/destroy/team/llm/db", json!({"versions": [1]})).await.fine();
    goes(&edge.client(), "db").await;
    assert_eq!(versions(&hub, "openai").await.len(), 2);

    bao.seal().await;
    let degraded = |answer: &Answer| answer.json()["status"] == "degraded";
    hub.anonymous().until("/health", degraded).await;
    assert_eq!(revealed(&edge.client(), "openai", "development").await.expect(200)["value"], "sk-2");
    bao.unseal().await;
    put(&bao, "openai", json!({"value": "sk-3"})).await;
    becomes(&edge.client(), "openai", "sk-3").await;

    // Everything is gone at once, more likely by mistake: nothing is deleted here, and it is told.
    bao.client().delete("/v1/secret/metadata/team/llm/db").await.fine();
    bao.client().delete("/v1/secret/metadata/team/llm/openai").await.fine();
    let told = |answer: &Answer| {
        answer.text().contains("source team") && answer.text().contains("nothing in Vault any more")
    };
    let health = hub.anonymous().until("/health", told).await;
    assert_eq!(health.json()["status"], "degraded");
    becomes(&edge.client(), "openai", "sk-3").await;

    put(&bao, "openai", json!({"value": "sk-3"})).await;
    put(&bao, "new", json!({"value": "n"})).await;
    hub.kill();
    hub.start().await;
    becomes(&edge.client(), "new", "n").await;
    assert_eq!(
        versions(&hub, "openai").await.len(),
        3,
        "what is the same after a restart is not written again"
    );
    assert_eq!(revealed(&hub.client(), "mine", "development").await.expect(200)["value"], "of a person");
}

/// What Vault has in the newest version; null where that was deleted.
async fn kept(bao: &Bao, name: &str) -> Value {
    bao.client().get(&format!("/v1/secret/data/team/llm/{name}")).await.json()["data"]["data"].clone()
}

async fn arrives(bao: &Bao, name: &str, fields: Value) {
    eventually("Vault has it", async || {
        let found = kept(bao, name).await;
        if found == fields { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
}

/// The hub's policy lets it write what it could only read.
async fn let_write(bao: &Bao) {
    let path = "/v1/sys/policies/acl/hub";
    let policy = bao.client().get(path).await.json()["data"]["policy"].as_str().unwrap().to_owned();
    let reads = r#"path "secret/data/*"                  { capabilities = ["read"] }"#;
    let writes = r#"path "secret/data/*" { capabilities = ["create", "read", "update"] }
        path "secret/delete/*" { capabilities = ["update"] }"#;
    assert!(policy.contains(reads), "{policy}");
    bao.client().post(path, json!({"policy": policy.replace(reads, writes)})).await.fine();
}

#[tokio::test(flavor = "multi_thread")]
async fn written_through_a_namespace_and_a_path_are_kept_the_same_whoever_writes_where() {
    let scratch = Scratch::new("source-through");
    let bao = Bao::start(&scratch).await;
    put(&bao, "openai", json!({"value": "sk-1"})).await;
    let text = format!("{}\n{SOURCE}\nwrite_through = true\n", tables(&bao, &scratch).await);
    let mut hub = Hub::serve(&scratch, &text).await;
    let client = hub.client();
    let set = async |key: &str, value: &str| {
        set_secret(&client, key, "development", value).await.expect(200);
    };
    becomes(&client, "openai", "sk-1").await;
    client.put(&entry("app", "plain"), json!({"value": "of here", "env": "development"})).await.expect(200);

    // A person writes here: a text is a field, an object is its fields. Only what Vault allows is written there.
    set("openai", "sk-2").await;
    hub.anonymous().until("/health", |answer| answer.text().contains("Vault denies")).await;
    assert_eq!(kept(&bao, "openai").await, json!({"value": "sk-1"}));
    let_write(&bao).await;
    arrives(&bao, "openai", json!({"value": "sk-2"})).await;
    set("db", r#"{"user":"u","password":"p"}"#).await;
    arrives(&bao, "db", json!({"user": "u", "password": "p"})).await;
    assert_eq!(
        versions(&hub, "openai").await[0]["created_by"],
        "token:admin",
        "it does not come back as a change"
    );

    // Somebody writes there, then here again; and deletes on either side.
    put(&bao, "openai", json!({"value": "sk-3"})).await;
    becomes(&client, "openai", "sk-3").await;
    set("openai", "sk-4").await;
    arrives(&bao, "openai", json!({"value": "sk-4"})).await;
    client.delete(&at("db", "development")).await.expect(204);
    arrives(&bao, "db", Value::Null).await;
    set("db", "again").await;
    arrives(&bao, "db", json!({"value": "again"})).await;
    bao.client().delete("/v1/secret/data/team/llm/db").await.fine();
    goes(&client, "db").await;

    // While Vault is away, writes here are taken and wait. Both changed: Vault's holds, the other is in the history.
    bao.seal().await;
    hub.anonymous().until("/health", |answer| answer.json()["status"] == "degraded").await;
    set("openai", "sk-here").await;
    set("waits", "w").await;
    hub.kill();
    bao.unseal().await;
    put(&bao, "openai", json!({"value": "sk-there"})).await;
    hub.start().await;
    becomes(&client, "openai", "sk-there").await;
    arrives(&bao, "waits", json!({"value": "w"})).await;
    arrives(&bao, "openai", json!({"value": "sk-there"})).await;
    let history = versions(&hub, "openai").await;
    assert_eq!(history[0]["created_by"], "vault:secret/team/llm");
    assert_eq!(history[1]["created_by"], "token:admin");
    assert_eq!(kept(&bao, "plain").await, Value::Null, "configuration stays here");
    assert!(!hub.log().contains("sk-"), "no value is logged");
}
