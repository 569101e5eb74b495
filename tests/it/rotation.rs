//! Rotation of secrets as its users meet it: by a plan, by a command, and through the death of the hub at every step.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Answer, entry};
use llm_config_tests::hub::{Database, Hub};
use llm_config_tests::process::Process;
use llm_config_tests::scratch::Scratch;
use llm_config_tests::strace::Injection;
use llm_config_tests::wait::eventually;
use serde_json::{Value, json};

mod webhook;

use webhook::a_service_makes_the_new_value;

const FIRST: &str = "first-value-9c1e52";

on_both_databases! {
    a_secret_is_rotated_by_its_plan_and_the_old_version_retires,
    a_command_makes_the_new_value,
    what_a_lost_edge_could_read_is_replaced_by_its_plan,
    a_service_makes_the_new_value,
}

fn tables(scratch: &Scratch, database: Database) -> String {
    match database {
        Database::Sqlite => format!("[database]\nurl = \"sqlite:{}\"", scratch.path("hub.sqlite").display()),
        Database::Postgres => format!("[database]\nurl = \"{}\"", llm_config_tests::postgres::database()),
    }
}

async fn set(hub: &Hub, key: &str, body: Value) {
    hub.client().put(&(entry("app", key) + "?env=base"), body).await.expect(200);
}

fn at(what: &str) -> String {
    format!("/api/v1/secrets/app/key/{what}?env=base")
}

async fn revealed(hub: &Hub, more: &str) -> Value {
    let path = format!("{}?env=base&reveal=true{more}", entry("app", "key"));
    hub.client().get(&path).await.expect(200)["value"].clone()
}

/// The rotations, once the last of them has come so far.
async fn until_step(hub: &Hub, step: &str) -> Vec<Value> {
    let reached = |answer: &Answer| answer.status == 200 && answer.json()["rotations"][0]["step"] == step;
    hub.client().until(&at("rotation"), reached).await.json()["rotations"].as_array().unwrap().clone()
}

async fn a_secret_is_rotated_by_its_plan_and_the_old_version_retires(database: Database) {
    let scratch = Scratch::new("rotation");
    let hub = Hub::serve(
        &scratch,
        &format!("{}\n[secrets.rotation]\ncheck_seconds = 1", tables(&scratch, database)),
    )
    .await;
    set(&hub, "key", json!({"value": FIRST, "secret": true})).await;
    assert!(hub.client().post(&at("rotate"), json!({})).await.refusal(409).contains("secrets plan"));
    let cli = async |args: &[&str]| hub.cli(&scratch, &[&["secrets"], args].concat()).await;
    cli(&["plan", "app", "key", "--env", "base", "--length", "40", "--grace", "1h"]).await.done();
    every_plan_is_listed(&hub, &scratch).await;
    let said = cli(&["rotate", "app", "key", "--env", "base"]).await.done();
    assert!(said.contains("version 2 is written; version 1 is kept"), "{said}");
    let rotations = until_step(&hub, "written").await;
    assert_eq!((&rotations[0]["old_version"], &rotations[0]["new_version"]), (&json!(1), &json!(2)));
    let new = revealed(&hub, "").await;
    assert!(new.as_str().unwrap().len() == 40 && new != FIRST);
    assert_eq!(revealed(&hub, "&version=1").await, FIRST, "both are readable");

    // It is an ordinary change, with who made it.
    let history = hub.client().get(&(entry("app", "key") + "/history?env=base")).await.expect(200);
    assert_eq!((&history[0]["created_by"], &history[0]["change"]), (&json!("rotation"), &rotations[0]["id"]));
    assert_eq!(history[0]["claimed_user"], "token:admin");

    // It retires when everything that uses it uses the new version.
    let edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    edge.client().until(&(entry("app", "key") + "?env=base"), |answer| answer.status == 200).await;
    let mut command = edge.command();
    command.args([
        "exec",
        "--env",
        "base",
        "--var",
        "KEY=app//key",
        "--settle",
        "100ms",
        "--splay",
        "0s",
        "--",
    ]);
    command.args(["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"]);
    let _running = Process::start(&mut command, "exec", &scratch.path("exec.log"));
    let rotations = until_step(&hub, "retired").await;
    assert_eq!(rotations[0]["why"], "everything that uses the secret uses the new version");
    cli(&["rotate", "app", "key", "--env", "base"]).await.done();
    assert_eq!(until_step(&hub, "retired").await[0]["new_version"], 3);

    // Or when its time is over, or by hand.
    set(&hub, "key", json!({"value": "by hand", "secret": true})).await;
    hub.client().put(&at("rotation"), json!({"generate": {}, "grace": "1h"})).await.expect(200);
    drop(edge);
    set(&hub, "other", json!({"value": FIRST, "secret": true})).await;
    let other = "/api/v1/secrets/app/other/";
    let plan = json!({"generate": {"length": 16, "alphabet": "0123456789"}, "grace": "1h"});
    hub.client().put(&format!("{other}rotation?env=base"), plan).await.expect(200);
    hub.client().post(&format!("{other}rotate?env=base"), json!({})).await.expect(202);
    let written = |answer: &Answer| answer.json()["rotations"][0]["step"] == "written";
    hub.client().until(&format!("{other}rotation?env=base"), written).await;
    let retired = hub.client().post(&format!("{other}retire?env=base"), json!({})).await.expect(200);
    assert_eq!((&retired["step"], &retired["why"]), (&json!("retired"), &json!("token:admin said so")));
    hub.client().post(&format!("{other}retire?env=base"), json!({})).await.expect(409);
    hub.client()
        .put(&format!("{other}rotation?env=base"), json!({"generate": {}, "grace": "0s"}))
        .await
        .expect(200);
    hub.client().post(&format!("{other}rotate?env=base"), json!({})).await.expect(202);
    let over = |answer: &Answer| answer.json()["rotations"][0]["why"] == "the grace period is over";
    hub.client().until(&format!("{other}rotation?env=base"), over).await;
    assert!(!hub.log().contains(FIRST));
}

