//! Hub and edge are killed between the batches of an import, and while one is on its way; it completes all the same.

use std::collections::BTreeMap;
use std::process::Command;

use llm_config_tests::Size;
use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Client, Rows, list};
use llm_config_tests::hub::Hub;
use llm_config_tests::process::{Process, program};
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

const BATCH: usize = 100;
const CATALOGUE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../simulations/live/data/llm-models-1.85.0.json");

fn catalogue() -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(CATALOGUE).expect("the catalogue is part of the repository");
    serde_json::from_str(&text).expect("the catalogue is one object")
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Hub,
    Edge,
}

/// What kills when.
#[derive(Clone, Copy, Debug)]
struct Kill {
    victim: Victim,
    /// While the batch is on its way, instead of before it.
    in_flight: bool,
}

/// One kill for some of the batches, from the seed.
fn plan(seed: u64, kills: usize, batches: usize) -> BTreeMap<usize, Kill> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut plan = BTreeMap::new();
    while plan.len() < kills {
        let victim = if random.random_bool(0.5) { Victim::Hub } else { Victim::Edge };
        plan.insert(random.random_range(1..batches), Kill { victim, in_flight: random.random_bool(0.5) });
    }
    plan
}

struct World {
    hub: Hub,
    edge: Edge,
    other: Edge,
    through_edge: bool,
}

impl World {
    fn client(&self) -> Client {
        if self.through_edge { self.edge.client() } else { self.hub.client() }
    }

    fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Hub => self.hub.kill(),
            Victim::Edge => self.edge.kill(),
        }
    }

    async fn start(&mut self, victim: Victim) {
        match victim {
            Victim::Hub => self.hub.start().await,
            Victim::Edge => self.edge.start().await,
        }
    }

    /// Sends a batch, killing as planned, and repeats the same request until it is answered.
    async fn send(&mut self, body: &Value, kill: Option<Kill>) {
        const BULK: &str = "/api/v1/configs/bulk";
        let client = self.client();
        match kill {
            Some(Kill { victim, in_flight: true }) => {
                let (sender, request) = (client.clone(), body.clone());
                let flying = tokio::spawn(async move { sender.try_send("POST", BULK, Some(request)).await });
                tokio::task::yield_now().await;
                self.kill(victim);
                let _ = flying.await;
                self.start(victim).await;
            }
            Some(Kill { victim, in_flight: false }) => {
                self.kill(victim);
                self.start(victim).await;
            }
            None => {}
        }
        eventually("the batch is taken", async || {
            match client.try_send("POST", BULK, Some(body.clone())).await {
                Ok(answer) if matches!(answer.status, 200 | 202) => Ok(()),
                other => Err(other.map(|answer| answer.text())),
            }
        })
        .await;
    }
}

async fn import_under_kills(seed: u64, kills: usize) {
    let through_edge = seed % 2 == 1;
    let scratch = Scratch::new(&format!("kills-{seed}"));
    let hub = Hub::dev(&scratch).await;
    let edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    let other = Edge::join(&scratch, "e2", &hub.open_token("e2").await).await;
    let mut world = World { hub, edge, other, through_edge };

    let catalogue: Vec<(String, Value)> = catalogue().into_iter().collect();
    let batches: Vec<&[(String, Value)]> = catalogue.chunks(BATCH).collect();
    let plan = plan(seed, kills, batches.len());
    let change = uuid::Builder::from_random_bytes(u128::from(seed).to_be_bytes()).into_uuid().to_string();
    for (number, batch) in batches.iter().enumerate() {
        let operation = |(key, value): &(String, Value)| json!({"op": "set", "namespace": "models", "key": key, "env": "production", "value": value});
        let operations: Vec<Value> = batch.iter().map(operation).collect();
        let body = json!({"operations": operations, "atomic": true, "change": change, "batch": number});
        world.send(&body, plan.get(&number).copied()).await;
    }

    let wanted: Rows = catalogue.iter().map(|(key, value)| (key.clone(), (value.clone(), 1))).collect();
    let places = [("the hub", world.hub.client()), ("e1", world.edge.client()), ("e2", world.other.client())];
    for (place, client) in &places {
        eventually(&format!("seed {seed}: {place} has everything once"), async || {
            let found = client.everything("models", "production").await;
            let wrong: Vec<_> =
                wanted.iter().filter(|(key, row)| found.get(*key) != Some(row)).take(3).collect();
            if found.len() == wanted.len() && wrong.is_empty() {
                Ok(())
            } else {
                Err(format!("{} rows, {wrong:?}", found.len()))
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_under_kills_completes_without_doubling_anything() {
    let (worlds, kills) = Size::of_run().pick((2, 3), (4, 5), (20, 6));
    for seed in 0..worlds {
        import_under_kills(seed, kills).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_by_the_command_line_completes_when_the_hub_is_killed_under_it() {
    let scratch = Scratch::new("kills-cli");
    let mut hub = Hub::dev(&scratch).await;
    let wanted: Rows = catalogue().into_iter().map(|(key, value)| (key, (value, 1))).collect();
    let (url, token) = (format!("http://{}", hub.api), hub.data().join("admin.token"));
    let import = |log: &str| {
        let mut command = Command::new(program("llm-config"));
        command.args(["import", CATALOGUE, "--namespace", "models", "--env", "production", "--hub", &url]);
        command.arg("--token-file").arg(&token);
        Process::start(&mut command, "import", &scratch.path(log))
    };
    let mut running = import("import.log");
    let watcher = hub.client();
    eventually("the first batch is there, or all", async || {
        let path = format!("{}?env=production&limit=1", list("models"));
        let begun = watcher.get(&path).await.json().as_array().is_some_and(|rows| !rows.is_empty());
        if begun || running.ended().is_some() { Ok(()) } else { Err("nothing yet") }
    })
    .await;
    hub.kill();
    hub.start().await;
    if !running.wait().success() {
        let mut again = import("again.log");
        assert!(again.wait().success(), "the same import again: {}", again.tail());
    }
    assert!(hub.client().everything("models", "production").await == wanted, "every entry once");
    let mut unchanged = import("unchanged.log");
    assert!(unchanged.wait().success(), "{}", unchanged.tail());
    assert!(hub.client().everything("models", "production").await == wanted, "a third time changes nothing");
}

#[test]
fn a_seed_decides_the_kills() {
    let told = |seed| format!("{:?}", plan(seed, 5, 28));
    assert_eq!(told(7), told(7));
    assert_ne!(told(7), told(8));
    assert_eq!(plan(3, 5, 28).len(), 5);
}
