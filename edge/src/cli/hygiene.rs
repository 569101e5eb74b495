//! Hygiene of a process that holds secrets in clear: they are not left in a core dump, nor in swap where that can be had.

use llm_config_edge::memory::{LockMemory, keep_out_of_swap};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

use super::exit::Failure;

/// From now on, no core of this process is written, and other processes of the user cannot look into it. What it starts
/// writes no core either, unless it asks for that itself. Where the system lets it, none of its memory goes to swap.
///
/// # Errors
/// When the system refuses it.
pub(crate) fn leave_no_traces() -> Result<(), Failure> {
    no_core()?;
    keep_out_of_swap(LockMemory::Auto).map_err(|error| Failure::failed(error.to_string()))
}

/// The first half of it, for who decides about the other.
///
/// # Errors
/// When the system refuses it.
pub(crate) fn no_core() -> Result<(), Failure> {
    let refused = |error| Failure::failed(format!("cannot switch core dumps off: {error}"));
    let maximum = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum }).map_err(refused)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused)
}
