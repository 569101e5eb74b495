//! A change is undone as one: from the command line, on a real hub, and not over what somebody wrote since.

use llm_config_tests::http::{Answer, Client, entry};
use llm_config_tests::hub::{Database, Hub};
use llm_config_tests::scratch::Scratch;
use serde_json::{Value, json};

on_both_databases! {
    a_change_of_many_entries_is_undone_and_redone,
    what_was_written_since_is_not_replaced,
    what_others_wrote_in_between_comes_back,
    a_change_larger_than_a_transaction_is_undone_whole,
}

fn path(key: &str) -> String {
    entry("app", key) + "?env=development"
}

fn write(key: &str, value: &str) -> Value {
    json!({"op": "set", "namespace": "app", "key": key, "env": "development", "value": value})
}

/// Writes them as one change, and gives its id.
async fn as_one(client: &Client, operations: Vec<Value>) -> String {
    let done = client.post("/api/v1/configs/bulk", json!({"operations": operations, "atomic": true})).await;
    done.expect(200)["change"].as_str().unwrap().to_owned()
}

async fn shown(client: &Client, key: &str) -> Answer {
    client.get(&path(key)).await
}

async fn a_change_of_many_entries_is_undone_and_redone(database: Database) {
    let scratch = Scratch::new("undo");
    let hub = Hub::on(database, &scratch).await;
    let client = hub.client();
    as_one(&client, vec![write("kept", "old"), write("gone", "old")]).await;
    let secret = json!({"value": "s3cret-of-old", "env": "development", "secret": true});
    client.put(&entry("app", "key"), secret).await.expect(200);
    let delete = json!({"op": "delete", "namespace": "app", "key": "gone", "env": "development"});
    let rotated = json!({"op": "set", "namespace": "app", "key": "key", "env": "development", "value": "s3cret-of-new", "secret": true});
    let change = as_one(
        &client,
        vec![write("kept", "new"), write("made", "new"), delete, rotated, write("kept", "newer")],
    )
    .await;

    let seen = hub.cli(&scratch, &["change", "undo", &change, "--dry-run"]).await.done();
    assert!(seen.contains("would bring back 4 entries; nothing was written"), "{seen}");
    assert_eq!(shown(&client, "kept").await.json()["value"], "newer");

    let told = hub.cli(&scratch, &["change", "undo", &change, "--message", "not yet"]).await.done();
    assert!(told.contains("app key\tdevelopment\t3\tas version 1"), "{told}");
    assert!(told.contains("app made\tdevelopment\t2\tno entry"), "{told}");
    for key in ["kept", "gone"] {
        assert_eq!(shown(&client, key).await.expect(200)["value"], "old");
    }
    shown(&client, "made").await.expect(404);
    let clear = client.get(&(path("key") + "&reveal=true")).await.expect(200);
    assert_eq!((&clear["value"], &clear["secret"]), (&json!("s3cret-of-old"), &json!(true)));
    let history = client.get(&(entry("app", "kept") + "/history?env=development")).await.expect(200);
    assert_eq!((&history[0]["version"], &history[0]["change_description"]), (&json!(4), &json!("not yet")));
    let again = hub.cli(&scratch, &["change", "undo", &change]).await.done();
    assert_eq!(again, told, "asked again, it is done once");

    let undoing = history[0]["change"].as_str().unwrap();
    hub.cli(&scratch, &["change", "undo", undoing]).await.done();
    assert_eq!(shown(&client, "kept").await.expect(200)["value"], "newer");
    assert_eq!(shown(&client, "made").await.expect(200)["value"], "new");
    shown(&client, "gone").await.expect(404);
}

