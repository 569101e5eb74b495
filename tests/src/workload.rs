//! Writers and readers that go on whatever happens, and record all that they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::edge::Edge;
use crate::history::{AtEnd, Past, Recorder, Seen, Told, What};
use crate::http::{Answer, Client, entry, segment};
use crate::hub::Hub;
use crate::wait::{eventually, within};

const NAMESPACE: &str = "app";
const ENVIRONMENT: &str = "development";
/// Few, so that writers meet.
const KEYS: usize = 8;
/// Load is bounded: this is about what happens, not about how fast.
const WRITE_PACE: Duration = Duration::from_millis(25);
const READ_PACE: Duration = Duration::from_millis(10);

/// Somewhere to write, and at an edge to read.
#[derive(Clone, Debug)]
pub struct Place {
    pub name: String,
    pub client: Client,
    pub reads: bool,
}

impl Place {
    pub fn hub(hub: &Hub) -> Self {
        Self { name: "hub".into(), client: hub.client(), reads: false }
    }

    pub fn edge(edge: &Edge) -> Self {
        Self { name: edge.name.clone(), client: edge.client(), reads: true }
    }
}

/// One writer at each place, and one reader at each edge.
#[derive(Debug)]
pub struct Workload {
    recorder: Arc<Recorder>,
    places: Vec<Place>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Workload {
    /// Begins. What is written where follows from the seed, not when.
    pub fn start(recorder: &Arc<Recorder>, places: Vec<Place>, seed: u64) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for (number, place) in (0..).zip(&places) {
            let random = StdRng::seed_from_u64(seed ^ number << 32);
            tasks.spawn(write(recorder.clone(), place.clone(), random, stopped.clone()));
            if place.reads {
                tasks.spawn(read(recorder.clone(), place.clone(), stopped.clone()));
            }
        }
        Self { recorder: recorder.clone(), places, stop, tasks }
    }

    /// Waits until each of some places has taken so many more writes.
    pub async fn goes_on(&self, places: &[&str], writes: usize) {
        let goals: Vec<(&str, usize)> =
            places.iter().map(|name| (*name, self.recorder.taken(name) + writes)).collect();
        eventually("writes are taken", async || {
            let behind: Vec<_> =
                goals.iter().filter(|(name, goal)| self.recorder.taken(name) < *goal).collect();
            if behind.is_empty() { Ok(()) } else { Err(format!("behind: {behind:?}")) }
        })
        .await;
    }

    /// The same of all places.
    pub async fn goes_on_everywhere(&self, writes: usize) {
        let names: Vec<&str> = self.places.iter().map(|place| place.name.as_str()).collect();
        self.goes_on(&names, writes).await;
    }

    /// Lets it go on for so long, whatever is answered.
    pub async fn lasts(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Ends it when what is under way has been answered.
    ///
    /// # Panics
    /// When a writer or reader did.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("writers and readers do not panic");
        }
    }
}

fn key(number: usize) -> String {
    format!("k{}", number % KEYS)
}

fn path(key: &str) -> String {
    format!("{}?env={ENVIRONMENT}", entry(NAMESPACE, key))
}

