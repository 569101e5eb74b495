//! The opaque token of `X-Config-Position`: how far something had come, for `at_least`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use llm_config_shared::vector::{Position, ShardId, Vector};
use uuid::Uuid;

const VERSION: u8 = 1;
const POSITION_BYTES: usize = 32;

/// A token that this program did not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at_least is not a position that this service gave")]
pub struct InvalidPosition;

/// The token of a position.
pub fn encode(vector: &Vector) -> String {
    let mut bytes = Vec::with_capacity(1 + POSITION_BYTES);
    bytes.push(VERSION);
    for (shard, position) in vector.iter() {
        bytes.extend_from_slice(shard.0.as_bytes());
        bytes.extend_from_slice(&position.epoch.to_be_bytes());
        bytes.extend_from_slice(&position.seq.to_be_bytes());
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The inverse of [`encode`].
///
/// # Errors
/// When the text is no token, or of another version.
pub fn parse(token: &str) -> Result<Vector, InvalidPosition> {
    // Vectors have at most eight positions, so a longer text needs no decoding to be refused.
    if token.len() > 400 {
        return Err(InvalidPosition);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| InvalidPosition)?;
    let Some((&VERSION, rest)) = bytes.split_first() else {
        return Err(InvalidPosition);
    };
    let (chunks, remainder) = rest.as_chunks::<POSITION_BYTES>();
    if !remainder.is_empty() {
        return Err(InvalidPosition);
    }
    Vector::from_positions(chunks.iter().map(position)).map_err(|_| InvalidPosition)
}

fn position(bytes: &[u8; POSITION_BYTES]) -> (ShardId, Position) {
    let number = |at: usize| {
        u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes were cut from thirty-two"))
    };
    let shard = Uuid::from_slice(&bytes[..16]).expect("sixteen bytes were cut from thirty-two");
    (ShardId(shard), Position { epoch: number(16), seq: number(24) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went_and_others_are_refused() {
        let at = |n, seq| (ShardId(Uuid::from_u128(n)), Position { epoch: 7, seq });
        for vector in [
            Vector::EMPTY,
            Vector::from_positions([at(1, 5)]).unwrap(),
            Vector::from_positions((1..9).map(|n| at(n, 1))).unwrap(),
        ] {
            assert_eq!(parse(&encode(&vector)), Ok(vector));
        }
        for text in ["", "AA", "AQA", "!", &"A".repeat(500)] {
            assert_eq!(parse(text), Err(InvalidPosition), "{text}");
        }
    }
}
