//! The hub's signed word to one edge in one session: so long may its secrets stay open from now on without another.
//!
//! It names the session that it answers, so that none of before passes for contact. There is no key epoch in it: each key
//! that was handed out is bound to its own, and words are ordered by the time at which they were given.

use bytes::Bytes;

use super::OfflineLimits;
use crate::codec::{DecodeError, Reader, Writer};
use crate::limits::{FEEDS_MAX, OFFLINE_LIMIT_MS_MAX, OFFLINE_LIMITS_MAX};
use crate::name::{Subtree, Tenant};
use crate::secret::SealedLimitKeys;
use crate::segment::{Rejected, VerificationKeys};
use crate::signed::{StatementDraft, verify_statement};
use crate::stamp::ActorId;
use crate::time::UnixMillis;

const DOMAIN: &[u8] = b"llm-config offline limit\0";
const NAME_BYTES_MAX: usize = 256;
const SEALED_BYTES_MAX: usize = 64 + 32 * FEEDS_MAX;

/// The session that a statement answers, as the edge began it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionMark {
    pub incarnation: u64,
    pub session: u64,
}

/// How long an edge's secrets may stay open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitStatement {
    pub tenant: Tenant,
    pub edge: ActorId,
    pub issued_at: UnixMillis,
    /// After this it is worth nothing, whatever the limits say.
    pub not_after: UnixMillis,
    /// None where it is carried.
    pub session: Option<SessionMark>,
    pub limits: OfflineLimits,
    /// Each of the edge's subtrees has a limit key, without which what the replica holds of its secret keys cannot be
    /// opened.
    pub subtrees: Vec<Subtree>,
    /// Those keys in that order, for the edge alone.
    pub keys: SealedLimitKeys,
}

impl LimitStatement {
    /// Ready to be signed.
    pub fn draft(&self, key_id: u64) -> StatementDraft {
        let mut out = Writer::default();
        out.str(self.tenant.as_str());
        out.uuid(self.edge.0);
        out.uint(self.issued_at.0);
        out.uint(self.not_after.0);
        out.option(self.session, |out, mark| {
            out.uint(mark.incarnation);
            out.uint(mark.session);
        });
        out.uint(self.limits.iter().count() as u64);
        for (subtree, limit_ms) in self.limits.iter() {
            out.str(subtree.as_str());
            out.uint(limit_ms);
        }
        out.uint(self.subtrees.len() as u64);
        self.subtrees.iter().for_each(|subtree| out.str(subtree.as_str()));
        out.bytes(&self.keys.encapsulated);
        out.bytes(&self.keys.ciphertext);
        StatementDraft::new(DOMAIN, key_id, &out.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let tenant = Tenant::parse(reader.str(NAME_BYTES_MAX, "tenant")?);
        let statement = Self {
            tenant: tenant.map_err(|_| DecodeError::Invalid("tenant"))?,
            edge: ActorId(reader.uuid("edge")?),
            issued_at: UnixMillis(reader.uint("issued at")?),
            not_after: UnixMillis(reader.uint("not after")?),
            session: reader.option("session", |reader| {
                let incarnation = reader.id63("incarnation")?;
                Ok(SessionMark { incarnation, session: reader.id63("session")? })
            })?,
            limits: read_limits(&mut reader)?,
            subtrees: {
                let count = reader.count(FEEDS_MAX, "subtrees")?;
                (0..count).map(|_| reader.subtree()).collect::<Result<_, _>>()?
            },
            keys: SealedLimitKeys {
                encapsulated: Bytes::copy_from_slice(reader.bytes(SEALED_BYTES_MAX, "encapsulated key")?),
                ciphertext: Bytes::copy_from_slice(reader.bytes(SEALED_BYTES_MAX, "sealed key")?),
            },
        };
        reader.finish()?;
        Ok(statement)
    }
}

fn read_limits(reader: &mut Reader<'_>) -> Result<OfflineLimits, DecodeError> {
    let mut limits = OfflineLimits::default();
    for _ in 0..reader.count(FEEDS_MAX + OFFLINE_LIMITS_MAX, "limits")? {
        let subtree = reader.subtree()?;
        // Whatever a hub was made to sign: longer is never believed.
        limits.set(subtree, reader.uint("limit")?.min(OFFLINE_LIMIT_MS_MAX));
    }
    Ok(limits)
}

/// Checks size and signature and reads the statement. Whose it is, and which session it answers, is for the caller to see.
///
/// # Errors
/// Says what did not fit.
pub fn verify_limit(bytes: &Bytes, keys: &VerificationKeys) -> Result<LimitStatement, Rejected> {
    Ok(LimitStatement::decode(&verify_statement(DOMAIN, bytes, keys)?)?)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::segment::tag;

    #[test]
    fn what_the_hub_said_is_read_back_and_longer_limits_are_cut() {
        let mut limits = OfflineLimits::default();
        limits.set(Subtree::ALL, 5_000);
        limits.set(Subtree::parse("app").unwrap(), u64::MAX);
        let mut statement = LimitStatement {
            tenant: Tenant::parse("t").unwrap(),
            edge: ActorId(Uuid::from_u128(3)),
            issued_at: UnixMillis(7),
            not_after: UnixMillis(5_007),
            session: Some(SessionMark { incarnation: 1, session: 2 }),
            limits,
            subtrees: vec![Subtree::ALL],
            keys: SealedLimitKeys {
                encapsulated: Bytes::from_static(b"e"),
                ciphertext: Bytes::from_static(b"c"),
            },
        };
        let draft = statement.draft(9);
        let signature = tag(&[1; 32], &draft.message());
        let read = verify_limit(&draft.signed(&signature), &VerificationKeys::tags([(9, [1; 32])])).unwrap();
        statement.limits.set(Subtree::parse("app").unwrap(), OFFLINE_LIMIT_MS_MAX);
        assert_eq!(read, statement);
    }
}
