//! Segments and checkpoints: what a hub signs once and every edge with the same feed receives, byte for byte.
//!
//! Layout of both: `format, length of header, header, Ed25519 signature over the header, sections`. The header states
//! length, plain length and SHA-256 of every section, so the signature covers all bytes. Signing itself happens outside:
//! a draft gives the bytes to sign and takes the signature.

use std::collections::BTreeMap;

use ring::hmac;
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::codec::DecodeError;
use crate::feed::Feed;
use crate::vector::Vector;

mod build;
mod checkpoint;
mod columns;
mod header;
mod lost;
mod open;
mod patched;

pub use build::{Draft, Effort, SegmentPart, draft};
pub use checkpoint::{Checkpoint, CheckpointDraft, verify_checkpoint};
pub use header::{Kind, SectionCodec, SegmentHeader};
pub use lost::{LostHistory, LostHistoryDraft, verify_lost_history};
pub use open::{Verified, newest_key_epoch, verify};
pub(crate) use open::{seal, split};
pub use patched::{Held, Opened, Outgoing, Patch};

/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;
const FORMAT: u8 = 2;

/// The public keys that an edge trusts, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerificationKeys {
    scheme: Scheme,
    keys: BTreeMap<u64, [u8; 32]>,
}

/// What a signature is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Scheme {
    #[default]
    Ed25519,
    Tag,
}

impl VerificationKeys {
    /// Ed25519 public keys by id.
    pub fn new(keys: impl IntoIterator<Item = (u64, [u8; 32])>) -> Self {
        Self { scheme: Scheme::Ed25519, keys: keys.into_iter().collect() }
    }

    /// Keys whose signatures are made by [`tag`]. Whoever can check one can make one: only for simulated worlds, of whose
    /// time three quarters would otherwise be arithmetic on curves.
    pub fn tags(keys: impl IntoIterator<Item = (u64, [u8; 32])>) -> Self {
        Self { scheme: Scheme::Tag, keys: keys.into_iter().collect() }
    }

    /// Ids and keys.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8; 32])> {
        self.keys.iter().map(|(id, key)| (*id, key))
    }

    pub(crate) fn check(&self, key_id: u64, message: &[u8], signature: &[u8]) -> Result<(), Rejected> {
        let key = self.keys.get(&key_id).ok_or(Rejected::UnknownKey)?;
        let fits = match self.scheme {
            Scheme::Ed25519 => UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok(),
            Scheme::Tag => signature == tag(key, message),
        };
        if fits { Ok(()) } else { Err(Rejected::Signature) }
    }
}

/// HMAC-SHA256 in the length of a signature: see [`VerificationKeys::tags`].
pub fn tag(key: &[u8; 32], message: &[u8]) -> [u8; SIGNATURE_BYTES] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut signature = [0; SIGNATURE_BYTES];
    signature[..32].copy_from_slice(tag.as_ref());
    signature
}

/// Why an edge did not take what it received. Its last good state stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("the message has {length} bytes; at most {max} are allowed")]
    TooLarge { length: usize, max: usize },
    #[error("the message's format {0} is not known")]
    Format(u8),
    #[error("signed by a key that this edge does not know")]
    UnknownKey,
    #[error("the signature does not fit")]
    Signature,
    #[error("not meant for this edge: {0:?}")]
    NotMine(Box<Feed>),
    #[error("older than what a hub has sent before")]
    BelowFloor,
    #[error("does not continue what is held: starts at {from:?}")]
    Gap { from: Vector },
    #[error("of an unknown history of the hub")]
    UnknownEpoch,
    #[error("the hub says that it lost a part of its history, and that does not fit what it said before")]
    LostHistory,
    #[error("goes on from a part of a transfer that is not held here")]
    NotHeld,
    #[error("the content's hash does not fit")]
    Hash,
    #[error("inflates to more than was signed, or than is allowed")]
    Inflate,
    #[error("unreadable: {0}")]
    Decode(#[from] DecodeError),
    #[error("holds an entry that is not in it by its own words")]
    ForeignRow,
    #[error("changes a value that is not the one held here")]
    Base,
    #[error("a part of the transfer is missing or out of order")]
    Order,
    #[error("the result differs from what the hub holds")]
    Digest,
}

#[cfg(test)]
mod tests;
