//! Looking after the connection: tokens are renewed in time, outages noticed before callers do and their end found out.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Vault;
use super::connection::AskError;
use super::error::Reason;
use super::session::Failed;

/// How long nothing is asked while all is well.
const LOOK_EVERY: Duration = Duration::from_secs(15);

pub(super) async fn keep(vault: &Vault, stop: CancellationToken) {
    vault.connection.is_kept(true);
    loop {
        let at = next(vault).await;
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep_until(at) => tend(vault).await,
        }
    }
    vault.connection.is_kept(false);
}

/// When to do something: after the pause of an outage, else when the token wants it or it is time to look.
async fn next(vault: &Vault) -> Instant {
    if let Some(trouble) = vault.connection.trouble() {
        return trouble.retry_at;
    }
    let look = Instant::now() + LOOK_EVERY.mul_f64(0.8 + rand::random::<f64>() * 0.4);
    let session = vault.connection.take_turn().await;
    session.token.as_ref().and_then(|token| token.renew_at).map_or(look, |renew_at| renew_at.min(look))
}

/// Renews where that is due, and reads the transit key: login, seal, policy and key are seen by that.
async fn tend(vault: &Vault) {
    let connection = &vault.connection;
    let mut session = connection.take_turn().await;
    let due = session.token.as_ref().and_then(|token| token.renew_at);
    if due.is_some_and(|due| due <= Instant::now())
        && let Err(failed) = connection.renew(&mut session).await
    {
        connection.is_away(failed);
        return;
    }
    let looked = connection.ask_now(&mut session, "read_key", &vault.key_request()).await;
    match looked {
        Ok(_) | Err(AskError::Away(_)) => {}
        Err(AskError::Refused { status: 404, .. }) => {
            connection.is_away(Failed::of(Reason::NoKey));
        }
        Err(AskError::Refused { status, .. }) => {
            connection.is_away(Failed::of(Reason::Failing(status)));
        }
    }
}
