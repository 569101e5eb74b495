//! A hub as a process, on embedded defaults or with a configuration of its own.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::http::Client;
use crate::postgres;
use crate::process::{Process, Said, free_address, limited, program, run, run_with};
use crate::scratch::Scratch;
use crate::strace::Injection;
use crate::wait::eventually;

/// What a hub keeps its data in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// The embedded default, under `dev`.
    Sqlite,
    /// A database of its own in the PostgreSQL of this run, under `serve`.
    Postgres,
}

/// A hub that can be killed and started again on the same ports and data.
#[derive(Debug)]
pub struct Hub {
    pub api: SocketAddr,
    pub sync: SocketAddr,
    data: PathBuf,
    config: Option<PathBuf>,
    /// Of its hub.toml, beside `[listen]`.
    tables: String,
    process: Option<Process>,
    token: String,
    /// No file of the next start grows beyond this: the disk is as good as full there.
    pub file_kib_max: Option<u32>,
    /// What goes wrong in the system calls of the next start.
    pub injection: Option<Injection>,
    /// What is in its environment beside ours, from the next start on.
    pub environment: Vec<(String, String)>,
}

impl Hub {
    /// A hub on one of the databases, ready to answer.
    pub async fn on(database: Database, scratch: &Scratch) -> Self {
        match database {
            Database::Sqlite => Self::dev(scratch).await,
            Database::Postgres => {
                let url = postgres::database();
                Self::serve(scratch, &format!("[database]\nurl = \"{url}\"")).await
            }
        }
    }

    /// `llm-config-hub dev` on a new folder, ready to answer.
    pub async fn dev(scratch: &Scratch) -> Self {
        Self::dev_in(&scratch.path("hub")).await
    }

    fn of(
        (api, sync): (SocketAddr, SocketAddr),
        data: PathBuf,
        config: Option<PathBuf>,
        tables: String,
        token: String,
    ) -> Self {
        let (process, file_kib_max, injection, environment) = (None, None, None, Vec::new());
        Self { api, sync, data, config, tables, process, token, file_kib_max, injection, environment }
    }

    async fn started(mut self) -> Self {
        self.start().await;
        self
    }

