//! What a request gets instead of an answer: a status, a sentence for people, and details for programs.

use std::collections::BTreeMap;

use llm_config_shared::feed::InvalidParent;
use llm_config_shared::limits::VALUE_BYTES_MAX;
use llm_config_shared::name::{Environment, InvalidName};
use llm_config_shared::store::JournalError;
use llm_config_shared::value::InvalidValue;
use serde_json::Value as Json;

/// What went wrong, as far as the status tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    TooLarge,
    UnsupportedMediaType,
    Unprocessable,
    Locked,
    TooManyRequests,
    Internal,
    Unavailable,
    /// What the request was passed on to gave no answer that makes sense.
    BadGateway,
}

impl ErrorKind {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Unprocessable => 422,
            Self::Locked => 423,
            Self::TooManyRequests => 429,
            Self::Internal => 500,
            Self::BadGateway => 502,
            Self::Unavailable => 503,
        }
    }
}

/// The quota that a refused request ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub limit: u32,
    pub remaining: u32,
    pub reset_s: u32,
}

/// A refusal. The message goes to the caller: it names fields and limits, never a value or a secret.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub kind: ErrorKind,
    pub message: String,
    pub details: BTreeMap<&'static str, Json>,
    pub retry_after_s: Option<u32>,
    pub rate_limit: Option<RateLimit>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident,)*) => {
        $($(#[$doc])*
        pub fn $name(message: impl Into<String>) -> Self {
            Self::new(ErrorKind::$kind, message)
        })*
    };
}

impl ApiError {
    /// Any kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            details: BTreeMap::new(),
            retry_after_s: None,
            rate_limit: None,
        }
    }

    constructors! {
        /// 400: the request breaks the grammar.
        bad_request => BadRequest,
        /// 401: who is asking is not known.
        unauthorized => Unauthorized,
        /// 403: who is asking may not.
        forbidden => Forbidden,
        /// 404.
        not_found => NotFound,
        /// 409: what the caller relied on is not so any more.
        conflict => Conflict,
        /// 413.
        too_large => TooLarge,
        /// 422: well formed, but it cannot be done.
        unprocessable => Unprocessable,
        /// 423: a secret that may not be opened now.
        locked => Locked,
        /// 500: a broken promise inside; details belong in the log.
        internal => Internal,
        /// 502.
        bad_gateway => BadGateway,
    }

    /// 503: it may work later.
    pub fn unavailable(message: impl Into<String>, retry_after_s: u32) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..Self::new(ErrorKind::Unavailable, message) }
    }

    /// 503 without a time: a read that would be too stale, or a request that needs the hub.
    pub fn unavailable_now(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// 429.
    pub fn too_many_requests(message: impl Into<String>, retry_after_s: u32, rate_limit: RateLimit) -> Self {
        Self {
            retry_after_s: Some(retry_after_s),
            rate_limit: Some(rate_limit),
            ..Self::new(ErrorKind::TooManyRequests, message)
        }
    }

    /// 400 for an environment that the tenant does not have.
    pub fn unknown_environment(environment: &Environment) -> Self {
        Self::bad_request(format!("environment {environment} does not exist"))
            .detail("field", "env")
            .detail("environment", environment.as_str())
    }

    /// 409 for a write that relied on another version.
    pub fn version_mismatch(expected: u64, current: u64) -> Self {
        Self::conflict(format!("the entry is at version {current}, not {expected}"))
            .detail("expected_version", expected)
            .detail("current_version", current)
    }

    /// Adds something for programs.
    #[must_use]
    pub fn detail(mut self, name: &'static str, value: impl Into<Json>) -> Self {
        self.details.insert(name, value.into());
        self
    }
}

impl From<InvalidName> for ApiError {
    fn from(invalid: InvalidName) -> Self {
        let error = Self::bad_request(invalid.to_string());
        match invalid {
            InvalidName::Empty { field }
            | InvalidName::Character { field, .. }
            | InvalidName::Segment { field } => error.detail("field", field),
            InvalidName::TooLong { field, max, .. } => error.detail("field", field).detail("limit", max),
        }
    }
}

impl From<InvalidValue> for ApiError {
    fn from(invalid: InvalidValue) -> Self {
        let message = invalid.to_string();
        let error = match invalid {
            InvalidValue::Syntax { .. } => Self::bad_request(message),
            InvalidValue::TooLarge { .. } => Self::too_large(message).detail("limit", VALUE_BYTES_MAX),
            InvalidValue::TooDeep => {
                Self::unprocessable(message).detail("limit", llm_config_shared::limits::VALUE_DEPTH_MAX)
            }
            InvalidValue::Number { .. } | InvalidValue::Duplicate { .. } => Self::unprocessable(message),
        };
        error.detail("field", "value")
    }
}

impl From<InvalidParent> for ApiError {
    fn from(invalid: InvalidParent) -> Self {
        Self::unprocessable(invalid.to_string()).detail("field", "parent")
    }
}

impl From<JournalError> for ApiError {
    /// Callers hear that it may work later; what exactly failed is for the log.
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Fenced => Self::unavailable("this hub is not taking writes at the moment", 2),
            JournalError::Unavailable(_) => Self::unavailable("the hub's database cannot be used", 5),
            JournalError::Corrupt(_) => Self::internal("the hub's database holds something that it must not"),
        }
    }
}

#[cfg(test)]
mod tests {
    use llm_config_shared::name::Namespace;
    use llm_config_shared::value::Value;

    use super::*;

    #[test]
    fn bad_names_and_values_say_which_field_and_limit() {
        let error = ApiError::from(Namespace::parse(&"n".repeat(300)).unwrap_err());
        assert_eq!((error.kind.status(), &error.details["field"]), (400, &Json::from("namespace")));
        assert_eq!(error.details["limit"], 256);
        let status = |text: &str| ApiError::from(Value::parse(text).unwrap_err()).kind.status();
        assert_eq!(status("{"), 400);
        assert_eq!(status("18446744073709551616"), 422);
        assert_eq!(status(&"[".repeat(40)), 422);
        assert_eq!(status(&format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX))), 413);
    }
}
