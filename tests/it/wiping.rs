//! A wipe that is killed at any of its steps: the next start completes it, and from its first step on no secret opens.

use std::fs;
use std::path::Path;

use llm_config_edge::wipe;
use llm_config_tests::Size;
use llm_config_tests::edge::Edge;
use llm_config_tests::http::entry;
use llm_config_tests::hub::Hub;
use llm_config_tests::process::{program, run};
use llm_config_tests::scratch::{Scratch, copy_folder};
use llm_config_tests::strace::Injection;
use llm_config_tests::thief::steal;
use serde_json::json;

const SECRET: &str = "sk-live-wiped-0b1c";

/// The disk of an edge that opens its secrets without the hub, and so does a thief.
async fn image(scratch: &Scratch) -> std::path::PathBuf {
    let mut hub = Hub::dev(scratch).await;
    let body = json!({"value": SECRET, "env": "development", "secret": true});
    hub.client().put(&entry("app", "key"), body).await.expect(200);
    let token = hub.open_token("e1").await;
    let mut edge = Edge::join_with(scratch, "e1", &token, &["--offline-restart", "file"]).await;
    edge.client().until_value(&(entry("app", "key") + "?env=development&reveal=true"), SECRET).await;
    edge.stop();
    hub.stop();
    let image = edge.data().to_owned();
    assert_eq!(steal(&image).secrets, [SECRET], "the tool does not work");
    image
}

/// Wipes and is killed at a call; false when that call never came.
async fn killed(data: &Path, log: &Path, calls: &str, nth: u16) -> bool {
    let mut command = Injection::kill(calls, nth).command(&program("llm-config"), log);
    command.args(["edge", "wipe", "--force", "--data"]).arg(data);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    !output.status.success()
}

/// The daemon is started as after a power cut: it destroys what is left and ends.
async fn completed(data: &Path, point: &str) {
    let said = run("llm-config", ["edge", "run", "--data", data.to_str().unwrap()]).await;
    assert_eq!(said.code, 0, "{point}: {}", said.err);
    let left = fs::read_dir(data).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = left.filter(|name| name != wipe::MARKER && name != "lock").collect();
    assert_eq!(left, Vec::<String>::new(), "{point}");
    assert!(wipe::is_pending(data), "{point}: the hub was not told, and nobody would tell it any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_that_is_killed_anywhere_is_completed_by_the_next_start() {
    let scratch = Scratch::new("wiping");
    let image = image(&scratch).await;
    let step = Size::of_run().pick(2, 1, 1);
    let (mut begun, mut shut) = (0, 0);
    for calls in ["write", "fsync", "rename", "unlink,unlinkat,rmdir"] {
        for nth in (1..).step_by(step) {
            let (data, point) = (scratch.path("wiped"), format!("{calls} number {nth}"));
            copy_folder(&image, &data);
            if !killed(&data, &scratch.path("trace"), calls, nth).await {
                fs::remove_dir_all(&data).unwrap();
                break;
            }
            if wipe::is_pending(&data) {
                begun += 1;
                let limit_keys = fs::read(data.join("limit-keys")).unwrap_or_default();
                if limit_keys.iter().all(|byte| *byte == 0) {
                    shut += 1;
                    let found = data.join("edge.json").exists().then(|| steal(&data).secrets);
                    assert_eq!(
                        found.unwrap_or_default(),
                        Vec::<String>::new(),
                        "{point}: it still opens secrets"
                    );
                }
                completed(&data, &point).await;
            } else {
                assert_eq!(steal(&data).secrets, [SECRET], "{point}: half a wipe that nobody goes on with");
            }
            fs::remove_dir_all(&data).unwrap();
        }
    }
    assert!(begun >= 8 && shut >= 5, "{begun} kills after it had begun, {shut} of them after its first step");
}
