//! A hub's signed statement of how far a feed has come and what it then holds.

use bytes::Bytes;

use super::open::{seal, split};
use super::{Rejected, SIGNATURE_BYTES, VerificationKeys};
use crate::codec::{DecodeError, Reader, Writer};
use crate::digest::FeedDigest;
use crate::feed::Feed;
use crate::stamp::Hlc;
use crate::time::UnixMillis;
use crate::vector::Vector;

/// The state of one feed at one position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub feed: Feed,
    pub vector: Vector,
    /// The feed's last change per shard: who covers this has everything.
    pub changed: Vector,
    pub digest: FeedDigest,
    /// At least every stamp up to `vector`, deletions included that are not told of one by one: whoever has come so far
    /// gives later ones.
    pub hlc: Hlc,
    pub issued_at: UnixMillis,
    /// After this nobody should take it for news.
    pub not_after: UnixMillis,
    pub key_id: u64,
}

/// A checkpoint that only lacks its signature.
#[derive(Clone, Debug)]
pub struct CheckpointDraft {
    encoded: Vec<u8>,
}

const DOMAIN: &[u8] = b"llm-config checkpoint\0";

impl Checkpoint {
    /// Ready to be signed.
    pub fn draft(&self) -> CheckpointDraft {
        let mut out = Writer::default();
        out.feed(&self.feed);
        out.vector(&self.vector);
        out.vector(&self.changed);
        out.raw(&self.digest.sum.to_be_bytes());
        out.uint(self.digest.live);
        out.uint(self.hlc.0);
        out.uint(self.issued_at.0);
        out.uint(self.not_after.0);
        out.raw(&self.key_id.to_be_bytes());
        CheckpointDraft { encoded: out.finish() }
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let checkpoint = Self {
            feed: reader.feed()?,
            vector: reader.vector()?,
            changed: reader.vector()?,
            digest: FeedDigest {
                sum: u128::from_be_bytes(reader.array("digest")?),
                live: reader.uint("live rows")?,
            },
            hlc: Hlc(reader.id63("time")?),
            issued_at: UnixMillis(reader.uint("issued at")?),
            not_after: UnixMillis(reader.uint("not after")?),
            key_id: u64::from_be_bytes(reader.array("key id")?),
        };
        reader.finish()?;
        Ok(checkpoint)
    }
}

impl CheckpointDraft {
    /// What the checkpoint key signs.
    pub fn message(&self) -> Vec<u8> {
        [DOMAIN, &self.encoded].concat()
    }

    /// The finished checkpoint.
    pub fn signed(self, signature: &[u8; SIGNATURE_BYTES]) -> Bytes {
        seal(&self.encoded, signature, &[])
    }
}

/// Checks size and signature and reads the checkpoint.
///
/// # Errors
/// Says what did not fit.
pub fn verify_checkpoint(bytes: &Bytes, keys: &VerificationKeys) -> Result<Checkpoint, Rejected> {
    let (encoded, signature, rest) = split(bytes)?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing(rest.len()).into());
    }
    let checkpoint = Checkpoint::decode(&encoded)?;
    keys.check(checkpoint.key_id, &[DOMAIN, encoded.as_ref()].concat(), &signature)?;
    Ok(checkpoint)
}
