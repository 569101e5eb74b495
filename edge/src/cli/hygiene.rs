//! Hygiene of a process that holds secrets in clear: they are not left in a core dump.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

use super::exit::Failure;

/// From now on, no core of this process is written, and other processes of the user cannot look into it. What it starts
/// writes no core either, unless it asks for that itself.
///
/// # Errors
/// When the system refuses it.
pub(crate) fn leave_no_traces() -> Result<(), Failure> {
    let refused = |error| Failure::failed(format!("cannot switch core dumps off: {error}"));
    let maximum = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum }).map_err(refused)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused)
}
