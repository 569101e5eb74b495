//! Entries of a replica that are not what the hub has: put right one by one, as real processes over a real disk do it.

use std::sync::Arc;

use llm_config_edge::identity::EdgeIdentity;
use llm_config_edge::keys::EdgeKeys;
use llm_config_edge::store::{self, Opened, Owner, StoreOptions};
use llm_config_shared::entry::{Content, Row};
use llm_config_shared::store::replica::{Batch, Record, ReplicaStore};
use llm_config_shared::value::Value;
use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, Client, entry};
use llm_config_tests::hub::{Database, Hub};
use llm_config_tests::scratch::Scratch;
use serde_json::json;

on_both_databases!(what_changed_or_was_lost_on_the_disk_is_put_right_entry_by_entry);

const ENTRIES: usize = 300;

fn path(key: &str) -> String {
    entry("app", key) + "?env=development"
}

async fn fill(client: &Client) {
    let operation = |i: usize| json!({"op": "set", "namespace": "app", "key": format!("k{i:03}"), "env": "development", "value": {"n": i}});
    let operations: Vec<_> = (0..ENTRIES).map(operation).collect();
    client.post("/api/v1/configs/bulk", json!({"operations": operations})).await.expect(200);
}

/// The replica of a stopped edge, opened with the edge's own keys.
fn replica(edge: &Edge) -> Opened {
    let identity = EdgeIdentity::load(edge.data()).unwrap();
    let keys = EdgeKeys::load(edge.data()).unwrap();
    let owner = Owner { tenant: identity.tenant, edge: identity.edge.0 };
    store::open(&edge.data().join("replica"), &keys.replica, &owner, StoreOptions::default()).unwrap()
}

fn rot(edge: &Edge) {
    let mut opened = replica(edge);
    let find = |key: &str| {
        let row = opened.records.iter().find_map(|record| match record {
            Record::Row(row) if row.at.key.as_str() == key => Some(Row::clone(row)),
            _ => None,
        });
        row.expect("a row of the replica")
    };
    let changed = Row { content: Content::Plain(Value::parse("\"rotten\"").unwrap()), ..find("k007") };
    let put = vec![Record::Row(Arc::new(changed))];
    let remove = vec![Record::Row(Arc::new(find("k123"))).slot()];
    opened.store.commit(&Batch { put, remove }).unwrap();
}

fn counter(answer: &Answer, name: &str) -> u64 {
    let text = answer.text();
    let value = text
        .lines()
        .filter(|line| line.starts_with(name))
        .find_map(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or(0)
}

async fn what_changed_or_was_lost_on_the_disk_is_put_right_entry_by_entry(database: Database) {
    let scratch = Scratch::new("repair");
    let mut hub = Hub::on(database, &scratch).await;
    let mut edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    fill(&hub.client()).await;
    edge.client().until_value(&path("k299"), json!({"n": 299})).await;
    hub.stop();
    edge.stop();
    rot(&edge);
    edge.start().await;
    assert_eq!(edge.client().get(&path("k007")).await.expect(200)["value"], "rotten", "nobody can know yet");

    hub.start().await;
    let repaired = |answer: &Answer| counter(answer, "sync_repaired_entries_total") == 2;
    edge.client().until("/metrics", repaired).await;
    assert_eq!(
        edge.client().everything("app", "development").await,
        hub.client().everything("app", "development").await
    );
    let metrics = hub.client().get("/metrics").await;
    assert_eq!(counter(&metrics, "sync_repairs_total{step=\"sent\"}"), 1, "{}", metrics.text());
    let log = edge.log();
    assert!(log.contains("differs from the hub") && !log.contains("rotten"), "it is reported: {log}");

    // What was put right is durable.
    hub.stop();
    edge.kill();
    edge.start().await;
    for (key, n) in [("k007", 7), ("k123", 123)] {
        assert_eq!(edge.client().get(&path(key)).await.expect(200)["value"], json!({"n": n}));
    }
}
