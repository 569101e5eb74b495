//! Feeds: what is sent to an edge, and how its bindings name them.

use std::collections::BTreeMap;

use crate::limits::ENVIRONMENT_CHAIN_MAX;
use crate::name::{EdgeName, EntryKey, Environment, Namespace, Subtree, Tenant};

/// A part of a tenant that is sent as one: the same bytes for every edge that has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Feed {
    pub tenant: Tenant,
    pub environment: Environment,
    pub subtree: Subtree,
    /// Without, secrets are left out, as of environments that are only inherited from.
    pub secrets: bool,
}

impl Feed {
    /// Whether the entry lies in the feed's part of the tenant, secret or not.
    pub fn contains(&self, at: &EntryKey) -> bool {
        self.tenant == at.scope.tenant
            && self.environment == at.scope.environment
            && self.subtree.contains(&at.scope.namespace)
    }
}

/// What a join token says about an edge, kept by the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Empty: everything of the tenant.
    pub namespaces: Vec<Subtree>,
    /// Empty: every environment of the tenant. The first is the edge's default.
    pub environments: Vec<Environment>,
    /// Where the edge may write.
    pub write: Vec<Subtree>,
}

/// The environments of a tenant, each with at most one parent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environments(BTreeMap<Environment, Option<Environment>>);

/// Why an environment cannot have this parent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidParent {
    #[error("environment {0} does not exist; create it first")]
    Unknown(Environment),
    #[error("environment {child} would inherit from itself through {parent}")]
    Cycle { child: Environment, parent: Environment },
    #[error("the chain of environments would have {length} members; at most {max} are allowed", max = ENVIRONMENT_CHAIN_MAX)]
    TooLong { length: usize },
}

impl Environments {
    /// base ← development ← staging ← production and base ← edge.
    pub fn standard() -> Self {
        let name = |text| Environment::parse(text).expect("a literal name");
        Self(BTreeMap::from([
            (Environment::base(), None),
            (name("development"), Some(Environment::base())),
            (name("staging"), Some(name("development"))),
            (name("production"), Some(name("staging"))),
            (name("edge"), Some(Environment::base())),
        ]))
    }

    /// As stored, or as the hub sent it.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (Environment, Option<Environment>)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// Name and parent, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Environment, Option<&Environment>)> {
        self.0.iter().map(|(name, parent)| (name, parent.as_ref()))
    }

    /// Whether it exists.
    pub fn contains(&self, environment: &Environment) -> bool {
        self.0.contains_key(environment)
    }

    /// The parent, if the environment exists and has one.
    pub fn parent(&self, environment: &Environment) -> Option<&Environment> {
        self.0.get(environment)?.as_ref()
    }

    /// Creates the environment or gives it another parent.
    ///
    /// # Errors
    /// When the parent is unknown, or the chain would close or grow too long.
    pub fn set_parent(
        &mut self,
        child: Environment,
        parent: Option<Environment>,
    ) -> Result<(), InvalidParent> {
        if let Some(parent) = &parent {
            if !self.contains(parent) {
                return Err(InvalidParent::Unknown(parent.clone()));
            }
            let above = self.chain(parent);
            if above.contains(&child) {
                return Err(InvalidParent::Cycle { child, parent: parent.clone() });
            }
        }
        let before = self.0.insert(child.clone(), parent);
        let longest = self.0.keys().map(|name| self.chain(name).len()).max().unwrap_or(0);
        if longest > ENVIRONMENT_CHAIN_MAX {
            match before {
                Some(parent) => self.0.insert(child, parent),
                None => self.0.remove(&child),
            };
            return Err(InvalidParent::TooLong { length: longest });
        }
        Ok(())
    }

    /// The environment itself, its parent, and so on up: the order in which a reader looks.
    pub fn chain(&self, environment: &Environment) -> Vec<Environment> {
        let mut chain = vec![environment.clone()];
        let mut at = environment;
        while let Some(parent) = self.parent(at) {
            // Stored parents are free of cycles; a damaged table must not hang a reader.
            if chain.contains(parent) {
                break;
            }
            chain.push(parent.clone());
            at = parent;
        }
        chain
    }
}

impl Binding {
    /// Everything of the tenant, readable and writable: what `dev` hands out by default.
    pub fn everything() -> Self {
        Self { namespaces: Vec::new(), environments: Vec::new(), write: vec![Subtree::ALL] }
    }

