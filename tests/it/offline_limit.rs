//! Secrets lock themselves at an edge that does not hear from its hub; configuration goes on.

use std::path::Path;

use llm_config_edge::keys::EdgeKeys;
use llm_config_edge::offline::limit_keys_on_disk;
use llm_config_tests::edge::Edge;
use llm_config_tests::http::entry;
use llm_config_tests::hub::{Database, Hub};
use llm_config_tests::process::Process;
use llm_config_tests::proxy::{Fault, Proxy};
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;
use serde_json::{Value, json};

on_both_databases!(
    secrets_lock_at_the_limit_and_open_when_the_hub_is_heard,
    a_connected_edge_stays_open_and_hears_of_a_new_limit_at_once,
);

const SECRET: &str = "sk-live-77aa01";

fn secret() -> String {
    entry("app", "key") + "?env=development&reveal=true"
}

/// A hub with a limit for `app`, and an edge that has a secret and a plain value of it.
async fn world(test: &str, database: Database, limit: &str, restart: &str) -> (Scratch, Hub, Edge) {
    let scratch = Scratch::new(test);
    let hub = Hub::on(database, &scratch).await;
    let said = hub.cli(&scratch, &["offline-limit", "app", "--set", limit]).await.done();
    assert!(said.starts_with("app: secrets lock after"), "{said}");
    for (key, value, secret) in [("key", SECRET, true), ("model", "a", false)] {
        let body = json!({"value": value, "env": "development", "secret": secret});
        hub.client().put(&entry("app", key), body).await.expect(200);
    }
    let token = json!({"name": "e1", "namespaces": ["app"], "environments": ["development"]});
    let token = hub.join_token(token).await;
    let edge = Edge::join_with(&scratch, "e1", &token, &["--offline-restart", restart]).await;
    edge.client().until_value(&secret(), SECRET).await;
    (scratch, hub, edge)
}

async fn secrets(edge: &Edge) -> Value {
    edge.client().get("/api/v1/edge/status").await.expect(200)["secrets"].clone()
}

/// The secret is locked for that reason; configuration is served, with its age.
async fn locked(edge: &Edge, reason: &str) {
    let answer = edge.client().until(&secret(), |answer| answer.status == 423).await;
    let body = answer.expect(423);
    assert_eq!(body["details"]["reason"], reason, "{body}");
    assert!(body["details"]["since"].as_str().unwrap().ends_with('Z'), "{body}");
    let masked = edge.client().get(&(entry("app", "key") + "?env=development")).await.expect(200);
    assert_eq!(masked["value"], "<encrypted>");
    let plain = edge.client().get(&(entry("app", "model") + "?env=development")).await;
    assert_eq!(plain.expect(200)["value"], "a");
    assert!(plain.header("x-config-age-ms").is_some());
    let said = edge.cli(&["get", "app", "key", "--env", "development", "--reveal"]).await;
    assert_eq!(said.code, 5, "{}", said.err);
    assert!(said.err.contains("locked since") && !said.err.contains(SECRET), "{}", said.err);
}

async fn secrets_lock_at_the_limit_and_open_when_the_hub_is_heard(database: Database) {
    let (_scratch, mut hub, edge) = world("offline-limit", database, "3s", "never").await;
    let status = secrets(&edge).await;
    assert_eq!((&status["open"], &status["shortest_limit_ms"]), (&json!(true), &json!(3_000)), "{status}");
    hub.kill();
    locked(&edge, "offline_limit").await;
    assert!(edge.log().contains("half of the offline limit"), "{}", edge.log());
    let counted = "sync_secret_locks_total{reason=\"offline_limit\"} 1";
    edge.client().until("/metrics", |answer| answer.text().contains(counted)).await;
    let said = edge.cli(&["edge", "status", "--socket", edge.socket().to_str().unwrap()]).await;
    assert!(said.out.contains("look: secrets are locked since"), "{}{}", said.out, said.err);
    hub.start().await;
    edge.client().until_value(&secret(), SECRET).await;
    assert_eq!(secrets(&edge).await["open"], true);
}

