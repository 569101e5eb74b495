//! Keeping up with another region: over one connection after the other, for as long as this process leads.

use std::future::Future;
use std::time::Duration;

use llm_config_proto::sync::{Dial, HubsClient, SyncError};
use llm_config_proto::tls::Trust;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock;
use crate::identity::Identity;
use crate::identity::ca::CaError;
use crate::processes::Role;
use crate::writer::WriterHandle;

/// The pause after a connection that worked; the bound of the shortest after one that did not.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Why there is no connection to another hub.
#[derive(Debug, thiserror::Error)]
pub enum NotConnected {
    #[error(transparent)]
    Unreachable(#[from] SyncError),
    #[error(transparent)]
    Certificate(#[from] CaError),
}

/// A connection to another hub of this certificate authority, whose sync port is at `https://HOST:PORT`.
///
/// # Errors
/// When it cannot be reached or is not of this authority, or no certificate can be made.
pub(super) async fn connect(
    identity: &Identity,
    process: Uuid,
    address: &str,
) -> Result<HubsClient, NotConnected> {
    let ca = identity.ca();
    let dial = Dial {
        address: address.trim_start_matches("https://").to_owned(),
        trust: Trust::Ca { pem: ca.pem() },
        identity: Some(ca.issue_process(process, clock::now())?),
    };
    Ok(HubsClient::connect(&dial).await?)
}

/// How often in a row another region could not be kept up with.
#[derive(Debug, Default)]
pub(super) struct Failures(u32);

impl Failures {
    /// It works.
    pub(super) fn are_over(&mut self) {
        self.0 = 0;
    }

    fn pause(&self) -> Duration {
        clock::backoff(self.0, PAUSE, PAUSE_MAX)
    }
}

/// Something that is kept up with another region.
pub(super) trait Peer: Send {
    type Error: Send;

    /// Who knows whether this process leads.
    fn writer(&self) -> &WriterHandle;

    /// Keeps up over one connection until that fails, or another process leads. Once it works, `failures` are over.
    fn keep_up(&mut self, failures: &mut Failures) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Says why it does not work now; `first` after it has worked.
    fn tell(&mut self, error: &Self::Error, first: bool);
}

/// Keeps up until `stop`, while this process leads.
pub(super) async fn keep<P: Peer>(mut peer: P, stop: CancellationToken) {
    let keeping = async {
        let mut failures = Failures::default();
        loop {
            let mut roles = peer.writer().roles();
            drop(roles.wait_for(|role| *role == Role::Leading).await);
            if let Err(error) = peer.keep_up(&mut failures).await {
                peer.tell(&error, failures.0 == 0);
                metrics::counter!("region_failures_total").increment(1);
                failures.0 += 1;
            }
            tokio::time::sleep(failures.pause()).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = keeping => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_failures_and_are_short_again_once_it_works() {
        let mut failures = Failures::default();
        assert!(failures.pause() <= PAUSE);
        failures.0 = 40;
        assert!(failures.pause() >= PAUSE_MAX / 10 && failures.pause() <= PAUSE_MAX);
        failures.are_over();
        assert!(failures.pause() <= PAUSE);
    }
}
