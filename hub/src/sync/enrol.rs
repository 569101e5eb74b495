//! Joining and renewing: the only calls that need no client certificate.

use std::sync::Arc;

use bytes::Bytes;
use llm_config_proto::possession::{self, InvalidProof};
use llm_config_proto::sync::{
    Challenge, Credentials, EnrollReply, EnrollRequest, Joined, PassedJoin, RefusalKind, RenewReply,
    RenewRequest, SignedRemoval, SyncRefusal, WipeReport,
};
use llm_config_shared::removal::Removal;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::JournalError;
use llm_config_shared::time::UnixMillis;
use ring::rand::SystemRandom;
use uuid::Uuid;

use super::RETRY_AFTER;
use super::nonce::{NonceRefusal, Nonces};
use crate::identity::ca::{CaError, pem_of};
use crate::identity::issue::EdgeIdentity;
use crate::identity::{Identity, NoRandomness};
use crate::regions::home::{HomeError, HomeLine};
use crate::registry::{Edge, EdgeKeys, JoinOutcome, JoinRefusal, Registry};

/// Why an edge did not join or renew.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error(transparent)]
    Proof(#[from] InvalidProof),
    #[error(transparent)]
    Join(#[from] JoinRefusal),
    #[error(transparent)]
    Nonce(#[from] NonceRefusal),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error("this region has not heard of the edge yet")]
    NotHeard,
    #[error("this edge is not known to the hub, or was removed; join it again with a new token")]
    Removed,
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Certificate(#[from] CaError),
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// Lets edges in.
pub struct Enrolment<R> {
    registry: Arc<R>,
    identity: Arc<Identity>,
    home: Arc<HomeLine<R>>,
    nonces: Nonces,
    random: SystemRandom,
}

impl<R: Registry> Enrolment<R> {
    /// # Errors
    /// When the system has no randomness.
    pub fn new(
        registry: Arc<R>,
        identity: Arc<Identity>,
        home: Arc<HomeLine<R>>,
    ) -> Result<Self, NoRandomness> {
        let random = SystemRandom::new();
        Ok(Self { registry, identity, home, nonces: Nonces::new(&random)?, random })
    }

    /// Takes one use of the token and writes the edge's identity. The name is only a wish, heard where the token leaves
    /// a choice; nothing else of the request is believed.
    ///
    /// # Errors
    /// When the keys, their proof or the token are not good.
    pub async fn join(&self, request: &EnrollRequest, now: UnixMillis) -> Result<EnrollReply, EnrolError> {
        possession::check_sealing_key(&request.sealing_key)?;
        let message = possession::join_message(&request.secret, &request.public_key, &request.sealing_key);
        possession::verify(&request.public_key, &message, &request.proof)?;
        let keys =
            EdgeKeys { public_key: request.public_key.to_vec(), sealing_key: request.sealing_key.to_vec() };
        let edge = match self.decided(request, keys, now).await? {
            JoinOutcome::Joined(edge) => {
                tracing::info!(edge = %edge.name, tenant = %edge.tenant, "edge joined");
                edge
            }
            JoinOutcome::Again(edge) => edge,
            JoinOutcome::Refused(refusal) => {
                alarm(refusal);
                return Err(refusal.into());
            }
        };
        let credentials = self.credentials(&edge, now)?;
        Ok(EnrollReply {
            edge: edge.id,
            default_environment: edge.default_environment(),
            tenant: edge.tenant,
            name: edge.name,
            credentials,
            binding: edge.binding,
        })
    }

    /// The home decides: of two regions that are asked with one token, only one lets an edge in.
    async fn decided(
        &self,
        request: &EnrollRequest,
        keys: EdgeKeys,
        now: UnixMillis,
    ) -> Result<JoinOutcome, EnrolError> {
        let (token_hash, requested_name) = (request.secret.hash(), request.requested_name.clone());
        let Some(home) = self.home.elsewhere().await? else {
            let id = ActorId(Uuid::new_v4());
            return Ok(self.registry.join(&token_hash, &keys, requested_name.as_ref(), id, now).await?);
        };
        let join = PassedJoin {
            token_hash,
            public_key: request.public_key.clone(),
            sealing_key: request.sealing_key.clone(),
            requested_name,
        };
        Ok(match self.home.join(home, join).await? {
            Joined::Edge(id) => {
                JoinOutcome::Joined(self.registry.edge(id).await?.ok_or(HomeError::NotReadBack)?)
            }
            Joined::Refused(refused) => JoinOutcome::Refused(refused.into()),
        })
    }

    /// What is said of an edge that is not in the tables.
    fn unknown(&self) -> EnrolError {
        if self.home.is_among_regions() { EnrolError::NotHeard } else { EnrolError::Removed }
    }

    /// A nonce for [`Enrolment::renew`].
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn challenge(&self, now: UnixMillis) -> Result<Challenge, EnrolError> {
        Ok(Challenge { nonce: self.nonces.issue(now, &self.random)?.into() })
    }

    /// A new certificate for an edge that still holds its enrolled key, however old its last one is.
    ///
    /// # Errors
    /// When the nonce is not good, the edge was removed or the signature is another's.
    pub async fn renew(&self, request: &RenewRequest, now: UnixMillis) -> Result<RenewReply, EnrolError> {
        possession::check_sealing_key(&request.sealing_key)?;
        self.nonces.check(&request.nonce, now)?;
        let edge = self.registry.edge(request.edge).await?;
        let edge = edge.ok_or_else(|| self.unknown())?;
        let message = possession::renew_message(&request.nonce, request.edge.0, &request.sealing_key);
        possession::verify(&edge.public_key, &message, &request.proof)?;
        self.nonces.take(&request.nonce, now)?;
        if let Some(removed_at) = edge.removed_at {
            return Ok(RenewReply::Removed(self.removal(&edge, removed_at, request.nonce.clone())));
        }
        if edge.sealing_key != request.sealing_key {
            self.registry.set_sealing_key(edge.id, &request.sealing_key).await?;
        }
        Ok(RenewReply::Renewed(self.credentials(&edge, now)?))
    }

    /// Keeps the word of an edge that its data is destroyed. One that was not removed before is now: it says that it is
    /// gone.
    ///
    /// # Errors
    /// When the edge is not known, or the word another's.
    pub async fn wiped(&self, report: &WipeReport, now: UnixMillis) -> Result<(), EnrolError> {
        let edge = self.registry.edge(report.edge).await?.ok_or_else(|| self.unknown())?;
        let message = possession::wipe_message(edge.id.0, report.wiped_at.0);
        possession::verify(&edge.public_key, &message, &report.proof)?;
        if edge.removed_at.is_none() {
            self.registry.remove_edge(&edge.tenant, &edge.name, now).await?;
        }
        self.registry.record_wipe(edge.id, report.wiped_at, &report.proof).await?;
        tracing::info!(edge = %edge.name, tenant = %edge.tenant, "an edge has destroyed its data, and is gone");
        Ok(())
    }

    /// Said to whoever has just proved the enrolled key, bound to that exchange.
    fn removal(&self, edge: &Edge, removed_at: UnixMillis, nonce: Bytes) -> SignedRemoval {
        let removal = Removal { tenant: edge.tenant.clone(), edge: edge.id, removed_at, nonce };
        let signing = self.identity.signing();
        let draft = removal.draft(signing.id());
        let signature = signing.sign(&draft.message());
        let statement = self.identity.statement();
        SignedRemoval {
            statement: draft.signed(&signature),
            key_statement: Bytes::copy_from_slice(&statement.body),
            key_statement_signature: Bytes::copy_from_slice(&statement.signature),
        }
    }

    fn credentials(&self, edge: &Edge, now: UnixMillis) -> Result<Credentials, EnrolError> {
        if edge.removed_at.is_some() {
            return Err(EnrolError::Removed);
        }
        let identity = EdgeIdentity { tenant: edge.tenant.clone(), id: edge.id };
        let certificate = self.identity.ca().issue_edge(&identity, &edge.public_key, now)?;
        let statement = self.identity.statement();
        Ok(Credentials {
            certificate_chain_pem: pem_of(&certificate),
            ca_pem: self.identity.ca().pem(),
            key_statement: Bytes::copy_from_slice(&statement.body),
            key_statement_signature: Bytes::copy_from_slice(&statement.signature),
        })
    }
}

impl From<EnrolError> for SyncRefusal {
    fn from(error: EnrolError) -> Self {
        let kind = match &error {
            EnrolError::Proof(InvalidProof::Signature) => RefusalKind::Unauthenticated,
            EnrolError::Proof(InvalidProof::PublicKey | InvalidProof::SealingKey) => RefusalKind::Invalid,
            EnrolError::Join(JoinRefusal::Unknown) => RefusalKind::TokenUnknown,
            EnrolError::Join(JoinRefusal::Expired) => RefusalKind::TokenExpired,
            EnrolError::Join(JoinRefusal::Used) => RefusalKind::TokenUsed,
            EnrolError::Join(JoinRefusal::NameTaken) => RefusalKind::NameTaken,
            EnrolError::Nonce(NonceRefusal::Invalid) => RefusalKind::NonceUnknown,
            EnrolError::Removed => RefusalKind::Removed,
            EnrolError::Home(_) | EnrolError::NotHeard | EnrolError::Nonce(NonceRefusal::Full) => {
                return Self::busy(error.to_string(), RETRY_AFTER);
            }
            EnrolError::Journal(_) => {
                tracing::warn!(%error, "an edge could not join or renew");
                return Self::busy("the hub cannot use its database now", RETRY_AFTER);
            }
            EnrolError::Certificate(_) | EnrolError::Randomness(_) => {
                tracing::error!(%error, "an edge could not be certified");
                return Self::new(RefusalKind::Internal, "the hub cannot issue certificates now");
            }
        };
        Self::new(kind, error.to_string())
    }
}

/// A token that is presented again with another key was copied: somebody has to look.
fn alarm(refusal: JoinRefusal) {
    let reason = match refusal {
        JoinRefusal::Unknown => "unknown",
        JoinRefusal::Expired => "expired",
        JoinRefusal::Used => "used",
        JoinRefusal::NameTaken => "name_taken",
    };
    metrics::counter!("sync_join_refusals_total", "reason" => reason).increment(1);
    match refusal {
        JoinRefusal::Used | JoinRefusal::Expired => {
            tracing::warn!(reason, "a join token was presented beyond its uses or time");
        }
        JoinRefusal::Unknown | JoinRefusal::NameTaken => tracing::info!(reason, "a join token was refused"),
    }
}
