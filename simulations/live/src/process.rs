//! The real programs, started as a person would start them, and ended by their process ids whatever happens.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};

use crate::api::Api;

/// How long a program may take until it answers.
const START_MAX: Duration = Duration::from_secs(60);
/// How long a program may take to end when it is asked to.
const STOP_MAX: Duration = Duration::from_secs(15);
/// Between two looks at something that takes a while.
pub const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The folder of the programs: beside the one that runs.
///
/// # Errors
/// When the system does not tell where this program lies.
pub fn programs() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the running program")?;
    Ok(own.parent().context("a program lies in a folder")?.to_owned())
}

/// Builds every program of the workspace with the profile of the running one.
///
/// # Errors
/// When cargo cannot be run or the build fails.
pub async fn build() -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--workspace", "--bins"]).current_dir(workspace());
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    // What cargo set for this program must not change the fingerprint of what is built.
    let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| {
        name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR")
    });
    ours.for_each(|name| {
        command.env_remove(name);
    });
    let status = command.kill_on_drop(true).status().await.context("cannot run cargo")?;
    if !status.success() {
        bail!("cargo build failed; its messages are above");
    }
    Ok(())
}

/// The root of the repository.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the package lies two folders below the root")
}

/// Two free ports of the loopback, as far as anybody can tell.
fn free_ports() -> anyhow::Result<[u16; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()])
}

/// A program that runs, with the file that has its output.
struct Program {
    label: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    fn start(label: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start the {label}"))?;
        Ok(Self { label: label.to_owned(), child, log: log.to_owned() })
    }

    /// Waits until `api` says that it is ready.
    async fn ready(&mut self, api: &Api) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the {} ended with {status}; its last lines:\n{}", self.label, self.last_lines());
            }
            if api.is_ready().await {
                return Ok(());
            }
            if begun.elapsed() > START_MAX {
                bail!(
                    "the {} is not ready after {START_MAX:?}; its last lines:\n{}",
                    self.label,
                    self.last_lines()
                );
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn last_lines(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(8).collect();
        lines.into_iter().rev().map(|line| format!("      {line}\n")).collect()
    }

    fn id(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// As the kernel does when the machine fails: without a warning.
    async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("cannot end the {}", self.label))
    }

    /// Asks it to end, and insists when it does not.
    async fn stop(&mut self) -> anyhow::Result<bool> {
        let asked = Command::new("kill").args(["-TERM", &self.id().to_string()]).status().await;
        if asked.is_ok_and(|status| status.success())
            && let Ok(ended) = tokio::time::timeout(STOP_MAX, self.child.wait()).await
        {
            return Ok(ended?.success());
        }
        self.kill().await?;
        Ok(false)
    }
}

/// A running `llm-config-hub dev`.
pub struct Hub {
    program: Program,
    data: PathBuf,
    logs: PathBuf,
    ports: [u16; 2],
    pub api: Api,
}

impl Hub {
    /// Starts a hub with its data below `data`, and waits until it answers.
    ///
    /// # Errors
    /// When it does not start; its last lines are in the message.
    pub async fn start(data: &Path, logs: &Path) -> anyhow::Result<Self> {
        let ports = free_ports()?;
        let program = Self::run(data, logs, ports)?;
        let url = format!("http://127.0.0.1:{}", ports[0]);
        let api = Api::hub(&url, None)?;
        let mut hub = Self { program, data: data.to_owned(), logs: logs.to_owned(), ports, api };
        hub.program.ready(&hub.api).await?;
        let token = std::fs::read_to_string(hub.token_file()).context("the hub wrote no admin token")?;
        hub.api = Api::hub(&url, Some(&token))?;
        Ok(hub)
    }

