//! What one process of a hub passes on to the one that leads, as protobuf and back.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use llm_config_shared::limits::{FEEDS_MAX, FRAME_BYTES_MAX, UPLOAD_WRITES_MAX};
use llm_config_shared::name::{EdgeName, Tenant};
use llm_config_shared::newer::Taken;
use llm_config_shared::replication::admit::{HandIn, Upload};
use llm_config_shared::replication::frame::Response;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::write::Answer;
use zeroize::Zeroizing;

use super::entry::{
    InvalidMessage, Parsed, at_most, environments_from_wire, environments_to_wire, list, number, required,
    subtrees_from_wire, subtrees_to_wire, text, uuid, uuid_bytes,
};
use super::frame::{TARGET_BYTES_MAX, answer_head, headers_to_wire, taken_to_wire, writes};
use super::wire;

/// A frame of an edge still fits with what its session adds.
pub(super) const MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX + (1 << 20);
/// Longest Authorization header.
const AUTHORIZATION_BYTES_MAX: usize = 8 << 10;

/// A request of an API client that came to a process that does not lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedRequest {
    pub method: Arc<str>,
    /// Path and query.
    pub target: Arc<str>,
    pub body: Bytes,
    pub asker: Asker,
    /// It comes from another region, to the home of the fleet's tables.
    pub from_region: bool,
}

/// For whom a request is passed on.
#[derive(Clone, PartialEq, Eq)]
pub enum Asker {
    /// Whoever has this Authorization header, and came from this address.
    Token { authorization: Zeroizing<String>, address: IpAddr },
    /// A caller at an edge, as the edge names them.
    Edge { edge: ActorId, caller: Arc<str> },
}

impl fmt::Debug for Asker {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { address, .. } => write!(f, "Token(… from {address})"),
            Self::Edge { edge, caller } => write!(f, "Edge({}, {caller})", edge.0),
        }
    }
}

impl From<PassedRequest> for wire::PassRequest {
    fn from(request: PassedRequest) -> Self {
        let asker = match request.asker {
            Asker::Token { authorization, address } => wire::pass_request::Asker::Token(wire::TokenAsker {
                authorization: authorization.to_string(),
                address: address.to_string(),
            }),
            Asker::Edge { edge, caller } => wire::pass_request::Asker::Edge(wire::EdgeAsker {
                edge: uuid_bytes(edge.0),
                caller: caller.to_string(),
            }),
        };
        Self {
            method: request.method.to_string(),
            target: request.target.to_string(),
            body: request.body,
            asker: Some(asker),
            from_region: request.from_region,
        }
    }
}

impl TryFrom<wire::PassRequest> for PassedRequest {
    type Error = InvalidMessage;

    fn try_from(message: wire::PassRequest) -> Parsed<Self> {
        at_most("method bytes", message.method.len(), 16)?;
        at_most("target bytes", message.target.len(), TARGET_BYTES_MAX)?;
        at_most("body bytes", message.body.len(), FRAME_BYTES_MAX)?;
        let asker = match required("asker", message.asker)? {
            wire::pass_request::Asker::Token(token) => {
                at_most("authorization bytes", token.authorization.len(), AUTHORIZATION_BYTES_MAX)?;
                let address = required("address", token.address.parse().ok())?;
                Asker::Token { authorization: Zeroizing::new(token.authorization), address }
            }
            wire::pass_request::Asker::Edge(edge) => {
                Asker::Edge { edge: ActorId(uuid("edge", &edge.edge)?), caller: text("caller", edge.caller)? }
            }
        };
        let (method, target) = (message.method.into(), message.target.into());
        let from_region = message.from_region;
        Ok(Self { method, target, body: message.body, asker, from_region })
    }
}

impl From<Response> for wire::PassReply {
    fn from(response: Response) -> Self {
        let headers = headers_to_wire(response.headers);
        Self { status: response.status.into(), headers, body: response.body }
    }
}

impl TryFrom<wire::PassReply> for Response {
    type Error = InvalidMessage;

    fn try_from(reply: wire::PassReply) -> Parsed<Self> {
        let (status, headers) = answer_head(reply.status, reply.headers)?;
        Ok(Self { status, headers, body: reply.body })
    }
}

impl From<&Upload> for wire::AdmitRequest {
    fn from(upload: &Upload) -> Self {
        Self {
            edge: uuid_bytes(upload.edge.0),
            tenant: upload.tenant.to_string(),
            write: subtrees_to_wire(&upload.write),
            feeds: upload.feeds.iter().map(Into::into).collect(),
            environments: environments_to_wire(&upload.environments),
            session: upload.session,
            first: upload.first,
            writes: upload.writes.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::AdmitRequest> for Upload {
    type Error = InvalidMessage;

    fn try_from(message: wire::AdmitRequest) -> Parsed<Self> {
        Ok(Self {
            edge: ActorId(uuid("edge", &message.edge)?),
            tenant: Tenant::parse(&message.tenant)?,
            write: subtrees_from_wire("write", FEEDS_MAX, message.write)?,
            feeds: list("feeds", FEEDS_MAX, message.feeds, TryInto::try_into)?,
            environments: environments_from_wire(message.environments)?,
            session: number("session", message.session)?,
            first: message.first,
            writes: writes(message.writes)?,
        })
    }
}

impl From<&HandIn> for wire::TakeInRequest {
    fn from(hand_in: &HandIn) -> Self {
        Self {
            edge: uuid_bytes(hand_in.edge.0),
            name: hand_in.name.to_string(),
            tenant: hand_in.tenant.to_string(),
            write: subtrees_to_wire(&hand_in.write),
            feeds: hand_in.feeds.iter().map(Into::into).collect(),
            environments: environments_to_wire(&hand_in.environments),
            new_epoch: hand_in.new_epoch,
            writes: hand_in.writes.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::TakeInRequest> for HandIn {
    type Error = InvalidMessage;

    fn try_from(message: wire::TakeInRequest) -> Parsed<Self> {
        Ok(Self {
            edge: ActorId(uuid("edge", &message.edge)?),
            name: EdgeName::parse(&message.name)?.as_str().into(),
            tenant: Tenant::parse(&message.tenant)?,
            write: subtrees_from_wire("write", FEEDS_MAX, message.write)?,
            feeds: list("feeds", FEEDS_MAX, message.feeds, TryInto::try_into)?,
            environments: environments_from_wire(message.environments)?,
            new_epoch: number("epoch", message.new_epoch)?,
            writes: writes(message.writes)?,
        })
    }
}

impl From<Taken> for wire::TakeInReply {
    fn from(taken: Taken) -> Self {
        Self { taken: Some(taken_to_wire(0, taken)) }
    }
}

impl TryFrom<wire::TakeInReply> for Taken {
    type Error = InvalidMessage;

    fn try_from(reply: wire::TakeInReply) -> Parsed<Self> {
        Ok(required("taken", reply.taken)?.into())
    }
}

impl From<Vec<Answer>> for wire::AdmitReply {
    fn from(answers: Vec<Answer>) -> Self {
        Self { answers: answers.iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::AdmitReply> for Vec<Answer> {
    type Error = InvalidMessage;

    fn try_from(reply: wire::AdmitReply) -> Parsed<Self> {
        list("answers", UPLOAD_WRITES_MAX, reply.answers, TryInto::try_into)
    }
}
