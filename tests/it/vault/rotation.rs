//! Rotation of the key-encryption key and the change from one provider to another, under a hub that runs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use llm_config_tests::bao::Bao;
use llm_config_tests::edge::Edge;
use llm_config_tests::http::Answer;
use llm_config_tests::hub::Hub;
use llm_config_tests::process::{Said, program, run_with};
use llm_config_tests::scratch::{Scratch, copy_folder};
use llm_config_tests::strace::Injection;
use serde_json::json;

use super::{at, revealed, set_secret};

/// `keys COMMAND` of a hub with these settings.
pub(crate) async fn keys(config: &Path, command: &str) -> Said {
    keys_in(&[], config, command).await
}

/// The same in an environment.
pub(crate) async fn keys_in(environment: &[(String, String)], config: &Path, command: &str) -> Said {
    let args: [OsString; 4] = ["keys".into(), command.into(), "--config".into(), config.into()];
    run_with("llm-config-hub", args, environment).await
}

/// How many keys each version wraps, as `keys status` says it.
pub(crate) async fn status(config: &Path) -> BTreeMap<String, u64> {
    status_in(&[], config).await
}

/// The same in an environment.
pub(crate) async fn status_in(environment: &[(String, String)], config: &Path) -> BTreeMap<String, u64> {
    let told = keys_in(environment, config, "status").await.done();
    let line = |line: &str| {
        let (count, rest) = line.trim().split_once(" under ")?;
        let key = rest.split("  <-").next()?.trim_end_matches(", which wraps from now on");
        Some((key.to_owned(), count.parse().ok()?))
    };
    let counts = told.lines().filter(|told| !told.starts_with("the local keyring is "));
    counts.map(|told| line(told).unwrap_or_else(|| panic!("{told}"))).collect()
}

/// A hub on SQLite with a secret in every environment, and the settings of its commands.
pub(crate) async fn hub_with_secrets(scratch: &Scratch, secrets: &str) -> (Hub, PathBuf) {
    let database = scratch.path("hub").join("hub.sqlite");
    let tables = format!("[database]\nurl = \"sqlite:{}\"\n\n{secrets}", database.display());
    let hub = Hub::serve(scratch, &tables).await;
    for environment in ["base", "development", "staging", "production"] {
        set_secret(&hub.client(), "key", environment, environment).await.expect(200);
    }
    (hub, scratch.path("hub.toml"))
}

