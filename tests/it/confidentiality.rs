//! Who holds what: nothing beyond a subscription reaches an edge's disk, and no secret lies anywhere in clear.

use std::collections::BTreeSet;

use llm_config_edge::identity::EdgeIdentity;
use llm_config_edge::keys::EdgeKeys;
use llm_config_edge::store::{self, Owner, StoreOptions};
use llm_config_shared::entry::Row;
use llm_config_shared::store::replica::Record;
use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Client, entry};
use llm_config_tests::hub::Hub;
use llm_config_tests::scratch::{Scratch, files_with};
use serde_json::{Value, json};

const ENVIRONMENTS: [&str; 5] = ["base", "development", "staging", "production", "edge"];

async fn set(client: &Client, namespace: &str, key: &str, env: &str, value: &str, secret: bool) {
    let body = json!({"value": value, "env": env, "secret": secret});
    client.put(&entry(namespace, key), body).await.expect(200);
}

/// Entries and secrets in every environment, in two namespaces and two tenants. Every value says where it belongs.
async fn fill(hub: &Hub) {
    let admin = hub.client();
    admin.post("/api/v1/tenants", json!({"name": "rival"})).await.expect(200);
    let body = json!({"name": "rival", "role": "admin", "tenant": "rival"});
    let token = admin.post("/api/v1/tokens", body).await.expect(200)["token"].as_str().unwrap().to_owned();
    let rival = hub.anonymous().with_token(&token);
    for env in ENVIRONMENTS {
        set(&admin, "app", &format!("only-{env}"), env, &format!("config-of-{env}"), false).await;
        set(&admin, "app", &format!("secret-{env}"), env, &format!("sk-secret-of-{env}"), true).await;
        set(&admin, "other", "k", env, &format!("config-of-other-{env}"), false).await;
        set(&rival, "app", &format!("rival-{env}"), env, &format!("config-of-rival-{env}"), false).await;
    }
    set(&admin, "app", "last", "production", "last", false).await;
}

async fn production_edge(scratch: &Scratch, hub: &Hub) -> Edge {
    let body =
        json!({"name": "p1", "namespaces": ["app"], "environments": ["production"], "write": ["edges/p1"]});
    Edge::join_with(scratch, "p1", &hub.join_token(body).await, &["--offline-restart", "file"]).await
}

async fn status(edge: &Edge, path: &str) -> u16 {
    edge.client().get(path).await.status
}

