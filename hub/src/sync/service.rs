//! The sync service: who may call what, and the start of each stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use llm_config_proto::sync::{
    Challenge, EdgeFrames, EnrollReply, EnrollRequest, HubOut, Peer, RefusalKind, RenewReply, RenewRequest,
    SyncEndpoint, SyncRefusal, WipeReport,
};
use llm_config_shared::feed::Environments;
use llm_config_shared::replication::frame::Refusal;
use llm_config_shared::replication::hub::Profile;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::{Journal, JournalError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::RETRY_AFTER;
use super::bucket::Bucket;
use super::call::Calls;
use super::enrol::Enrolment;
use super::presence::Presence;
use super::recheck::key_epochs;
use super::roster::{Roster, Seated};
use super::session::{FRAMES_WAITING_MAX, Session};
use crate::clock;
use crate::fanout::Fanout;
use crate::identity::issue::EdgeIdentity;
use crate::identity::{Identity, NoRandomness};
use crate::processes::line::Line;
use crate::regions::home::HomeLine;
use crate::registry::{Edge, Registry};
use crate::secrets::SecretStore;
use crate::tail::Tail;
use crate::writer::WriterHandle;

/// Calls without a certificate: what strangers can make the hub do.
const ANONYMOUS_PER_SECOND: f64 = 100.0;
const ANONYMOUS_BURST: f64 = 500.0;
/// Streams that begin: a fleet that comes back at once is spread over some seconds.
const STREAMS_PER_SECOND: f64 = 1_000.0;
const STREAMS_BURST: f64 = 2_000.0;

/// What the sync service is made of.
pub struct Parts<J, R> {
    pub journal: Arc<J>,
    pub registry: Arc<R>,
    pub secrets: Arc<SecretStore<R>>,
    pub identity: Arc<Identity>,
    pub writer: WriterHandle,
    /// To the process that writes, where that is another one.
    pub line: Arc<Line>,
    pub tail: Arc<Tail>,
    pub fanout: Arc<Fanout<J>>,
    pub calls: Calls,
    pub roster: Arc<Roster>,
    /// To the region that lets edges in, where that is another one.
    pub home: Arc<HomeLine<R>>,
    pub presence: Presence,
}

/// The hub's end of the protocol.
pub struct SyncService<J, R> {
    parts: Arc<Parts<J, R>>,
    enrolment: Enrolment<R>,
    anonymous: Bucket,
    streams: Bucket,
    stopping: AtomicBool,
}

impl<J: Journal, R: Registry> SyncService<J, R> {
    /// # Errors
    /// When the system has no randomness.
    pub fn new(parts: Arc<Parts<J, R>>) -> Result<Self, NoRandomness> {
        let enrolment = {
            let (registry, identity) = (Arc::clone(&parts.registry), Arc::clone(&parts.identity));
            Enrolment::new(registry, identity, Arc::clone(&parts.home))?
        };
        Ok(Self {
            parts,
            enrolment,
            anonymous: Bucket::new(ANONYMOUS_PER_SECOND, ANONYMOUS_BURST),
            streams: Bucket::new(STREAMS_PER_SECOND, STREAMS_BURST),
            stopping: AtomicBool::new(false),
        })
    }

    /// Ends all sessions and begins none: the edges come back to this hub's next process.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.parts.roster.close_all(&Refusal::Busy);
    }

    fn admit_anonymous(&self) -> Result<(), SyncRefusal> {
        self.anonymous
            .take(Instant::now())
            .map_err(|after| SyncRefusal::busy("too many calls at once", after))
    }

    /// The edge that the certificate names, if the registry still has it. The connection proves nothing by itself.
    async fn authenticate(&self, peer: &Peer) -> Result<Edge, SyncRefusal> {
        let refused = |why: &str| SyncRefusal::new(RefusalKind::Unauthenticated, why);
        let leaf = peer.certificates.as_ref().and_then(|chain| chain.first());
        let leaf = leaf.ok_or_else(|| refused("a client certificate is required"))?;
        let identity = EdgeIdentity::of_certificate(leaf).map_err(|error| refused(&error.to_string()))?;
        let edge = self.parts.registry.edge(identity.id).await.map_err(away)?;
        match edge {
            Some(edge) if edge.tenant != identity.tenant => {
                Err(refused("the certificate names another tenant than the edge's"))
            }
            Some(edge) if edge.removed_at.is_none() => Ok(edge),
            None if self.parts.home.is_among_regions() => {
                Err(SyncRefusal::busy("this region has not heard of the edge yet", RETRY_AFTER))
            }
            Some(_) | None => Err(SyncRefusal::new(
                RefusalKind::Removed,
                "this edge was removed from the hub; join it again",
            )),
        }
    }

    async fn seated(&self, edge: Edge) -> Result<(Seated, u64), SyncRefusal> {
        let environments = self.parts.registry.environments(&edge.tenant).await.map_err(away)?;
        let profile = Arc::new(profile(&edge, environments));
        let roots = self.parts.registry.roots(&edge.tenant).await.map_err(away)?;
        let epochs = key_epochs(&profile.feeds, &roots);
        Ok((Seated { edge: Arc::new(edge), profile }, epochs))
    }
}

