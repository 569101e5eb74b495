//! Rotation by a service that is asked over HTTPS: a real one, which checks the signature as Standard Webhooks has it.

use std::collections::BTreeSet;
use std::fs;

use llm_config_tests::http::Answer;
use llm_config_tests::hub::{Database, Hub};
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;
use llm_config_tests::webhook::{Mood, Webhook};
use serde_json::{Value, json};

use super::{FIRST, at, cut_at_every_step, revealed, set, tables, until_step};

async fn hub_on(scratch: &Scratch, webhook: &Webhook, database: Database) -> Hub {
    let text = format!(
        "{}\n[secrets.rotation]\ncheck_seconds = 1\n{}",
        tables(scratch, database),
        webhook.table(scratch, "vendor")
    );
    let hub = Hub::serve(scratch, &text).await;
    set(&hub, "key", json!({"value": FIRST, "secret": true})).await;
    hub
}

async fn begin(hub: &Hub, plan: Value) {
    hub.client().put(&at("rotation"), plan).await.expect(200);
    hub.client().post(&at("rotate"), json!({})).await.expect(202);
}

pub(super) async fn a_service_makes_the_new_value(database: Database) {
    let scratch = Scratch::new("webhook");
    let webhook = Webhook::start_tls().await;
    webhook.mood(Mood::Value("made-by-service"));
    let hub = hub_on(&scratch, &webhook, database).await;
    let unknown = hub.client().put(&at("rotation"), json!({"command": "https://10.0.0.1/"})).await;
    assert!(
        unknown.refusal(422).contains("not among those"),
        "a plan cannot bring an address: {}",
        unknown.text()
    );
    begin(&hub, json!({"command": "vendor"})).await;
    let rotations = until_step(&hub, "written").await;
    assert_eq!(revealed(&hub, "").await, "made-by-service");
    let heard = webhook.heard();
    assert_eq!(heard.len(), 1);
    assert!(heard[0].signed, "the signature is right");
    assert_eq!(
        (&heard[0].body["rotation"], heard[0].id.as_str()),
        (&rotations[0]["id"], heard[0].body["rotation"].as_str().unwrap())
    );
    let told = ["tenant", "namespace", "key", "environment", "phase"].map(|name| heard[0].body[name].clone());
    assert_eq!(told, ["default", "app", "key", "base", "create"].map(Value::from));
    assert!(heard[0].body.get("old_value").is_none(), "it was not asked for");
    assert!(
        !hub.log().contains("made-by-service") && !hub.log().contains(FIRST) && !hub.log().contains("whsec")
    );
}

/// Each is tried again later, and changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_gives_no_value_is_told_of_and_changes_nothing() {
    for (mood, said) in [
        (Mood::NotYet, "has no value yet"),
        (Mood::Status(500), "answered 500"),
        (Mood::Redirect, "answered 302"),
        (Mood::Text, "something else than application/json"),
        (Mood::Garbage, "no JSON object"),
        (Mood::Nothing, "without a text \"value\""),
        (Mood::Endless, "more than a value may hold"),
    ] {
        let scratch = Scratch::new("webhook-bad");
        let webhook = Webhook::start_tls().await;
        webhook.mood(mood);
        let hub = hub_on(&scratch, &webhook, Database::Sqlite).await;
        begin(&hub, json!({"command": "vendor", "old_value": true})).await;
        let told = |answer: &Answer| {
            answer.json()["rotations"][0]["why"].as_str().is_some_and(|why| why.contains(said))
        };
        let state = hub.client().until(&at("rotation"), told).await;
        assert!(!state.text().contains("canary"), "{}", state.text());
        assert_eq!(revealed(&hub, "").await, FIRST);
        let heard = webhook.heard();
        assert_eq!(heard.len(), 1, "{mood:?}: not followed, and not asked again at once");
        assert_eq!(heard[0].body["old_value"], FIRST);
        assert!(!hub.log().contains("canary") && !hub.log().contains(FIRST));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_certificate_nobody_vouches_for_hears_nothing() {
    let scratch = Scratch::new("webhook-tls");
    let webhook = Webhook::start_tls().await;
    webhook.mood(Mood::Value("made-by-a-stranger"));
    // Another certificate is in the place of its own.
    let stranger = Webhook::start_tls().await;
    let hub = hub_on(&scratch, &webhook, Database::Sqlite).await;
    scratch.file("webhook-ca.pem", stranger.certificate());
    begin(&hub, json!({"command": "vendor"})).await;
    let told = |answer: &Answer| answer.text().contains("the service vendor cannot be reached");
    hub.client().until(&at("rotation"), told).await;
    assert_eq!((webhook.heard().len(), revealed(&hub, "").await), (0, json!(FIRST)));
}

/// The hub dies at one durable write after another; a service hears of each rotation under one id, however often.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_by_a_service_that_was_cut_at_any_step_is_completed_once() {
    let scratch = Scratch::new("webhook-kills");
    let webhook = Webhook::start_tls().await;
    webhook.mood(Mood::Value("made-by-service"));
    let mut hub = hub_on(&scratch, &webhook, Database::Sqlite).await;
    hub.client().put(&at("rotation"), json!({"command": "vendor", "grace": "0s"})).await.expect(200);
    let rotations = cut_at_every_step(&mut hub).await;
    let known: BTreeSet<String> =
        rotations.iter().map(|rotation| rotation["id"].as_str().unwrap().to_owned()).collect();
    let heard = webhook.heard();
    assert!(heard.iter().all(|heard| heard.signed), "{heard:?}");
    let asked: BTreeSet<String> = heard.into_iter().map(|heard| heard.id).collect();
    assert_eq!(
        asked, known,
        "nothing is asked for twice under two ids, and nothing comes of an id that is lost"
    );
}

/// The hub dies while the service works, and asks again under the same id once it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_dies_while_a_service_works_asks_again_under_the_same_id() {
    let scratch = Scratch::new("webhook-kill");
    let webhook = Webhook::start_tls().await;
    webhook.mood(Mood::Silent);
    let mut hub = hub_on(&scratch, &webhook, Database::Sqlite).await;
    begin(&hub, json!({"command": "vendor"})).await;
    let asked = async || if webhook.heard().is_empty() { Err("not asked yet") } else { Ok(()) };
    eventually("the service is asked", asked).await;
    hub.kill();
    webhook.mood(Mood::Value("made-once"));
    hub.start().await;
    let rotations = until_step(&hub, "written").await;
    let ids: Vec<String> = webhook.heard().into_iter().map(|heard| heard.id).collect();
    assert!(ids.len() >= 2 && ids.iter().all(|id| rotations[0]["id"] == id.as_str()), "{ids:?}");
    assert_eq!((rotations.len(), revealed(&hub, "").await), (1, json!("made-once")));
    // A secret that changed meanwhile is used from the next request on.
    fs::write(scratch.path("webhook.secret"), "nonsense").unwrap();
    hub.client().post(&at("retire"), json!({})).await.expect(200);
    hub.client().post(&at("rotate"), json!({})).await.expect(202);
    let told = |answer: &Answer| answer.text().contains("24 to 64 bytes in base64");
    hub.client().until(&at("rotation"), told).await;
}
