//! Vault is away in every way that it can be: edges go on reading, and a hub says what is wrong and heals by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use llm_config_tests::bao::Bao;
use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, Client};
use llm_config_tests::hub::Hub;
use llm_config_tests::postgres::Cluster;
use llm_config_tests::proxy::{Fault, Proxy};
use llm_config_tests::scratch::Scratch;
use serde_json::json;

use super::{at, revealed, set, set_secret};

mod database;

/// What an answer about Vault may take, with room for a machine that is busy.
const AT_ONCE: Duration = Duration::from_secs(2);

/// From one pair of reads to the next.
const PACE: Duration = Duration::from_millis(5);

/// Reads at an edge all the time; every one that fails counts.
struct Reading {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<(u64, Vec<String>)>,
    done: Arc<AtomicU64>,
}

impl Reading {
    fn begin(edge: Client) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (until, count) = (Arc::clone(&stop), Arc::clone(&done));
        let task = tokio::spawn(async move {
            let (mut failed, mut pace) = (Vec::new(), tokio::time::interval(PACE));
            while !until.load(Ordering::Relaxed) {
                for path in [at("k", "development"), format!("{}&reveal=true", at("key", "development"))] {
                    match edge.try_send("GET", &path, None).await {
                        Ok(answer) if answer.status == 200 => {}
                        other => failed.push(format!("{other:?}")),
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
                // What is looked at shares the machine with the readers of several such tests.
                pace.tick().await;
            }
            (count.load(Ordering::Relaxed), failed)
        });
        Self { stop, task, done }
    }

    fn so_far(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let (read, failed) = (&mut self.task).await.unwrap();
        assert!(
            read > 0 && failed.is_empty(),
            "{} of {read} reads failed: {:?}",
            failed.len(),
            failed.first()
        );
    }
}

/// A test that fails ends it too: nothing else would.
impl Drop for Reading {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A hub on Vault, with an edge that has a value and a secret.
struct Stand {
    scratch: Scratch,
    cluster: Cluster,
    bao: Bao,
    hub: Hub,
    edge: Edge,
}

impl Stand {
    async fn up(test: &str) -> Self {
        let (bao, cluster, scratch) = Self::beneath(test).await;
        let settings = bao.tables(&scratch).await;
        let database = cluster.database();
        Self::on(scratch, bao, cluster, database.as_str(), &settings).await
    }

    /// With a bad line between the hub and Vault.
    async fn through(test: &str) -> (Self, Proxy) {
        let (bao, cluster, scratch) = Self::beneath(test).await;
        let line = Proxy::start(bao.address(), 1).await;
        let settings = bao.tables(&scratch).await;
        let settings = settings.replace(&bao.address().to_string(), &line.address().to_string());
        let database = cluster.database();
        (Self::on(scratch, bao, cluster, database.as_str(), &settings).await, line)
    }

    async fn beneath(test: &str) -> (Bao, Cluster, Scratch) {
        let scratch = Scratch::new(test);
        (Bao::start(&scratch).await, Cluster::start(), scratch)
    }

    async fn on(scratch: Scratch, bao: Bao, cluster: Cluster, database: &str, settings: &str) -> Self {
        let tables = format!("[database]\nurl = \"{database}\"\n\n{settings}");
        let hub = Hub::serve(&scratch, &tables).await;
        for more in ["qa", "lab"] {
            hub.client().put(&format!("/api/v1/environments/{more}"), json!({"parent": "base"})).await.fine();
        }
        // Of the other environments no key is made for it.
        let about =
            json!({"name": "e1", "namespaces": ["app"], "environments": ["development"], "write": ["app"]});
        let edge = Edge::join(&scratch, "e1", &hub.join_token(about).await).await;
        set(&hub.client(), "k", 0).await.expect(200);
        set_secret(&hub.client(), "key", "development", "sk-1").await.expect(200);
        edge.client().until_value(&at("k", "development"), 0).await;
        let shown = |answer: &Answer| answer.status == 200 && answer.json()["value"] == "sk-1";
        edge.client().until(&format!("{}&reveal=true", at("key", "development")), shown).await;
        Self { scratch, cluster, bao, hub, edge }
    }

    /// What must hold while Vault is away: `environment` has no key yet.
    async fn holds(&self, environment: &str, said: &str) {
        let hub = self.hub.client();
        let began = Instant::now();
        let refused = set_secret(&hub, "new", environment, "sk-3").await;
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        let message = refused.refusal(503);
        assert!(message.contains(said), "{message}");
        assert_eq!(refused.json()["details"]["reason"], "key_provider", "{}", refused.text());
        assert!(refused.header("retry-after").is_some());
        let health = degraded(&self.hub, said).await;
        assert_eq!(health["status"], "degraded", "{health}");
        self.hub.anonymous().get("/health/ready").await.expect(200);
        set(&hub, "k", 1).await.expect(200);
        set_secret(&hub, "key", "development", "sk-2").await.expect(200);
        assert_eq!(revealed(&hub, "key", "development").await.expect(200)["value"], "sk-2");
        self.edge.client().until_value(&at("k", "development"), 1).await;
    }