    /// The same for the edge of this name: where nothing says otherwise, it writes below its own name alone.
    #[must_use]
    pub fn of_edge(mut self, edge: &EdgeName) -> Self {
        if self.write.is_empty() {
            self.write.push(Subtree::of(Namespace::of_edge(edge)));
        }
        self
    }

    /// The feeds that an edge with this binding receives: its namespaces and its own subtree, in its environments and
    /// all that those inherit from. Of environments that it did not name, only `base` comes with secrets.
    pub fn feeds(&self, tenant: &Tenant, edge: &EdgeName, environments: &Environments) -> Vec<Feed> {
        let named: Vec<Environment> = if self.environments.is_empty() {
            environments.iter().map(|(name, _)| name.clone()).collect()
        } else {
            self.environments.clone()
        };
        let mut secrets_of: BTreeMap<Environment, bool> = BTreeMap::new();
        for environment in &named {
            for ancestor in environments.chain(environment) {
                let secrets = ancestor == *environment || ancestor.is_base();
                *secrets_of.entry(ancestor).or_insert(false) |= secrets;
            }
        }
        let subtrees = self.subtrees(edge);
        let mut feeds = Vec::with_capacity(secrets_of.len() * subtrees.len());
        for (environment, secrets) in secrets_of {
            for subtree in &subtrees {
                feeds.push(Feed {
                    tenant: tenant.clone(),
                    environment: environment.clone(),
                    subtree: subtree.clone(),
                    secrets,
                });
            }
        }
        feeds
    }

    /// The bound subtrees and the edge's own, those inside another left out.
    fn subtrees(&self, edge: &EdgeName) -> Vec<Subtree> {
        let mut all = if self.namespaces.is_empty() { vec![Subtree::ALL] } else { self.namespaces.clone() };
        all.push(Subtree::of(Namespace::of_edge(edge)));
        all.sort();
        all.dedup();
        let outermost =
            all.iter().filter(|inner| !all.iter().any(|outer| outer != *inner && outer.covers(inner)));
        outermost.cloned().collect()
    }

    /// Whether the edge may write in `namespace`.
    pub fn may_write(&self, namespace: &Namespace) -> bool {
        self.write.iter().any(|subtree| subtree.contains(namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(text: &str) -> Environment {
        Environment::parse(text).unwrap()
    }

    fn feeds(
        namespaces: &[&str],
        environments: &[&str],
        table: &Environments,
    ) -> Vec<(String, String, bool)> {
        let binding = Binding {
            namespaces: namespaces.iter().map(|text| Subtree::parse(text).unwrap()).collect(),
            environments: environments.iter().map(|text| environment(text)).collect(),
            write: Vec::new(),
        };
        let feeds = binding.feeds(&Tenant::parse("t").unwrap(), &EdgeName::parse("e").unwrap(), table);
        feeds.iter().map(|f| (f.environment.to_string(), f.subtree.as_str().to_owned(), f.secrets)).collect()
    }

    #[test]
    fn parents_come_without_secrets_and_base_with_them() {
        let found = feeds(&["app"], &["production"], &Environments::standard());
        let expect = |env: &str, secrets| {
            [(env.to_owned(), "app".to_owned(), secrets), (env.to_owned(), "edges/e".to_owned(), secrets)]
        };
        let expected: Vec<_> =
            [("base", true), ("development", false), ("production", true), ("staging", false)]
                .into_iter()
                .flat_map(|(env, secrets)| expect(env, secrets))
                .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn bindings_inside_one_another_collapse_into_the_outer() {
        let found = feeds(&["app/llm", "app", "edges"], &["base"], &Environments::standard());
        assert_eq!(found, [("base".into(), "app".into(), true), ("base".into(), "edges".into(), true)]);
        assert_eq!(feeds(&[], &["base"], &Environments::standard()).len(), 1);
    }

    #[test]
    fn a_parent_that_closes_a_circle_is_refused() {
        let mut table = Environments::standard();
        assert!(matches!(
            table.set_parent(Environment::base(), Some(environment("production"))),
            Err(InvalidParent::Cycle { .. })
        ));
        assert!(matches!(
            table.set_parent(environment("a"), Some(environment("nowhere"))),
            Err(InvalidParent::Unknown(_))
        ));
        table.set_parent(environment("production"), Some(Environment::base())).unwrap();
        assert_eq!(table.chain(&environment("production")), [environment("production"), Environment::base()]);
    }
}
