//! The routes about lost edges, generic over the service: the hub's alone.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use llm_config_shared::name::{EdgeName, Namespace};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::ErrorBody;
use super::duration::parse_ms;
use super::error::ApiError;
use super::extract::{Names, json};
use super::losses::{CarryWanted, ExposedInfo, LossService, OfflineLimitInfo};
use super::query::Query;
use super::router::routed;
use super::service::{Call, Caller};

type Result<T> = std::result::Result<T, ApiError>;
type Service<A> = State<Arc<A>>;

/// The routes, to be given their service.
pub fn loss_routes<A: LossService>() -> Router<Arc<A>> {
    routed::<__path_get_offline_limit, _, Arc<A>>(get_offline_limit::<A>)
        .merge(routed::<__path_put_offline_limit, _, Arc<A>>(put_offline_limit::<A>))
        .merge(routed::<__path_remove_offline_limit, _, Arc<A>>(remove_offline_limit::<A>))
        .merge(routed::<__path_lose_edge, _, Arc<A>>(lose_edge::<A>))
        .merge(routed::<__path_get_receipt, _, Arc<A>>(get_receipt::<A>))
        .merge(routed::<__path_carry, _, Arc<A>>(carry::<A>))
        .merge(routed::<__path_take_carried, _, Arc<A>>(take_carried::<A>))
        .merge(routed::<__path_list_exposed, _, Arc<A>>(list_exposed::<A>))
}

/// How long secrets may stay open.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfflineLimitRequest {
    /// As `24h`, `30m` or `30s`; from a second to 30 days.
    limit: String,
}

/// How long an edge may open a namespace's secrets without contact. The tightest of those above it counts.
#[derive(Serialize, ToSchema)]
pub(super) struct OfflineLimitBody {
    namespace: String,
    limit_seconds: f64,
    /// The namespace that has it: this one or one above. Null: nobody set one.
    set_in: Option<String>,
}

impl From<OfflineLimitInfo> for OfflineLimitBody {
    fn from(info: OfflineLimitInfo) -> Self {
        Self {
            namespace: info.namespace.to_string(),
            limit_seconds: info.limit_ms as f64 / 1_000.0,
            set_in: info.set_in.map(|subtree| subtree.as_str().to_owned()),
        }
    }
}

#[utoipa::path(get, path = "/api/v1/namespaces/{namespace}/offline-limit", operation_id = "getOfflineLimit", tag = "fleet",
    params(("namespace" = String, Path)),
    responses((status = 200, body = OfflineLimitBody), (status = 403, body = ErrorBody)))]
async fn get_offline_limit<A: LossService>(
    State(service): Service<A>,
    Names(namespace): Names<String>,
    caller: Caller,
) -> Result<Json<OfflineLimitBody>> {
    Ok(Json(service.offline_limit(&caller, Namespace::parse(&namespace)?).await?.into()))
}

#[utoipa::path(put, path = "/api/v1/namespaces/{namespace}/offline-limit", operation_id = "setOfflineLimit", tag = "fleet",
    params(("namespace" = String, Path)), request_body = OfflineLimitRequest,
    responses((status = 200, body = OfflineLimitBody, description = "What holds now; a tighter one above it still counts"),
        (status = 403, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn put_offline_limit<A: LossService>(
    State(service): Service<A>,
    Names(namespace): Names<String>,
    call: Call,
) -> Result<Json<OfflineLimitBody>> {
    let request: OfflineLimitRequest = json(&call.original.body)?;
    let limit_ms = parse_ms(&request.limit).ok_or_else(|| {
        ApiError::unprocessable("limit must be a length of time, as 24h, 30m or 30s").detail("field", "limit")
    })?;
    let namespace = Namespace::parse(&namespace)?;
    Ok(Json(service.set_offline_limit(&call.caller, namespace, Some(limit_ms)).await?.into()))
}

#[utoipa::path(delete, path = "/api/v1/namespaces/{namespace}/offline-limit", operation_id = "removeOfflineLimit", tag = "fleet",
    params(("namespace" = String, Path)),
    responses((status = 200, body = OfflineLimitBody, description = "What holds above it holds here again"),
        (status = 403, body = ErrorBody)))]
async fn remove_offline_limit<A: LossService>(
    State(service): Service<A>,
    Names(namespace): Names<String>,
    caller: Caller,
) -> Result<Json<OfflineLimitBody>> {
    Ok(Json(service.set_offline_limit(&caller, Namespace::parse(&namespace)?, None).await?.into()))
}