async fn write(recorder: Arc<Recorder>, place: Place, mut random: StdRng, stopped: watch::Receiver<bool>) {
    let mut pace = interval(WRITE_PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stopped.borrow() {
        pace.tick().await;
        let (key, delete) = (key(random.random_range(0..KEYS)), random.random_range(0..5) == 0);
        write_one(&recorder, &place, &key, delete).await;
    }
}

/// Writes once and records what came of it.
pub async fn write_one(recorder: &Recorder, place: &Place, key: &str, delete: bool) -> Told {
    let began = recorder.tick();
    let tag = format!("{}-{began}", place.name);
    let answer = if delete {
        let path = format!("{}&change_description={}", path(key), segment(&tag));
        place.client.try_send("DELETE", &path, None).await
    } else {
        let body = json!({"value": tag, "env": ENVIRONMENT, "change_description": tag});
        place.client.try_send("PUT", &entry(NAMESPACE, key), Some(body)).await
    };
    let told = answer.map_or(Told::Unknown, |answer| told(&answer));
    let what = if delete { What::Delete { tag, told } } else { What::Set { tag, told } };
    recorder.record(&place.name, key, began, what);
    told
}

fn told(answer: &Answer) -> Told {
    match answer.status {
        200 | 202 | 204 => Told::Taken,
        // Another write counts, or a person has to decide: this one is kept.
        409 if answer.text().contains("superseded_concurrent") || answer.text().contains("held") => {
            Told::Taken
        }
        status @ 400..500 => Told::Refused(status),
        _ => Told::Unknown,
    }
}

async fn read(recorder: Arc<Recorder>, place: Place, stopped: watch::Receiver<bool>) {
    let mut pace = interval(READ_PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0.. {
        if *stopped.borrow() {
            return;
        }
        pace.tick().await;
        read_one(&recorder, &place, &key(number)).await;
    }
}

/// Reads once and records what was seen, if anything was.
pub async fn read_one(recorder: &Recorder, place: &Place, key: &str) -> Option<Seen> {
    let began = recorder.tick();
    let answer = place.client.try_send("GET", &path(key), None).await.ok()?;
    let seen = seen(&answer)?;
    recorder.record(&place.name, key, began, What::Read(seen.clone()));
    Some(seen)
}

fn seen(answer: &Answer) -> Option<Seen> {
    match answer.status {
        404 => Some(Seen::Absent),
        200 => {
            let body = answer.json();
            let tag = body["value"].as_str()?.to_owned();
            if answer.header("x-config-source") == Some("pending") {
                return Some(Seen::Waiting { tag });
            }
            Some(Seen::Decided { version: body["version"].as_u64()?, tag })
        }
        _ => None,
    }
}

/// Waits until nothing waits at the edges and they show what the hub shows.
///
/// # Panics
/// After the deadline: something is stuck, and nobody was told.
#[track_caller]
pub fn converge<'a>(hub: &Hub, edges: &'a [Edge], deadline: Duration) -> impl Future<Output = ()> + 'a {
    let (caller, hub) = (std::panic::Location::caller(), hub.client());
    async move {
        within(deadline, &format!("hub and edges are one again ({caller})"), async || {
            let truth = hub.everything(NAMESPACE, ENVIRONMENT).await;
            for edge in edges {
                let status = edge.client().get("/api/v1/edge/status").await.json();
                let rows = edge.client().everything(NAMESPACE, ENVIRONMENT).await;
                if status["pending"] != 0 || rows != truth {
                    let differ: Vec<_> =
                        truth.iter().filter(|(key, row)| rows.get(*key) != Some(row)).collect();
                    return Err(format!("{}: {status}\n{differ:?}\n{} rows", edge.name, rows.len()));
                }
            }
            Ok(())
        })
        .await;
    }
}

/// Waits until two regions show the same values, and each knows of every write of the other.
pub fn same_values(one: &Hub, other: &Hub, deadline: Duration) -> impl Future<Output = ()> {
    let (one, other) = (one.client(), other.client());
    async move {
        let known = async |client: &Client| {
            let rows = client.everything(NAMESPACE, ENVIRONMENT).await;
            let values: BTreeMap<String, Value> =
                rows.into_iter().map(|(key, (value, _))| (key, value)).collect();
            let mut tags = BTreeSet::new();
            for key in (0..KEYS).map(key) {
                tags.extend(history(client, &key).await.into_iter().map(|past| past.tag));
            }
            (values, tags)
        };
        within(deadline, "two regions hold the same", async || {
            let (one, other) = (known(&one).await, known(&other).await);
            let differ: Vec<&String> = one.1.symmetric_difference(&other.1).collect();
            if one == other { Ok(()) } else { Err(format!("{:?}\n{:?}\n{differ:?}", one.0, other.0)) }
        })
        .await;
    }
}

/// Everything as it is now.
pub async fn at_end(hub: &Hub, edges: &[Edge]) -> AtEnd {
    let mut at_end = AtEnd { hub: hub.client().everything(NAMESPACE, ENVIRONMENT).await, ..AtEnd::default() };
    let keys: BTreeSet<String> = at_end.hub.keys().cloned().chain((0..KEYS).map(key)).collect();
    for key in keys {
        let history = history(&hub.client(), &key).await;
        at_end.history.insert(key, history);
    }
    for edge in edges {
        at_end.edges.insert(edge.name.clone(), edge.client().everything(NAMESPACE, ENVIRONMENT).await);
    }
    at_end
}

/// The hub's history of a key, page by page; nothing if the key was never written.
async fn history(hub: &Client, key: &str) -> Vec<Past> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("{}/history?env={ENVIRONMENT}&limit=100{cursor}", entry(NAMESPACE, key));
        let page = hub.get(&path).await;
        if page.status == 404 {
            return found;
        }
        for row in page.expect(200).as_array().expect("a list") {
            found.push(Past {
                tag: row["change_description"].as_str().expect("every write has a tag").to_owned(),
                version: row["version"].as_u64().expect("a version"),
                deletion: row["value"].is_null(),
                applied: row["status"] == "applied",
            });
        }
        match page.header("x-next-cursor") {
            Some(next) => cursor = format!("&cursor={}", segment(next)),
            None => return found,
        }
    }
}
