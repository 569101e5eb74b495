//! What a handler takes from a request; every failure is a refusal in the API's own form.

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use llm_config_shared::limits::FRAME_BYTES_MAX;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use super::service::{Call, Caller, Original};

/// Largest body of a request: with its head it still fits one frame when an edge passes it on.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - (64 << 10);

/// The segments of the path, percent-decoded once.
pub(super) struct Names<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Names<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(names) = Path::<T>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::bad_request("a segment of the path cannot be read"))?;
        Ok(Self(names))
    }
}

/// Who is asking. Nobody, when no guard stands before the route: then nothing is answered.
pub(super) fn caller(parts: &Parts) -> Result<Caller, ApiError> {
    let caller = parts.extensions.get::<Caller>().cloned();
    caller.ok_or_else(|| ApiError::unauthorized("this request needs an API token"))
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        caller(parts)
    }
}

/// The request with its body, which is read only for a known caller.
impl<S: Sync> FromRequest<S> for Call {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let caller = caller(&parts)?;
        let body = read(&parts, body).await?;
        Ok(Self { caller, original: Original { method: parts.method, uri: parts.uri, body } })
    }
}

async fn read(parts: &Parts, body: Body) -> Result<Bytes, ApiError> {
    let too_large = || {
        ApiError::too_large(format!("the body is larger than {BODY_BYTES_MAX} bytes"))
            .detail("field", "body")
            .detail("limit", BODY_BYTES_MAX)
    };
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| {
        let source = std::error::Error::source(&error);
        if source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) {
            too_large()
        } else {
            ApiError::bad_request("the body ended before it was complete")
        }
    })
}

/// Reads a JSON body. What is wrong is told with its field, without repeating what was sent.
pub(super) fn json<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let told = error.to_string();
        let data = error.classify() == serde_json::error::Category::Data;
        // What is missing or unknown is named by the message itself.
        let field = if data && told.starts_with("invalid ") { field_at(body, &error) } else { None };
        let message = match (&field, data) {
            (Some(field), _) => format!("{field}: {}", without_content(&told)),
            (None, true) => without_content(&told),
            (None, false) => format!("the body is not JSON: {told}"),
        };
        ApiError::bad_request(message).detail("field", field.as_deref().unwrap_or("body"))
    })
}

/// The member of the body's object in which an error was found.
fn field_at(body: &[u8], error: &serde_json::Error) -> Option<String> {
    let lines = body.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines.take(error.line().checked_sub(1)?).map(<[u8]>::len).sum();
    let until = (before + error.column()).min(body.len());
    let (mut at, mut depth, mut name_next, mut name) = (0, 0usize, false, None);
    while at < until {
        match body[at] {
            b'"' => {
                let end = at + 1 + string_length(&body[at + 1..]);
                if depth == 1 && name_next {
                    name = Some(&body[at + 1..end]);
                    name_next = false;
                }
                at = end;
            }
            b'{' | b'[' => {
                depth += 1;
                name_next = depth == 1 && body[at] == b'{';
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => name_next = depth == 1,
            _ => {}
        }
        at += 1;
    }
    let known = |name: &&[u8]| name.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'_');
    name.filter(known).map(|name| String::from_utf8_lossy(name).into_owned())
}

/// How far a string reaches, from behind its opening quote to its closing one.
fn string_length(rest: &[u8]) -> usize {
    let mut at = 0;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at.min(rest.len())
}

/// `invalid type: string "…", expected u64` without the string: it may be a secret in the wrong place.
fn without_content(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}\"…\"{}", &message[..first], &message[last + 1..])
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_never_repeats_what_was_sent() {
        #[derive(Debug, serde::Deserialize)]
        struct Number {
            #[expect(dead_code, reason = "only its type matters")]
            n: u64,
        }
        let error = json::<Number>(br#"{"n": "sk-proj-\"abc"}"#).unwrap_err();
        assert!(!error.message.contains("sk-") && error.message.contains("expected u64"), "{error}");
        assert!(json::<Number>(b"{").unwrap_err().message.starts_with("the body is not JSON"));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_told_with_its_field() {
        #[derive(Debug, serde::Deserialize)]
        struct Two {
            #[expect(dead_code, reason = "only its type matters")]
            text: serde_json::Value,
            #[expect(dead_code, reason = "only its type matters")]
            if_version: u64,
        }
        let field = |body: &str| {
            let error = json::<Two>(body.as_bytes()).unwrap_err();
            (error.details["field"].clone(), error.message.starts_with("if_version: invalid"))
        };
        let named = ("if_version".into(), true);
        assert_eq!(field(r#"{"text": "a", "if_version": "new"}"#), named);
        assert_eq!(field("{\"text\": {\"x\": [\"}\\\"\"]},\n \"if_version\": -1}"), named);
        assert_eq!(field(r#"{"if_version": [], "text": 1}"#), named);
        assert_eq!(field(r#"{"text": 1}"#), ("body".into(), false), "the message names what is missing");
        assert_eq!(field("[]"), ("body".into(), false));
    }
}
