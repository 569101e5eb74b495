//! The real programs as processes: started, watched, stopped politely or killed, and never left behind.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

/// How long a program may take to obey.
const PATIENCE: Duration = Duration::from_secs(30);

/// The folder of the programs that cargo built: this test lies in `deps` below it.
///
/// # Panics
/// When the test was not started by cargo.
pub fn programs() -> PathBuf {
    let test = env::current_exe().expect("a test has a path");
    test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps").to_owned()
}

/// The path of a program of the workspace.
///
/// # Panics
/// When it has not been built.
pub fn program(name: &str) -> PathBuf {
    let path = programs().join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    path
}

/// An address on loopback that nothing listens on. Outside the range from which the kernel takes ports for
/// outgoing connections, so that it stays free while a program restarts on it.
///
/// # Panics
/// When the whole range is taken.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests that are started together have numbers close to each other.
    let base = u16::try_from(std::process::id().wrapping_mul(97) % 10_000).expect("below ten thousand");
    for _ in 0..10_000 {
        let port = 20_000 + (base + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port between 20000 and 30000");
}

/// A command whose files can't grow beyond a size: past it, writing fails as on a full disk.
pub fn limited(program: &Path, file_kib_max: Option<u32>) -> Command {
    let Some(kib) = file_kib_max else {
        return Command::new(program);
    };
    let mut command = Command::new("bash");
    command.args(["-c", &format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"")]).arg(program);
    command
}

/// A running program. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it prints is appended to the log.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(command: &mut Command, name: &str, log: &Path) -> Self {
        let out = File::options().create(true).append(true).open(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        Self { child, name: name.to_owned(), log: log.to_owned() }
    }

    /// What it has printed so far, in this and in earlier runs.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// Ends it at once, as a power cut would: `kill -9`.
    pub fn kill(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Panics
    /// When it does not obey.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "{} does not end; its log:\n{}", self.name, self.tail());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal by name: `STOP` freezes it, `CONT` lets it go on.
    ///
    /// # Panics
    /// When the signal can't be sent.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status();
        assert!(sent.expect("kill runs").success(), "{}: no signal {signal}", self.name);
    }

    /// The last lines of its log, for a report.
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    #[allow(clippy::print_stderr, reason = "the harness reports to whoever reads the test's output")]
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- {} ({})\n{}", self.name, self.log.display(), self.tail());
        }
    }
}

/// What a command that ran to its end said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Its output, when it ended well.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("programs print UTF-8");
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Runs a program of the workspace to its end, bounded in time, apart from the environment of whoever runs the test.
///
/// # Panics
/// When it can't be started.
pub async fn run(name: &str, args: impl IntoIterator<Item = impl Into<OsString>>) -> Said {
    run_with(name, args, &[]).await
}

/// The same with more in its environment.
///
/// # Panics
/// When it can't be started.
pub async fn run_with(
    name: &str,
    args: impl IntoIterator<Item = impl Into<OsString>>,
    environment: &[(String, String)],
) -> Said {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let mut command = Command::new("timeout");
    command.arg("60").arg(program(name)).args(args);
    for variable in ["LLM_CONFIG_SOCKET", "LLM_CONFIG_HUB", "LLM_CONFIG_TOKEN"] {
        command.env_remove(variable);
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let told = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
    told.await.expect("not cancelled").unwrap_or_else(|e| panic!("{name}: {e}")).into()
}
