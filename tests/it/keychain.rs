//! The system's keychain on a real one: GNOME Keyring on a session of its own.

mod hub;
mod kills;
mod theft;

use std::fs;

use llm_config_edge::keys::EdgeKeys;
use llm_config_tests::edge::{Edge, try_join_in};
use llm_config_tests::http::entry;
use llm_config_tests::hub::Hub;
use llm_config_tests::keychain::UserKeychain;
use llm_config_tests::process::{Said, run_with};
use llm_config_tests::scratch::{Scratch, copy_folder};
use llm_config_tests::wait::eventually;
use serde_json::{Value, json};

use crate::keeper::{cannot_start, kept_by};
use crate::sealing::age;

fn model() -> String {
    entry("app", "model") + "?env=development"
}

/// A hub with a value.
async fn hub(scratch: &Scratch) -> Hub {
    let hub = Hub::dev(scratch).await;
    hub.client().put(&entry("app", "model"), json!({"value": "a", "env": "development"})).await.expect(200);
    hub
}

async fn edge(scratch: &Scratch, hub: &Hub, user: &UserKeychain, name: &str) -> Edge {
    let token = hub.open_token(name).await;
    let edge = Edge::join_in(user.environment(), scratch, name, &token, &["--key", "keychain"]).await;
    edge.client().until_value(&model(), "a").await;
    edge
}

/// `edge COMMAND` of an edge that is stopped.
async fn command(edge: &Edge, arguments: &[&str]) -> Said {
    let data = ["--data", edge.data().to_str().unwrap()];
    run_with("llm-config", [&["edge"], arguments, &data].concat(), &edge.environment).await
}

