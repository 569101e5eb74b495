//! What lies in a file that is carried by hand: frames of the stream, each behind a byte that says which end it is from.

use bytes::Bytes;
use llm_config_shared::feed::Feed;
use llm_config_shared::replication::frame::{EdgeFrame, HubFrame};
use llm_config_shared::vector::Vector;
use prost::Message as _;

use super::entry::InvalidMessage;
use super::wire;

const FROM_EDGE: u8 = 1;
const FROM_HUB: u8 = 2;
const REMOVAL: u8 = 3;

/// One piece of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    FromEdge(EdgeFrame),
    FromHub(HubFrame),
    /// The hub's signed statement that the edge was removed. Nothing else is in its file.
    Removal(Bytes),
}

/// Why a piece is none.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPiece {
    #[error("it is of a kind that this program does not know; it may be too old")]
    Kind,
    #[error("it is no message: {0}")]
    Encoding(#[from] prost::DecodeError),
    #[error(transparent)]
    Message(#[from] InvalidMessage),
}

impl Piece {
    /// As it lies in the file, before it is sealed.
    pub fn encode(self) -> Vec<u8> {
        let (kind, body) = match self {
            Self::FromEdge(frame) => (FROM_EDGE, wire::EdgeMessage::from(frame).encode_to_vec()),
            Self::FromHub(frame) => (FROM_HUB, wire::HubMessage::from(frame).encode_to_vec()),
            Self::Removal(statement) => (REMOVAL, statement.to_vec()),
        };
        [&[kind][..], &body].concat()
    }

    /// The inverse.
    ///
    /// # Errors
    /// When it was not made by [`Piece::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidPiece> {
        let (kind, body) = bytes.split_first().ok_or(InvalidPiece::Kind)?;
        Ok(match *kind {
            FROM_EDGE => Self::FromEdge(wire::EdgeMessage::decode(body)?.try_into()?),
            FROM_HUB => Self::FromHub(wire::HubMessage::decode(body)?.try_into()?),
            REMOVAL => Self::Removal(Bytes::copy_from_slice(body)),
            _ => return Err(InvalidPiece::Kind),
        })
    }

    /// What the hub was told that the edge holds, as the edge itself would have said it.
    pub fn asked(feeds: Vec<(Feed, Vector)>) -> Self {
        Self::FromEdge(EdgeFrame::Subscribe { feeds, held: Vec::new() })
    }
}
