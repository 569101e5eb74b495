//! Sealing with keys that are in memory, so that a version is sealed at the moment that its number is known.

use std::collections::BTreeMap;

use llm_config_shared::name::{EntryKey, Environment, Tenant};
use llm_config_shared::replication::admit::{SealUnavailable, Sealer};
use llm_config_shared::seal::Suite;
use llm_config_shared::secret::{About, FreshSeal, SealedSecret, SubtreeKey, Told, open_secret, seal_secret};

use super::keys::Roots;
use super::local::random;

struct Environmental {
    key_epoch: u64,
    root: SubtreeKey,
    suite: Suite,
    /// Earlier ones too, for a secret that is sealed anew for another version.
    all: Vec<(u64, SubtreeKey)>,
}

/// Seals in the environments that it was prepared for.
#[derive(Default)]
pub struct PreparedSealer(BTreeMap<(Tenant, Environment), Environmental>);

impl PreparedSealer {
    pub(super) fn add(
        &mut self,
        tenant: Tenant,
        environment: Environment,
        (key_epoch, root): (u64, SubtreeKey),
        suite: Suite,
        roots: &Roots,
    ) {
        let all = roots.of_environment(&tenant, &environment);
        self.0.insert((tenant, environment), Environmental { key_epoch, root, suite, all });
    }

    fn of(&self, at: &EntryKey) -> Result<&Environmental, SealUnavailable> {
        let place = (at.scope.tenant.clone(), at.scope.environment.clone());
        self.0.get(&place).ok_or(SealUnavailable)
    }
}

impl Sealer for PreparedSealer {
    fn seal(
        &mut self,
        at: &EntryKey,
        version: u64,
        plaintext: &[u8],
    ) -> Result<SealedSecret, SealUnavailable> {
        self.seal_told(at, version, plaintext, Told::default())
    }

    fn seal_told(
        &mut self,
        at: &EntryKey,
        version: u64,
        plaintext: &[u8],
        told: Told,
    ) -> Result<SealedSecret, SealUnavailable> {
        let keys = self.of(at)?;
        let fresh = fresh().ok_or(SealUnavailable)?;
        let about = About { told, suite: keys.suite };
        seal_secret(&keys.root, keys.key_epoch, at, version, plaintext, about, &fresh)
            .map_err(|_| SealUnavailable)
    }

    fn reseal(
        &mut self,
        at: &EntryKey,
        sealed: &SealedSecret,
        version: u64,
    ) -> Result<SealedSecret, SealUnavailable> {
        let keys = self.of(at)?;
        let (_, root) =
            keys.all.iter().find(|(key_epoch, _)| *key_epoch == sealed.key_epoch).ok_or(SealUnavailable)?;
        let plaintext = open_secret(root, at, sealed).map_err(|_| SealUnavailable)?;
        self.seal_told(at, version, &plaintext, sealed.about.told)
    }
}

/// None when the system has no randomness.
fn fresh() -> Option<FreshSeal> {
    Some(FreshSeal { data_key: random().ok()?, body_nonce: random().ok()?, wrap_nonce: random().ok()? })
}
