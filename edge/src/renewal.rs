//! Keeping the certificate young: renewed at half of its life, and at once when the hub does not take it. With it goes the
//! key that the hub seals to, which is replaced every 30 days.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use llm_config_proto::sync::{Dial, RefusalKind, SyncError};
use llm_config_shared::replication::backoff::Backoff;
use llm_config_shared::time::UnixMillis;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::daemon::handle::Handle;
use crate::daemon::notes::{Notes, Topic};
use crate::identity::{EdgeIdentity, IdentityError};
use crate::join::{self, JoinError, Renewed};
use crate::keys::{EdgeKeys, KeyError};
use crate::view::View;
use crate::wipe;

/// However long a certificate is good, it is renewed after so long, in milliseconds.
const HALF_LIFE_MS_MAX: u64 = 12 * 3_600_000;
/// However short it seems, by a clock that is wrong, not more often than this.
const HALF_LIFE_MS_MIN: u64 = 60_000;
/// While an older key is kept for what is sealed to it, whether that is still so is looked at so often; the newest is at least
/// as old then, so that every process of the hub has heard of it.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A sealing key that could not be replaced is tried again after this time: the certificate does not wait for it.
const SEALING_PAUSE: Duration = Duration::from_secs(3_600);
/// A fleet that joined as one does not renew as one: so many percent earlier or later.
const JITTER_PERCENT: u64 = 10;

/// Everything that renewing touches.
pub(crate) struct Renewal {
    pub(crate) directory: PathBuf,
    pub(crate) keys: Arc<EdgeKeys>,
    pub(crate) identity: Arc<ArcSwap<EdgeIdentity>>,
    pub(crate) dial: Arc<ArcSwap<Dial>>,
    pub(crate) handle: Handle,
    pub(crate) notes: Arc<Notes>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) view: Arc<View>,
    pub(crate) wake: Arc<Notify>,
}

impl Renewal {
    /// Renews until told to stop. No failure ends it.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(random());
        let mut wait = self.until_due(Duration::ZERO);
        loop {
            let pause = if self.keys.sealing.count() > 1 { wait.min(LOOK_EVERY) } else { wait };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {
                    wait -= pause;
                    self.drop_older_keys().await;
                    if !wait.is_zero() {
                        continue;
                    }
                }
                () = self.wake.notified() => {}
            }
            wait = match self.renew(&stop).await {
                Ok(()) => {
                    backoff.reset();
                    self.until_due(SEALING_PAUSE)
                }
                Err(error) => {
                    self.note(&error);
                    Duration::from_millis(backoff.next_delay(1_000))
                }
            };
        }
    }

    /// The hub has removed this edge and signed that: from here on a start of the daemon finishes what was begun.
    fn wipe(&self, identity: &EdgeIdentity, stop: &CancellationToken) -> Result<(), JoinError> {
        wipe::begin(&self.directory, identity, &self.keys, self.clock.wall())?;
        tracing::warn!("the hub has removed this edge; its data is destroyed now");
        stop.cancel();
        Ok(())
    }

    async fn renew(&self, stop: &CancellationToken) -> Result<(), JoinError> {
        let before = self.identity.load_full();
        if let Err(error) = self.begin_sealing_key().await {
            tracing::warn!(%error, "the key that the hub seals to could not be replaced; it is tried again");
        }
        let credentials = match join::renew(&before, &self.keys, self.clock.wall()).await? {
            Renewed::Credentials(credentials) => *credentials,
            Renewed::Removed => return self.wipe(&before, stop),
        };
        let new_keys = credentials.verification_keys != before.credentials.verification_keys;
        let identity = EdgeIdentity { credentials, ..EdgeIdentity::clone(&before) };
        let directory = self.directory.clone();
        let stored = identity.clone();
        let stored = tokio::task::spawn_blocking(move || stored.store(&directory)).await;
        stored.map_err(|error| IdentityError::Damaged {
            path: self.directory.clone(),
            what: error.to_string(),
        })??;
        self.dial.store(Arc::new(join::dial(&identity, &self.keys)?));
        let valid_until = identity.credentials.valid_until.to_rfc3339();
        self.identity.store(Arc::new(identity));
        self.notes.clear(Topic::Certificate);
        tracing::info!(valid_until, "certificate renewed");
        if new_keys {
            self.handle.reload().await;
        }
        self.handle.connect_now().await;
        Ok(())
    }

    fn note(&self, error: &JoinError) {
        let removed = matches!(error, JoinError::Hub(SyncError::Refused(refusal)) if refusal.kind == RefusalKind::Removed);
        let text = if removed {
            "the hub does not know this edge any more; leave and join again with a new token".to_owned()
        } else {
            format!("the certificate could not be renewed: {error}")
        };
        if self.notes.warn(Topic::Certificate, text.clone()) {
            tracing::warn!("{text}");
        }
    }

    /// Until the certificate or the sealing key is due; that one not before `pause`.
    fn until_due(&self, pause: Duration) -> Duration {
        let (credentials, now) = (&self.identity.load().credentials, self.clock.wall());
        let certificate = due_in(credentials.obtained_at, credentials.valid_until, now, random());
        certificate.min(Duration::from_millis(self.keys.sealing.due_in_ms(now)).max(pause))
    }

    /// Where the newest key is old, another goes before it, durable before the hub hears of it. The hub learns of it by the
    /// renewal that follows, and seals everything anew to it in the session after that.
    async fn begin_sealing_key(&self) -> Result<(), KeyError> {
        if self.keys.sealing.due_in_ms(self.clock.wall()) > 0 {
            return Ok(());
        }
        self.keys.sealing.begin(self.clock.wall())?;
        if let Err(error) = self.store_keys().await {
            self.keys.sealing.take_back();
            return Err(error);
        }
        tracing::info!("the key that the hub seals to is replaced");
        Ok(())
    }

    /// An older key goes when everything that it opened has come anew.
    async fn drop_older_keys(&self) {
        let sealing = &self.keys.sealing;
        let fresh = u128::from(sealing.age_ms(self.clock.wall())) < LOOK_EVERY.as_millis();
        if sealing.count() < 2 || fresh || !sealing.retain(|public| self.view.needs_sealing_key(public)) {
            return;
        }
        match self.store_keys().await {
            Ok(()) => tracing::info!("nothing is sealed to the key from before any more; it is destroyed"),
            Err(error) => {
                tracing::warn!(%error, "the key from before is still on the disk; the next change of keys removes it")
            }
        }
    }

    /// By the keeper, which may be slow.
    async fn store_keys(&self) -> Result<(), KeyError> {
        let (keys, directory) = (Arc::clone(&self.keys), self.directory.clone());
        let stored = tokio::task::spawn_blocking(move || keys.store(&directory)).await;
        stored.unwrap_or_else(|error| {
            Err(KeyError::Io { path: self.directory.clone(), source: std::io::Error::other(error) })
        })
    }
}

