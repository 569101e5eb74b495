//! By USB stick: an edge whose network is cut is kept current with files that somebody carries.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use llm_config_tests::edge::Edge;
use llm_config_tests::http::entry;
use llm_config_tests::hub::{Database, Hub};
use llm_config_tests::proxy::{Fault, Proxy};
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;
use serde_json::json;

on_both_databases! {
    a_file_goes_on_from_what_the_edge_heard_last_in_each_of_its_folders,
    two_rounds_by_stick_bring_both_sides_to_the_same,
    a_hub_that_was_killed_takes_the_rest_when_the_file_is_brought_again,
}

const SECRET: &str = "sk-live-stick-1";

fn at(key: &str) -> String {
    entry("app", key) + "?env=development&reveal=true"
}

/// A file in which a bit was flipped, all over it, or of which the end is missing.
fn broken(whole: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let flipped = (0..200).map(|n| {
        let mut changed = whole.to_vec();
        let at = (n * 7_919 + n * n * 31) % whole.len();
        changed[at] ^= 1 << (n % 8);
        changed
    });
    flipped.chain((0..50).map(|n| whole[..whole.len() * n / 50].to_vec()))
}

/// A hub and an edge that has been connected once and is cut off.
struct World {
    scratch: Scratch,
    hub: Hub,
    proxy: Proxy,
    edge: Edge,
}

impl World {
    async fn new(test: &str) -> Self {
        Self::on(Database::Sqlite, test).await
    }

    async fn on(database: Database, test: &str) -> Self {
        let scratch = Scratch::new(test);
        let hub = Hub::on(database, &scratch).await;
        let proxy = Proxy::start(hub.sync, 1).await;
        let token =
            json!({"name": "e1", "namespaces": ["app"], "environments": ["development"], "write": ["app"]});
        let edge = Edge::join_through(&scratch, "e1", &hub.join_token(token).await, &proxy).await;
        let world = Self { scratch, hub, proxy, edge };
        world.set("model", "a").await;
        world.set("gone", "soon").await;
        world.set_secret("key", SECRET).await;
        world.edge.client().until_value(&at("key"), SECRET).await;
        world.proxy.suffer(Fault::Cut);
        world.edge.client().until("/health/hub", |answer| answer.status == 503).await;
        world
    }

    async fn set(&self, key: &str, value: &str) {
        let body = json!({"value": value, "env": "development"});
        self.hub.client().put(&entry("app", key), body).await.expect(200);
    }

    async fn set_secret(&self, key: &str, value: &str) {
        let body = json!({"value": value, "env": "development", "secret": true});
        self.hub.client().put(&entry("app", key), body).await.expect(200);
    }

    /// Another edge is lost, upon which new secrets are sealed with new keys.
    async fn new_keys(&self) {
        let token = json!({"name": "lost", "namespaces": ["app"], "environments": ["development"]});
        let mut lost = Edge::join(&self.scratch, "lost", &self.hub.join_token(token).await).await;
        lost.client().until_value(&at("key"), SECRET).await;
        lost.kill();
        self.hub.cli(&self.scratch, &["fleet", "lost", "lost"]).await.done();
    }

    /// What the hub would have carried to the edge now.
    async fn to_edge(&self, file: &str, more: &[&str]) -> PathBuf {
        let path = self.scratch.path(file);
        let args = [&["fleet", "carry", "e1", "-o", path.to_str().unwrap()], more].concat();
        self.hub.cli(&self.scratch, &args).await.done();
        path
    }

    async fn apply(&self, file: &Path) -> String {
        self.edge.cli(&["edge", "apply", file.to_str().unwrap()]).await.done()
    }

    async fn refused(&self, file: &Path) -> String {
        let said = self.edge.cli(&["edge", "apply", file.to_str().unwrap()]).await;
        assert_eq!(said.code, 1, "{}{}", said.out, said.err);
        said.err
    }

