//! Two regions, each a hub with a database of its own, with a bad network between them.

use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, Client, Rows, entry};
use llm_config_tests::hub::Hub;
use llm_config_tests::postgres;
use llm_config_tests::proxy::{Fault, Proxy};
use llm_config_tests::scratch::Scratch;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

mod begin;
mod fleet;

/// The first region and the one that was begun with its backup, each reached by the other through a proxy.
struct Regions {
    scratch: Scratch,
    first: Hub,
    second: Hub,
    to_first: Proxy,
    to_second: Proxy,
}

/// Each region counts the versions of what was written in both at once in its own order.
fn values(rows: Rows) -> Vec<(String, Value)> {
    rows.into_iter().map(|(key, (value, _))| (key, value)).collect()
}

fn path(key: &str) -> String {
    entry("app", key) + "?env=development"
}

async fn set(client: &Client, key: &str, value: impl Into<Value>) -> Answer {
    let value: Value = value.into();
    client.put(&entry("app", key), json!({"value": value, "env": "development"})).await
}

async fn set_secret(client: &Client, key: &str, value: &str) -> Answer {
    let body = json!({"value": value, "env": "development", "secret": true});
    client.put(&entry("app", key), body).await
}

fn peers(proxy: &Proxy) -> String {
    format!("[regions]\npeers = \"https://{}\"", proxy.address())
}

impl Regions {
    /// What the first region holds when the second is begun, `before` does.
    async fn begin(test: &str, databases: [String; 2], before: impl AsyncFnOnce(&Scratch, &Hub)) -> Self {
        let scratch = Scratch::new(test);
        let [first, second] = databases;
        let mut first = Hub::serve(&scratch, &first).await;
        before(&scratch, &first).await;
        let mut second = first.region(&scratch, "second", &second).await;
        let to_first = Proxy::start(first.sync, 1).await;
        let to_second = Proxy::start(second.sync, 2).await;
        second.configure(&peers(&to_first));
        second.start().await;
        first.stop();
        first.configure(&peers(&to_second));
        first.start().await;
        Self { scratch, first, second, to_first, to_second }
    }

    fn clients(&self) -> [Client; 2] {
        [self.first.client(), self.second.client()]
    }

    fn cut(&self) {
        self.to_first.suffer(Fault::Cut);
        self.to_second.suffer(Fault::Cut);
    }

    fn heal(&self) {
        self.to_first.heal();
        self.to_second.heal();
    }

    async fn until_equal(&self) {
        let [first, second] = self.clients();
        let all = async |client: &Client| values(client.everything("app", "development").await);
        llm_config_tests::wait::eventually("both regions hold the same", async || {
            let (one, other) = (all(&first).await, all(&second).await);
            if one == other { Ok(()) } else { Err((one, other)) }
        })
        .await;
    }
}

/// In a folder of the test's own.
fn sqlite(folder: &str) -> String {
    format!("[database]\nurl = \"sqlite:{folder}/hub.sqlite\"")
}

