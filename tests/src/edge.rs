//! An edge as a process beside its own socket.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::http::Client;
use crate::process::{Process, Said, free_address, limited, program, run, run_with};
use crate::proxy::Proxy;
use crate::scratch::Scratch;
use crate::strace::Injection;
use crate::wait::eventually;

/// The token of the loopback listener of every edge here.
const LOCAL_TOKEN: &str = "local-token-of-the-tests-0123456789abcdef";

/// An edge that joined, and can be killed and started again.
#[derive(Debug)]
pub struct Edge {
    pub name: String,
    data: PathBuf,
    socket: PathBuf,
    listen: SocketAddr,
    token_file: PathBuf,
    process: Option<Process>,
    /// No file of the next start grows beyond this: the disk is as good as full there.
    pub file_kib_max: Option<u32>,
    /// What goes wrong in the system calls of the next start.
    pub injection: Option<Injection>,
    /// What is in its environment beside ours, from the next start on.
    pub environment: Vec<(String, String)>,
}

/// Tries to join; `name` is only the name of the folder and of the files.
pub async fn try_join(scratch: &Scratch, name: &str, token: &str, more: &[&str]) -> Said {
    try_join_in(&[], scratch, name, token, more).await
}

/// The same in an environment. Keys go into a file unless the arguments say otherwise: tests know nothing of this machine.
pub async fn try_join_in(
    environment: &[(String, String)],
    scratch: &Scratch,
    name: &str,
    token: &str,
    more: &[&str],
) -> Said {
    let token_file = scratch.file(&format!("{name}.join"), token);
    let mut args = vec!["edge".into(), "join".into(), "--token-file".into(), token_file.into_os_string()];
    args.push("--data".into());
    args.push(scratch.path(name).into_os_string());
    if !more.contains(&"--key") {
        args.extend(["--key", "file"].map(Into::into));
    }
    args.extend(more.iter().map(Into::into));
    run_with("llm-config", args, environment).await
}

impl Edge {
    /// Joins with a token and starts; answers, but need not have its data yet.
    ///
    /// # Panics
    /// When the hub refuses, or the edge does not start.
    pub async fn join(scratch: &Scratch, name: &str, token: &str) -> Self {
        try_join(scratch, name, token, &[]).await.done();
        let mut edge = Self::at(scratch, name);
        edge.start().await;
        edge
    }

    /// The same with more arguments to `edge join`.
    ///
    /// # Panics
    /// When the hub refuses, or the edge does not start.
    pub async fn join_with(scratch: &Scratch, name: &str, token: &str, more: &[&str]) -> Self {
        try_join(scratch, name, token, more).await.done();
        let mut edge = Self::at(scratch, name);
        edge.start().await;
        edge
    }

    /// The same in an environment.
    ///
    /// # Panics
    /// When the hub refuses, or the edge does not start.
    pub async fn join_in(
        environment: Vec<(String, String)>,
        scratch: &Scratch,
        name: &str,
        token: &str,
        more: &[&str],
    ) -> Self {
        try_join_in(&environment, scratch, name, token, more).await.done();
        let mut edge = Self { environment, ..Self::at(scratch, name) };
        edge.start().await;
        edge
    }

    /// The same through a proxy, which stays the only way to its hub.
    ///
    /// # Panics
    /// When the hub refuses, or the edge does not start.
    pub async fn join_through(scratch: &Scratch, name: &str, token: &str, proxy: &Proxy) -> Self {
        let address = format!("https://{}", proxy.address());
        try_join(scratch, name, token, &["--hub", &address]).await.done();
        let mut edge = Self::at(scratch, name);
        edge.start().await;
        edge
    }

    /// An edge on a folder that has joined before, not started.
    pub fn at(scratch: &Scratch, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            data: scratch.path(name),
            socket: scratch.socket(&format!("{name}.sock")),
            listen: free_address(),
            token_file: scratch.file(&format!("{name}.local"), LOCAL_TOKEN),
            process: None,
            file_kib_max: None,
            injection: None,
            environment: Vec::new(),
        }
    }

    /// The same in an environment.
    pub fn at_in(environment: Vec<(String, String)>, scratch: &Scratch, name: &str) -> Self {
        Self { environment, ..Self::at(scratch, name) }
    }

    /// Starts it (again) and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub async fn start(&mut self) {
        self.launch(&[]);
        let client = self.client();
        let process = self.process.as_mut().expect("just launched");
        eventually("the edge answers", async || {
            if let Some(status) = process.ended() {
                panic!("the edge ended with {status}: {}", process.tail());
            }
            client.try_send("GET", "/health/live", None).await
        })
        .await;
    }

    /// Starts the process without waiting.
    pub fn launch(&mut self, more: &[&str]) {
        let program = program("llm-config");
        let mut command = match &self.injection {
            Some(injection) => injection.command(&program, &self.trace_path()),
            None => limited(&program, self.file_kib_max),
        };
        command.args(["edge", "run", "--data"]).arg(&self.data).arg("--socket").arg(&self.socket);
        command
            .arg("--listen")
            .arg(self.listen.to_string())
            .arg("--token-file")
            .arg(&self.token_file)
            .args(more)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::start(&mut command, &format!("edge {}", self.name), &self.log_path()));
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
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
        self.process.as_mut().expect("the edge runs")
    }

    /// A client of its socket.
    pub fn client(&self) -> Client {
        Client::unix(&self.socket)
    }

    /// A client of its loopback port, with the local token.
    pub fn tcp(&self) -> Client {
        self.tcp_without_token().with_token(LOCAL_TOKEN)
    }

    /// A client of its loopback port, without a token.
    pub fn tcp_without_token(&self) -> Client {
        Client::tcp(self.listen)
    }

    /// The path of its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
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

    /// A command of the CLI against its socket, for what goes on running; the arguments are still to come.
    pub fn command(&self) -> Command {
        let mut command = Command::new(program("llm-config"));
        for variable in ["LLM_CONFIG_SOCKET", "LLM_CONFIG_HUB", "LLM_CONFIG_TOKEN"] {
            command.env_remove(variable);
        }
        command.arg("--socket").arg(&self.socket);
        command
    }

    /// `edge rekey`, while it is stopped.
    pub async fn rekey(&self, key: &str) -> Said {
        let data = self.data.to_str().expect("test paths are text");
        run_with("llm-config", ["edge", "rekey", "--data", data, "--key", key], &self.environment).await
    }

    /// Runs the CLI against its socket.
    pub async fn cli(&self, args: &[&str]) -> Said {
        let mut all = vec!["--socket".into(), self.socket.clone().into_os_string()];
        all.extend(args.iter().map(Into::into));
        run("llm-config", all).await
    }
}
