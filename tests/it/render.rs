//! Render as its users meet it: files from a real edge's values, whole, current, and silent about secrets.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, entry};
use llm_config_tests::hub::Hub;
use llm_config_tests::process::Process;
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;
use serde_json::{Value, json};

const ENV: &str = "development";
const CANARY: &str = "sk-canary-8c31be5407d94f6a";

struct World {
    scratch: Scratch,
    hub: Hub,
    edge: Edge,
}

impl World {
    async fn new(test: &str) -> Self {
        let scratch = Scratch::new(test);
        let hub = Hub::dev(&scratch).await;
        let token = hub.open_token("e1").await;
        let edge = Edge::join_with(&scratch, "e1", &token, &["--offline-restart", "file"]).await;
        let world = Self { scratch, hub, edge };
        world.put("model", json!("one"), false).await;
        world.put("key", json!(CANARY), true).await;
        world
    }

    async fn put(&self, key: &str, value: Value, secret: bool) {
        let body = json!({"value": value, "env": ENV, "secret": secret});
        let written = self.hub.client().put(&entry("app", key), body).await;
        let version = written.expect(200)["version"].clone();
        let arrived = move |answer: &Answer| answer.status == 200 && answer.json()["version"] == version;
        self.edge.client().until(&(entry("app", key) + "?env=" + ENV), arrived).await;
    }

    fn out(&self) -> PathBuf {
        self.scratch.path("app.conf")
    }

    fn content(&self) -> String {
        fs::read_to_string(self.out()).unwrap_or_default()
    }

    fn args(&self, template: &str, more: &[&str]) -> Vec<String> {
        let template = self.scratch.file("app.conf.tmpl", template);
        let [template, out] = [template, self.out()].map(|path| path.to_str().unwrap().to_owned());
        let fixed = ["render", &template, "--out", &out, "--namespace", "app", "--env", ENV];
        fixed.iter().chain(more).map(|arg| (*arg).to_owned()).collect()
    }

