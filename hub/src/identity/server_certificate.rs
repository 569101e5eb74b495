//! The server certificate that the sync port shows, replaced in time by the process itself.

use std::sync::Arc;
use std::time::Duration;

use llm_config_proto::tls::{self, Alpn, TlsError};
use llm_config_shared::time::UnixMillis;
use rustls::ServerConfig;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::Identity;
use super::ca::{CaError, pem_of};
use super::issue::SERVER_LIFE;

/// How often it is looked at.
pub const CHECK_EVERY: Duration = Duration::from_hours(1);

/// Why there is no server certificate.
#[derive(Debug, thiserror::Error)]
pub enum ServerCertificateError {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What the listener shows: new connections see the newest, open ones go on.
pub struct ServerCertificates {
    identity: Arc<Identity>,
    names: Vec<String>,
    config: watch::Sender<Arc<ServerConfig>>,
    not_after: UnixMillis,
}

impl ServerCertificates {
    /// Issues the first one. `names` are host names and addresses beside those that every hub has.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn new(
        identity: Arc<Identity>,
        names: Vec<String>,
        now: UnixMillis,
    ) -> Result<Self, ServerCertificateError> {
        let (config, not_after) = issue(&identity, &names, now)?;
        Ok(Self { identity, names, config: watch::Sender::new(config), not_after })
    }

    /// For the listener: the configuration of the moment.
    pub fn subscribe(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.config.subscribe()
    }

    /// Issues another one if less than half of the current one's life is left; whether it did.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn renew(&mut self, now: UnixMillis) -> Result<bool, ServerCertificateError> {
        let life_ms = SERVER_LIFE.as_millis() as u64;
        let left_ms = self.not_after.0.saturating_sub(now.0);
        // A clock that went back far makes the certificate look younger than it can be.
        if left_ms > life_ms / 2 && left_ms <= life_ms {
            return Ok(false);
        }
        let (config, not_after) = issue(&self.identity, &self.names, now)?;
        self.config.send_replace(config);
        self.not_after = not_after;
        Ok(true)
    }
}

fn issue(
    identity: &Identity,
    names: &[String],
    now: UnixMillis,
) -> Result<(Arc<ServerConfig>, UnixMillis), ServerCertificateError> {
    let issued = identity.ca().issue_server(names, now)?;
    let chain_pem = issued.chain.iter().map(pem_of).collect();
    let key_pem = Zeroizing::new(issued.key.serialize_pem());
    let config =
        tls::server_config(&tls::Identity { chain_pem, key_pem }, Some(&identity.ca().pem()), Alpn::H2)?;
    Ok((config, issued.not_after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_replaced_at_half_of_its_life() {
        let now = UnixMillis(1_795_000_000_000);
        let identity = Arc::new(Identity::fresh(now).unwrap());
        let mut certificates = ServerCertificates::new(identity, vec!["127.0.0.1".into()], now).unwrap();
        let mut shown = certificates.subscribe();
        let half = SERVER_LIFE.as_millis() as u64 / 2;
        assert!(!certificates.renew(UnixMillis(now.0 + half - 1)).unwrap());
        assert!(!shown.has_changed().unwrap());
        assert!(certificates.renew(UnixMillis(now.0 + half)).unwrap());
        assert!(shown.has_changed().unwrap());
        shown.mark_unchanged();
        assert!(!certificates.renew(UnixMillis(now.0 + half)).unwrap());
        assert!(certificates.renew(now).unwrap(), "the clock was set back");
    }
}
