//! The leader's end: what the hub's other processes pass on, done as if it had come here. Where this process does not lead
//! after all, its writer and its routes refuse: nothing is passed on a second time.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use llm_config_proto::sync::{
    Asker, HubsEndpoint, Joined, PassedJoin, PassedRequest, Peer, RefusalKind, SyncRefusal,
};
use llm_config_shared::limits::REGION_PAGE_WRITES_MAX;
use llm_config_shared::newer::Taken;
use llm_config_shared::replication::admit::{HandIn, Upload};
use llm_config_shared::replication::frame::{Request, Response};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::fleet::{FleetPage, RegionSeats};
use llm_config_shared::store::region::{KeyName, RegionAsk, RegionKey, RegionPage};
use llm_config_shared::store::{Journal, JournalError};
use llm_config_shared::vector::ShardId;
use llm_config_shared::write::Answer;
use uuid::Uuid;

use super::passing::Through;
use crate::clock;
use crate::guard::{Guard, edge_caller};
use crate::identity::process::process_of_certificate;
use crate::registry::{EdgeKeys, JoinOutcome, Registry};
use crate::secrets::SecretStore;
use crate::sync::call::{Calls, refused};
use crate::sync::roster::Roster;
use crate::writer::{WriteError, WriterHandle};

/// When to come back after a refusal that passes.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Serves the hub's other processes.
pub struct HubsService<J, R> {
    pub writer: WriterHandle,
    pub calls: Calls,
    pub guard: Arc<Guard<R>>,
    pub registry: Arc<R>,
    /// The history that other regions follow.
    pub journal: Arc<J>,
    /// Who is connected.
    pub roster: Arc<Roster>,
    /// With the keys that they seal and open with.
    pub secrets: Arc<SecretStore<R>>,
}

impl<J: Journal, R: Registry> HubsEndpoint for HubsService<J, R> {
    fn judge(&self, peer: &Peer) -> Result<(), SyncRefusal> {
        let refused = |why: &str| SyncRefusal::new(RefusalKind::Unauthenticated, why);
        let leaf = peer.certificates.as_ref().and_then(|chain| chain.first());
        let leaf = leaf.ok_or_else(|| refused("a client certificate is required"))?;
        match process_of_certificate(leaf) {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!(address = ?peer.address, "a caller that is no process of this hub asked as one");
                Err(refused(&error.to_string()))
            }
        }
    }

    async fn pass(&self, request: PassedRequest) -> Result<Response, SyncRefusal> {
        let caller = match request.asker {
            Asker::Token { authorization, address } => {
                let mut headers = HeaderMap::new();
                let value = HeaderValue::from_str(&authorization);
                headers.extend(value.ok().map(|value| (header::AUTHORIZATION, value)));
                match self.guard.authenticate(&headers, address).await {
                    Ok(caller) => caller,
                    Err(error) => return Ok(refused(error).await),
                }
            }
            Asker::Edge { edge, caller } => {
                let known = self.registry.edge(edge).await.map_err(away)?;
                let Some(edge) = known.filter(|edge| edge.removed_at.is_none()) else {
                    return Err(SyncRefusal::new(RefusalKind::Removed, "the edge was removed from the hub"));
                };
                let environments = self.registry.environments(&edge.tenant).await.map_err(away)?;
                edge_caller(&edge, &environments, &caller)
            }
        };
        let through = if request.from_region { Through::Region } else { Through::Process };
        let name = Arc::clone(&caller.name);
        let request =
            Request { method: request.method, target: request.target, body: request.body, caller: name };
        Ok(self.calls.answer(caller, through, request).await)
    }

    async fn follow(&self, ask: RegionAsk) -> Result<RegionPage, SyncRefusal> {
        self.journal.region_page(&ask, REGION_PAGE_WRITES_MAX).await.map_err(away)
    }

    async fn keys(&self, after: Option<KeyName>) -> Result<Vec<RegionKey>, SyncRefusal> {
        self.secrets.keys_after(after.as_ref()).await.map_err(|error| {
            tracing::warn!(%error, "another region cannot be given the keys of secrets");
            SyncRefusal::busy("the hub cannot use its keys now", RETRY_AFTER)
        })
    }

    async fn fleet(&self, after: u64) -> Result<FleetPage, SyncRefusal> {
        self.registry.fleet_page(after).await.map_err(away)
    }

    async fn seats(&self, region: ShardId) -> Result<RegionSeats, SyncRefusal> {
        let connected = self.roster.in_this_region();
        // Before what edges have acknowledged: whoever has come so far has what is in it.
        let head = self.journal.head().await.map_err(away)?;
        let mut edges = Vec::with_capacity(connected.len());
        for tenant in self.registry.tenants().await.map_err(away)?.iter().filter(|_| !connected.is_empty()) {
            let all = self.registry.edges(&tenant.name).await.map_err(away)?;
            let seated = all.into_iter().filter(|edge| connected.contains(&edge.id));
            edges.extend(seated.map(|edge| (edge.id, edge.acked_seq)));
        }
        Ok(RegionSeats { head: head.position.seq, has: head.regions.seq(region), edges })
    }

    async fn join(&self, join: PassedJoin) -> Result<Joined, SyncRefusal> {
        if !self.registry.home().await.map_err(away)?.is_here() {
            return Err(SyncRefusal::busy("this region is not the home any more", RETRY_AFTER));
        }
        let keys = EdgeKeys { public_key: join.public_key.to_vec(), sealing_key: join.sealing_key.to_vec() };
        let (id, wish) = (ActorId(Uuid::new_v4()), join.requested_name.as_ref());
        let outcome = self.registry.join(&join.token_hash, &keys, wish, id, clock::now()).await;
        Ok(match outcome.map_err(away)? {
            JoinOutcome::Joined(edge) | JoinOutcome::Again(edge) => Joined::Edge(edge.id),
            JoinOutcome::Refused(refusal) => Joined::Refused(refusal.into()),
        })
    }

    async fn admit(&self, upload: Upload) -> Result<Vec<Answer>, SyncRefusal> {
        self.writer.upload(upload).await.map_err(not_judged)
    }

    async fn take_in(&self, hand_in: HandIn) -> Result<Taken, SyncRefusal> {
        self.writer.take_in(hand_in).await.map_err(not_judged)
    }
}

fn not_judged(error: WriteError) -> SyncRefusal {
    match error {
        WriteError::Busy | WriteError::Moved | WriteError::Stopping => {
            SyncRefusal::busy(error.to_string(), RETRY_AFTER)
        }
        WriteError::Unavailable | WriteError::Reused => {
            SyncRefusal::new(RefusalKind::Internal, error.to_string())
        }
    }
}

fn away(error: JournalError) -> SyncRefusal {
    tracing::warn!(%error, "what was passed on cannot be answered");
    SyncRefusal::busy("the hub cannot use its database now", RETRY_AFTER)
}
