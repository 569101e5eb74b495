//! Warnings before secrets expire: each given once, by the process that leads, as an event, a log line and figures.
//!
//! What was given stands in the database, so a restart or another leader gives nothing twice.

use std::sync::Arc;
use std::time::Duration;

use llm_config_shared::time::UnixMillis;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Expiry;
use crate::processes::Role;
use crate::registry::{Expiring, Registry};
use crate::writer::WriterHandle;

const DAY_MS: u64 = 86_400_000;
/// Most secrets looked at in one pass; the next pass goes on.
const LOOKED_AT_MAX: usize = 1_000;

/// Watches over what expires.
pub struct Watchman<R> {
    registry: Arc<R>,
    writer: WriterHandle,
    settings: Expiry,
    /// The number of the last warning that this process knows of: whoever follows events waits for it.
    newest: watch::Sender<u64>,
}

impl<R: Registry> Watchman<R> {
    /// Over the hub's database. `writer` knows whether this process leads.
    pub fn new(registry: Arc<R>, writer: WriterHandle, settings: Expiry) -> Self {
        Self { registry, writer, settings, newest: watch::Sender::new(0) }
    }

    /// Rises when a warning was given.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Looks at once, and then again and again until `stop`.
    pub async fn keep(self, clock: impl Fn() -> UnixMillis, stop: CancellationToken) {
        let passes = async {
            let mut ticks = tokio::time::interval(self.settings.check_every);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if let Err(error) = self.pass(clock()).await {
                    tracing::warn!(%error, "could not look for secrets that expire");
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = passes => {}
        }
    }

    async fn pass(&self, now: UnixMillis) -> Result<(), llm_config_shared::store::JournalError> {
        let longest = self.settings.warn_days.iter().max().copied().unwrap_or(0);
        let horizon = UnixMillis(now.0.saturating_add(longest * DAY_MS));
        let outlook = self.registry.outlook(horizon).await?;
        metrics::gauge!("secrets_expiring").set(outlook.count as f64);
        let soonest = self.registry.outlook(UnixMillis(i64::MAX as u64)).await?.soonest;
        let seconds = soonest.map_or(f64::INFINITY, |at| (at.0 as f64 - now.0 as f64) / 1_000.0);
        metrics::gauge!("secrets_soonest_expiry_seconds").set(seconds);
        if self.writer.role() == Role::Leading {
            let close = self.registry.to_warn_of(horizon, LOOKED_AT_MAX).await?;
            let due = close.into_iter().filter_map(|secret| {
                let days = days_left(secret.expires_at, now, &self.settings.warn_days)?;
                Some((secret, days))
            });
            let due: Vec<_> = due.collect();
            for (secret, days) in self.registry.warn(&due, now).await? {
                tell(&secret, days);
            }
        }
        let newest = self.registry.warning_mark().await?;
        self.newest.send_if_modified(|known| std::mem::replace(known, newest) != newest);
        Ok(())
    }
}

fn tell(secret: &Expiring, days: u64) {
    let scope = &secret.at.scope;
    let expires_at = secret.expires_at.to_rfc3339();
    metrics::counter!("secret_expiry_warnings_total").increment(1);
    if days == 0 {
        tracing::warn!(tenant = %scope.tenant, namespace = %scope.namespace, environment = %scope.environment,
            key = %secret.at.key, version = secret.version, expires_at, "a secret has expired");
    } else {
        tracing::warn!(tenant = %scope.tenant, namespace = %scope.namespace, environment = %scope.environment,
            key = %secret.at.key, version = secret.version, expires_at, "a secret expires within {days} days");
    }
}

/// The smallest number of days within which it expires, of those that are warned of; 0 when it has, none when all are too
/// small.
fn days_left(expires_at: UnixMillis, now: UnixMillis, warn_days: &[u64]) -> Option<u64> {
    let left = expires_at.0.saturating_sub(now.0);
    if left == 0 {
        return Some(0);
    }
    warn_days.iter().copied().filter(|days| left <= days * DAY_MS).min()
}

/// What `check_every` is unless it is set.
pub const CHECK_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_of_the_smallest_number_of_days_that_is_left() {
        let days = |left_ms| {
            days_left(UnixMillis(10_000 * DAY_MS + left_ms), UnixMillis(10_000 * DAY_MS), &[30, 7, 1])
        };
        assert_eq!(days(31 * DAY_MS), None);
        assert_eq!(days(30 * DAY_MS), Some(30));
        assert_eq!(days(7 * DAY_MS + 1), Some(30));
        assert_eq!(days(7 * DAY_MS), Some(7));
        assert_eq!(days(1), Some(1));
        assert_eq!(days(0), Some(0), "expired");
        assert_eq!(days_left(UnixMillis(5), UnixMillis(9), &[]), Some(0));
        assert_eq!(days_left(UnixMillis(9), UnixMillis(5), &[]), None);
    }
}
