//! The frames of a session as protobuf messages and back.

use std::sync::Arc;

use bytes::Bytes;
use llm_config_shared::feed::Feed;
use llm_config_shared::held::{Held, Span};
use llm_config_shared::limits::{FEEDS_MAX, FRAME_BYTES_MAX, SPANS_MAX, UPLOAD_BYTES_MAX, UPLOAD_WRITES_MAX};
use llm_config_shared::name::Environment;
use llm_config_shared::newer::Taken;
use llm_config_shared::replication::frame::{
    EdgeFrame, Hello, HubFrame, Refusal, Request, Response, Welcome,
};
use llm_config_shared::stamp::Hlc;
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::ShardId;
use llm_config_shared::write::Write;

use super::entry::{
    InvalidMessage, Parsed, at_most, environments_from_wire, environments_to_wire, epochs_from_wire, list,
    number, required, subtrees_from_wire, subtrees_to_wire, text, uuid, uuid_bytes, vector,
};
use super::regions::{shards_from_wire, shards_to_wire};
use super::wire::edge_message::Frame as FromEdge;
use super::wire::hub_message::Frame as FromHub;
use super::{repair, wire};
use crate::possession::SEALING_KEY_BYTES;

/// Most keys in one message.
const GRANTS_MAX: usize = 4_096;
/// Most headers of a forwarded answer, and their longest text.
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 8 << 10;
/// Longest signed statement of lost history.
const STATEMENT_BYTES_MAX: usize = 1 << 10;
/// Longest statement of the offline limits: one for each namespace that has its own.
const LIMIT_BYTES_MAX: usize = 256 << 10;
/// Longest path and query of a forwarded request.
pub(super) const TARGET_BYTES_MAX: usize = 16 << 10;

/// Names and values of an answer's headers.
type Headers = Vec<(Arc<str>, Arc<str>)>;

impl From<EdgeFrame> for wire::EdgeMessage {
    fn from(frame: EdgeFrame) -> Self {
        let frame = match frame {
            EdgeFrame::Hello(hello) => FromEdge::Hello(wire::Hello {
                protocol: hello.protocol,
                incarnation: hello.incarnation,
                session: hello.session,
                floor: Some((&hello.floor).into()),
                pending: hello.pending,
            }),
            EdgeFrame::Upload { batch, writes } => {
                FromEdge::Upload(wire::Upload { batch, writes: writes.iter().map(Into::into).collect() })
            }
            EdgeFrame::Subscribe { feeds, held } => {
                let feeds = feeds
                    .iter()
                    .map(|(feed, from)| wire::FeedFrom { feed: Some(feed.into()), from: Some(from.into()) });
                let held = held.iter().map(held_to_wire).collect();
                FromEdge::Subscribe(wire::Subscribe { feeds: feeds.collect(), held })
            }
            EdgeFrame::Ack { transfer } => FromEdge::Ack(wire::Ack { transfer }),
            EdgeFrame::Ask => FromEdge::Ask(wire::Ask {}),
            EdgeFrame::Call { id, request } => FromEdge::Call(wire::Call {
                id,
                method: request.method.to_string(),
                target: request.target.to_string(),
                body: request.body,
                caller: request.caller.to_string(),
            }),
            EdgeFrame::HandIn { batch, writes } => {
                FromEdge::HandIn(wire::HandIn { batch, writes: writes.iter().map(Into::into).collect() })
            }
            EdgeFrame::Repair { repair, ask } => FromEdge::Repair(repair::ask_to_wire(repair, ask)),
        };
        Self { frame: Some(frame) }
    }
}

impl TryFrom<wire::EdgeMessage> for EdgeFrame {
    type Error = InvalidMessage;

