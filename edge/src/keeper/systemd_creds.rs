//! The program `systemd-creds`: it wraps with a key of the system that only root can read, or with the TPM, so that no
//! library of a TPM is linked. Keys go in and come out by its pipes, never by arguments or files.

use std::env;
use std::io::{self, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::KeeperError;

const PROGRAM: &str = "systemd-creds";
/// A TPM may take seconds; one that takes so long does not answer.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Blobs and keys are smaller than what a pipe holds, so that writing all before reading cannot block.
const BYTES_MAX: usize = 32 << 10;
/// Names the TPM for `--tpm2-device`, where it is not the system's own.
const DEVICE_VARIABLE: &str = "LLM_CONFIG_TPM_DEVICE";
/// The registers of the TPM that have to be as they were when keys were wrapped; by default the state of Secure Boot.
const PCRS_VARIABLE: &str = "LLM_CONFIG_TPM_PCRS";
const PCRS: &str = "7";

/// With what `systemd-creds` wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lock {
    keeper: &'static str,
    with_key: &'static str,
    remedy: &'static str,
}

pub(super) const HOST: Lock = Lock {
    keeper: "systemd-creds",
    with_key: "host",
    remedy: "it needs systemd 250 or newer and root, on the machine where the keys were made; else choose --key file",
};
pub(super) const TPM: Lock = Lock {
    keeper: "the TPM",
    with_key: "tpm2",
    remedy: "it needs systemd 250 or newer with its TPM libraries, access to /dev/tpmrm0 (or LLM_CONFIG_TPM_DEVICE), and the \
             machine and firmware state with which the keys were wrapped",
};

impl Lock {
    pub(super) fn encrypt(self, name: &str, plain: &[u8]) -> Result<Vec<u8>, KeeperError> {
        let mut arguments = vec!["encrypt".to_owned(), format!("--with-key={}", self.with_key)];
        if self == TPM {
            let pcrs = env::var(PCRS_VARIABLE).unwrap_or_else(|_| PCRS.to_owned());
            arguments.push(format!("--tpm2-pcrs={pcrs}"));
        }
        self.run(arguments, name, plain).map(|blob| blob.to_vec())
    }

    pub(super) fn decrypt(self, name: &str, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeeperError> {
        self.run(vec!["decrypt".to_owned()], name, blob)
    }

    /// Gives what the program wrote, if it says that all went well.
    fn run(
        self,
        arguments: Vec<String>,
        name: &str,
        input: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeeperError> {
        if input.len() > BYTES_MAX {
            return Err(self.refused("more bytes than keys have"));
        }
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg(format!("--name={name}"));
        if self == TPM {
            let device = env::var(DEVICE_VARIABLE).unwrap_or_else(|_| "auto".to_owned());
            command.arg(format!("--tpm2-device={device}"));
        }
        // Of the environment only where programs are: tokens and settings of systemd are none of its business.
        let path = env::var_os("PATH").unwrap_or_default();
        command.args(["-", "-"]).env_clear().env("PATH", path).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                return self.refused("the program systemd-creds is missing");
            }
            self.refused(format!("systemd-creds cannot be started: {error}"))
        })?;
        let exchanged = exchange(&mut child, input);
        if exchanged.is_err() {
            // It has ended already, or is of no use any more.
            let _ = child.kill();
            let _ = child.wait();
        }
        let (well, output, said) =
            exchanged.map_err(|error| self.refused(format!("systemd-creds: {error}")))?;
        if well { Ok(output) } else { Err(self.refused(last_line(&said))) }
    }

    fn refused(self, why: impl Into<String>) -> KeeperError {
        KeeperError::Refused { keeper: self.keeper, why: why.into(), remedy: self.remedy }
    }
}

/// Whether it ended well, what it wrote, and what it said about it.
fn exchange(child: &mut Child, input: &[u8]) -> io::Result<(bool, Zeroizing<Vec<u8>>, String)> {
    let mut stdin = child.stdin.take().expect("piped");
    // A program that ends before it has read everything says why on its own.
    match stdin.write_all(input) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
        _ => drop(stdin),
    }
    let began = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if began.elapsed() > PATIENCE => return Err(io::ErrorKind::TimedOut.into()),
            None => std::thread::sleep(LOOK_EVERY),
        }
    };
    // Room for everything at once: bytes that had to move would stay behind.
    let mut output = Zeroizing::new(Vec::with_capacity(2 * BYTES_MAX));
    child.stdout.take().expect("piped").take(2 * BYTES_MAX as u64 - 1).read_to_end(&mut output)?;
    let mut said = Vec::new();
    child.stderr.take().expect("piped").take(BYTES_MAX as u64).read_to_end(&mut said)?;
    Ok((status.success(), output, String::from_utf8_lossy(&said).into_owned()))
}

/// It says most in its last line.
fn last_line(said: &str) -> String {
    let line = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it did not say why");
    line.trim_end_matches('.').chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_the_program_says_the_last_line_is_told() {
        assert_eq!(last_line("WARNING: this\nFailed to open: no TPM.\n\n"), "Failed to open: no TPM");
        assert_eq!(last_line(""), "it did not say why");
    }
}
