//! The ways in which the published original lost data, each as a test of its own.

use std::collections::BTreeSet;

use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Client, entry, segment};
use llm_config_tests::hub::{Database, Hub};
use llm_config_tests::scratch::Scratch;
use serde_json::{Value, json};

on_both_databases!(
    a_secret_is_readable_after_every_kind_of_restart,
    names_that_join_to_the_same_path_are_different_entries,
    eight_writers_on_one_key_all_succeed,
    of_eight_writers_that_rely_on_one_version_exactly_one_succeeds,
    a_rollback_keeps_the_id_and_names_its_real_author,
    an_entry_that_is_deleted_and_created_again_never_has_two_versions_1,
    the_author_is_the_caller_whatever_the_request_says,
    numbers_stay_exact_and_null_stays_null,
);

async fn hub_and_edge(test: &str, database: Database) -> (Scratch, Hub, Edge) {
    let scratch = Scratch::new(test);
    let hub = Hub::on(database, &scratch).await;
    let token = hub.open_token("e1").await;
    let edge = Edge::join_with(&scratch, "e1", &token, &["--offline-restart", "file"]).await;
    (scratch, hub, edge)
}

async fn set(client: &Client, namespace: &str, key: &str, value: impl Into<Value>) -> Value {
    let value: Value = value.into();
    client.put(&entry(namespace, key), json!({"value": value, "env": "development"})).await.expect(200)
}

async fn versions(client: &Client, namespace: &str, key: &str) -> Vec<u64> {
    let history = client.get(&format!("{}/history?env=development", entry(namespace, key))).await.expect(200);
    history.as_array().unwrap().iter().map(|row| row["version"].as_u64().unwrap()).collect()
}

async fn a_secret_is_readable_after_every_kind_of_restart(database: Database) {
    let (_scratch, mut hub, mut edge) = hub_and_edge("bug-secret", database).await;
    let path = entry("app", "api_key");
    let body = json!({"value": "sk-restart-7b1e", "env": "base", "secret": true});
    let written = hub.client().put(&path, body).await;
    assert_eq!(written.expect(200)["value"], "<encrypted>");
    let reveal = format!("{path}?env=base&reveal=true");
    edge.client().until_value(&reveal, "sk-restart-7b1e").await;
    hub.stop();
    edge.stop();
    edge.start().await;
    assert_eq!(
        edge.client().get(&reveal).await.expect(200)["value"],
        "sk-restart-7b1e",
        "offline, after a restart"
    );
    hub.start().await;
    assert_eq!(hub.client().get(&reveal).await.expect(200)["value"], "sk-restart-7b1e");
    hub.kill();
    edge.kill();
    hub.start().await;
    edge.start().await;
    assert_eq!(hub.client().get(&reveal).await.expect(200)["value"], "sk-restart-7b1e");
    assert_eq!(edge.client().get(&reveal).await.expect(200)["value"], "sk-restart-7b1e");
}

async fn names_that_join_to_the_same_path_are_different_entries(database: Database) {
    let (_scratch, mut hub, mut edge) = hub_and_edge("bug-names", database).await;
    let places = [
        ("prod/app", "db_host"),
        ("prod/app/db", "host"),
        ("prod/app", "db/host"),
        ("prod", "app/db/host"),
        ("prod/app_db", "host"),
    ];
    for (number, (namespace, key)) in places.iter().enumerate() {
        set(&hub.client(), namespace, key, number).await;
    }
    let last = entry(places[4].0, places[4].1) + "?env=development";
    edge.client().until_value(&last, 4).await;
    hub.kill();
    edge.kill();
    hub.start().await;
    edge.start().await;
    for client in [hub.client(), edge.client()] {
        let mut ids = BTreeSet::new();
        for (number, (namespace, key)) in places.iter().enumerate() {
            let found = client.get(&format!("{}?env=development", entry(namespace, key))).await.expect(200);
            assert_eq!(
                (&found["value"], &found["version"]),
                (&json!(number), &json!(1)),
                "{namespace} {key}"
            );
            ids.insert(found["id"].to_string());
        }
        assert_eq!(ids.len(), places.len(), "each has an id of its own");
    }
}

async fn eight_writers_on_one_key_all_succeed(database: Database) {
    let scratch = Scratch::new("bug-writers");
    let hub = Hub::on(database, &scratch).await;
    let writers = (0..8).map(|writer| {
        let client = hub.client();
        tokio::spawn(async move {
            let mut got = Vec::new();
            for round in 0..10 {
                let written = set(&client, "app", "contended", format!("{writer}.{round}")).await;
                got.push(written["version"].as_u64().unwrap());
            }
            got
        })
    });
    let mut seen = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        let got = writer.await.unwrap();
        assert!(got.is_sorted(), "one writer's versions grow: {got:?}");
        seen.extend(got);
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=80).collect::<Vec<u64>>(), "every write has a version of its own");
    let path = format!("{}/history?env=development&limit=100", entry("app", "contended"));
    let history = hub.client().get(&path).await.expect(200);
    let rows = history.as_array().unwrap();
    let values: BTreeSet<_> = rows.iter().map(|row| row["value"].to_string()).collect();
    assert_eq!((rows.len(), values.len()), (80, 80), "and nothing of it is lost");
}

