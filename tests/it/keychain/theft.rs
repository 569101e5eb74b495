//! Whoever took the disk, and with it the keychain's own file.

use llm_config_tests::edge::Edge;
use llm_config_tests::http::entry;
use llm_config_tests::hub::Hub;
use llm_config_tests::keychain::{UserKeychain, holds};
use llm_config_tests::scratch::{Scratch, copy_folder};
use llm_config_tests::thief::{Loot, steal};
use serde_json::json;

use crate::keeper::{cannot_start, kept_by};

const SECRET: &str = "canary-secret-91ab0c";

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_opens_nothing_without_the_keychains_password_and_everything_with_it() {
    let scratch = Scratch::new("theft-keychain");
    let user = UserKeychain::new(&scratch, "own").await;
    let mut hub = Hub::dev(&scratch).await;
    let body = json!({"value": SECRET, "env": "development", "secret": true});
    hub.client().put(&entry("app", "key"), body).await.expect(200);
    let secret = entry("app", "key") + "?env=development&reveal=true";
    let token = hub.open_token("e1").await;
    let more = ["--key", "keychain", "--offline-restart", "file"];
    let mut edge = Edge::join_in(user.environment(), &scratch, "e1", &token, &more).await;
    edge.client().until_value(&secret, SECRET).await;
    edge.stop();
    hub.stop();

    let image = scratch.path("image");
    copy_folder(edge.data(), &image);
    kept_by(&image, "keychain");
    assert_eq!(steal(&image), Loot::default());

    // The keychain's file is on the same disk. It is encrypted, and without its password it stays shut.
    let at = |thief: &UserKeychain| Edge::at_in(thief.environment(), &scratch, "image");
    assert!(!holds(&user.file(), SECRET.as_bytes()));
    let guessing = UserKeychain::stolen(&scratch, "guessing", &user, "123456").await;
    let mut thief = at(&guessing);
    thief.launch(&[]);
    let answer = thief.client().until(&secret, |answer| answer.status == 503).await;
    assert!(answer.text().contains("the keychain is locked"), "{}", answer.text());
    thief.stop();

    // With another keychain there is nothing to wait for.
    let other = UserKeychain::new(&scratch, "thief").await;
    let said = cannot_start(&at(&other)).await;
    assert!(said.contains("has no item"), "{said}");

    // Whoever has that file and the password has all: that is what a keychain is.
    let knowing = UserKeychain::stolen(&scratch, "knowing", &user, user.password()).await;
    let mut thief = at(&knowing);
    thief.start().await;
    thief.client().until_value(&secret, SECRET).await;
}
