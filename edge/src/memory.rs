//! Memory that never goes to a disk: keys, and the copies of them that TLS and ciphers make, are kept out of swap by locking
//! all pages of the process as they come to be used, rather than the few that we know of.

use std::str::FromStr;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// Whether the process locks its memory (`--lock-memory`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockMemory {
    /// Where the system lets it lock as much as it likes.
    #[default]
    Auto,
    /// It does not start where it cannot.
    Always,
    Never,
}

/// A `--lock-memory` that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown choice: {0}; write auto, always or never")]
pub struct InvalidLockMemory(String);

/// `always`, and the memory cannot be locked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLocked {
    #[error(
        "this process may lock only {0} KiB of memory, and needs to lock all of it: set LimitMEMLOCK=infinity in its unit, \
         `ulimit -l unlimited` in its shell or `--ulimit memlock=-1` of its container, or leave --lock-memory always out"
    )]
    Limited(u64),
    #[error("the system does not let this process lock its memory ({0}); leave --lock-memory always out")]
    Refused(rustix::io::Errno),
}

impl FromStr for LockMemory {
    type Err = InvalidLockMemory;

    fn from_str(text: &str) -> Result<Self, InvalidLockMemory> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            other => Err(InvalidLockMemory(other.to_owned())),
        }
    }
}

/// From now on no page of this process goes to swap, where `choice` and the system say so. What it starts is not locked.
///
/// # Errors
/// With [`LockMemory::Always`], when the system refuses.
pub fn keep_out_of_swap(choice: LockMemory) -> Result<(), NotLocked> {
    match choice {
        LockMemory::Always => lock(),
        LockMemory::Auto => {
            // `edge status` and `doctor` say how it came out.
            let _ = lock();
            Ok(())
        }
        LockMemory::Never => Ok(()),
    }
}

fn lock() -> Result<(), NotLocked> {
    // Under a bound every allocation beyond it would fail from now on: whoever may lock a little locks nothing.
    if let Some(bytes) = getrlimit(Resource::Memlock).current
        && !may_lock_everything()
    {
        return Err(NotLocked::Limited(bytes >> 10));
    }
    // As they are used: the stacks and buffers that nobody touched take no memory for it.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(flags).map_err(NotLocked::Refused)
}

fn may_lock_everything() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}

/// Whether this process's memory is locked, as the kernel says.
pub fn is_locked() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| says_locked(&status))
}

fn says_locked(status: &str) -> bool {
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    locked.is_some_and(|locked| locked.trim().trim_end_matches(" kB") != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read() {
        assert_eq!("always".parse(), Ok(LockMemory::Always));
        assert_eq!("auto".parse(), Ok(LockMemory::default()));
        let unknown = "yes".parse::<LockMemory>().unwrap_err();
        assert_eq!(unknown.to_string(), "unknown choice: yes; write auto, always or never");
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        assert!(says_locked("VmPin:\t       0 kB\nVmLck:\t    1200 kB\n"));
        assert!(!says_locked("VmLck:\t       0 kB\n"));
        assert!(!says_locked(""));
    }
}
