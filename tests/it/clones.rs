//! An edge's data that exists twice: an old state put back, and two machines from one image.

use std::fs;

use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, Client, entry};
use llm_config_tests::hub::{Database, Hub};
use llm_config_tests::scratch::{Scratch, copy_folder};
use serde_json::{Value, json};

on_both_databases!(an_old_state_that_is_put_back_loses_nothing);

fn path(key: &str) -> String {
    entry("app", key) + "?env=development"
}

async fn set(edge: &Edge, key: &str, value: &str) {
    let body = json!({"value": value, "env": "development"});
    let answer = edge.client().put(&entry("app", key), body).await;
    assert!(matches!(answer.status, 200 | 202), "{}: {}", answer.status, answer.text());
}

/// Every value that the hub's history has for a key.
async fn history(hub: &Client, key: &str) -> Vec<String> {
    let answer = hub.get(&format!("{}/history?env=development", entry("app", key))).await;
    let rows = answer.expect(200);
    let value = |row: &Value| row["value"].as_str().unwrap_or_default().to_owned();
    rows.as_array().unwrap().iter().map(value).collect()
}

fn counts_a_copy(answer: &Answer) -> bool {
    answer.text().lines().any(|line| line.starts_with("sync_copied_replicas_total") && !line.ends_with(" 0"))
}

fn is_connected(answer: &Answer) -> bool {
    answer.status == 200 && answer.json()["connected"] == true
}

async fn an_old_state_that_is_put_back_loses_nothing(database: Database) {
    let scratch = Scratch::new("set-back");
    let mut hub = Hub::on(database, &scratch).await;
    let mut edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    edge.client().until("/health/ready", |answer| answer.status == 200).await;
    set(&edge, "always", "before").await;
    hub.client().until_value(&path("always"), "before").await;
    edge.stop();
    let image = scratch.path("image");
    copy_folder(edge.data(), &image);

    edge.start().await;
    for number in 0..3 {
        set(&edge, &format!("first-{number}"), "of the first life").await;
    }
    set(&edge, "both", "of the first life").await;
    hub.client().until_value(&path("both"), "of the first life").await;
    edge.stop();

    fs::remove_dir_all(edge.data()).unwrap();
    copy_folder(&image, edge.data());
    // Written before the hub can say anything about it.
    hub.stop();
    edge.start().await;
    for number in 0..3 {
        set(&edge, &format!("second-{number}"), "of the second life").await;
    }
    set(&edge, "both", "of the second life").await;
    hub.start().await;
    for number in 0..3 {
        hub.client().until_value(&path(&format!("second-{number}")), "of the second life").await;
        assert_eq!(history(&hub.client(), &format!("first-{number}")).await, ["of the first life"]);
    }
    hub.client().until_value(&path("both"), "of the second life").await;
    let mut both = history(&hub.client(), "both").await;
    both.sort();
    assert_eq!(both, ["of the first life", "of the second life"]);

    hub.client().until("/metrics", counts_a_copy).await;
    assert!(edge.log().contains("copied, or set back"), "{}", edge.log());
    let status = edge.client().until("/api/v1/edge/status", is_connected).await.json();
    assert!(status["warnings"].to_string().contains("copied, or set back"), "{status}");
    set(&edge, "after", "as ever").await;
    hub.client().until_value(&path("after"), "as ever").await;
    edge.client().until_value(&path("first-0"), "of the first life").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_from_one_image_are_both_served() {
    let scratch = Scratch::new("twins");
    let hub = Hub::dev(&scratch).await;
    let mut edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    edge.client().until("/health/ready", |answer| answer.status == 200).await;
    set(&edge, "always", "before").await;
    hub.client().until_value(&path("always"), "before").await;
    edge.stop();
    copy_folder(edge.data(), &scratch.path("e1-again"));
    let mut twin = Edge::at(&scratch, "e1-again");
    edge.start().await;
    twin.start().await;
    for round in 0..3 {
        for (edge, name) in [(&edge, "one"), (&twin, "two")] {
            set(edge, &format!("{name}-{round}"), name).await;
        }
        for name in ["one", "two"] {
            for client in [hub.client(), edge.client(), twin.client()] {
                client.until_value(&path(&format!("{name}-{round}")), name).await;
            }
        }
    }
    hub.client().until("/metrics", counts_a_copy).await;
    for edge in [&edge, &twin] {
        edge.client().until("/api/v1/edge/status", is_connected).await;
    }
    twin.stop();
}