async fn what_was_written_since_is_not_replaced(database: Database) {
    let scratch = Scratch::new("undo-since");
    let hub = Hub::on(database, &scratch).await;
    let client = hub.client();
    let change = as_one(&client, vec![write("a", "1"), write("b", "1")]).await;
    client.put(&entry("app", "b"), json!({"value": "2", "env": "development"})).await.expect(200);
    let refused = client.post(&format!("/api/v1/changes/{change}/undo"), json!({})).await;
    let told = refused.json();
    assert_eq!(refused.status, 409, "{told}");
    assert_eq!(told["details"]["entries"][0]["key"], "b");
    assert_eq!((&told["details"]["count"], shown(&client, "a").await.status), (&json!(1), 200));
    let failed = hub.cli(&scratch, &["change", "undo", &change]).await;
    assert_eq!(failed.code, 1);
    assert!(failed.err.contains("another value since, so nothing was undone"), "{}", failed.err);

    let reader = json!({"name": "reader", "role": "reader"});
    let token = client.post("/api/v1/tokens", reader).await.expect(200)["token"].as_str().unwrap().to_owned();
    let reader = hub.anonymous().with_token(&token);
    reader.post(&format!("/api/v1/changes/{change}/undo"), json!({})).await.expect(403);
    let unknown = "0f5a6f6e-53a5-5c34-8c6e-2d9f1f0b7a42";
    client.post(&format!("/api/v1/changes/{unknown}/undo"), json!({})).await.expect(404);
}

async fn what_others_wrote_in_between_comes_back(database: Database) {
    let scratch = Scratch::new("undo-between");
    let hub = Hub::on(database, &scratch).await;
    let (client, change) = (hub.client(), "0f5a6f6e-53a5-5c34-8c6e-2d9f1f0b7a42");
    let batch = async |batch: u64, operations: Vec<Value>| {
        let body = json!({"operations": operations, "change": change, "batch": batch});
        client.post("/api/v1/configs/bulk", body).await.expect(200);
    };
    let delete = |key: &str| json!({"op": "delete", "namespace": "app", "key": key, "env": "development"});
    batch(1, vec![write("k", "1"), write("brief", "1")]).await;
    client.put(&entry("app", "k"), json!({"value": "2", "env": "development"})).await.expect(200);
    batch(2, vec![write("k", "3"), delete("brief")]).await;
    let address = format!("/api/v1/changes/{change}/undo");
    let undone = client.post(&address, json!({})).await.expect(200);
    assert_eq!(undone["entries"].as_array().unwrap().len(), 1, "one entry came and went: {undone}");
    assert_eq!(shown(&client, "k").await.expect(200)["value"], "2");

    let whole = as_one(&client, vec![write("brief", "1"), delete("brief")]).await;
    client.post(&format!("/api/v1/changes/{whole}/undo"), json!({})).await.expect(422);
    let deletes = as_one(&client, vec![delete("k")]).await;
    as_one(&client, vec![write("k", "4")]).await;
    as_one(&client, vec![delete("k")]).await;
    let refused = client.post(&format!("/api/v1/changes/{deletes}/undo"), json!({})).await;
    assert_eq!(refused.status, 409, "another deletion: {}", refused.text());
}

async fn a_change_larger_than_a_transaction_is_undone_whole(database: Database) {
    let scratch = Scratch::new("undo-large");
    let hub = Hub::on(database, &scratch).await;
    let (client, change) = (hub.client(), "0f5a6f6e-53a5-5c34-8c6e-2d9f1f0b7a42");
    for batch in 1..=2 {
        let operations: Vec<Value> = (0..300).map(|n| write(&format!("k{batch}-{n}"), "1")).collect();
        let body = json!({"operations": operations, "change": change, "batch": batch});
        client.post("/api/v1/configs/bulk", body).await.expect(200);
    }
    let undone = client.post(&format!("/api/v1/changes/{change}/undo"), json!({})).await.expect(200);
    assert_eq!(undone["entries"].as_array().unwrap().len(), 600);
    let left = client.get("/api/v1/configs/app?env=development").await.expect(200);
    assert_eq!(left, json!([]));
    let undoing = undone["wrote"].as_str().unwrap();
    let listed = client.get(&format!("/api/v1/changes/{undoing}")).await.expect(200);
    assert_eq!(listed["writes"], 600, "one change");
}
