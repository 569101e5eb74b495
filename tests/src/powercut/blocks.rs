//! Changes of a file that were not synced, as a whole and block by block.

use std::collections::BTreeMap;

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::calls::What;

/// A file after all changes.
pub(super) fn after(durable: &[u8], changes: &[&What]) -> Vec<u8> {
    let mut bytes = durable.to_vec();
    changes.iter().for_each(|what| change(&mut bytes, what));
    bytes
}

/// One change of a file.
pub(super) fn change(bytes: &mut Vec<u8>, what: &What) {
    match what {
        What::Write { at, bytes: written, .. } => {
            let end = at + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*at..end].copy_from_slice(written);
        }
        What::Length { length, .. } => bytes.resize(*length, 0),
        What::Create { .. }
        | What::Folder(_)
        | What::Rename(..)
        | What::Remove(_)
        | What::Sync(_)
        | What::Said(_)
        | What::Nothing => {}
    }
}

/// What a cut may leave of them: every block goes through all changes in order, and stops at one of its own choice.
pub(super) fn torn(
    durable: &[u8],
    changes: &[&What],
    block: usize,
    share: f64,
    random: &mut StdRng,
) -> Vec<u8> {
    let mut lengths = vec![durable.len()];
    let mut touched: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (number, what) in changes.iter().enumerate() {
        let before = *lengths.last().expect("it has one");
        let (range, length) = match what {
            What::Write { at, bytes, .. } => (*at..at + bytes.len(), before.max(at + bytes.len())),
            What::Length { length, .. } => (*length..before.max(*length), *length),
            What::Create { empty: true, .. } => (0..before, 0),
            What::Create { .. }
            | What::Folder(_)
            | What::Rename(..)
            | What::Remove(_)
            | What::Sync(_)
            | What::Said(_)
            | What::Nothing => continue,
        };
        lengths.push(length);
        if !range.is_empty() {
            for place in range.start / block..=(range.end - 1) / block {
                touched.entry(place).or_default().push(number);
            }
        }
    }
    let longest = lengths.iter().copied().max().expect("it has one");
    let mut bytes = durable.to_vec();
    bytes.resize(longest, 0);
    for (place, numbers) in touched {
        let kept =
            if random.random_bool(share) { numbers.len() } else { random.random_range(0..numbers.len()) };
        let (start, end) = (place * block, ((place + 1) * block).min(longest));
        for number in &numbers[..kept] {
            apply_within(&mut bytes[start..end], start, changes[*number]);
        }
    }
    let length =
        if random.random_bool(share) { lengths.len() - 1 } else { random.random_range(0..lengths.len()) };
    bytes.truncate(lengths[length]);
    bytes
}

/// The part of a change that lies in a block, which begins at `start` of its file.
fn apply_within(block: &mut [u8], start: usize, what: &What) {
    let end = start + block.len();
    match what {
        What::Write { at, bytes, .. } => {
            let (from, to) = (start.max(*at), end.min(at + bytes.len()));
            block[from - start..to - start].copy_from_slice(&bytes[from - at..to - at]);
        }
        What::Length { length, .. } => block[length.saturating_sub(start).min(end - start)..].fill(0),
        What::Create { empty: true, .. } => block.fill(0),
        What::Create { .. }
        | What::Folder(_)
        | What::Rename(..)
        | What::Remove(_)
        | What::Sync(_)
        | What::Said(_)
        | What::Nothing => {}
    }
}
