//! The REST router with what surrounds it: the guard, a time limit, a count of requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::Caller;
use llm_config_proto::rest::{openapi, router};
use llm_config_shared::access::Permission;
use llm_config_shared::store::Journal;

use crate::api::Api;
use crate::guard::{self, Guard, require_caller};
use crate::processes::passing::{Passing, pass_on};
use crate::regions::home::{HomeLine, to_home};
use crate::registry::Registry;

/// What the API's listener serves.
pub(super) fn public<S: Journal + Registry>(
    known_callers: Router,
    guard: Arc<Guard<S>>,
    request_time_max: Duration,
) -> Router {
    known_callers
        .layer(from_fn_with_state(guard, require_caller::<S>))
        .layer(from_fn_with_state(request_time_max, bounded))
        .layer(from_fn(counted))
}

/// Every route, for requests that carry their caller already. What goes through the writer is passed on where another
/// process leads, and what only the home region decides to that.
pub(super) fn known_callers<S: Journal + Registry>(
    api: Arc<Api<S>>,
    passing: Passing,
    home: Arc<HomeLine<S>>,
) -> Router {
    let losses = router::loss_routes::<Api<S>>().route_layer(from_fn(administrators));
    let written = router::value_routes::<Api<S>>()
        .merge(router::conflict_routes::<Api<S>>())
        .merge(router::rotation_routes::<Api<S>>())
        .merge(losses);
    let routes = router::health_routes::<Api<S>>()
        .merge(written.route_layer(from_fn_with_state(passing, pass_on)))
        .merge(router::receipt_routes::<Api<S>>())
        .merge(router::admin_routes::<Api<S>>().route_layer(from_fn(administrators)))
        .route_layer(from_fn_with_state(home, to_home::<S>))
        .with_state(api)
        .merge(router::document_routes(&openapi::hub_document()));
    router::finish(routes)
}

/// Who may not change what administrators do is told so before the request is looked into any further. What the caller may
/// do with what it names is judged where that is known.
async fn administrators(request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().filter(|_| !request.method().is_safe());
    match caller.map_or(Ok(()), |caller| guard::may(caller, Permission::Administer)) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Streams of events are answered at once; what comes after the answer's head is not limited.
async fn bounded(State(time_max): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(time_max, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::unavailable("the request took too long and was given up", 5).into_response(),
    }
}

/// Counts by the route's pattern, never by what a caller wrote.
async fn counted(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method(request.method());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "unknown".to_owned());
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    metrics::histogram!("http_request_duration_seconds", "method" => method, "route" => route.clone())
        .record(started.elapsed().as_secs_f64());
    metrics::counter!("http_requests_total", "method" => method, "route" => route, "status" => status)
        .increment(1);
    response
}

fn method(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
