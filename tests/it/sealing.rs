//! The key that the hub seals to is replaced every 30 days: what was sealed to the one from before comes anew, and that one goes.

use std::fs;
use std::path::Path;

use llm_config_edge::keys::{EdgeKeys, write_private};
use llm_config_tests::edge::Edge;
use llm_config_tests::http::entry;
use llm_config_tests::hub::{Database, Hub};
use llm_config_tests::scratch::{Scratch, copy_folder};
use llm_config_tests::thief::{steal, steal_with};
use llm_config_tests::wait::eventually;
use serde_json::{Value, json};

on_both_databases!(an_old_sealing_key_is_replaced_and_opens_nothing_any_more);

const SECRET: &str = "sk-live-renewed-4d";

fn secret() -> String {
    entry("app", "key") + "?env=development&reveal=true"
}

/// As if its sealing key had been made long ago.
pub(crate) fn age(data: &Path) {
    let path = data.join("keys");
    let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(file["sealing_made_at"].as_u64().unwrap() > 0);
    file["sealing_made_at"] = json!(1);
    write_private(&path, file.to_string().as_bytes()).unwrap();
}

async fn an_old_sealing_key_is_replaced_and_opens_nothing_any_more(database: Database) {
    let scratch = Scratch::new("sealing");
    let mut hub = Hub::on(database, &scratch).await;
    let body = json!({"value": SECRET, "env": "development", "secret": true});
    hub.client().put(&entry("app", "key"), body).await.expect(200);
    let token = json!({"name": "e1", "namespaces": ["app"], "environments": ["development"]});
    let token = hub.join_token(token).await;
    let mut edge = Edge::join_with(&scratch, "e1", &token, &["--offline-restart", "file"]).await;
    edge.client().until_value(&secret(), SECRET).await;
    edge.stop();
    let old = EdgeKeys::load(edge.data()).unwrap();
    age(edge.data());
    hub.stop();

    // Without the hub there is a new key soon, and the old one opens what is here.
    edge.start().await;
    edge.client().until_value(&secret(), SECRET).await;
    eventually("there is a new sealing key", async || {
        let keys = EdgeKeys::load(edge.data()).unwrap();
        if keys.sealing_pair() != old.sealing_pair() && keys.sealing.count() == 2 {
            Ok(())
        } else {
            Err(keys.sealing)
        }
    })
    .await;
    edge.kill();
    edge.start().await;
    edge.client().until_value(&secret(), SECRET).await;

    // With the hub everything comes anew, and the old key goes.
    hub.start().await;
    edge.stop();
    age(edge.data());
    edge.start().await;
    eventually("the old sealing keys are gone", async || {
        let keys = EdgeKeys::load(edge.data()).unwrap();
        if keys.sealing.count() == 1 { Ok(()) } else { Err(keys.sealing) }
    })
    .await;
    edge.client().get(&secret()).await.expect(200);
    edge.stop();
    hub.stop();
    let image = scratch.path("image");
    copy_folder(edge.data(), &image);
    assert_eq!(steal(&image).secrets, [SECRET], "the tool does not work");
    assert_eq!(steal_with(&image, &old).secrets, Vec::<String>::new(), "sealed to the old key still");
    edge.start().await;
    edge.client().until_value(&secret(), SECRET).await;
}
