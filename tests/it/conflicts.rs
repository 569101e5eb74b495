//! Conflicts as people meet them: on a real hub and a real edge, decided from the command line.

use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, Client, entry};
use llm_config_tests::hub::{Database, Hub};
use llm_config_tests::scratch::Scratch;
use serde_json::{Value, json};

on_both_databases! {
    a_loser_is_brought_back_everywhere_by_one_command,
    a_policy_decides_about_writes_made_while_cut_off,
    a_held_write_is_released_from_the_command_line,
}

fn path(key: &str) -> String {
    entry("app", key) + "?env=development"
}

async fn set(client: &Client, key: &str, value: &str) -> Answer {
    client.put(&entry("app", key), json!({"value": value, "env": "development"})).await
}

/// Both write while they cannot hear each other, the hub last; then they meet.
async fn collide(hub: &mut Hub, edge: &mut Edge, key: &str) {
    set(&hub.client(), key, "first").await.expect(200);
    edge.client().until_value(&path(key), "first").await;
    hub.stop();
    set(&edge.client(), key, "of the edge").await.expect(202);
    edge.stop();
    hub.start().await;
    set(&hub.client(), key, "of the hub").await.expect(200);
    edge.start().await;
}

async fn hub_and_edge(test: &str, database: Database) -> (Scratch, Hub, Edge) {
    let scratch = Scratch::new(test);
    let hub = Hub::on(database, &scratch).await;
    let edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    (scratch, hub, edge)
}

async fn history(hub: &Hub, key: &str) -> Vec<Value> {
    let address = format!("{}/history?env=development", entry("app", key));
    hub.client().get(&address).await.expect(200).as_array().unwrap().clone()
}

fn of_replica(value: &'static str) -> impl Fn(&Answer) -> bool {
    move |answer| {
        answer.status == 200
            && answer.json()["value"] == value
            && answer.header("x-config-source") == Some("replica")
    }
}

async fn a_loser_is_brought_back_everywhere_by_one_command(database: Database) {
    let (scratch, mut hub, mut edge) = hub_and_edge("restore", database).await;
    let other = Edge::join(&scratch, "e2", &hub.open_token("e2").await).await;
    collide(&mut hub, &mut edge, "model").await;
    let one = |answer: &Answer| answer.status == 200 && answer.json().as_array().unwrap().len() == 1;
    let listed = hub.client().until("/api/v1/conflicts?state=open", one).await.json();
    let id = listed[0]["id"].as_str().unwrap().to_owned();
    edge.client().until(&path("model"), of_replica("of the hub")).await;
    let status = edge.client().get("/api/v1/edge/status").await.expect(200);
    assert_eq!(status["lost"], 1, "its own people are told: {status}");

    let shown = hub.cli(&scratch, &["conflicts", "show", &id, "--json"]).await.done();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (&shown["winner"]["value"], &shown["loser"]["value"]),
        (&json!("of the hub"), &json!("of the edge"))
    );
    assert_eq!((&shown["loser"]["site"], &shown["loser"]["edge"]), (&json!("edge"), &json!("e1")));
    assert_eq!(shown["loser"]["had_seen"], "version 1");
    assert!(hub.cli(&scratch, &["conflicts"]).await.done().contains(&id));

    let told =
        hub.cli(&scratch, &["conflicts", "restore", &id, "--message", "the edge was right"]).await.done();
    assert_eq!(told.trim(), "app model in development: restored as version 4");
    for client in [hub.client(), edge.client(), other.client()] {
        client.until_value(&path("model"), "of the edge").await;
    }
    let again = hub.cli(&scratch, &["conflicts", "restore", &id]).await.done();
    assert_eq!(again, told, "asked again, it is done once");

    let rows = history(&hub, "model").await;
    let told: Vec<_> =
        rows.iter().map(|row| (row["value"].as_str().unwrap(), row["status"].as_str().unwrap())).collect();
    assert_eq!(told[0], ("of the edge", "applied"));
    assert!(
        told.contains(&("of the edge", "superseded_concurrent")) && told.contains(&("of the hub", "applied"))
    );
    assert_eq!((rows.len(), &rows[0]["change_description"]), (4, &json!("the edge was right")));
    let left = hub.client().get("/api/v1/conflicts?state=open").await.expect(200);
    assert_eq!(left, json!([]));
    let settled = hub.client().get(&format!("/api/v1/conflicts/{id}")).await.expect(200);
    assert_eq!((&settled["state"], &settled["resolution"]["version"]), (&json!("restored"), &json!(4)));

    let unknown = "0f5a6f6e-53a5-5c34-8c6e-2d9f1f0b7a42";
    assert_eq!(hub.cli(&scratch, &["conflicts", "show", unknown]).await.code, 3);
    let late = hub.cli(&scratch, &["conflicts", "dismiss", &id]).await;
    assert_eq!(late.code, 1);
    assert!(late.err.contains("was restored by"), "{}", late.err);
}

async fn a_policy_decides_about_writes_made_while_cut_off(database: Database) {
    let (scratch, mut hub, mut edge) = hub_and_edge("policy", database).await;
    let told = hub.cli(&scratch, &["policy", "app", "--conflicts", "edge_wins"]).await.done();
    assert_eq!(told.trim(), "app: edge_wins");
    collide(&mut hub, &mut edge, "kept").await;
    hub.client().until_value(&path("kept"), "of the edge").await;
    edge.client().until(&path("kept"), of_replica("of the edge")).await;
    let conflicts = hub.client().get("/api/v1/conflicts").await.expect(200);
    assert_eq!(conflicts[0]["loser"]["value"], "of the hub", "{conflicts}");

    hub.cli(&scratch, &["policy", "app", "--conflicts", "reject"]).await.done();
    collide(&mut hub, &mut edge, "refused").await;
    edge.client().until(&path("refused"), of_replica("of the hub")).await;
    let rows = history(&hub, "refused").await;
    let refused = rows.iter().find(|row| row["value"] == "of the edge").expect("it is in the history");
    assert_eq!(refused["status"], "denied");
    assert!(refused["reason"].as_str().unwrap().contains("without having seen"), "{refused}");
}

async fn a_held_write_is_released_from_the_command_line(database: Database) {
    let (scratch, mut hub, mut edge) = hub_and_edge("held", database).await;
    hub.cli(&scratch, &["policy", "app", "--conflicts", "manual"]).await.done();
    collide(&mut hub, &mut edge, "limit").await;
    let one = |answer: &Answer| answer.status == 200 && answer.json().as_array().unwrap().len() == 1;
    let held = hub.client().until("/api/v1/held", one).await.json();
    let id = held[0]["held_id"].as_str().unwrap().to_owned();
    edge.client().until(&path("limit"), of_replica("of the hub")).await;
    assert!(hub.cli(&scratch, &["held"]).await.done().contains(&id));
    let told = hub.cli(&scratch, &["held", "release", &id]).await.done();
    assert_eq!(told.trim(), "app limit in development: released as version 3");
    edge.client().until(&path("limit"), of_replica("of the edge")).await;
    let rows = history(&hub, "limit").await;
    let released = rows.iter().find(|row| row["status"] == "released").expect("the history says so");
    assert_eq!(released["resolution"]["version"], rows[0]["version"]);
    let late = hub.cli(&scratch, &["held", "drop", &id]).await;
    assert!(late.code == 1 && late.err.contains("was released by"), "{}", late.err);
}