    /// Renders once: exit code and stderr.
    async fn render(&self, template: &str, more: &[&str]) -> (i32, String) {
        let args = self.args(template, more);
        let told = self.edge.cli(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert!(!told.out.contains(CANARY) && !told.err.contains(CANARY), "{template}: {}", told.err);
        (told.code, told.err)
    }

    fn watch(&self, template: &str, more: &[&str]) -> Process {
        let mut command = self.edge.command();
        command.args(self.args(template, &["--watch", "--settle", "100ms", "--splay", "0s"])).args(more);
        Process::start(&mut command, "render", &self.scratch.path("render.log"))
    }

    async fn until_content(&self, content: &str) {
        eventually("the file is written", async || {
            let now = self.content();
            if now == content { Ok(()) } else { Err(now) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_holds_what_its_template_says_and_is_for_its_owner_alone() {
    let mut world = World::new("render").await;
    world.put("limits", json!({"rpm": 60, "models": ["a", "b"]}), false).await;
    let template = "# {{ edge.name }}\nmodel={{ config('model') }}\nkey={{ secret('app', 'key')|quote }}\n\
                    {% for model in config('limits').models %}\n- {{ model }}\n{% endfor %}\n\
                    rpm={{ config('app//limits').rpm }} {{ config('absent', default=7) }}\n\
                    {% for name, value in all('app')|items %}\n{{ name }}={{ value|tojson }}\n{% endfor %}\n\
                    {{ all('app', secrets=true)|length }}\n";
    let expected = format!(
        "# e1\nmodel=one\nkey='{CANARY}'\n- a\n- b\nrpm=60 7\n\
         limits={{\"models\":[\"a\",\"b\"],\"rpm\":60}}\nmodel=\"one\"\n3\n"
    );
    let ran = world.scratch.path("ran");
    let command = format!("echo ran >> {}", ran.display());
    assert_eq!(world.render(template, &["--command", &command]).await, (0, String::new()));
    assert_eq!(world.content(), expected);
    let first = fs::metadata(world.out()).unwrap();
    assert_eq!(first.permissions().mode() & 0o777, 0o600);

    world.hub.stop();
    world.edge.stop();
    world.edge.start().await;
    assert_eq!(world.render(template, &["--command", &command]).await, (0, String::new()));
    assert_eq!(
        fs::metadata(world.out()).unwrap().ino(),
        first.ino(),
        "not written again when nothing changed"
    );
    assert_eq!(fs::read_to_string(&ran).unwrap(), "ran\n", "once, for the one change");
    assert_eq!(world.render("model={{ config('model') }}", &["--mode", "0640"]).await.0, 0);
    assert_eq!(fs::metadata(world.out()).unwrap().permissions().mode() & 0o777, 0o640);
    let (code, err) = world.render("{{ config('model') }}!", &["--command", "exit 3"]).await;
    assert!(code == 1 && err.contains("the command failed"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_file_follows_and_a_template_that_fails_keeps_its_last_good_one() {
    let world = World::new("render-watch").await;
    let ran = world.scratch.path("ran");
    let command = format!("cat {} >> {}; echo >> {1}", world.out().display(), ran.display());
    let other = world.scratch.file("other.tmpl", "{{ config('other', default=0) }}");
    let second = world.scratch.path("other.conf");
    let mut render = world.watch("{{ config('model') }}", &["--command", &command]);
    world.until_content("one").await;
    world.put("model", json!("one"), false).await;
    world.put("model", json!("two"), false).await;
    world.until_content("two").await;
    eventually("the command has seen both", async || {
        let seen = fs::read_to_string(&ran).unwrap_or_default();
        if seen == "one\ntwo\n" { Ok(()) } else { Err(seen) }
    })
    .await;

    world.hub.client().delete(&(entry("app", "model") + "?env=" + ENV)).await.expect(204);
    eventually("the failure is told", async || {
        let log = render.log();
        if log.contains("stays as it is: app model was not found for development") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    assert_eq!(world.content(), "two", "never blank");
    world.put("model", json!("three"), false).await;
    world.until_content("three").await;
    assert_eq!(render.stop().code(), None, "ended by the signal");

    let bad = world.scratch.file("bad.tmpl", "{{ config('absent') }}");
    let pairs = [
        format!("{}={}", bad.display(), world.out().display()),
        format!("{}={}", other.display(), second.display()),
    ];
    let told = world.edge.cli(&["render", &pairs[0], &pairs[1], "--namespace", "app", "--env", ENV]).await;
    assert_eq!(told.code, 3, "{}", told.err);
    assert_eq!((world.content().as_str(), fs::read_to_string(&second).unwrap().as_str()), ("three", "0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_is_owed_and_one_that_hangs_is_ended() {
    let world = World::new("render-command").await;
    let (code, err) = world.render("x", &["--command", "sleep 600", "--command-timeout", "100ms"]).await;
    assert!(code == 1 && err.contains("took longer than 0.1 s and was killed"), "{err}");
    assert_eq!(world.content(), "x", "the file is there all the same");
    let gate = world.scratch.path("gate");
    let command = format!("test -e {0} && echo ran >> {0}", gate.display());
    let mut render = world.watch("{{ config('model') }}", &["--command", &command]);
    world.until_content("one").await;
    eventually("the failure is told", async || {
        let log = render.log();
        if log.contains("the command failed") { Ok(()) } else { Err(log) }
    })
    .await;
    fs::write(&gate, "").unwrap();
    // Not what this template reads: the round that follows finds nothing new, and still owes the command.
    world.put("unrelated", json!(1), false).await;
    eventually("the command runs at last", async || {
        let ran = fs::read_to_string(&gate).unwrap();
        if ran == "ran\n" { Ok(()) } else { Err(ran) }
    })
    .await;
    render.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_of_a_template_tells_a_value() {
    let world = World::new("render-canary").await;
    assert_eq!(world.render("last good", &[]).await.0, 0);
    for template in [
        "{{ secret('key')|nosuch }}",
        "{{ secret('key') is nosuch }}",
        "{{ secret('key').nosuch() }}",
        "{{ secret('key')() }}",
        "{{ secret('key') + 1 }}",
        "{{ -secret('key') }}",
        "{{ secret('key')|int }}",
        "{{ secret('key')|round }}",
        "{{ secret('key')|tojson(secret('key')) }}",
        "{{ secret('key').a.b }}",
        "{{ {}[secret('key')] }}",
        "{{ range(secret('key')) }}",
        "{{ config(secret('key')) }}",
        "{{ config(secret('key'), 'model') }}",
        "{{ config('app', secret('key')) }}",
        "{{ config('no such key', secret('key')) }}",
        "{{ config('model', **{secret('key'): 1}) }}",
        "{{ all(secret('key')) }}",
        "{{ all(secret('key') ~ '//') }}",
        "{% for x in secret('key') %}{{ x.y.z }}{% endfor %}",
        "{% set x = secret('key') %}{{ absent }}",
        "{{ dict(secret('key')) }}",
        "{{ secret('key') ~ ",
        "{{ secret('key')|replace(1) }}",
        "{% for x in range(100000) %}{% for y in range(100000) %}{{ secret('key') }}{% endfor %}{% endfor %}",
        "{{ config('key') }}",
        "{{ debug() }}",
        "{% include secret('key') %}",
    ] {
        let (code, err) = world.render(template, &[]).await;
        assert!(code != 0 && err.starts_with("llm-config: "), "{template}: {code} {err}");
        assert_eq!(world.content(), "last good", "{template}");
    }
    let (code, err) = world.render("\n{{ config('absent') }}", &[]).await;
    assert_eq!(code, 3);
    assert!(err.contains("app absent was not found for development (line 2 of app.conf.tmpl)"), "{err}");
    let (_, err) = world.render("{{ config(secret('key')) }}", &[]).await;
    assert!(err.contains("a name that the template computes was not found"), "{err}");
    assert!(!world.edge.log().contains(CANARY) && !world.hub.log().contains(CANARY));
}
