//! Getting the edge's keys at the start. Whoever keeps them may be away, as Vault is without a network: then the daemon tries
//! again until they come, and says on its socket what it waits for.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::{Json, Router};
use llm_config_shared::replication::backoff::Backoff;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{RunError, random_u64};
use crate::keeper::Keeper;
use crate::keys::{self, EdgeKeys, KeyError};
use crate::serve::{serve_unix, unix};

/// None when told to stop meanwhile.
pub(super) async fn keys(
    directory: &Path,
    socket: &Path,
    stop: &CancellationToken,
) -> Result<Option<EdgeKeys>, RunError> {
    keys::settle(directory)?;
    let mut backoff = Backoff::new(random_u64()?);
    let mut window: Option<Window> = None;
    loop {
        let from = directory.to_owned();
        let loaded = tokio::task::spawn_blocking(move || load(&from)).await;
        let error = match loaded.map_err(std::io::Error::other)? {
            Ok(keys) => {
                if let Some(window) = window {
                    window.close().await;
                }
                return Ok(Some(keys));
            }
            Err(error) if error.may_pass() => error,
            Err(error) => return Err(error.into()),
        };
        tracing::warn!(%error, "nothing is served before the edge has its keys; trying again");
        match &window {
            Some(window) => window.tell(error.to_string()),
            None => window = Some(Window::open(socket, error.to_string()).await?),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(backoff.next_delay(0))) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
}

/// Once the keys are open, what opened others before goes, now or at the next start; not sooner, for then the file may be wrong
/// about what opens them.
fn load(directory: &Path) -> Result<EdgeKeys, KeyError> {
    let keys = EdgeKeys::load(directory)?;
    if let Err(error) = Keeper::settle(Some(&keys.keeper), directory) {
        tracing::warn!(%error, "what opened this edge's keys before cannot be deleted yet");
    }
    Ok(keys)
}

/// Answers everybody that there is nothing yet, and why.
struct Window {
    why: Arc<Mutex<String>>,
    stop: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Window {
    async fn open(socket: &Path, why: String) -> Result<Self, RunError> {
        let why = Arc::new(Mutex::new(why));
        let told = Arc::clone(&why);
        let answer = move || async move {
            let why = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let message = format!("this edge waits for its keys: {why}");
            let body = json!({"error": "Service Unavailable", "message": message});
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], Json(body))
        };
        let stop = CancellationToken::new();
        let listener = unix::bind(socket).await?;
        let serving = tokio::spawn(serve_unix(listener, Router::new().fallback(answer), stop.clone()));
        Ok(Self { why, stop, serving })
    }

    fn tell(&self, why: String) {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    async fn close(self) {
        self.stop.cancel();
        // Whoever still reads an answer has had enough of it.
        let _ = tokio::time::timeout(super::DRAIN, self.serving).await;
    }
}