    fn try_from(message: wire::EdgeMessage) -> Parsed<Self> {
        Ok(match required("frame", message.frame)? {
            FromEdge::Hello(hello) => Self::Hello(Hello {
                protocol: hello.protocol,
                incarnation: number("incarnation", hello.incarnation)?,
                session: number("session", hello.session)?,
                floor: vector(hello.floor)?,
                pending: hello.pending,
            }),
            FromEdge::Upload(upload) => Self::Upload { batch: upload.batch, writes: writes(upload.writes)? },
            FromEdge::HandIn(part) => Self::HandIn { batch: part.batch, writes: writes(part.writes)? },
            FromEdge::Subscribe(subscribe) => {
                let feeds = list("feeds", FEEDS_MAX, subscribe.feeds, |part| {
                    Ok((required("feed", part.feed)?.try_into()?, vector(part.from)?))
                })?;
                let held = list("held feeds", FEEDS_MAX, subscribe.held, held_from_wire)?;
                Self::Subscribe { feeds, held }
            }
            FromEdge::Ack(ack) => Self::Ack { transfer: ack.transfer },
            FromEdge::Ask(wire::Ask {}) => Self::Ask,
            FromEdge::Call(call) => Self::Call { id: call.id, request: request(call)? },
            FromEdge::Repair(part) => Self::Repair { repair: part.repair, ask: repair::ask(part.ask)? },
        })
    }
}

fn held_to_wire((feed, held): &(Feed, Held)) -> wire::FeedHeld {
    let span = |span: &Span| wire::HeldSpan {
        through: span.through.as_ref().map(Into::into),
        to: Some((&span.to).into()),
    };
    let spans = held.spans.iter().map(span).collect();
    wire::FeedHeld { feed: Some(feed.into()), from: Some((&held.from).into()), spans }
}

fn held_from_wire(part: wire::FeedHeld) -> Parsed<(Feed, Held)> {
    let spans = list("spans", SPANS_MAX, part.spans, |span| {
        Ok(Span { through: span.through.map(TryInto::try_into).transpose()?, to: vector(span.to)? })
    })?;
    Ok((required("feed", part.feed)?.try_into()?, Held { from: vector(part.from)?, spans }))
}

/// Writes of one message, counted before they are read.
pub(super) fn writes(parts: Vec<wire::Write>) -> Parsed<Vec<Write>> {
    let bytes = parts.iter().map(value_bytes).sum();
    at_most("bytes of values in an upload", bytes, UPLOAD_BYTES_MAX)?;
    list("writes", UPLOAD_WRITES_MAX, parts, TryInto::try_into)
}

fn value_bytes(write: &wire::Write) -> usize {
    match &write.action {
        Some(wire::write::Action::Set(set)) => set.value.len(),
        Some(wire::write::Action::Sealed(sealed)) => sealed.body.len() + sealed.wrap.len(),
        Some(wire::write::Action::Delete(_)) | None => 0,
    }
}

fn request(call: wire::Call) -> Parsed<Request> {
    at_most("method bytes", call.method.len(), 16)?;
    at_most("target bytes", call.target.len(), TARGET_BYTES_MAX)?;
    at_most("body bytes", call.body.len(), FRAME_BYTES_MAX)?;
    Ok(Request {
        method: call.method.into(),
        target: call.target.into(),
        body: call.body,
        caller: text("caller", call.caller)?,
    })
}

impl From<HubFrame> for wire::HubMessage {
    fn from(frame: HubFrame) -> Self {
        let part = |transfer, bytes: Bytes| wire::Part { transfer, bytes };
        let frame = match frame {
            HubFrame::Welcome(welcome) => FromHub::Welcome(welcome_to_wire(&welcome)),
            HubFrame::Refused { refusal, retry_after_ms } => {
                FromHub::Refused(refused_to_wire(&refusal, retry_after_ms))
            }
            HubFrame::UploadResult { batch, answers } => FromHub::UploadResult(wire::UploadResult {
                batch,
                answers: answers.iter().map(Into::into).collect(),
            }),
            HubFrame::Grants(grants) => {
                FromHub::Grants(wire::Grants { grants: grants.into_iter().map(Into::into).collect() })
            }
            HubFrame::OfflineLimit(statement) => FromHub::OfflineLimit(wire::OfflineLimit { statement }),
            HubFrame::Taken { batch, taken } => FromHub::Taken(taken_to_wire(batch, taken)),
            HubFrame::Segment { transfer, bytes } => FromHub::Segment(part(transfer, bytes)),
            HubFrame::Checkpoint { transfer, bytes } => FromHub::Checkpoint(part(transfer, bytes)),
            HubFrame::End { transfer, feeds } => FromHub::End(wire::End { transfer, feeds }),
            HubFrame::Reply { id, response } => FromHub::Reply(reply_to_wire(id, response)),
            HubFrame::Repair { repair, answer } => FromHub::Repair(repair::answer_to_wire(repair, answer)),
        };
        Self { frame: Some(frame) }
    }
}

