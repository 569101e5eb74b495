//! The published `llm-edge-agent`, which reads its keys once, at its start: its key is rotated, no request is refused.
//!
//! `tests/run` builds the agent from the crate registry and names it in `LLM_CONFIG_AGENT_BIN`.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, Client, entry};
use llm_config_tests::hub::Hub;
use llm_config_tests::process::{Process, free_address};
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const ENV: &str = "production";
const FIRST_KEY: &str = "sk-first-7f3a90c2d1";
const ROTATION: &str = "/api/v1/secrets/llm%2Fkeys/openai-api-key/rotation?env=production";

/// The agent's program.
///
/// # Panics
/// Without it: a test that is left out proves nothing.
fn agent() -> PathBuf {
    let named = std::env::var_os("LLM_CONFIG_AGENT_BIN").map(PathBuf::from);
    let found = named.filter(|path| path.exists());
    found.expect("LLM_CONFIG_AGENT_BIN names no program: tests/run builds llm-edge-agent 0.1.0 and sets it")
}

/// What a load balancer does before two servers: the one that answered last, or else the other.
struct Front {
    servers: [Client; 2],
    preferred: AtomicUsize,
}

impl Front {
    /// The health that one of the servers tells, or why neither did.
    async fn health(&self) -> Result<Value, String> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut refusals = Vec::new();
        for server in [first, 1 - first] {
            match self.servers[server].try_send("GET", "/health", None).await {
                Ok(answer) if answer.status == 200 => {
                    self.preferred.store(server, Ordering::Relaxed);
                    return Ok(answer.json());
                }
                Ok(answer) => refusals.push(format!("{server}: {} {}", answer.status, answer.text())),
                Err(error) => refusals.push(format!("{server}: {error}")),
            }
        }
        Err(refusals.join("; "))
    }
}

/// Requests one after the other until it is told to end.
struct Load {
    over: Arc<AtomicBool>,
    sender: JoinHandle<(usize, Vec<String>)>,
}

impl Load {
    fn start(front: Arc<Front>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let sender = tokio::spawn(async move {
            let (mut answered, mut refused) = (0, Vec::new());
            while !ended.load(Ordering::Relaxed) {
                match front.health().await {
                    Ok(_) => answered += 1,
                    Err(why) => refused.push(why),
                }
            }
            (answered, refused)
        });
        Self { over, sender }
    }

    /// How many requests were answered, and why which were not.
    async fn end(self) -> (usize, Vec<String>) {
        self.over.store(true, Ordering::Relaxed);
        self.sender.await.expect("it does not panic")
    }
}

/// The keys of the agents that run below a process, as their environments have them.
fn keys_below(parent: u32) -> Vec<String> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let environment = |child: &str| fs::read(format!("/proc/{child}/environ")).unwrap_or_default();
    let key_in = |bytes: Vec<u8>| {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.split('\0').find_map(|variable| variable.strip_prefix("OPENAI_API_KEY=").map(str::to_owned))
    };
    children.split_whitespace().map(environment).filter_map(key_in).collect()
}

fn exec(edge: &Edge, ports: [u16; 2], scratch: &Scratch) -> Process {
    let mut command = edge.command();
    command.args(["exec", "--env", ENV, "--var", "OPENAI_API_KEY=llm/keys//openai-api-key"]);
    command.args(["--settle", "100ms", "--splay", "0s"]);
    command.args(["--overlap", "--ready", "http://127.0.0.1:{port}/health"]);
    command.arg("--port-var").arg(format!("PORT={},{}", ports[0], ports[1]));
    command.arg("--").arg(agent());
    // Its metrics have one port for all of its processes, so that a second one could not start.
    command.env("ENABLE_METRICS", "false");
    Process::start(&mut command, "exec", &scratch.path("exec.log"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_an_edge_agent_is_rotated_with_no_request_refused() {
    let scratch = Scratch::new("agent");
    let database = format!("[database]\nurl = \"sqlite:{}\"", scratch.path("hub.sqlite").display());
    let hub = Hub::serve(&scratch, &format!("{database}\n[secrets.rotation]\ncheck_seconds = 1")).await;
    let body = json!({"value": FIRST_KEY, "env": ENV, "secret": true});
    hub.client().put(&entry("llm/keys", "openai-api-key"), body).await.expect(200);
    let token = hub.join_token(json!({"name": "e1", "namespaces": ["llm"], "environments": [ENV]})).await;
    let edge = Edge::join(&scratch, "e1", &token).await;
    let held = entry("llm/keys", "openai-api-key") + "?env=" + ENV;
    edge.client().until(&held, |answer| answer.status == 200).await;

    let addresses = [free_address(), free_address()];
    let mut exec = exec(&edge, addresses.map(|address| address.port()), &scratch);
    let front = Arc::new(Front { servers: addresses.map(Client::tcp), preferred: AtomicUsize::new(0) });
    eventually("the agent answers", async || front.health().await.map_err(|why| why + &exec.tail())).await;
    assert_eq!(front.health().await.unwrap()["providers"]["openai"]["configured"], true);
    assert_eq!(keys_below(exec.id()), [FIRST_KEY]);

    let load = Load::start(Arc::clone(&front));
    let cli = async |args: &[&str]| hub.cli(&scratch, args).await.done();
    let secret = ["llm/keys", "openai-api-key", "--env", ENV];
    cli(&[&["secrets", "plan"], &secret[..], &["--length", "48", "--grace", "1h"]].concat()).await;
    cli(&[&["secrets", "rotate"], &secret[..]].concat()).await;
    let is_retired = |answer: &Answer| answer.json()["rotations"][0]["step"] == "retired";
    let rotation = hub.client().until(ROTATION, is_retired).await.json()["rotations"][0].clone();
    assert_eq!(rotation["why"], "everything that uses the secret uses the new version");
    cli(&["change", "wait", rotation["id"].as_str().unwrap(), "--in-use", "--timeout", "60s"]).await;

    let path = entry("llm/keys", "openai-api-key") + "?reveal=true&env=" + ENV;
    let new_key = hub.client().get(&path).await.expect(200)["value"].as_str().unwrap().to_owned();
    assert_ne!(new_key, FIRST_KEY);
    assert_eq!(keys_below(exec.id()), [new_key.as_str()], "one agent is left, and it has the new key");
    let (answered, refused) = load.end().await;
    assert!(refused.is_empty(), "{} of {answered} were refused: {refused:#?}", refused.len());
    assert!(answered > 0, "somebody asked all the time");
    for log in [exec.log(), edge.log(), hub.log()] {
        assert!(!log.contains(FIRST_KEY) && !log.contains(&new_key), "no log has a key");
    }
    exec.stop();
}
