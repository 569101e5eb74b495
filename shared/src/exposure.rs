//! What an edge could ever read: the versions of secrets that lie in a subtree whose key it was given, in the key epoch
//! that it was given it for. Nothing more, and nothing less, whatever it subscribed to since.

use std::collections::BTreeMap;

use crate::name::{EntryKey, Environment, Namespace, Subtree};

/// One version of a secret, without its content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretVersion {
    pub at: EntryKey,
    pub version: u64,
    /// Which root its key derives from.
    pub key_epoch: u64,
}

/// The keys that one edge was ever given, as the ledger has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeysGiven(BTreeMap<(Environment, u64), Vec<Subtree>>);

impl KeysGiven {
    /// Adds the key of a subtree in one key epoch of an environment.
    pub fn add(&mut self, environment: Environment, key_epoch: u64, subtree: Subtree) {
        self.0.entry((environment, key_epoch)).or_default().push(subtree);
    }

    /// Whether one of them opens secrets of that place and epoch.
    pub fn open(&self, environment: &Environment, key_epoch: u64, namespace: &Namespace) -> bool {
        let given = self.0.get(&(environment.clone(), key_epoch));
        given.is_some_and(|subtrees| subtrees.iter().any(|subtree| subtree.contains(namespace)))
    }

    /// Whether one of them opens this version.
    pub fn exposes(&self, version: &SecretVersion) -> bool {
        let scope = &version.at.scope;
        self.open(&scope.environment, version.key_epoch, &scope.namespace)
    }

    /// The environments of which there is any.
    pub fn environments(&self) -> Vec<Environment> {
        let mut all: Vec<Environment> = self.0.keys().map(|(environment, _)| environment.clone()).collect();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests;
