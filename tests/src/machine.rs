//! A machine as `systemd-creds` knows it: a key of the host of its own, and a TPM, played by `swtpm`. The real program does the
//! work; a script before it in `PATH` tells it which machine this is.
//!
//! A TPM of the kernel (`/dev/tpmrm0`) puts its few slots in order after each program; the bare one of `swtpm` is tidied up by
//! the script.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{Process, free_address};
use crate::scratch::Scratch;
use crate::wait::eventually;

/// Has a key of the host; a TPM where one was put in.
#[derive(Debug)]
pub struct Machine {
    folder: PathBuf,
    tpm: Option<Tpm>,
}

#[derive(Debug)]
struct Tpm {
    port: u16,
    process: Option<Process>,
}

impl Machine {
    /// Without a TPM.
    ///
    /// # Panics
    /// When `systemd-creds` is not installed.
    pub fn new(scratch: &Scratch, name: &str) -> Self {
        let folder = scratch.path(&format!("machine-{name}"));
        fs::create_dir_all(folder.join("tpm")).unwrap();
        fs::create_dir_all(folder.join("bin")).unwrap();
        let machine = Self { folder, tpm: None };
        machine.write_script();
        machine
    }

    /// With a new TPM, as after a start of the machine.
    ///
    /// # Panics
    /// When `swtpm` or `tpm2-tools` is not installed.
    pub async fn with_tpm(scratch: &Scratch, name: &str) -> Self {
        let mut machine = Self::new(scratch, name);
        let state = machine.folder.join("tpm");
        let made = Command::new(installed("swtpm_setup"))
            .args(["--tpm2", "--pcr-banks", "sha256", "--tpmstate"])
            .arg(&state)
            .output()
            .unwrap();
        assert!(made.status.success(), "swtpm_setup: {}", String::from_utf8_lossy(&made.stdout));
        machine.tpm = Some(Tpm { port: two_free_ports(), process: None });
        machine.write_script();
        machine.power_on().await;
        machine
    }

    /// Starts it, with the firmware state that it always has.
    ///
    /// # Panics
    /// When the TPM does not answer.
    pub async fn power_on(&mut self) {
        let (state, log) = (self.folder.join("tpm"), self.folder.join("swtpm.log"));
        let tpm = self.tpm.as_mut().expect("a machine with a TPM");
        let mut command = Command::new(installed("swtpm"));
        command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"]);
        command.arg("--tpmstate").arg(format!("dir={}", state.display()));
        command.arg("--server").arg(format!("type=tcp,port={}", tpm.port));
        command.arg("--ctrl").arg(format!("type=tcp,port={}", tpm.port + 1));
        tpm.process = Some(Process::start(&mut command, "swtpm", &log));
        eventually("the TPM answers", async || if self.extend(1) { Ok(()) } else { Err(()) }).await;
    }

    /// Switches it off: what a TPM holds in registers is gone, what it keeps stays.
    pub fn power_off(&mut self) {
        self.tpm.as_mut().expect("a machine with a TPM").process = None;
    }

    /// Other firmware runs from now on, until it is switched off.
    ///
    /// # Panics
    /// When the TPM does not answer.
    pub fn change_firmware(&self) {
        assert!(self.extend(2), "the TPM does not answer");
    }

    fn extend(&self, with: u8) -> bool {
        let device = self.device().expect("a machine with a TPM");
        let extended = Command::new(installed("tpm2_pcrextend"))
            .arg(format!("7:sha256={with:064x}"))
            .env("TPM2TOOLS_TCTI", device)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        extended.unwrap().success()
    }

    fn device(&self) -> Option<String> {
        self.tpm.as_ref().map(|tpm| format!("swtpm:host=127.0.0.1,port={}", tpm.port))
    }

    /// What makes a process one of this machine.
    ///
    /// # Panics
    /// When there is no `PATH`.
    pub fn environment(&self) -> Vec<(String, String)> {
        let path = format!("{}:{}", self.folder.join("bin").display(), std::env::var("PATH").unwrap());
        let mut environment = vec![("PATH".to_owned(), path)];
        environment.extend(self.device().map(|device| ("LLM_CONFIG_TPM_DEVICE".to_owned(), device)));
        environment
    }

    /// What `systemd-creds` makes of some bytes on this machine; what it says where it refuses.
    ///
    /// # Errors
    /// When it refuses.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn creds(&self, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
        let mut command = Command::new(self.folder.join("bin/systemd-creds"));
        command.args(arguments);
        if let Some(device) = self.device() {
            command.arg(format!("--tpm2-device={device}"));
        }
        command.args(["-", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may refuse before it has read everything.
        let _ = child.stdin.take().expect("piped").write_all(input);
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn write_script(&self) {
        let (program, secret) = (installed("systemd-creds"), self.folder.join("credential.secret"));
        let mut script = format!(
            "#!/bin/sh\nSYSTEMD_CREDENTIAL_SECRET='{}'; export SYSTEMD_CREDENTIAL_SECRET\n'{}' \"$@\"\ncode=$?\n",
            secret.display(),
            program.display()
        );
        if let Some(device) = self.device() {
            let flush = installed("tpm2_flushcontext");
            script += &format!(
                "for slots in -t -l -s; do TPM2TOOLS_TCTI='{device}' '{}' $slots >/dev/null 2>&1; done\n",
                flush.display()
            );
        }
        script += "exit $code\n";
        let path = self.folder.join("bin/systemd-creds");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// The TPM's commands and its control, which the TPM's library takes to be one port further. Both are asked for, so that no
/// other test gets the second.
fn two_free_ports() -> u16 {
    let mut first = free_address().port();
    loop {
        let second = free_address().port();
        if second == first + 1 {
            return first;
        }
        first = second;
    }
}

fn installed(program: &str) -> PathBuf {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder: PathBuf| folder.join(program))
        .find(|path: &PathBuf| Path::exists(path))
        .unwrap_or_else(|| panic!("{program} is not installed: tests/run gets swtpm, tpm2-tools and systemd"))
}
