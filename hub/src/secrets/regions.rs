//! Keys of secrets between regions: each seals and opens with the keys of all.
//!
//! A key travels inside TLS between two hubs of one certificate authority, and lies at each under its own key-encryption key.

use std::ops::Bound;

use llm_config_shared::limits::REGION_KEYS_MAX;
use llm_config_shared::store::region::{KeyName, RegionKey};

use super::{SecretError, SecretStore, keys};
use crate::clock;
use crate::registry::Registry;

/// Low bits of a key epoch that two regions hardly ever choose the same; a later epoch is the greater one all the same.
const CHANCE_BITS: u32 = 24;

/// The epoch that follows on `newest` where several regions may begin one at once.
pub(super) fn next_among_regions(newest: u64) -> u64 {
    let chance = rand::random::<u64>() & ((1 << CHANCE_BITS) - 1);
    (((newest >> CHANCE_BITS) + 1) << CHANCE_BITS) | chance
}

impl<R: Registry> SecretStore<R> {
    /// Keys behind one of them, in the order of their names: at most [`REGION_KEYS_MAX`].
    ///
    /// # Errors
    /// When the key-encryption key or the database is away.
    pub async fn keys_after(&self, after: Option<&KeyName>) -> Result<Vec<RegionKey>, SecretError> {
        self.take_in_all().await?;
        Ok(self.roots.after(after.map_or(Bound::Unbounded, Bound::Excluded), REGION_KEYS_MAX))
    }

    /// Takes over another region's keys, of tenants that there are here. Which of its names stands for another key here.
    ///
    /// # Errors
    /// When the key-encryption key or the database is away.
    pub async fn take_over(&self, keys: &[RegionKey]) -> Result<Vec<KeyName>, SecretError> {
        let tenants = self.registry.tenants().await?;
        let mut others = Vec::new();
        let here = |key: &&RegionKey| tenants.iter().any(|tenant| tenant.name == key.name.tenant);
        for RegionKey { name, key } in keys.iter().filter(here) {
            if !self.has(name) {
                let wrapped = keys::wrapped_root(&self.providers, name, key, clock::now()).await?;
                let stored = self.registry.put_root(&wrapped).await?;
                self.take_in(&stored).await?;
            }
            if self.roots.get(&keys::place(name)).is_none_or(|root| root.key() != key) {
                others.push(name.clone());
            }
        }
        Ok(others)
    }

    /// Whether this process has the key in memory.
    pub fn has(&self, name: &KeyName) -> bool {
        self.roots.get(&keys::place(name)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_epoch_is_the_greater_one_and_two_regions_choose_differently() {
        let first = next_among_regions(3);
        assert!(first > 3 && next_among_regions(first) > first);
        let many: std::collections::BTreeSet<u64> = (0..100).map(|_| next_among_regions(3)).collect();
        assert!(many.len() > 95, "{} of 100", many.len());
    }
}
