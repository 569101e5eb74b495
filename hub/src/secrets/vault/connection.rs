//! Requests to Vault: one at a time, with a distance between them, within a time, and none while it is known to be away.
//!
//! That bounds what any number of waiting callers can do to Vault, and how long each of them waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustify::client::Client as _;
use rustify::endpoint::MiddleWare as _;
use serde_json::Value as Json;
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::Instant;
use vaultrs::api::EndpointMiddleware;
use vaultrs::client::{Client as _, Identity, VaultClient, VaultClientSettingsBuilder};

use super::error::{Reason, VaultError};
use super::session::{Failed, Session};
use super::settings::{Hidden, VaultAuth, VaultSettings};
use crate::secrets::outage;

type Trouble = outage::Trouble<Reason>;

/// At most fifty requests in a second, also when many roots are loaded.
const DISTANCE: Duration = Duration::from_millis(20);

/// Why there is no answer of use.
#[derive(Debug)]
pub(super) enum AskError {
    Away(VaultError),
    /// Vault is well and says no to this request. What it said is for looking into, not for showing.
    Refused {
        status: u16,
        said: String,
    },
}

/// What came back.
pub(super) struct Heard {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Json,
}

impl Heard {
    pub(super) fn is_fine(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Vault is well and says no.
    fn refused(&self) -> AskError {
        let errors = self.body["errors"].as_array().into_iter().flatten().filter_map(Json::as_str);
        AskError::Refused { status: self.status, said: errors.collect::<Vec<_>>().join("; ") }
    }

    /// Vault is of no use now.
    pub(super) fn failed(&self) -> Failed {
        let reason = match self.status {
            403 => Reason::Denied,
            429 => Reason::RateLimited,
            473 | 503 => Reason::Sealed,
            status => Reason::Failing(status),
        };
        Failed { reason, asked: self.retry_after }
    }

    /// Vault does not know the hub, or not any more.
    pub(super) fn failed_login(&self) -> Failed {
        match self.status {
            400 | 401 | 403 | 404 => Failed::of(Reason::LoginRefused),
            _ => self.failed(),
        }
    }
}

/// The way to one Vault.
pub(super) struct Connection {
    pub(super) settings: VaultSettings,
    client: VaultClient,
    turn: Mutex<Session>,
    trouble: watch::Sender<Option<Trouble>>,
    /// Somebody else finds out when an outage is over, so no caller has to wait for that.
    kept: AtomicBool,
}

impl Connection {
    pub(super) fn new(settings: VaultSettings) -> Result<Self, VaultError> {
        let mut builder = VaultClientSettingsBuilder::default();
        // Every default of the builder is looked up in the environment, which the hub's settings did already.
        // Its own time is but a backstop: ours ends first, and says that it was time.
        builder.address(&settings.addr).token("").verify(true).timeout(Some(settings.timeout * 2));
        builder.ca_certs(settings.ca_cert.iter().map(|path| path.display().to_string()).collect());
        builder.identity(identity(&settings.auth)?);
        let built = builder.build().map_err(|error| VaultError::SetUp(error.to_string()))?;
        let client = VaultClient::new(built).map_err(|error| VaultError::SetUp(error.to_string()))?;
        let (trouble, _) = watch::channel(None);
        Ok(Self { settings, client, turn: Mutex::default(), trouble, kept: AtomicBool::new(false) })
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.trouble.borrow().clone()
    }

    /// From now on somebody looks after it.
    pub(super) fn is_kept(&self, kept: bool) {
        self.kept.store(kept, Ordering::Relaxed);
    }

    /// Asks as the hub for something that is not about its key: what is denied is refused, and nothing follows from it.
    pub(super) async fn ask_beside<E: rustify::Endpoint>(
        &self,
        operation: &'static str,
        request: &E,
    ) -> Result<Json, AskError> {
        let mut session = self.turn().await?;
        if session.token.is_some() {
            let heard = self.send_as_hub(&mut session, operation, request).await;
            return match heard {
                Ok(heard) if heard.is_fine() => Ok(heard.body),
                Ok(heard) if matches!(heard.status, 400..=405) => Err(heard.refused()),
                Ok(heard) => Err(AskError::Away(self.is_away(heard.failed()))),
                Err(failed) => Err(AskError::Away(self.is_away(failed))),
            };
        }
        self.ask_now(&mut session, operation, request).await
    }

    /// Asks as the hub. A token that is gone is replaced, once.
    pub(super) async fn ask<E: rustify::Endpoint>(
        &self,
        operation: &'static str,
        request: &E,
    ) -> Result<Json, AskError> {
        let mut session = self.turn().await?;
        self.ask_now(&mut session, operation, request).await
    }

    /// The turn, for a caller who does not wait for long.
    async fn turn(&self) -> Result<MutexGuard<'_, Session>, AskError> {
        self.allowed()?;
        let waited = tokio::time::timeout(self.settings.timeout, self.turn.lock()).await;
        let Ok(session) = waited else {
            return Err(AskError::Away(VaultError::Away { reason: Reason::Slow, retry_after_s: 1 }));
        };
        // Whoever had the turn before may have found out.
        self.allowed()?;
        Ok(session)
    }

    /// The same for whoever has the turn.
    pub(super) async fn ask_now<E: rustify::Endpoint>(
        &self,
        session: &mut Session,
        operation: &'static str,
        request: &E,
    ) -> Result<Json, AskError> {
        match self.attempt(session, operation, request).await {
            Ok(heard) if heard.is_fine() => {
                self.is_well();
                Ok(heard.body)
            }
            Ok(heard) => Err(heard.refused()),
            Err(failed) => Err(AskError::Away(self.is_away(failed))),
        }
    }

