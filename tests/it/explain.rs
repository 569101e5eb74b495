//! Why a value is what it is, at an edge without its hub, and at the hub for any edge.

use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, entry};
use llm_config_tests::hub::Hub;
use llm_config_tests::scratch::Scratch;
use serde_json::{Value, json};

fn found(answer: &Value) -> Vec<String> {
    let place = |place: &Value| {
        let text = |name: &str| place[name].as_str().unwrap().to_owned();
        format!("{} {} {}", text("namespace"), text("environment"), text("found"))
    };
    answer["places"].as_array().unwrap().iter().map(place).collect()
}

#[tokio::test]
async fn every_place_is_told_and_why_it_counts() {
    let scratch = Scratch::new("explain");
    let mut hub = Hub::dev(&scratch).await;
    let client = hub.client();
    let token =
        json!({"name": "e1", "namespaces": ["app"], "environments": ["production"], "write": ["app"]});
    let edge = Edge::join(&scratch, "e1", &hub.join_token(token).await).await;
    let set = async |namespace: &str, env: &str, body: Value| {
        let mut body = body;
        body["env"] = env.into();
        client.put(&entry(namespace, "model"), body).await.expect(200);
    };
    set("app", "base", json!({"value": "of base"})).await;
    set("app", "staging", json!({"value": "hidden", "secret": true})).await;
    set("app", "production", json!({"value": "of production"})).await;
    let address = entry("app", "model") + "/explain?env=production";
    let at_hub = client.get(&address).await.expect(200);
    let places = [
        "app production used",
        "app staging secret_not_inherited",
        "app development empty",
        "app base covered",
    ];
    assert_eq!(found(&at_hub), places);
    assert_eq!(at_hub["places"][1]["entry"]["value"], "<encrypted>", "{at_hub}");

    // Of the environments above its own the edge is sent no secrets, but for base.
    let of_edge = |own: &str| {
        vec![
            format!("edges/e1/app production {own}"),
            "edges/e1/app staging secrets_not_received".to_owned(),
            "edges/e1/app development secrets_not_received".to_owned(),
            "edges/e1/app base empty".to_owned(),
        ]
    };
    let rest = [
        "app production used",
        "app staging secrets_not_received",
        "app development secrets_not_received",
        "app base covered",
    ];
    let whole =
        |own: Vec<String>, rest: &[&str]| [own, rest.iter().map(ToString::to_string).collect()].concat();
    let filled =
        |answer: &Answer| answer.status == 200 && found(&answer.json()) == whole(of_edge("empty"), &rest);
    edge.client().until(&address, filled).await;

    hub.stop();
    let value = json!({"value": "here", "env": "production"});
    edge.client().put(&entry("app", "model"), value).await.expect(202);
    let waits = edge.client().get(&address).await;
    assert_eq!(waits.json()["places"][4]["entry"]["pending"], true, "{}", waits.text());
    assert_eq!(
        (waits.header("x-config-source"), waits.json()["edge"].as_str()),
        (Some("pending"), Some("e1"))
    );
    let told = edge.cli(&["explain", "app", "model", "--env", "production"]).await.done();
    let used = "→\tapp\tproduction\t\"here\"\t1\tedge:e1/uid:0\t";
    assert!(told.contains(used) && told.contains("\tused; waits for the hub\n"), "{told}");
    let missing = edge.cli(&["explain", "app", "other", "--env", "production"]).await;
    assert_eq!(
        (missing.code, missing.out.lines().count()),
        (3, 8),
        "every place all the same: {}",
        missing.out
    );
    let elsewhere = edge.cli(&["explain", "other", "model", "--env", "production", "--json"]).await;
    let elsewhere: Value = serde_json::from_str(&elsewhere.out).unwrap();
    assert_eq!(found(&elsewhere)[4], "other production not_received");

    edge.client().delete(&(entry("app", "model") + "?env=production")).await.expect(202);
    let deleted = edge.client().get(&address).await;
    assert_eq!(
        found(&deleted.json())[4..],
        ["app production deletion_waits", rest[1], rest[2], "app base used"]
    );
    assert_eq!(deleted.header("x-config-source"), Some("pending"));

    hub.start().await;
    hub.client()
        .until(&(entry("app", "model") + "?env=production"), |answer: &Answer| answer.status == 404)
        .await;
    set("app", "production", json!({"value": "again"})).await;
    set("edges/e1/app", "production", json!({"value": "for e1 alone"})).await;
    let for_edge = hub.client().get(&(address.clone() + "&edge=e1")).await.expect(200);
    let rest = [
        "app production covered",
        "app staging secrets_not_received",
        "app development secrets_not_received",
        "app base covered",
    ];
    assert_eq!(found(&for_edge), whole(of_edge("used"), &rest), "an edge is sent no secret of a parent");
    hub.client().get(&(address.clone() + "&edge=e2")).await.expect(404);
    edge.client().get(&(address + "&edge=e2")).await.expect(422);
}
