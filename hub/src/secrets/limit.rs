//! The limit keys of edges: handed out at each contact, so that what lies on an edge's disk is not enough.
//!
//! All derive from one key in the database under the key-encryption key, so that every process of the hub, and a hub
//! restored from a backup, gives an edge the same.

use std::collections::BTreeSet;

use llm_config_shared::feed::Feed;
use llm_config_shared::name::Subtree;
use llm_config_shared::offline::{LimitStatement, OfflineLimits, SessionMark};
use llm_config_shared::seal::SealKey;
use llm_config_shared::secret::{limit_key, seal_limit_keys, sealing_keypair};
use llm_config_shared::time::UnixMillis;

use super::local::random;
use super::{KeyProvider as _, ProviderError, SecretError, SecretStore};
use crate::registry::{Edge, Registry};

const NAME: &str = "offline-limit";
const FILES: &str = "carried-files";

impl<R: Registry> SecretStore<R> {
    /// The edge's limit key for a subtree.
    ///
    /// # Errors
    /// When the key or the database is away.
    pub(super) async fn limit_key(&self, edge: &Edge, subtree: &Subtree) -> Result<SealKey, SecretError> {
        let of_hub = self.of_limits.get_or_try_init(|| self.load_limit_key()).await?;
        Ok(limit_key(of_hub, &edge.tenant, &edge.id.0.to_string(), subtree))
    }

    /// What is said to an edge with these feeds about its offline limits from now on, to be signed. `limits` are its
    /// tenant's; it hears of its own feeds' alone.
    ///
    /// # Errors
    /// When the key or the database is away.
    pub async fn limit_statement(
        &self,
        edge: &Edge,
        feeds: &[Feed],
        limits: &OfflineLimits,
        session: Option<SessionMark>,
        now: UnixMillis,
    ) -> Result<LimitStatement, SecretError> {
        let limits = limits.for_feeds(feeds);
        let secret = feeds.iter().filter(|feed| feed.secrets);
        let subtrees: BTreeSet<Subtree> = secret.map(|feed| feed.subtree.clone()).collect();
        let mut keys = Vec::with_capacity(subtrees.len());
        for subtree in &subtrees {
            keys.push(self.limit_key(edge, subtree).await?);
        }
        let name = edge.id.0.to_string();
        let sealed = seal_limit_keys(&keys, &edge.tenant, &name, &edge.sealing_key, &mut rand::rng());
        let (longest_ms, _) = limits.extremes();
        Ok(LimitStatement {
            tenant: edge.tenant.clone(),
            edge: edge.id,
            issued_at: now,
            not_after: UnixMillis(now.0.saturating_add(longest_ms)),
            session,
            limits,
            subtrees: subtrees.into_iter().collect(),
            keys: sealed.map_err(|_| SecretError::BadSealingKey)?,
        })
    }

    pub(super) async fn load_limit_key(&self) -> Result<SealKey, SecretError> {
        self.load_own_key(NAME).await
    }

    /// What edges' files to this hub are sealed to: the private and the public half.
    ///
    /// # Errors
    /// When the key or the database is away.
    pub async fn file_keys(&self) -> Result<(SealKey, [u8; 32]), SecretError> {
        let seed = self.of_files.get_or_try_init(|| self.load_own_key(FILES)).await?;
        Ok(sealing_keypair(seed.expose()))
    }

    /// The public half, for an edge to seal to. None while the key is away: an edge goes by what it heard before.
    pub async fn carry_key(&self) -> Option<Box<[u8; 32]>> {
        match self.file_keys().await {
            Ok((_, public)) => Some(Box::new(public)),
            Err(error) => {
                tracing::info!(%error, "an edge is not told what files for this hub are sealed to");
                None
            }
        }
    }

    /// A key of this hub that lies in its database; made where there is none yet.
    async fn load_own_key(&self, name: &str) -> Result<SealKey, SecretError> {
        if let Some(wrapped) = self.registry.wrapped_key(name).await? {
            return Ok(SealKey::from_slice(&self.providers.unwrap_key(name, &wrapped).await?)?);
        }
        let fresh = zeroize::Zeroizing::new(random::<32>().map_err(ProviderError::from)?);
        let wrapped = self.providers.wrap_key(name, fresh.as_slice()).await?;
        // Another process may have been first.
        let stored = self.registry.put_wrapped_key(name, &wrapped).await?;
        Ok(SealKey::from_slice(&self.providers.unwrap_key(name, &stored).await?)?)
    }
}
