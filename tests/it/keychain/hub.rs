//! The hub's keyring, sealed by a key in the keychain.

use std::fs;

use llm_config_hub::secrets::LocalKeyring;
use llm_config_keychain::Keychain;
use llm_config_tests::http::Client;
use llm_config_tests::hub::Hub;
use llm_config_tests::keychain::UserKeychain;
use llm_config_tests::process::run_with;
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;

use crate::vault::conformance::conforms;
use crate::vault::rotation::{all_open, hub_with_secrets, keys_in, rewrap_killed_at_every_step, status_in};

const WANTED: &str = "[secrets.local]\nkeychain = true\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_keyring_in_the_keychain_conforms() {
    let scratch = Scratch::new("keychain-conforms");
    let user = UserKeychain::new(&scratch, "own").await;
    let (path, keychain) = (scratch.path("keyring"), Keychain::at(&user.address()));
    let keyring = LocalKeyring::open_or_create_locked(&path, keychain.clone().into()).unwrap();
    conforms(&keyring).await;
    assert_eq!(user.items(), 1);
    // The file alone is none: its keys are sealed by what is in the keychain.
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("llm-config-hub keyring 2 keychain "), "{text}");
    for key in keyring.to_text().unwrap().lines().skip(1) {
        assert!(!text.contains(key), "a key lies in clear");
    }
    user.lock();
    let refused = LocalKeyring::open_locked(&path, keychain.into()).err().expect("it is locked");
    assert!(refused.to_string().contains("the keychain is locked"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_moves_into_the_keychain_and_back_and_survives_a_kill_at_every_step() {
    let scratch = Scratch::new("keychain-moves");
    let mut user = UserKeychain::new(&scratch, "own").await;
    let (mut hub, config) = hub_with_secrets(&scratch, "").await;
    hub.environment = user.environment();
    let keyring = scratch.path("hub").join("keyring");
    hub.stop();
    let old = status_in(&hub.environment, &config).await;
    hub.configure(WANTED);
    let new = rewrap_killed_at_every_step(&scratch, &hub, &config).await;
    assert!(!old.contains_key(&new), "an older copy of the file would open everything");

    // The hub itself moves while it runs, and its key of before goes.
    hub.start().await;
    let before = user.items();
    let said = keys_in(&hub.environment, &config, "rewrap").await.done();
    assert!(said.contains("sealed by a key in the keychain"), "{said}");
    let said = keys_in(&hub.environment, &config, "status").await.done();
    assert!(said.contains("the local keyring is sealed by a key in the keychain"), "{said}");
    all_open(&hub).await;
    assert_eq!(
        keys_in(&hub.environment, &config, "forget").await.done().trim(),
        "taken out of the keyring: 1"
    );
    assert_eq!(user.items(), before + 1);
    assert!(fs::read_to_string(&keyring).unwrap().starts_with("llm-config-hub keyring 2 keychain "));

    // A hub that starts before anybody has logged in says what it waits for.
    hub.kill();
    user.reboot().await;
    hub.launch();
    let health = Client::tcp(hub.api);
    let waits = eventually("the hub says what it waits for", async || {
        match health.try_send("GET", "/health", None).await {
            Ok(answer) if answer.text().contains("the keychain is locked") => Ok(answer),
            other => Err(other),
        }
    });
    assert_eq!(waits.await.status, 503);
    user.log_in().await;
    health.until("/health/ready", |answer| answer.status == 200).await;
    all_open(&hub).await;
    // In memory it has what it needs.
    user.lock();
    all_open(&hub).await;
    user.log_in().await;

    // And back.
    hub.stop();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("keychain = true", "keychain = false")).unwrap();
    rewrap_killed_at_every_step(&scratch, &hub, &config).await;
    hub.start().await;
    keys_in(&hub.environment, &config, "rewrap").await.done();
    all_open(&hub).await;
    assert!(fs::read_to_string(&keyring).unwrap().starts_with("llm-config-hub keyring 1\n"));
    assert!(!keyring.with_extension("keychain").exists(), "nothing is listed any more");
    assert_eq!(user.items(), before, "its item is deleted");
    hub.kill();
    hub.environment.clear();
    hub.start().await;
    all_open(&hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_comes_back_where_that_keychain_is_not() {
    let scratch = Scratch::new("keychain-backup");
    let (user, other) =
        (UserKeychain::new(&scratch, "own").await, UserKeychain::new(&scratch, "other").await);
    let (mut hub, config) = hub_with_secrets(&scratch, "").await;
    hub.environment = user.environment();
    hub.configure(WANTED);
    keys_in(&hub.environment, &config, "rewrap").await.done();
    hub.stop();
    hub.start().await;
    let (file, key) = hub.back_up(&scratch).await;
    hub.stop();

    // The disk alone is of no use with another keychain: that says so, and nothing is made anew.
    let config_text = config.display().to_string();
    let said =
        run_with("llm-config-hub", ["keys", "status", "--config", &config_text], &other.environment()).await;
    assert!(said.code == 1 && said.err.contains("has no item"), "{said:?}");
    assert_eq!(other.items(), 0);

    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("/hub/hub.sqlite", "/restored/hub.sqlite")).unwrap();
    fs::create_dir_all(scratch.path("restored")).unwrap();
    let (file, key) = (file.to_str().unwrap(), key.to_str().unwrap());
    let args = ["restore", file, "--recovery-key-file", key, "--config", &config_text];
    run_with("llm-config-hub", args, &[]).await.done();
    hub.environment = other.environment();
    hub.start().await;
    all_open(&hub).await;
    keys_in(&hub.environment, &config, "rewrap").await.done();
    assert_eq!(other.items(), 1);
    hub.kill();
    hub.start().await;
    all_open(&hub).await;
}

/// A hub that never had another keyring.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_hub_begins_in_the_keychain() {
    let scratch = Scratch::new("keychain-new-hub");
    let user = UserKeychain::new(&scratch, "own").await;
    let database = scratch.path("hub").join("hub.sqlite");
    let tables = format!("[database]\nurl = \"sqlite:{}\"\n\n{WANTED}", database.display());
    let hub = Hub::serve_in(user.environment(), &scratch, &tables).await;
    assert_eq!(user.items(), 1);
    let text = fs::read_to_string(scratch.path("hub").join("keyring")).unwrap();
    assert!(text.starts_with("llm-config-hub keyring 2 keychain "), "{text}");
    drop(hub);
}
