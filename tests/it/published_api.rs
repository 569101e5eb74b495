//! Clients of the published `llm-config` 0.5 work unchanged: their requests in order, with what they rely on in the answers.

use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, Client};
use llm_config_tests::hub::{Database, Hub};
use llm_config_tests::scratch::Scratch;
use serde_json::{Value, json};

const REQUESTS: &str = include_str!("../data/published-api.jsonl");

/// Whether the answer holds what is wanted: objects may have more members, everything else is equal.
fn holds(answer: &Value, wanted: &Value) -> bool {
    match (answer, wanted) {
        (Value::Object(answer), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| answer.get(name).is_some_and(|answer| holds(answer, wanted)))
        }
        (answer, wanted) => answer == wanted,
    }
}

fn check(step: &Value, answer: &Answer, place: &str) {
    let line = step["method"].as_str().unwrap().to_owned() + " " + step["path"].as_str().unwrap();
    let status = step["status"].as_u64().unwrap();
    assert_eq!(u64::from(answer.status), status, "{line} at {place}: {}", answer.text());
    if let Some(wanted) = step.get("has") {
        assert!(holds(&answer.json(), wanted), "{line} at {place}: {} has no {wanted}", answer.text());
    }
}

fn steps() -> impl Iterator<Item = Value> {
    REQUESTS.lines().map(|line| serde_json::from_str(line).expect("a line is JSON"))
}

async fn send(client: &Client, step: &Value) -> Answer {
    client
        .send(step["method"].as_str().unwrap(), step["path"].as_str().unwrap(), step.get("body").cloned())
        .await
}

/// What the notes of the file say beyond `has`.
struct Notes {
    id: Option<Value>,
}

impl Notes {
    fn check(&mut self, step: &Value, answer: &Answer) {
        let path = step["path"].as_str().unwrap();
        let body = answer.json();
        if path.ends_with("/model")
            && step["method"] == "POST"
            && answer.status == 200
            && !path.contains("svc")
        {
            let id = body["id"].clone();
            uuid::Uuid::parse_str(id.as_str().expect("an id")).expect("a UUID");
            assert_eq!(*self.id.get_or_insert_with(|| id.clone()), id, "the id is stable");
            let metadata = &body["metadata"];
            assert_ne!(metadata["created_by"], "admin", "the author is the caller, not who the request says");
            for time in ["created_at", "updated_at"] {
                let time = metadata[time].as_str().expect("a time");
                assert!(time.len() >= 20 && time.as_bytes()[10] == b'T', "{time} is RFC 3339");
            }
        }
        if path.contains("/rollback/1") {
            assert_eq!(Some(&body["id"]), self.id.as_ref(), "a rollback keeps the id");
        }
        if path.contains("/history") {
            let versions: Vec<_> =
                body.as_array().unwrap().iter().map(|row| row["version"].clone()).collect();
            assert_eq!(versions, [json!(2), json!(1)], "newest first");
            for field in ["value", "created_at", "created_by", "change_description"] {
                assert!(body[0].get(field).is_some(), "{field} is in the history: {body}");
            }
        }
        if path.starts_with("/api/v1/configs/app%2Fllm?") {
            check_list(&body, answer);
        }
    }
}

fn check_list(body: &Value, answer: &Answer) {
    let keys: Vec<_> = body.as_array().unwrap().iter().map(|entry| entry["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["api_key", "model", "settings", "temperature"]);
    assert!(!answer.text().contains("sk-proj"), "secrets are masked");
}

/// Every request at the hub, and every read at once at an edge's TCP port as well.
async fn in_order(hub: &Hub, edge: &Edge) {
    let (hub, edge) = (hub.client(), edge.tcp());
    let mut notes = Notes { id: None };
    let mut position = String::new();
    for step in steps() {
        let answer = send(&hub, &step).await;
        check(&step, &answer, "the hub");
        notes.check(&step, &answer);
        if let Some(written) = answer.header("x-config-position").filter(|_| step["method"] != "GET") {
            written.clone_into(&mut position);
        }
        if step["method"] != "GET" {
            continue;
        }
        let mut step = step;
        let path = step["path"].as_str().unwrap().to_owned();
        if path.contains("/configs/") && !path.contains("/history") && !position.is_empty() {
            let joint = if path.contains('?') { '&' } else { '?' };
            step["path"] = format!("{path}{joint}at_least={position}").into();
        }
        let answer = send(&edge, &step).await;
        check(&step, &answer, "the edge");
        notes.check(&step, &answer);
    }
}

on_both_databases!(published_requests_pass_at_the_hub_and_their_reads_at_an_edge);

async fn published_requests_pass_at_the_hub_and_their_reads_at_an_edge(database: Database) {
    let scratch = Scratch::new("published-api");
    let hub = Hub::on(database, &scratch).await;
    let token = hub.open_token("e1").await;
    let edge = Edge::join(&scratch, "e1", &token).await;
    edge.tcp().until("/health", |answer| answer.status == 200 && answer.json()["status"] == "healthy").await;
    in_order(&hub, &edge).await;
}

#[test]
fn holding_is_a_subset_with_exact_numbers() {
    assert!(holds(&json!({"a": {"b": 1, "c": 2}}), &json!({"a": {"b": 1}})));
    assert!(!holds(&json!({"a": 9007199254740992u64}), &json!({"a": 9007199254740993u64})));
    assert!(!holds(&json!({"a": ""}), &json!({"a": null})));
}
