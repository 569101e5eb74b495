//! Keys that move into the keychain and out of it, killed at every step: they open, and nothing is left that nobody needs.

use std::fs;

use llm_config_edge::keys::EdgeKeys;
use llm_config_tests::edge::Edge;
use llm_config_tests::keychain::UserKeychain;
use llm_config_tests::process::program;
use llm_config_tests::scratch::Scratch;
use llm_config_tests::strace::Injection;
use serde_json::Value;

use crate::keeper::serves;

/// Calls that change something on the disk, between which the keychain is asked; and those by which the first question is asked.
const CALLS: [&str; 5] = ["write", "fsync", "rename", "unlink,unlinkat", "sendmsg"];

/// Killed at one call, of one thread; false when that call never came.
async fn killed(edge: &Edge, trace: &std::path::Path, to: &str, call: &str, nth: u16) -> bool {
    let mut injection = Injection::kill(call, nth);
    if call != "sendmsg" {
        let files = ["keys", "keys.new", "keys.old", "keychain-items", "keychain-items.new"];
        let files = files.iter().map(|name| edge.data().join(name)).chain([edge.data().to_owned()]);
        injection = injection.at(files.collect());
    }
    let mut command = injection.command(&program("llm-config"), trace);
    command.args(["edge", "rekey", "--key", to, "--data"]).arg(edge.data());
    command.envs(edge.environment.iter().map(|(name, value)| (name, value)));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    !output.status.success()
}

fn kept_by(edge: &Edge) -> String {
    let file: Value = serde_json::from_slice(&fs::read(edge.data().join("keys")).unwrap()).unwrap();
    file["kept_by"].as_str().unwrap_or("file").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_keys_that_is_killed_anywhere_loses_nothing_and_leaves_nothing_behind() {
    let scratch = Scratch::new("keychain-kills");
    let user = UserKeychain::new(&scratch, "own").await;
    let hub = super::hub(&scratch).await;
    let token = hub.open_token("e1").await;
    let mut edge = Edge::join_in(user.environment(), &scratch, "e1", &token, &["--key", "file"]).await;
    edge.client().until_value(&super::model(), "a").await;
    edge.stop();
    let plain = EdgeKeys::load(edge.data()).unwrap();
    let (mut kills, mut orphans) = (0, 0);
    for (from, to) in [("file", "keychain"), ("keychain", "file"), ("keychain", "keychain")] {
        for call in CALLS {
            for nth in 1.. {
                edge.rekey(from).await.done();
                if !killed(&edge, &scratch.path("trace"), to, call, nth).await {
                    break;
                }
                let point = format!("from {from} to {to}, {call} number {nth}");
                let needed = usize::from(kept_by(&edge) == "keychain");
                kills += 1;
                orphans += usize::from(user.items() > needed);
                serves(&mut edge).await;
                assert_eq!(user.items(), needed, "{point}");
                edge.rekey("file").await.done();
                assert_eq!(EdgeKeys::load(edge.data()).unwrap().tls, plain.tls, "{point}");
                assert_eq!(user.items(), 0, "{point}");
            }
        }
    }
    assert!(kills >= 30 && orphans >= 5, "{kills} kills, {orphans} of them with something left behind");
}
