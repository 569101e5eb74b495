//! Edges that are lost: shut out everywhere, told to destroy what they hold, and stated exactly.

use llm_config_edge::identity::EdgeIdentity;
use llm_config_tests::edge::Edge;
use llm_config_tests::http::entry;
use llm_config_tests::hub::{Database, Hub};
use llm_config_tests::process::run;
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;
use serde_json::{Value, json};

on_both_databases!(a_lost_edge_is_shut_out_and_what_it_could_read_is_stated_exactly);

async fn secret(hub: &Hub, namespace: &str, key: &str, value: &str) {
    let body = json!({"value": value, "env": "development", "secret": true});
    hub.client().put(&entry(namespace, key), body).await.expect(200);
}

fn revealed(key: &str) -> String {
    entry("app", key) + "?env=development&reveal=true"
}

async fn join(scratch: &Scratch, hub: &Hub, name: &str) -> Edge {
    let token = json!({"name": name, "namespaces": ["app"], "environments": ["development"]});
    Edge::join(scratch, name, &hub.join_token(token).await).await
}

/// Its daemon has ended, its keys and replica are gone.
async fn wiped(edge: &mut Edge) {
    eventually("the edge goes", async || edge.process().ended().ok_or("it runs")).await;
    for name in ["keys", "edge.json", "limit-keys", "replica"] {
        assert!(!edge.data().join(name).exists(), "{name} is still there");
    }
}

async fn wipe_of(hub: &Hub, name: &str) -> Value {
    hub.client().get(&format!("/api/v1/edges/{name}")).await.expect(200)["wipe"].clone()
}

fn exposed(receipt: &Value) -> Vec<(String, u64, bool, u64)> {
    let line = |line: &Value| {
        let number = |name: &str| line[name].as_u64().unwrap();
        let name = format!("{}/{}", line["namespace"].as_str().unwrap(), line["key"].as_str().unwrap());
        (name, number("version"), line["current"] == true, number("shared_with"))
    };
    receipt["exposed"].as_array().unwrap().iter().map(line).collect()
}

async fn a_lost_edge_is_shut_out_and_what_it_could_read_is_stated_exactly(database: Database) {
    let scratch = Scratch::new("lost");
    let hub = Hub::on(database, &scratch).await;
    secret(&hub, "app", "key", "first").await;
    secret(&hub, "app", "key", "second").await;
    secret(&hub, "app", "gone", "deleted").await;
    hub.client().delete(&(entry("app", "gone") + "?env=development")).await;
    secret(&hub, "other", "key", "never theirs").await;
    let (mut lost, kept) = (join(&scratch, &hub, "e1").await, join(&scratch, &hub, "e2").await);
    for edge in [&lost, &kept] {
        edge.client().until_value(&revealed("key"), "second").await;
    }
    let expected = [
        ("app/key".to_owned(), 1, false, 1),
        ("app/key".to_owned(), 2, true, 1),
        ("app/gone".to_owned(), 1, false, 1),
    ];
    let dry = hub.cli(&scratch, &["fleet", "lost", "e1", "--dry-run", "--json"]).await.done();
    let dry: Value = serde_json::from_str(&dry).unwrap();
    assert_eq!(exposed(&dry["receipt"]), expected);
    lost.client().get(&revealed("key")).await.expect(200);
    assert_eq!(hub.client().get("/api/v1/exposed-secrets").await.expect(200), json!([]), "nothing was done");

    let file = scratch.path("receipt.json");
    let path = file.to_str().unwrap();
    let said = hub.cli(&scratch, &["fleet", "lost", "e1", "-o", path]).await.done();
    assert!(said.contains("could read 3 versions of secrets, of which 1 are in use"), "{said}");
    let document: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(exposed(&document["receipt"]), expected);
    wiped(&mut lost).await;
    eventually("the wipe is confirmed", async || match wipe_of(&hub, "e1").await {
        Value::String(word) if word == "confirmed" => Ok(()),
        other => Err(other),
    })
    .await;
    let said = hub.cli(&scratch, &["fleet", "ls", "--removed"]).await.done();
    assert!(said.contains("e1") && said.contains("confirmed"), "{said}");

    // What is written from now on is under keys that it never got, and reaches who stays.
    secret(&hub, "app", "key", "third").await;
    secret(&hub, "app", "new", "fresh").await;
    kept.client().until_value(&revealed("key"), "third").await;
    kept.client().until_value(&revealed("new"), "fresh").await;
    let again = hub.cli(&scratch, &["fleet", "lost", "e1", "--dry-run", "--json"]).await.done();
    let again: Value = serde_json::from_str(&again).unwrap();
    let versions: Vec<u64> = exposed(&again["receipt"]).iter().map(|line| line.1).collect();
    assert_eq!(versions, [1, 2, 1], "nothing that was written since");
    let marked = hub.client().get("/api/v1/exposed-secrets").await.expect(200);
    let line = &marked[0];
    assert_eq!((&line["key"], &line["version"], &line["rotated"]), (&json!("key"), &json!(2), &json!(true)));
    assert_eq!(marked.as_array().unwrap().len(), 1, "{marked}");

    verify(&scratch, &kept, path).await;
}