fn item(edge: &Edge) -> String {
    let envelope: Value = serde_json::from_slice(&fs::read(edge.data().join("keys")).unwrap()).unwrap();
    assert_eq!(envelope["kept_by"], "keychain", "{envelope}");
    envelope["item"].as_str().expect("the item's name").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_waits_for_a_locked_keychain_and_starts_when_its_user_logs_in() {
    let scratch = Scratch::new("keychain-locked");
    let mut user = UserKeychain::new(&scratch, "own").await;
    let mut hub = hub(&scratch).await;
    let mut edge = edge(&scratch, &hub, &user, "e1").await;
    let status = edge.client().get("/api/v1/edge/status").await.expect(200);
    assert_eq!(status["keys_kept_by"], "keychain", "{status}");
    // From its start on it needs the keychain no more.
    user.lock();
    hub.stop();
    edge.client().get(&model()).await.expect(200);
    edge.stop();

    user.reboot().await;
    edge.launch(&[]);
    let answer = edge.client().until(&model(), |answer| answer.status == 503).await;
    let said = answer.text();
    assert!(said.contains("waits for its keys: the keychain is locked") && said.contains("log in"), "{said}");
    let asked = edge.cli(&["edge", "status"]).await;
    assert!(asked.code == 6 && asked.err.contains("the keychain is locked"), "{}: {}", asked.code, asked.err);
    user.log_in().await;
    edge.client().until_value(&model(), "a").await;
    edge.stop();

    // Nor is it the end when there is no keychain at all yet.
    user.log_out();
    edge.launch(&[]);
    let answer = edge.client().until(&model(), |answer| answer.status == 503).await;
    assert!(answer.text().contains("no keychain can be reached"), "{}", answer.text());
    user.log_in().await;
    edge.client().until_value(&model(), "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_tries_the_keychain_out_and_says_what_to_do() {
    let scratch = Scratch::new("keychain-join");
    let mut user = UserKeychain::new(&scratch, "own").await;
    let hub = hub(&scratch).await;
    let token = hub.open_token("e1").await;
    let join = async |user: &UserKeychain| {
        try_join_in(&user.environment(), &scratch, "e1", &token, &["--key", "keychain"]).await
    };
    user.lock();
    let said = join(&user).await;
    assert!(
        said.code == 6 && said.err.contains("the keychain is locked; log in"),
        "{}: {}",
        said.code,
        said.err
    );
    user.log_out();
    let said = join(&user).await;
    assert!(said.code == 6 && said.err.contains("DBUS_SESSION_BUS_ADDRESS"), "{}: {}", said.code, said.err);
    user.log_in().await;
    // As one that asks something on a screen and nobody is there.
    user.freeze(true);
    let said = join(&user).await;
    assert!(said.code == 6 && said.err.contains("did not answer in time"), "{}: {}", said.code, said.err);
    user.freeze(false);
    assert_eq!(user.items(), 0, "nothing was left behind");
    join(&user).await.done();
    assert_eq!(user.items(), 1, "the trial is deleted");
    let said = join(&user).await;
    assert!(said.code == 2 && said.err.contains("has joined a hub already"), "{}", said.err);
    assert_eq!(user.items(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_comes_again_has_the_same_item_and_another_choice_deletes_it() {
    let scratch = Scratch::new("keychain-again");
    let user = UserKeychain::new(&scratch, "own").await;
    let mut hub = hub(&scratch).await;
    let token = hub.open_token("e1").await;
    let join =
        async |key: &str| try_join_in(&user.environment(), &scratch, "e1", &token, &["--key", key]).await;
    hub.stop();
    let edge = Edge::at_in(user.environment(), &scratch, "e1");
    assert_eq!(join("keychain").await.code, 6, "the hub is away");
    let first = item(&edge);
    assert_eq!(join("keychain").await.code, 6);
    assert_eq!((item(&edge), user.items()), (first, 1));
    assert_eq!(join("file").await.code, 6);
    assert_eq!(user.items(), 0);
    assert_eq!(join("keychain").await.code, 6);
    hub.start().await;
    join("keychain").await.done();
    assert_eq!(user.items(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_edges_of_one_user_share_nothing_and_what_ends_takes_its_item_with_it() {
    let scratch = Scratch::new("keychain-two");
    let mut user = UserKeychain::new(&scratch, "own").await;
    let hub = hub(&scratch).await;
    let (mut one, mut two) =
        (edge(&scratch, &hub, &user, "e1").await, edge(&scratch, &hub, &user, "e2").await);
    assert_ne!(item(&one), item(&two));
    assert_eq!(user.items(), 2);
    one.stop();
    two.stop();

    // The keys of one do not open with the item of the other.
    let keys = two.data().join("keys");
    let (before, others) = (fs::read_to_string(&keys).unwrap(), item(&one));
    fs::write(&keys, before.replace(&item(&two), &others)).unwrap();
    let said = cannot_start(&two).await;
    assert!(said.contains("does not take or give the keys"), "{said}");
    fs::write(&keys, &before).unwrap();

    // Another key of its own, and the item before is gone.
    let before = item(&one);
    command(&one, &["rekey", "--key", "keychain"]).await.done();
    assert_ne!(item(&one), before);
    assert_eq!(user.items(), 2);

    // A copy of its folder opens for its user, and takes nothing away from the first when it ends.
    copy_folder(one.data(), &scratch.path("copy"));
    let copy = Edge::at_in(user.environment(), &scratch, "copy");
    command(&copy, &["leave", "--force"]).await.done();
    assert_eq!(user.items(), 2);
    one.start().await;
    one.client().until_value(&model(), "a").await;
    one.stop();

    // Leaving a locked keychain: everything here is gone, and the item when it can be.
    user.lock();
    let said = command(&one, &["leave", "--force"]).await;
    assert!(said.code == 1 && said.err.contains("run this again, for the keychain is locked"), "{said:?}");
    assert!(!one.data().join("keys").exists() && !one.data().join("replica").exists());
    user.log_in().await;
    assert_eq!(user.items(), 2);
    command(&one, &["leave", "--force"]).await.done();
    assert_eq!(user.items(), 1);
    assert!(!one.data().join("keychain-items").exists());

    // A removed edge destroys its own by itself.
    hub.client().delete("/api/v1/edges/e2").await.fine();
    two.launch(&[]);
    assert!(two.process().wait().success(), "{}", two.log());
    assert_eq!(user.items(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_with_a_locked_keychain_is_not_told_as_done_before_it_is() {
    let scratch = Scratch::new("keychain-wipe");
    let mut user = UserKeychain::new(&scratch, "own").await;
    let hub = hub(&scratch).await;
    let mut edge = edge(&scratch, &hub, &user, "e1").await;
    // Removed while it runs, behind a keychain that was locked meanwhile.
    user.lock();
    hub.client().delete("/api/v1/edges/e1").await.fine();
    assert!(!edge.process().wait().success());
    assert!(!edge.data().join("keys").exists() && !edge.data().join("replica").exists());
    assert!(edge.data().join("wiped").exists(), "the hub was told");
    assert!(edge.log().contains("the keychain is locked"), "{}", edge.log());
    user.log_in().await;
    assert_eq!(user.items(), 1);
    edge.launch(&[]);
    assert!(edge.process().wait().success(), "{}", edge.log());
    assert_eq!(user.items(), 0);
    assert!(!edge.data().join("wiped").exists(), "the hub was not told");
}

/// The sealing key is replaced every 30 days: the blob on the disk is another then, and the keychain has nothing new.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_replaced_under_the_same_item() {
    let scratch = Scratch::new("keychain-renewed");
    let user = UserKeychain::new(&scratch, "own").await;
    let hub = hub(&scratch).await;
    let token = hub.open_token("e1").await;
    let mut edge = Edge::join_in(user.environment(), &scratch, "e1", &token, &["--key", "file"]).await;
    edge.client().until_value(&model(), "a").await;
    edge.stop();
    let old = EdgeKeys::load(edge.data()).unwrap().sealing_pair();
    age(edge.data());
    edge.rekey("keychain").await.done();
    let (before, blob) = (item(&edge), kept_by(edge.data(), "keychain"));
    edge.start().await;
    eventually("the keys are wrapped anew", async || match kept_by(edge.data(), "keychain") {
        now if now == blob => Err(()),
        _ => Ok(()),
    })
    .await;
    edge.client().until_value(&model(), "a").await;
    edge.stop();
    assert_eq!((item(&edge), user.items()), (before, 1));
    edge.rekey("file").await.done();
    assert_ne!(EdgeKeys::load(edge.data()).unwrap().sealing_pair(), old);
}

/// What a copy of the folder is on another machine, or for another user, who has a keychain as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_copied_folder_opens_nothing_elsewhere() {
    let scratch = Scratch::new("keychain-elsewhere");
    let (user, other) =
        (UserKeychain::new(&scratch, "own").await, UserKeychain::new(&scratch, "other").await);
    let hub = hub(&scratch).await;
    let mut edge = edge(&scratch, &hub, &user, "e1").await;
    edge.stop();
    copy_folder(edge.data(), &scratch.path("copy"));
    let copy = Edge::at_in(other.environment(), &scratch, "copy");
    let said = cannot_start(&copy).await;
    assert!(said.contains("has no item") && said.contains("copy from another machine"), "{said}");
}
