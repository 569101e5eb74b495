//! Root keys: wrapped in the database, unwrapped in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use llm_config_shared::name::{Environment, Tenant};
use llm_config_shared::seal::SealKey;
use llm_config_shared::secret::SubtreeKey;
use llm_config_shared::store::region::{KeyName, RegionKey};
use llm_config_shared::time::UnixMillis;

use super::SecretError;
use super::local::random;
use super::provider::{KeyProvider as _, ProviderError, Providers};
use crate::registry::WrappedRoot;

/// Tenant, environment and key epoch.
pub(super) type Place = (Tenant, Environment, u64);

/// The roots that this process has unwrapped.
#[derive(Default)]
pub(super) struct Roots(RwLock<BTreeMap<Place, SubtreeKey>>);

impl Roots {
    pub(super) fn get(&self, place: &Place) -> Option<SubtreeKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(place).cloned()
    }

    /// All epochs of one environment.
    pub(super) fn of_environment(
        &self,
        tenant: &Tenant,
        environment: &Environment,
    ) -> Vec<(u64, SubtreeKey)> {
        let roots = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let first = (tenant.clone(), environment.clone(), 0);
        let last = (tenant.clone(), environment.clone(), u64::MAX);
        roots.range(first..=last).map(|((_, _, key_epoch), root)| (*key_epoch, root.clone())).collect()
    }

    /// Some of them in the order of their names.
    pub(super) fn after(&self, from: Bound<&KeyName>, limit: usize) -> Vec<RegionKey> {
        let roots = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let from = from.map(place);
        let key = |((tenant, environment, key_epoch), root): (&Place, &SubtreeKey)| RegionKey {
            name: KeyName { tenant: tenant.clone(), environment: environment.clone(), key_epoch: *key_epoch },
            key: root.key().clone(),
        };
        roots.range((from, Bound::Unbounded)).take(limit).map(key).collect()
    }

    /// Unwraps a root, once.
    pub(super) async fn take_in(&self, providers: &Providers, root: &WrappedRoot) -> Result<(), SecretError> {
        let place = (root.tenant.clone(), root.environment.clone(), root.key_epoch);
        if self.get(&place).is_some() {
            return Ok(());
        }
        let name = name(&root.tenant, &root.environment, root.key_epoch);
        let key = SealKey::from_slice(&providers.unwrap_key(&name, &root.wrapped).await?)?;
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(place, SubtreeKey::root(key));
        Ok(())
    }
}

/// The newest root of an environment, if it has one.
pub(super) fn newest<'a>(stored: &'a [WrappedRoot], environment: &Environment) -> Option<&'a WrappedRoot> {
    stored.iter().filter(|root| root.environment == *environment).max_by_key(|root| root.key_epoch)
}

/// A random root, wrapped.
pub(super) async fn fresh_root(
    providers: &Providers,
    tenant: &Tenant,
    environment: &Environment,
    key_epoch: u64,
    now: UnixMillis,
) -> Result<WrappedRoot, SecretError> {
    let name = KeyName { tenant: tenant.clone(), environment: environment.clone(), key_epoch };
    wrapped_root(providers, &name, &SealKey::new(random().map_err(ProviderError::from)?), now).await
}

/// A root as it lies in the database.
pub(super) async fn wrapped_root(
    providers: &Providers,
    of: &KeyName,
    key: &SealKey,
    now: UnixMillis,
) -> Result<WrappedRoot, SecretError> {
    let KeyName { tenant, environment, key_epoch } = of.clone();
    let wrapped = providers.wrap_key(&name(&tenant, &environment, key_epoch), key.expose()).await?;
    Ok(WrappedRoot { tenant, environment, key_epoch, wrapped, created_at: now })
}

pub(super) fn place(name: &KeyName) -> Place {
    (name.tenant.clone(), name.environment.clone(), name.key_epoch)
}

/// What a wrapped root is bound to. Names hold no `/` in a tenant or an environment.
pub(super) fn name(tenant: &Tenant, environment: &Environment, key_epoch: u64) -> String {
    format!("root/{tenant}/{environment}/{key_epoch}")
}
