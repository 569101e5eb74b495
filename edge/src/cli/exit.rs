//! How a command ends: the exit code that programs look at, and the one line that people read.

use std::fmt;
use std::process::ExitCode;

use http::StatusCode;

/// The exit codes, for life. 0 is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Denied = 4,
    /// Stale, locked or incomplete: there is an answer, but not the one that was asked for.
    Stale = 5,
    Unreachable = 6,
}

/// Why a command did not do what it was asked, in one line that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, message)
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Failure {
    /// Always one line, whatever a server or a parser put into the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.message.lines().map(str::trim).filter(|line| !line.is_empty());
        f.write_str(&lines.collect::<Vec<_>>().join("; "))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format!("{error:#}"))
    }
}

/// The exit code that an HTTP status stands for. `aged` says whether a 503 came with the age of a replica: then there is
/// data, only older than was asked for.
pub(crate) fn of_status(status: StatusCode, aged: bool) -> Exit {
    match status {
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            Exit::Usage
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Denied,
        StatusCode::NOT_FOUND => Exit::NotFound,
        StatusCode::LOCKED => Exit::Stale,
        StatusCode::SERVICE_UNAVAILABLE if aged => Exit::Stale,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
            Exit::Unreachable
        }
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_map_to_the_documented_codes() {
        let code = |status: u16| of_status(StatusCode::from_u16(status).unwrap(), false) as u8;
        let pairs = [
            (400, 2),
            (401, 4),
            (403, 4),
            (404, 3),
            (409, 1),
            (413, 2),
            (422, 2),
            (423, 5),
            (429, 1),
            (500, 1),
            (503, 6),
        ];
        for (status, exit) in pairs {
            assert_eq!(code(status), exit, "{status}");
        }
        assert_eq!(of_status(StatusCode::SERVICE_UNAVAILABLE, true), Exit::Stale);
    }

    #[test]
    fn a_failure_is_always_one_line() {
        let failure = Failure::failed("first\n  second\n\nthird");
        assert_eq!(failure.to_string(), "first; second; third");
    }
}
