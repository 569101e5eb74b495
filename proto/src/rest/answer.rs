//! Answers and refusals as HTTP responses.

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, ETAG, HeaderName, LINK, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use llm_config_shared::replication::frame;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::position;
use super::service::{Answered, Served, Source};

/// How far something had come.
pub const POSITION: HeaderName = HeaderName::from_static("x-config-position");
/// Which change a write belongs to.
pub const CHANGE: HeaderName = HeaderName::from_static("x-config-change");
/// How old an edge's answer is.
pub const AGE_MS: HeaderName = HeaderName::from_static("x-config-age-ms");
/// `replica` or `pending`.
pub const SOURCE: HeaderName = HeaderName::from_static("x-config-source");
/// Where the next page begins.
pub const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

/// The body of every refusal.
#[derive(Serialize, ToSchema)]
pub(super) struct ErrorBody {
    /// The reason phrase of the status.
    error: &'static str,
    /// What to do about it.
    message: String,
    /// Fields, limits, versions: whatever a program can use.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, serde_json::Value>>)]
    details: std::collections::BTreeMap<&'static str, serde_json::Value>,
}

impl ErrorBody {
    pub(super) fn of(error: ApiError) -> Self {
        Self { error: reason(&error), message: error.message, details: error.details }
    }
}

pub(super) fn reason(error: &ApiError) -> &'static str {
    status(error).canonical_reason().unwrap_or("Error")
}

fn status(error: &ApiError) -> StatusCode {
    StatusCode::from_u16(error.kind.status()).expect("every kind has a known status")
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = status(&self);
        let mut headers = HeaderMap::new();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some(rate) = self.rate_limit {
            headers.insert("x-ratelimit-limit", rate.limit.into());
            headers.insert("x-ratelimit-remaining", rate.remaining.into());
            headers.insert("x-ratelimit-reset", rate.reset_s.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        (status, headers, Json(ErrorBody::of(self))).into_response()
    }
}

/// A header whose text is made here and known to be visible ASCII.
fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("invalid"))
}

fn headers<T>(answered: &Answered<T>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(6);
    if let Some(at) = &answered.position {
        headers.insert(POSITION, header(&position::encode(at)));
    }
    if let Some(change) = answered.change {
        headers.insert(CHANGE, header(&change.0.to_string()));
    }
    if let Some(freshness) = answered.freshness {
        headers.insert(AGE_MS, freshness.age_ms.into());
        let source = match freshness.source {
            Source::Replica => "replica",
            Source::Pending => "pending",
        };
        headers.insert(SOURCE, HeaderValue::from_static(source));
    }
    headers
}

/// Headers of what was served, and its body by `body`; an answer made elsewhere goes out as it came.
pub(super) fn respond<T>(served: Served<T>, body: impl FnOnce(T) -> Response) -> Response {
    let answered = match served {
        Served::Here(answered) => answered,
        Served::Ready(response) => return passed_on(response),
    };
    let headers = headers(&answered);
    let mut response = body(answered.value);
    response.headers_mut().extend(headers);
    response
}

/// An answer that was made elsewhere. Only what belongs to the answer itself: connection headers of another connection mean
/// nothing on this one.
pub fn passed_on(response: frame::Response) -> Response {
    let mut made = Response::new(Body::from(response.body));
    *made.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in response.headers {
        let passed =
            name.starts_with("x-") || matches!(&*name, "content-type" | "etag" | "link" | "retry-after");
        if let (true, Ok(name), Ok(value)) =
            (passed, HeaderName::try_from(&*name), HeaderValue::from_str(&value))
        {
            made.headers_mut().insert(name, value);
        }
    }
    made
}

/// JSON text that was written already.
pub(super) fn json_text(text: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

/// 304 when the caller has this very answer.
pub(super) fn tagged(
    tag: &str,
    if_none_match: Option<&HeaderValue>,
    body: impl FnOnce() -> Response,
) -> Response {
    let known = if_none_match.and_then(|value| value.to_str().ok()).is_some_and(|value| {
        value.split(',').any(|one| matches!(one.trim(), "*") || one.trim().trim_start_matches("W/") == tag)
    });
    let mut response = if known { StatusCode::NOT_MODIFIED.into_response() } else { body() };
    response.headers_mut().insert(ETAG, header(tag));
    response
}

/// Says where the next page begins: the same request with another cursor.
pub(super) fn more(response: &mut Response, uri: &Uri, cursor: &str) {
    let kept = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let mut query: Vec<&str> = kept.collect();
    let next = format!("cursor={cursor}");
    query.push(&next);
    let link = format!("<{}?{}>; rel=\"next\"", uri.path(), query.join("&"));
    response.headers_mut().insert(LINK, header(&link));
    response.headers_mut().insert(NEXT_CURSOR, header(cursor));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_the_same_request_with_another_cursor() {
        let mut response = ().into_response();
        let uri = "/api/v1/configs/app%2Fllm?env=prod&cursor=old&limit=2".parse().unwrap();
        more(&mut response, &uri, "new");
        let link = "</api/v1/configs/app%2Fllm?env=prod&limit=2&cursor=new>; rel=\"next\"";
        assert_eq!(response.headers()[LINK], link);
        assert_eq!(response.headers()[NEXT_CURSOR], "new");
    }

    #[test]
    fn a_known_tag_needs_no_body() {
        let sent = HeaderValue::from_static("\"a\", W/\"b\"");
        let answer = |tag| tagged(tag, Some(&sent), || "body".into_response()).status();
        assert_eq!((answer("\"b\""), answer("\"c\"")), (StatusCode::NOT_MODIFIED, StatusCode::OK));
    }
}
