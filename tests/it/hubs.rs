//! Several processes of one hub over one PostgreSQL: whoever is asked, one writes; and when that one goes, another does.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use llm_config_tests::Size;
use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, Client, entry};
use llm_config_tests::hub::Hub;
use llm_config_tests::postgres::{self, PgUrl};
use llm_config_tests::process::{Process, program};
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

/// From the loss of the leader to the first write that another takes: what the database, a machine that is busy with
/// other tests and the pauses between attempts take, and far below what anybody would call an outage.
const HEALED_WITHIN: Duration = Duration::from_secs(20);

struct House {
    scratch: Scratch,
    database: PgUrl,
    /// Started first, so that it leads.
    leads: Hub,
    follows: Hub,
}

impl House {
    async fn new(test: &str) -> Self {
        let scratch = Scratch::new(test);
        let database = postgres::database();
        let leads = Hub::serve(&scratch, &format!("[database]\nurl = \"{database}\"")).await;
        let follows = leads.beside(&scratch, "second").await;
        let house = Self { scratch, database, leads, follows };
        assert_eq!(
            (role(&house.leads).await, role(&house.follows).await),
            ("leader".into(), "follower".into())
        );
        house
    }

    fn clients(&self) -> [Client; 2] {
        [self.leads.client(), self.follows.client()]
    }

    /// How often somebody took the lead.
    async fn leaderships(&self) -> i64 {
        let mut connection = PgConnection::connect(self.database.as_str()).await.unwrap();
        let count = sqlx::query_scalar("SELECT count(*) FROM shard_epoch").fetch_one(&mut connection);
        count.await.unwrap()
    }
}

async fn role(hub: &Hub) -> String {
    let health = hub.anonymous().get("/health").await.json();
    health["role"].as_str().unwrap_or_default().to_owned()
}

async fn until_role(hub: &Hub, wanted: &'static str) {
    let plays = |answer: &Answer| answer.status == 200 && answer.json()["role"] == wanted;
    hub.anonymous().until("/health", plays).await;
}

fn path(key: &str) -> String {
    entry("app", key) + "?env=development"
}

fn body(value: impl Into<Value>) -> Value {
    json!({"value": value.into(), "env": "development"})
}

async fn set(client: &Client, key: &str, value: impl Into<Value>) -> Answer {
    client.put(&entry("app", key), body(value)).await
}

async fn history(client: &Client, key: &str) -> Vec<Value> {
    let path = format!("{}/history?env=development&limit=500", entry("app", key));
    client.get(&path).await.expect(200).as_array().unwrap().clone()
}

