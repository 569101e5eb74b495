//! Names, places and writes as protobuf and back. What comes in is parsed with the domain's own parsers and bounds.

use std::sync::Arc;

use bytes::Bytes;
use llm_config_shared::entry::{Author, ChangeId};
use llm_config_shared::feed::{Environments, Feed};
use llm_config_shared::limits::{TAG_BYTES_MAX, TAGS_MAX, TEXT_BYTES_MAX};
use llm_config_shared::name::{EntryKey, Environment, InvalidName, Key, Namespace, Scope, Subtree, Tenant};
use llm_config_shared::seal::Suite;
use llm_config_shared::secret::{About, KeyGrant, SealedSecret, SecretType, Told};
use llm_config_shared::stamp::{ActorId, Hlc, Stamp, WriteId};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::value::{InvalidValue, Value};
use llm_config_shared::vector::{Dot, Epoch, EpochTable, Position, ShardId, TooManyShards, Vector};
use llm_config_shared::write::{Action, Answer, Base, Denial, HeldReason, Verdict, Write};
use uuid::Uuid;

use super::wire;

/// Most environments of a tenant in a message.
const ENVIRONMENTS_MAX: usize = 1_024;
/// Most leaderships of a shard in a message.
const EPOCHS_MAX: usize = 100_000;

