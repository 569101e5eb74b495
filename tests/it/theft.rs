//! The theft drill: an edge was switched off and its disk taken. The thief has all of it, the hub's database without its keys,
//! and what the hub tells everybody; by what keeps the edge's keys, that opens everything or nothing.

use std::path::PathBuf;

use llm_config_edge::keys::EdgeKeys;
use llm_config_tests::bao::Bao;
use llm_config_tests::edge::{Edge, try_join_in};
use llm_config_tests::http::entry;
use llm_config_tests::hub::Hub;
use llm_config_tests::machine::Machine;
use llm_config_tests::scratch::{Scratch, copy_folder, files_with};
use llm_config_tests::thief::{Loot, steal, steal_with};
use llm_config_tests::wait::eventually;
use serde_json::{Value, json};

use crate::keeper::{cannot_start, kept_by, vault_for_edges};

const SECRET: &str = "canary-secret-5e1f0c";
const VALUE: &str = "canary-value-77d2ab";

fn secret() -> String {
    entry("app", "key") + "?env=development&reveal=true"
}

fn everything() -> Loot {
    Loot { values: vec![json!(VALUE).to_string()], secrets: vec![SECRET.to_owned()] }
}

fn configuration_alone() -> Loot {
    Loot { secrets: Vec::new(), ..everything() }
}

struct Drill {
    scratch: Scratch,
    hub: Hub,
    edge: Edge,
}

impl Drill {
    /// A hub with a secret and a plain value, and an edge on a machine that has both.
    async fn new(scratch: Scratch, environment: Vec<(String, String)>, key: &str, restart: &str) -> Self {
        let hub = Hub::dev(&scratch).await;
        for (key, value, secret) in [("key", SECRET, true), ("model", VALUE, false)] {
            let body = json!({"value": value, "env": "development", "secret": secret});
            hub.client().put(&entry("app", key), body).await.expect(200);
        }
        let token = json!({"name": "e1", "namespaces": ["app"], "environments": ["development"]});
        let token = hub.join_token(token).await;
        let more = ["--key", key, "--offline-restart", restart];
        let edge = Edge::join_in(environment, &scratch, "e1", &token, &more).await;
        edge.client().until_value(&secret(), SECRET).await;
        let model = entry("app", "model") + "?env=development";
        edge.client().until_value(&model, VALUE).await;
        Self { scratch, hub, edge }
    }

    /// Switches the edge off and copies its disk, with what else the thief can get at. What was in clear there or is told to
    /// everybody was found when this returns.
    async fn image(&mut self, name: &str) -> PathBuf {
        self.edge.stop();
        let image = self.scratch.path(name);
        copy_folder(self.edge.data(), &image);
        assert_eq!(files_with(&image, SECRET), Vec::<PathBuf>::new(), "in clear on the disk");
        let of_hub = self.scratch.path(&format!("{name}-hub"));
        copy_folder(self.hub.data(), &of_hub);
        for key_material in ["keyring", "admin.token"] {
            std::fs::remove_file(of_hub.join(key_material)).unwrap();
        }
        assert_eq!(files_with(&of_hub, SECRET), Vec::<PathBuf>::new(), "in clear in the hub's database");
        for public in ["/health", "/metrics", "/api/v1/openapi.json", "/api/v1/fleet"] {
            let told = self.hub.anonymous().get(public).await;
            assert!(!told.text().contains(SECRET), "{public} tells a secret");
        }
        image
    }