    /// `llm-config-hub dev` on some folder, ready to answer.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn dev_in(data: &Path) -> Self {
        Self::dev_at(data, free_address(), free_address()).await
    }

    /// `llm-config-hub dev` on some folder and ports, ready to answer.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn dev_at(data: &Path, api: SocketAddr, sync: SocketAddr) -> Self {
        let hub = Self::of((api, sync), data.to_owned(), None, String::new(), String::new());
        let mut hub = hub.started().await;
        hub.token = fs::read_to_string(hub.data.join("admin.token")).expect("dev writes admin.token");
        hub
    }

    /// `llm-config-hub init` and `serve` with a hub.toml of these tables beside `[listen]`.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn serve(scratch: &Scratch, tables: &str) -> Self {
        Self::serve_in(Vec::new(), scratch, tables).await
    }

    /// The same in an environment.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn serve_in(environment: Vec<(String, String)>, scratch: &Scratch, tables: &str) -> Self {
        let (api, sync) = (free_address(), free_address());
        let data = scratch.path("hub");
        fs::create_dir_all(&data).unwrap();
        let config = scratch.file("hub.toml", &settings(api, sync, tables));
        let told = Command::new(program("llm-config-hub"))
            .arg("init")
            .arg("--config")
            .arg(&config)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&data)
            .output();
        let told = told.expect("the hub's init runs");
        let out = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(told.status.success(), "init: {out}{}", String::from_utf8_lossy(&told.stderr));
        let token = token_file(&out, &data);
        let token = fs::read_to_string(&token).unwrap_or_else(|e| panic!("{}: {e}", token.display()));
        let hub = Self::of((api, sync), data, Some(config), tables.to_owned(), token);
        Self { environment, ..hub }.started().await
    }

    /// Another process of the same hub: the same database and keyring, ports of its own.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn beside(&self, scratch: &Scratch, name: &str) -> Self {
        let (api, sync) = (free_address(), free_address());
        let data = scratch.path(name);
        fs::create_dir_all(&data).unwrap();
        let config = scratch.file(&format!("{name}.toml"), &settings(api, sync, &self.tables));
        let (tables, token) = (self.tables.clone(), self.token.clone());
        Self::of((api, sync), data, Some(config), tables, token).started().await
    }

    /// The hub of another region, begun with this one's backup, not started. `database` is its table in hub.toml.
    ///
    /// # Panics
    /// When the backup cannot be made or restored.
    pub async fn region(&self, scratch: &Scratch, name: &str, database: &str) -> Self {
        let (api, sync) = (free_address(), free_address());
        let data = scratch.path(name);
        fs::create_dir_all(&data).unwrap();
        let path = scratch.file(&format!("{name}.toml"), &settings(api, sync, database));
        let (file, key) = self.back_up(scratch).await;
        let restore: [&std::ffi::OsStr; 7] = [
            "restore".as_ref(),
            file.as_os_str(),
            "--as-region".as_ref(),
            "--recovery-key-file".as_ref(),
            key.as_os_str(),
            "--config".as_ref(),
            path.as_os_str(),
        ];
        run("llm-config-hub", restore).await.done();
        Self {
            api,
            sync,
            data,
            config: Some(path),
            tables: database.to_owned(),
            process: None,
            token: self.token.clone(),
            file_kib_max: None,
            injection: None,
            environment: Vec::new(),
        }
    }

    /// Another table in its hub.toml, from its next start on.
    ///
    /// # Panics
    /// When it has none.
    pub fn configure(&mut self, table: &str) {
        self.tables = format!("{}\n\n{table}", self.tables);
        let config = self.config.as_ref().expect("it has a hub.toml");
        fs::write(config, settings(self.api, self.sync, &self.tables)).unwrap();
    }

    /// Writes a backup of it, and gives its file and the file with the key that opens it.
    ///
    /// # Panics
    /// When that fails, or is not the first backup.
    pub async fn back_up(&self, scratch: &Scratch) -> (PathBuf, PathBuf) {
        let file = scratch.path("hub.backup");
        let mut args: Vec<OsString> = vec!["backup".into(), file.clone().into_os_string()];
        args.extend(self.which());
        let said = run_with("llm-config-hub", args, &self.environment).await.done();
        let key = said.lines().find_map(|line| line.strip_prefix("recovery key: "));
        (file, scratch.file("recovery.key", key.expect("a first backup shows its key")))
    }

    /// What comes of a backup of this hub on the same ports, in another place; this one is lost. `newer` is as on the command
    /// line.
    ///
    /// # Panics
    /// When it is not restored, or does not start.
    pub async fn restored(mut self, scratch: &Scratch, backup: &Path, key: &Path, newer: &str) -> Self {
        self.kill();
        self.data = scratch.path("restored");
        if let Some(config) = &mut self.config {
            fs::create_dir_all(&self.data).unwrap();
            self.tables = format!("[database]\nurl = \"{}\"", postgres::database());
            *config = self.data.join("hub.toml");
            fs::write(config, settings(self.api, self.sync, &self.tables)).unwrap();
        }
        let mut args: Vec<OsString> = vec!["restore".into(), backup.into()];
        args.extend(["--recovery-key-file".into(), key.into(), "--newer".into(), newer.into()]);
        args.extend(self.which());
        run("llm-config-hub", args).await.done();
        self.start().await;
        self
    }

    /// Which hub, to a command that is not `serve` or `dev`.
    fn which(&self) -> [OsString; 2] {
        match &self.config {
            Some(config) => ["--config".into(), config.into()],
            None => ["--data".into(), self.data.clone().into_os_string()],
        }
    }

    /// Starts it (again) and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start(&mut self) {
        self.launch();
        let health = Client::tcp(self.api);
        let log = self.log_path();
        let process = self.process.as_mut().expect("just launched");
        eventually("the hub is ready", async || {
            if let Some(status) = process.ended() {
                panic!("the hub ended with {status}: {}\n{}", log.display(), process.tail());
            }
            match health.try_send("GET", "/health/ready", None).await {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }

    /// Starts the process without waiting.
    pub fn launch(&mut self) {
        let program = program("llm-config-hub");
        let mut command = match &self.injection {
            Some(injection) => injection.command(&program, &self.trace_path()),
            None => limited(&program, self.file_kib_max),
        };
        match &self.config {
            Some(config) => command.arg("serve").arg("--config").arg(config).current_dir(&self.data),
            None => command.arg("dev").arg("--data").arg(&self.data).args([
                "--listen",
                &self.api.to_string(),
                "--sync-listen",
                &self.sync.to_string(),
            ]),
        };
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::start(&mut command, "hub", &self.log_path()));
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Whether it does not run, or has ended by itself.
    pub fn ended(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| process.ended().is_some())
    }

    /// Ends it politely.
    ///
    /// # Panics
    /// When it does not obey, or not with exit code 0.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let status = process.stop();
            assert!(status.success(), "SIGTERM: {status}\n{}", process.tail());
        }
    }

    /// The process, to send it signals.
    ///
    /// # Panics
    /// When it is not running.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the hub runs")
    }

    /// A client with the first administrator's token.
    pub fn client(&self) -> Client {
        Client::tcp(self.api).with_token(&self.token)
    }

    /// A client without a token.
    pub fn anonymous(&self) -> Client {
        Client::tcp(self.api)
    }

    /// A join token with what the body says.
    ///
    /// # Panics
    /// When the hub refuses.
    pub async fn join_token(&self, body: Value) -> String {
        // A region that has just begun decides nothing new before it has heard of its home.
        let made = eventually("a join token is made", async || {
            let answer = self.client().post("/api/v1/join-tokens", body.clone()).await;
            if answer.status == 503 { Err(answer.text()) } else { Ok(answer.expect(200)) }
        })
        .await;
        made["token"].as_str().expect("a token").to_owned()
    }

    /// A join token for everything that the tests use, reading and writing.
    pub async fn open_token(&self, name: &str) -> String {
        let namespaces = ["app", "models", "prod", "svc"];
        let environments = ["development", "staging", "production", "base", "edge"];
        let body = json!({"name": name, "namespaces": namespaces, "environments": environments, "write": namespaces});
        self.join_token(body).await
    }

    /// Runs the CLI against its API, with the first administrator's token.
    pub async fn cli(&self, scratch: &Scratch, args: &[&str]) -> Said {
        let token = scratch.file("cli.token", self.token.trim());
        let mut all: Vec<OsString> = vec!["--hub".into(), format!("http://{}", self.api).into()];
        all.extend(["--token-file".into(), token.into_os_string()]);
        all.extend(args.iter().map(Into::into));
        run("llm-config", all).await
    }

    /// The first administrator's token.
    pub fn token(&self) -> &str {
        self.token.trim()
    }

    /// The folder of its data.
    pub fn data(&self) -> &Path {
        &self.data
    }

    fn log_path(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// What `strace` saw in the last start with an injection.
    pub fn trace_path(&self) -> PathBuf {
        self.data.with_extension("trace")
    }

    /// All that it ever printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

fn settings(api: SocketAddr, sync: SocketAddr, tables: &str) -> String {
    format!("[listen]\napi = \"{api}\"\nsync = \"{sync}\"\n\n{tables}\n")
}

/// The path of the token's file in what `init` printed.
fn token_file(out: &str, data: &Path) -> PathBuf {
    let named = out
        .split(|c: char| c.is_whitespace() || matches!(c, '"' | '\''))
        .find(|word| word.ends_with(".token"));
    data.join(named.unwrap_or_else(|| panic!("init names the file of the first token: {out}")))
}