/// Versions in the order in which they were taken.
fn versions(history: &[Value]) -> Vec<u64> {
    history.iter().rev().map(|row| row["version"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_is_asked_a_write_is_read_at_both_and_at_the_edges_of_both() {
    let house = House::new("hubs-both").await;
    let [leads, follows] = house.clients();
    let here = Edge::join(&house.scratch, "e1", &house.leads.open_token("e1").await).await;
    let there = Edge::join(&house.scratch, "e2", &house.follows.open_token("e2").await).await;
    for (number, client) in [&follows, &leads, &follows].into_iter().enumerate() {
        let written = set(client, "k", number).await;
        assert_eq!(written.expect(200)["version"], number + 1);
        assert!(written.header("x-config-position").is_some() && written.header("x-config-change").is_some());
        for reader in [&leads, &follows] {
            assert_eq!(reader.get(&path("k")).await.expect(200)["value"], number);
        }
        here.client().until_value(&path("k"), number).await;
        there.client().until_value(&path("k"), number).await;
    }
    let stale = json!({"value": 9, "env": "development", "if_version": 1});
    assert!(follows.put(&entry("app", "k"), stale).await.refusal(409).contains("version"));
    let wrong = follows.clone().with_token("lcm_wrong");
    set(&wrong, "k", 9).await.refusal(401);

    // An edge of the one that follows: its own write, and a request that it passes on.
    set(&there.client(), "of-the-edge", "x").await.expect(200);
    leads.until_value(&path("of-the-edge"), "x").await;
    here.client().until_value(&path("of-the-edge"), "x").await;
    let back = format!("{}/rollback/1?env=development", entry("app", "k"));
    assert_eq!(there.client().post(&back, json!({})).await.expect(200)["version"], 4);
    here.client().until_value(&path("k"), 0).await;
    let rows = history(&follows, "k").await;
    assert!(rows[0]["created_by"].as_str().unwrap().starts_with("edge:e2/"), "{}", rows[0]);

    for reader in [&leads, &follows] {
        let all = |answer: &Answer| {
            answer.json()["edges"].as_array().unwrap().iter().all(|edge| edge["connected"] == true)
        };
        reader.until("/api/v1/fleet", all).await;
    }

    let change = uuid::Uuid::new_v4().to_string();
    let operation = json!({"op": "set", "namespace": "app", "key": "b", "env": "development", "value": 1});
    let bulk = json!({"operations": [operation], "change": change, "batch": 1});
    let first = follows.post("/api/v1/configs/bulk", bulk.clone()).await.expect(200);
    assert_eq!(
        leads.post("/api/v1/configs/bulk", bulk).await.expect(200),
        first,
        "a repetition is one, anywhere"
    );
    assert_eq!(history(&leads, "b").await.len(), 1);
    assert_eq!(house.leaderships().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_one_key_at_both_lose_nothing_and_nobody_takes_the_lead_from_anybody() {
    let house = House::new("hubs-eight").await;
    let each = Size::of_run().pick(15, 60, 300);
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let client = house.clients()[writer % 2].clone();
        writers.spawn(async move {
            let mut taken = Vec::new();
            for n in 0..each {
                let written = set(&client, "k", format!("{writer}-{n}")).await.expect(200);
                taken.push(written["version"].as_u64().unwrap());
            }
            taken
        });
    }
    let mut taken: Vec<u64> = writers.join_all().await.into_iter().flatten().collect();
    taken.sort_unstable();
    assert_eq!(taken, (1..=8 * each).collect::<Vec<_>>());
    let rows = history(&house.follows.client(), "k").await;
    let newest = 8 * each - rows.len() as u64 + 1;
    assert_eq!(versions(&rows), (newest..=8 * each).collect::<Vec<_>>());
    assert_eq!(house.leaderships().await, 1);
}

/// Writes at a hub until it is stopped: what was acknowledged, key and value, and when the last one was.
struct Load {
    stop: Arc<AtomicBool>,
    writers: JoinSet<BTreeMap<String, u64>>,
}

impl Load {
    fn start(clients: &[Client]) -> Self {
        let (stop, mut writers) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for (number, client) in clients.iter().enumerate() {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            writers.spawn(async move {
                let (mut taken, mut n) = (BTreeMap::new(), 0);
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("w{number}-{n}");
                    let sent = client.try_send("PUT", &entry("app", &key), Some(body(n))).await;
                    match sent {
                        Ok(answer) if answer.status == 200 => drop(taken.insert(key, n)),
                        // Nothing else may be said about a write that was not done.
                        Ok(answer) => drop(answer.refusal(503)),
                        Err(_) => {}
                    }
                    n += 1;
                    tokio::task::yield_now().await;
                }
                taken
            });
        }
        Self { stop, writers }
    }

    async fn stop(self) -> BTreeMap<String, u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.writers.join_all().await.into_iter().flatten().collect()
    }
}

async fn is_all_there(client: &Client, taken: &BTreeMap<String, u64>) {
    let found = client.everything("app", "development").await;
    for (key, value) in taken {
        assert_eq!(found.get(key), Some(&(json!(value), 1)), "{key} was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_is_killed_another_writes_within_seconds_and_nothing_is_lost() {
    let mut house = House::new("hubs-killed").await;
    let [leads, follows] = house.clients();
    let edge = Edge::join(&house.scratch, "e1", &house.leads.open_token("e1").await).await;
    set(&leads, "k", 1).await.expect(200);
    edge.client().until_value(&path("k"), 1).await;
    let load = Load::start(&[leads.clone(), follows.clone(), leads, follows.clone()]);
    follows.until(&path("w3-5"), |answer| answer.status == 200).await;

    house.leads.kill();
    let killed = Instant::now();
    let key = |n: usize| format!("after-{n}");
    let mut n = 0;
    eventually("the other writes", async || {
        n += 1;
        let answer = set(&follows, &key(n), n).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.refusal(503)) }
    })
    .await;
    assert!(killed.elapsed() < HEALED_WITHIN, "{:?}", killed.elapsed());
    until_role(&house.follows, "leader").await;
    set(&edge.client(), "while-away", "kept").await;
    let taken = load.stop().await;
    assert!(taken.len() > 20, "{}", taken.len());
    is_all_there(&follows, &taken).await;

    // An edge knows one address; behind it is now a process that follows.
    house.leads.start().await;
    assert_eq!(role(&house.leads).await, "follower");
    follows.until_value(&path("while-away"), "kept").await;
    assert_eq!(history(&follows, "while-away").await.len(), 1, "once");
    set(&house.leads.client(), "k", 2).await.expect(200);
    edge.client().until_value(&path("k"), 2).await;
    assert_eq!(house.leaderships().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_paused_and_wakes_neither_loses_a_write_nor_does_one_twice() {
    let mut house = House::new("hubs-paused").await;
    let [leads, follows] = house.clients();
    let edge = Edge::join(&house.scratch, "e1", &house.follows.open_token("e1").await).await;
    set(&follows, "k", 0).await.expect(200);
    edge.client().until_value(&path("k"), 0).await;

    house.leads.process().signal("STOP");
    let paused = Instant::now();
    // Sent to the one that sleeps: decided when it wakes, if at all.
    let (client, sent) = (leads.clone(), body("of the sleeper"));
    let asleep = tokio::spawn(async move { client.try_send("PUT", &entry("app", "k"), Some(sent)).await });
    // Passed on to the one that sleeps: given up when another leads.
    let given_up = set(&follows, "k", "given up").await;
    let told = given_up.refusal(503);
    assert!(told.contains("has changed") && told.contains("not known"), "{told}");
    assert!(given_up.header("retry-after").is_some());
    until_role(&house.follows, "leader").await;
    set(&follows, "k", 1).await.expect(200);
    assert!(paused.elapsed() < HEALED_WITHIN, "{:?}", paused.elapsed());
    set(&edge.client(), "of-the-edge", 1).await;
    follows.until_value(&path("of-the-edge"), 1).await;

    house.leads.process().signal("CONT");
    let asleep = asleep.await.unwrap();
    until_role(&house.leads, "follower").await;
    set(&leads, "k", 2).await.expect(200);
    edge.client().until_value(&path("k"), 2).await;
    let rows = history(&follows, "k").await;
    assert_eq!(versions(&rows), (1..=rows.len() as u64).collect::<Vec<_>>());
    let times = |value: Value| rows.iter().filter(|row| row["value"] == value).count();
    for value in [0, 1, 2] {
        assert_eq!(times(json!(value)), 1, "{rows:?}");
    }
    let of_the_sleeper = times(json!("of the sleeper"));
    let acknowledged = asleep.is_ok_and(|answer| answer.status == 200);
    assert!(of_the_sleeper == usize::from(acknowledged) || of_the_sleeper == 1, "{rows:?}");
    assert!(times(json!("given up")) <= 1, "{rows:?}");
    assert_eq!(history(&leads, "of-the-edge").await.len(), 1);
    assert_eq!(house.leaderships().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ends_politely_is_followed_by_the_other() {
    let mut house = House::new("hubs-stopped").await;
    let [leads, follows] = house.clients();
    let load = Load::start(&[leads, follows.clone()]);
    follows.until(&path("w1-3"), |answer| answer.status == 200).await;
    house.leads.stop();
    until_role(&house.follows, "leader").await;
    let taken = load.stop().await;
    set(&follows, "k", 1).await.expect(200);
    is_all_there(&follows, &taken).await;
    house.leads.start().await;
    assert_eq!(role(&house.leads).await, "follower");
    assert_eq!(house.leaderships().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_told_at_once_at_the_process_that_did_not_find_it() {
    let mut house = House::new("hubs-conflict").await;
    let [leads, follows] = house.clients();
    let mut edge = Edge::join(&house.scratch, "e1", &house.follows.open_token("e1").await).await;
    set(&leads, "k", "first").await.expect(200);
    edge.client().until_value(&path("k"), "first").await;
    house.follows.stop();
    set(&edge.client(), "k", "of the edge").await.expect(202);
    edge.stop();
    set(&leads, "k", "of the hub").await.expect(200);
    house.follows.start().await;

    let token = house.scratch.file("watch.token", house.follows.token());
    let mut command = Command::new(program("llm-config"));
    command
        .args(["watch", "app", "--hub", &format!("http://{}", house.follows.api), "--token-file"])
        .arg(token);
    let watch = Process::start(&mut command, "watch", &house.scratch.path("watch.log"));
    eventually("the follower is followed", async || {
        set(&follows, "marker", "x").await.expect(200);
        if watch.log().contains("marker") { Ok(()) } else { Err(watch.log()) }
    })
    .await;
    // Nothing else is written from here on: what lost takes no place of its own.
    edge.start().await;
    eventually("the conflict is told", async || {
        if watch.log().contains("k: conflict") { Ok(()) } else { Err(watch.log()) }
    })
    .await;
    assert_eq!(follows.get(&path("k")).await.expect(200)["value"], "of the hub");
}