async fn a_connected_edge_stays_open_and_hears_of_a_new_limit_at_once(database: Database) {
    let (scratch, hub, edge) = world("offline-told", database, "4s", "never").await;
    // Each word of the hub makes the silence shorter; after eight of them two limits have passed.
    let (mut words, mut before) = (0, u64::MAX);
    while words < 8 {
        let status = secrets(&edge).await;
        assert_eq!(status["open"], true, "{status}");
        let silent = status["silent_ms"].as_u64().unwrap();
        words += u32::from(silent < before);
        before = silent;
    }
    edge.client().get(&secret()).await.expect(200);
    hub.cli(&scratch, &["offline-limit", "app", "--set", "20h"]).await.done();
    hub.cli(&scratch, &["offline-limit", "app/pay", "--set", "10h"]).await.done();
    let shortest = |answer: &llm_config_tests::http::Answer| {
        answer.json()["secrets"]["shortest_limit_ms"] == json!(10 * 3_600_000)
    };
    edge.client().until("/api/v1/edge/status", shortest).await;
    let said = hub.cli(&scratch, &["offline-limit", "app/pay/eu"]).await.done();
    assert!(said.contains("set for app/pay"), "{said}");
    hub.cli(&scratch, &["offline-limit", "app/pay", "--inherit"]).await.done();
    let refused = hub.cli(&scratch, &["offline-limit", "app", "--set", "31d"]).await;
    assert_eq!(refused.code, 2, "{}", refused.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_start_without_the_hub_secrets_wait_for_it() {
    let (_scratch, mut hub, mut edge) = world("offline-never", Database::Sqlite, "20h", "never").await;
    edge.stop();
    edge.start().await;
    edge.client().until_value(&secret(), SECRET).await;
    hub.stop();
    edge.stop();
    edge.start().await;
    locked(&edge, "offline_restart").await;
    let status = secrets(&edge).await;
    assert_eq!(
        (&status["open"], &status["locked_by"]),
        (&json!(false), &json!("offline_restart")),
        "{status}"
    );
    hub.start().await;
    edge.client().until_value(&secret(), SECRET).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_key_in_a_file_secrets_open_after_a_start_and_lock_at_the_limit_all_the_same() {
    let (_scratch, mut hub, mut edge) = world("offline-file", Database::Sqlite, "20h", "file").await;
    hub.stop();
    edge.kill();
    edge.start().await;
    edge.client().until_value(&secret(), SECRET).await;
    edge.stop();
    hub.start().await;
    hub.client().put("/api/v1/namespaces/app/offline-limit", json!({"limit": "3s"})).await.expect(200);
    edge.start().await;
    let short = |answer: &llm_config_tests::http::Answer| {
        answer.json()["secrets"]["shortest_limit_ms"] == json!(3_000)
    };
    edge.client().until("/api/v1/edge/status", short).await;
    hub.kill();
    edge.kill();
    edge.start().await;
    locked(&edge, "offline_limit").await;
    let keys = EdgeKeys::load(edge.data()).unwrap();
    eventually("the key is off the disk", async || {
        let left = limit_keys_on_disk(edge.data(), &keys.replica);
        if left.keys().all(|subtree| subtree.as_str() == "edges/e1") { Ok(()) } else { Err(left) }
    })
    .await;
}

/// What was handed out stays where it is: a lock ends no process and empties no file, and both follow again once it is over.
#[tokio::test(flavor = "multi_thread")]
async fn what_runs_keeps_its_secret_through_a_lock_and_gets_the_next_one_after_it() {
    let (scratch, mut hub, edge) = world("offline-running", Database::Sqlite, "3s", "never").await;
    let (out, conf) = (scratch.path("out"), scratch.path("app.conf"));
    let mut exec = edge.command();
    exec.args(["exec", "--namespace", "app", "--env", "development", "--settle", "100ms", "--splay", "0s"]);
    exec.args(["--", "sh", "-c", "echo \"$KEY\" >> \"$OUT\"; while :; do sleep 0.05; done"]).env("OUT", &out);
    let mut exec = Process::start(&mut exec, "exec", &scratch.path("exec.log"));
    let template = scratch.file("app.conf.tmpl", "{{ secret('app', 'key') }}");
    let mut render = edge.command();
    render.arg("render").arg(&template).arg("--out").arg(&conf);
    render.args(["--namespace", "app", "--env", "development", "--watch", "--settle", "100ms"]);
    let mut render = Process::start(&mut render, "render", &scratch.path("render.log"));
    let content = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let both = async |started: &str, rendered: &str| {
        eventually("both have the secret", async || {
            let now = (content(&out), content(&conf));
            if now == (started.to_owned(), rendered.to_owned()) { Ok(()) } else { Err(now) }
        })
        .await;
    };
    both(&format!("{SECRET}\n"), SECRET).await;

    hub.kill();
    locked(&edge, "offline_limit").await;
    for process in [&exec, &render] {
        eventually("it says why it does not follow", async || {
            let log = process.log();
            if log.contains("locked since") { Ok(()) } else { Err(log) }
        })
        .await;
    }
    both(&format!("{SECRET}\n"), SECRET).await;
    assert!(exec.ended().is_none() && render.ended().is_none());

    hub.start().await;
    edge.client().until_value(&secret(), SECRET).await;
    let next = json!({"value": "sk-live-77aa02", "env": "development", "secret": true});
    hub.client().put(&entry("app", "key"), next).await.expect(200);
    both(&format!("{SECRET}\nsk-live-77aa02\n"), "sk-live-77aa02").await;
    assert!(!exec.log().contains("sk-live") && !render.log().contains("sk-live"));
    exec.stop();
    render.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_is_not_promised_to_keys_that_are_elsewhere() {
    let scratch = Scratch::new("offline-tpm");
    let hub = Hub::dev(&scratch).await;
    let token = hub.open_token("e1").await;
    let said = llm_config_tests::edge::try_join(&scratch, "e1", &token, &["--offline-restart", "tpm"]).await;
    assert!(said.code == 2 && said.err.contains("kept by file"), "{}: {}", said.code, said.err);
    assert!(said.err.contains("rekey --key tpm"), "{}", said.err);
    let said = llm_config_tests::edge::try_join(&scratch, "e1", &token, &[]).await;
    assert!(said.err.contains("offline_restart = never"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_carried_opens_secrets_once_and_only_at_its_edge() {
    let (scratch, hub, other) = world("offline-carried", Database::Sqlite, "6s", "never").await;
    let proxy = Proxy::start(hub.sync, 1).await;
    let token = json!({"name": "e2", "namespaces": ["app"], "environments": ["development"]});
    let edge = Edge::join_through(&scratch, "e2", &hub.join_token(token).await, &proxy).await;
    edge.client().until_value(&secret(), SECRET).await;
    proxy.suffer(Fault::Cut);
    locked(&edge, "offline_limit").await;
    let stick = scratch.path("stick");
    let said = hub.cli(&scratch, &["fleet", "carry", "e2", "-o", stick.to_str().unwrap()]).await.done();
    assert!(said.contains("llm-config edge apply"), "{said}");
    let file = std::fs::read(&stick).unwrap();
    assert!(!file.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()));
    let apply = async |edge: &Edge| edge.cli(&["edge", "apply", stick.to_str().unwrap()]).await;
    let refused = apply(&other).await;
    assert!(refused.code == 1 && refused.err.contains("another edge"), "{}: {}", refused.code, refused.err);
    let said = apply(&edge).await.done();
    assert!(said.contains("secrets are open"), "{said}");
    edge.client().get(&secret()).await.expect(200);
    let said = apply(&edge).await.done();
    assert!(said.contains("nothing in the file is new") && said.contains("not newer"), "{said}");
    locked(&edge, "offline_limit").await;
}