/// An edge is lost.
#[derive(Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LostRequest {
    /// Only say what it could read; change nothing.
    dry_run: bool,
}

/// A secret that a lost edge could read.
#[derive(Serialize, ToSchema)]
pub(super) struct ExposedBody {
    environment: String,
    namespace: String,
    key: String,
    /// What the edge could read; later versions are safe from it.
    version: u64,
    edge: String,
    lost_at: String,
    /// Whether it was replaced since, or is gone.
    rotated: bool,
    /// Whether it has a plan of rotation, which replaces it without being asked.
    planned: bool,
}

impl From<ExposedInfo> for ExposedBody {
    fn from(info: ExposedInfo) -> Self {
        let scope = info.at.scope;
        Self {
            environment: scope.environment.to_string(),
            namespace: scope.namespace.to_string(),
            key: info.at.key.to_string(),
            version: info.version,
            edge: info.edge.to_string(),
            lost_at: info.lost_at.to_rfc3339(),
            rotated: info.rotated,
            planned: info.planned,
        }
    }
}

#[utoipa::path(post, path = "/api/v1/edges/{name}/lost", operation_id = "loseEdge", tag = "fleet",
    params(("name" = String, Path)), request_body = LostRequest,
    responses((status = 200, body = Object, description = "The signed receipt: every version of a secret that it could read"),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn lose_edge<A: LossService>(
    State(service): Service<A>,
    Names(name): Names<String>,
    call: Call,
) -> Result<Json<serde_json::Value>> {
    let body = &call.original.body;
    let request: LostRequest = if body.is_empty() { LostRequest::default() } else { json(body)? };
    Ok(Json(service.lose_edge(&call.caller, EdgeName::parse(&name)?, request.dry_run).await?))
}

#[utoipa::path(get, path = "/api/v1/edges/{name}/carry", operation_id = "carry", tag = "fleet",
    params(("name" = String, Path),
        ("full" = Option<bool>, Query, description = "Everything, not only what the edge lacks as far as the hub knows"),
        ("good_for" = Option<String>, Query, description = "How long the edge will take it, as `7d`, which is the default")),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream",
            description = "For `llm-config edge apply`: what a session would send the edge now, sealed to it"),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn carry<A: LossService>(
    State(service): Service<A>,
    Names(name): Names<String>,
    caller: Caller,
    mut query: Query,
) -> Result<Response> {
    let wanted = CarryWanted { full: query.flag("full")?, good_for_ms: query.duration_ms("good_for")? };
    query.end()?;
    let file = service.carry(&caller, EdgeName::parse(&name)?, wanted).await?;
    let head = [
        ("content-type", "application/octet-stream".to_owned()),
        ("x-config-good-until", file.good_until.to_rfc3339()),
    ];
    let pieces = tokio_stream::iter(file.pieces.map(Ok::<_, std::convert::Infallible>));
    Ok((head, Body::from_stream(pieces)).into_response())
}

#[utoipa::path(post, path = "/api/v1/fleet/carried", operation_id = "takeCarried", tag = "fleet",
    request_body(content = Vec<u8>, content_type = "application/octet-stream",
        description = "A file of `llm-config edge carry`"),
    responses((status = 200, body = Object, description = "What became of the edge's writes; brought again they are known"),
        (status = 403, body = ErrorBody), (status = 409, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn take_carried<A: LossService>(
    State(service): Service<A>,
    call: Call,
) -> Result<Json<serde_json::Value>> {
    Ok(Json(service.take_carried(&call.caller, &call.original.body).await?))
}

#[utoipa::path(get, path = "/api/v1/edges/{name}/receipt", operation_id = "getReceipt", tag = "fleet",
    params(("name" = String, Path)),
    responses((status = 200, body = Object, description = "Of the edge of that name that was lost last"),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn get_receipt<A: LossService>(
    State(service): Service<A>,
    Names(name): Names<String>,
    caller: Caller,
) -> Result<Json<serde_json::Value>> {
    Ok(Json(service.receipt(&caller, EdgeName::parse(&name)?).await?))
}

#[utoipa::path(get, path = "/api/v1/exposed-secrets", operation_id = "listExposed", tag = "fleet",
    responses((status = 200, body = Vec<ExposedBody>, description = "Those that wait to be replaced first"),
        (status = 403, body = ErrorBody)))]
async fn list_exposed<A: LossService>(
    State(service): Service<A>,
    caller: Caller,
) -> Result<Json<Vec<ExposedBody>>> {
    Ok(Json(service.exposed(&caller).await?.into_iter().map(ExposedBody::from).collect()))
}