    async fn value(&self, key: &str) -> serde_json::Value {
        self.edge.client().get(&at(key)).await.expect(200)["value"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_brings_is_read_and_the_stream_goes_on_from_there() {
    let world = World::new("carry-there").await;
    let before = world.to_edge("before", &[]).await;
    world.set("model", "b").await;
    let gone = world.hub.client().delete(&(entry("app", "gone") + "?env=development")).await;
    assert_eq!(gone.status, 204);
    world.new_keys().await;
    world.set_secret("key", "sk-live-stick-2").await;
    let file = world.to_edge("file", &[]).await;
    let bytes = std::fs::read(&file).unwrap();
    for plain in ["sk-live", "model", "development"] {
        assert!(
            !bytes.windows(plain.len()).any(|part| part == plain.as_bytes()),
            "{plain} lies open in the file"
        );
    }

    let said = world.apply(&file).await;
    assert!(said.contains("3 entries changed; now as of") && said.contains("secrets are open"), "{said}");
    assert_eq!(world.value("model").await, "b");
    assert_eq!(world.value("key").await, "sk-live-stick-2");
    world.edge.client().get(&at("gone")).await.expect(404);

    let said = world.apply(&file).await;
    assert!(said.contains("nothing in the file is new"), "{said}");
    let said = world.refused(&before).await;
    assert!(said.contains("older than what this edge has heard"), "{said}");
    assert_eq!(world.value("model").await, "b");

    world.set("model", "c").await;
    world.proxy.heal();
    world.edge.client().until_value(&at("model"), "c").await;
    let said = world.refused(&file).await;
    assert!(said.contains("connected to its hub"), "{said}");
}

async fn a_file_goes_on_from_what_the_edge_heard_last_in_each_of_its_folders(database: Database) {
    let world = World::on(database, "carry-delta").await;
    world.proxy.heal();
    world.edge.client().until("/health/hub", |answer| answer.status == 200).await;
    let noise = || -> String { (0..1_000).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect() };
    for n in 0..40 {
        world.set(&format!("bulk-{n}"), &noise()).await;
    }
    let (patched, secret) = (json!({"noise": noise(), "n": 1}).to_string(), "sk-live-stick-2");
    world.set("patched", &patched).await;
    world.edge.client().until_value(&at("patched"), patched.as_str()).await;
    // Only this folder moves, while the edge hears it; its own folder, and other environments, stay where they were.
    world.set("model", "b").await;
    world.edge.client().until_value(&at("model"), "b").await;
    world.proxy.suffer(Fault::Cut);
    world.edge.client().until("/health/hub", |answer| answer.status == 503).await;
    world.set("model", "c").await;
    let patched = patched.replace("\"n\":1", "\"n\":2");
    world.set("patched", &patched).await;
    world.set_secret("key", secret).await;

    let size = |file: &Path| std::fs::metadata(file).unwrap().len();
    let full = size(&world.to_edge("full", &["--full"]).await);
    // What an edge acknowledged is written down some seconds later.
    let number = AtomicUsize::new(0);
    let file = eventually("the hub knows what the edge has", async || {
        let name = format!("file-{}", number.fetch_add(1, Ordering::Relaxed));
        let file = world.to_edge(&name, &[]).await;
        if size(&file) < full / 4 { Ok(file) } else { Err(format!("{} of {full}", size(&file))) }
    })
    .await;
    let said = world.apply(&file).await;
    assert!(said.contains("3 entries changed"), "{said}");
    assert_eq!(world.value("model").await, "c");
    assert_eq!(world.value("patched").await, patched.as_str());
    assert_eq!(world.value("key").await, secret);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_whole_or_not_for_this_edge_changes_nothing() {
    let world = World::new("carry-refused").await;
    world.set("model", "b").await;
    let file = world.to_edge("file", &[]).await;
    let whole = std::fs::read(&file).unwrap();
    let client = world.edge.client();
    let post = async |bytes: Vec<u8>| {
        let answer = client.try_send_bytes("POST", "/api/v1/edge/apply", Some(bytes.into())).await.unwrap();
        assert!(matches!(answer.status, 400 | 409), "{}: {}", answer.status, answer.text());
    };
    for broken in broken(&whole) {
        post(broken).await;
    }
    post([&whole[..], b"x"].concat()).await;
    assert_eq!(world.value("model").await, "a");

    let cut = world.scratch.path("cut");
    std::fs::write(&cut, &whole[..whole.len() - 1]).unwrap();
    let said = world.refused(&cut).await;
    assert!(said.contains("cut off"), "{said}");
    let short = world.to_edge("short", &["--good-for", "1s"]).await;
    world.edge.client().until("/api/v1/edge/status", |_| true).await;
    let token = json!({"name": "e2", "namespaces": ["app"], "environments": ["development"]});
    let token = world.hub.join_token(token).await;
    let other = Edge::join(&world.scratch, "e2", &token).await;
    let said = other.cli(&["edge", "apply", file.to_str().unwrap()]).await;
    assert!(said.code == 1 && said.err.contains("another edge"), "{}", said.err);
    eventually("the file has expired", async || {
        let said = world.edge.cli(&["edge", "apply", short.to_str().unwrap()]).await;
        if said.err.contains("was good until") { Ok(()) } else { Err(said.err) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_lacks_what_a_file_goes_on_from_asks_for_everything() {
    let mut world = World::new("carry-gap").await;
    let image = world.scratch.path("image");
    world.edge.stop();
    llm_config_tests::scratch::copy_folder(world.edge.data(), &image);
    world.edge.start().await;
    world.proxy.heal();
    world.set("model", "b").await;
    world.set("stays", "s").await;
    world.edge.client().until_value(&at("stays"), "s").await;
    // The hub writes down now and then what its edges have.
    let behind = |answer: &llm_config_tests::http::Answer| {
        answer.json().as_array().is_some_and(|edges| edges[0]["behind"] == json!(0))
    };
    world.hub.client().until("/api/v1/edges", behind).await;
    world.proxy.suffer(Fault::Cut);
    world.edge.kill();
    std::fs::remove_dir_all(world.edge.data()).unwrap();
    llm_config_tests::scratch::copy_folder(&image, world.edge.data());
    world.edge.start().await;
    assert_eq!(world.value("model").await, "a");
    world.set("model", "c").await;
    let file = world.to_edge("file", &[]).await;
    let said = world.refused(&file).await;
    assert!(said.contains("--full"), "{said}");
    assert_eq!(world.value("model").await, "a");
    let file = world.to_edge("full", &["--full"]).await;
    world.apply(&file).await;
    assert_eq!(world.value("model").await, "c");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_edge_takes_the_file_when_it_is_brought_again() {
    let mut world = World::new("carry-killed").await;
    let operations: Vec<_> = (0..400)
        .map(|n| json!({"op": "set", "namespace": "app", "key": format!("k{n}"), "env": "development", "value": "x"}))
        .collect();
    world.hub.client().post("/api/v1/configs/bulk", json!({"operations": operations})).await.expect(200);
    let file = world.to_edge("file", &[]).await;
    for _ in 0..3 {
        let mut command = world.edge.command();
        let mut applying = command.args(["edge", "apply", file.to_str().unwrap()]).spawn().unwrap();
        std::thread::yield_now();
        world.edge.kill();
        applying.wait().unwrap();
        world.edge.start().await;
        assert_eq!(world.value("model").await, "a");
    }
    world.apply(&file).await;
    assert_eq!(world.value("k399").await, "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_edge_destroys_its_data_when_a_file_says_so() {
    let mut world = World::new("carry-removed").await;
    world.hub.cli(&world.scratch, &["fleet", "lost", "e1"]).await.done();
    let file = world.to_edge("file", &[]).await;
    let said = world.apply(&file).await;
    assert!(said.contains("its data is destroyed"), "{said}");
    let data = world.edge.data().to_owned();
    eventually("the replica is gone", async || {
        if data.join("replica").exists() { Err("it is there") } else { Ok(()) }
    })
    .await;
    world.edge.stop();
}

/// Both ways.
impl World {
    async fn write(&self, key: &str, value: &str) {
        let body = json!({"value": value, "env": "development"});
        let answer = self.edge.client().put(&entry("app", key), body).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }

    /// The writes that wait at the edge.
    async fn back(&self, file: &str) -> PathBuf {
        let path = self.scratch.path(file);
        self.edge.cli(&["edge", "carry", "-o", path.to_str().unwrap()]).await.done();
        path
    }

    async fn apply_at_hub(&self, file: &Path) -> String {
        self.hub.cli(&self.scratch, &["fleet", "apply", file.to_str().unwrap()]).await.done()
    }

    async fn pending(&self) -> u64 {
        self.edge.client().get("/api/v1/edge/status").await.expect(200)["pending"].as_u64().unwrap()
    }

    async fn at_hub(&self, key: &str) -> serde_json::Value {
        self.hub.client().get(&at(key)).await.expect(200)["value"].clone()
    }

    /// How many versions of an entry the hub has, losers of conflicts too.
    async fn versions(&self, key: &str) -> usize {
        let path = entry("app", key) + "/history?env=development";
        self.hub.client().get(&path).await.expect(200).as_array().unwrap().len()
    }
}

async fn two_rounds_by_stick_bring_both_sides_to_the_same(database: Database) {
    let world = World::on(database, "carry-rounds").await;
    // The first round: hub, edge, hub, edge.
    world.set("model", "b").await;
    world.apply(&world.to_edge("1-there", &[]).await).await;
    world.write("model", "edge's").await;
    world.write("own", "1").await;
    let gone = world.edge.client().delete(&(entry("app", "gone") + "?env=development")).await;
    assert_eq!(gone.status, 202);
    let back = world.back("1-back").await;
    let bytes = std::fs::read(&back).unwrap();
    for plain in ["own", "model", "development"] {
        assert!(
            !bytes.windows(plain.len()).any(|part| part == plain.as_bytes()),
            "{plain} lies open in the file"
        );
    }
    assert_eq!(world.pending().await, 3, "what was carried waits until the hub is heard");
    let said = world.apply_at_hub(&back).await;
    assert!(said.contains("e1: 3 accepted"), "{said}");
    assert_eq!((world.at_hub("model").await, world.at_hub("own").await), ("edge's".into(), "1".into()));
    world.hub.client().get(&at("gone")).await.expect(404);
    let versions = world.versions("own").await;
    let said = world.apply_at_hub(&back).await;
    assert!(said.contains("e1: 0 accepted, 3 known already"), "{said}");
    assert_eq!(world.versions("own").await, versions);
    world.apply(&world.to_edge("1-heard", &[]).await).await;
    assert_eq!(world.pending().await, 0);

    // The second, with new keys, and writes that neither side knows of.
    world.new_keys().await;
    world.set_secret("key", "sk-live-stick-3").await;
    world.write("own", "2").await;
    world.set("own", "hub's").await;
    let said = world.apply_at_hub(&world.back("2-back").await).await;
    assert!(said.contains("1 lost to a value written meanwhile"), "{said}");
    world.apply(&world.to_edge("2-there", &[]).await).await;
    assert_eq!(world.pending().await, 0);
    assert_eq!(
        (world.value("own").await, world.value("key").await),
        ("hub's".into(), "sk-live-stick-3".into())
    );

    // And the stream goes on.
    let before = world.versions("own").await;
    world.proxy.heal();
    world.edge.client().until("/health/hub", |answer| answer.status == 200).await;
    world.set("model", "after").await;
    world.edge.client().until_value(&at("model"), "after").await;
    assert_eq!(world.versions("own").await, before);
}

/// A rotation at an edge that nobody reaches comes to its end by stick: the new version in use, and never the old one again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_at_an_edge_is_carried_back_and_an_older_file_changes_nothing() {
    let world = World::new("carry-in-use").await;
    let used = async |version: u64| {
        let entry =
            json!({"namespace": "app", "key": "key", "environment": "development", "version": version});
        let said = json!({"consumer": "agent", "lasting": true, "entries": [entry]});
        world.edge.client().post("/api/v1/edge/uses", said).await.expect(204);
    };
    let body = json!({"value": "sk-live-stick-2", "env": "development", "secret": true});
    let written = world.hub.client().put(&entry("app", "key"), body).await;
    let change = written.header("x-config-change").unwrap().to_owned();
    let in_use = async || {
        let path = format!("/api/v1/changes/{change}/receipts");
        let receipts = world.hub.client().get(&path).await.expect(200);
        (receipts["in_use"].clone(), receipts["edges"][0]["consumers"][0]["uses_version"].clone())
    };
    used(1).await;
    let older = world.back("older").await;
    world.apply(&world.to_edge("there", &[]).await).await;
    assert_eq!(in_use().await, (json!(false), json!(null)));
    used(2).await;
    let said = world.apply_at_hub(&world.back("newer").await).await;
    assert!(said.contains("noted what is in use there"), "{said}");
    assert_eq!(in_use().await, (json!(true), json!(2)));
    let said = world.apply_at_hub(&older).await;
    assert!(!said.contains("in use"), "{said}");
    assert_eq!(in_use().await, (json!(true), json!(2)));
    let waited =
        world.hub.cli(&world.scratch, &["change", "wait", &change, "--in-use", "--timeout", "5s"]).await;
    assert_eq!(waited.code, 0, "{}", waited.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_edge_has_brought_itself_meanwhile_is_known() {
    let world = World::new("carry-both-ways").await;
    world.write("own", "1").await;
    let early = world.back("early").await;
    world.write("own", "2").await;
    let late = world.back("late").await;
    let said = world.apply_at_hub(&late).await;
    assert!(said.contains("2 accepted"), "{said}");
    world.proxy.heal();
    world.edge.client().until("/api/v1/edge/status", |answer| answer.json()["pending"] == json!(0)).await;
    let versions = world.versions("own").await;
    for file in [&early, &late] {
        let said = world.apply_at_hub(file).await;
        assert!(said.contains("0 accepted") && said.contains("known already"), "{said}");
    }
    assert_eq!((world.at_hub("own").await, world.versions("own").await), ("2".into(), versions));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_takes_no_file_that_is_not_whole_and_none_of_a_removed_edge() {
    let world = World::new("carry-back-refused").await;
    world.write("own", "1").await;
    let file = world.back("back").await;
    let whole = std::fs::read(&file).unwrap();
    let client = world.hub.client();
    let post = async |bytes: Vec<u8>| {
        let answer =
            client.try_send_bytes("POST", "/api/v1/fleet/carried", Some(bytes.into())).await.unwrap();
        assert_eq!(answer.status, 409, "{}", answer.text());
    };
    for broken in broken(&whole) {
        post(broken).await;
    }
    client.get(&at("own")).await.expect(404);
    world.hub.cli(&world.scratch, &["fleet", "remove", "e1"]).await.done();
    let said = world.hub.cli(&world.scratch, &["fleet", "apply", file.to_str().unwrap()]).await;
    assert!(said.code == 1 && said.err.contains("e1 was removed"), "{}: {}", said.code, said.err);
    client.get(&at("own")).await.expect(404);
}

async fn a_hub_that_was_killed_takes_the_rest_when_the_file_is_brought_again(database: Database) {
    let mut world = World::on(database, "carry-hub-killed").await;
    for n in 0..250 {
        world.write(&format!("w{n}"), "x").await;
    }
    let file = world.back("back").await;
    let bytes = bytes::Bytes::from(std::fs::read(&file).unwrap());
    for batch in [0, 100, 200] {
        let client = world.hub.client();
        let bytes = bytes.clone();
        let applying = tokio::spawn(async move {
            // The answer may not come.
            drop(client.try_send_bytes("POST", "/api/v1/fleet/carried", Some(bytes)).await);
        });
        let client = world.hub.client();
        let arrived = async || client.get(&at(&format!("w{batch}"))).await.status == 200;
        while !applying.is_finished() && !arrived().await {}
        world.hub.kill();
        applying.await.unwrap();
        world.hub.start().await;
    }
    world.apply_at_hub(&file).await;
    assert_eq!((world.at_hub("w0").await, world.at_hub("w249").await), ("x".into(), "x".into()));
    assert_eq!((world.versions("w0").await, world.versions("w249").await), (1, 1));
    world.apply(&world.to_edge("heard", &[]).await).await;
    assert_eq!(world.pending().await, 0);
}
