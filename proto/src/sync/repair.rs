//! What puts a feed right, as protobuf and back: hashes in a row, each of a fixed length, counted before they are read.

use bytes::Bytes;
use llm_config_shared::limits::{REPAIR_BUCKETS, REPAIR_KEYS_MAX, REPAIR_ROWS_MAX};
use llm_config_shared::replication::repair::{Mark, RepairAnswer, RepairAsk, Sums, Unrepaired};

use super::entry::{InvalidMessage, Parsed, at_most, required, vector};
use super::wire;
use super::wire::repair::Ask;
use super::wire::repair_answer::Answer;

const HASH_BYTES: usize = 8;
const MARK_BYTES: usize = 2 * HASH_BYTES;

pub(super) fn ask_to_wire(repair: u64, ask: RepairAsk) -> wire::Repair {
    let ask = match ask {
        RepairAsk::Compare { feed, at, sums } => Ask::Compare(wire::CompareSums {
            feed: Some((&feed).into()),
            at: Some((&at).into()),
            sums: sums.to_bytes().into(),
        }),
        RepairAsk::Rows { keys } => {
            let keys: Vec<u8> = keys.into_iter().flat_map(u64::to_be_bytes).collect();
            Ask::Rows(wire::FetchRows { keys: keys.into() })
        }
    };
    wire::Repair { repair, ask: Some(ask) }
}

pub(super) fn ask(part: Option<Ask>) -> Parsed<RepairAsk> {
    Ok(match required("what is to be repaired", part)? {
        Ask::Compare(compare) => {
            let sums = Sums::from_bytes(&compare.sums).ok_or(InvalidMessage::Length {
                field: "sums",
                length: compare.sums.len(),
                expected: 16 * REPAIR_BUCKETS,
            })?;
            let feed = required("feed", compare.feed)?.try_into()?;
            RepairAsk::Compare { feed, at: vector(compare.at)?, sums }
        }
        Ask::Rows(rows) => {
            let keys = pieces::<HASH_BYTES>("keys", REPAIR_KEYS_MAX, &rows.keys)?;
            RepairAsk::Rows { keys: keys.iter().map(|hash| u64::from_be_bytes(*hash)).collect() }
        }
    })
}

pub(super) fn answer_to_wire(repair: u64, answer: RepairAnswer) -> wire::RepairAnswer {
    let answer = match answer {
        RepairAnswer::Differing { buckets, marks } => {
            let mut bytes = Vec::with_capacity(marks.len() * MARK_BYTES);
            for mark in marks {
                bytes.extend_from_slice(&mark.key.to_be_bytes());
                bytes.extend_from_slice(&mark.row.to_be_bytes());
            }
            Answer::Differing(wire::DifferingRows { buckets: buckets.into(), marks: bytes.into() })
        }
        RepairAnswer::Rows(bytes) => Answer::Rows(bytes),
        RepairAnswer::Not(why) => Answer::Not(
            match why {
                Unrepaired::Moved => wire::Unrepaired::Moved,
                Unrepaired::Unfit => wire::Unrepaired::Unfit,
                Unrepaired::Busy => wire::Unrepaired::Busy,
            }
            .into(),
        ),
    };
    wire::RepairAnswer { repair, answer: Some(answer) }
}

pub(super) fn answer(part: Option<Answer>) -> Parsed<RepairAnswer> {
    Ok(match required("answer to a repair", part)? {
        Answer::Differing(differing) => {
            at_most("buckets", differing.buckets.len(), REPAIR_BUCKETS)?;
            let marks = pieces::<MARK_BYTES>("marks", REPAIR_ROWS_MAX, &differing.marks)?;
            let marks = marks.iter().map(|mark| {
                let both = u128::from_be_bytes(*mark);
                Mark { key: (both >> 64) as u64, row: both as u64 }
            });
            RepairAnswer::Differing { buckets: differing.buckets.to_vec(), marks: marks.collect() }
        }
        Answer::Rows(bytes) => RepairAnswer::Rows(bytes),
        Answer::Not(why) => RepairAnswer::Not(match wire::Unrepaired::try_from(why) {
            Ok(wire::Unrepaired::Moved) => Unrepaired::Moved,
            Ok(wire::Unrepaired::Unfit) => Unrepaired::Unfit,
            Ok(wire::Unrepaired::Busy) => Unrepaired::Busy,
            Ok(wire::Unrepaired::Unspecified) | Err(_) => {
                return Err(InvalidMessage::Unknown { field: "answer to a repair", value: why });
            }
        }),
    })
}

/// The bytes as pieces of one length, none left over.
fn pieces<'a, const N: usize>(field: &'static str, max: usize, bytes: &'a Bytes) -> Parsed<&'a [[u8; N]]> {
    at_most(field, bytes.len() / N, max)?;
    let (pieces, rest) = bytes.as_chunks::<N>();
    let length = bytes.len();
    if rest.is_empty() {
        Ok(pieces)
    } else {
        Err(InvalidMessage::Length { field, length, expected: pieces.len() * N })
    }
}
