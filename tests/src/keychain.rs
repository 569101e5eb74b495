//! A real keychain: GNOME Keyring on a session bus of its own, in a home of its own. Nothing of whoever runs the tests is touched.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::Process;
use crate::scratch::{Scratch, copy_folder};
use crate::wait::eventually;

/// How long it may fail to say what it has.
const PATIENCE: Duration = Duration::from_secs(10);
const COLLECTION: &str = "/org/freedesktop/secrets/collection/login";

/// The keychain of somebody, who has logged in or not.
#[derive(Debug)]
pub struct UserKeychain {
    folder: PathBuf,
    socket: PathBuf,
    password: String,
    _bus: Process,
    daemon: Option<Process>,
}

impl UserKeychain {
    /// A new user, who has logged in.
    ///
    /// # Panics
    /// When the packages dbus and gnome-keyring are not installed.
    pub async fn new(scratch: &Scratch, name: &str) -> Self {
        let mut keychain = Self::logged_out(scratch, name, "correct horse battery").await;
        keychain.log_in().await;
        keychain
    }

    /// With a copy of somebody's files, on a session and machine of their own, and what they take to be the password.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub async fn stolen(scratch: &Scratch, name: &str, from: &Self, password: &str) -> Self {
        let mut keychain = Self::logged_out(scratch, name, password).await;
        copy_folder(&from.home(), &keychain.home());
        keychain.log_in().await;
        keychain
    }

    /// Somebody with a session bus, and no keychain on it.
    async fn logged_out(scratch: &Scratch, name: &str, password: &str) -> Self {
        let folder = scratch.path(&format!("keychain-{name}"));
        for part in ["home", "run"] {
            fs::create_dir_all(folder.join(part)).unwrap();
            fs::set_permissions(folder.join(part), fs::Permissions::from_mode(0o700)).unwrap();
        }
        let socket = scratch.socket(&format!("bus-{name}"));
        // No services that the bus would start by itself: who is there was started here.
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n<busconfig><type>session</type>\
             <listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
             <allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>\n",
            socket.display()
        );
        let config = folder.join("bus.conf");
        fs::write(&config, text).unwrap();
        let mut command = Command::new("dbus-daemon");
        command.arg("--config-file").arg(&config).args(["--nofork", "--nopidfile"]);
        let bus = Process::start(&mut command, "dbus-daemon", &folder.join("bus.log"));
        let waited = socket.clone();
        eventually("the bus is there", async || if waited.exists() { Ok(()) } else { Err(()) }).await;
        fs::write(folder.join("password"), password).unwrap();
        Self { folder, socket, password: password.to_owned(), _bus: bus, daemon: None }
    }

    /// Where its files are.
    fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// The file with what it has, as it lies on the disk.
    pub fn file(&self) -> PathBuf {
        self.home().join("keyrings/login.keyring")
    }

    /// The keychain opens, as when its user logs in.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn log_in(&mut self) {
        self.daemon = None;
        let mut command = Command::new("bash");
        command
            .args(["-c", "exec gnome-keyring-daemon --unlock \"$@\" < \"$0\""])
            .arg(self.folder.join("password"));
        self.start(command).await;
    }

    /// The keychain is there, and nobody has opened it: as after a start of the machine.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn reboot(&mut self) {
        self.daemon = None;
        self.start(Command::new("gnome-keyring-daemon")).await;
    }

    /// There is no keychain any more.
    pub fn log_out(&mut self) {
        self.daemon = None;
    }

    async fn start(&mut self, mut command: Command) {
        command.args(["--foreground", "--components=secrets", "--control-directory"]);
        command.arg(self.folder.join("run"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.home()).env("XDG_DATA_HOME", self.home());
        command.env("XDG_RUNTIME_DIR", self.folder.join("run")).envs(self.environment());
        self.daemon = Some(Process::start(&mut command, "gnome-keyring-daemon", &self.folder.join("log")));
        eventually("the keychain answers", async || {
            let process = self.daemon.as_mut().expect("just started");
            if let Some(status) = process.ended() {
                panic!("gnome-keyring-daemon ended with {status}: {}", process.tail());
            }
            self.call("org.freedesktop.Secret.Service.ReadAlias", "string:default")
        })
        .await;
    }

    /// Somebody locks it, and goes away.
    ///
    /// # Panics
    /// When it does not obey.
    pub fn lock(&self) {
        self.call("org.freedesktop.Secret.Service.Lock", &format!("array:objpath:{COLLECTION}")).unwrap();
    }

    /// It does not answer any more; with false it does again.
    ///
    /// # Panics
    /// When it is not there.
    pub fn freeze(&self, frozen: bool) {
        let daemon = self.daemon.as_ref().expect("a keychain that is there");
        daemon.signal(if frozen { "STOP" } else { "CONT" });
    }

    /// How many items there are of ours.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn items(&self) -> usize {
        let began = Instant::now();
        loop {
            let asked = "dict:string:string:application,llm-config";
            match self.call("org.freedesktop.Secret.Service.SearchItems", asked) {
                Ok(told) => return told.matches(&format!("{COLLECTION}/")).count(),
                // Now and then, just after a client of it was killed, it says that it has no such method.
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What makes a process one of this session.
    pub fn environment(&self) -> Vec<(String, String)> {
        vec![("DBUS_SESSION_BUS_ADDRESS".to_owned(), self.address())]
    }

    /// Where its bus is.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket.display())
    }

    /// Its user's password.
    pub fn password(&self) -> &str {
        &self.password
    }

    fn call(&self, method: &str, argument: &str) -> Result<String, String> {
        let mut command = Command::new("dbus-send");
        command.arg(format!("--bus={}", self.address()));
        command.args([
            "--print-reply",
            "--dest=org.freedesktop.secrets",
            "/org/freedesktop/secrets",
            method,
            argument,
        ]);
        let output = command.output().unwrap();
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Whether a file of a keychain holds some text as it is.
///
/// # Panics
/// When it can't be read.
pub fn holds(file: &Path, text: &[u8]) -> bool {
    fs::read(file).unwrap().windows(text.len()).any(|window| window == text)
}