/// The receipt is checked with the CA's certificate alone, and any change is found.
async fn verify(scratch: &Scratch, edge: &Edge, path: &str) {
    let identity = EdgeIdentity::load(edge.data()).unwrap();
    let ca = scratch.file("ca-of-the-hub.pem", &identity.credentials.ca_pem);
    let check =
        async |path: &str| run("llm-config", ["receipt", "verify", path, "--ca", ca.to_str().unwrap()]).await;
    let said = check(path).await.done();
    assert!(said.contains("genuine") && said.contains("could read 3 versions"), "{said}");
    let text = std::fs::read_to_string(path).unwrap().replacen("\"version\":2", "\"version\":9", 1);
    let changed = scratch.file("changed.json", &text);
    let said = check(changed.to_str().unwrap()).await;
    assert!(said.code == 1 && said.err.contains("changed"), "{}: {}", said.code, said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_at_another_process_of_the_hub_is_cut_off_too() {
    let scratch = Scratch::new("lost-elsewhere");
    let hub = Hub::on(Database::Postgres, &scratch).await;
    let second = hub.beside(&scratch, "second").await;
    secret(&hub, "app", "key", "first").await;
    let mut edge = join(&scratch, &second, "e1").await;
    edge.client().until_value(&revealed("key"), "first").await;
    // Asked at the process that does not lead: it is done by the one that does.
    second.client().post("/api/v1/edges/e1/lost", json!({})).await.expect(200);
    wiped(&mut edge).await;
    assert_eq!(second.client().get("/api/v1/edges/e1/receipt").await.expect(200)["receipt"]["edge"], "e1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_was_away_destroys_its_data_when_it_comes_back() {
    let scratch = Scratch::new("lost-away");
    let mut hub = Hub::dev(&scratch).await;
    secret(&hub, "app", "key", "first").await;
    let mut edge = join(&scratch, &hub, "e1").await;
    edge.client().until_value(&revealed("key"), "first").await;
    edge.kill();
    hub.client().delete("/api/v1/edges/e1").await;
    assert_eq!(wipe_of(&hub, "e1").await, "unconfirmed");
    hub.stop();
    // Nobody but the hub can say so.
    edge.start().await;
    edge.client().get(&(entry("app", "key") + "?env=development")).await.expect(200);
    hub.start().await;
    wiped(&mut edge).await;
    eventually("the wipe is confirmed", async || match wipe_of(&hub, "e1").await {
        Value::String(word) if word == "confirmed" => Ok(()),
        other => Err(other),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_by_hand_goes_on_until_the_hub_knows() {
    let scratch = Scratch::new("wipe");
    let mut hub = Hub::dev(&scratch).await;
    secret(&hub, "app", "key", "first").await;
    let mut edge = join(&scratch, &hub, "e1").await;
    edge.client().until_value(&revealed("key"), "first").await;
    let data = edge.data().to_str().unwrap().to_owned();
    let wipe = async || run("llm-config", ["edge", "wipe", "--force", "--data", &data]).await;
    assert_eq!(wipe().await.code, 1, "not while the daemon runs");
    edge.stop();
    hub.stop();
    let said = wipe().await.done();
    assert!(said.contains("the hub could not be told"), "{said}");
    assert!(!edge.data().join("keys").exists() && !edge.data().join("replica").exists());
    hub.start().await;
    assert_eq!(wipe_of(&hub, "e1").await, Value::Null, "it still counts as an edge that is away");
    let said = wipe().await.done();
    assert!(said.contains("the hub knows"), "{said}");
    assert_eq!(wipe_of(&hub, "e1").await, "confirmed");
    let again = run("llm-config", ["edge", "wipe", "--data", &data]).await;
    assert_eq!(again.code, 2, "never without saying so: {}", again.err);
}