    fn run(data: &Path, logs: &Path, [api, sync]: [u16; 2]) -> anyhow::Result<Program> {
        let mut command = Command::new(programs()?.join("llm-config-hub"));
        command.arg("dev").arg("--data").arg(data);
        command.args([
            "--listen",
            &format!("127.0.0.1:{api}"),
            "--sync-listen",
            &format!("127.0.0.1:{sync}"),
        ]);
        Program::start("hub", &mut command, &logs.join("hub.log"))
    }

    /// Where the REST API listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// Where edges connect to.
    pub fn sync_address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.ports[1]).into()
    }

    /// The file with the admin's token.
    pub fn token_file(&self) -> PathBuf {
        self.data.join("admin.token")
    }

    /// The hub's own certificate authority.
    pub fn ca_file(&self) -> PathBuf {
        self.data.join("ca.pem")
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.program.id()
    }

    /// Ends it without a warning.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.program.kill().await
    }

    /// Starts it again after [`Hub::kill`], on the same data and ports.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.program = Self::run(&self.data, &self.logs, self.ports)?;
        self.program.ready(&self.api).await
    }

    /// Asks it to end; whether it did so in good order.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn stop(&mut self) -> anyhow::Result<bool> {
        self.program.stop().await
    }
}

/// A running `llm-config edge run`.
pub struct Edge {
    program: Program,
    pub name: String,
    data: PathBuf,
    logs: PathBuf,
    socket: PathBuf,
    pub api: Api,
}

/// How an edge is started.
pub struct EdgeOptions<'a> {
    pub name: &'a str,
    pub data: &'a Path,
    pub logs: &'a Path,
    /// Folder of the socket: short, for a socket's path has at most 107 bytes.
    pub sockets: &'a Path,
    /// Where the hub is reached: the address of a proxy.
    pub hub: SocketAddr,
    pub ca: &'a Path,
    pub join_token: &'a str,
}

impl Edge {
    /// Joins and runs an edge, as `llm-config edge join` and `llm-config edge run` do.
    ///
    /// # Errors
    /// When it cannot join or does not start.
    pub async fn join(options: EdgeOptions<'_>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(options.data)?;
        let token_file = options.data.with_extension("join-token");
        write_private(&token_file, options.join_token)?;
        let hub = format!("https://{}", options.hub);
        let joined = Command::new(programs()?.join("llm-config"))
            .args(["edge", "join", "--hub", &hub, "--ca"])
            .arg(options.ca)
            .arg("--token-file")
            .arg(&token_file)
            .arg("--data")
            .arg(options.data)
            .kill_on_drop(true)
            .output()
            .await?;
        if !joined.status.success() {
            bail!("edge {} could not join: {}", options.name, String::from_utf8_lossy(&joined.stderr).trim());
        }
        std::fs::remove_file(&token_file)?;
        let socket = options.sockets.join(format!("{}.sock", options.name));
        let program = Self::run(options.name, options.data, &socket, options.logs)?;
        let api = Api::edge(&socket);
        let (data, logs) = (options.data.to_owned(), options.logs.to_owned());
        Ok(Self { program, name: options.name.to_owned(), data, logs, socket, api })
    }

    fn run(name: &str, data: &Path, socket: &Path, logs: &Path) -> anyhow::Result<Program> {
        let mut command = Command::new(programs()?.join("llm-config"));
        command.args(["edge", "run", "--data"]).arg(data).arg("--socket").arg(socket);
        Program::start(&format!("edge {name}"), &mut command, &logs.join(format!("{name}.log")))
    }

    /// Waits until it has data and answers.
    ///
    /// # Errors
    /// When it ends, or is not ready in time.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        self.program.ready(&self.api).await
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where its replica lies.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.program.id()
    }

    /// Ends it without a warning and starts it again on the same data.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn kill_and_restart(&mut self) -> anyhow::Result<()> {
        self.program.kill().await?;
        self.program = Self::run(&self.name, &self.data, &self.socket, &self.logs)?;
        self.ready().await
    }

    /// Asks it to end; whether it did so in good order.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn stop(&mut self) -> anyhow::Result<bool> {
        self.program.stop().await
    }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
