//! A hub that is lost and comes back from a backup, and what becomes of an edge that had seen more.

use std::path::{Path, PathBuf};

use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, Client, entry};
use llm_config_tests::hub::Hub;
use llm_config_tests::process::{Said, run};
use llm_config_tests::scratch::Scratch;
use serde_json::{Value, json};

fn path(key: &str) -> String {
    entry("app", key) + "?env=development"
}

async fn set(client: &Client, key: &str, value: impl Into<Value>) -> Answer {
    let value: Value = value.into();
    client.put(&entry("app", key), json!({"value": value, "env": "development"})).await
}

async fn set_secret(client: &Client, key: &str, value: &str) -> Answer {
    let body = json!({"value": value, "env": "development", "secret": true});
    client.put(&entry("app", key), body).await
}

async fn back_up(hub: &Hub, file: &Path) -> Said {
    let args = ["backup", text(file), "--data", text(hub.data())];
    run("llm-config-hub", args).await
}

async fn restore(file: &Path, data: &Path, key: &Path, more: &[&str]) -> Said {
    let mut args = vec!["restore", text(file), "--data", text(data), "--recovery-key-file", text(key)];
    args.extend(more);
    run("llm-config-hub", args).await
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The key that a first backup printed, in a file.
fn recovery_key(scratch: &Scratch, said: &str) -> PathBuf {
    let key = said.lines().find_map(|line| line.strip_prefix("recovery key: ")).expect("it is shown");
    scratch.file("recovery.key", key)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_saw_more_comes_back_to_a_restored_hub_with_what_it_wrote() {
    let scratch = Scratch::new("restored");
    let mut hub = Hub::dev(&scratch).await;
    let mut edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    set(&hub.client(), "old", 1).await.expect(200);
    set(&hub.client(), "deleted-later", 1).await.expect(200);
    set_secret(&hub.client(), "key", "sk-of-before").await.expect(200);
    edge.client().until_value(&path("old"), 1).await;

    let file = scratch.path("hub.backup");
    let said = back_up(&hub, &file).await.done();
    let key = recovery_key(&scratch, &said);
    set(&hub.client(), "old", 2).await.expect(200);
    set(&hub.client(), "lost", 2).await.expect(200);
    hub.client().delete(&path("deleted-later")).await.expect(204);
    edge.client().until_value(&path("lost"), 2).await;
    let (api, sync) = (hub.api, hub.sync);
    hub.kill();
    set(&edge.client(), "offline", 3).await.expect(202);

    let data = scratch.path("restored");
    restore(&file, &data, &key, &[]).await.done();
    let hub = Hub::dev_at(&data, api, sync).await;
    edge.stop();
    edge.start().await;
    hub.client().until_value(&path("offline"), 3).await;
    edge.client().until(&path("lost"), |answer| answer.status == 404).await;
    edge.client().until_value(&path("old"), 1).await;
    set(&hub.client(), "after", 4).await.expect(200);
    edge.client().until_value(&path("after"), 4).await;
    let at_edge = edge.client().everything("app", "development").await;
    assert_eq!(at_edge, hub.client().everything("app", "development").await);
    for client in [hub.client(), edge.client()] {
        let secret = client.get(&(path("key") + "&reveal=true")).await.expect(200);
        assert_eq!(secret["value"], "sk-of-before");
    }
    set_secret(&hub.client(), "key", "sk-of-after").await.expect(200);
    edge.client().until_value(&(path("key") + "&reveal=true"), "sk-of-after").await;
    assert!(edge.log().contains("restored from a backup"), "it is told: {}", edge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_key_restores_and_only_into_nothing() {
    let scratch = Scratch::new("restore-refused");
    let hub = Hub::dev(&scratch).await;
    set_secret(&hub.client(), "key", "sk-never-in-clear").await.expect(200);
    let file = scratch.path("hub.backup");
    let key = recovery_key(&scratch, &back_up(&hub, &file).await.done());
    let again = back_up(&hub, &file).await.done();
    assert!(!again.contains("recovery key"), "it is shown once: {again}");
    let bytes = std::fs::read(&file).unwrap();
    assert!(!bytes.windows(8).any(|part| part == b"sk-never"));

    let data = scratch.path("restored");
    let typed = std::fs::read_to_string(&key).unwrap();
    let wrong = scratch.file("wrong.key", &format!("{}{typed}", &typed[..5]));
    let refused = restore(&file, &data, &wrong, &[]).await;
    assert!(refused.code > 0 && refused.err.contains("letters"), "{refused:?}");
    let cut = scratch.path("cut.backup");
    std::fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    let refused = restore(&cut, &data, &key, &[]).await;
    assert!(refused.code > 0 && refused.err.contains("cut"), "{refused:?}");
    let refused = restore(&file, &data, &key, &["--newer", "keep"]).await;
    assert!(refused.code > 0 && refused.err.contains("discard"), "{refused:?}");
    assert!(!data.exists(), "nothing was made");

    let refused = restore(&file, hub.data(), &key, &[]).await;
    assert!(refused.code > 0 && refused.err.contains("used by another"), "{refused:?}");
    restore(&file, &data, &key, &[]).await.done();
    let refused = restore(&file, &data, &key, &[]).await;
    assert!(refused.code > 0 && refused.err.contains("already"), "{refused:?}");
}
