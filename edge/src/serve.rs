//! The edge's windows for programs on this machine: the hub's routes for values, on a Unix socket and on loopback TCP.

use std::future::IntoFuture;
use std::io;
use std::sync::Arc;

use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use http::StatusCode;
use llm_config_proto::rest::openapi;
use llm_config_proto::rest::router::{document_routes, finish, health_routes, value_routes};
use llm_config_shared::name::Tenant;
use serde_json::json;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

mod carried;
mod carrying;
mod events;
mod forward;
pub(crate) mod guard;
pub mod service;
pub mod tcp;
pub mod unix;
mod uses;
mod writes;

use guard::{Gate, Guard};
use service::EdgeService;
use unix::Peer;

/// Everything that the edge answers, behind a gate.
pub(crate) fn router(service: Arc<EdgeService>, gate: Gate, tenant: Tenant) -> Router {
    let routes = value_routes().merge(health_routes()).merge(edge_routes()).with_state(service);
    let guard = Arc::new(Guard { gate, tenant });
    finish(routes.merge(document_routes(&openapi::edge_document())))
        .layer(from_fn_with_state(guard, guard::guard))
}

/// What only an edge has.
fn edge_routes() -> Router<Arc<EdgeService>> {
    Router::new()
        .route("/api/v1/edge/status", get(status))
        .route("/api/v1/edge/uses", get(uses::list).post(uses::say))
        .route("/api/v1/edge/uses/{consumer}", delete(uses::forget))
        .route("/api/v1/edge/apply", post(carried::apply))
        .route("/api/v1/edge/carry", post(carrying::carry))
        .route("/health/data", get(health_data))
        .route("/health/hub", get(health_hub))
}

async fn status(State(service): State<Arc<EdgeService>>) -> Response {
    Json(service.reporter.status().await).into_response()
}

/// Whether readers find anything, and how old it is.
async fn health_data(State(service): State<Arc<EdgeService>>) -> Response {
    let summary = service.view.summary();
    let code = if summary.has_data { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "has_data": summary.has_data, "entries": summary.entries, "age_ms": summary.age_ms });
    (code, Json(body)).into_response()
}

/// Whether the hub can be reached.
async fn health_hub(State(service): State<Arc<EdgeService>>) -> Response {
    let connected = service.view.is_connected();
    let code = if connected { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "connected": connected }))).into_response()
}

/// Serves the socket until told to stop, then lets requests under way finish.
pub(crate) async fn serve_unix(
    listener: UnixListener,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    axum::serve(listener, router.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(stop.cancelled_owned())
        .into_future()
        .await
}

/// The same for TCP.
pub(crate) async fn serve_tcp(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = listener.tap_io(|stream| {
        // Answers are small: they go out at once. A stream that is gone already says so when it is read.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).into_future().await
}
