//! When to try again: full jitter (Brooker, "Exponential Backoff And Jitter", 2015), so that a fleet does not return as one.

use crate::limits::{RECONNECT_MS_MAX, RECONNECT_MS_MIN};

/// Pauses between attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    attempts: u32,
    random: u64,
}

impl Backoff {
    /// Equal seeds give equal pauses.
    pub fn new(seed: u64) -> Self {
        Self { attempts: 0, random: seed }
    }

    /// An attempt succeeded: the next pause is short again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// How long to wait, in milliseconds: anything up to a ceiling that doubles with each attempt, but not less than
    /// `at_least`, which the hub may have asked for.
    pub fn next_delay(&mut self, at_least: u64) -> u64 {
        let ceiling = RECONNECT_MS_MIN.saturating_mul(1 << self.attempts.min(16)).min(RECONNECT_MS_MAX);
        self.attempts = self.attempts.saturating_add(1);
        at_least.min(RECONNECT_MS_MAX) + self.next_random() % ceiling
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_under_a_ceiling_that_doubles_and_start_anew_after_success() {
        let mut backoff = Backoff::new(1);
        let first: Vec<u64> = (0..12).map(|_| backoff.next_delay(0)).collect();
        for (n, delay) in first.iter().enumerate() {
            assert!(*delay < (RECONNECT_MS_MIN << n).min(RECONNECT_MS_MAX), "attempt {n}: {delay}");
        }
        assert!(first.iter().any(|delay| *delay > RECONNECT_MS_MIN));
        backoff.reset();
        assert!(backoff.next_delay(0) < RECONNECT_MS_MIN);
        assert!(backoff.next_delay(5_000) >= 5_000);
    }
}
