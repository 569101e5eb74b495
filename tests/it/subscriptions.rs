//! What an edge is subscribed to changes after it has joined: while it is connected, and while it is away.

use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Client, entry};
use llm_config_tests::hub::{Database, Hub};
use llm_config_tests::scratch::Scratch;
use serde_json::{Value, json};

on_both_databases!(
    a_connected_edge_gets_what_it_is_given_and_loses_what_it_is_not,
    an_edge_that_was_away_learns_of_it_when_it_comes_back,
    a_subscription_that_cannot_be_is_refused,
);

fn at(namespace: &str, key: &str) -> String {
    entry(namespace, key) + "?env=development"
}

async fn set(client: &Client, namespace: &str, key: &str, value: &str) {
    let body = json!({"value": value, "env": "development"});
    let answer = client.put(&entry(namespace, key), body).await;
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
}

/// An edge for `app` in development, writing there, beside a hub that has `app` and `team`.
async fn world(test: &str, database: Database) -> (Scratch, Hub, Edge) {
    let scratch = Scratch::new(test);
    let hub = Hub::on(database, &scratch).await;
    for namespace in ["app", "team"] {
        set(&hub.client(), namespace, "k", "first").await;
    }
    let token =
        json!({"name": "e1", "namespaces": ["app"], "environments": ["development"], "write": ["app"]});
    let edge = Edge::join(&scratch, "e1", &hub.join_token(token).await).await;
    edge.client().until_value(&at("app", "k"), "first").await;
    (scratch, hub, edge)
}

async fn is_gone(edge: &Edge, path: &str) {
    edge.client().until(path, |answer| matches!(answer.status, 403 | 404)).await;
}

async fn a_connected_edge_gets_what_it_is_given_and_loses_what_it_is_not(database: Database) {
    let (scratch, hub, mut edge) = world("subscriptions", database).await;
    is_gone(&edge, &at("team", "k")).await;
    let said = hub.cli(&scratch, &["fleet", "set", "e1", "--namespaces", "app,team"]).await.done();
    assert!(said.contains("e1 receives this now"), "{said}");
    edge.client().until_value(&at("team", "k"), "first").await;

    let narrowed =
        hub.client().send("PATCH", "/api/v1/edges/e1", Some(json!({"namespaces": ["team"]}))).await;
    let narrowed = narrowed.expect(200);
    assert_eq!((&narrowed["namespaces"], &narrowed["write"]), (&json!(["team"]), &json!(["app"])));
    is_gone(&edge, &at("app", "k")).await;
    set(&hub.client(), "team", "k", "second").await;
    edge.client().until_value(&at("team", "k"), "second").await;
    edge.kill();
    edge.start().await;
    edge.client().get(&at("team", "k")).await.expect(200);
    assert!(matches!(edge.client().get(&at("app", "k")).await.status, 403 | 404), "nor from the disk");
}

async fn an_edge_that_was_away_learns_of_it_when_it_comes_back(database: Database) {
    let (_scratch, mut hub, mut edge) = world("subscriptions-away", database).await;
    edge.stop();
    hub.stop();
    edge.start().await;
    set(&edge.client(), "app", "k", "written offline").await;
    edge.stop();
    hub.start().await;
    let changed = json!({"namespaces": ["app", "team"], "write": ["team"]});
    let answer = hub.client().send("PATCH", "/api/v1/edges/e1", Some(changed)).await.expect(200);
    assert_eq!(answer["write"], json!(["team"]));

    edge.start().await;
    edge.client().until_value(&at("team", "k"), "first").await;
    // What waited was written where the edge may not write any more: refused, told, and in the history.
    edge.client().until_value(&at("app", "k"), "first").await;
    let history = hub.client().get(&(entry("app", "k") + "/history?env=development")).await.expect(200);
    let statuses: Vec<&Value> =
        history.as_array().unwrap().iter().map(|version| &version["status"]).collect();
    assert!(statuses.contains(&&json!("denied")), "{history}");
    let refused =
        edge.client().put(&entry("app", "k"), json!({"value": "again", "env": "development"})).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    set(&edge.client(), "team", "k", "by the edge").await;
    hub.client().until_value(&at("team", "k"), "by the edge").await;
}

async fn a_subscription_that_cannot_be_is_refused(database: Database) {
    let (scratch, hub, edge) = world("subscriptions-refused", database).await;
    let client = hub.client();
    let patch = async |name: &str, body: Value| {
        client.send("PATCH", &format!("/api/v1/edges/{name}"), Some(body)).await
    };
    assert_eq!(patch("nobody", json!({"namespaces": ["app"]})).await.status, 404);
    for (body, status) in [
        (json!({"environments": ["nowhere"]}), 400),
        (json!({"namespaces": ["no spaces"]}), 400),
        (json!({"folders": ["app"]}), 400),
        (json!({"namespaces": (0..200).map(|n| format!("n{n}")).collect::<Vec<_>>()}), 422),
    ] {
        let answer = patch("e1", body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
    }
    let reader = client.post("/api/v1/tokens", json!({"name": "r", "role": "reader"})).await.expect(200);
    let reader = hub.anonymous().with_token(reader["token"].as_str().unwrap());
    let answer = reader.send("PATCH", "/api/v1/edges/e1", Some(json!({"namespaces": ["team"]}))).await;
    assert_eq!(answer.status, 403);
    let said = hub.cli(&scratch, &["fleet", "set", "e1"]).await;
    assert_eq!(said.code, 2, "nothing to change");
    edge.client().get(&at("app", "k")).await.expect(200);
}
