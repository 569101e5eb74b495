//! 11: a part of a transfer brings what its receiver lacks, each entry once however often it was written, in few bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use llm_config_shared::entry::{Content, Row};
use llm_config_shared::feed::Feed;
use llm_config_shared::limits::GZIP_BYTES_MIN;
use llm_config_shared::name::EntryKey;

use super::{Check, Violation};
use crate::truth::Truth;

/// What a segment may take beside its rows: feed, places, a hash and a signature. Without rows it was at most
/// 211 bytes, and with rows 16 more: beyond this a segment may take once what the oracle takes, for rows in columns bring
/// more than levels below gzip's best cost.
const SEGMENT_BYTES: usize = 256;

/// By key, the newest place of what a receiver lacks of a feed at `to`: one at `from`, or one that has nothing, and lacks
/// only what is there.
pub fn lacking(truth: &Truth, feed: &Feed, from: Option<u64>, to: u64) -> BTreeMap<EntryKey, u64> {
    let (mut newest, mut told) = (BTreeMap::new(), BTreeSet::new());
    for (seq, winner) in (1..=to).zip(&truth.winners).skip(from.unwrap_or(0) as usize) {
        if !feed.contains(&winner.at) {
            continue;
        }
        newest.insert(&winner.at, seq);
        let shown = winner.live && (feed.secrets || winner.plain);
        let was_shown = feed.secrets || winner.was_plain;
        if shown || (was_shown && from.is_some()) {
            told.insert(&winner.at);
        } else if from.is_none() {
            told.remove(&winner.at);
        }
    }
    told.into_iter().map(|at| (at.clone(), newest[at])).collect()
}

/// # Errors
/// When what was sent is more or less than what is lacking.
pub fn exactly(feed: &Feed, sent: &[(EntryKey, u64)], lacking: &BTreeMap<EntryKey, u64>) -> Check {
    let rows: BTreeMap<&EntryKey, u64> = sent.iter().map(|(at, seq)| (at, *seq)).collect();
    let wrong = |what: String| Err(Violation::new("bytes", format!("{what} of {feed:?}")));
    if rows.len() != sent.len() {
        return wrong(format!("{} rows for {} entries", sent.len(), rows.len()));
    }
    if let Some((at, seq)) = rows.iter().find(|(at, seq)| lacking.get(**at) != Some(seq)) {
        return wrong(format!("{} as of {seq} is sent to who has it", at.key));
    }
    match lacking.iter().find(|(at, _)| !rows.contains_key(at)) {
        Some((at, seq)) => wrong(format!("{} as of {seq} is not sent to who lacks it", at.key)),
        None => Ok(()),
    }
}

/// One row as somebody would write it down who only wants to keep all of it.
fn line(row: &Row) -> String {
    let (at, id, about, place) = (&row.at, row.stamp.id, &row.metadata, row.dot.position);
    let content = match &row.content {
        Content::Plain(value) => value.as_str(),
        Content::Secret(_) => "sealed",
        Content::Deleted => "deleted",
    };
    format!(
        "{} {} {content} {} {} {} {} {} {} {} {} {} {} {} {:?} {:?} {}\n",
        at.scope.namespace,
        at.key,
        row.stamp.hlc.0,
        id.actor.0,
        id.incarnation,
        id.counter,
        place.epoch,
        place.seq,
        row.version,
        about.created_at.0,
        about.updated_at.0,
        about.created_by,
        about.updated_by,
        about.tags,
        about.description,
        row.change.0,
    )
}

/// What the rows of one segment may take: gzip's best of them, whole and one by one. What is small stays as it is, as the
/// protocol has it, and ciphertext does not shrink.
fn oracle(rows: &[&Row]) -> usize {
    let lines: String = rows.iter().map(|row| line(row)).collect();
    let sealed = rows.iter().map(|row| match &row.content {
        Content::Secret(secret) => secret.body.len() + secret.wrap.len(),
        Content::Plain(_) | Content::Deleted => 0,
    });
    let mut best = GzEncoder::new(Vec::new(), Compression::best());
    best.write_all(lines.as_bytes()).expect("a Vec takes everything");
    let best = best.finish().expect("a Vec takes everything").len();
    best.max(lines.len().min(GZIP_BYTES_MIN)) + sealed.sum::<usize>()
}

/// # Errors
/// When a segment that holds these rows is larger than it has to be.
pub fn few(feed: &Feed, rows: &[&Row], bytes: usize) -> Check {
    let oracle = oracle(rows);
    if bytes <= oracle + SEGMENT_BYTES {
        return Ok(());
    }
    let detail = format!("{bytes} bytes for {} rows where {oracle} would do, of {feed:?}", rows.len());
    Err(Violation::new("bytes", detail))
}