impl TryFrom<wire::HubMessage> for HubFrame {
    type Error = InvalidMessage;

    fn try_from(message: wire::HubMessage) -> Parsed<Self> {
        Ok(match required("frame", message.frame)? {
            FromHub::Welcome(welcome) => Self::Welcome(welcome_from_wire(welcome)?),
            FromHub::Refused(refused) => {
                Self::Refused { retry_after_ms: refused.retry_after_ms, refusal: refusal(refused)? }
            }
            FromHub::UploadResult(result) => Self::UploadResult {
                batch: result.batch,
                answers: list("answers", UPLOAD_WRITES_MAX, result.answers, TryInto::try_into)?,
            },
            FromHub::Taken(part) => Self::Taken { batch: part.batch, taken: part.into() },
            FromHub::Grants(grants) => {
                Self::Grants(list("grants", GRANTS_MAX, grants.grants, TryInto::try_into)?)
            }
            FromHub::OfflineLimit(part) => {
                at_most("bytes of a limit", part.statement.len(), LIMIT_BYTES_MAX)?;
                Self::OfflineLimit(part.statement)
            }
            FromHub::Segment(part) => Self::Segment { transfer: part.transfer, bytes: part.bytes },
            FromHub::Checkpoint(part) => Self::Checkpoint { transfer: part.transfer, bytes: part.bytes },
            FromHub::End(end) => Self::End { transfer: end.transfer, feeds: end.feeds },
            FromHub::Reply(reply) => Self::Reply { id: reply.id, response: response(reply)? },
            FromHub::Repair(part) => {
                Self::Repair { repair: part.repair, answer: repair::answer(part.answer)? }
            }
        })
    }
}

fn welcome_to_wire(welcome: &Welcome) -> wire::Welcome {
    let (regions, kept) = shards_to_wire(&welcome.epochs);
    let (own, regions) = regions.into_iter().partition(|table| table.shard == welcome.shard.0.as_bytes()[..]);
    wire::Welcome {
        shard: uuid_bytes(welcome.shard.0),
        epochs: Vec::into_iter(own).flat_map(|table| table.epochs).collect(),
        regions,
        kept,
        head: Some((&welcome.head).into()),
        physical_ms: welcome.physical.0,
        hlc: welcome.hlc.0,
        epsilon_ms: welcome.epsilon_ms,
        heartbeat_ms: welcome.heartbeat_ms,
        feeds: welcome.feeds.iter().map(Into::into).collect(),
        environments: environments_to_wire(&welcome.environments),
        default_environment: welcome.default_environment.to_string(),
        write: subtrees_to_wire(&welcome.write),
        lost_history: welcome.lost_history.clone().unwrap_or_default(),
        takes_newer: welcome.takes_newer,
        copied: welcome.copied,
        carry_key: welcome.carry_key.as_deref().map(|key| key.to_vec().into()).unwrap_or_default(),
    }
}

fn welcome_from_wire(part: wire::Welcome) -> Parsed<Welcome> {
    at_most("bytes of a statement", part.lost_history.len(), STATEMENT_BYTES_MAX)?;
    let shard = ShardId(uuid("shard", &part.shard)?);
    Ok(Welcome {
        shard,
        epochs: shards_from_wire(part.regions, part.kept)?.with(shard, epochs_from_wire(part.epochs)?),
        head: vector(part.head)?,
        physical: UnixMillis(number("hub time", part.physical_ms)?),
        hlc: Hlc(number("hlc", part.hlc)?),
        epsilon_ms: part.epsilon_ms,
        heartbeat_ms: part.heartbeat_ms,
        feeds: list("feeds", FEEDS_MAX, part.feeds, TryInto::try_into)?,
        environments: environments_from_wire(part.environments)?,
        default_environment: Environment::parse(&part.default_environment)?,
        write: subtrees_from_wire("write", FEEDS_MAX, part.write)?,
        lost_history: Some(part.lost_history).filter(|bytes| !bytes.is_empty()),
        takes_newer: part.takes_newer,
        copied: part.copied,
        carry_key: carry_key(&part.carry_key)?,
    })
}