/// A message that breaks the protocol. Never carries a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    #[error("{field} is missing")]
    Missing { field: &'static str },
    #[error("{field} has {length} bytes instead of {expected}")]
    Length { field: &'static str, length: usize, expected: usize },
    #[error("{field} has {count}; at most {max} are allowed")]
    TooMany { field: &'static str, count: usize, max: usize },
    #[error("{field} is {value}, which is beyond 63 bits")]
    TooLarge { field: &'static str, value: u64 },
    #[error("{field} has the unknown value {value}")]
    Unknown { field: &'static str, value: i32 },
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Value(#[from] InvalidValue),
    #[error(transparent)]
    Vector(#[from] TooManyShards),
}

pub(super) type Parsed<T> = Result<T, InvalidMessage>;

pub(super) fn required<T>(field: &'static str, part: Option<T>) -> Parsed<T> {
    part.ok_or(InvalidMessage::Missing { field })
}

pub(super) fn at_most(field: &'static str, count: usize, max: usize) -> Parsed<()> {
    if count > max { Err(InvalidMessage::TooMany { field, count, max }) } else { Ok(()) }
}

/// Numbers that a database compares as signed ones.
pub(super) fn number(field: &'static str, value: u64) -> Parsed<u64> {
    if value > i64::MAX as u64 { Err(InvalidMessage::TooLarge { field, value }) } else { Ok(value) }
}

pub(super) fn uuid(field: &'static str, bytes: &[u8]) -> Parsed<Uuid> {
    Uuid::from_slice(bytes).map_err(|_| InvalidMessage::Length { field, length: bytes.len(), expected: 16 })
}

pub(super) fn uuid_bytes(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

pub(super) fn text(field: &'static str, text: String) -> Parsed<Arc<str>> {
    at_most(field, text.len(), TEXT_BYTES_MAX)?;
    Ok(text.into())
}

pub(super) fn optional_text(field: &'static str, part: Option<String>) -> Parsed<Option<Arc<str>>> {
    part.map(|part| text(field, part)).transpose()
}

/// Converts every member, refusing more than `max` before any is looked at.
pub(super) fn list<W, T>(
    field: &'static str,
    max: usize,
    parts: Vec<W>,
    parse: impl Fn(W) -> Parsed<T>,
) -> Parsed<Vec<T>> {
    at_most(field, parts.len(), max)?;
    parts.into_iter().map(parse).collect()
}

impl From<(ShardId, Position)> for wire::Position {
    fn from((shard, position): (ShardId, Position)) -> Self {
        Self { shard: uuid_bytes(shard.0), epoch: position.epoch, seq: position.seq }
    }
}

impl TryFrom<wire::Position> for (ShardId, Position) {
    type Error = InvalidMessage;

    fn try_from(part: wire::Position) -> Parsed<Self> {
        let position = Position { epoch: number("epoch", part.epoch)?, seq: number("seq", part.seq)? };
        Ok((ShardId(uuid("shard", &part.shard)?), position))
    }
}

impl From<Dot> for wire::Position {
    fn from(dot: Dot) -> Self {
        (dot.shard, dot.position).into()
    }
}

impl TryFrom<wire::Position> for Dot {
    type Error = InvalidMessage;

    fn try_from(part: wire::Position) -> Parsed<Self> {
        let (shard, position) = part.try_into()?;
        Ok(Self { shard, position })
    }
}

impl From<&Vector> for wire::Vector {
    fn from(vector: &Vector) -> Self {
        Self { positions: vector.iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::Vector> for Vector {
    type Error = InvalidMessage;

    fn try_from(part: wire::Vector) -> Parsed<Self> {
        // Refused by count before anything is built from it.
        if part.positions.len() > llm_config_shared::limits::SHARDS_MAX {
            return Err(TooManyShards { count: part.positions.len() }.into());
        }
        let positions: Parsed<Vec<_>> = part.positions.into_iter().map(TryInto::try_into).collect();
        Ok(Self::from_positions(positions?)?)
    }
}

/// An absent vector has seen nothing.
pub(super) fn vector(part: Option<wire::Vector>) -> Parsed<Vector> {
    part.map_or(Ok(Vector::EMPTY), TryInto::try_into)
}

pub(super) fn epochs_to_wire(table: &EpochTable) -> Vec<wire::Epoch> {
    let epoch = |e: &Epoch| wire::Epoch { ordinal: e.ordinal, epoch: e.epoch, start_seq: e.start_seq };
    table.epochs().iter().map(epoch).collect()
}

pub(super) fn epochs_from_wire(parts: Vec<wire::Epoch>) -> Parsed<EpochTable> {
    let epochs = list("epochs", EPOCHS_MAX, parts, |part| {
        Ok(Epoch {
            ordinal: part.ordinal,
            epoch: number("epoch", part.epoch)?,
            start_seq: number("start seq", part.start_seq)?,
        })
    })?;
    Ok(EpochTable::new(epochs))
}

pub(super) fn environments_to_wire(environments: &Environments) -> Vec<wire::EnvironmentParent> {
    let pair = |(name, parent): (&Environment, Option<&Environment>)| wire::EnvironmentParent {
        name: name.to_string(),
        parent: parent.map(Environment::to_string).unwrap_or_default(),
    };
    environments.iter().map(pair).collect()
}

pub(super) fn environments_from_wire(parts: Vec<wire::EnvironmentParent>) -> Parsed<Environments> {
    let pairs = list("environments", ENVIRONMENTS_MAX, parts, |part| {
        let parent = if part.parent.is_empty() { None } else { Some(Environment::parse(&part.parent)?) };
        Ok((Environment::parse(&part.name)?, parent))
    })?;
    Ok(Environments::from_pairs(pairs))
}

pub(super) fn subtrees_to_wire(subtrees: &[Subtree]) -> Vec<String> {
    subtrees.iter().map(|subtree| subtree.as_str().to_owned()).collect()
}

pub(super) fn subtrees_from_wire(
    field: &'static str,
    max: usize,
    parts: Vec<String>,
) -> Parsed<Vec<Subtree>> {
    list(field, max, parts, |part| Ok(Subtree::parse(&part)?))
}

impl From<&Feed> for wire::Feed {
    fn from(feed: &Feed) -> Self {
        Self {
            tenant: feed.tenant.to_string(),
            environment: feed.environment.to_string(),
            subtree: feed.subtree.as_str().to_owned(),
            secrets: feed.secrets,
        }
    }
}

impl TryFrom<wire::Feed> for Feed {
    type Error = InvalidMessage;

    fn try_from(part: wire::Feed) -> Parsed<Self> {
        Ok(Self {
            tenant: Tenant::parse(&part.tenant)?,
            environment: Environment::parse(&part.environment)?,
            subtree: Subtree::parse(&part.subtree)?,
            secrets: part.secrets,
        })
    }
}

impl From<&EntryKey> for wire::EntryKey {
    fn from(at: &EntryKey) -> Self {
        Self {
            tenant: at.scope.tenant.to_string(),
            environment: at.scope.environment.to_string(),
            namespace: at.scope.namespace.to_string(),
            key: at.key.to_string(),
        }
    }
}

impl TryFrom<wire::EntryKey> for EntryKey {
    type Error = InvalidMessage;

    fn try_from(part: wire::EntryKey) -> Parsed<Self> {
        let scope = Scope {
            tenant: Tenant::parse(&part.tenant)?,
            environment: Environment::parse(&part.environment)?,
            namespace: Namespace::parse(&part.namespace)?,
        };
        Ok(Self { scope, key: Key::parse(&part.key)? })
    }
}

impl From<WriteId> for wire::WriteId {
    fn from(id: WriteId) -> Self {
        Self { actor: uuid_bytes(id.actor.0), incarnation: id.incarnation, counter: id.counter }
    }
}

impl TryFrom<wire::WriteId> for WriteId {
    type Error = InvalidMessage;

    fn try_from(part: wire::WriteId) -> Parsed<Self> {
        Ok(Self {
            actor: ActorId(uuid("actor", &part.actor)?),
            incarnation: number("incarnation", part.incarnation)?,
            counter: number("counter", part.counter)?,
        })
    }
}

impl From<Stamp> for wire::Stamp {
    fn from(stamp: Stamp) -> Self {
        Self { hlc: stamp.hlc.0, id: Some(stamp.id.into()) }
    }
}

impl TryFrom<wire::Stamp> for Stamp {
    type Error = InvalidMessage;

    fn try_from(part: wire::Stamp) -> Parsed<Self> {
        Ok(Self { hlc: Hlc(number("hlc", part.hlc)?), id: required("stamp id", part.id)?.try_into()? })
    }
}

fn action_to_wire(action: &Action) -> wire::write::Action {
    match action {
        Action::Set { value, tags, description } => wire::write::Action::Set(wire::Set {
            value: value.as_str().to_owned(),
            tags: tags
                .as_ref()
                .map(|tags| wire::Tags { tags: tags.iter().map(ToString::to_string).collect() }),
            description: description.as_ref().map(ToString::to_string),
        }),
        Action::Delete => wire::write::Action::Delete(wire::Delete {}),
        Action::Sealed(sealed) => wire::write::Action::Sealed(wire::SealedSecret {
            key_epoch: sealed.key_epoch,
            version: sealed.version,
            body: sealed.body.clone(),
            wrap: sealed.wrap.clone(),
            secret_type: sealed.about.told.secret_type.number().into(),
            suite: sealed.about.suite.number().into(),
            expires_at_ms: sealed.about.told.expires_at.map(|at| at.0),
        }),
    }
}

fn tag(tag: String) -> Parsed<Arc<str>> {
    at_most("tag bytes", tag.len(), TAG_BYTES_MAX)?;
    Ok(tag.into())
}

/// What is told of a secret.
pub(super) fn about(secret_type: u32, suite: u32, expires_at_ms: Option<u64>) -> Parsed<About> {
    let unknown =
        |field, value: u32| InvalidMessage::Unknown { field, value: i32::try_from(value).unwrap_or(-1) };
    Ok(About {
        told: Told {
            secret_type: SecretType::from_number(secret_type.into())
                .ok_or_else(|| unknown("type of a secret", secret_type))?,
            expires_at: expires_at_ms.map(|ms| number("expiry", ms).map(UnixMillis)).transpose()?,
        },
        suite: Suite::from_number(suite.into()).ok_or_else(|| unknown("cipher of a secret", suite))?,
    })
}

fn action_from_wire(part: wire::write::Action) -> Parsed<Action> {
    match part {
        wire::write::Action::Set(set) => Ok(Action::Set {
            value: Value::parse(&set.value)?,
            tags: set.tags.map(|tags| list("tags", TAGS_MAX, tags.tags, tag)).transpose()?,
            description: optional_text("description", set.description)?,
        }),
        wire::write::Action::Delete(wire::Delete {}) => Ok(Action::Delete),
        wire::write::Action::Sealed(sealed) => Ok(Action::Sealed(SealedSecret {
            key_epoch: number("key epoch", sealed.key_epoch)?,
            version: number("version", sealed.version)?,
            about: about(sealed.secret_type, sealed.suite, sealed.expires_at_ms)?,
            body: sealed.body,
            wrap: sealed.wrap,
        })),
    }
}

impl From<&Write> for wire::Write {
    fn from(write: &Write) -> Self {
        Self {
            id: Some(write.id.into()),
            hlc: write.hlc.0,
            claimed_hlc: write.claimed_hlc.map(|hlc| hlc.0),
            at: Some((&write.at).into()),
            action: Some(action_to_wire(&write.action)),
            author: write.author.name.to_string(),
            claimed_author: write.author.claimed.as_ref().map(ToString::to_string),
            made_at_ms: write.made_at.0,
            message: write.message.as_ref().map(ToString::to_string),
            change: uuid_bytes(write.change.0),
            context: Some((&write.context).into()),
            without_secrets: write.without_secrets,
            base: write.base.map(|base| base.stamp.into()),
            base_change: base_change(write.base),
        }
    }
}

/// The change of a base, on the wire.
pub(super) fn base_change(base: Option<Base>) -> Bytes {
    let known = base.filter(|base| base.change != ChangeId::UNKNOWN);
    known.map(|base| uuid_bytes(base.change.0)).unwrap_or_default()
}

pub(super) fn base(stamp: Option<wire::Stamp>, change: &[u8]) -> Parsed<Option<Base>> {
    let Some(stamp) = stamp else { return Ok(None) };
    let change = if change.is_empty() { ChangeId::UNKNOWN } else { ChangeId(uuid("base's change", change)?) };
    Ok(Some(Base { stamp: stamp.try_into()?, change }))
}

impl TryFrom<wire::Write> for Write {
    type Error = InvalidMessage;

    fn try_from(part: wire::Write) -> Parsed<Self> {
        let claimed_hlc = part.claimed_hlc.map(|hlc| number("claimed hlc", hlc).map(Hlc)).transpose()?;
        Ok(Self {
            id: required("write id", part.id)?.try_into()?,
            hlc: Hlc(number("hlc", part.hlc)?),
            claimed_hlc,
            at: required("entry", part.at)?.try_into()?,
            action: action_from_wire(required("action", part.action)?)?,
            author: Author {
                name: text("author", part.author)?,
                claimed: optional_text("claimed author", part.claimed_author)?,
            },
            made_at: UnixMillis(number("time", part.made_at_ms)?),
            message: optional_text("message", part.message)?,
            change: ChangeId(uuid("change", &part.change)?),
            context: vector(part.context)?,
            without_secrets: part.without_secrets,
            base: base(part.base, &part.base_change)?,
        })
    }
}

impl From<&Answer> for wire::Answer {
    fn from(answer: &Answer) -> Self {
        let (verdict, version) = match answer.verdict {
            Verdict::Admitted { version } => (wire::Verdict::Admitted, version),
            Verdict::Lost { version, .. } => (wire::Verdict::Lost, version),
            Verdict::Duplicate => (wire::Verdict::Duplicate, 0),
            Verdict::Held(HeldReason::ClockAhead) => (wire::Verdict::HeldClockAhead, 0),
            Verdict::Held(HeldReason::ConcurrentSecret) => (wire::Verdict::HeldConcurrentSecret, 0),
            Verdict::Held(HeldReason::Policy) => (wire::Verdict::HeldPolicy, 0),
            Verdict::Held(HeldReason::Newer) => (wire::Verdict::HeldNewer, 0),
            Verdict::Denied(Denial::Namespace) => (wire::Verdict::DeniedNamespace, 0),
            Verdict::Denied(Denial::Environment) => (wire::Verdict::DeniedEnvironment, 0),
            Verdict::Denied(Denial::Reused) => (wire::Verdict::DeniedReused, 0),
            Verdict::Reidentify => (wire::Verdict::Reidentify, 0),
            Verdict::Denied(Denial::Policy) => (wire::Verdict::DeniedPolicy, 0),
        };
        let winner_version = match answer.verdict {
            Verdict::Lost { to, .. } => to,
            Verdict::Admitted { .. }
            | Verdict::Duplicate
            | Verdict::Held(_)
            | Verdict::Denied(_)
            | Verdict::Reidentify => 0,
        };
        Self {
            id: Some(answer.id.into()),
            verdict: verdict.into(),
            version,
            current: answer.current.map(Into::into),
            winner_version,
        }
    }
}

fn verdict(part: i32, version: u64, winner_version: u64) -> Parsed<Verdict> {
    let unknown = InvalidMessage::Unknown { field: "verdict", value: part };
    Ok(match wire::Verdict::try_from(part) {
        Ok(wire::Verdict::Admitted) => Verdict::Admitted { version: number("version", version)? },
        Ok(wire::Verdict::Lost) => Verdict::Lost {
            version: number("version", version)?,
            to: number("winner's version", winner_version)?,
        },
        Ok(wire::Verdict::Duplicate) => Verdict::Duplicate,
        Ok(wire::Verdict::HeldClockAhead) => Verdict::Held(HeldReason::ClockAhead),
        Ok(wire::Verdict::HeldConcurrentSecret) => Verdict::Held(HeldReason::ConcurrentSecret),
        Ok(wire::Verdict::HeldPolicy) => Verdict::Held(HeldReason::Policy),
        Ok(wire::Verdict::HeldNewer) => Verdict::Held(HeldReason::Newer),
        Ok(wire::Verdict::DeniedPolicy) => Verdict::Denied(Denial::Policy),
        Ok(wire::Verdict::DeniedNamespace) => Verdict::Denied(Denial::Namespace),
        Ok(wire::Verdict::DeniedEnvironment) => Verdict::Denied(Denial::Environment),
        Ok(wire::Verdict::DeniedReused) => Verdict::Denied(Denial::Reused),
        Ok(wire::Verdict::Reidentify) => Verdict::Reidentify,
        Ok(wire::Verdict::Unspecified) | Err(_) => return Err(unknown),
    })
}

impl TryFrom<wire::Answer> for Answer {
    type Error = InvalidMessage;

    fn try_from(part: wire::Answer) -> Parsed<Self> {
        Ok(Self {
            id: required("write id", part.id)?.try_into()?,
            verdict: verdict(part.verdict, part.version, part.winner_version)?,
            current: part.current.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<KeyGrant> for wire::KeyGrant {
    fn from(grant: KeyGrant) -> Self {
        Self {
            environment: grant.environment.to_string(),
            subtree: grant.subtree.as_str().to_owned(),
            key_epoch: grant.key_epoch,
            encapsulated: grant.encapsulated,
            ciphertext: grant.ciphertext,
        }
    }
}

impl TryFrom<wire::KeyGrant> for KeyGrant {
    type Error = InvalidMessage;

    fn try_from(part: wire::KeyGrant) -> Parsed<Self> {
        at_most("encapsulated key bytes", part.encapsulated.len(), 1_024)?;
        at_most("sealed key bytes", part.ciphertext.len(), 1_024)?;
        Ok(Self {
            environment: Environment::parse(&part.environment)?,
            subtree: Subtree::parse(&part.subtree)?,
            key_epoch: number("key epoch", part.key_epoch)?,
            encapsulated: part.encapsulated,
            ciphertext: part.ciphertext,
        })
    }
}
