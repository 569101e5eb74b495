//! What becomes of concurrent writes, by namespace.

use std::collections::BTreeMap;

use crate::name::{Namespace, Subtree, Tenant};

/// What is done with a write from an edge whose author had not seen the entry's current value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConflictPolicy {
    /// The later one wins, by the clocks of their authors; the other is kept as a conflict.
    #[default]
    LastWriteWins,
    /// What the hub has stays; what the edge wrote is kept as a conflict.
    HubWins,
    /// What the edge wrote wins; what the hub had is kept as a conflict.
    EdgeWins,
    /// It is not admitted.
    Reject,
    /// It waits for a person.
    Manual,
}

impl ConflictPolicy {
    /// As people and programs see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LastWriteWins => "last_write_wins",
            Self::HubWins => "hub_wins",
            Self::EdgeWins => "edge_wins",
            Self::Reject => "reject",
            Self::Manual => "manual",
        }
    }

    /// The inverse of [`ConflictPolicy::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::LastWriteWins, Self::HubWins, Self::EdgeWins, Self::Reject, Self::Manual]
            .into_iter()
            .find(|policy| policy.as_str() == text)
    }
}

/// The policies of tenants, as they were set: each holds for a namespace and everything below it that has none itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies(BTreeMap<Tenant, BTreeMap<Namespace, ConflictPolicy>>);

impl Policies {
    /// Sets one.
    pub fn set(&mut self, tenant: Tenant, namespace: Namespace, policy: ConflictPolicy) {
        self.0.entry(tenant).or_default().insert(namespace, policy);
    }

    /// What holds in a namespace.
    pub fn of(&self, tenant: &Tenant, namespace: &Namespace) -> ConflictPolicy {
        self.source(tenant, namespace).map_or_else(ConflictPolicy::default, |(_, policy)| policy)
    }

    /// The nearest of the namespace and those above it that has a policy.
    pub fn source(&self, tenant: &Tenant, namespace: &Namespace) -> Option<(&Namespace, ConflictPolicy)> {
        let above =
            self.0.get(tenant)?.iter().filter(|(top, _)| Subtree::of((*top).clone()).contains(namespace));
        above.max_by_key(|(top, _)| top.as_str().len()).map(|(top, policy)| (top, *policy))
    }

    /// How many a tenant has set.
    pub fn count(&self, tenant: &Tenant) -> usize {
        self.0.get(tenant).map_or(0, BTreeMap::len)
    }

    /// Those of other tenants as well.
    pub fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_namespace_above_decides() {
        let tenant = |name| Tenant::parse(name).unwrap();
        let namespace = |path| Namespace::parse(path).unwrap();
        let mut policies = Policies::default();
        policies.set(tenant("t"), namespace("app"), ConflictPolicy::HubWins);
        policies.set(tenant("t"), namespace("app/llm/routes"), ConflictPolicy::Manual);
        let of = |name, path| policies.of(&tenant(name), &namespace(path));
        assert_eq!(of("t", "app/llm"), ConflictPolicy::HubWins);
        assert_eq!(of("t", "app/llm/routes"), ConflictPolicy::Manual);
        assert_eq!(of("t", "app/llm/routes/eu"), ConflictPolicy::Manual);
        assert_eq!(of("t", "application"), ConflictPolicy::LastWriteWins, "segments, not letters");
        assert_eq!(of("u", "app"), ConflictPolicy::LastWriteWins, "of another tenant");
        let (at, _) = policies.source(&tenant("t"), &namespace("app/x")).unwrap();
        assert_eq!((at.as_str(), policies.count(&tenant("t"))), ("app", 2));
        assert_eq!(policies.source(&tenant("t"), &namespace("other")), None);
    }

    #[test]
    fn every_policy_has_its_word() {
        assert_eq!(ConflictPolicy::parse("edge_wins"), Some(ConflictPolicy::EdgeWins));
        assert_eq!(
            ConflictPolicy::parse(ConflictPolicy::default().as_str()),
            Some(ConflictPolicy::LastWriteWins)
        );
        assert_eq!(ConflictPolicy::parse("newest"), None);
    }
}
