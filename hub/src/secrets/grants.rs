//! Handing keys to edges. What is handed out stands in the ledger before it leaves.

use llm_config_shared::feed::Feed;
use llm_config_shared::secret::{KeyGrant, seal_limited_grant};
use llm_config_shared::time::UnixMillis;

use super::{SecretError, SecretStore};
use crate::registry::{Edge, GrantRow, Registry};

impl<R: Registry> SecretStore<R> {
    /// The keys of the edge's feeds that come with secrets, in every key epoch there is, sealed to its own key
    /// and shut without its limit key. The edge opens them under its id as text.
    ///
    /// # Errors
    /// When a key or the database is away. Nothing was handed out then.
    pub async fn grants_for(
        &self,
        edge: &Edge,
        feeds: &[Feed],
        now: UnixMillis,
    ) -> Result<Vec<KeyGrant>, SecretError> {
        let mut grants = Vec::new();
        let mut ledger = Vec::new();
        for feed in feeds.iter().filter(|feed| feed.secrets && feed.tenant == edge.tenant) {
            // Also where there is no secret yet: the edge then has the key when the first one comes.
            self.current(&feed.tenant, &feed.environment).await?;
            let limit_key = self.limit_key(edge, &feed.subtree).await?;
            for (key_epoch, root) in self.roots.of_environment(&feed.tenant, &feed.environment) {
                let key = root.descend(&feed.subtree).ok_or(SecretError::NoRoot)?;
                let name = edge.id.0.to_string();
                let grant = seal_limited_grant(
                    &key,
                    key_epoch,
                    &feed.tenant,
                    &name,
                    &feed.environment,
                    &edge.sealing_key,
                    &limit_key,
                    &mut rand::rng(),
                );
                grants.push(grant.map_err(|_| SecretError::BadSealingKey)?);
                ledger.push(GrantRow {
                    edge: edge.id,
                    tenant: feed.tenant.clone(),
                    environment: feed.environment.clone(),
                    subtree: feed.subtree.clone(),
                    key_epoch,
                    granted_at: now,
                });
            }
        }
        if !ledger.is_empty() {
            self.registry.record_grants(&ledger).await?;
        }
        Ok(grants)
    }
}
