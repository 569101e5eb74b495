//! Requests that an edge passes on for its local callers, or another process of the hub for its own: through the same
//! routes as everybody's, as that caller.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};
use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::Caller;
use llm_config_shared::limits::FRAME_BYTES_MAX;
use llm_config_shared::replication::frame::{Request, Response};
use tower::ServiceExt as _;

use crate::processes::passing::Through;

/// The largest answer that fits a frame beside its headers.
const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - (64 << 10);
/// Longer no caller at an edge waits.
const TIME_MAX: Duration = Duration::from_secs(20);
const ROUTES: &str = "/api/v1/";
/// Answers that never end have no place in one frame.
const ENDLESS: &str = "/api/v1/events";

/// Answers for callers at edges and at other processes of the hub.
#[derive(Clone)]
pub struct Calls {
    /// The hub's routes behind the guard: they take the caller from the request's extensions.
    routes: Router,
}

impl Calls {
    /// Over the routes that take a [`Caller`] from the request's extensions and ask for no token.
    pub fn new(routes: Router) -> Self {
        Self { routes }
    }

    /// Answers one request as `caller`. Whatever goes wrong is an answer too.
    pub async fn answer(&self, caller: Caller, through: Through, request: Request) -> Response {
        let path = request.target.split('?').next().unwrap_or_default();
        if !path.starts_with(ROUTES) || path.starts_with(ENDLESS) {
            return refusal(StatusCode::NOT_FOUND, "this cannot be asked through an edge");
        }
        let Some(request) = to_http(caller, through, request) else {
            return refusal(StatusCode::BAD_REQUEST, "the request line was not understood");
        };
        match tokio::time::timeout(TIME_MAX, self.run(request)).await {
            Ok(response) => response,
            Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "the hub took too long"),
        }
    }

    async fn run(&self, request: http::Request<Body>) -> Response {
        let answer = match self.routes.clone().oneshot(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        };
        told(answer).await
    }
}

/// As it travels.
async fn told(answer: axum::response::Response) -> Response {
    let (parts, body) = answer.into_parts();
    match to_bytes(body, BODY_BYTES_MAX).await {
        Ok(body) => Response { status: parts.status.as_u16(), headers: headers(&parts.headers), body },
        Err(_) => refusal(StatusCode::PAYLOAD_TOO_LARGE, "the answer is too large; ask for less with limit="),
    }
}

/// A refusal of the API's own, for a caller elsewhere.
pub(crate) async fn refused(error: ApiError) -> Response {
    told(error.into_response()).await
}

fn to_http(caller: Caller, through: Through, request: Request) -> Option<http::Request<Body>> {
    let mut http = http::Request::builder()
        .method(&*request.method)
        .uri(&*request.target)
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(request.body))
        .ok()?;
    http.extensions_mut().insert(caller);
    http.extensions_mut().insert(through);
    Some(http)
}

/// What is said about the answer, without what only concerns a connection.
fn headers(all: &HeaderMap) -> Vec<(Arc<str>, Arc<str>)> {
    let told = all.iter().filter(|(name, _)| ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name));
    told.filter_map(|(name, value)| Some((name.as_str().into(), value.to_str().ok()?.into()))).collect()
}

fn refusal(status: StatusCode, message: &str) -> Response {
    let error = status.canonical_reason().unwrap_or("Error");
    let body = serde_json::json!({ "error": error, "message": message }).to_string();
    let headers = vec![("content-type".into(), "application/json".into())];
    Response { status: status.as_u16(), headers, body: Bytes::from(body) }
}

/// More requests of this edge are under way than it may have.
pub(super) fn too_many() -> Response {
    refusal(StatusCode::TOO_MANY_REQUESTS, "too many requests of this edge at once")
}

#[cfg(test)]
mod tests {
    use axum::Extension;
    use axum::routing::get;
    use llm_config_shared::access::Role;
    use llm_config_shared::name::Tenant;

    use super::*;

    fn calls() -> Calls {
        let who = |Extension(caller): Extension<Caller>| async move { caller.name.to_string() };
        let large = || async { vec![b'a'; BODY_BYTES_MAX + 1] };
        Calls::new(Router::new().route("/api/v1/who", get(who)).route("/api/v1/large", get(large)))
    }

    async fn ask(method: &str, target: &str) -> (u16, String) {
        let caller = Caller {
            tenant: Tenant::parse("t").unwrap(),
            name: "edge:kiosk/uid:0".into(),
            role: Role::Writer,
            read: None,
            write: None,
            reveal: false,
        };
        let request = Request {
            method: method.into(),
            target: target.into(),
            body: Bytes::new(),
            caller: "uid:0".into(),
        };
        let response = calls().answer(caller, Through::Process, request).await;
        (response.status, String::from_utf8_lossy(&response.body[..response.body.len().min(80)]).into_owned())
    }

    #[tokio::test]
    async fn a_request_runs_as_the_edge_and_only_where_it_may() {
        assert_eq!(ask("GET", "/api/v1/who?a=b").await, (200, "edge:kiosk/uid:0".to_owned()));
        for target in ["/metrics", "/api/v1/events?x=1", "/api/v1/", "who"] {
            assert_eq!(ask("GET", target).await.0, 404, "{target}");
        }
        assert_eq!(ask("GET", "/api/v1/ a").await.0, 400);
        assert_eq!(ask("GET", "/api/v1/large").await.0, 413);
    }
}
