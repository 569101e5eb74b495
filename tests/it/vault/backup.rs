//! A backup of a hub on Vault comes back also when that Vault is gone for ever.

use llm_config_tests::bao::Bao;
use llm_config_tests::edge::Edge;
use llm_config_tests::hub::Hub;
use llm_config_tests::process::run;
use llm_config_tests::scratch::{Scratch, files_below};

use super::{at, revealed, set_secret};

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_needs_the_recovery_key_alone_and_may_move_to_another_vault() {
    let (scratch, second) = (Scratch::new("vault-backup"), Scratch::new("vault-second"));
    let config = scratch.path("hub.toml").display().to_string();
    let mut bao = Bao::start(&scratch).await;
    let database = |name: &str| format!("[database]\nurl = \"sqlite:{}\"\n\n", scratch.path(name).display());
    let tables = format!("{}{}", database("hub.sqlite"), bao.tables(&scratch).await);
    let mut hub = Hub::serve(&scratch, &tables).await;
    set_secret(&hub.client(), "key", "development", "sk-hunter2").await.expect(200);
    let edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;

    bao.seal().await;
    let refused = run("llm-config-hub", ["backup", "/nowhere/b", "--config", &config]).await;
    assert!(refused.code == 1 && refused.err.contains("Vault is sealed"), "{refused:?}");
    bao.unseal().await;
    let (file, key) = hub.back_up(&scratch).await;
    bao.stop();

    // The same hub on its own, without any Vault: what it is known by comes from the backup.
    hub.stop();
    let (file, key) = (file.to_str().unwrap(), key.to_str().unwrap());
    let text = std::fs::read_to_string(&config).unwrap();
    let listen = text.split("[database]").next().unwrap();
    std::fs::write(&config, format!("{listen}{}", database("restored/hub.sqlite"))).unwrap();
    std::fs::create_dir_all(scratch.path("restored")).unwrap();
    let args = ["restore", file, "--recovery-key-file", key, "--config", &config];
    run("llm-config-hub", args).await.done();
    hub.start().await;
    assert_eq!(revealed(&hub.client(), "key", "development").await.expect(200)["value"], "sk-hunter2");
    set_secret(&hub.client(), "key", "development", "sk-2").await.expect(200);
    let shown =
        |answer: &llm_config_tests::http::Answer| answer.status == 200 && answer.json()["value"] == "sk-2";
    edge.client().until(&format!("{}&reveal=true", at("key", "development")), shown).await;
    for (path, bytes) in files_below(&scratch.path("restored")) {
        let found = bytes.windows(8).any(|window| window == b"vault:v1");
        assert!(!found, "{} holds something of the old Vault", path.display());
    }

    // And from there to another one.
    let other = Bao::start(&second).await;
    hub.stop();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n{}", other.tables(&second).await)).unwrap();
    hub.start().await;
    let said = run("llm-config-hub", ["keys", "rewrap", "--config", &config]).await.done();
    assert!(said.contains("under vault transit/llm-config-hub version 1") && !said.contains("<-"), "{said}");
    std::fs::remove_file(scratch.path("restored/keyring")).unwrap();
    hub.kill();
    hub.start().await;
    assert_eq!(revealed(&hub.client(), "key", "development").await.expect(200)["value"], "sk-2");
}
