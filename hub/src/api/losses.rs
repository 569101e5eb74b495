//! For the day that an edge is lost: how long its secrets stay open without contact, and what it could read.

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::losses::{
    Answer, CarriedFile, CarryWanted, ExposedInfo, LossService, OfflineLimitInfo,
};
use llm_config_proto::rest::service::Caller;
use llm_config_shared::access::Permission;
use llm_config_shared::limits::{OFFLINE_LIMIT_MS_MAX, OFFLINE_LIMIT_MS_MIN, OFFLINE_LIMITS_MAX};
use llm_config_shared::name::{EdgeName, Namespace};
use llm_config_shared::offline::OfflineLimits;
use llm_config_shared::store::Journal;

use serde_json::{Value as Json, json};

use super::Api;
use super::edges::no_edge;
use crate::registry::{Edge, Loss, Registry, SetPolicyError, ToRotate};
use crate::{clock, guard};

mod receipt;

fn info(namespace: Namespace, limits: &OfflineLimits) -> OfflineLimitInfo {
    let limit_ms = limits.of(&namespace);
    let set_in = limits.source(&namespace).map(|(subtree, _)| subtree.clone());
    OfflineLimitInfo { namespace, limit_ms, set_in }
}

impl<S: Journal + Registry> LossService for Api<S> {
    async fn offline_limit(&self, caller: &Caller, namespace: Namespace) -> Answer<OfflineLimitInfo> {
        guard::may_read_all(caller)?;
        Ok(info(namespace, &self.parts.store.offline_limits(&caller.tenant).await?))
    }

    async fn set_offline_limit(
        &self,
        caller: &Caller,
        namespace: Namespace,
        limit_ms: Option<u64>,
    ) -> Answer<OfflineLimitInfo> {
        guard::may(caller, Permission::Administer)?;
        let range = OFFLINE_LIMIT_MS_MIN..=OFFLINE_LIMIT_MS_MAX;
        if limit_ms.is_some_and(|limit_ms| !range.contains(&limit_ms)) {
            let message = "limit must be from one second to 30 days";
            return Err(ApiError::unprocessable(message).detail("field", "limit"));
        }
        let set = self.parts.store.set_offline_limit(&caller.tenant, &namespace, limit_ms).await;
        let limits = set.map_err(|error| match error {
            SetPolicyError::TooMany => ApiError::unprocessable(format!(
                "{OFFLINE_LIMITS_MAX} namespaces have an offline limit of their own already, and no more are taken"
            ))
            .detail("limit", OFFLINE_LIMITS_MAX as u64),
            SetPolicyError::Journal(error) => error.into(),
        })?;
        tracing::info!(caller = %caller.name, tenant = %caller.tenant, %namespace, limit_ms, "an offline limit was set");
        self.parts.roster.recheck();
        Ok(info(namespace, &limits))
    }

    async fn lose_edge(&self, caller: &Caller, name: EdgeName, dry_run: bool) -> Answer<Json> {
        guard::may(caller, Permission::Administer)?;
        self.lose(caller, &name, dry_run).await
    }

    async fn carry(&self, caller: &Caller, name: EdgeName, wanted: CarryWanted) -> Answer<CarriedFile> {
        guard::may(caller, Permission::Administer)?;
        self.carried(caller, &name, wanted).await
    }

    async fn take_carried(&self, caller: &Caller, file: &[u8]) -> Answer<Json> {
        guard::may(caller, Permission::Administer)?;
        self.taken_in(caller, file).await
    }

    async fn receipt(&self, caller: &Caller, name: EdgeName) -> Answer<Json> {
        guard::may(caller, Permission::Administer)?;
        let edges = self.parts.store.edges(&caller.tenant).await?;
        let mut last: Option<Loss> = None;
        for edge in edges.iter().filter(|edge| edge.name == name && edge.removed_at.is_some()) {
            let loss = self.parts.store.loss(edge.id).await?;
            last = last.into_iter().chain(loss).max_by_key(|loss| loss.lost_at);
        }
        match last {
            Some(loss) => receipt::read(&loss),
            None => Err(ApiError::not_found(format!("no edge {name} was reported lost"))),
        }
    }

    async fn exposed(&self, caller: &Caller) -> Answer<Vec<ExposedInfo>> {
        guard::may_read_all(caller)?;
        let marked = self.parts.store.to_rotate(&caller.tenant).await?;
        let info = |secret: ToRotate| ExposedInfo {
            at: secret.at,
            version: secret.version,
            edge: secret.edge,
            lost_at: secret.lost_at,
            rotated: secret.rotated,
            planned: secret.planned,
        };
        Ok(marked.into_iter().map(info).collect())
    }
}

impl<S: Journal + Registry> Api<S> {
    /// In an order that makes the statement exact: from the removal on the edge is given nothing more; what is sealed
    /// after the new keys were made it cannot read; and the versions are only counted when no commit is under way that
    /// began before. Repeated after a failure, it goes on.
    async fn lose(&self, caller: &Caller, name: &EdgeName, dry_run: bool) -> Answer<Json> {
        let store = &self.parts.store;
        let edge = self.latest(caller, name).await?;
        if let Some(loss) = store.loss(edge.id).await?
            && !dry_run
        {
            return receipt::read(&loss);
        }
        let lost_at = clock::now();
        if !dry_run {
            self.shut_out(caller, &edge).await?;
            self.parts.writer.settled().await.map_err(|error| ApiError::unavailable(error.to_string(), 1))?;
        }
        let stated = receipt::state(&**store, &edge, lost_at).await?;
        if dry_run {
            return Ok(json!({ "dry_run": true, "receipt": stated.receipt }));
        }
        let identity = &self.parts.identity;
        let signature = identity.signing().sign(&llm_config_proto::receipt::signed_bytes(&stated.receipt));
        let statement = identity.statement();
        let document = llm_config_proto::receipt::document(
            stated.receipt,
            &signature,
            &statement.body,
            &statement.signature,
        );
        let loss = Loss {
            edge: edge.id,
            tenant: edge.tenant.clone(),
            name: edge.name.clone(),
            lost_at,
            receipt: document.to_string().into_bytes(),
        };
        store.record_loss(&loss, &stated.to_rotate).await?;
        self.parts.rotate.notify_one();
        metrics::counter!("fleet_edges_lost_total").increment(1);
        tracing::warn!(
            caller = %caller.name, edge = %name, to_rotate = stated.to_rotate.len(),
            "an edge was reported lost; secrets that it could read should be replaced; those that have plans are"
        );
        Ok(document)
    }

    /// Removes the edge, where that was not done, and begins new keys wherever it was ever given one.
    pub(super) async fn shut_out(&self, caller: &Caller, edge: &Edge) -> Result<(), ApiError> {
        let store = &self.parts.store;
        if edge.removed_at.is_none() {
            store.remove_edge(&caller.tenant, &edge.name, clock::now()).await?;
            tracing::info!(caller = %caller.name, edge = %edge.name, "an edge was removed");
        }
        let given = receipt::keys_given(&store.grants(edge.id).await?);
        self.parts.secrets.begin_epoch(&edge.tenant, &given.environments()).await?;
        self.parts.roster.recheck();
        Ok(())
    }

    /// The edge of that name, or the one that had it last.
    pub(super) async fn latest(&self, caller: &Caller, name: &EdgeName) -> Result<Edge, ApiError> {
        let edges = self.parts.store.edges(&caller.tenant).await?;
        let named = edges.into_iter().filter(|edge| edge.name == *name);
        named.max_by_key(|edge| (edge.removed_at.is_none(), edge.joined_at)).ok_or_else(|| no_edge(name))
    }
}
