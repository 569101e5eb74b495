//! Secrets as documents with a life, as their users meet them: types, what is told beside the value, expiry.

use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, entry, list};
use llm_config_tests::hub::{Database, Hub};
use llm_config_tests::process::{Process, program};
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;
use serde_json::{Value, json};

const CANARY: &str = "canary-5d0a91fe62c7";
const DAY: u64 = 86_400;

on_both_databases! {
    types_are_checked_and_what_is_told_stays_beside_the_value,
    each_warning_is_given_once,
    a_purged_version_is_gone_and_its_place_stays,
    each_cipher_opens_everywhere,
}

/// So many seconds from now, in RFC 3339.
fn in_seconds(seconds: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    llm_config_shared::time::UnixMillis(now.as_millis() as u64 + seconds * 1_000).to_rfc3339()
}

async fn types_are_checked_and_what_is_told_stays_beside_the_value(database: Database) {
    let scratch = Scratch::new("types");
    let hub = Hub::on(database, &scratch).await;
    let client = hub.client();
    let at = entry("app", "openai") + "?env=production";
    let expires_at = in_seconds(3 * DAY);
    let document = json!({"provider": "openai", "key": CANARY, "scopes": ["chat"]});
    let body = json!({"value": document, "secret_type": "api_key", "expires_at": expires_at});
    let told = |answer: &Value| {
        assert_eq!((&answer["secret_type"], &answer["expires_at"]), (&json!("api_key"), &json!(expires_at)));
        assert!(answer["secret"] == true && !answer.to_string().contains(CANARY), "{answer}");
    };
    told(&client.put(&at, body).await.expect(200));
    told(&client.get(&at).await.expect(200));
    told(&client.get(&(list("app") + "?env=production")).await.expect(200)[0]);
    told(&client.get(&(entry("app", "openai") + "/history?env=production")).await.expect(200)[0]);
    let revealed = client.get(&(at.clone() + "&reveal=true")).await.expect(200);
    assert_eq!(serde_json::from_str::<Value>(revealed["value"].as_str().unwrap()).unwrap(), document);

    // What is wrong is told by its member, and never repeated.
    for (value, field) in [
        (json!({"provider": CANARY}), "key"),
        (json!({"provider": "p", "key": [CANARY]}), "key"),
        (json!({"provider": "p", "key": "k", "scopes": CANARY}), "scopes"),
        (json!(CANARY), "value"),
    ] {
        let answer = client.put(&at, json!({"value": value, "secret": true, "secret_type": "api_key"})).await;
        assert_eq!(answer.expect(422)["details"]["field"], field);
        assert!(!answer.text().contains(CANARY), "{}", answer.text());
    }
    let plain = json!({"value": "x", "secret": false, "secret_type": "api_key"});
    assert_eq!(client.put(&at, plain).await.expect(422)["details"]["field"], "secret_type");

    // A generic secret in between, and back: what is told goes with the value.
    let generic = client.put(&at, json!({"value": CANARY, "secret": true})).await.expect(200);
    assert_eq!((&generic["secret_type"], &generic["expires_at"]), (&json!("generic"), &Value::Null));
    let expiring = async |within: &str| {
        let found = client.get(&format!("/api/v1/secrets/expiring?within={within}")).await.expect(200);
        found.as_array().unwrap().iter().map(|secret| secret["key"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(expiring("7d").await, [] as [Value; 0], "the current version does not expire");
    told(&client.post(&(entry("app", "openai") + "/rollback/1?env=production"), json!({})).await.expect(200));
    assert_eq!(expiring("7d").await, ["openai"]);
    assert_eq!(expiring("1d").await, [] as [Value; 0]);
    let said = hub.cli(&scratch, &["secrets", "expiring", "--within", "7d"]).await.done();
    assert!(said.contains("app openai") && said.contains(&expires_at), "{said}");
    client.delete(&at).await.expect(204);
    assert_eq!(expiring("7d").await, [] as [Value; 0], "what is deleted expires no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_tells_the_same_without_its_hub_and_sets_typed_secrets_through_it() {
    let scratch = Scratch::new("typed-edge");
    let mut hub = Hub::dev(&scratch).await;
    let token = hub.open_token("e1").await;
    let mut edge = Edge::join_with(&scratch, "e1", &token, &["--offline-restart", "file"]).await;
    hub.client().put(&entry("app", "first"), json!({"value": 1, "env": "base"})).await.expect(200);
    edge.client().until_value(&(entry("app", "first") + "?env=base"), 1).await;
    let document = json!({"username": "app", "password": CANARY}).to_string();
    let args = ["set", "app", "db", &document, "--env", "base", "--secret", "--type", "database_credentials"];
    edge.cli(&[&args[..], &["--expires", "2d"]].concat()).await.done();
    let at = entry("app", "db") + "?env=base";
    let arrived =
        |answer: &Answer| answer.status == 200 && answer.json()["secret_type"] == "database_credentials";
    let before = edge.client().until(&at, arrived).await.json();
    hub.stop();
    edge.kill();
    edge.start().await;
    let after = edge.client().get(&at).await.expect(200);
    assert!(after["expires_at"].is_string());
    assert_eq!(
        (&after["expires_at"], &after["secret_type"]),
        (&before["expires_at"], &before["secret_type"])
    );
    let revealed = edge.client().get(&(at + "&reveal=true")).await.expect(200);
    assert_eq!(revealed["value"], document.as_str(), "what is told is part of what the value is bound to");
    let listed = edge.cli(&["list", "app", "--env", "base"]).await.done();
    assert!(listed.contains("database_credentials, expires ") && !listed.contains(CANARY), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_value_that_looks_like_a_key_is_taken_with_a_warning() {
    let scratch = Scratch::new("likely");
    let hub = Hub::dev(&scratch).await;
    let key = "sk-proj-9f86d081884c7d659a2feaa0c55ad015";
    let put = async |value: Value| {
        hub.client().put(&entry("app", "openai"), json!({"value": value, "env": "base"})).await.expect(200)
    };
    let warned = put(json!({"url": "https://api.openai.com", "key": key})).await;
    assert!(warned["warnings"][0].as_str().unwrap().contains("in the clear"), "{warned}");
    assert_eq!(put(json!("https://api.openai.com/v1/models")).await["warnings"], Value::Null);
    let said = hub.cli(&scratch, &["set", "app", "other", key, "--env", "base"]).await;
    assert!(said.code == 0 && said.err.contains("app other: the value looks like a key"), "{}", said.err);
    assert!(!said.err.contains(key));
    let said = hub.cli(&scratch, &["set", "app", "hidden", key, "--env", "base", "--secret"]).await;
    assert!(said.code == 0 && !said.err.contains("looks like"), "{}", said.err);
    let file = scratch.file("keys.json", &json!({"a": key, "b": "plain"}).to_string());
    let file = file.to_str().unwrap();
    let said = hub.cli(&scratch, &["import", file, "--namespace", "imported", "--env", "base"]).await;
    let warnings: Vec<&str> = said.err.lines().filter(|line| line.contains("looks like")).collect();
    assert!(said.code == 0 && warnings.len() == 1 && warnings[0].contains("imported a:"), "{}", said.err);
}

async fn each_warning_is_given_once(database: Database) {
    let scratch = Scratch::new("expiry");
    let tables = match database {
        Database::Sqlite => format!("[database]\nurl = \"sqlite:{}\"", scratch.path("hub.sqlite").display()),
        Database::Postgres => format!("[database]\nurl = \"{}\"", llm_config_tests::postgres::database()),
    };
    let mut hub = Hub::serve(&scratch, &format!("{tables}\n[secrets.expiry]\ncheck_seconds = 1")).await;
    let watch = |hub: &Hub| {
        let token = scratch.file("watch.token", hub.token());
        let mut command = std::process::Command::new(program("llm-config"));
        command.args(["watch", "--hub", &format!("http://{}", hub.api), "--token-file"]).arg(token);
        Process::start(&mut command, "watch", &scratch.path("watch.log"))
    };
    let watching = watch(&hub);
    let set = async |hub: &Hub, key: &str, seconds: u64| {
        let body = json!({"value": CANARY, "secret": true, "env": "base", "expires_at": in_seconds(seconds)});
        hub.client().put(&entry("app", key), body).await.expect(200);
    };
    // Followers are told what comes after they began.
    eventually("the watch follows", async || {
        set(&hub, "probe", 365 * DAY).await;
        if watching.log().contains("app probe") { Ok(()) } else { Err(watching.log()) }
    })
    .await;
    set(&hub, "soon", 5 * DAY).await;
    set(&hub, "later", 20 * DAY).await;
    set(&hub, "far", 90 * DAY).await;
    set(&hub, "over", 0).await;
    let warnings = |key: &str| {
        let of_key = |line: &&str| line.contains("a secret ") && line.contains(&format!("{key}\""));
        hub.log().lines().filter(of_key).count()
    };
    let told = |log: &str, key: &str| {
        log.lines().filter(|line| line.contains(&format!("app {key}: version"))).count()
    };
    eventually("each is told", async || {
        let log = watching.log();
        let counts = ["soon", "later", "over"].map(|key| (told(&log, key), hub.log().matches(key).count()));
        if counts.iter().all(|(told, logged)| *told == 1 && *logged >= 1) {
            Ok(())
        } else {
            Err((counts, log))
        }
    })
    .await;
    let log = watching.log();
    assert!(log.contains("app soon: version 1 of this secret expires within 7 days"), "{log}");
    assert!(log.contains("app later: version 1 of this secret expires within 30 days"), "{log}");
    assert!(log.contains("app over: version 1 of this secret has expired"), "{log}");
    let metrics = hub.client().get("/metrics").await.text();
    assert!(metrics.lines().any(|line| line == "secrets_expiring 3"), "{metrics}");
    let logged = ["soon", "later", "over"].map(warnings);
    assert_eq!(logged, [1, 1, 1]);

    // Neither the next looks nor a restart give one again; a new version is warned of anew.
    hub.stop();
    hub.start().await;
    set(&hub, "soon", 6 * DAY).await;
    let warnings = |key: &str| {
        let of_key = |line: &&str| line.contains("a secret ") && line.contains(&format!("{key}\""));
        hub.log().lines().filter(of_key).count()
    };
    eventually("the new version is warned of", async || {
        let count = warnings("soon");
        if count == 2 { Ok(()) } else { Err(count) }
    })
    .await;
    assert_eq!(["later", "over", "far", "probe"].map(warnings), [1, 1, 0, 0]);
    assert!(!hub.log().contains(CANARY));
}

async fn a_purged_version_is_gone_and_its_place_stays(database: Database) {
    let scratch = Scratch::new("purge-version");
    let hub = Hub::on(database, &scratch).await;
    let client = hub.client();
    let at = entry("app", "key") + "?env=base";
    for value in ["one", "two"] {
        client.put(&at, json!({"value": format!("{CANARY}-{value}"), "secret": true})).await.expect(200);
    }
    hub.back_up(&scratch).await;
    client.put(&at, json!({"value": "three", "secret": true})).await.expect(200);
    let purge = async |version: u64| {
        client.post("/api/v1/secrets/app/key/purge?env=base", json!({"version": version})).await
    };
    assert!(purge(3).await.refusal(409).contains("current"));
    purge(9).await.expect(404);
    let purged = purge(1).await.expect(200);
    let backups = purged["backups"].as_array().unwrap();
    assert!(backups.len() == 1 && backups[0]["file"].as_str().unwrap().ends_with("hub.backup"), "{purged}");
    assert_eq!(purge(1).await.expect(200), purged, "again");

    let history = client.get(&(entry("app", "key") + "/history?env=base&reveal=true")).await.expect(200);
    let values: Vec<_> =
        history.as_array().unwrap().iter().map(|past| past["value"].as_str().unwrap()).collect();
    assert_eq!(values, ["three", &format!("{CANARY}-two"), "<encrypted>"]);
    assert_eq!((&history[2]["purged"], &history[1]["purged"]), (&json!(true), &Value::Null));
    let read = client.get(&(at.clone() + "&version=1&reveal=true")).await;
    assert!(read.refusal(404).contains("was purged"));
    let rollback = client.post(&(entry("app", "key") + "/rollback/1?env=base"), json!({})).await;
    assert!(rollback.refusal(404).contains("was purged"));
    client.get(&(entry("app", "key") + "/diff?env=base&from=1&to=2")).await.expect(200);

    // One that was written after the backup is in none.
    client.put(&at, json!({"value": "four", "secret": true})).await.expect(200);
    let said = hub
        .cli(&scratch, &["secrets", "purge", "app", "key", "--env", "base", "--version", "3"])
        .await
        .done();
    assert!(said.contains("version 3 of app key is gone; no backup of this hub holds it"), "{said}");
    let writer = client.post("/api/v1/tokens", json!({"name": "w", "role": "writer"})).await.expect(200);
    let writer = hub.anonymous().with_token(writer["token"].as_str().unwrap());
    writer.post("/api/v1/secrets/app/key/purge?env=base", json!({"version": 2})).await.expect(403);
}

async fn each_cipher_opens_everywhere(database: Database) {
    let scratch = Scratch::new("ciphers");
    let mut hub = Hub::on(database, &scratch).await;
    let edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    let ciphers = ["xchacha20poly1305", "aes256gcm", "chacha20poly1305"];
    for cipher in ciphers {
        let said = hub.cli(&scratch, &["secrets", "cipher", cipher]).await.done();
        assert_eq!(said.trim(), cipher);
        let body = json!({"value": format!("{CANARY}-{cipher}"), "secret": true, "env": "base"});
        hub.client().put(&entry("app", cipher), body).await.expect(200);
    }
    hub.client().put("/api/v1/secrets/sealing", json!({"cipher": "rot13"})).await.expect(422);
    hub.stop();
    hub.start().await;
    for cipher in ciphers {
        let path = entry("app", cipher) + "?env=base&reveal=true";
        for client in [hub.client(), edge.client()] {
            client.until_value(&path, format!("{CANARY}-{cipher}")).await;
        }
    }
}
