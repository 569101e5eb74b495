//! Joining and renewing: what is asked, what is signed, what is given.

use bytes::Bytes;
use llm_config_shared::feed::Binding;
use llm_config_shared::limits::FEEDS_MAX;
use llm_config_shared::name::{EdgeName, Environment, Tenant};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::time::UnixMillis;

use super::entry::{
    InvalidMessage, Parsed, at_most, list, number, required, subtrees_from_wire, subtrees_to_wire, uuid,
    uuid_bytes,
};
use super::wire;
use crate::join_token::JoinSecret;

/// Longest key, signature or nonce that is looked at.
const KEY_BYTES_MAX: usize = 1_024;
/// Longest chain of certificates in a message.
const PEM_BYTES_MAX: usize = 64 << 10;

/// An edge presents its join token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrollRequest {
    pub secret: JoinSecret,
    /// SubjectPublicKeyInfo (DER) of the key for TLS and renewal.
    pub public_key: Bytes,
    /// X25519 public key that keys are sealed to.
    pub sealing_key: Bytes,
    pub requested_name: Option<EdgeName>,
    /// By the private half of `public_key` over [`possession::join_message`](crate::possession::join_message).
    pub proof: Bytes,
}

/// The edge's identity, as the hub wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrollReply {
    pub edge: ActorId,
    pub tenant: Tenant,
    pub name: EdgeName,
    pub credentials: Credentials,
    pub binding: Binding,
    pub default_environment: Environment,
}

/// A certificate, whom to trust, and whose signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Leaf first.
    pub certificate_chain_pem: String,
    pub ca_pem: String,
    /// [`KeyStatement`](crate::key_statement::KeyStatement), encoded: which keys sign segments and checkpoints.
    pub key_statement: Bytes,
    /// By the CA's key.
    pub key_statement_signature: Bytes,
}

/// A nonce to be signed in a [`RenewRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    pub nonce: Bytes,
}

/// An edge proves that it holds the enrolled key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewRequest {
    pub edge: ActorId,
    pub nonce: Bytes,
    /// X25519 public key that keys are sealed to from now on.
    pub sealing_key: Bytes,
    /// By the enrolled key over [`possession::renew_message`](crate::possession::renew_message).
    pub proof: Bytes,
}

/// What comes of a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewReply {
    Renewed(Credentials),
    /// The edge was removed: told only to whoever holds its enrolled key.
    Removed(SignedRemoval),
}

/// The hub's signed [`Removal`](llm_config_shared::removal::Removal), and the CA's word on the keys that sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRemoval {
    pub statement: Bytes,
    /// [`KeyStatement`](crate::key_statement::KeyStatement), encoded.
    pub key_statement: Bytes,
    /// By the CA's key.
    pub key_statement_signature: Bytes,
}

/// An edge has destroyed its data, and says so with the last use of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WipeReport {
    pub edge: ActorId,
    pub wiped_at: UnixMillis,
    /// By the enrolled key over [`possession::wipe_message`](crate::possession::wipe_message).
    pub proof: Bytes,
}

fn key(field: &'static str, bytes: Bytes) -> Parsed<Bytes> {
    at_most(field, bytes.len(), KEY_BYTES_MAX)?;
    if bytes.is_empty() { Err(InvalidMessage::Missing { field }) } else { Ok(bytes) }
}

fn array<const N: usize>(field: &'static str, bytes: &[u8]) -> Parsed<[u8; N]> {
    bytes.try_into().map_err(|_| InvalidMessage::Length { field, length: bytes.len(), expected: N })
}

impl From<EnrollRequest> for wire::EnrollRequest {
    fn from(request: EnrollRequest) -> Self {
        Self {
            token: Bytes::copy_from_slice(request.secret.as_bytes()),
            public_key: request.public_key,
            sealing_key: request.sealing_key,
            requested_name: request.requested_name.map(|name| name.to_string()).unwrap_or_default(),
            proof: request.proof,
        }
    }
}

impl TryFrom<wire::EnrollRequest> for EnrollRequest {
    type Error = InvalidMessage;

    fn try_from(part: wire::EnrollRequest) -> Parsed<Self> {
        let name = &part.requested_name;
        Ok(Self {
            secret: JoinSecret::new(array("token", &part.token)?),
            public_key: key("public key", part.public_key)?,
            sealing_key: key("sealing key", part.sealing_key)?,
            requested_name: if name.is_empty() { None } else { Some(EdgeName::parse(name)?) },
            proof: key("proof", part.proof)?,
        })
    }
}

impl From<EnrollReply> for wire::EnrollReply {
    fn from(reply: EnrollReply) -> Self {
        let environments = reply.binding.environments.iter();
        Self {
            edge: uuid_bytes(reply.edge.0),
            tenant: reply.tenant.to_string(),
            name: reply.name.to_string(),
            credentials: Some(reply.credentials.into()),
            binding: Some(wire::Binding {
                namespaces: subtrees_to_wire(&reply.binding.namespaces),
                environments: environments.map(Environment::to_string).collect(),
                write: subtrees_to_wire(&reply.binding.write),
            }),
            default_environment: reply.default_environment.to_string(),
        }
    }
}

