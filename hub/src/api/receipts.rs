//! Who has a change, who uses it, and which secrets expire.

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::receipts::{Answer, ConsumerReport, ExpiringSecret, LifeService, UsesReport};
use llm_config_proto::rest::service::Caller;
use llm_config_shared::entry::ChangeId;
use llm_config_shared::in_use::Receipts;
use llm_config_shared::name::{EdgeName, EntryKey, Scope};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::Journal;
use llm_config_shared::time::UnixMillis;

use super::Api;
use crate::registry::{Consumer, Expiring, Registry, Said};
use crate::{clock, guard, receipts};

impl<S: Journal + Registry> LifeService for Api<S> {
    async fn receipts(&self, caller: &Caller, change: ChangeId) -> Answer<Receipts> {
        guard::may_read_all(caller)?;
        let found =
            receipts::of_change(&*self.parts.store, &self.parts.roster, &caller.tenant, change).await?;
        found.ok_or_else(|| ApiError::not_found(format!("there is no change {}", change.0)))
    }

    async fn report_uses(&self, caller: &Caller, report: UsesReport) -> Answer<()> {
        self.note_uses(caller, report, Said::Now(clock::now())).await
    }

    async fn expiring(&self, caller: &Caller, within_ms: u64, limit: usize) -> Answer<Vec<ExpiringSecret>> {
        guard::may_read_all(caller)?;
        let by = UnixMillis(clock::now().0.saturating_add(within_ms));
        let found = self.parts.store.expiring(&caller.tenant, by, limit).await?;
        Ok(found.into_iter().map(ExpiringSecret::from).collect())
    }
}

impl From<Expiring> for ExpiringSecret {
    fn from(secret: Expiring) -> Self {
        let Expiring { at, version, secret_type, expires_at } = secret;
        Self { at, version, secret_type, expires_at }
    }
}

impl<S: Journal + Registry> Api<S> {
    /// What an edge told of its consumers.
    pub(super) async fn note_uses(&self, caller: &Caller, report: UsesReport, said: Said) -> Answer<()> {
        let edge = self.reporting(caller).await?;
        let consumer = |told: ConsumerReport| {
            let uses = told.uses.into_iter().map(|used| {
                let scope = Scope {
                    tenant: caller.tenant.clone(),
                    environment: used.environment,
                    namespace: used.namespace,
                };
                (EntryKey { scope, key: used.key }, used.version)
            });
            // What an edge does not receive, nobody there can use: it is not the edge's to speak of.
            let uses = uses.filter(|(at, _)| guard::may_read(caller, at).is_ok()).collect();
            Consumer { name: told.consumer, lasting: told.lasting, uses }
        };
        let consumers: Vec<Consumer> = report.consumers.into_iter().map(consumer).collect();
        Ok(self.parts.store.report_uses(edge, report.complete, &consumers, said).await?)
    }

    /// The edge that speaks: only edges know what uses values there.
    async fn reporting(&self, caller: &Caller) -> Result<ActorId, ApiError> {
        let refused = || ApiError::forbidden("only an edge tells what uses values there");
        let name = caller.read.as_ref().and_then(|_| caller.name.strip_prefix("edge:"));
        let name = name.and_then(|name| name.split('/').next()).ok_or_else(refused)?;
        let edge = self.parts.store.edge_named(&caller.tenant, &EdgeName::parse(name)?).await?;
        edge.map(|edge| edge.id).ok_or_else(refused)
    }
}
