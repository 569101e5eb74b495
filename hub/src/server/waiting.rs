//! A hub that starts while whoever holds its key-encryption key is away: it says so, and begins when it is back.
//!
//! Not even configuration is served meanwhile: the CA's key and the key that signs what is sent lie under the same
//! key-encryption key, and without them no edge could tell this hub from another. Edges go on with what they have.

use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use llm_config_proto::rest::error::ApiError;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Keys, Listeners, ServerError, open_keys};
use crate::config::Config;
use crate::identity::IdentityError;
use crate::registry::Registry;
use crate::secrets::SecretError;

/// Who asks meanwhile gets an answer at once, so little has to be waited for.
const DRAIN: Duration = Duration::from_secs(1);

/// The hub's keys, once they can be had. None when it is told to stop before.
///
/// # Errors
/// When waiting would be in vain: the settings or the database are wrong.
pub async fn keys_once_there<S: Registry>(
    store: &S,
    config: &Config,
    listeners: &Listeners,
    stop: &CancellationToken,
) -> Result<Option<Keys>, ServerError> {
    let mut waiting: Option<Waiting> = None;
    let keys = loop {
        let error = match open_keys(store, config, false).await {
            Ok(keys) => break Some(keys),
            Err(error) => error,
        };
        let Some((reason, after)) = away(&error) else {
            return Err(error);
        };
        if waiting.as_ref().is_none_or(|waiting| waiting.reason != reason) {
            tracing::warn!(%reason, "the hub waits for its keys, and serves nothing until it has them");
            end(waiting.take()).await;
            waiting = Some(Waiting::begin(listeners, reason)?);
        }
        tokio::select! {
            () = stop.cancelled() => break None,
            () = tokio::time::sleep(after) => {}
        }
    };
    end(waiting).await;
    Ok(keys)
}

/// Why the keys cannot be had now, and how long to leave it at that.
fn away(error: &ServerError) -> Option<(String, Duration)> {
    let (ServerError::Secrets(SecretError::Provider(error))
    | ServerError::Identity(IdentityError::Provider(error))) = error
    else {
        return None;
    };
    let (reason, after) = error.away()?;
    Some((reason, Duration::from_secs(u64::from(after))))
}

/// The API's port while there is no API.
struct Waiting {
    reason: String,
    stop: CancellationToken,
    door: tokio::task::JoinHandle<()>,
}

impl Waiting {
    fn begin(listeners: &Listeners, reason: String) -> Result<Self, ServerError> {
        let stop = CancellationToken::new();
        let door = listeners.door.beside().map_err(ServerError::Door)?;
        let door = tokio::spawn(door.serve(router(reason.clone()), stop.clone(), DRAIN));
        Ok(Self { reason, stop, door })
    }
}

async fn end(waiting: Option<Waiting>) {
    if let Some(waiting) = waiting {
        waiting.stop.cancel();
        if let Err(error) = waiting.door.await {
            tracing::error!(%error, "the answers of a waiting hub ended badly");
        }
    }
}

fn router(reason: String) -> Router {
    let health = {
        let reason = reason.clone();
        move || std::future::ready(unhealthy(&reason))
    };
    let refused = move || {
        let message = format!("this hub has just started and waits for its keys: {reason}");
        std::future::ready(ApiError::unavailable(message, 5).into_response())
    };
    Router::new()
        .route("/health", get(health.clone()))
        .route("/api/v1/health", get(health.clone()))
        .route("/health/ready", get(health))
        .route("/health/live", get(|| std::future::ready(Json(json!({"status": "alive"})))))
        .fallback(refused)
}

fn unhealthy(reason: &str) -> Response {
    let body = json!({
        "status": "unhealthy",
        "service": "llm-config-manager",
        "version": env!("CARGO_PKG_VERSION"),
        "reasons": [reason],
    });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}