fn binding(part: wire::Binding) -> Parsed<Binding> {
    Ok(Binding {
        namespaces: subtrees_from_wire("namespaces", FEEDS_MAX, part.namespaces)?,
        environments: list("environments", FEEDS_MAX, part.environments, |name| {
            Ok(Environment::parse(&name)?)
        })?,
        write: subtrees_from_wire("write", FEEDS_MAX, part.write)?,
    })
}

impl TryFrom<wire::EnrollReply> for EnrollReply {
    type Error = InvalidMessage;

    fn try_from(part: wire::EnrollReply) -> Parsed<Self> {
        Ok(Self {
            edge: ActorId(uuid("edge", &part.edge)?),
            tenant: Tenant::parse(&part.tenant)?,
            name: EdgeName::parse(&part.name)?,
            credentials: required("credentials", part.credentials)?.try_into()?,
            binding: binding(required("binding", part.binding)?)?,
            default_environment: Environment::parse(&part.default_environment)?,
        })
    }
}

impl From<Credentials> for wire::Credentials {
    fn from(credentials: Credentials) -> Self {
        Self {
            certificate_chain_pem: credentials.certificate_chain_pem,
            ca_pem: credentials.ca_pem,
            key_statement: credentials.key_statement,
            key_statement_signature: credentials.key_statement_signature,
        }
    }
}

impl TryFrom<wire::Credentials> for Credentials {
    type Error = InvalidMessage;

    fn try_from(part: wire::Credentials) -> Parsed<Self> {
        at_most("certificate bytes", part.certificate_chain_pem.len(), PEM_BYTES_MAX)?;
        at_most("CA bytes", part.ca_pem.len(), PEM_BYTES_MAX)?;
        Ok(Self {
            certificate_chain_pem: part.certificate_chain_pem,
            ca_pem: part.ca_pem,
            key_statement: key("key statement", part.key_statement)?,
            key_statement_signature: key("signature of the key statement", part.key_statement_signature)?,
        })
    }
}

impl TryFrom<wire::ChallengeRequest> for ActorId {
    type Error = InvalidMessage;

    fn try_from(part: wire::ChallengeRequest) -> Parsed<Self> {
        Ok(Self(uuid("edge", &part.edge)?))
    }
}

impl From<ActorId> for wire::ChallengeRequest {
    fn from(edge: ActorId) -> Self {
        Self { edge: uuid_bytes(edge.0) }
    }
}

impl From<Challenge> for wire::ChallengeReply {
    fn from(challenge: Challenge) -> Self {
        Self { nonce: challenge.nonce }
    }
}

impl TryFrom<wire::ChallengeReply> for Challenge {
    type Error = InvalidMessage;

    fn try_from(part: wire::ChallengeReply) -> Parsed<Self> {
        Ok(Self { nonce: key("nonce", part.nonce)? })
    }
}

impl From<RenewRequest> for wire::RenewRequest {
    fn from(request: RenewRequest) -> Self {
        Self {
            edge: uuid_bytes(request.edge.0),
            nonce: request.nonce,
            sealing_key: request.sealing_key,
            proof: request.proof,
        }
    }
}

impl TryFrom<wire::RenewRequest> for RenewRequest {
    type Error = InvalidMessage;

    fn try_from(part: wire::RenewRequest) -> Parsed<Self> {
        Ok(Self {
            edge: ActorId(uuid("edge", &part.edge)?),
            nonce: key("nonce", part.nonce)?,
            sealing_key: key("sealing key", part.sealing_key)?,
            proof: key("proof", part.proof)?,
        })
    }
}

impl From<RenewReply> for wire::RenewReply {
    fn from(reply: RenewReply) -> Self {
        match reply {
            RenewReply::Renewed(credentials) => Self { credentials: Some(credentials.into()), removal: None },
            RenewReply::Removed(removal) => Self {
                credentials: None,
                removal: Some(wire::Removal {
                    statement: removal.statement,
                    key_statement: removal.key_statement,
                    key_statement_signature: removal.key_statement_signature,
                }),
            },
        }
    }
}

impl TryFrom<wire::RenewReply> for RenewReply {
    type Error = InvalidMessage;

    fn try_from(part: wire::RenewReply) -> Parsed<Self> {
        let Some(removal) = part.removal else {
            return Ok(Self::Renewed(required("credentials", part.credentials)?.try_into()?));
        };
        Ok(Self::Removed(SignedRemoval {
            statement: key("statement", removal.statement)?,
            key_statement: key("key statement", removal.key_statement)?,
            key_statement_signature: key("signature of the key statement", removal.key_statement_signature)?,
        }))
    }
}

impl From<WipeReport> for wire::WipeReport {
    fn from(report: WipeReport) -> Self {
        Self { edge: uuid_bytes(report.edge.0), wiped_at_ms: report.wiped_at.0, proof: report.proof }
    }
}

impl TryFrom<wire::WipeReport> for WipeReport {
    type Error = InvalidMessage;

    fn try_from(part: wire::WipeReport) -> Parsed<Self> {
        Ok(Self {
            edge: ActorId(uuid("edge", &part.edge)?),
            wiped_at: UnixMillis(number("time of the wipe", part.wiped_at_ms)?),
            proof: key("proof", part.proof)?,
        })
    }
}