async fn of_eight_writers_that_rely_on_one_version_exactly_one_succeeds(database: Database) {
    let scratch = Scratch::new("bug-if-version");
    let hub = Hub::on(database, &scratch).await;
    set(&hub.client(), "app", "guarded", 0).await;
    let writers = (0..8).map(|writer| {
        let client = hub.client();
        let body = json!({"value": writer, "env": "development", "if_version": 1});
        tokio::spawn(async move { client.put(&entry("app", "guarded"), body).await.status })
    });
    let mut statuses = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        statuses.push(writer.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409]);
}

async fn a_rollback_keeps_the_id_and_names_its_real_author(database: Database) {
    let (_scratch, hub, edge) = hub_and_edge("bug-rollback", database).await;
    let made =
        hub.client().post("/api/v1/tokens", json!({"name": "deployer", "role": "writer"})).await.expect(200);
    let deployer = hub.anonymous().with_token(made["token"].as_str().unwrap());
    let first = set(&hub.client(), "app", "model", "gpt-4").await;
    set(&hub.client(), "app", "model", "gpt-4o").await;
    let path = format!("{}/rollback/1?env=development", entry("app", "model"));
    let back = deployer.post(&path, json!({"user": "somebody else"})).await.expect(200);
    assert_eq!((&back["id"], &back["value"], &back["version"]), (&first["id"], &json!("gpt-4"), &json!(3)));
    assert_eq!(back["metadata"]["updated_by"], "token:deployer");
    assert_eq!(back["metadata"]["created_by"], first["metadata"]["created_by"]);
    let at_edge = format!("{}?env=development", entry("app", "model"));
    let read =
        edge.client().until(&at_edge, |answer| answer.status == 200 && answer.json()["version"] == 3).await;
    assert_eq!(read.json()["id"], first["id"], "the same on every replica");
}

async fn an_entry_that_is_deleted_and_created_again_never_has_two_versions_1(database: Database) {
    let (_scratch, mut hub, edge) = hub_and_edge("bug-recreate", database).await;
    let first = set(&hub.client(), "app", "flag", 1).await;
    set(&hub.client(), "app", "flag", 2).await;
    let path = format!("{}?env=development", entry("app", "flag"));
    assert_eq!(hub.client().delete(&path).await.status, 204);
    assert_eq!(hub.client().get(&path).await.status, 404);
    hub.kill();
    hub.start().await;
    let again = set(&hub.client(), "app", "flag", 3).await;
    let version = again["version"].as_u64().unwrap();
    assert!(version > 2, "the numbers go on: {again}");
    assert_eq!(again["id"], first["id"]);
    let versions = versions(&hub.client(), "app", "flag").await;
    assert!(versions.is_sorted_by(|a, b| a > b), "newest first and never twice: {versions:?}");
    assert_eq!((versions[0], versions.last()), (version, Some(&1)), "the history of before is there");
    edge.client().until(&path, |answer| answer.status == 200 && answer.json()["version"] == version).await;
}

async fn the_author_is_the_caller_whatever_the_request_says(database: Database) {
    let (_scratch, hub, edge) = hub_and_edge("bug-author", database).await;
    let body = json!({"value": 1, "env": "development", "user": "root@example.com"});
    let written = hub.client().put(&entry("app", "a"), body.clone()).await.expect(200);
    let author = written["metadata"]["created_by"].as_str().unwrap();
    assert!(author.starts_with("token:"), "{author}");
    edge.client().until_value(&format!("{}?env=development", entry("app", "a")), 1).await;
    let written = edge.client().put(&entry("app", "b"), body).await;
    assert!(matches!(written.status, 200 | 202), "{}", written.text());
    let path = format!("{}/history?env=development", entry("app", "b"));
    let history = hub.client().until(&path, |answer| answer.status == 200).await.json();
    let author = history[0]["created_by"].as_str().unwrap();
    assert!(author.starts_with("edge:e1"), "the hub writes the edge's name into {author}");
}

async fn numbers_stay_exact_and_null_stays_null(database: Database) {
    let (_scratch, mut hub, edge) = hub_and_edge("bug-values", database).await;
    let values = [
        "9007199254740993",
        "18446744073709551615",
        "-9223372036854775808",
        "0.1",
        "-0.5",
        "null",
        "\"\"",
        "[]",
        "{}",
        "{\"big\":9007199254740993,\"nested\":[null,{\"a\":null}],\"none\":null}",
        "\"null\"",
        "\"9007199254740993\"",
        "true",
    ];
    for (number, value) in values.iter().enumerate() {
        let value: Value = serde_json::from_str(value).unwrap();
        set(&hub.client(), "app", &format!("v{number}"), value).await;
    }
    let last = format!("{}?env=development", entry("app", &format!("v{}", values.len() - 1)));
    edge.client().until(&last, |answer| answer.status == 200).await;
    hub.kill();
    hub.start().await;
    for client in [hub.client(), edge.client(), edge.tcp()] {
        for (number, value) in values.iter().enumerate() {
            let path = format!("/api/v1/configs/app/{}?env=development", segment(&format!("v{number}")));
            let answer = client.get(&path).await;
            assert_eq!(answer.expect(200)["value"].to_string(), *value, "{}", answer.text());
        }
    }
}
