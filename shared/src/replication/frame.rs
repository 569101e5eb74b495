//! What an edge and a hub say to one another, as plain data.

use std::sync::Arc;

use bytes::Bytes;

use super::repair::{RepairAnswer, RepairAsk};
use crate::feed::{Environments, Feed};
use crate::held::Held;
use crate::name::{Environment, Subtree};
use crate::newer::Taken;
use crate::secret::KeyGrant;
use crate::stamp::Hlc;
use crate::time::UnixMillis;
use crate::vector::{Epochs, ShardId, Vector};
use crate::write::{Answer, Write};

/// The version of this conversation. A hub refuses what it does not know, by name.
pub const PROTOCOL: u32 = 1;

/// From the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdgeFrame {
    Hello(Hello),
    /// Writes in the order of their counters. The next upload follows the answer to this one.
    Upload {
        batch: u64,
        writes: Vec<Write>,
    },
    /// Begin sending, or begin again, from these vectors. A feed not named starts from nothing; one that the edge
    /// should not have any more is dropped at the transfer's end. Of some, a part of a transfer that broke off is `held`.
    Subscribe {
        feeds: Vec<(Feed, Vector)>,
        held: Vec<(Feed, Held)>,
    },
    /// The transfer is durable and readers see it.
    Ack {
        transfer: u64,
    },
    /// Say how far things have come, now.
    Ask,
    /// A request of the edge's local caller that only the hub can answer.
    Call {
        id: u64,
        request: Request,
    },
    /// Writes that the hub lost, by whomever, in the order of their stamps: only where it said that it takes them. The
    /// next frame of the kind follows the answer to this one.
    HandIn {
        batch: u64,
        writes: Vec<Write>,
    },
    /// A feed differs from its checkpoint: what has to be put right. The number comes back with the answer.
    Repair {
        repair: u64,
        ask: RepairAsk,
    },
}

/// The first frame of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub protocol: u32,
    pub incarnation: u64,
    /// One more than in any session before.
    pub session: u64,
    /// The highest that any hub told this edge, all feeds joined.
    pub floor: Vector,
    /// How many writes wait to be uploaded.
    pub pending: u64,
}

/// From the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HubFrame {
    Welcome(Welcome),
    /// The hub will not serve this session; the stream ends.
    Refused {
        refusal: Refusal,
        retry_after_ms: u64,
    },
    UploadResult {
        batch: u64,
        answers: Vec<Answer>,
    },
    /// What became of the writes that were handed in.
    Taken {
        batch: u64,
        taken: Taken,
    },
    /// The hub's signed word of how long secrets may stay open without another: nothing that replication looks at.
    OfflineLimit(Bytes),
    /// Keys of subtrees, before the segments that need them.
    Grants(Vec<KeyGrant>),
    /// A signed segment, one of a transfer.
    Segment {
        transfer: u64,
        bytes: Bytes,
    },
    /// A signed checkpoint: the end of one feed's part of a transfer, or, with transfer 0, a heartbeat.
    Checkpoint {
        transfer: u64,
        bytes: Bytes,
    },
    /// Everything of the transfer has been sent: so many feeds with a checkpoint.
    End {
        transfer: u64,
        feeds: u32,
    },
    Reply {
        id: u64,
        response: Response,
    },
    Repair {
        repair: u64,
        answer: RepairAnswer,
    },
}

/// The hub agrees to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    pub shard: ShardId,
    pub epochs: Epochs,
    pub head: Vector,
    /// The hub's physical clock: the limit for pending stamps.
    pub physical: UnixMillis,
    /// The hub's hybrid clock: the new value of those beyond the limit.
    pub hlc: Hlc,
    /// How far beyond `physical` a stamp may be.
    pub epsilon_ms: u64,
    pub heartbeat_ms: u64,
    /// What this edge receives from now on.
    pub feeds: Vec<Feed>,
    pub environments: Environments,
    pub default_environment: Environment,
    /// Where it may write.
    pub write: Vec<Subtree>,
    /// The hub lost a part of what this edge has seen: its signed statement of that.
    pub lost_history: Option<Bytes>,
    /// Beside that statement: the hub takes what this edge knows of the lost part. One of before does not.
    pub takes_newer: bool,
    /// Another replica is connected under the same incarnation: this one is to take another, once the hub has decided
    /// what it can of the writes that wait.
    pub copied: bool,
    /// What is carried to this hub is sealed to this key (X25519); none where it takes nothing of the kind now.
    pub carry_key: Option<Box<[u8; 32]>>,
}

/// Why a session is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("this hub process is behind what the edge has seen")]
    Behind,
    #[error("the edge has seen more than the hub's history holds; was the hub restored from a backup?")]
    Ahead,
    #[error("the edge was removed from the hub")]
    Removed,
    #[error("a newer session of the same edge is connected")]
    Replaced,
    #[error("what the edge receives has changed; it connects again")]
    Resubscribe,
    #[error("the hub is busy or its database is away")]
    Busy,
    #[error("the message was not understood: {0}")]
    Protocol(Arc<str>),
}

/// A forwarded request: the local caller's words, and who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: Arc<str>,
    /// Path and query.
    pub target: Arc<str>,
    pub body: Bytes,
    /// As the edge knows its caller: `uid:0`.
    pub caller: Arc<str>,
}

/// The hub's answer to a forwarded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Lower-case names.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
    pub body: Bytes,
}