    async fn attempt<E: rustify::Endpoint>(
        &self,
        session: &mut Session,
        operation: &'static str,
        request: &E,
    ) -> Result<Heard, Failed> {
        let fresh = session.token.is_none();
        if fresh {
            self.log_in(session).await?;
        }
        let mut heard = self.send_as_hub(session, operation, request).await?;
        if heard.status == 403 && !fresh {
            // Revoked, or of a Vault that was set back: a new login says whether that was it.
            session.token = None;
            self.log_in(session).await?;
            heard = self.send_as_hub(session, operation, request).await?;
        }
        match heard.status {
            200..=299 | 400 | 404 | 405 => Ok(heard),
            _ => Err(heard.failed()),
        }
    }

    async fn send_as_hub<E: rustify::Endpoint>(
        &self,
        session: &mut Session,
        operation: &'static str,
        request: &E,
    ) -> Result<Heard, Failed> {
        let token = session.token.as_ref().map(|token| token.text.clone());
        self.send(session, operation, request, token.as_ref()).await
    }

    /// One request, and nothing else at the same time.
    pub(super) async fn send<E: rustify::Endpoint>(
        &self,
        session: &mut Session,
        operation: &'static str,
        request: &E,
        token: Option<&Hidden>,
    ) -> Result<Heard, Failed> {
        if let Some(last) = session.asked_at {
            tokio::time::sleep_until(last + DISTANCE).await;
        }
        session.asked_at = Some(Instant::now());
        let heard = tokio::time::timeout(self.settings.timeout, self.exchange(request, token)).await;
        let heard = heard.unwrap_or_else(|_| Err(Failed::of(Reason::Slow)));
        let status = match &heard {
            Ok(heard) if heard.is_fine() => "success",
            Ok(Heard { status: 400 | 404 | 405, .. }) => "refused",
            Ok(heard) => heard.failed().reason.label(),
            Err(failed) => failed.reason.label(),
        };
        metrics::counter!("vault_operations_total", "operation" => operation, "status" => status)
            .increment(1);
        heard
    }

    async fn exchange<E: rustify::Endpoint>(
        &self,
        request: &E,
        token: Option<&Hidden>,
    ) -> Result<Heard, Failed> {
        let unbuilt = |_| Failed::of(Reason::Failing(0));
        let middle = EndpointMiddleware {
            token: token.map_or_else(String::new, |token| token.expose().to_owned()),
            version: "v1".to_owned(),
            wrap: None,
            namespace: self.settings.namespace.clone(),
        };
        let http = self.client.http();
        let mut built = request.request(&http.base).map_err(unbuilt)?;
        middle.request(request, &mut built).map_err(unbuilt)?;
        let answer = http.send(built).await.map_err(|_| Failed::of(Reason::Unreachable))?;
        let retry_after = answer.headers().get("retry-after").and_then(|after| after.to_str().ok());
        Ok(Heard {
            status: answer.status().as_u16(),
            retry_after: retry_after.and_then(|after| after.trim().parse().ok()).map(Duration::from_secs),
            body: serde_json::from_slice(answer.body()).unwrap_or(Json::Null),
        })
    }

    /// The turn, for whoever looks after the connection.
    pub(super) async fn take_turn(&self) -> MutexGuard<'_, Session> {
        self.turn.lock().await
    }

    /// Not while it is away: the caller hears so at once.
    fn allowed(&self) -> Result<(), AskError> {
        let now = Instant::now();
        match &*self.trouble.borrow() {
            Some(trouble) if self.kept.load(Ordering::Relaxed) || now < trouble.retry_at => {
                Err(AskError::Away(told(trouble, now)))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn is_well(&self) {
        if self.trouble.send_replace(None).is_some() {
            tracing::info!("Vault can be used again");
        }
    }

    /// Notes a failure, and gives what callers hear.
    pub(super) fn is_away(&self, failed: Failed) -> VaultError {
        let (before, now) = (self.trouble(), Instant::now());
        let Failed { reason, asked } = failed;
        if before.as_ref().is_none_or(|before| before.reason != reason) {
            tracing::warn!(%reason, "Vault cannot be used: what is in memory goes on being served");
        }
        let trouble = Trouble::after(before.as_ref(), reason, asked, now, rand::random());
        let told = told(&trouble, now);
        self.trouble.send_replace(Some(trouble));
        told
    }
}

/// What a caller hears meanwhile.
fn told(trouble: &Trouble, now: Instant) -> VaultError {
    VaultError::Away { reason: trouble.reason.clone(), retry_after_s: trouble.retry_after_s(now) }
}

/// The client certificate, where the hub logs in with one.
fn identity(auth: &VaultAuth) -> Result<Option<Identity>, VaultError> {
    let VaultAuth::Cert { cert_file, key_file, .. } = auth else {
        return Ok(None);
    };
    let mut pem = zeroize::Zeroizing::new(Vec::new());
    for path in [cert_file, key_file] {
        let part = std::fs::read(path).map(zeroize::Zeroizing::new);
        let part = part.map_err(|error| VaultError::SetUp(format!("{}: {error}", path.display())))?;
        pem.extend_from_slice(&part);
        pem.push(b'\n');
    }
    let identity = Identity::from_pem(&pem);
    identity.map(Some).map_err(|_| {
        VaultError::SetUp(format!(
            "{} and {} are no certificate with its key (PEM)",
            cert_file.display(),
            key_file.display()
        ))
    })
}
