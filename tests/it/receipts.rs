//! Who has a change and who uses it: real edges with a process, a rendered file and a client, and one that is away.

use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, entry};
use llm_config_tests::hub::Hub;
use llm_config_tests::process::{Process, Said};
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;
use serde_json::{Value, json};

const ENV: &str = "production";
const PROMPT: [&str; 4] = ["--settle", "100ms", "--splay", "0s"];

struct World {
    scratch: Scratch,
    hub: Hub,
}

impl World {
    async fn new(test: &str) -> Self {
        let scratch = Scratch::new(test);
        let hub = Hub::dev(&scratch).await;
        Self { scratch, hub }
    }

    async fn edge(&self, name: &str, namespaces: &[&str]) -> Edge {
        let body = json!({"name": name, "namespaces": namespaces, "environments": [ENV], "write": [format!("edges/{name}")]});
        Edge::join(&self.scratch, name, &self.hub.join_token(body).await).await
    }

    /// Sets an entry at the hub; the change's id.
    async fn set(&self, namespace: &str, key: &str, value: &str, secret: bool) -> String {
        let body = json!({"value": value, "env": ENV, "secret": secret});
        let answer = self.hub.client().put(&entry(namespace, key), body).await;
        answer.expect(200);
        answer.header("x-config-change").unwrap().to_owned()
    }

    async fn receipts(&self, change: &str) -> Value {
        self.hub.client().get(&format!("/api/v1/changes/{change}/receipts")).await.expect(200)
    }

    /// What one edge has of a change.
    async fn of(&self, change: &str, edge: &str) -> Option<Value> {
        let receipts = self.receipts(change).await;
        receipts["edges"].as_array().unwrap().iter().find(|found| found["edge"] == edge).cloned()
    }

    async fn until(&self, change: &str, what: &str, wanted: impl Fn(&Value) -> bool) {
        eventually(what, async || {
            let receipts = self.receipts(change).await;
            if wanted(&receipts) { Ok(()) } else { Err(receipts.to_string()) }
        })
        .await;
    }

    async fn wait(&self, change: &str, more: &[&str]) -> Said {
        self.hub.cli(&self.scratch, &[&["change", "wait", change], more].concat()).await
    }
}

