//! Refusals of the sync service and their gRPC statuses: one table, read in both directions.

use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::entry::InvalidMessage;

/// Why a call was refused, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalKind {
    /// The message breaks the protocol.
    Invalid,
    /// No certificate, one of another CA, or a proof that does not verify.
    Unauthenticated,
    TokenUnknown,
    TokenExpired,
    TokenUsed,
    NameTaken,
    /// The nonce is unknown or too old: ask for another.
    NonceUnknown,
    /// The edge was removed, or is not known here.
    Removed,
    /// It may work later.
    Busy,
    Internal,
}

/// One row a kind: the code that any gRPC tool understands, and the word that tells the edge more.
const TABLE: [(RefusalKind, Code, &str); 10] = [
    (RefusalKind::Invalid, Code::InvalidArgument, "invalid"),
    (RefusalKind::Unauthenticated, Code::Unauthenticated, "unauthenticated"),
    (RefusalKind::TokenUnknown, Code::Unauthenticated, "token-unknown"),
    (RefusalKind::TokenExpired, Code::FailedPrecondition, "token-expired"),
    (RefusalKind::TokenUsed, Code::FailedPrecondition, "token-used"),
    (RefusalKind::NameTaken, Code::AlreadyExists, "name-taken"),
    (RefusalKind::NonceUnknown, Code::Aborted, "nonce-unknown"),
    (RefusalKind::Removed, Code::PermissionDenied, "removed"),
    (RefusalKind::Busy, Code::Unavailable, "busy"),
    (RefusalKind::Internal, Code::Internal, "internal"),
];

const REFUSAL: &str = "x-config-refusal";
const RETRY_AFTER_MS: &str = "x-config-retry-after-ms";

/// A refused call. The message is for people and names no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyncRefusal {
    pub kind: RefusalKind,
    pub message: String,
    pub retry_after: Option<Duration>,
}

impl SyncRefusal {
    /// Without a time to come back at.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    /// Come back later.
    pub fn busy(message: impl Into<String>, retry_after: Duration) -> Self {
        Self { kind: RefusalKind::Busy, message: message.into(), retry_after: Some(retry_after) }
    }
}

impl From<InvalidMessage> for SyncRefusal {
    fn from(invalid: InvalidMessage) -> Self {
        Self::new(RefusalKind::Invalid, invalid.to_string())
    }
}

impl From<SyncRefusal> for Status {
    fn from(refusal: SyncRefusal) -> Self {
        let (_, code, word) =
            TABLE.into_iter().find(|(kind, ..)| *kind == refusal.kind).expect("every kind has its row");
        let mut status = Self::new(code, refusal.message);
        status.metadata_mut().insert(REFUSAL, MetadataValue::from_static(word));
        if let Some(after) = refusal.retry_after {
            let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            status.metadata_mut().insert(RETRY_AFTER_MS, ms.into());
        }
        status
    }
}

/// The refusal that a status carries; none for a status that the hub did not give.
pub(super) fn refusal(status: &Status) -> Option<SyncRefusal> {
    let text = |name| status.metadata().get(name).and_then(|value| value.to_str().ok());
    let word = text(REFUSAL)?;
    let (kind, ..) = TABLE.into_iter().find(|(.., known)| *known == word)?;
    let retry_after = text(RETRY_AFTER_MS).and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
    Some(SyncRefusal { kind, message: status.message().to_owned(), retry_after })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_comes_back_as_it_went() {
        for (kind, ..) in TABLE {
            let went =
                SyncRefusal { kind, message: "why".into(), retry_after: Some(Duration::from_millis(7)) };
            assert_eq!(refusal(&Status::from(went.clone())), Some(went));
        }
        assert_eq!(refusal(&Status::unknown("transport error")), None);
    }
}
