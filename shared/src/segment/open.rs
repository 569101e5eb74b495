//! Taking a segment: every check before anything that it enables.
//!
//! The order is size, signature, (the caller: own feed, validity, floor), hash, bounded inflate, decode. A failure at any
//! place leaves no trace.

use std::io::Read as _;

use bytes::Bytes;
use flate2::bufread::GzDecoder;

use super::header::Section;
use super::patched::Opened;
use super::{
    FORMAT, Rejected, SIGNATURE_BYTES, SectionCodec, SegmentHeader, VerificationKeys, build, columns,
};
use crate::codec::DecodeError;
use crate::limits::{FRAME_BYTES_MAX, INFLATE_RATIO_MAX, SECTION_PLAIN_BYTES_MAX};

/// A segment whose header is known to be the hub's. Its sections have not been looked at.
#[derive(Clone, Debug)]
pub struct Verified {
    header: SegmentHeader,
    sections: Bytes,
}

/// A signed message: what was signed, the signature, and what the header vouches for. The inverse of [`split`].
pub(crate) fn seal(header: &[u8], signature: &[u8; SIGNATURE_BYTES], rest: &[u8]) -> Bytes {
    let length = (header.len() as u32).to_be_bytes();
    [&[FORMAT], &length[..], header, signature, rest].concat().into()
}

/// Header, signature and the rest of a signed message.
pub(crate) fn split(bytes: &Bytes) -> Result<(Bytes, Bytes, Bytes), Rejected> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(Rejected::TooLarge { length: bytes.len(), max: FRAME_BYTES_MAX });
    }
    let (prefix, _) = bytes.split_first_chunk::<5>().ok_or(DecodeError::Truncated("message"))?;
    if prefix[0] != FORMAT {
        return Err(Rejected::Format(prefix[0]));
    }
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    let end = 5usize.saturating_add(length);
    if bytes.len() < end.saturating_add(SIGNATURE_BYTES) {
        return Err(DecodeError::Truncated("message").into());
    }
    let rest = end + SIGNATURE_BYTES;
    Ok((bytes.slice(5..end), bytes.slice(end..rest), bytes.slice(rest..)))
}

/// Checks size and signature; nothing else is believed before.
///
/// # Errors
/// Says what did not fit.
pub fn verify(bytes: &Bytes, keys: &VerificationKeys) -> Result<Verified, Rejected> {
    let (encoded, signature, sections) = split(bytes)?;
    // The key's id has to be read to choose the key; the header is used for nothing else before its signature is checked.
    let header = SegmentHeader::decode(&encoded)?;
    keys.check(header.key_id, &build::signed_message(&encoded), &signature)?;
    Ok(Verified { header, sections })
}

/// The newest key epoch that the secrets of a segment need, for whoever made it: nothing is checked.
pub fn newest_key_epoch(bytes: &Bytes) -> Option<u64> {
    let (encoded, ..) = split(bytes).ok()?;
    SegmentHeader::decode(&encoded).ok()?.key_epochs.into_iter().max()
}

impl Verified {
    /// What the hub says about the segment.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// Checks the hashes, inflates within the signed lengths and decodes the rows.
    ///
    /// # Errors
    /// Says what did not fit.
    pub fn open(self) -> Result<Opened, Rejected> {
        let (mut entries, mut secrets) = (Vec::new(), Bytes::new());
        let mut rest = self.sections;
        for (n, section) in self.header.sections.iter().enumerate() {
            if rest.len() < section.wire_length {
                return Err(DecodeError::Truncated("section").into());
            }
            let wire = rest.split_to(section.wire_length);
            let hash = ring::digest::digest(&ring::digest::SHA256, &wire);
            if hash.as_ref() != section.sha256 {
                return Err(Rejected::Hash);
            }
            match (n, section.codec) {
                (0, SectionCodec::Plain) => entries = wire.to_vec(),
                (0, SectionCodec::Gzip) => entries = inflate(&wire, section)?,
                (1, SectionCodec::Secrets) => secrets = wire,
                _ => return Err(DecodeError::Invalid("section").into()),
            }
        }
        if !rest.is_empty() {
            return Err(DecodeError::Trailing(rest.len()).into());
        }
        if !secrets.is_empty() && !self.header.feed.secrets {
            return Err(Rejected::ForeignRow);
        }
        Ok(columns::decode(&self.header.feed, &entries, &secrets)?)
    }
}

fn inflate(wire: &[u8], section: &Section) -> Result<Vec<u8>, Rejected> {
    let length = section.plain_length;
    if length > SECTION_PLAIN_BYTES_MAX || length > wire.len().saturating_mul(INFLATE_RATIO_MAX) {
        return Err(Rejected::Inflate);
    }
    let mut plain = Vec::with_capacity(length);
    // One byte beyond the signed length tells that there is more, without ever holding it.
    let mut bounded = GzDecoder::new(wire).take(length as u64 + 1);
    bounded.read_to_end(&mut plain).map_err(|_| Rejected::Inflate)?;
    if plain.len() == length { Ok(plain) } else { Err(Rejected::Inflate) }
}