pub(crate) async fn all_open(hub: &Hub) {
    for environment in ["base", "development", "staging", "production"] {
        let shown = revealed(&hub.client(), "key", environment).await.expect(200);
        assert_eq!(shown["value"], environment);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_keyring_is_rotated_under_a_running_hub_and_the_old_key_goes() {
    let scratch = Scratch::new("rotate-local");
    let (mut hub, config) = hub_with_secrets(&scratch, "").await;
    let keyring = scratch.path("hub").join("keyring");
    let lines = || std::fs::read_to_string(&keyring).unwrap().lines().count();
    let before = status(&config).await;
    assert_eq!((before.len(), lines()), (1, 2));

    keys(&config, "rotate").await.done();
    assert_eq!(lines(), 3);
    assert_eq!(keys(&config, "forget").await.done().trim(), "taken out of the keyring: 0", "it is in use");
    let said = keys(&config, "rewrap").await.done();
    assert!(said.contains("root/default/production/1") && said.contains("wrapped anew: "), "{said}");
    let after = status(&config).await;
    assert_eq!(after.values().sum::<u64>(), before.values().sum::<u64>());
    assert_eq!((after.len(), after.keys().eq(before.keys())), (1, false));
    assert_eq!(
        keys(&config, "rewrap").await.done().lines().next(),
        Some("wrapped anew: 0"),
        "once is enough"
    );
    // The hub has read none of this, and needs a key that another process wrapped by the new one.
    all_open(&hub).await;
    assert_eq!(keys(&config, "forget").await.done().trim(), "taken out of the keyring: 1");
    assert_eq!(lines(), 2);
    hub.kill();
    hub.start().await;
    all_open(&hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vaults_key_is_rotated_and_the_old_version_can_be_closed() {
    let scratch = Scratch::new("rotate-vault");
    let bao = Bao::start(&scratch).await;
    let root = bao.client();
    let (mut hub, config) = hub_with_secrets(&scratch, &bao.tables(&scratch).await).await;
    let edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    assert!(status(&config).await.keys().eq(["vault transit/llm-config-hub version 1"]));

    let refused = keys(&config, "rotate").await;
    assert!(
        refused.code == 1 && refused.err.contains("denies"),
        "the hub's policy is not for that: {refused:?}"
    );
    root.post("/v1/transit/keys/llm-config-hub/rotate", json!({})).await.fine();
    keys(&config, "rewrap").await.done();
    assert!(status(&config).await.keys().eq(["vault transit/llm-config-hub version 2"]));
    root.post("/v1/transit/keys/llm-config-hub/config", json!({"min_decryption_version": 2})).await.fine();
    hub.kill();
    hub.start().await;
    all_open(&hub).await;
    let shown = |answer: &Answer| answer.status == 200 && answer.json()["value"] == "development";
    edge.client().until(&format!("{}&reveal=true", at("key", "development")), shown).await;

    // A version that nobody wrapped anew from is told by its number, with what to do.
    root.post("/v1/transit/keys/llm-config-hub/rotate", json!({})).await.fine();
    root.post("/v1/transit/keys/llm-config-hub/config", json!({"min_decryption_version": 3})).await.fine();
    let said = keys(&config, "rewrap").await;
    assert!(said.code == 1 && said.err.contains("version 2") && said.err.contains("keys rewrap"), "{said:?}");
    all_open(&hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_moves_from_its_keyring_to_vault_and_back_and_survives_a_kill_at_every_step() {
    let scratch = Scratch::new("move");
    let bao = Bao::start(&scratch).await;
    let (mut hub, config) = hub_with_secrets(&scratch, "").await;
    // How long Vault takes on a busy machine is not looked at here.
    let tables = bao.tables(&scratch).await;
    hub.configure(&tables.replace("[secrets.vault]", "[secrets.vault]\ntimeout_ms = 10000"));
    hub.stop();
    hub.start().await;
    all_open(&hub).await;
    let edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;

    hub.stop();
    let after = rewrap_killed_at_every_step(&scratch, &hub, &config).await;
    assert_eq!(after, "vault transit/llm-config-hub version 1");

    hub.start().await;
    keys(&config, "rewrap").await.done();
    all_open(&hub).await;
    std::fs::remove_file(scratch.path("hub").join("keyring")).unwrap();
    hub.kill();
    hub.start().await;
    all_open(&hub).await;
    let shown = |answer: &Answer| answer.status == 200 && answer.json()["value"] == "development";
    edge.client().until(&format!("{}&reveal=true", at("key", "development")), shown).await;

    // And back: what Vault wrapped is opened by it for as long as its table is there.
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("provider = \"vault\"", "provider = \"local\"")).unwrap();
    hub.kill();
    hub.start().await;
    keys(&config, "rewrap").await.done();
    let after = status(&config).await;
    assert!(after.len() == 1 && after.keys().all(|key| key.starts_with("local ")), "{after:?}");
    all_open(&hub).await;
}

/// `keys rewrap` on copies of a stopped hub's database, each time killed at another of its writes to the disk; the next
/// run goes on from what the last one left. Gives what wraps everything then.
pub(crate) async fn rewrap_killed_at_every_step(scratch: &Scratch, hub: &Hub, config: &Path) -> String {
    let environment = &hub.environment;
    let total: u64 = status_in(environment, config).await.values().sum();
    for nth in 1_u16.. {
        let copy = scratch.path("copy");
        copy_folder(hub.data(), &copy);
        let (database, original) = (copy.join("hub.sqlite"), hub.data().join("hub.sqlite"));
        let text = std::fs::read_to_string(config).unwrap();
        let text = text.replace(original.to_str().unwrap(), database.to_str().unwrap());
        let config = scratch.file("copy.toml", &text);
        let ended = rewrap_killed_at(environment, &config, nth, &copy.join("trace")).await;
        let left = status_in(environment, &config).await;
        assert_eq!(left.values().sum::<u64>(), total, "nothing is lost: {left:?}");
        keys_in(environment, &config, "rewrap").await.done();
        let after = status_in(environment, &config).await;
        assert_eq!(after.len(), 1, "{after:?}");
        std::fs::remove_dir_all(&copy).unwrap();
        if ended {
            let kills = nth - 1;
            assert!(u64::from(kills) >= total, "{kills} kills for {total} keys");
            return after.into_keys().next().expect("one");
        }
    }
    unreachable!("it comes to an end")
}

/// Whether it came to its end, because it makes fewer such calls.
async fn rewrap_killed_at(environment: &[(String, String)], config: &Path, nth: u16, trace: &Path) -> bool {
    let injection = Injection::kill("fdatasync,fsync,pwrite64", nth);
    let mut command: Command = injection.command(&program("llm-config-hub"), trace);
    command.args(["keys", "rewrap", "--config"]).arg(config);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let told = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    told.status.success()
}