    /// Vault is back: everything works, in the same process.
    async fn heals(&mut self, environment: &str) {
        let healthy = |answer: &Answer| answer.status == 200 && answer.json()["status"] == "healthy";
        self.hub.anonymous().until("/health", healthy).await;
        set_secret(&self.hub.client(), "new", environment, "sk-3").await.expect(200);
        set(&self.hub.client(), "k", 0).await.expect(200);
        self.edge.client().until_value(&at("k", "development"), 0).await;
        assert_eq!(self.hub.process().ended(), None, "one process all the time");
    }
}

async fn degraded(hub: &Hub, said: &str) -> serde_json::Value {
    let told = |answer: &Answer| answer.status == 200 && answer.text().contains(said);
    hub.anonymous().until("/health", told).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_notice_nothing_of_a_vault_that_is_stopped_sealed_frozen_or_limits() {
    let mut stand = Stand::up("vault-away").await;
    set_secret(&stand.hub.client(), "other", "edge", "sk-other").await.expect(200);
    let reading = Reading::begin(stand.edge.client());
    stand.hub.kill();
    stand.hub.start().await;
    // All that it may need it takes in at its start, whether anybody asks for it or not: four keys of its own, those of
    // offline limits and of files that are carried, and those of secrets in development, base and edge.
    let taken_in = |answer: &Answer| {
        let line = r#"vault_operations_total{operation="decrypt",status="success"} "#;
        let count = answer.text().lines().find_map(|told| told.strip_prefix(line)?.parse::<u64>().ok());
        count.is_some_and(|count| count >= 9)
    };
    stand.hub.client().until("/metrics", taken_in).await;

    stand.bao.stop();
    // Also where nobody needs it.
    degraded(&stand.hub, "Vault cannot be reached").await;
    assert_eq!(revealed(&stand.hub.client(), "other", "edge").await.expect(200)["value"], "sk-other");
    stand.holds("staging", "Vault cannot be reached").await;
    stand.bao.resume().await;
    stand.heals("staging").await;

    stand.bao.seal().await;
    stand.holds("production", "Vault is sealed").await;
    stand.bao.unseal().await;
    stand.heals("production").await;

    stand.bao.freeze().await;
    stand.holds("qa", "Vault does not answer in time").await;
    stand.bao.thaw();
    stand.heals("qa").await;

    let quota = json!({"path": "transit/", "rate": 0.001, "interval": "1000s"});
    stand.bao.client().post("/v1/sys/quotas/rate-limit/hub", quota).await.fine();
    stand.holds("lab", "Vault limits the hub's requests").await;
    stand.bao.client().delete("/v1/sys/quotas/rate-limit/hub").await.fine();
    stand.heals("lab").await;
    reading.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_notice_nothing_of_a_vault_that_is_slow_or_closes_its_key_to_the_hub() {
    let (mut stand, line) = Stand::through("vault-slow").await;
    let reading = Reading::begin(stand.edge.client());
    line.suffer(Fault::Late(Duration::from_secs(30)));
    stand.holds("staging", "Vault does not answer in time").await;
    line.heal();
    stand.heals("staging").await;

    let policy = "/v1/sys/policies/acl/hub";
    let root = stand.bao.client();
    let granted = root.get(policy).await.expect(200)["data"]["policy"].clone();
    let without = granted.as_str().unwrap().replace(r#"["update"]"#, r#"["deny"]"#);
    root.post(policy, json!({"policy": without})).await.fine();
    stand.holds("production", "Vault denies the hub the use of its transit key").await;
    root.post(policy, json!({"policy": granted})).await.fine();
    stand.heals("production").await;
    reading.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_notice_nothing_of_a_hub_that_vault_denies_or_whose_old_key_is_closed() {
    let mut stand = Stand::up("vault-denies").await;
    let reading = Reading::begin(stand.edge.client());
    let root = stand.bao.client();

    // The role and every token of it are gone.
    root.delete("/v1/auth/approle/role/hub").await.fine();
    root.post("/v1/sys/leases/revoke-prefix/auth/approle", json!({})).await.fine();
    stand.holds("staging", "Vault refuses the hub's login").await;
    let role = json!({"token_policies": "hub", "role_id": role_id(&stand)});
    root.post("/v1/auth/approle/role/hub", role).await.fine();
    let secret = root.post("/v1/auth/approle/role/hub/secret-id", json!({})).await.expect(200);
    stand.scratch.file("secret-id", secret["data"]["secret_id"].as_str().unwrap());
    stand.heals("staging").await;

    // What wrapped everything so far is not to be used any more.
    root.post("/v1/transit/keys/llm-config-hub/rotate", json!({})).await.fine();
    root.post("/v1/transit/keys/llm-config-hub/config", json!({"min_decryption_version": 2})).await.fine();
    set_secret(&stand.hub.client(), "key", "development", "sk-4").await.expect(200);
    set_secret(&stand.hub.client(), "new", "production", "sk-5").await.expect(200);
    assert_eq!(revealed(&stand.hub.client(), "key", "development").await.expect(200)["value"], "sk-4");
    root.post("/v1/transit/keys/llm-config-hub/config", json!({"min_decryption_version": 1})).await.fine();
    reading.end().await;
}

fn role_id(stand: &Stand) -> String {
    let config = std::fs::read_to_string(stand.scratch.path("hub.toml")).unwrap();
    let line = config.lines().find_map(|line| line.strip_prefix("role_id = ")).unwrap().to_owned();
    line.trim_matches('"').to_owned()
}
