//! A token bucket: so many at once, so many a second, and when to come back for the others.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Admits `burst` at once and `rate` a second after that.
pub(super) struct Bucket {
    rate: f64,
    burst: f64,
    level: Mutex<Level>,
}

struct Level {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn new(rate: f64, burst: f64) -> Self {
        Self { rate, burst, level: Mutex::new(Level { tokens: burst, at: Instant::now() }) }
    }

    /// Takes one.
    ///
    /// # Errors
    /// When there is none: how long until there should be one, spread so that those refused do not come back together.
    pub(super) fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(level.at).as_secs_f64();
        level.tokens = (level.tokens + since * self.rate).min(self.burst);
        level.at = level.at.max(now);
        if level.tokens >= 1.0 {
            level.tokens -= 1.0;
            return Ok(());
        }
        let refill = self.burst / self.rate;
        Err(Duration::from_secs_f64((1.0 - level.tokens) / self.rate + refill * rand::random::<f64>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_at_the_rate() {
        let bucket = Bucket::new(10.0, 3.0);
        let start = Instant::now();
        assert_eq!((0..5).filter(|_| bucket.take(start).is_ok()).count(), 3);
        assert!(bucket.take(start).unwrap_err() <= Duration::from_millis(400));
        let later = start + Duration::from_millis(250);
        assert_eq!((0..5).filter(|_| bucket.take(later).is_ok()).count(), 2);
        let much_later = start + Duration::from_secs(60);
        assert_eq!((0..5).filter(|_| bucket.take(much_later).is_ok()).count(), 3);
    }
}
