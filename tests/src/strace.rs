//! Faults of a disk, put into the system calls of a program by `strace`: killed at a call, or told that it failed; or
//! nothing is wrong, and all that it writes is recorded.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// More bytes than any one call has.
const WHOLE_STRINGS: &str = "64000000";

/// What happens to a program at some of its system calls. Calls are counted for each thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// Names of calls with commas between them.
    calls: String,
    /// None: they are recorded, with every byte.
    what: Option<String>,
    /// Only where they concern these files; none: everywhere.
    files: Vec<PathBuf>,
}

impl Injection {
    /// Killed, as a power cut would, when a thread makes one of these calls for the `nth` time.
    pub fn kill(calls: &str, nth: u16) -> Self {
        Self { calls: calls.to_owned(), what: Some(format!("signal=SIGKILL:when={nth}")), files: Vec::new() }
    }

    /// From the `nth` time on, a thread is told that the call failed, and it does nothing.
    pub fn fail(calls: &str, error: &str, nth: u16) -> Self {
        Self { calls: calls.to_owned(), what: Some(format!("error={error}:when={nth}+")), files: Vec::new() }
    }

    /// Nothing; the log has all bytes and the paths of all files, for [`crate::powercut::calls::Calls`].
    pub fn record(calls: &str) -> Self {
        Self { calls: calls.to_owned(), what: None, files: Vec::new() }
    }

    /// They fail only after this time.
    #[must_use]
    pub fn late(mut self, delay: Duration) -> Self {
        let what = self.what.as_mut().expect("something happens");
        what.push_str(&format!(":delay_enter={}", delay.as_micros()));
        self
    }

    /// Only where a call concerns one of these files.
    #[must_use]
    pub fn at(mut self, files: Vec<PathBuf>) -> Self {
        self.files = files;
        self
    }

    /// The program under `strace`, which runs as its grandchild: the process that is started is the program itself, and
    /// signals and its end are its own. What `strace` saw goes to the log.
    ///
    /// # Panics
    /// When `strace` is not installed: what needs it must not pass without it.
    pub fn command(&self, program: &Path, log: &Path) -> Command {
        let mut command = Command::new(installed());
        command.args(["-D", "-f", "-qq", "-I", "1", "-o"]).arg(log);
        for file in &self.files {
            command.arg("-P").arg(file);
        }
        command.arg("-e").arg(format!("trace={}", self.calls));
        match &self.what {
            Some(what) => command.arg("-e").arg(format!("inject={}:{what}", self.calls)),
            None => command.args(["-y", "-xx", "-s", WHOLE_STRINGS]),
        };
        command.arg(program);
        command
    }

    /// Nothing is wrong any more with a program that runs: its tracer, which the kernel names, lets go of it.
    ///
    /// # Panics
    /// When it has no tracer, or keeps it.
    pub fn end(pid: u32) {
        let tracer = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
            line.map(|pid| pid.trim().to_owned()).filter(|pid| pid != "0")
        };
        let told = tracer().expect("somebody traces it");
        let asked = Command::new("kill").args(["-TERM", &told]).status().expect("kill runs");
        assert!(asked.success(), "no signal to {told}");
        let began = std::time::Instant::now();
        while tracer().is_some() {
            assert!(began.elapsed() < Duration::from_secs(10), "strace does not let go");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether anything was injected, from the log of the run.
    pub fn happened(log: &Path) -> bool {
        std::fs::read_to_string(log)
            .is_ok_and(|log| log.contains("INJECTED") || log.contains("killed by SIGKILL"))
    }
}

fn installed() -> PathBuf {
    let paths: OsString = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths)
        .map(|folder| folder.join("strace"))
        .find(|program| program.exists())
        .expect("strace is not installed: install the package `strace` (tests/run does it)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    fn run(injection: &Injection, folder: &Path, script: &str) -> std::process::ExitStatus {
        let mut command = injection.command(Path::new("/bin/sh"), &folder.join("log"));
        command.args(["-c", script]).current_dir(folder).stderr(std::process::Stdio::null()).status().unwrap()
    }

    /// The log's writer is a little behind the program, and ends after it.
    fn until_it_happened(log: &Path) {
        let began = std::time::Instant::now();
        while !Injection::happened(log) {
            assert!(began.elapsed() < Duration::from_secs(10), "nothing was injected");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_program_is_killed_at_the_call_that_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let killed =
            run(&Injection::kill("write", 3), folder.path(), "for n in 1 2 3 4; do echo $n; done > out");
        assert_eq!(killed.signal(), Some(9));
        assert_eq!(std::fs::read_to_string(folder.path().join("out")).unwrap(), "1\n2\n", "before the third");
    }

    #[test]
    fn calls_fail_from_the_one_that_is_named_on_and_only_at_the_files_that_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (out, other) = (folder.path().join("out"), folder.path().join("other"));
        let injection = Injection::fail("write", "ENOSPC", 2).at(vec![out.clone()]);
        run(&injection, folder.path(), "for n in 1 2 3; do echo $n >> out; echo $n >> other; done");
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "1\n");
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "1\n2\n3\n");
        until_it_happened(&folder.path().join("log"));
    }

    #[test]
    fn a_fault_ends_when_the_tracer_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let (log, out) = (folder.path().join("log"), folder.path().join("out"));
        let mut command =
            Injection::fail("write", "EIO", 1).at(vec![out.clone()]).command(Path::new("/bin/sh"), &log);
        command.args(["-c", "until echo a >> out; do sleep 0.01; done"]).current_dir(folder.path());
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        until_it_happened(&log);
        Injection::end(child.id());
        assert!(child.wait().unwrap().success());
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "a\n");
    }
}
