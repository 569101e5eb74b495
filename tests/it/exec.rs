//! Exec as its users meet it: a real process with values from a real edge, while values change and parts go away.

use std::fs;
use std::path::Path;

use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, entry};
use llm_config_tests::hub::Hub;
use llm_config_tests::process::Process;
use llm_config_tests::scratch::{Scratch, files_with};
use llm_config_tests::wait::eventually;
use serde_json::{Value, json};

const ENV: &str = "development";
/// Changes are acted on as soon as they have settled.
const PROMPT: [&str; 4] = ["--settle", "100ms", "--splay", "0s"];
const API_TOKEN: &str = "not-for-the-child";
/// Says that it started, and with what; goes on until it is told to end.
const SERVER: &str = r#"echo "start $MODEL $$" >> "$OUT"; trap 'echo "end $$" >> "$OUT"; exit 0' TERM
    trap 'echo hup >> "$OUT"' HUP; trap 'echo usr1 >> "$OUT"' USR1
    while :; do sleep 0.05; done"#;

struct World {
    scratch: Scratch,
    hub: Hub,
    edge: Edge,
}

impl World {
    /// A hub and an edge that has these entries of `app`.
    async fn new(test: &str, entries: &[(&str, Value)]) -> Self {
        let scratch = Scratch::new(test);
        let hub = Hub::dev(&scratch).await;
        let edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
        let world = Self { scratch, hub, edge };
        for (key, value) in entries {
            world.set(key, value.clone()).await;
        }
        world
    }

    async fn put(&self, key: &str, value: &Value, secret: bool) {
        let body = json!({"value": value, "env": ENV, "secret": secret});
        let written = self.hub.client().put(&entry("app", key), body).await;
        let version = written.expect(200)["version"].clone();
        let arrived = move |answer: &Answer| answer.status == 200 && answer.json()["version"] == version;
        self.edge.client().until(&(entry("app", key) + "?env=" + ENV), arrived).await;
    }

    async fn set(&self, key: &str, value: Value) {
        self.put(key, &value, false).await;
    }

    /// Starts exec in the background, with the server above and where it writes what happens to it.
    fn start(&self, args: &[&str]) -> Running {
        self.start_script(args, SERVER)
    }

    fn start_script(&self, args: &[&str], script: &str) -> Running {
        let out = self.scratch.path("out");
        let mut command = self.edge.command();
        command.arg("exec").args(["--namespace", "app", "--env", ENV]).args(PROMPT).args(args);
        command.args(["--", "sh", "-c", script]).env("OUT", &out).env("LLM_CONFIG_TOKEN", API_TOKEN);
        let log = self.scratch.path("exec.log");
        Running { process: Process::start(&mut command, "exec", &log), out }
    }

    /// Runs exec to its end with a script.
    async fn run(&self, args: &[&str], script: &str) -> (i32, String, String) {
        let exec = ["exec", "--namespace", "app", "--env", ENV];
        let told = self.edge.cli(&[&exec, args, &["--", "sh", "-c", script]].concat()).await;
        (told.code, told.out, told.err)
    }

    /// How often a namespace was listed at the edge, which only exec does here.
    async fn lists(&self) -> u64 {
        let metrics = self.edge.client().get("/metrics").await.text();
        let is_list = |line: &&str| line.starts_with("config_operations_total") && line.contains("\"list\"");
        let counts = metrics.lines().filter(is_list);
        counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }
}

struct Running {
    process: Process,
    out: std::path::PathBuf,
}

impl Running {
    /// What the children wrote, without their numbers.
    fn lines(&self) -> Vec<String> {
        let cut = |line: &str| line.trim_end_matches(|c: char| c.is_ascii_digit()).trim().to_owned();
        fs::read_to_string(&self.out).unwrap_or_default().lines().map(cut).collect()
    }

    async fn until(&mut self, wanted: &[&str]) {
        eventually("the children write what they should", async || {
            if let Some(status) = self.process.ended() {
                panic!("exec ended with {status}: {}\n{:?}", self.process.tail(), self.lines());
            }
            let lines = self.lines();
            if lines == wanted { Ok(()) } else { Err(lines) }
        })
        .await;
    }

