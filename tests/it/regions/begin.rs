//! A region that is begun with another's backup, in a process that is killed while it does.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;

use llm_config_tests::http::entry;
use llm_config_tests::hub::Hub;
use llm_config_tests::process::{program, run};
use llm_config_tests::scratch::Scratch;
use llm_config_tests::strace::Injection;
use serde_json::json;

/// What makes anything durable. At each of them the process is killed once.
const SYNCS: &str = "fsync,fdatasync";
/// More syncs than one restore makes.
const SYNCS_MAX: u16 = 400;

/// What is in a folder after a restore that was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    Nothing,
    /// All rows, and the word that a region is to be begun with them.
    Owed,
    Region,
}

async fn hub(args: &[&str], data: &Path) -> llm_config_tests::process::Said {
    run("llm-config-hub", [args, &["--data", data.to_str().unwrap()]].concat()).await
}

/// Which region the hub in a folder takes itself for, and whether it decides about the fleet.
async fn is_home(data: &Path) -> bool {
    let said = hub(&["home"], data).await.done();
    assert!(said.starts_with("home: "), "{said}");
    said.starts_with("home: this region")
}

fn settings(data: &Path) -> String {
    format!("[database]\nurl = \"sqlite:{}/hub.sqlite\"\n", data.display())
}

/// Killed at its `nth` sync, what did the restore leave? None when it had come to its end before.
async fn killed(nth: u16, scratch: &Scratch, backup: (&Path, &Path), data: &Path) -> Option<Left> {
    let log = scratch.path(&format!("syncs-{nth}"));
    let (file, key) = backup;
    let mut command = Injection::kill(SYNCS, nth).command(&program("llm-config-hub"), &log);
    command.args(["restore", "--as-region"]).arg(file).arg("--recovery-key-file").arg(key);
    command.arg("--data").arg(data).stdout(Stdio::null()).stderr(Stdio::null());
    let status = tokio::task::spawn_blocking(move || command.status()).await.unwrap().unwrap();
    if status.success() {
        return None;
    }
    // Not what the log says: its writer ends after the program.
    assert_eq!(status.signal(), Some(9), "it failed by itself: {status}");
    let (file, key) = (file.to_str().unwrap(), key.to_str().unwrap());
    let again = hub(&["restore", file, "--as-region", "--recovery-key-file", key], data).await;
    if again.code == 0 {
        return Some(Left::Nothing);
    }
    assert!(again.err.contains("there is something"), "{}", again.err);
    Some(if is_home(data).await { Left::Owed } else { Left::Region })
}

/// Killed anywhere, a restore has left nothing, or what is a region of its own from its next start on: never a second hub
/// that takes itself for the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_was_killed_while_it_was_begun_is_begun_when_it_starts() {
    let scratch = Scratch::new("region-killed");
    let first = Hub::dev(&scratch).await;
    let body = json!({"value": "a", "env": "development"});
    first.client().put(&entry("app", "k"), body).await.expect(200);
    let (file, key) = first.back_up(&scratch).await;
    assert!(is_home(first.data()).await);

    let mut left = Vec::new();
    for nth in 1..SYNCS_MAX {
        let data = scratch.path(&format!("second-{nth}"));
        let Some(found) = killed(nth, &scratch, (&file, &key), &data).await else { break };
        left.push(found);
        if found == Left::Owed {
            let config = scratch.file(&format!("hub-{nth}.toml"), &settings(&data));
            run("llm-config-hub", [OsStr::new("migrate"), OsStr::new("--config"), config.as_os_str()])
                .await
                .done();
        }
        assert!(!is_home(&data).await, "killed at sync {nth}: {found:?}");
    }
    assert!(left.is_sorted(), "{left:?}");
    assert!(left.contains(&Left::Nothing) && left.contains(&Left::Owed), "{left:?}");
}
