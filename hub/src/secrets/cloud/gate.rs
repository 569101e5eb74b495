//! Requests to a cloud: one at a time, with a distance between them, within a time, and none while it is known to be
//! away. That bounds what any number of waiting callers can cost, and how long each of them waits.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::error::{CloudError, CloudReason};
use super::service::Failed;
use crate::secrets::outage;
use crate::secrets::provider::ProviderKind;

type Trouble = outage::Trouble<CloudReason>;

/// At most fifty requests in a second, also when many roots are loaded.
const DISTANCE: Duration = Duration::from_millis(20);
/// How long nothing is asked while all is well: each look is paid for.
const LOOK_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Gate {
    timeout: Duration,
    /// When the last request was made.
    turn: Mutex<Option<Instant>>,
    trouble: watch::Sender<Option<Trouble>>,
    /// Somebody else finds out when an outage is over, so no caller has to wait for that.
    kept: AtomicBool,
}

impl Gate {
    /// A request that takes longer counts as failed.
    pub(super) fn new(timeout: Duration) -> Self {
        let (trouble, _) = watch::channel(None);
        Self { timeout, turn: Mutex::default(), trouble, kept: AtomicBool::new(false) }
    }

    pub(super) fn trouble(&self) -> Option<CloudReason> {
        self.trouble.borrow().as_ref().map(|trouble| trouble.reason.clone())
    }

    /// From now on somebody looks after it, or not any more.
    pub(super) fn is_kept(&self, kept: bool) {
        self.kept.store(kept, Ordering::Relaxed);
    }

    /// Changes when it turns out to be away, and when that is over.
    pub(super) fn news(&self) -> watch::Receiver<Option<Trouble>> {
        self.trouble.subscribe()
    }

    /// When whoever looks after it asks next.
    pub(super) fn next_look(&self) -> Instant {
        match &*self.trouble.borrow() {
            Some(trouble) => trouble.retry_at,
            None => Instant::now() + LOOK_EVERY.mul_f64(0.8 + rand::random::<f64>() * 0.4),
        }
    }

    /// Makes a request, unless the cloud is known to be away.
    pub(super) async fn ask<T>(
        &self,
        provider: ProviderKind,
        operation: &'static str,
        request: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, CloudError> {
        self.allowed(provider)?;
        let Ok(turn) = timeout(self.timeout, self.turn.lock()).await else {
            return Err(CloudError::Away { provider, reason: CloudReason::Slow, retry_after_s: 1 });
        };
        // Whoever had the turn before may have found out.
        self.allowed(provider)?;
        self.request(turn, provider, operation, request).await
    }

    /// Makes a request also while it is away, to find out whether that is over.
    pub(super) async fn look<T>(
        &self,
        provider: ProviderKind,
        request: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, CloudError> {
        let turn = self.turn.lock().await;
        self.request(turn, provider, "read_key", request).await
    }

    async fn request<T>(
        &self,
        mut turn: MutexGuard<'_, Option<Instant>>,
        provider: ProviderKind,
        operation: &'static str,
        request: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, CloudError> {
        if let Some(last) = *turn {
            sleep_until(last + DISTANCE).await;
        }
        *turn = Some(Instant::now());
        let answer = timeout(self.timeout, request).await;
        let answer = answer.unwrap_or(Err(Failed::Away { reason: CloudReason::Slow, asked: None }));
        let status = match &answer {
            Ok(_) => "success",
            Err(Failed::Refused(_)) => "refused",
            Err(Failed::Away { reason, .. }) => label(reason),
        };
        let provider_label = provider.to_string();
        metrics::counter!(
            "kms_operations_total", "provider" => provider_label, "operation" => operation, "status" => status
        )
        .increment(1);
        match answer {
            Ok(answer) => {
                self.is_well(provider);
                Ok(answer)
            }
            Err(Failed::Refused(error)) => {
                self.is_well(provider);
                Err(error)
            }
            Err(Failed::Away { reason, asked }) => Err(self.is_away(provider, reason, asked)),
        }
    }

    /// Not while it is away: the caller hears so at once.
    fn allowed(&self, provider: ProviderKind) -> Result<(), CloudError> {
        let now = Instant::now();
        match &*self.trouble.borrow() {
            Some(trouble) if self.kept.load(Ordering::Relaxed) || now < trouble.retry_at => {
                Err(told(provider, trouble, now))
            }
            _ => Ok(()),
        }
    }

    fn is_well(&self, provider: ProviderKind) {
        if self.trouble.send_if_modified(|trouble| trouble.take().is_some()) {
            tracing::info!(%provider, "the provider of keys can be used again");
        }
    }

    fn is_away(&self, provider: ProviderKind, reason: CloudReason, asked: Option<Duration>) -> CloudError {
        let (before, now) = (self.trouble.borrow().clone(), Instant::now());
        if before.as_ref().is_none_or(|before| before.reason != reason) {
            let title = provider.title();
            tracing::warn!("{title} {reason}: what is in memory goes on being served");
        }
        let trouble = Trouble::after(before.as_ref(), reason, asked, now, rand::random());
        let told = told(provider, &trouble, now);
        self.trouble.send_replace(Some(trouble));
        told
    }
}

/// What a caller hears meanwhile.
fn told(provider: ProviderKind, trouble: &Trouble, now: Instant) -> CloudError {
    CloudError::Away { provider, reason: trouble.reason.clone(), retry_after_s: trouble.retry_after_s(now) }
}

/// For metrics.
fn label(reason: &CloudReason) -> &'static str {
    match reason {
        CloudReason::Unreachable => "unreachable",
        CloudReason::Slow => "timeout",
        CloudReason::Throttled => "rate_limited",
        CloudReason::Denied(_)
        | CloudReason::NoCredentials
        | CloudReason::Credentials(_)
        | CloudReason::BadCredentials => "denied",
        CloudReason::KeyDisabled
        | CloudReason::KeyNotUsable
        | CloudReason::Failing(_)
        | CloudReason::NoAnswer
        | CloudReason::Garbled => "error",
    }
}