    async fn status(&self) -> Value {
        self.edge.client().get("/api/v1/edge/status").await.expect(200)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_a_file_and_limit_keys_beside_them_open_everything() {
    let mut drill = Drill::new(Scratch::new("theft-file"), Vec::new(), "file", "file").await;
    let image = drill.image("image").await;
    assert_eq!(steal(&image), everything(), "the tool does not work");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_a_file_open_configuration_and_no_secret_where_limit_keys_are_in_memory() {
    let mut drill = Drill::new(Scratch::new("theft-never"), Vec::new(), "file", "never").await;
    let image = drill.image("image").await;
    assert_eq!(steal(&image), configuration_alone());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_under_the_systems_key_open_nothing_on_another_system() {
    let scratch = Scratch::new("theft-systemd-creds");
    let machine = Machine::new(&scratch, "own");
    let mut drill = Drill::new(scratch, machine.environment(), "systemd-creds", "file").await;
    assert_eq!(drill.status().await["keys_kept_by"], "systemd-creds");
    let image = drill.image("image").await;
    assert_eq!(steal(&image), Loot::default());
    let (blob, other) = (kept_by(&image, "systemd-creds"), Machine::new(&drill.scratch, "thief"));
    let name = "--name=llm-config-edge-keys";
    machine.creds(&["decrypt", name], &blob).unwrap();
    other.creds(&["encrypt", "--with-key=host", name], b"a key of its own is made").unwrap();
    other.creds(&["decrypt", name], &blob).unwrap_err();
    // The machine itself starts from the same bytes, without its hub.
    drill.hub.stop();
    drill.edge.start().await;
    drill.edge.client().until_value(&secret(), SECRET).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_a_tpm_open_nothing_without_it_and_everything_with_it() {
    let scratch = Scratch::new("theft-tpm");
    let mut machine = Machine::with_tpm(&scratch, "own").await;
    let mut drill = Drill::new(scratch, machine.environment(), "tpm", "tpm").await;
    let status = drill.status().await;
    assert_eq!(
        (&status["keys_kept_by"], &status["secrets"]["offline_restart"]),
        (&json!("tpm"), &json!("tpm"))
    );
    let image = drill.image("image").await;
    assert_eq!(steal(&image), Loot::default());
    let (blob, other) = (kept_by(&image, "tpm"), Machine::with_tpm(&drill.scratch, "thief").await);
    let name = "--name=llm-config-edge-keys";
    machine.creds(&["decrypt", name], &blob).unwrap();
    other.creds(&["decrypt", name], &blob).unwrap_err();

    // A power cut, and no hub: the machine's own TPM opens keys and secrets.
    drill.hub.stop();
    machine.power_off();
    machine.power_on().await;
    drill.edge.start().await;
    drill.edge.client().until_value(&secret(), SECRET).await;
    drill.edge.stop();

    // The whole machine was stolen, and other firmware starts on it.
    machine.change_firmware();
    machine.creds(&["decrypt", name], &blob).unwrap_err();
    let said = cannot_start(&drill.edge).await;
    assert!(said.contains("the TPM does not") && said.contains("firmware"), "{said}");
}

/// Whoever copied the file of keys while it was plain, before they went into the TPM, has the replica's key for ever.
#[tokio::test(flavor = "multi_thread")]
async fn limit_keys_in_a_tpm_open_nothing_for_whoever_has_keys_from_before() {
    let scratch = Scratch::new("theft-before");
    let machine = Machine::with_tpm(&scratch, "own").await;
    let mut drill = Drill::new(scratch, machine.environment(), "file", "file").await;
    let before = drill.image("before").await;
    let old_keys = EdgeKeys::load(&before).unwrap();
    assert_eq!(steal(&before), everything());
    let said = drill.edge.rekey("tpm").await.done();
    assert!(said.contains("were kept by file and are kept by tpm"), "{said}");
    drill.edge.launch(&["--offline-restart", "tpm"]);
    drill.edge.client().until_value(&secret(), SECRET).await;
    let status = drill.status().await;
    assert_eq!(status["secrets"]["offline_restart"], "tpm", "{status}");
    let image = drill.image("image").await;
    assert_eq!(steal(&image), Loot::default());
    assert_eq!(steal_with(&image, &old_keys), configuration_alone());
    // It is for the machine itself alone that they are there.
    drill.hub.stop();
    drill.edge.start().await;
    drill.edge.client().until_value(&secret(), SECRET).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_is_asked_for_where_limit_keys_shall_be_in_one() {
    let scratch = Scratch::new("theft-refused");
    let machine = Machine::new(&scratch, "own");
    let hub = Hub::dev(&scratch).await;
    let token = hub.open_token("e1").await;
    let join = async |more: &[&str]| try_join_in(&machine.environment(), &scratch, "e1", &token, more).await;
    let said = join(&["--key", "systemd-creds", "--offline-restart", "tpm"]).await;
    assert!(said.code == 2 && said.err.contains("kept by systemd-creds"), "{}: {}", said.code, said.err);
    let said = join(&["--key", "tpm"]).await;
    assert!(said.code == 1 && said.err.contains("LLM_CONFIG_TPM_DEVICE"), "{}: {}", said.code, said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_vault_open_nothing_without_a_token_and_a_start_waits_for_it() {
    let scratch = Scratch::new("theft-vault");
    let mut bao = Bao::start(&scratch).await;
    let environment = vault_for_edges(&bao).await;
    let mut drill = Drill::new(scratch, environment, "vault", "file").await;
    let image = drill.image("image").await;
    assert_eq!(steal(&image), Loot::default());
    let blob = String::from_utf8(kept_by(&image, "vault")).unwrap();
    let body = json!({"ciphertext": blob, "associated_data": "bGxtLWNvbmZpZy1lZGdlLWtleXM="});
    let path = "/v1/transit/decrypt/llm-config-edge";
    bao.client().post(path, body.clone()).await.expect(200);
    bao.client_with("s.stolen").post(path, body).await.expect(403);

    bao.stop();
    drill.edge.launch(&[]);
    let answer = drill.edge.client().until(&secret(), |answer| answer.status == 503).await;
    assert!(answer.text().contains("waits for its keys: Vault cannot be reached"), "{}", answer.text());
    let said = drill.edge.cli(&["edge", "status"]).await;
    assert!(said.code == 6 && said.err.contains("waits for its keys"), "{}: {}", said.code, said.err);
    bao.resume().await;
    drill.edge.client().until_value(&secret(), SECRET).await;
    assert_eq!(drill.status().await["keys_kept_by"], "vault");
    // From then on it is not needed.
    bao.stop();
    drill.edge.client().get(&secret()).await.expect(200);
    eventually("the edge says that it is well", async || match drill.status().await["connected"] == true {
        true => Ok(()),
        false => Err("not connected"),
    })
    .await;
}
