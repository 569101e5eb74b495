//! The only clock of the edge: time since the program began, and the wall clock as it was at that moment.
//!
//! Stepping the wall clock changes nothing while the program runs. The monotonic clock stands still while the machine
//! sleeps, and an age that leaves a night out would be a lie, so the boot-time clock corrects it where the system tells
//! it (Linux: `/proc/uptime`, to 10 ms).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as MonotonicInstant, SystemTime};

use llm_config_shared::time::{Instant, UnixMillis};

/// The correction is looked at so often, in milliseconds.
const BOOT_TIME_EVERY_MS: u64 = 1_000;
/// The boot-time clock is read to 10 ms; less than this is no sleep.
const SLEEP_MS_MIN: u64 = 100;

/// Gives the time as the replication core and the readers' answers use it.
pub struct Clock {
    started: MonotonicInstant,
    /// The boot-time clock when the program began, where there is one.
    boot_ms_at_start: Option<u64>,
    wall_at_start: UnixMillis,
    slept_ms: AtomicU64,
    looked_at_ms: AtomicU64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::start()
    }
}

impl Clock {
    /// Begins now.
    pub fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self {
            started: MonotonicInstant::now(),
            boot_ms_at_start: boot_ms(),
            wall_at_start: UnixMillis(since_1970.as_millis() as u64),
            slept_ms: AtomicU64::new(0),
            looked_at_ms: AtomicU64::new(0),
        }
    }

    /// Milliseconds since the program began, sleep of the machine included.
    pub fn now(&self) -> Instant {
        let awake_ms = self.started.elapsed().as_millis() as u64;
        let looked_at_ms = self.looked_at_ms.load(Ordering::Relaxed);
        if awake_ms >= looked_at_ms + BOOT_TIME_EVERY_MS {
            self.looked_at_ms.store(awake_ms, Ordering::Relaxed);
            self.notice_sleep(awake_ms);
        }
        Instant(awake_ms + self.slept_ms.load(Ordering::Relaxed))
    }

    /// The wall clock, as it was when the program began and moved on since.
    pub fn wall(&self) -> UnixMillis {
        UnixMillis(self.wall_at_start.0 + self.now().0)
    }

    /// How long until `deadline`; nothing if it has passed.
    pub fn until(&self, deadline: Instant) -> Duration {
        Duration::from_millis(deadline - self.now())
    }

    fn notice_sleep(&self, awake_ms: u64) {
        let (Some(at_start), Some(now)) = (self.boot_ms_at_start, boot_ms()) else { return };
        let slept_ms = now.saturating_sub(at_start).saturating_sub(awake_ms);
        if slept_ms >= self.slept_ms.load(Ordering::Relaxed) + SLEEP_MS_MIN {
            self.slept_ms.fetch_max(slept_ms, Ordering::Relaxed);
        }
    }
}

fn boot_ms() -> Option<u64> {
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = uptime.split(' ').next()?.parse().ok()?;
    Some((seconds * 1_000.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back_and_the_wall_clock_follows_it() {
        let clock = Clock::start();
        let (first, wall) = (clock.now(), clock.wall());
        let second = clock.now();
        assert!(second >= first);
        assert!(clock.wall() >= wall);
        assert_eq!(clock.until(first), Duration::ZERO);
    }

    #[test]
    fn sleep_of_the_machine_is_counted_once_and_jitter_is_not() {
        let mut clock = Clock::start();
        let Some(now) = boot_ms() else { return };
        clock.boot_ms_at_start = Some(now.saturating_sub(50));
        clock.notice_sleep(0);
        assert_eq!(clock.slept_ms.load(Ordering::Relaxed), 0);
        clock.boot_ms_at_start = Some(now.saturating_sub(60_000));
        clock.notice_sleep(0);
        assert!(clock.now().0 >= 60_000);
    }
}