async fn cut_for_a_while_they_end_with_the_same(test: &str, databases: [String; 2]) {
    let regions = Regions::begin(test, databases, async |_, hub| {
        let client = hub.client();
        set(&client, "old", 1).await.expect(200);
        set(&client, "old", 2).await.expect(200);
        set(&client, "gone", 1).await.expect(200);
        client.delete(&path("gone")).await.expect(204);
        set_secret(&client, "key", "sk-of-before").await.expect(200);
    })
    .await;
    let [first, second] = regions.clients();
    assert_eq!(second.get(&path("old")).await.expect(200)["version"], 2);
    second.get(&path("gone")).await.refusal(404);

    // Each way, and a deletion, and a secret, which is opened with the same keys.
    set(&second, "from-second", "s").await.expect(200);
    first.until_value(&path("from-second"), "s").await;
    set(&first, "from-first", "f").await.expect(200);
    second.until_value(&path("from-first"), "f").await;
    first.delete(&path("from-first")).await.expect(204);
    second.until(&path("from-first"), |answer| answer.status == 404).await;
    set_secret(&second, "key", "sk-of-second").await.expect(200);
    first.until_value(&(path("key") + "&reveal=true"), "sk-of-second").await;

    regions.cut();
    for number in 0..20 {
        set(&first, &format!("first-{number}"), number).await.expect(200);
        set(&second, &format!("second-{number}"), number).await.expect(200);
    }
    set(&first, "both", "first").await.expect(200);
    set(&second, "both", "second").await.expect(200);
    set(&first, "old", 3).await.expect(200);
    second.delete(&path("old")).await.expect(204);
    assert_eq!(second.get("/api/v1/conflicts").await.expect(200), json!([]));
    regions.heal();
    regions.until_equal().await;
    for client in [&first, &second] {
        assert_eq!(client.get(&path("both")).await.expect(200)["value"], "second", "the later write");
        client.get(&path("old")).await.refusal(404);
        let history =
            client.get(&format!("{}/history?env=development", entry("app", "both"))).await.expect(200);
        let mut values: Vec<&str> =
            history.as_array().unwrap().iter().filter_map(|row| row["value"].as_str()).collect();
        values.sort_unstable();
        assert_eq!(values, ["first", "second"], "the loser is kept");
        let conflicts = client.get("/api/v1/conflicts").await.expect(200);
        assert_eq!(conflicts.as_array().unwrap().len(), 2, "{conflicts}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_regions_that_were_cut_apart_end_with_the_same_on_sqlite() {
    cut_for_a_while_they_end_with_the_same("regions-sqlite", [sqlite("hub"), sqlite("second")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_regions_that_were_cut_apart_end_with_the_same_on_postgresql_and_sqlite() {
    let database = format!("[database]\nurl = \"{}\"", postgres::database());
    cut_for_a_while_they_end_with_the_same("regions-postgres", [database, sqlite("second")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_moves_to_another_region_never_reads_backwards() {
    let mut way = None;
    let mut moved = None;
    let regions = Regions::begin("regions-edge", [sqlite("hub"), sqlite("second")], async |scratch, hub| {
        let proxy = Proxy::start(hub.sync, 3).await;
        set(&hub.client(), "k", 1).await.expect(200);
        let edge = Edge::join_through(scratch, "e1", &hub.open_token("e1").await, &proxy).await;
        edge.client().until_value(&path("k"), 1).await;
        (way, moved) = (Some(proxy), Some(edge));
    })
    .await;
    let (way, edge) = (way.unwrap(), moved.unwrap());
    let [first, second] = regions.clients();
    set(&second, "k", 2).await.expect(200);
    edge.client().until_value(&path("k"), 2).await;

    // The other region does not know what the edge was told: it must not serve it.
    regions.cut();
    set(&first, "k", 3).await.expect(200);
    edge.client().until_value(&path("k"), 3).await;
    way.suffer(Fault::Cut);
    llm_config_tests::wait::eventually("the edge is cut off", async || {
        let answer = set(&edge.client(), "of-the-edge", "e").await;
        if answer.status == 202 { Ok(()) } else { Err(answer.status) }
    })
    .await;
    way.lead_to(regions.second.sync);
    way.heal();
    set(&second, "elsewhere", "s").await.expect(200);
    llm_config_tests::wait::eventually("the other region says that it is behind", async || {
        if edge.log().contains("is behind") { Ok(()) } else { Err(()) }
    })
    .await;
    assert_eq!(edge.client().get(&path("k")).await.expect(200)["value"], 3, "it reads what it had");

    regions.heal();
    edge.client().until_value(&path("elsewhere"), "s").await;
    assert_eq!(edge.client().get(&path("k")).await.expect(200)["value"], 3);
    second.until_value(&path("of-the-edge"), "e").await;
    first.until_value(&path("of-the-edge"), "e").await;
    set(&first, "k", 4).await.expect(200);
    edge.client().until_value(&path("k"), 4).await;
    regions.until_equal().await;
    assert_eq!(
        values(edge.client().everything("app", "development").await),
        values(first.everything("app", "development").await)
    );
    drop(regions.scratch);
}

/// Reads until told to stop, and never finds the secret locked or an earlier version of it.
async fn keeps_reading(client: Client, stop: CancellationToken) -> u64 {
    let (mut reads, mut newest) = (0, 0);
    while !stop.is_cancelled() {
        let found = client.get(&(path("key") + "&reveal=true")).await.expect(200);
        let version = found["version"].as_u64().unwrap();
        assert!(version >= newest, "{version} after {newest}");
        (reads, newest) = (reads + 1, version);
        tokio::task::yield_now().await;
    }
    reads
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_reads_its_secrets_while_it_moves_to_another_region_and_back() {
    let mut way = None;
    let mut moved = None;
    let regions =
        Regions::begin("regions-secrets", [sqlite("hub"), sqlite("second")], async |scratch, hub| {
            let proxy = Proxy::start(hub.sync, 3).await;
            set_secret(&hub.client(), "key", "sk-1").await.expect(200);
            let edge = Edge::join_through(scratch, "e1", &hub.open_token("e1").await, &proxy).await;
            edge.client().until_value(&(path("key") + "&reveal=true"), "sk-1").await;
            (way, moved) = (Some(proxy), Some(edge));
        })
        .await;
    let (way, mut edge) = (way.unwrap(), moved.unwrap());
    let [first, second] = regions.clients();
    let secret = path("key") + "&reveal=true";
    let stop = CancellationToken::new();
    let reader = tokio::spawn(keeps_reading(edge.client(), stop.clone()));

    way.suffer(Fault::Cut);
    edge.client().until("/health/hub", |answer| answer.status == 503).await;
    way.lead_to(regions.second.sync);
    way.heal();
    set_secret(&second, "key", "sk-2").await.expect(200);
    edge.client().until_value(&secret, "sk-2").await;
    first.until_value(&secret, "sk-2").await;
    way.suffer(Fault::Cut);
    edge.client().until("/health/hub", |answer| answer.status == 503).await;
    way.lead_to(regions.first.sync);
    way.heal();
    set_secret(&first, "key", "sk-3").await.expect(200);
    edge.client().until_value(&secret, "sk-3").await;
    stop.cancel();
    assert!(reader.await.unwrap() > 0);

    // Started anew at the other region, it opens what the first one sealed.
    way.suffer(Fault::Cut);
    edge.client().until("/health/hub", |answer| answer.status == 503).await;
    let secrets = edge.client().get("/api/v1/edge/status").await.expect(200)["secrets"].clone();
    let (left, limit) = (secrets["locks_in_ms"].as_u64(), secrets["limit_ms"].as_u64());
    assert!(left < limit && left.is_some(), "the limit counts on: {secrets}");
    second.until_value(&secret, "sk-3").await;
    edge.stop();
    way.lead_to(regions.second.sync);
    way.heal();
    edge.start().await;
    edge.client().until_value(&secret, "sk-3").await;
    drop(regions.scratch);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_region_opens_what_the_other_sealed_with_keys_of_its_own() {
    let regions = Regions::begin("regions-keys", [sqlite("hub"), sqlite("second")], async |_, _| {}).await;
    let [first, second] = regions.clients();
    let edges = [("e1", &regions.first), ("e2", &regions.second)].map(async |(name, hub)| {
        let edge = Edge::join(&regions.scratch, name, &hub.open_token(name).await).await;
        edge.client().until("/health/ready", |answer| answer.status == 200).await;
        edge
    });
    let [e1, e2] = edges;
    let (e1, e2) = (e1.await, e2.await);

    // Neither had sealed anything before they were cut apart, so each begins a key of its own.
    regions.cut();
    set_secret(&first, "of-first", "sk-first").await.expect(200);
    set_secret(&second, "of-second", "sk-second").await.expect(200);
    regions.heal();
    let revealed = |key: &str| path(key) + "&reveal=true";
    for client in [&first, &second, &e1.client(), &e2.client()] {
        client.until_value(&revealed("of-first"), "sk-first").await;
        client.until_value(&revealed("of-second"), "sk-second").await;
    }
    set_secret(&first, "of-second", "sk-changed").await.expect(200);
    for client in [&second, &e1.client(), &e2.client()] {
        client.until_value(&revealed("of-second"), "sk-changed").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restored_region_has_lost_comes_back_from_the_other() {
    let mut regions =
        Regions::begin("regions-restored", [sqlite("hub"), sqlite("second")], async |_, hub| {
            set(&hub.client(), "k", 1).await.expect(200);
        })
        .await;
    let [first, second] = regions.clients();
    regions.first.stop();
    let database = regions.first.data().join("hub.sqlite");
    let kept = regions.scratch.path("old.sqlite");
    std::fs::copy(&database, &kept).unwrap();
    regions.first.start().await;
    set(&first, "k", 2).await.expect(200);
    second.until_value(&path("k"), 2).await;
    set(&first, "more", "m").await.expect(200);
    second.until_value(&path("more"), "m").await;

    // The disk of the first goes back by a while, as an old snapshot of its machine would.
    regions.first.stop();
    for end in ["", "-wal", "-shm"] {
        let mut file = database.clone().into_os_string();
        file.push(end);
        drop(std::fs::remove_file(file));
    }
    std::fs::copy(&kept, &database).unwrap();
    regions.first.start().await;
    first.until_value(&path("k"), 2).await;
    first.until_value(&path("more"), "m").await;
    set(&first, "k", 3).await.expect(200);
    second.until_value(&path("k"), 3).await;
    regions.until_equal().await;
}
