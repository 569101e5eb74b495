//! What happens when something is away: the hub, its database, the disk, the replica.

use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, Client, entry};
use llm_config_tests::hub::Hub;
use llm_config_tests::postgres::Cluster;
use llm_config_tests::process::run;
use llm_config_tests::scratch::{Scratch, copy_folder, files_below};
use serde_json::{Value, json};

const ENTRIES: usize = 300;

fn path(key: &str) -> String {
    entry("app", key) + "?env=development"
}

async fn set(client: &Client, key: &str, value: impl Into<Value>) -> Answer {
    let value: Value = value.into();
    client.put(&entry("app", key), json!({"value": value, "env": "development"})).await
}

async fn fill(client: &Client) {
    let operation = |i: usize| json!({"op": "set", "namespace": "app", "key": format!("k{i:03}"), "env": "development", "value": {"n": i}});
    let operations: Vec<_> = (0..ENTRIES).map(operation).collect();
    client.post("/api/v1/configs/bulk", json!({"operations": operations})).await.expect(200);
}

async fn hub_and_edge(test: &str) -> (Scratch, Hub, Edge) {
    let scratch = Scratch::new(test);
    let hub = Hub::dev(&scratch).await;
    let edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    (scratch, hub, edge)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_hub_an_edge_restarts_serves_everything_and_keeps_what_is_written() {
    let (_scratch, mut hub, mut edge) = hub_and_edge("hub-away").await;
    fill(&hub.client()).await;
    edge.client().until_value(&path("k299"), json!({"n": 299})).await;
    let before = hub.client().everything("app", "development").await;
    assert_eq!(before.len(), ENTRIES);
    hub.stop();
    edge.stop();
    edge.start().await;
    assert_eq!(edge.client().everything("app", "development").await, before);

    let written = set(&edge.client(), "written-offline", "kept").await;
    let body = written.expect(202);
    assert_eq!(body["pending"], true, "{body}");
    let read = edge.client().get(&path("written-offline")).await;
    assert_eq!(read.expect(200)["value"], "kept");
    assert_eq!(read.header("x-config-source"), Some("pending"));
    assert!(read.header("x-config-age-ms").is_some());
    edge.kill();
    edge.start().await;
    assert_eq!(
        edge.client().get(&path("written-offline")).await.expect(200)["value"],
        "kept",
        "kill -9 loses nothing"
    );

    hub.start().await;
    hub.client().until_value(&path("written-offline"), "kept").await;
    let arrived =
        hub.client().get(&format!("{}/history?env=development", entry("app", "written-offline"))).await;
    assert_eq!(arrived.expect(200).as_array().unwrap().len(), 1, "once");
    let settled = |answer: &Answer| answer.header("x-config-source") == Some("replica");
    edge.client().until(&path("written-offline"), settled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writes_that_did_not_know_of_each_other_one_wins_and_the_other_is_kept() {
    let (_scratch, mut hub, mut edge) = hub_and_edge("conflict").await;
    set(&hub.client(), "model", "first").await.expect(200);
    edge.client().until_value(&path("model"), "first").await;
    hub.stop();
    set(&edge.client(), "model", "of the edge").await.expect(202);
    edge.stop();
    hub.start().await;
    set(&hub.client(), "model", "of the hub").await.expect(200);
    edge.start().await;
    let history = format!("{}/history?env=development", entry("app", "model"));
    let three = |answer: &Answer| answer.status == 200 && answer.json().as_array().unwrap().len() == 3;
    let rows = hub.client().until(&history, three).await.json();
    assert_eq!(
        hub.client().get(&path("model")).await.expect(200)["value"],
        "of the hub",
        "the later one wins"
    );
    let loser =
        rows.as_array().unwrap().iter().find(|row| row["value"] == "of the edge").expect("the loser is kept");
    assert_eq!(loser["status"], "superseded_concurrent");
    assert!(loser["created_by"].as_str().unwrap().starts_with("edge:e1"));
    let conflicts = hub.client().get("/api/v1/conflicts").await.expect(200);
    assert!(conflicts.to_string().contains("of the edge"), "{conflicts}");
    let settled = |answer: &Answer| {
        answer.json()["value"] == "of the hub" && answer.header("x-config-source") == Some("replica")
    };
    edge.client().until(&path("model"), settled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_is_ahead_of_its_hub_loses_nothing() {
    let (scratch, mut hub, mut edge) = hub_and_edge("hub-behind").await;
    set(&hub.client(), "old", 1).await.expect(200);
    edge.client().until_value(&path("old"), 1).await;
    hub.stop();
    let backup = scratch.path("backup");
    copy_folder(hub.data(), &backup);
    hub.start().await;
    set(&hub.client(), "new", 2).await.expect(200);
    edge.client().until_value(&path("new"), 2).await;
    hub.stop();
    let newest = scratch.path("newest");
    std::fs::rename(hub.data(), &newest).unwrap();
    copy_folder(&backup, hub.data());
    hub.start().await;
    let refused = |answer: &Answer| {
        answer.text().lines().any(|line| line.starts_with("sync_refusals_total") && line.contains("ahead"))
    };
    hub.client().until("/metrics", refused).await;
    assert_eq!(
        edge.client().get(&path("new")).await.expect(200)["value"],
        2,
        "what the hub lost, the edge still has"
    );
    set(&edge.client(), "kept", 3).await.expect(202);
    hub.stop();
    std::fs::remove_dir_all(hub.data()).unwrap();
    std::fs::rename(&newest, hub.data()).unwrap();
    hub.start().await;
    // Refused for good reason, it would only ask again after a minute.
    edge.stop();
    edge.start().await;
    hub.client().until_value(&path("kept"), 3).await;
    set(&hub.client(), "new", 4).await.expect(200);
    edge.client().until_value(&path("new"), 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_a_hub_says_when_to_come_back_and_edges_go_on() {
    let scratch = Scratch::new("database-away");
    let cluster = Cluster::start();
    let mut hub = Hub::serve(&scratch, &format!("[database]\nurl = \"{}\"", cluster.database())).await;
    let edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    set(&hub.client(), "k", 1).await.expect(200);
    edge.client().until_value(&path("k"), 1).await;
    cluster.stop();
    for answer in [set(&hub.client(), "k", 2).await, hub.client().get(&path("k")).await] {
        answer.refusal(503);
        let after = answer.header("retry-after").expect("it says when to come back");
        assert!(after.parse::<u32>().is_ok_and(|seconds| (1..=60).contains(&seconds)), "{after}");
        assert!(!answer.text().contains("postgres://"), "{}", answer.text());
    }
    assert_eq!(hub.anonymous().get("/health/live").await.status, 200, "it is alive");
    assert_eq!(hub.anonymous().get("/health/ready").await.status, 503, "and not ready");
    assert_eq!(edge.client().get(&path("k")).await.expect(200)["value"], 1);
    set(&edge.client(), "of-the-edge", 3).await.expect(202);
    cluster.resume();
    hub.client().until_value(&path("of-the-edge"), 3).await;
    set(&hub.client(), "k", 4).await.expect(200);
    edge.client().until_value(&path("k"), 4).await;
    assert_eq!(hub.process().ended(), None, "one process all the time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_may_demand_how_fresh_it_is() {
    let (_scratch, mut hub, mut edge) = hub_and_edge("fresh").await;
    let written = set(&hub.client(), "k", 1).await;
    let position = written.header("x-config-position").expect("a write says where it is").to_owned();
    let read = edge.client().get(&format!("{}&at_least={position}", path("k"))).await;
    assert_eq!(read.expect(200)["value"], 1, "a writer reads its write at any edge");
    hub.process().signal("STOP");
    let age = |answer: &Answer| answer.header("x-config-age-ms").unwrap().parse::<u64>().unwrap();
    edge.client().until(&path("k"), |answer| age(answer) > 1_200).await;
    let stale = edge.client().get(&format!("{}&max_staleness=1s", path("k"))).await;
    stale.refusal(503);
    assert!(stale.json()["details"]["age_ms"].as_u64().unwrap() >= 1_000, "{}", stale.text());
    edge.client().get(&format!("{}&max_staleness=1h", path("k"))).await.expect(200);
    hub.process().signal("CONT");
    edge.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_path_that_is_too_long_is_told_with_the_limit() {
    let (scratch, _hub, mut edge) = hub_and_edge("socket").await;
    edge.stop();
    let long = scratch.path(&"s".repeat(120));
    let args = ["edge", "run", "--data", edge.data().to_str().unwrap(), "--socket", long.to_str().unwrap()];
    let said = run("llm-config", args).await;
    assert_ne!(said.code, 0);
    assert!(said.err.contains("socket") && said.err.contains("107"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_data_is_refused() {
    let (scratch, hub, edge) = hub_and_edge("twice").await;
    let socket = scratch.socket("second.sock");
    let args = ["edge", "run", "--data", edge.data().to_str().unwrap(), "--socket", socket.to_str().unwrap()];
    let said = run("llm-config", args).await;
    assert!(said.code > 0 && said.code < 100, "{said:?}");
    let said = run(
        "llm-config-hub",
        [
            "dev",
            "--listen",
            "127.0.0.1:0",
            "--sync-listen",
            "127.0.0.1:0",
            "--data",
            hub.data().to_str().unwrap(),
        ],
    )
    .await;
    assert!(said.code > 0 && said.code < 100, "{said:?}");
    assert_eq!(edge.client().get("/health/live").await.status, 200);
    hub.anonymous().get("/health").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_does_not_open_is_set_aside_and_filled_anew() {
    let (_scratch, hub, mut edge) = hub_and_edge("replica").await;
    fill(&hub.client()).await;
    edge.client().until_value(&path("k299"), json!({"n": 299})).await;
    edge.kill();
    for (file, bytes) in files_below(&edge.data().join("replica")) {
        std::fs::write(file, vec![0xA5; bytes.len()]).unwrap();
    }
    edge.start().await;
    edge.client().until_value(&path("k299"), json!({"n": 299})).await;
    assert_eq!(
        edge.client().everything("app", "development").await,
        hub.client().everything("app", "development").await
    );
    let log = edge.log();
    assert!(log.contains("set aside") && log.contains("pending"), "it is reported: {log}");
    assert!(!log.contains("panicked"), "{log}");
}

/// Writes half a megabyte at a time until one is refused; how many were taken.
async fn fill_the_disk(client: &Client) -> (usize, Answer) {
    let block = "x".repeat(500_000);
    for number in 0..200 {
        let answer = set(client, &format!("big{number:03}"), format!("{number}{block}")).await;
        if answer.status >= 400 {
            return (number, answer);
        }
    }
    panic!("the disk is never full");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_whose_disk_is_full_refuses_writes_and_keeps_reading() {
    let scratch = Scratch::new("full-hub");
    let mut hub = Hub::dev(&scratch).await;
    hub.stop();
    hub.file_kib_max = Some(8 << 10);
    hub.start().await;
    set(&hub.client(), "k", 1).await.expect(200);
    let (taken, refusal) = fill_the_disk(&hub.client()).await;
    refusal.refusal(503);
    assert!(taken > 2, "{taken}");
    assert_eq!(hub.client().get(&path("k")).await.expect(200)["value"], 1);
    hub.kill();
    hub.file_kib_max = None;
    hub.start().await;
    for number in 0..taken {
        hub.client().get(&path(&format!("big{number:03}"))).await.expect(200);
    }
    set(&hub.client(), "k", 2).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_whose_disk_is_full_refuses_writes_and_keeps_reading() {
    let (_scratch, mut hub, mut edge) = hub_and_edge("full-edge").await;
    set(&hub.client(), "k", 1).await.expect(200);
    edge.client().until_value(&path("k"), 1).await;
    hub.stop();
    edge.stop();
    edge.file_kib_max = Some(8 << 10);
    edge.start().await;
    let (taken, refusal) = fill_the_disk(&edge.client()).await;
    refusal.refusal(503);
    assert_eq!(edge.client().get(&path("k")).await.expect(200)["value"], 1);
    edge.kill();
    edge.file_kib_max = None;
    edge.start().await;
    hub.start().await;
    for number in 0..taken {
        hub.client().until(&path(&format!("big{number:03}")), |answer| answer.status == 200).await;
    }
}
