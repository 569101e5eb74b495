//! A real OpenBao for tests: a server with storage of its own, which can be stopped, sealed, frozen and set up.
//!
//! `tests/run` gets the program and names it in `LLM_CONFIG_BAO_BIN`; a test that needs it fails without.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::http::{Answer, Client};
use crate::process::{Process, free_address};
use crate::scratch::Scratch;
use crate::wait::eventually;

/// What a hub may do in Vault; README.md tells users the same.
pub const HUB_POLICY: &str = r#"
path "transit/keys/llm-config-hub"    { capabilities = ["read"] }
path "transit/encrypt/llm-config-hub" { capabilities = ["update"] }
path "transit/decrypt/llm-config-hub" { capabilities = ["update"] }
path "secret/metadata/*"              { capabilities = ["read", "list"] }
path "secret/data/*"                  { capabilities = ["read"] }
"#;

/// A running server, unsealed, with transit, a KV store at `secret`, and a role for hubs.
#[derive(Debug)]
pub struct Bao {
    address: SocketAddr,
    folder: PathBuf,
    config: PathBuf,
    unseal_key: String,
    root: String,
    process: Option<Process>,
}

impl Bao {
    /// A new one.
    ///
    /// # Panics
    /// When the program is not there, or does not start.
    pub async fn start(scratch: &Scratch) -> Self {
        Self::start_with(scratch, "").await
    }

    /// A new one with more in its configuration.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with(scratch: &Scratch, more: &str) -> Self {
        let (address, cluster) = (free_address(), free_address());
        let folder = scratch.path("bao");
        fs::create_dir_all(folder.join("data")).unwrap();
        let text = format!(
            "storage \"raft\" {{\n path = \"{}\"\n node_id = \"one\"\n}}\nlistener \"tcp\" {{\n address = \"{address}\"\n \
             tls_disable = true\n}}\napi_addr = \"http://{address}\"\ncluster_addr = \"http://{cluster}\"\n{more}",
            folder.join("data").display()
        );
        let config = scratch.file("bao.hcl", &text);
        let mut bao =
            Self { address, folder, config, unseal_key: String::new(), root: String::new(), process: None };
        bao.launch().await;
        let body = json!({"secret_shares": 1, "secret_threshold": 1});
        let keys = Client::tcp(address).put("/v1/sys/init", body).await.expect(200);
        bao.unseal_key = keys["keys_base64"][0].as_str().expect("a key").to_owned();
        bao.root = keys["root_token"].as_str().expect("a token").to_owned();
        bao.unseal().await;
        bao.set_up().await;
        bao
    }

    async fn set_up(&self) {
        let root = self.client();
        root.post("/v1/sys/mounts/transit", json!({"type": "transit"})).await.fine();
        root.post("/v1/sys/mounts/secret", json!({"type": "kv", "options": {"version": "2"}})).await.fine();
        root.post("/v1/sys/auth/approle", json!({"type": "approle"})).await.fine();
        root.post("/v1/sys/policies/acl/hub", json!({"policy": HUB_POLICY})).await.fine();
        let role = json!({"token_policies": "hub", "token_ttl": "1h"});
        root.post("/v1/auth/approle/role/hub", role).await.fine();
        root.post("/v1/transit/keys/llm-config-hub", json!({"type": "aes256-gcm96"})).await.fine();
    }

    /// What `[secrets]` of a hub on it says, logging in by its role.
    pub async fn tables(&self, scratch: &Scratch) -> String {
        let root = self.client();
        let role = root.get("/v1/auth/approle/role/hub/role-id").await.expect(200);
        let secret = root.post("/v1/auth/approle/role/hub/secret-id", json!({})).await.expect(200);
        let secret = secret["data"]["secret_id"].as_str().expect("a secret id");
        let file = scratch.file("secret-id", secret);
        format!(
            "[secrets]\nprovider = \"vault\"\n\n{}\nauth = \"approle\"\nrole_id = {}\nsecret_id_file = \"{}\"\n",
            self.table(),
            role["data"]["role_id"],
            file.display()
        )
    }

    /// `[secrets.vault]` without a login.
    pub fn table(&self) -> String {
        format!("[secrets.vault]\naddr = \"http://{}\"", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The first token, which may do everything.
    pub fn root_token(&self) -> &str {
        &self.root
    }

    /// A client that may do everything.
    pub fn client(&self) -> Client {
        Client::tcp(self.address).with_token(&self.root)
    }

    /// A client with another token, or none.
    pub fn client_with(&self, token: &str) -> Client {
        Client::tcp(self.address).with_token(token)
    }

    /// Starts it again after [`stop`](Self::stop) and unseals it.
    pub async fn resume(&mut self) {
        self.launch().await;
        self.unseal().await;
    }

    /// Starts it again and leaves it sealed.
    async fn launch(&mut self) {
        let mut command = Command::new(installed());
        command.arg("server").arg(format!("-config={}", self.config.display()));
        self.process = Some(Process::start(&mut command, "bao", &self.folder.join("log")));
        let client = Client::tcp(self.address);
        let process = self.process.as_mut().expect("just started");
        eventually("OpenBao answers", async || {
            if let Some(status) = process.ended() {
                panic!("OpenBao ended with {status}: {}", process.tail());
            }
            client.try_send("GET", "/v1/sys/seal-status", None).await
        })
        .await;
    }

    /// Takes it away at once.
    pub fn stop(&mut self) {
        self.process().kill();
        self.process = None;
    }

    /// It answers, and opens nothing.
    pub async fn seal(&self) {
        self.client().put("/v1/sys/seal", json!({})).await.fine();
    }

    /// The inverse of [`seal`](Self::seal).
    pub async fn unseal(&self) {
        let client = Client::tcp(self.address);
        client.put("/v1/sys/unseal", json!({"key": self.unseal_key})).await.expect(200);
        eventually("OpenBao is unsealed", async || {
            match client.try_send("GET", "/v1/sys/health", None).await {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }

    /// It takes connections and answers nothing, until [`thaw`](Self::thaw).
    pub async fn freeze(&mut self) {
        self.process().signal("STOP");
        let tasks = format!("/proc/{}/task", self.process().id());
        eventually("every thread of OpenBao stands still", async || {
            let stands = |task: &PathBuf| {
                let told = fs::read_to_string(task.join("stat")).unwrap_or_default();
                told.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
            };
            let tasks: Vec<PathBuf> =
                fs::read_dir(&tasks).unwrap().map(|task| task.unwrap().path()).collect();
            if tasks.iter().all(stands) { Ok(()) } else { Err(tasks.len()) }
        })
        .await;
    }

    /// It goes on.
    pub fn thaw(&mut self) {
        self.process().signal("CONT");
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it runs")
    }
}

impl Answer {
    /// That something was done, whether there is a body or not.
    ///
    /// # Panics
    /// When it was refused.
    #[track_caller]
    pub fn fine(&self) -> Value {
        assert!((200..300).contains(&self.status), "{}: {}", self.status, self.text());
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

fn installed() -> PathBuf {
    let named = std::env::var_os("LLM_CONFIG_BAO_BIN").map(PathBuf::from);
    named
        .filter(|program| program.is_file())
        .expect("LLM_CONFIG_BAO_BIN names no program: tests/run gets OpenBao and sets it")
}
