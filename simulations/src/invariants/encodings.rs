//! 11 and 12: one encoding for one feed and range, whoever makes it; its rows lie in the feed, and a feed without secrets
//! tells of no key that was never plain.

use bytes::Bytes;
use llm_config_shared::entry::Content;
use llm_config_shared::feed::Feed;
use llm_config_shared::segment::{VerificationKeys, verify};

use super::Violation;
use crate::truth::Truth;

/// Opens the segments of one part and gives a hash of what they say.
///
/// # Errors
/// When something in them must not be there.
pub fn open(
    feed: &Feed,
    segments: &[Bytes],
    keys: &VerificationKeys,
    truth: &Truth,
) -> Result<[u8; 32], Violation> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for bytes in segments {
        let broken = |error| Violation::new("encodings", format!("a segment that was just made: {error}"));
        let verified = verify(bytes, keys).map_err(broken)?;
        let header = verified.header().clone();
        for row in verified.open().map_err(broken)?.as_sent() {
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
