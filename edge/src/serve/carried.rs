//! What somebody carried from the hub to this edge in a file.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::Call;
use serde::Deserialize;
use serde_json::json;

use super::service::EdgeService;

/// The file of `fleet carry`, as far as an edge looks at it.
#[derive(Deserialize)]
struct Carried {
    offline_limit: String,
}

/// Takes it, and answers how secrets are doing then.
pub(super) async fn apply(State(service): State<Arc<EdgeService>>, call: Call) -> Response {
    match taken(&service, &call) {
        Ok(()) => {
            let secrets = service.reporter.status().await.secrets;
            axum::Json(json!({ "secrets": secrets })).into_response()
        }
        Err(error) => error.into_response(),
    }
}

fn taken(service: &EdgeService, call: &Call) -> Result<(), ApiError> {
    if !call.caller.reveal {
        return Err(ApiError::forbidden("you may not see secrets in clear, so you may not unlock them"));
    }
    let damaged = || ApiError::bad_request("this is no file of `llm-config fleet carry`");
    let carried: Carried = serde_json::from_slice(&call.original.body).map_err(|_| damaged())?;
    let statement = BASE64.decode(&carried.offline_limit).map_err(|_| damaged())?;
    service.reporter.apply(&statement.into()).map_err(|error| ApiError::conflict(error.to_string()))
}
