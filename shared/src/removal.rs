//! The hub's signed word to one edge that it was removed, upon which the edge destroys its data.
//!
//! It bears the nonce of the exchange in which it was said, and the id under which the edge joined. An id that was removed
//! is never given again: an edge that joins anew has another, and no old word is about it.

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Writer};
use crate::name::Tenant;
use crate::segment::{Rejected, VerificationKeys};
use crate::signed::{StatementDraft, verify_statement};
use crate::stamp::ActorId;
use crate::time::UnixMillis;

const DOMAIN: &[u8] = b"llm-config removal\0";
const NONCE_BYTES_MAX: usize = 1 << 10;

/// In place of a nonce, where the word is carried by hand: it is true whenever it comes.
pub const CARRIED: &[u8] = b"carried";

/// An edge was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    pub tenant: Tenant,
    pub edge: ActorId,
    pub removed_at: UnixMillis,
    /// Of the exchange in which it is said.
    pub nonce: Bytes,
}

impl Removal {
    /// Ready to be signed.
    pub fn draft(&self, key_id: u64) -> StatementDraft {
        let mut out = Writer::default();
        out.str(self.tenant.as_str());
        out.uuid(self.edge.0);
        out.uint(self.removed_at.0);
        out.bytes(&self.nonce);
        StatementDraft::new(DOMAIN, key_id, &out.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let tenant = Tenant::parse(reader.str(NONCE_BYTES_MAX, "tenant")?);
        let removal = Self {
            tenant: tenant.map_err(|_| DecodeError::Invalid("tenant"))?,
            edge: ActorId(reader.uuid("edge")?),
            removed_at: UnixMillis(reader.uint("removed at")?),
            nonce: Bytes::copy_from_slice(reader.bytes(NONCE_BYTES_MAX, "nonce")?),
        };
        reader.finish()?;
        Ok(removal)
    }
}

/// Checks size and signature, and that it was said to this edge in this exchange.
///
/// # Errors
/// Says what did not fit; then nothing was removed.
pub fn verify_removal(
    bytes: &Bytes,
    keys: &VerificationKeys,
    tenant: &Tenant,
    edge: ActorId,
    nonce: &[u8],
) -> Result<Removal, Rejected> {
    let removal = Removal::decode(&verify_statement(DOMAIN, bytes, keys)?)?;
    let mine = removal.tenant == *tenant && removal.edge == edge && removal.nonce.as_ref() == nonce;
    if mine { Ok(removal) } else { Err(Rejected::Order) }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::segment::tag;

    #[test]
    fn a_word_to_another_edge_or_of_another_exchange_wipes_nothing() {
        let keys = VerificationKeys::tags([(9, [1; 32])]);
        let (tenant, edge) = (Tenant::parse("t").unwrap(), ActorId(Uuid::from_u128(3)));
        let removal = Removal {
            tenant: tenant.clone(),
            edge,
            removed_at: UnixMillis(7),
            nonce: Bytes::from_static(b"nonce"),
        };
        let draft = removal.draft(9);
        let signature = tag(&[1; 32], &draft.message());
        let bytes = draft.signed(&signature);
        let check = |tenant: &Tenant, edge, nonce: &[u8]| verify_removal(&bytes, &keys, tenant, edge, nonce);
        assert_eq!(check(&tenant, edge, b"nonce"), Ok(removal));
        assert!(check(&tenant, edge, b"other").is_err());
        assert!(check(&tenant, ActorId(Uuid::from_u128(4)), b"nonce").is_err());
        assert!(check(&Tenant::parse("u").unwrap(), edge, b"nonce").is_err());
        let strangers = VerificationKeys::tags([(9, [2; 32])]);
        assert!(verify_removal(&bytes, &strangers, &tenant, edge, b"nonce").is_err());
    }
}
