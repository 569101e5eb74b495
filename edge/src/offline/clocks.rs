//! Reading the clocks of this machine for the offline limit.

use std::time::{Duration, SystemTime};

use llm_config_shared::offline::{BootId, Clocks};
use llm_config_shared::time::UnixMillis;
use rustix::time::{ClockId, clock_gettime};

/// Which start of the machine this is does not change while the program runs.
pub(super) fn boot_id() -> BootId {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    // Without one a start shows in the time since it alone, which is then shorter than before.
    BootId(uuid::Uuid::try_parse(text.trim()).map_or([0; 16], uuid::Uuid::into_bytes))
}

pub(super) fn now(boot: BootId) -> Clocks {
    let up = clock_gettime(ClockId::Boottime);
    let since_boot_ms = up.tv_sec.max(0) as u64 * 1_000 + up.tv_nsec.max(0) as u64 / 1_000_000;
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Clocks { boot, since_boot_ms, wall: UnixMillis(wall.as_millis() as u64) }
}