fn exec(world: &World, edge: &Edge) -> Process {
    let mut command = edge.command();
    command.args(["exec", "--env", ENV, "--var", "KEY=app//key"]).args(PROMPT);
    // It waits for its signal where the shell cannot put it off.
    command.args(["--", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"]);
    Process::start(&mut command, "exec", &world.scratch.path("exec.log"))
}

fn render(world: &World, edge: &Edge, command_line: &str) -> Process {
    let template = world.scratch.file("app.tmpl", "key={{ secret('app', 'key') }}\n");
    let mut command = edge.command();
    command.arg("render").arg(template).arg("--out").arg(world.scratch.path("app.conf"));
    command.args(["--env", ENV, "--watch", "--command", command_line]).args(PROMPT);
    Process::start(&mut command, "render", &world.scratch.path("render.log"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_is_in_use_when_every_process_and_file_has_it() {
    let world = World::new("receipts").await;
    let first = world.set("app", "key", "sk-1", true).await;
    let one = world.edge("one", &["app"]).await;
    let two = world.edge("two", &["app"]).await;
    let mut away = world.edge("away", &["app"]).await;
    let _other = world.edge("other", &["elsewhere"]).await;
    let told = world.wait(&first, &["--timeout", "60s"]).await.done();
    for edge in ["one", "two", "away"] {
        assert!(told.contains(&format!("{edge}: has it")), "{told}");
    }
    assert!(!told.contains("other:"), "what is not subscribed is not counted: {told}");

    // Nobody has said that they use it: that proves nothing.
    let said = world.wait(&first, &["--in-use", "--timeout", "1s"]).await;
    assert!(
        said.code == 5 && said.err.contains("nothing at any edge says that it uses"),
        "{}{}",
        said.out,
        said.err
    );
    let mut running = exec(&world, &one);
    let _rendering = render(&world, &two, "true");
    world.wait(&first, &["--in-use", "--timeout", "60s"]).await.done();

    away.stop();
    let second = world.set("app", "key", "sk-2", true).await;
    world
        .until(&second, "the new key is in use where somebody is there", |receipts| {
            let edges = receipts["edges"].as_array().unwrap();
            edges.iter().filter(|edge| edge["in_use"] == true).count() == 2
        })
        .await;
    let said = world.wait(&second, &["--in-use", "--timeout", "1s"]).await;
    assert_eq!(said.code, 5, "{}{}", said.out, said.err);
    assert!(said.err.contains("missing: away: has not got it, offline since 20"), "{}", said.err);
    assert!(said.out.contains("one: has it, in use by exec sh"), "{}", said.out);
    assert!(said.out.contains("two: has it, in use by render "), "{}", said.out);
    assert!(!said.out.contains("sk-") && !said.err.contains("sk-"));

    away.start().await;
    world.wait(&second, &["--in-use", "--timeout", "60s"]).await.done();
    let shown = world.hub.cli(&world.scratch, &["change", "show", &second]).await.done();
    assert!(shown.contains("3 of 3 edges have it") && shown.contains("in use by exec sh"), "{shown}");

    // A process that ends uses nothing any more.
    assert_eq!(running.stop().code(), Some(0));
    world
        .until(&second, "the process is gone", |receipts| {
            let one =
                receipts["edges"].as_array().unwrap().iter().find(|edge| edge["edge"] == "one").unwrap();
            one["consumers"].as_array().unwrap().is_empty()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_take_a_value_over_still_uses_the_old_one() {
    let world = World::new("receipts-old").await;
    let first = world.set("app", "key", "sk-1", true).await;
    let edge = world.edge("one", &["app"]).await;
    world.wait(&first, &[]).await.done();
    // The command succeeds once, and never again.
    let flag = world.scratch.path("flag");
    let line = format!("test ! -e {0} && touch {0}", flag.display());
    let _rendering = render(&world, &edge, &line);
    world.wait(&first, &["--in-use", "--timeout", "60s"]).await.done();
    let second = world.set("app", "key", "sk-2", true).await;
    world.wait(&second, &[]).await.done();
    let said = world.wait(&second, &["--in-use", "--timeout", "2s"]).await;
    assert!(
        said.code == 5 && said.err.contains("still uses version 1 of app key"),
        "{}{}",
        said.out,
        said.err
    );
    std::fs::remove_file(&flag).unwrap();
    // Writing the same again changes neither the file nor what is owed.
    world.set("app", "other", "x", false).await;
    world.wait(&second, &["--in-use", "--timeout", "60s"]).await.done();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_confirms_by_itself_and_what_it_said_outlives_the_edge() {
    let world = World::new("receipts-client").await;
    let change = world.set("app", "limit", "10", false).await;
    let mut edge = world.edge("one", &["app"]).await;
    let at = entry("app", "limit") + "?env=" + ENV;
    edge.client().until(&at, |answer: &Answer| answer.status == 200).await;
    let say = |version: u64| {
        let used = json!({"namespace": "app", "key": "limit", "environment": ENV, "version": version});
        json!({"consumer": "my-agent", "lasting": true, "entries": [used]})
    };
    edge.client().post("/api/v1/edge/uses", say(1)).await.expect(204);
    world.wait(&change, &["--in-use", "--timeout", "60s"]).await.done();
    let second = world.set("app", "limit", "20", false).await;
    world.wait(&second, &[]).await.done();
    edge.kill();
    edge.start().await;
    let old = world.of(&second, "one").await.unwrap();
    assert_eq!(
        (&old["consumers"][0]["consumer"], &old["consumers"][0]["uses_version"]),
        (&json!("my-agent"), &json!(1))
    );
    edge.client().post("/api/v1/edge/uses", say(2)).await.expect(204);
    world.wait(&second, &["--in-use", "--timeout", "60s"]).await.done();

    // Only the edge itself speaks of what is used there, and only in the form that is asked for.
    let report = json!({"complete": true, "consumers": []});
    world.hub.client().put("/api/v1/uses", report).await.expect(403);
    let refused = edge.client().post("/api/v1/edge/uses", json!({"consumer": "", "entries": []})).await;
    assert_eq!(refused.expect(422)["details"]["field"], "consumer");
    edge.client().post("/api/v1/edge/uses", json!({"consumer": "x", "entries": [1]})).await.expect(400);
    world.hub.client().get("/api/v1/changes/0f5a6f6e-53a5-5c34-8c6e-2d9f1f0b7a42/receipts").await.expect(404);
}
