//! The step between us and the program: a process that arranges to end with its parent, and then becomes the program.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::super::output;

/// The name of the hidden command.
pub(super) const NAME: &str = "exec-step";
/// What shells say of a program that is not there, and of one that cannot be run.
const NOT_THERE: u8 = 127;
const NOT_TO_BE_RUN: u8 = 126;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StepArgs {
    /// The process with which this one ends
    parent: i32,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the program; returns only if it cannot.
pub(crate) fn run(args: &StepArgs) -> ExitCode {
    let name = args.command[0].to_string_lossy();
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        output::note(format!("llm-config: cannot tie {name} to its parent: {error}"));
        return ExitCode::from(NOT_TO_BE_RUN);
    }
    // It may have ended before the kernel knew that we want to end with it.
    if getppid().map(Pid::as_raw_nonzero).is_none_or(|parent| parent.get() != args.parent) {
        return ExitCode::from(NOT_TO_BE_RUN);
    }
    let error = Command::new(&args.command[0]).args(&args.command[1..]).exec();
    output::note(format!("llm-config: cannot run {name}: {error}"));
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_THERE } else { NOT_TO_BE_RUN })
}
