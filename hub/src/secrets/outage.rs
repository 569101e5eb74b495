//! What is wrong with whoever holds the key-encryption key elsewhere, and when it may be asked again.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause after a failure; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Short enough that an outage is over at the hub soon after it is over, and no burden for whoever is away.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// What is asked for is granted up to here.
const ASKED_MAX: Duration = Duration::from_secs(300);

/// An outage, as this hub sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble<R> {
    pub(super) reason: R,
    /// Failures in a row.
    failures: u32,
    pub(super) retry_at: Instant,
}

impl<R> Trouble<R> {
    /// One more failure. `asked` is how long to wait by what was answered; `chance` is random, from 0 to 1.
    pub(super) fn after(
        before: Option<&Self>,
        reason: R,
        asked: Option<Duration>,
        now: Instant,
        chance: f64,
    ) -> Self {
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        let doubled = PAUSE_MIN.saturating_mul(1 << (failures - 1).min(8)).min(PAUSE_MAX);
        // Hubs that lost it at the same moment do not come back at the same moment.
        let pause = doubled.mul_f64(0.5 + chance / 2.0);
        let asked = asked.map(|asked| asked.min(ASKED_MAX).mul_f64(1.0 + chance / 10.0));
        Self { reason, failures, retry_at: now + pause.max(asked.unwrap_or_default()) }
    }

    /// How long it is left alone from now, in seconds.
    pub(super) fn retry_after_s(&self, now: Instant) -> u32 {
        let left = self.retry_at.saturating_duration_since(now).as_secs() + 1;
        u32::try_from(left).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Reason {
        Sealed,
        RateLimited,
    }

    #[test]
    fn pauses_grow_to_a_bound_and_what_is_asked_for_is_granted() {
        let now = Instant::now();
        let mut trouble = Trouble::after(None, Reason::Sealed, None, now, 1.0);
        assert_eq!(trouble.retry_at - now, PAUSE_MIN);
        for _ in 0..40 {
            let next = Trouble::after(Some(&trouble), Reason::Sealed, None, now, 1.0);
            assert!(next.retry_at >= trouble.retry_at && next.retry_at - now <= PAUSE_MAX);
            trouble = next;
        }
        assert_eq!(trouble.retry_at - now, PAUSE_MAX);
        let half = Trouble::after(Some(&trouble), Reason::Sealed, None, now, 0.0);
        assert_eq!(half.retry_at - now, PAUSE_MAX / 2, "chance spreads them");

        let minute = Some(Duration::from_secs(60));
        let limited = Trouble::after(None, Reason::RateLimited, minute, now, 0.0);
        assert_eq!(limited.retry_at - now, Duration::from_secs(60));
        assert_eq!(limited.retry_after_s(now), 61);
        let year = Some(Duration::from_secs(31_536_000));
        assert!(Trouble::after(None, Reason::RateLimited, year, now, 1.0).retry_at - now < ASKED_MAX * 2);
    }
}
