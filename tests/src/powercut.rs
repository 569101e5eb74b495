//! What a power cut leaves on a disk. `kill -9` keeps all that a program wrote, in the kernel's memory; a power cut keeps
//! what was synced, and of everything else whatever the disk happened to get to.
//!
//! [`calls::Calls`] is what a real program did to its files, every byte, as `strace` recorded it; [`disk::Disk`] replays it and builds the
//! images that a cut at any moment may leave. The rules, each the strictest that a journalling file system keeps:
//!
//! - Of a file there is what was written before its last `fsync` or `fdatasync` began. `sync_file_range` counts as nothing.
//! - Of what was written after that, each block of 512 or 4,096 bytes is there in one of the states that it had since, whatever
//!   became of its neighbours and of what was written before: later blocks without earlier ones, and torn pages. The length
//!   is one of those that the file had since, and what lies below it and was not written reads as zeros.
//! - Names change in order (ext4's journal), and are there for certain once their directory was synced; a file's own `fsync`
//!   is no promise about its name.

mod blocks;
pub mod calls;
pub mod disk;
