//! Where programs on this machine say which values they use: `/api/v1/edge/uses`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use llm_config_proto::rest::error::ApiError;
use llm_config_shared::limits::CONSUMER_BYTES_MAX;
use llm_config_shared::name::{Environment, Key, Namespace};
use serde::Deserialize;

use super::service::EdgeService;
use crate::uses::UsedEntry;

/// What a consumer uses now.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SayBody {
    consumer: String,
    /// It stays until the same consumer says something else; else it is to be said again every half minute.
    #[serde(default)]
    lasting: bool,
    entries: Vec<UsedEntry>,
}

/// `POST`: in place of what the consumer said before.
pub(super) async fn say(
    State(service): State<Arc<EdgeService>>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let said: SayBody = serde_json::from_slice(&body).map_err(|_| {
        ApiError::bad_request(
            "the body must be {consumer, entries: [{namespace, key, environment, version}], lasting?}",
        )
    })?;
    if !(1..=CONSUMER_BYTES_MAX).contains(&said.consumer.len()) || said.consumer.chars().any(char::is_control)
    {
        let message = format!("consumer must have 1 to {CONSUMER_BYTES_MAX} bytes of plain text");
        return Err(ApiError::unprocessable(message).detail("field", "consumer"));
    }
    for entry in &said.entries {
        Namespace::parse(&entry.namespace)?;
        Key::parse(&entry.key)?;
        Environment::parse(&entry.environment)?;
    }
    let now = service.clock.now();
    let taken = service.uses.say(&said.consumer, said.lasting, said.entries, now);
    taken.map_err(|too_many| ApiError::too_large(too_many.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET`: everything that is known here.
pub(super) async fn list(State(service): State<Arc<EdgeService>>) -> Response {
    service.uses.lapse(service.clock.now());
    let told = service.uses.told().into_iter();
    // What has gone and lasted is of interest to the hub alone.
    let there = told.filter(|consumer| !consumer.lasting || !consumer.entries.is_empty());
    Json(there.collect::<Vec<_>>()).into_response()
}

/// `DELETE`: the consumer has gone.
pub(super) async fn forget(
    State(service): State<Arc<EdgeService>>,
    Path(consumer): Path<String>,
) -> StatusCode {
    service.uses.forget(&consumer);
    StatusCode::NO_CONTENT
}