/// The hub issues certificates that were good already yesterday, so that clocks that are behind take them: what counts
/// is when this one was obtained.
fn due_in(obtained_at: UnixMillis, valid_until: UnixMillis, now: UnixMillis, random: u64) -> Duration {
    let life_ms = valid_until.0.saturating_sub(obtained_at.0);
    let half_ms = (life_ms / 2).clamp(HALF_LIFE_MS_MIN, HALF_LIFE_MS_MAX);
    let spread_ms = half_ms * JITTER_PERCENT / 100;
    let jittered_ms = half_ms - spread_ms + random % (2 * spread_ms + 1);
    // A clock that was set back since must not put the renewal off by years.
    Duration::from_millis((obtained_at.0 + jittered_ms).saturating_sub(now.0).min(jittered_ms))
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without random bytes the edge renews at the exact half: late for nobody.
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn renewal_is_due_at_half_of_the_life_give_or_take_a_tenth() {
        let (from, until) = (UnixMillis(1_000 * HOUR_MS), UnixMillis(1_024 * HOUR_MS));
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            let due = due_in(from, until, from, random).as_millis() as u64;
            assert!((12 * HOUR_MS * 9 / 10..=12 * HOUR_MS * 11 / 10).contains(&due), "{due}");
        }
        assert_eq!(due_in(from, until, UnixMillis(2_000 * HOUR_MS), 5), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_is_wrong_neither_floods_the_hub_nor_forgets_to_renew() {
        let until = UnixMillis(1_024 * HOUR_MS);
        let ahead = due_in(UnixMillis(2_000 * HOUR_MS), until, UnixMillis(2_000 * HOUR_MS), 0);
        assert!(ahead >= Duration::from_secs(50));
        let set_back = due_in(UnixMillis(1_000 * HOUR_MS), until, UnixMillis(0), 0);
        assert!(set_back <= Duration::from_secs(14 * 3_600));
    }
}
