//! Putting routes together: health, the document, and what answers when nothing else does.

use std::sync::Arc;

use axum::extract::State;
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use axum::{Json, Router};
use http::{Method, StatusCode, Uri};
use utoipa::openapi::HttpMethod;

use super::error::{ApiError, ErrorKind};
use super::service::{ConfigService, HealthStatus};
use super::types::HealthBody;

pub use super::admin_routes::admin_routes;
pub use super::conflict_routes::conflict_routes;
pub use super::loss_routes::loss_routes;
pub use super::value_routes::value_routes;

/// Routes a handler by its own description (`P` is what `#[utoipa::path]` generates), so that a path is written once.
pub(super) fn routed<P: utoipa::Path, T: 'static, S: Clone + Send + Sync + 'static>(
    handler: impl Handler<T, S>,
) -> Router<S> {
    let filters = P::methods().into_iter().map(|method| match method {
        HttpMethod::Get => MethodFilter::GET,
        HttpMethod::Post => MethodFilter::POST,
        HttpMethod::Put => MethodFilter::PUT,
        HttpMethod::Delete => MethodFilter::DELETE,
        HttpMethod::Options => MethodFilter::OPTIONS,
        HttpMethod::Head => MethodFilter::HEAD,
        HttpMethod::Patch => MethodFilter::PATCH,
        HttpMethod::Trace => MethodFilter::TRACE,
    });
    Router::new()
        .route(&P::path(), on(filters.reduce(MethodFilter::or).expect("every description has one"), handler))
}

/// Health: the only routes that ask for no caller. The guard lets exactly [`is_public`] pass.
pub fn health_routes<S: ConfigService>() -> Router<Arc<S>> {
    routed::<__path_health, _, Arc<S>>(health::<S>)
        .route("/api/v1/health", get(health::<S>))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready::<S>))
}

/// Whether a request needs no token.
pub fn is_public(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
        && matches!(path, "/health" | "/api/v1/health" | "/health/live" | "/health/ready")
}

#[utoipa::path(get, path = "/health", operation_id = "health", tag = "operations", security(()),
    responses((status = 200, body = HealthBody), (status = 503, body = HealthBody)))]
async fn health<S: ConfigService>(State(service): State<Arc<S>>) -> Response {
    let health = service.health().await;
    let status = match health.status {
        HealthStatus::Healthy | HealthStatus::Degraded => StatusCode::OK,
        HealthStatus::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(HealthBody::from(&health))).into_response()
}

async fn live() -> Response {
    Json(serde_json::json!({ "status": "alive" })).into_response()
}

async fn ready<S: ConfigService>(State(service): State<Arc<S>>) -> Response {
    let health = service.health().await;
    let status = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(HealthBody::from(&health))).into_response()
}

/// The document at its two addresses.
pub fn document_routes(document: &utoipa::openapi::OpenApi) -> Router {
    let text: Arc<str> = document.to_json().expect("the document was written by its own types").into();
    let serve = move || {
        let text = text.clone();
        async move { super::answer::json_text(text.to_string()) }
    };
    Router::new().route("/openapi.json", get(serve.clone())).route("/api/v1/openapi.json", get(serve))
}

/// Unknown paths and methods are refused in the API's own form. Call it last, when every route is in.
pub fn finish(router: Router) -> Router {
    router.fallback(no_route).method_not_allowed_fallback(no_method)
}

async fn no_route(uri: Uri) -> ApiError {
    let mut error = ApiError::not_found("there is nothing at this path");
    if uri.path().starts_with("/api/v1/configs/") {
        error.message.push_str("; a namespace is one segment, with its slashes written as %2F");
    }
    error
}

async fn no_method(method: Method) -> ApiError {
    ApiError::new(ErrorKind::MethodNotAllowed, format!("{method} is not possible at this path"))
}
