//! What keeps an edge's keys: one suite over all of them, on a real `systemd-creds`, a TPM that `swtpm` plays and a real OpenBao.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use llm_config_edge::identity::EdgeIdentity;
use llm_config_edge::keys::EdgeKeys;
use llm_config_tests::bao::Bao;
use llm_config_tests::edge::Edge;
use llm_config_tests::http::entry;
use llm_config_tests::hub::Hub;
use llm_config_tests::keychain::UserKeychain;
use llm_config_tests::machine::Machine;
use llm_config_tests::process::{program, run_with};
use llm_config_tests::scratch::Scratch;
use llm_config_tests::strace::Injection;
use serde_json::{Value, json};

/// Whoever can be built in; the keychain is a feature.
const KINDS: &[&str] = if cfg!(feature = "keychain") {
    &["file", "systemd-creds", "tpm", "keychain", "vault"]
} else {
    &["file", "systemd-creds", "tpm", "vault"]
};

/// What an edge may do in Vault: wrap and unwrap its own keys, and nothing else.
const EDGE_POLICY: &str = r#"
path "transit/encrypt/llm-config-edge" { capabilities = ["update"] }
path "transit/decrypt/llm-config-edge" { capabilities = ["update"] }
"#;

/// A key for edges, and what makes a process one that may use it.
pub(crate) async fn vault_for_edges(bao: &Bao) -> Vec<(String, String)> {
    let root = bao.client();
    root.post("/v1/transit/keys/llm-config-edge", json!({"type": "aes256-gcm96"})).await.fine();
    root.post("/v1/sys/policies/acl/edge", json!({"policy": EDGE_POLICY})).await.fine();
    let token = json!({"policies": ["edge"], "no_default_policy": true});
    let token = root.post("/v1/auth/token/create", token).await.expect(200);
    let token = token["auth"]["client_token"].as_str().unwrap().to_owned();
    vec![("VAULT_ADDR".to_owned(), format!("http://{}", bao.address())), ("VAULT_TOKEN".to_owned(), token)]
}

fn envelope(data: &Path) -> Value {
    serde_json::from_slice(&fs::read(data.join("keys")).unwrap()).unwrap()
}

/// The blob of keys on a disk, where this is who keeps them.
pub(crate) fn kept_by(data: &Path, keeper: &str) -> Vec<u8> {
    let envelope = envelope(data);
    assert_eq!(envelope["kept_by"], keeper, "{envelope}");
    BASE64.decode(envelope["wrapped"].as_str().unwrap()).unwrap()
}

/// Why the daemon does not start.
pub(crate) async fn cannot_start(edge: &Edge) -> String {
    let (data, socket) = (edge.data().to_str().unwrap(), edge.socket().to_str().unwrap());
    let said =
        run_with("llm-config", ["edge", "run", "--data", data, "--socket", socket], &edge.environment).await;
    assert_ne!(said.code, 0, "it ran: {}", said.out);
    said.err
}

pub(crate) async fn serves(edge: &mut Edge) {
    edge.start().await;
    edge.client().until_value(&(entry("app", "model") + "?env=development"), "a").await;
    edge.stop();
}

struct World {
    scratch: Scratch,
    hub: Hub,
    machine: Machine,
    _bao: Bao,
    _keychain: Option<UserKeychain>,
    edge: Edge,
}

/// An edge with plain keys, on a machine where everything works.
async fn world(test: &str) -> World {
    let scratch = Scratch::new(test);
    let (machine, bao) = (Machine::with_tpm(&scratch, "own").await, Bao::start(&scratch).await);
    let hub = Hub::dev(&scratch).await;
    hub.client().put(&entry("app", "model"), json!({"value": "a", "env": "development"})).await.expect(200);
    let keychain =
        if cfg!(feature = "keychain") { Some(UserKeychain::new(&scratch, "own").await) } else { None };
    let session = keychain.as_ref().map(UserKeychain::environment).unwrap_or_default();
    let environment = [machine.environment(), vault_for_edges(&bao).await, session].concat();
    let token = hub.open_token("e1").await;
    let mut edge = Edge::join_in(environment, &scratch, "e1", &token, &[]).await;
    edge.stop();
    serves(&mut edge).await;
    World { scratch, hub, machine, _bao: bao, _keychain: keychain, edge }
}