/// What the edge receives and where it may write, as of these environments.
pub(super) fn profile(edge: &Edge, environments: Environments) -> Profile {
    Profile {
        feeds: edge.binding.feeds(&edge.tenant, &edge.name, &environments),
        default_environment: edge.default_environment(),
        write: edge.binding.write.clone(),
        environments,
    }
}

fn away(error: JournalError) -> SyncRefusal {
    tracing::warn!(%error, "an edge cannot be served");
    SyncRefusal::busy("the hub cannot use its database now", RETRY_AFTER)
}

impl<J: Journal, R: Registry> SyncEndpoint for SyncService<J, R> {
    async fn enroll(&self, _peer: Peer, request: EnrollRequest) -> Result<EnrollReply, SyncRefusal> {
        self.admit_anonymous()?;
        Ok(self.enrolment.join(&request, clock::now()).await?)
    }

    async fn challenge(&self, _peer: Peer, _edge: ActorId) -> Result<Challenge, SyncRefusal> {
        self.admit_anonymous()?;
        Ok(self.enrolment.challenge(clock::now())?)
    }

    async fn renew(&self, _peer: Peer, request: RenewRequest) -> Result<RenewReply, SyncRefusal> {
        self.admit_anonymous()?;
        Ok(self.enrolment.renew(&request, clock::now()).await?)
    }

    async fn report_wipe(&self, _peer: Peer, report: WipeReport) -> Result<(), SyncRefusal> {
        self.admit_anonymous()?;
        self.enrolment.wiped(&report, clock::now()).await?;
        self.parts.roster.recheck();
        Ok(())
    }

    async fn stream(&self, peer: Peer, frames: EdgeFrames) -> Result<HubOut, SyncRefusal> {
        self.streams
            .take(Instant::now())
            .map_err(|after| SyncRefusal::busy("many edges connect at once", after))?;
        let edge = self.authenticate(&peer).await?;
        let (seated, epochs) = self.seated(edge).await?;
        let seat = self.parts.roster.sit(seated.clone(), epochs);
        // After the seat is taken: a stop either sees it or is seen here.
        if self.stopping.load(Ordering::SeqCst) {
            return Err(SyncRefusal::busy("the hub is shutting down", RETRY_AFTER));
        }
        let (out, sent) = mpsc::channel(FRAMES_WAITING_MAX);
        let session =
            Session { parts: Arc::clone(&self.parts), edge: seated.edge, profile: seated.profile, seat, out };
        tracing::debug!(edge = %session.edge.name, "stream begins");
        tokio::spawn(session.run(frames));
        Ok(Box::pin(ReceiverStream::new(sent)))
    }
}