fn carry_key(bytes: &[u8]) -> Parsed<Option<Box<[u8; SEALING_KEY_BYTES]>>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let wrong =
        InvalidMessage::Length { field: "carry key", length: bytes.len(), expected: SEALING_KEY_BYTES };
    Ok(Some(Box::new(bytes.try_into().map_err(|_| wrong)?)))
}

pub(super) fn taken_to_wire(batch: u64, taken: Taken) -> wire::Taken {
    wire::Taken {
        batch,
        known: taken.known,
        admitted: taken.admitted,
        held: taken.held,
        denied: taken.denied,
        discarded: taken.discarded,
        refused: taken.refused,
        left_out: taken.left_out,
    }
}

impl From<wire::Taken> for Taken {
    fn from(part: wire::Taken) -> Self {
        Self {
            known: part.known,
            admitted: part.admitted,
            held: part.held,
            denied: part.denied,
            discarded: part.discarded,
            refused: part.refused,
            left_out: part.left_out,
        }
    }
}

fn refused_to_wire(refusal: &Refusal, retry_after_ms: u64) -> wire::Refused {
    let mut detail = String::new();
    let refusal = match refusal {
        Refusal::Behind => wire::Refusal::Behind,
        Refusal::Ahead => wire::Refusal::Ahead,
        Refusal::Removed => wire::Refusal::Removed,
        Refusal::Replaced => wire::Refusal::Replaced,
        Refusal::Resubscribe => wire::Refusal::Resubscribe,
        Refusal::Busy => wire::Refusal::Busy,
        Refusal::Protocol(why) => {
            detail = why.to_string();
            wire::Refusal::Protocol
        }
    };
    wire::Refused { refusal: refusal.into(), retry_after_ms, detail }
}

fn refusal(part: wire::Refused) -> Parsed<Refusal> {
    Ok(match wire::Refusal::try_from(part.refusal) {
        Ok(wire::Refusal::Behind) => Refusal::Behind,
        Ok(wire::Refusal::Ahead) => Refusal::Ahead,
        Ok(wire::Refusal::Removed) => Refusal::Removed,
        Ok(wire::Refusal::Replaced) => Refusal::Replaced,
        Ok(wire::Refusal::Resubscribe) => Refusal::Resubscribe,
        Ok(wire::Refusal::Busy) => Refusal::Busy,
        Ok(wire::Refusal::Protocol) => Refusal::Protocol(text("refusal", part.detail)?),
        Ok(wire::Refusal::Unspecified) | Err(_) => {
            return Err(InvalidMessage::Unknown { field: "refusal", value: part.refusal });
        }
    })
}

fn reply_to_wire(id: u64, response: Response) -> wire::Reply {
    let headers = headers_to_wire(response.headers);
    wire::Reply { id, status: response.status.into(), headers, body: response.body }
}

fn response(part: wire::Reply) -> Parsed<Response> {
    let (status, headers) = answer_head(part.status, part.headers)?;
    Ok(Response { status, headers, body: part.body })
}

pub(super) fn headers_to_wire(headers: Headers) -> Vec<wire::Header> {
    let header = |(name, value): (Arc<str>, Arc<str>)| wire::Header {
        name: name.to_string(),
        value: value.to_string(),
    };
    headers.into_iter().map(header).collect()
}

/// Status and headers of an answer that was made elsewhere.
pub(super) fn answer_head(status: u32, headers: Vec<wire::Header>) -> Parsed<(u16, Headers)> {
    let status = u16::try_from(status).ok().filter(|status| (100..600).contains(status));
    let headers = list("headers", HEADERS_MAX, headers, |header| {
        at_most("header bytes", header.name.len() + header.value.len(), HEADER_BYTES_MAX)?;
        Ok((header.name.into(), header.value.into()))
    })?;
    Ok((required("status", status)?, headers))
}
