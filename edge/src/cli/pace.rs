//! Pace: changes are acted on when they pause, and then after a random while, so that a fleet does not restart at once.

use std::time::{Duration, Instant};

use llm_config_proto::rest::duration;

/// How soon a change is acted on.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Pace")]
pub(crate) struct PaceArgs {
    /// Act on changes when there was none for this long
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = length)]
    pub(crate) settle: Duration,
    /// Act on them this long after the first one, even if they do not pause
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = length)]
    pub(crate) settle_max: Duration,
    /// And then wait up to this long, at random, so that not every machine of a fleet acts at once
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = length)]
    pub(crate) splay: Duration,
}

/// A length of time, as `500ms`, `30s` or `5m`.
pub(crate) fn length(text: &str) -> Result<Duration, String> {
    let parsed = duration::parse_ms(text).map(Duration::from_millis);
    parsed.ok_or_else(|| "give a length of time, as 500ms, 30s or 5m".to_owned())
}

/// Waits for changes to pause. Reads no clock.
#[derive(Clone, Debug)]
pub(crate) struct Settling {
    quiet: Duration,
    most: Duration,
    /// The first and the last change that nobody acted on yet.
    span: Option<(Instant, Instant)>,
}

impl Settling {
    pub(crate) fn new(pace: &PaceArgs) -> Self {
        Self { quiet: pace.settle, most: pace.settle_max, span: None }
    }

    /// Something may have changed.
    pub(crate) fn changed(&mut self, now: Instant) {
        let first = self.span.map_or(now, |(first, _)| first);
        self.span = Some((first, now));
    }

    /// When to act; none while nothing changed.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.span.map(|(first, last)| (last + self.quiet).min(first + self.most))
    }

    /// Whether it is time to act; what changed so far counts as acted on then.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let due = self.due().is_some_and(|due| due <= now);
        if due {
            self.span = None;
        }
        due
    }
}

/// Pauses between attempts: twice as long each time, up to a maximum, and at random between half and all of that.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, attempts: 0 }
    }

    /// The pause before the next attempt. `chance` is between 0 and 1.
    pub(crate) fn next(&mut self, chance: f64) -> Duration {
        let full = self.first.saturating_mul(2_u32.saturating_pow(self.attempts)).min(self.most);
        self.attempts = self.attempts.saturating_add(1);
        full.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }

    /// It went well: the next pause is a short one.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn changes_are_waited_for_until_they_pause_but_not_for_ever() {
        let pace = PaceArgs { settle: SECOND, settle_max: 3 * SECOND, splay: SECOND };
        let (start, mut settling) = (Instant::now(), Settling::new(&pace));
        assert_eq!(settling.due(), None);
        assert!(!settling.take(start));
        settling.changed(start);
        assert!(!settling.take(start + SECOND / 2));
        settling.changed(start + SECOND / 2);
        assert_eq!(settling.due(), Some(start + SECOND * 3 / 2));
        for tenth in 6..30 {
            settling.changed(start + SECOND * tenth / 10);
        }
        assert_eq!(settling.due(), Some(start + 3 * SECOND), "the maximum");
        assert!(settling.take(start + 3 * SECOND));
        assert_eq!(settling.due(), None, "acted on");
    }

    #[test]
    fn pauses_grow_to_a_maximum_and_are_never_all_the_same() {
        let mut backoff = Backoff::new(SECOND, 5 * SECOND);
        let pauses: Vec<_> = [1.0, 0.0, 1.0, 0.5, 1.0].map(|chance| backoff.next(chance)).into();
        assert_eq!(pauses, [SECOND, SECOND, 4 * SECOND, SECOND * 15 / 4, 5 * SECOND]);
        for _ in 0..100 {
            assert!(backoff.next(1.0) <= 5 * SECOND);
        }
        backoff.reset();
        assert_eq!(backoff.next(1.0), SECOND);
    }

    #[test]
    fn lengths_of_time_are_read_as_everywhere() {
        assert_eq!(length("500ms"), Ok(SECOND / 2));
        assert!(length("soon").unwrap_err().contains("500ms"));
    }
}
