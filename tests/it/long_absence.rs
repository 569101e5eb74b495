//! An edge that was away for longer than deletions are kept: what was deleted is gone there too, and nothing else is.

use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, Client, entry};
use llm_config_tests::hub::{Database, Hub};
use llm_config_tests::scratch::Scratch;
use serde_json::{Value, json};

fn path(key: &str) -> String {
    entry("app", key) + "?env=development"
}

async fn set(client: &Client, key: &str, value: impl Into<Value>) -> Answer {
    let value: Value = value.into();
    client.put(&entry("app", key), json!({"value": value, "env": "development"})).await
}

/// A hub that purges what was deleted, whenever it starts.
async fn forgetful(scratch: &Scratch, database: Database) -> Hub {
    let url = match database {
        Database::Sqlite => format!("sqlite:{}", scratch.path("forgetful.sqlite").display()),
        Database::Postgres => llm_config_tests::postgres::database().to_string(),
    };
    Hub::serve(scratch, &format!("[database]\nurl = \"{url}\"\n\n[retention]\ndeleted_days = 0")).await
}

fn figure(answer: &Answer, name: &str) -> u64 {
    let text = answer.text();
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

async fn an_edge_that_comes_back_after_a_purge_ends_like_the_hub(database: Database) {
    let scratch = Scratch::new("long-absence");
    let mut hub = forgetful(&scratch, database).await;
    let mut edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    for key in ["deleted", "contested", "changed", "kept"] {
        set(&hub.client(), key, "first").await.expect(200);
    }
    edge.client().until_value(&path("kept"), "first").await;

    hub.stop();
    set(&edge.client(), "contested", "of the edge").await.expect(202);
    set(&edge.client(), "own", "of the edge").await.expect(202);
    edge.stop();
    hub.start().await;
    for key in ["deleted", "contested"] {
        hub.client().delete(&path(key)).await.expect(204);
    }
    set(&hub.client(), "changed", "second").await.expect(200);
    hub.stop();
    hub.start().await;
    let purged = |answer: &Answer| figure(answer, "hub_purged_deletions_total") == 2;
    hub.client().until("/metrics", purged).await;

    edge.start().await;
    hub.client().until_value(&path("own"), "of the edge").await;
    edge.client().until_value(&path("changed"), "second").await;
    for key in ["deleted", "contested"] {
        edge.client().until(&path(key), |answer| answer.status == 404).await;
        hub.client().get(&path(key)).await.refusal(404);
    }
    edge.client().until(&path("own"), |answer| answer.header("x-config-source") == Some("replica")).await;
    let both = (
        edge.client().everything("app", "development").await,
        hub.client().everything("app", "development").await,
    );
    assert_eq!(both.0, both.1);
    assert_eq!(both.1.keys().collect::<Vec<_>>(), ["changed", "kept", "own"]);
    let repaired = figure(&edge.client().get("/metrics").await, "sync_repairs_total");
    assert_eq!(repaired, 0, "it was told what was gone, and had not to find out");

    // The edge's own write met the deletion that it had never heard of, and lost.
    let history = format!("{}/history?env=development", entry("app", "contested"));
    let rows = hub.client().get(&history).await.expect(200);
    let status = |version: usize| rows[rows.as_array().unwrap().len() - version]["status"].clone();
    assert_eq!(
        (status(1), status(2), status(3)),
        (json!("applied"), json!("applied"), json!("superseded_concurrent"))
    );
    assert_eq!(rows[0]["value"], "of the edge");
    let conflicts = hub.client().get("/api/v1/conflicts").await.expect(200).to_string();
    assert!(conflicts.contains("of the edge") && conflicts.contains("contested"), "{conflicts}");
    let created = set(&hub.client(), "contested", "again").await.expect(200);
    assert_eq!(created["version"], 4, "its versions go on");
    assert_eq!(set(&hub.client(), "deleted", "again").await.expect(200)["version"], 3);
    edge.client().until_value(&path("contested"), "again").await;
}

on_both_databases! {
    an_edge_that_comes_back_after_a_purge_ends_like_the_hub,
}