fn resolved(key: &str) -> String {
    entry("app", key) + "?env=production&resolve=true&reveal=true"
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_for_production_holds_nothing_beyond_its_chain() {
    let scratch = Scratch::new("production");
    let mut hub = Hub::dev(&scratch).await;
    fill(&hub).await;
    let mut edge = production_edge(&scratch, &hub).await;
    edge.client().until_value(&resolved("last"), "last").await;
    hub.stop();
    edge.stop();
    edge.start().await;
    for env in ["base", "development", "staging", "production"] {
        let read = edge.client().get(&resolved(&format!("only-{env}"))).await.expect(200);
        assert_eq!(read["value"], format!("config-of-{env}"), "the chain of production");
    }
    for env in ["base", "production"] {
        let read = edge.client().get(&resolved(&format!("secret-{env}"))).await.expect(200);
        assert_eq!(read["value"], format!("sk-secret-of-{env}"));
    }
    let absent = [
        resolved("secret-development"),
        resolved("secret-staging"),
        resolved("only-edge"),
        resolved("secret-edge"),
        resolved("rival-production"),
        entry("app", "secret-development") + "?env=development&reveal=true",
        entry("app", "only-edge") + "?env=edge",
        entry("other", "k") + "?env=production",
    ];
    for path in absent {
        let status = status(&edge, &path).await;
        assert!(matches!(status, 400 | 403 | 404 | 503), "{path}: {status}");
    }
    edge.stop();
    let plain = [("base", false), ("development", false), ("staging", false), ("production", false)];
    assert_eq!(on_disk(&edge), rows(&[&plain[..], &[("base", true), ("production", true)]].concat()));
    nothing_in_clear(&edge);
}

/// Every row in the replica of a stopped edge, opened with the edge's own keys: environment, namespace, and whether
/// it is a secret.
fn on_disk(edge: &Edge) -> BTreeSet<(String, String, bool)> {
    let identity = EdgeIdentity::load(edge.data()).unwrap();
    let keys = EdgeKeys::load(edge.data()).unwrap();
    let owner = Owner { tenant: identity.tenant.clone(), edge: identity.edge.0 };
    let opened =
        store::open(&edge.data().join("replica"), &keys.replica, &owner, StoreOptions::default()).unwrap();
    assert_eq!(opened.recovery, None);
    let mut found = BTreeSet::new();
    let mut add = |row: &Row| {
        let scope = &row.at.scope;
        assert_eq!(scope.tenant, identity.tenant, "bytes of another tenant");
        found.insert((scope.environment.to_string(), scope.namespace.to_string(), row.content.is_secret()));
    };
    for record in opened.records {
        match record {
            Record::Row(row) | Record::Staged(row) => add(&row),
            Record::Grant(grant) => {
                let environment = grant.environment.as_str();
                assert!(matches!(environment, "base" | "production"), "keys for secrets of {environment}");
            }
            Record::Stage(..)
            | Record::Feed(..)
            | Record::Pending(_)
            | Record::Kept(_)
            | Record::State(_) => {}
        }
    }
    found
}

fn rows(wanted: &[(&str, bool)]) -> BTreeSet<(String, String, bool)> {
    wanted.iter().map(|(env, secret)| ((*env).to_owned(), "app".to_owned(), *secret)).collect()
}

/// Names and values are hidden on the disk, also those that the edge may read.
#[track_caller]
fn nothing_in_clear(edge: &Edge) {
    for text in ["config-of-", "sk-secret-of-", "only-production", "secret-production", "rival"] {
        assert_eq!(files_with(edge.data(), text), [] as [std::path::PathBuf; 0], "{text} in the clear");
    }
    assert!(!edge.log().contains("sk-secret-of-") && !edge.log().contains("config-of-"), "values in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_production_leaves_its_parent_nothing_of_development_stays() {
    let scratch = Scratch::new("parent");
    let mut hub = Hub::dev(&scratch).await;
    fill(&hub).await;
    let mut edge = production_edge(&scratch, &hub).await;
    edge.client().until_value(&resolved("last"), "last").await;
    edge.client().until_value(&resolved("only-development"), "config-of-development").await;
    hub.client().put("/api/v1/environments/production", json!({"parent": "base"})).await.expect(200);
    for gone in ["only-development", "only-staging"] {
        edge.client().until(&resolved(gone), |answer| matches!(answer.status, 403 | 404)).await;
    }
    edge.client().until_value(&resolved("only-base"), "config-of-base").await;
    hub.stop();
    edge.kill();
    edge.start().await;
    for gone in ["only-development", "only-staging"] {
        assert!(matches!(status(&edge, &resolved(gone)).await, 403 | 404));
        let exact = entry("app", gone) + "?env=" + &gone[5..];
        assert!(matches!(status(&edge, &exact).await, 400 | 403 | 404), "{exact}");
    }
    for stays in ["only-base", "only-production"] {
        edge.client().get(&resolved(stays)).await.expect(200);
    }
    edge.stop();
    let kept = [("base", false), ("base", true), ("production", false), ("production", true)];
    assert_eq!(on_disk(&edge), rows(&kept), "nothing of development or staging is on the disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_lies_nowhere_in_clear() {
    const SECRET: &str = "sk-live-3f9a77c2d1e84b06";
    let scratch = Scratch::new("secret");
    let mut hub = Hub::dev(&scratch).await;
    let mut edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    for key in ["one", "two"] {
        set(&hub.client(), "app", key, "base", SECRET, true).await;
    }
    set(&hub.client(), "app", "two", "base", &format!("{SECRET}-rotated"), true).await;
    hub.client().delete(&(entry("app", "two") + "?env=base")).await;
    let path = entry("app", "one") + "?env=base";
    edge.client().until_value(&(path.clone() + "&reveal=true"), SECRET).await;
    let through_edge = edge
        .client()
        .put(&entry("app", "three"), json!({"value": SECRET, "env": "base", "secret": true}))
        .await;
    assert!(matches!(through_edge.status, 200 | 202), "{}", through_edge.text());
    assert!(!through_edge.text().contains(SECRET));

    let masked =
        [path.clone(), "/api/v1/configs/app?env=base".to_owned(), entry("app", "one") + "/history?env=base"];
    for path in &masked {
        for client in [hub.client(), edge.client()] {
            let answer = client.get(path).await;
            let body: Value = answer.expect(200);
            assert!(body.to_string().contains("<encrypted>") && !answer.text().contains(SECRET), "{path}");
        }
    }
    let reader =
        hub.client().post("/api/v1/tokens", json!({"name": "r", "role": "reader"})).await.expect(200);
    let reader = hub.anonymous().with_token(reader["token"].as_str().unwrap());
    assert!(!reader.get(&(path + "&reveal=true")).await.text().contains(SECRET), "a reader may not reveal");

    for metrics in [hub.client().get("/metrics").await, edge.client().get("/metrics").await] {
        assert!(metrics.status == 200 && !metrics.text().contains(SECRET));
    }
    hub.stop();
    edge.stop();
    for folder in [hub.data(), edge.data()] {
        assert_eq!(files_with(folder, SECRET), [] as [std::path::PathBuf; 0]);
    }
    assert!(!hub.log().contains(SECRET) && !edge.log().contains(SECRET), "a secret in a log");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_with_keys_are_readable_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new("modes");
    let hub = Hub::dev(&scratch).await;
    let edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for file in ["admin.token", "ca.pem", "keyring"] {
        assert_eq!(mode(&hub.data().join(file)), 0o600, "{file}");
    }
    for file in ["edge.json", "keys"] {
        assert_eq!(mode(&edge.data().join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(edge.socket()) & 0o007, 0, "others don't reach the socket");
}