/// Parts of the keys that must not lie on the disk where somebody keeps them.
fn parts(keys: &EdgeKeys) -> Vec<Vec<u8>> {
    let (private, _) = keys.sealing_pair();
    let raw = [keys.replica.expose().to_vec(), keys.tls.to_vec(), private.expose().to_vec()];
    raw.iter().flat_map(|key| [key[..24].to_vec(), BASE64.encode(&key[..24]).into_bytes()]).collect()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_keeper_gives_back_what_it_was_given_and_nothing_else() {
    let World { scratch: _scratch, hub: _hub, machine, _bao, _keychain, mut edge } = world("keeper").await;
    let plain = EdgeKeys::load(edge.data()).unwrap();
    let (parts, identity) = (parts(&plain), EdgeIdentity::load(edge.data()).unwrap());
    for kind in KINDS.iter().copied().skip(1).chain(["file"]) {
        let said = edge.rekey(kind).await.done();
        assert!(said.contains(&format!("kept by {kind}")), "{said}");
        serves(&mut edge).await;
        let said = fs::read(edge.data().join("keys")).unwrap();
        if kind == "file" {
            assert_eq!(EdgeKeys::load(edge.data()).unwrap().tls, plain.tls);
            continue;
        }
        let blob = kept_by(edge.data(), kind);
        for bytes in [&said, &blob] {
            assert!(!parts.iter().any(|part| holds(bytes, part)), "{kind}: keys lie in clear");
        }
        EdgeKeys::load(edge.data()).expect_err("keys that open for everybody");
        changed(&edge, kind, &blob).await;
    }
    assert_eq!(EdgeIdentity::load(edge.data()).unwrap(), identity);
    for kind in ["systemd-creds", "tpm"] {
        edge.rekey(kind).await.done();
        renamed(&edge, &machine, kind).await;
        edge.rekey("file").await.done();
    }
}

/// A blob in which a byte was changed is refused, and stays as it is.
async fn changed(edge: &Edge, kind: &str, blob: &[u8]) {
    let path = edge.data().join("keys");
    let before = fs::read(&path).unwrap();
    let mut damaged = blob.to_vec();
    let at = damaged.len() / 2;
    damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
    put(edge, &damaged);
    let said = cannot_start(edge).await;
    assert!(said.contains("does not take or give the keys"), "{kind}: {said}");
    assert_eq!(kept_by(edge.data(), kind), damaged);
    fs::write(&path, before).unwrap();
}

/// The same keys, wrapped by the same machine under another name, are none.
async fn renamed(edge: &Edge, machine: &Machine, kind: &str) {
    let path = edge.data().join("keys");
    let (before, blob) = (fs::read(&path).unwrap(), kept_by(edge.data(), kind));
    let plain = machine.creds(&["decrypt", "--name=llm-config-edge-keys"], &blob).unwrap();
    let with = if kind == "tpm" { "--with-key=tpm2" } else { "--with-key=host" };
    let other = machine.creds(&["encrypt", with, "--name=llm-config-edge-limit-secret"], &plain).unwrap();
    put(edge, &other);
    let said = cannot_start(edge).await;
    assert!(said.contains("does not take or give the keys"), "{kind}: {said}");
    fs::write(&path, before).unwrap();
}

fn put(edge: &Edge, blob: &[u8]) {
    let mut changed = envelope(edge.data());
    changed["wrapped"] = json!(BASE64.encode(blob));
    fs::write(edge.data().join("keys"), changed.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rekeying_that_is_killed_anywhere_leaves_keys_that_open_and_no_others() {
    let World { scratch, machine, mut edge, hub: _hub, _bao, _keychain } = world("keeper-kills").await;
    let plain = EdgeKeys::load(edge.data()).unwrap();
    let (parts, data) = (parts(&plain), edge.data().to_owned());
    let (mut killed, mut moved) = (0, 0);
    for call in ["write", "fsync", "link,linkat", "rename", "unlink,unlinkat"] {
        for nth in 1.. {
            let files = ["keys", "keys.new", "keys.old"].iter().map(|name| data.join(name));
            let injection = Injection::kill(call, nth).at(files.chain([data.clone()]).collect());
            let mut command = injection.command(&program("llm-config"), &scratch.path("trace"));
            command.args(["edge", "rekey", "--key", "systemd-creds", "--data"]).arg(&data);
            command.envs(machine.environment());
            let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
            let point = format!("{call} number {nth}");
            if output.status.success() {
                break;
            }
            killed += 1;
            moved += u32::from(envelope(&data)["kept_by"] == "systemd-creds");
            serves(&mut edge).await;
            let left: Vec<String> = fs::read_dir(&data)
                .unwrap()
                .map(|item| item.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.starts_with("keys"))
                .collect();
            assert_eq!(left, ["keys"], "{point}");
            if envelope(&data)["kept_by"] == "systemd-creds" {
                let file = fs::read(data.join("keys")).unwrap();
                assert!(!parts.iter().any(|part| holds(&file, part)), "{point}");
            }
            edge.rekey("file").await.done();
            assert_eq!(EdgeKeys::load(&data).unwrap().tls, plain.tls, "{point}");
        }
        edge.rekey("file").await.done();
    }
    assert!(killed >= 8 && moved >= 2, "{killed} kills, {moved} of them after the keys had moved");
}