async fn what_a_lost_edge_could_read_is_replaced_by_its_plan(database: Database) {
    let scratch = Scratch::new("rotation-lost");
    let hub = Hub::serve(
        &scratch,
        &format!("{}\n[secrets.rotation]\ncheck_seconds = 1", tables(&scratch, database)),
    )
    .await;
    for key in ["key", "by-hand", "other"] {
        set(&hub, key, json!({"value": FIRST, "secret": true})).await;
    }
    hub.client().put(&at("rotation"), json!({"generate": {}, "grace": "1h"})).await.expect(200);
    let edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    edge.client().until(&(entry("app", "key") + "?env=base"), |answer| answer.status == 200).await;
    assert_eq!(revealed(&hub, "&version=1").await, FIRST, "a plan alone replaces nothing");

    hub.cli(&scratch, &["fleet", "lost", "e1"]).await.done();
    let rotations = until_step(&hub, "written").await;
    assert_eq!((rotations.len(), &rotations[0]["by"]), (1, &json!("loss of edge e1")));
    assert_ne!(revealed(&hub, "").await, FIRST);
    let exposed = hub.cli(&scratch, &["fleet", "exposed", "--json"]).await.done();
    let exposed: Value = serde_json::from_str(&exposed).unwrap();
    let state = |secret: &Value| {
        (secret["key"].as_str().unwrap().to_owned(), secret["rotated"] == true, secret["planned"] == true)
    };
    let states: Vec<_> = exposed.as_array().unwrap().iter().map(state).collect();
    let expected = [("by-hand", false, false), ("other", false, false), ("key", true, true)];
    assert_eq!(states, expected.map(|(key, rotated, planned)| (key.to_owned(), rotated, planned)));

    // A plan that comes later takes up what still waits, and only that.
    let by_hand = "/api/v1/secrets/app/by-hand/rotation?env=base";
    hub.client().put(by_hand, json!({"generate": {}, "grace": "1h"})).await.expect(200);
    let is_written = |answer: &Answer| answer.json()["rotations"][0]["step"] == "written";
    hub.client().until(by_hand, is_written).await;
    assert_eq!(until_step(&hub, "written").await.len(), 1, "it is replaced once");
}

/// Beside the plan of `app key`, which is by hand.
async fn every_plan_is_listed(hub: &Hub, scratch: &Scratch) {
    set(hub, "timed", json!({"value": FIRST, "secret": true})).await;
    let timed = "/api/v1/secrets/app/timed/rotation?env=base";
    hub.client().put(timed, json!({"generate": {}, "every_days": 90})).await.expect(200);
    let listed = hub.client().get("/api/v1/secrets/rotations").await.expect(200);
    let history = hub.client().get(&(entry("app", "timed") + "/history?env=base")).await.expect(200);
    let written = history[0]["created_at"].as_str().unwrap();
    let due = listed[0]["due_at"].as_str().unwrap();
    assert_eq!((&listed[0]["key"], &listed[1]["key"]), (&json!("timed"), &json!("key")));
    assert!(due > written && listed[1]["due_at"].is_null() && listed[0]["last"].is_null(), "{listed}");
    let said = hub.cli(scratch, &["secrets", "rotations"]).await.done();
    assert!(said.contains("app timed") && said.contains(due) && said.contains("when asked for"), "{said}");
    hub.client().delete(timed).await.expect(204);
    assert_eq!(hub.client().get("/api/v1/secrets/rotations").await.expect(200).as_array().unwrap().len(), 1);
}

