//! The only place of the edge where a secret is opened: for one reader, for as long as the answer takes.

use std::collections::BTreeMap;

use llm_config_shared::name::{EntryKey, Environment, Subtree, Tenant};
use llm_config_shared::seal::SealKey;
use llm_config_shared::secret::{KeyGrant, SealedSecret, SubtreeKey, open_grant, open_secret};
use zeroize::Zeroizing;

/// The keys of this edge's subtrees, as far as the hub gave them.
pub struct Keyring {
    tenant: Tenant,
    /// How the hub names this edge in what it seals to it.
    edge: String,
    private: SealKey,
    keys: BTreeMap<(Environment, u64, Subtree), SubtreeKey>,
}

/// Why a secret stays closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Locked {
    #[error("the key of this secret has not come from the hub yet")]
    NoKey,
    #[error("this secret cannot be opened with the key that the hub gave")]
    Unopened,
    #[error("this secret is not text")]
    NotText,
}

impl Keyring {
    /// Without keys yet. `private` is the half that never left this machine.
    pub fn new(tenant: Tenant, edge: String, private: SealKey) -> Self {
        Self { tenant, edge, private, keys: BTreeMap::new() }
    }

    /// Opens what the hub sealed to this edge; what is for another is counted and left out.
    pub fn add(&mut self, grants: Vec<KeyGrant>) {
        for grant in grants {
            match open_grant(&grant, &self.tenant, &self.edge, &self.private) {
                Ok(key) => drop(self.keys.insert((grant.environment, grant.key_epoch, grant.subtree), key)),
                Err(error) => {
                    metrics::counter!("sync_rejected_total", "reason" => "grant").increment(1);
                    tracing::warn!(environment = %grant.environment, %error, "a key from the hub cannot be opened");
                }
            }
        }
    }

    /// The plaintext, for a reader's hands only.
    ///
    /// # Errors
    /// Says why it stays closed.
    pub fn open(&self, at: &EntryKey, sealed: &SealedSecret) -> Result<Zeroizing<String>, Locked> {
        let scope = &at.scope;
        let fitting = self.keys.iter().find(|((environment, epoch, subtree), _)| {
            *environment == scope.environment
                && *epoch == sealed.key_epoch
                && subtree.contains(&scope.namespace)
        });
        let (_, key) = fitting.ok_or(Locked::NoKey)?;
        let plain = open_secret(key, at, sealed).map_err(|_| Locked::Unopened)?;
        let text = std::str::from_utf8(&plain).map_err(|_| Locked::NotText)?;
        Ok(Zeroizing::new(text.to_owned()))
    }
}
