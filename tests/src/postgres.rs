//! PostgreSQL for tests: a private cluster per test process, a database of its own for each test.
//!
//! The cluster is started from the installed programs, as an unprivileged user when the tests run as root, without
//! syncing: what it holds is worth nothing. A small shell waits for the test process to end, however it ends, stops the
//! cluster and removes its files.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::{free_address, programs};

static SHARED: OnceLock<Cluster> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);
static CLUSTERS: AtomicU32 = AtomicU32::new(0);

/// Where one empty database is: `postgres://app@127.0.0.1:PORT/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgUrl(String);

impl PgUrl {
    /// As a hub's configuration wants it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PgUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A new empty database in the cluster of this process.
///
/// # Panics
/// When PostgreSQL is not installed or does not start.
pub fn database() -> PgUrl {
    SHARED.get_or_init(Cluster::start).database()
}

/// A running PostgreSQL that a test may stop and start.
#[derive(Debug)]
pub struct Cluster {
    bin: PathBuf,
    data: PathBuf,
    port: u16,
    /// Its standard input closes with this process.
    _watch: Child,
}

impl Cluster {
    /// A cluster of its own, for tests that take it away; others share one through [`database`].
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    pub fn start() -> Self {
        let bin = installed();
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let data = folder(&format!("{}-{number}", std::process::id()));
        let mut init = as_server(&bin.join("initdb"));
        init.arg("-D").arg(&data).args([
            "-U",
            "app",
            "--auth=trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--no-locale",
        ]);
        run(&mut init);
        let cluster = Self { port: free_address().port(), _watch: watch(&bin, &data), bin, data };
        cluster.resume();
        cluster
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// When it does not start.
    pub fn resume(&self) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c synchronous_commit=off \
             -c full_page_writes=off -c max_connections=400",
            self.port
        );
        let mut start = as_server(&self.bin.join("pg_ctl"));
        start
            .arg("-D")
            .arg(&self.data)
            .arg("-l")
            .arg(self.data.join("log"))
            .args(["-w", "-o", &options, "start"]);
        run(&mut start);
    }

    /// Takes it away at once, connections and all.
    ///
    /// # Panics
    /// When it cannot be stopped.
    pub fn stop(&self) {
        let mut stop = as_server(&self.bin.join("pg_ctl"));
        run(stop.arg("-D").arg(&self.data).args(["-w", "-m", "immediate", "stop"]));
    }

    /// Freezes the server and all of its sessions, as a machine that hangs does.
    ///
    /// # Panics
    /// When a signal can't be sent.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets them go on.
    ///
    /// # Panics
    /// When a signal can't be sent.
    pub fn unpause(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let file = fs::read_to_string(self.data.join("postmaster.pid")).expect("it runs");
        let server = file.lines().next().expect("its first line is its number").to_owned();
        // The server first: it starts no session then.
        run(Command::new("kill").arg(format!("-{signal}")).arg(&server));
        let children =
            fs::read_to_string(format!("/proc/{server}/task/{server}/children")).expect("Linux tells");
        for process in children.split_whitespace() {
            // One that has ended meanwhile needs no signal.
            let _ =
                Command::new("kill").arg(format!("-{signal}")).arg(process).stderr(Stdio::null()).status();
        }
    }

    /// A new empty database.
    ///
    /// # Panics
    /// When it cannot be created.
    pub fn database(&self) -> PgUrl {
        let name = format!("t{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let mut create = Command::new(self.bin.join("createdb"));
        let port = self.port.to_string();
        run(create.args(["-h", "127.0.0.1", "-p", &port, "-U", "app", &name]).current_dir("/"));
        PgUrl(format!("postgres://app@127.0.0.1:{}/{name}", self.port))
    }
}

/// The newest installed version's programs.
fn installed() -> PathBuf {
    let named = std::env::var_os("LLM_CONFIG_POSTGRES_BIN").map(PathBuf::from);
    let version = |path: &PathBuf| -> u32 {
        let name = path.parent().and_then(Path::file_name).unwrap_or_default();
        name.to_string_lossy().parse().unwrap_or(0)
    };
    let packaged = || -> Option<PathBuf> {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        versions.flatten().map(|entry| entry.path().join("bin")).max_by_key(version)
    };
    let on_path = || -> Option<PathBuf> {
        let paths = std::env::var_os("PATH")?;
        std::env::split_paths(&paths).find(|folder| folder.join("initdb").exists())
    };
    named
        .or_else(packaged)
        .or_else(on_path)
        .filter(|bin| bin.join("initdb").exists() && bin.join("pg_ctl").exists())
        .expect("PostgreSQL is not installed: install the package `postgresql` (tests/run does it)")
}

fn is_root() -> bool {
    let told = Command::new("id").arg("-u").output().expect("id runs");
    told.stdout.starts_with(b"0\n")
}

/// The server refuses to run as root.
fn as_server(program: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    // The server's user must be able to stand in its working directory.
    command.current_dir("/").env("LC_ALL", "C");
    command
}

/// A folder for the server's files: below `target`, or where temporary files go when its user cannot come there.
fn folder(name: &str) -> PathBuf {
    let target = programs().parent().expect("programs lie below target").join("postgres");
    for parent in [target, std::env::temp_dir().join("llm-config-postgres")] {
        fs::create_dir_all(&parent).unwrap();
        let data = parent.join(name);
        let mut make = Command::new("install");
        make.args(["-d", "-m", "0700"]);
        if is_root() {
            make.args(["-o", "postgres", "-g", "postgres"]);
        }
        run(make.arg(&data));
        let reached = as_server(Path::new("test")).arg("-w").arg(&data).status().expect("test runs");
        if reached.success() {
            return data;
        }
        fs::remove_dir_all(&data).unwrap();
    }
    panic!("no folder that PostgreSQL's user can write to");
}

/// Ends the cluster when this process is gone.
fn watch(bin: &Path, data: &Path) -> Child {
    let script = r#"trap "" INT TERM HUP; cat >/dev/null; "$@" -m immediate stop; rm -rf "$DATA""#;
    let stop = as_server(&bin.join("pg_ctl"));
    let mut watch = Command::new("sh");
    watch.args(["-c", script, "watch"]).arg(stop.get_program()).args(stop.get_args()).arg("-D").arg(data);
    watch.env("DATA", data).current_dir("/");
    watch.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    watch.spawn().expect("sh runs")
}

fn run(command: &mut Command) {
    // The server keeps what it inherits open: a pipe would never end.
    let said = tempfile::NamedTempFile::new().unwrap();
    let out = said.reopen().unwrap();
    let status = command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).status();
    let status = status.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {}", fs::read_to_string(said.path()).unwrap());
}
