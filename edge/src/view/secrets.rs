//! The only place of the edge where a secret is opened: for one reader, for as long as the answer takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use llm_config_shared::name::{EntryKey, Environment, Subtree, Tenant};
use llm_config_shared::seal::SealKey;
use llm_config_shared::secret::{KeyGrant, SealedSecret, SubtreeKey, open_limited_grant, open_secret};
use zeroize::Zeroizing;

use crate::keys::SealingKeys;
use crate::offline::{Lock, Offline};

/// The keys of this edge's subtrees, as far as the hub gave them.
pub struct Keyring {
    tenant: Tenant,
    /// How the hub names this edge in what it seals to it.
    edge: String,
    sealing: Arc<SealingKeys>,
    /// Whether they may be used, and what they open with.
    offline: Arc<Offline>,
    /// As the hub sealed them.
    grants: BTreeMap<Place, KeyGrant>,
    /// Each with the public half of the edge's key that it was sealed to.
    keys: BTreeMap<Place, (SubtreeKey, [u8; 32])>,
}

type Place = (Environment, u64, Subtree);

/// Why a secret stays closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Locked {
    #[error("the key of this secret has not come from the hub yet")]
    NoKey,
    #[error("this secret cannot be opened with the key that the hub gave")]
    Unopened,
    #[error("this secret is not text")]
    NotText,
    #[error(transparent)]
    Offline(#[from] Lock),
}

impl Keyring {
    /// Without keys yet. `sealing` are those that never left this machine.
    pub fn new(tenant: Tenant, edge: String, sealing: Arc<SealingKeys>, offline: Arc<Offline>) -> Self {
        Self { tenant, edge, sealing, offline, grants: BTreeMap::new(), keys: BTreeMap::new() }
    }

    /// Opens what the hub sealed to this edge, or keeps it until that is possible.
    pub fn add(&mut self, grants: Vec<KeyGrant>) {
        let limit_keys = self.offline.keys();
        for grant in grants {
            let place = (grant.environment.clone(), grant.key_epoch, grant.subtree.clone());
            if let Some(limit_key) = limit_keys.get(&grant.subtree) {
                self.open_key(&place, &grant, limit_key);
            }
            self.grants.insert(place, grant);
        }
    }

    /// The hub was heard: what is still shut is opened.
    pub fn unlock(&mut self) {
        let limit_keys = self.offline.keys();
        let shut: Vec<Place> =
            self.grants.keys().filter(|place| !self.keys.contains_key(place)).cloned().collect();
        for place in shut {
            if let Some(limit_key) = limit_keys.get(&place.2) {
                let grant = self.grants[&place].clone();
                self.open_key(&place, &grant, limit_key);
            }
        }
    }

    /// Forgets the keys of these subtrees; their memory is wiped.
    pub fn lock(&mut self, subtrees: &[Subtree]) {
        self.keys.retain(|(_, _, subtree), _| !subtrees.contains(subtree));
    }

    /// Whether something here was sealed to this key of the edge and is not known to open without it.
    pub fn needs(&self, public: &[u8; 32]) -> bool {
        self.grants.keys().any(|place| self.keys.get(place).is_none_or(|(_, sealed_to)| sealed_to == public))
    }

    /// What is for another edge, or from before the limit key, is counted and left out.
    fn open_key(&mut self, place: &Place, grant: &KeyGrant, limit_key: &SealKey) {
        let opened = self
            .sealing
            .open(|private| open_limited_grant(grant, &self.tenant, &self.edge, private, limit_key));
        match opened {
            Ok(key) => drop(self.keys.insert(place.clone(), key)),
            Err(error) => {
                metrics::counter!("sync_rejected_total", "reason" => "grant").increment(1);
                tracing::warn!(environment = %grant.environment, %error, "a key from the hub cannot be opened");
            }
        }
    }

    /// The plaintext, for a reader's hands only.
    ///
    /// # Errors
    /// Says why it stays closed.
    pub fn open(&self, at: &EntryKey, sealed: &SealedSecret) -> Result<Zeroizing<String>, Locked> {
        let scope = &at.scope;
        self.offline.check(&scope.namespace)?;
        let fitting = self.keys.iter().find(|((environment, epoch, subtree), _)| {
            *environment == scope.environment
                && *epoch == sealed.key_epoch
                && subtree.contains(&scope.namespace)
        });
        let (_, (key, _)) = fitting.ok_or(Locked::NoKey)?;
        let plain = open_secret(key, at, sealed).map_err(|_| Locked::Unopened)?;
        let text = std::str::from_utf8(&plain).map_err(|_| Locked::NotText)?;
        Ok(Zeroizing::new(text.to_owned()))
    }
}
