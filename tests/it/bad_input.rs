//! What bad input gets: a status, a sentence that names the field and the limit, and nothing lost.

use llm_config_tests::http::{Answer, Client, entry, segment};
use llm_config_tests::hub::{Database, Hub};
use llm_config_tests::scratch::Scratch;
use serde_json::{Value, json};

/// A request that must be refused: what, method, path, body, status, and words that the message must hold.
struct Bad {
    what: &'static str,
    method: &'static str,
    path: String,
    body: Option<String>,
    status: u16,
    words: &'static [&'static str],
}

fn put(what: &'static str, path: String, body: &str, status: u16, words: &'static [&'static str]) -> Bad {
    Bad { what, method: "PUT", path, body: Some(body.to_owned()), status, words }
}

fn get(what: &'static str, path: &str, status: u16, words: &'static [&'static str]) -> Bad {
    Bad { what, method: "GET", path: path.to_owned(), body: None, status, words }
}

const PLAIN: &str = r#"{"value":1,"env":"development"}"#;

fn bad_names() -> Vec<Bad> {
    let namespace = |text: &str| entry(text, "k");
    let key = |text: &str| entry("app", text);
    vec![
        put("a namespace of 257 bytes", namespace(&"n".repeat(257)), PLAIN, 400, &["namespace", "256"]),
        put("a namespace with a space", namespace("my app"), PLAIN, 400, &["namespace"]),
        put("a namespace with an umlaut", namespace("größe"), PLAIN, 400, &["namespace"]),
        put("a namespace that climbs", namespace("app/../etc"), PLAIN, 400, &["namespace"]),
        put("a namespace with an empty part", namespace("app//x"), PLAIN, 400, &["namespace"]),
        put("a namespace that begins with a slash", namespace("/app"), PLAIN, 400, &["namespace"]),
        put("a namespace with a zero byte", namespace("a\0b"), PLAIN, 400, &["namespace"]),
        put("a key of 513 bytes", key(&"k".repeat(513)), PLAIN, 400, &["key", "512"]),
        put("a key with a space", key("my key"), PLAIN, 400, &["key"]),
        put("a key with a line break", key("a\nb"), PLAIN, 400, &["key"]),
        put("a key that is not ASCII", key("schlüssel"), PLAIN, 400, &["key"]),
        put(
            "an environment nobody has",
            key("k"),
            r#"{"value":1,"env":"nowhere"}"#,
            400,
            &["environment", "nowhere"],
        ),
        put("an environment with a slash", key("k"), r#"{"value":1,"env":"a/b"}"#, 400, &["environment"]),
        get(
            "an unknown environment in a read",
            "/api/v1/configs/app/k?env=nowhere",
            400,
            &["environment", "nowhere"],
        ),
        get("broken percent-encoding", "/api/v1/configs/app/%FF%FE", 400, &[]),
    ]
}

fn bad_values() -> Vec<Bad> {
    let path = || entry("app", "k");
    let value = |text: &str| format!(r#"{{"env":"development","value":{text}}}"#);
    let big = value(&format!("\"{}\"", "x".repeat(1 << 20)));
    let deep = |depth: usize| value(&format!("{}1{}", "[".repeat(depth), "]".repeat(depth)));
    let tags = value(&format!("1,\"tags\":{}", json!(vec!["t"; 33])));
    let long_tag = value(&format!("1,\"tags\":{}", json!(["t".repeat(129)])));
    let long_text = value(&format!("1,\"description\":\"{}\"", "d".repeat(4097)));
    vec![
        put("a value over 1 MiB", path(), &big, 413, &["value", "1048576"]),
        put("JSON 33 deep", path(), &deep(33), 422, &["value", "32"]),
        put("JSON 5,000 deep", path(), &deep(5_000), 422, &["value", "32"]),
        put("JSON 300,000 deep", path(), &deep(300_000), 422, &["value", "32"]),
        put("an integer beyond 64 bits", path(), &value("18446744073709551616"), 422, &["value", "64"]),
        put("a negative one beyond 64 bits", path(), &value("-9223372036854775809"), 422, &["value", "64"]),
        put("a number that fits nothing", path(), &value("1e999"), 422, &["value"]),
        put(
            "a number inside, beyond 64 bits",
            path(),
            &value(r#"{"a":[18446744073709551616]}"#),
            422,
            &["value", "64"],
        ),
        put("a name twice in one object", path(), &value(r#"{"a":1,"a":2}"#), 422, &["value", "a"]),
        put("no JSON", path(), "{\"value\":", 400, &[]),
        put("an empty body", path(), "", 400, &[]),
        put("JSON of another shape", path(), "[1,2]", 400, &[]),
        put("no value", path(), r#"{"env":"development"}"#, 400, &["value"]),
        put("33 tags", path(), &tags, 422, &["tags", "32"]),
        put("a tag of 129 bytes", path(), &long_tag, 422, &["tag", "128"]),
        put("a description of 4,097 bytes", path(), &long_text, 422, &["description", "4096"]),
    ]
}

fn bad_fields() -> Vec<Bad> {
    let path = || entry("app", "k");
    let with = |more: &str| format!(r#"{{"env":"development","value":"v",{more}}}"#);
    vec![
        put("a time to live, not built yet", path(), &with(r#""ttl":60"#), 422, &["ttl"]),
        put(
            "a type of secret, not built yet",
            path(),
            &with(r#""secret":true,"secret_type":"database""#),
            422,
            &["secret_type"],
        ),
        put(
            "a secret that is no text",
            path(),
            r#"{"env":"development","secret":true,"value":{"a":1}}"#,
            400,
            &["secret"],
        ),
        put("a version that is no number", path(), &with(r#""if_version":"new""#), 400, &["if_version"]),
        put("a version that is negative", path(), &with(r#""if_version":-1"#), 400, &["if_version"]),
        put("another version than there is", path(), &with(r#""if_version":7"#), 409, &["7"]),
        get("a limit that is no number", "/api/v1/configs/app?limit=many", 400, &["limit"]),
        get("a limit of nothing", "/api/v1/configs/app?limit=0", 400, &["limit"]),
        get("a cursor of somebody's own", "/api/v1/configs/app?cursor=zzz", 400, &["cursor"]),
        get("a position of somebody's own", "/api/v1/configs/app/k?at_least=zzz", 400, &["at_least"]),
        get("a version that is no number", "/api/v1/configs/app/k?version=x", 400, &["version"]),
        get("a format nobody knows", "/api/v1/configs/app?format=xml", 400, &["format"]),
        get("a flag that is neither", "/api/v1/configs/app?recursive=perhaps", 400, &["recursive"]),
        get("a route that does not exist", "/api/v1/nothing", 404, &[]),
        Bad {
            what: "501 operations",
            method: "POST",
            path: "/api/v1/configs/bulk".to_owned(),
            body: Some(bulk(501)),
            status: 422,
            words: &["operations", "500"],
        },
        Bad {
            what: "a bulk request without operations",
            method: "POST",
            path: "/api/v1/configs/bulk".to_owned(),
            body: Some("{}".to_owned()),
            status: 400,
            words: &["operations"],
        },
    ]
}

fn bulk(operations: usize) -> String {
    let operation = |i: usize| json!({"op": "set", "namespace": "app", "key": format!("b{i}"), "env": "development", "value": i});
    json!({"operations": (0..operations).map(operation).collect::<Vec<_>>()}).to_string()
}

async fn ask(client: &Client, bad: &Bad) -> Answer {
    let body = bad.body.clone().map(Into::into);
    client.try_send_bytes(bad.method, &bad.path, body).await.unwrap_or_else(|e| panic!("{}: {e}", bad.what))
}

/// Sends all of them and gives every answer that is not as it should be.
async fn wrongly_answered(client: &Client, all: Vec<Bad>) -> Vec<String> {
    let mut wrong = Vec::new();
    for bad in all {
        let answer = ask(client, &bad).await;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let message = body["message"].as_str().unwrap_or_default();
        // The field and the limit stand in the sentence or beside it, for programs.
        let told = bad.words.iter().all(|word| answer.text().to_lowercase().contains(word));
        if answer.status != bad.status || !told || message.is_empty() || body["error"].as_str().is_none() {
            let text: String = answer.text().chars().take(300).collect();
            wrong.push(format!(
                "{}: {} instead of {} with {:?}: {text}",
                bad.what, answer.status, bad.status, bad.words
            ));
        }
    }
    wrong
}

#[track_caller]
fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} answers are wrong:\n  {}", wrong.len(), wrong.join("\n  "));
}

on_both_databases!(
    bad_names_are_refused_with_field_and_limit,
    bad_values_are_refused_with_field_and_limit,
    bad_fields_are_refused_by_name,
    an_atomic_bulk_request_with_one_bad_operation_changes_nothing,
);

async fn hub_with_an_entry(test: &str, database: Database) -> (Scratch, Hub) {
    let scratch = Scratch::new(test);
    let hub = Hub::on(database, &scratch).await;
    hub.client()
        .put(&entry("app", "kept"), json!({"value": "as it was", "env": "development"}))
        .await
        .expect(200);
    (scratch, hub)
}

/// Afterwards the hub is well, holds what it held, and nothing panicked.
async fn nothing_is_lost(hub: &mut Hub) {
    hub.anonymous().get("/health").await.expect(200);
    let kept = hub.client().get("/api/v1/configs/app?env=development").await.expect(200);
    assert_eq!(kept.as_array().unwrap().len(), 1, "{kept}");
    assert_eq!(kept[0]["value"], "as it was");
    assert_eq!(hub.process().ended(), None);
    assert!(!hub.log().contains("panicked"), "{}", hub.process().tail());
}

async fn bad_names_are_refused_with_field_and_limit(database: Database) {
    let (_scratch, mut hub) = hub_with_an_entry("bad-names", database).await;
    none(&wrongly_answered(&hub.client(), bad_names()).await);
    nothing_is_lost(&mut hub).await;
}

async fn bad_values_are_refused_with_field_and_limit(database: Database) {
    let (_scratch, mut hub) = hub_with_an_entry("bad-values", database).await;
    none(&wrongly_answered(&hub.client(), bad_values()).await);
    nothing_is_lost(&mut hub).await;
}

async fn bad_fields_are_refused_by_name(database: Database) {
    let (_scratch, mut hub) = hub_with_an_entry("bad-fields", database).await;
    none(&wrongly_answered(&hub.client(), bad_fields()).await);
    nothing_is_lost(&mut hub).await;
}

async fn an_atomic_bulk_request_with_one_bad_operation_changes_nothing(database: Database) {
    let (_scratch, mut hub) = hub_with_an_entry("bad-bulk", database).await;
    let operation =
        |key: &str, env: &str| json!({"op": "set", "namespace": "app", "key": key, "env": env, "value": 1});
    let operations =
        [operation("a", "development"), operation("b", "nowhere"), operation("c", "development")];
    let answer =
        hub.client().post("/api/v1/configs/bulk", json!({"operations": operations, "atomic": true})).await;
    assert!(answer.refusal(400).contains("nowhere"));
    nothing_is_lost(&mut hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_token_nothing_but_health_is_answered() {
    let (_scratch, mut hub) = hub_with_an_entry("bad-token", Database::Sqlite).await;
    let forged = format!("lcm_{}", "A".repeat(43));
    let strangers = [
        hub.anonymous(),
        hub.anonymous().with_token("wrong"),
        hub.anonymous().with_token(&forged),
        hub.anonymous().with_token(""),
    ];
    let routes = [
        "/api/v1/configs/app/kept?env=development",
        "/api/v1/configs/app",
        "/api/v1/edges",
        "/metrics",
        "/api/v1/nothing",
    ];
    for stranger in &strangers {
        for route in routes {
            let answer = stranger.get(route).await;
            answer.refusal(401);
            assert!(!answer.text().contains("as it was"));
        }
        stranger.get("/health").await.expect(200);
        stranger.get("/api/v1/health").await.expect(200);
        stranger.put(&entry("app", "kept"), json!({"value": 2, "env": "development"})).await.refusal(401);
    }
    nothing_is_lost(&mut hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_a_limit_and_so_is_a_tenant() {
    let (_scratch, mut hub) = hub_with_an_entry("bad-role", Database::Sqlite).await;
    let admin = hub.client();
    let token = |body: Value| {
        let admin = admin.clone();
        async move { admin.post("/api/v1/tokens", body).await.expect(200)["token"].as_str().unwrap().to_owned() }
    };
    let reader = hub.anonymous().with_token(&token(json!({"name": "r", "role": "reader"})).await);
    let writer = hub.anonymous().with_token(&token(json!({"name": "w", "role": "writer"})).await);
    let path = entry("app", "kept") + "?env=development";
    assert_eq!(reader.get(&path).await.expect(200)["value"], "as it was");
    reader.put(&path, json!({"value": 2, "env": "development"})).await.refusal(403);
    reader.delete(&path).await.refusal(403);
    for client in [&reader, &writer] {
        client.post("/api/v1/tokens", json!({"name": "x", "role": "admin"})).await.refusal(403);
        client.post("/api/v1/join-tokens", json!({"name": "x"})).await.refusal(403);
        client.put("/api/v1/environments/production", json!({"parent": "base"})).await.refusal(403);
        for method in ["POST", "PUT", "PATCH"] {
            let malformed = Some(json!("no object"));
            let path = if method == "POST" { "tokens" } else { "environments/production" };
            let path = if method == "PATCH" { "edges/e1" } else { path };
            client.send(method, &format!("/api/v1/{path}"), malformed).await.refusal(403);
        }
    }
    admin.post("/api/v1/tenants", json!({"name": "other"})).await.expect(200);
    let stranger = token(json!({"name": "o", "role": "admin", "tenant": "other"})).await;
    let stranger = hub.anonymous().with_token(&stranger);
    stranger.get(&path).await.refusal(404);
    assert_eq!(stranger.get("/api/v1/configs/app?env=development").await.expect(200), json!([]));
    nothing_is_lost(&mut hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_to_a_bad_request_repeats_a_secret() {
    let (_scratch, mut hub) = hub_with_an_entry("bad-secret", Database::Sqlite).await;
    let secret = "sk-never-echo-41c7";
    let bodies = [
        json!({"value": secret, "env": "nowhere", "secret": true}),
        json!({"value": secret, "env": "development", "secret": true, "ttl": 5}),
        json!({"value": [secret], "env": "development", "secret": true}),
        json!({"value": secret, "env": "development", "secret": true, "if_version": 9}),
        json!({"value": secret, "env": "development", "secret": "yes"}),
    ];
    for body in bodies {
        let answer = hub.client().put(&entry("app", "s"), body).await;
        assert!(answer.status >= 400, "{}", answer.text());
        assert!(!answer.text().contains(secret), "{}", answer.text());
    }
    let broken = format!("{{\"secret\":true,\"value\":\"{secret}\"");
    let answer = hub.client().try_send_bytes("PUT", &entry("app", "s"), Some(broken.into())).await.unwrap();
    assert!(answer.status == 400 && !answer.text().contains(secret), "{}", answer.text());
    assert!(!hub.log().contains(secret));
    nothing_is_lost(&mut hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_closes_a_circle_is_refused() {
    let (_scratch, mut hub) = hub_with_an_entry("bad-parent", Database::Sqlite).await;
    let admin = hub.client();
    for (environment, parent) in
        [("base", "production"), ("staging", "production"), ("staging", "staging"), ("staging", "nowhere")]
    {
        let path = format!("/api/v1/environments/{}", segment(environment));
        let answer = admin.put(&path, json!({"parent": parent})).await;
        assert!(
            answer.status == 422 || answer.status == 400,
            "{environment} under {parent}: {}",
            answer.text()
        );
    }
    nothing_is_lost(&mut hub).await;
}
