//! 11 and 12: one encoding for one feed and range, whoever makes it; its rows lie in the feed, and a feed without secrets
//! tells of no key that was never plain.

use bytes::Bytes;
use llm_config_shared::entry::Content;
use llm_config_shared::feed::Feed;
use llm_config_shared::segment::{Opened, Rejected, SegmentHeader, VerificationKeys, verify};

use super::Violation;
use crate::truth::Truth;

/// The segments of one part, opened.
///
/// # Errors
/// When one cannot be.
pub fn open(segments: &[Bytes], keys: &VerificationKeys) -> Result<Vec<(SegmentHeader, Opened)>, Violation> {
    let open = |bytes| {
        let verified = verify(bytes, keys)?;
        Ok((verified.header().clone(), verified.open()?))
    };
    let broken = |error: Rejected| Violation::new("encodings", format!("what was just made: {error}"));
    segments.iter().map(open).collect::<Result<_, _>>().map_err(broken)
}

/// A hash of what they say.
///
/// # Errors
/// When something in them must not be there.
pub fn told(feed: &Feed, segments: &[(SegmentHeader, Opened)], truth: &Truth) -> Result<[u8; 32], Violation> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for (header, opened) in segments {
        for row in opened.as_sent() {
            let secret = row.content.is_secret() && !feed.secrets;
            let deleted = matches!(row.content, Content::Deleted);
            let never_plain = !feed.secrets
                && deleted
                && !truth.winners.iter().any(|winner| winner.at == row.at && winner.plain);
            if !feed.contains(&row.at) || secret || never_plain || (deleted && !header.since(&row.at).1) {
                let detail = format!("{} in {feed:?}", row.at.key);
                return Err(Violation::new("outside", detail));
            }
            context.update(row.at.id().as_bytes());
            context.update(&row.dot.position.seq.to_be_bytes());
            context.update(&row.content.hash());
        }
    }
    Ok(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
}