    /// The number of the last process that started.
    fn child(&self) -> u32 {
        let text = fs::read_to_string(&self.out).unwrap();
        let line = text.lines().rfind(|line| line.starts_with("start")).expect("one started");
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_at_the_hub_restarts_the_process_and_an_equal_value_does_not() {
    let world = World::new("exec-change", &[("model", json!("one"))]).await;
    let mut exec = world.start(&[]);
    exec.until(&["start one"]).await;
    let first = exec.child();

    // The first reading that is waited for may be one that came before the write; the last is not.
    for _ in 0..3 {
        let before = world.lists().await;
        world.set("model", json!("one")).await;
        eventually("exec reads again", async || {
            let now = world.lists().await;
            if now > before { Ok(()) } else { Err(now) }
        })
        .await;
    }
    world.set("model", json!("two")).await;
    exec.until(&["start one", "end", "start two"]).await;
    assert!(!Path::new(&format!("/proc/{first}")).exists(), "the old one is gone, and no zombie");

    world.hub.client().delete(&(entry("app", "model") + "?env=" + ENV)).await.expect(204);
    eventually("the loss is told", async || {
        let log = exec.process.log();
        if log.contains("app model is gone; its last value is kept") { Ok(()) } else { Err(log) }
    })
    .await;
    world.set("model", json!("three")).await;
    exec.until(&["start one", "end", "start two", "end", "start three"]).await;
    assert_eq!(exec.process.stop().code(), Some(0));
    assert_eq!(exec.lines().last().unwrap(), "end");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_hub_and_then_without_the_edge_the_process_has_its_values() {
    let mut world = World::new("exec-offline", &[("model", json!("one"))]).await;
    world.hub.stop();
    world.edge.stop();
    let (code, _, err) = world.run(&[], "echo started").await;
    assert_eq!(code, 6, "{err}");
    let mut exec = world.start(&["--wait", "60s"]);
    world.edge.start().await;
    exec.until(&["start one"]).await;
    let child = exec.child();
    world.edge.kill();
    world.hub.start().await;
    world.edge.start().await;
    world.set("model", json!("two")).await;
    exec.until(&["start one", "end", "start two"]).await;
    assert_ne!(exec.child(), child);
    assert_eq!(exec.process.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_become_variables_by_the_rule_and_by_name() {
    let entries = [
        ("db.url", json!("postgres://h/d")),
        ("max-tokens", json!(9007199254740993_i64)),
        ("on", json!(true)),
        ("list", json!(["a", {"b": 1}])),
        ("nothing", Value::Null),
        ("empty", json!("")),
    ];
    let world = World::new("exec-variables", &entries).await;
    let script =
        r#"echo "$DB_URL|$MAX_TOKENS|$ON|$LIST|${NOTHING-unset}|${EMPTY-unset}|${LLM_CONFIG_TOKEN-unset}""#;
    let (code, out, err) = world.run(&[], script).await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out.trim(), r#"postgres://h/d|9007199254740993|true|["a",{"b":1}]|unset||unset"#);
    let named = ["--var", "URL=app//db.url", "--var", "ABSENT?=absent"];
    let (_, out, _) = world.run(&named, r#"echo "$URL ${DB_URL-unset} ${ABSENT-unset}""#).await;
    assert_eq!(out.trim(), "postgres://h/d unset unset");

    let (code, out, err) = world.run(&["--var", "A=absent", "--var", "B=gone"], "echo started").await;
    assert_eq!((code, out.as_str()), (3, ""), "nothing was started");
    assert!(err.contains("app absent, app gone not found for development; nothing was started"), "{err}");
    world.set("db-url", json!("a second one")).await;
    let (code, out, err) = world.run(&[], "echo started").await;
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("db-url and db.url would both be DB_URL"), "{err}");
    let nothing = world.edge.cli(&["exec", "-n", "app/none", "-e", ENV, "--", "echo", "started"]).await;
    assert_eq!((nothing.code, nothing.out.as_str()), (3, ""), "{}", nothing.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_signals_pass_through() {
    let world = World::new("exec-codes", &[("model", json!("one"))]).await;
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -SEGV $$", 139)] {
        assert_eq!(world.run(&[], script).await.0, code, "{script}");
    }
    let absent = world.edge.cli(&["exec", "-n", "app", "-e", ENV, "--", "no-such-program"]).await;
    assert_eq!(absent.code, 127, "{}", absent.err);
    let folder = world.edge.cli(&["exec", "-n", "app", "-e", ENV, "--", "/"]).await;
    assert_eq!(folder.code, 126, "{}", folder.err);

    let mut exec = world.start(&["--on-change", "signal:HUP"]);
    exec.until(&["start one"]).await;
    exec.process.signal("USR1");
    exec.until(&["start one", "usr"]).await;
    world.set("model", json!("two")).await;
    exec.until(&["start one", "usr", "hup"]).await;
    assert_eq!(exec.process.stop().code(), Some(0));
    assert_eq!(exec.lines(), ["start one", "usr", "hup", "end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_is_killed_and_nothing_outlives_exec() {
    let world = World::new("exec-kill", &[("model", json!("one"))]).await;
    let stubborn = r#"trap '' TERM; echo "start $$" >> "$OUT"; while :; do sleep 0.05; done"#;
    let mut exec = world.start_script(&["--kill-after", "200ms"], stubborn);
    exec.until(&["start"]).await;
    let status = exec.process.stop();
    assert_eq!(status.code(), Some(137), "128 and the number of SIGKILL");

    fs::remove_file(&exec.out).unwrap();
    let mut exec = world.start(&[]);
    exec.until(&["start one"]).await;
    let child = format!("/proc/{}/cmdline", exec.child());
    assert!(!fs::read(&child).unwrap().is_empty());
    exec.process.kill();
    eventually("the child ends with exec", async || match fs::read(&child) {
        Ok(line) if !line.is_empty() => Err("it is still there"),
        _ => Ok(()),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashing_process_is_started_again_only_when_asked() {
    let world = World::new("exec-crash", &[("model", json!("one"))]).await;
    let counter = world.scratch.path("counter");
    let script = format!(r#"echo x >> {0}; [ $(wc -l < {0}) -ge 3 ] || exit 5"#, counter.display());
    assert_eq!(world.run(&[], &script).await.0, 5, "by default it ends with its process");
    let (code, _, err) = world.run(&["--restart", "on-failure", "--backoff", "20ms"], &script).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(fs::read_to_string(&counter).unwrap().lines().count(), 3);
    assert_eq!(err.matches("ended with exit code 5; starting it again").count(), 1, "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_the_old_process_ends_only_when_the_new_one_is_ready() {
    let world = World::new("exec-overlap", &[("model", json!("one"))]).await;
    let ready = r#"test -e "$OUT-{port}""#;
    let args = [
        "--overlap",
        "--ready",
        ready,
        "--ready-within",
        "2s",
        "--port-var",
        "PORT=1,2",
        "--port-var",
        "OTHER=3,4",
    ];
    let server = SERVER.replace("start $MODEL", "start $MODEL $PORT$OTHER:");
    let mut exec = world.start_script(
        &args,
        &server.replace("; trap", r#"; [ "$MODEL" = two ] || touch "$OUT-$PORT"; trap"#),
    );
    exec.until(&["start one 13:"]).await;
    world.set("model", json!("two")).await;
    exec.until(&["start one 13:", "start two 24:", "end"]).await;
    assert!(exec.process.log().contains("the one with the old values goes on"), "{}", exec.process.log());
    world.set("model", json!("three")).await;
    exec.until(&["start one 13:", "start two 24:", "end", "start three 24:", "end"]).await;
    assert_eq!(exec.process.stop().code(), Some(0));
    assert_eq!(exec.lines().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_in_the_environment_of_the_process_and_nowhere_else() {
    const CANARY: &str = "sk-canary-5d1f0c77a9e24b1c";
    let world = World::new("exec-canary", &[("model", json!("one"))]).await;
    world.put("provider.key", &json!(CANARY), true).await;
    let server = SERVER.replace("start $MODEL", "start ${#PROVIDER_KEY}");
    let mut exec = world.start_script(&[], &server);
    exec.until(&[&format!("start {}", CANARY.len())]).await;
    let child = exec.child();
    let has = |path: &Path, text: &str| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    let holds = |path: &Path| has(path, CANARY);
    let own = format!("/proc/{child}/environ");
    assert!(holds(Path::new(&own)), "the child has it");
    assert!(!has(Path::new(&own), API_TOKEN), "and not what exec asks with");
    for process in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let number = process.file_name().to_string_lossy().parse::<u32>();
        let Ok(number) = number else { continue };
        assert!(!holds(&process.path().join("cmdline")), "cmdline of {number}");
        // What the child itself starts inherits its environment.
        let is_from_child = fs::read_to_string(process.path().join("stat")).is_ok_and(|stat| {
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.split(' ').nth(1) == Some(&child.to_string()))
        });
        assert!(
            number == child || is_from_child || !holds(&process.path().join("environ")),
            "environ of {number}"
        );
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", exec.process.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "no core dumps: {core}");

    world.put("provider.key", &json!(format!("{CANARY}\0")), true).await;
    eventually("it is told that no variable can hold it", async || {
        let log = exec.process.log();
        if log.contains("app provider.key holds a zero byte") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(exec.process.stop().code(), Some(0));
    assert!(!exec.process.log().contains(CANARY));
    assert_eq!(files_with(&world.scratch.path(""), CANARY), [] as [std::path::PathBuf; 0]);
}