fn script(scratch: &Scratch, text: &str) -> PathBuf {
    let path = scratch.file("make.sh", &format!("#!/bin/sh\n{text}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path
}

async fn a_command_makes_the_new_value(database: Database) {
    let scratch = Scratch::new("command");
    let out = scratch.path("heard");
    let make = script(&scratch, &format!("cat > {0}; env > {0}.env; echo made-by-command", out.display()));
    let commands = format!(
        "[secrets.rotation]\ncheck_seconds = 1\n[secrets.rotation.commands]\nmake = \"{}\"",
        make.display()
    );
    let hub = Hub::serve(&scratch, &format!("{}\n{commands}", tables(&scratch, database))).await;
    set(&hub, "key", json!({"value": FIRST, "secret": true})).await;
    let plan = json!({"command": "make", "old_value": true});
    assert!(hub.client().put(&at("rotation"), json!({"command": "rm"})).await.refusal(422).contains("rm"));
    hub.client().put(&at("rotation"), plan).await.expect(200);
    hub.client().post(&at("rotate"), json!({})).await.expect(202);
    let rotations = until_step(&hub, "written").await;
    assert_eq!(revealed(&hub, "").await, "made-by-command");
    let heard: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    assert_eq!((&heard["old_value"], &heard["key"]), (&json!(FIRST), &json!("key")));
    assert_eq!(heard["rotation"], rotations[0]["id"]);
    let environment = fs::read_to_string(format!("{}.env", out.display())).unwrap();
    assert!(!environment.contains(FIRST) && !environment.contains("LLM_CONFIG"), "{environment}");

    // A command that fails is tried again later and changes nothing; a value that is none of its type is not written.
    script(&scratch, "echo canary-said >&2; exit 3");
    hub.client().post(&at("rotate"), json!({})).await.expect(202);
    let failed = |answer: &Answer| {
        let why = answer.json()["rotations"][0]["why"].as_str().unwrap_or_default().to_owned();
        why.contains("the command make failed: exit status: 3")
    };
    hub.client().until(&at("rotation"), failed).await;
    assert_eq!(revealed(&hub, "").await, "made-by-command");
    hub.client().post(&at("rotate"), json!({})).await.expect(409);
    assert!(!hub.log().contains("canary-said") && !hub.log().contains(FIRST));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_was_cut_at_any_step_is_completed_once() {
    let scratch = Scratch::new("rotation-kills");
    let settings = format!("{}\n[secrets.rotation]\ncheck_seconds = 1", tables(&scratch, Database::Sqlite));
    let mut hub = Hub::serve(&scratch, &settings).await;
    set(&hub, "key", json!({"value": FIRST, "secret": true})).await;
    hub.client().put(&at("rotation"), json!({"generate": {}, "grace": "0s"})).await.expect(200);
    cut_at_every_step(&mut hub).await;
}

/// The hub dies at one durable write after another, from the one that begins the rotation on, and is started again:
/// whatever it had written down, one new version comes of it and no more. Gives the rotations.
async fn cut_at_every_step(hub: &mut Hub) -> Vec<Value> {
    let (mut rotated, mut died, mut survived) = (Vec::new(), 0, 0);
    for nth in 1..=8 {
        hub.stop();
        hub.injection = Some(Injection::kill("fdatasync,fsync", nth));
        hub.launch();
        // Whether it lives to answer is chance: what counts is what it wrote down.
        let asked = eventually("the hub answers or is gone", async || {
            let answer = hub.client().try_send("POST", &at("rotate"), Some(json!({}))).await;
            match answer {
                Ok(answer) if answer.status == 503 => Err(answer.text()),
                Ok(answer) => Ok(Some(answer.status)),
                Err(_) if hub.ended() => Ok(None),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        let gone = eventually("the hub is gone, or has nothing more to write", async || {
            if hub.ended() {
                return Ok(true);
            }
            let state = hub
                .client()
                .try_send("GET", &at("rotation"), None)
                .await
                .map_err(|error| error.to_string())?;
            let last = state.json()["rotations"][0]["step"].clone();
            if last == "retired" { Ok(false) } else { Err(last.to_string()) }
        })
        .await;
        (died, survived) = if gone { (died + 1, survived) } else { (died, survived + 1) };
        hub.kill();
        hub.injection = None;
        hub.start().await;
        let rotations = eventually("what was begun is over", async || {
            let state = hub.client().get(&at("rotation")).await.json();
            let rotations = state["rotations"].as_array().unwrap().clone();
            let over = rotations.iter().all(|rotation| rotation["step"] == "retired");
            if over { Ok(rotations) } else { Err(state.to_string()) }
        })
        .await;
        // One that was answered was begun; one that was not may have been.
        let new = rotations.len() - rotated.len();
        assert!(new <= 1, "kill {nth}: {rotations:?}");
        assert!(asked != Some(202) || new == 1, "kill {nth}: an answered one is kept");
        rotated = rotations;
        let history = hub.client().get(&(entry("app", "key") + "/history?env=base")).await.expect(200);
        let history = history.as_array().unwrap();
        assert_eq!(history.len(), rotated.len() + 1, "kill {nth}: each rotation has written once");
        assert_eq!(history[0]["version"], json!(rotated.len() + 1), "kill {nth}");
    }
    assert!(died >= 3 && rotated.len() >= 3, "{died} died, {survived} lived, {rotated:?}");
    rotated
}
