//! Hygiene of a process that holds keys in clear: they are not left in a core dump.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// From now on no core of this process is written, and other processes of its user cannot look into it. Where the system
/// refuses that, the hub serves all the same and says so.
pub fn leave_no_traces() {
    let maximum = getrlimit(Resource::Core).maximum;
    let limited = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum });
    if let Err(error) = limited.and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable)) {
        tracing::warn!(%error, "core dumps cannot be switched off; they would hold keys");
    }
}
