//! Names of the world: a tenant, its environments and namespaces, and what five edges receive.

use llm_config_shared::feed::{Binding, Environments};
use llm_config_shared::name::{EntryKey, Environment, Key, Namespace, Scope, Subtree, Tenant};
use llm_config_shared::policy::{ConflictPolicy, Policies};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

const NAMESPACES: [&str; 6] = ["app", "app/llm", "app/db", "team", "edges/e0", "edges/e3"];
const ENVIRONMENTS: [&str; 3] = ["base", "staging", "production"];
const KEYS: [&str; 3] = ["model", "limit", "url"];

pub(super) fn tenant() -> Tenant {
    Tenant::parse("acme").expect("a literal name")
}

pub(super) fn environment(name: &str) -> Environment {
    Environment::parse(name).expect("a literal name")
}

/// base ← staging ← production.
pub(super) fn environments() -> Environments {
    Environments::from_pairs([
        (Environment::base(), None),
        (environment("staging"), Some(Environment::base())),
        (environment("production"), Some(environment("staging"))),
    ])
}

/// What two of the namespaces do with concurrent writes in every other world; a way for each in its turn.
pub(super) fn policies(seed: u64) -> Policies {
    let all = [
        ConflictPolicy::EdgeWins,
        ConflictPolicy::HubWins,
        ConflictPolicy::Reject,
        ConflictPolicy::Manual,
        ConflictPolicy::LastWriteWins,
    ];
    let mut policies = Policies::default();
    if seed % 2 == 1 {
        let turn = (seed / 2) as usize;
        for (name, policy) in [("app/db", all[turn % 5]), ("team", all[turn / 5 % 5])] {
            policies.set(tenant(), Namespace::parse(name).expect("a literal name"), policy);
        }
    }
    policies
}

/// What an edge receives and where it may write, to begin with.
pub(super) fn binding(edge: usize) -> Binding {
    let subtrees = |names: &[&str]| -> Vec<Subtree> {
        names.iter().map(|name| Subtree::parse(name).expect("a literal name")).collect()
    };
    let environments = |names: &[&str]| names.iter().map(|name| environment(name)).collect();
    match edge {
        0 => Binding {
            namespaces: subtrees(&["app"]),
            environments: environments(&["production"]),
            write: vec![Subtree::ALL],
        },
        1 => Binding {
            namespaces: subtrees(&["app/llm"]),
            environments: environments(&["base"]),
            write: subtrees(&["app"]),
        },
        2 => Binding {
            namespaces: Vec::new(),
            environments: environments(&["base", "production"]),
            write: vec![Subtree::ALL],
        },
        3 => Binding {
            namespaces: subtrees(&["team", "app/db"]),
            environments: environments(&["staging"]),
            write: vec![Subtree::ALL],
        },
        _ => Binding {
            namespaces: subtrees(&["app", "app/llm"]),
            environments: environments(&["staging", "base"]),
            write: vec![Subtree::ALL],
        },
    }
}

pub(super) fn entry(environment: &str, namespace: &str, key: &str) -> EntryKey {
    EntryKey {
        scope: Scope {
            tenant: tenant(),
            environment: self::environment(environment),
            namespace: Namespace::parse(namespace).expect("a literal name"),
        },
        key: Key::parse(key).expect("a literal name"),
    }
}

/// A few entries are written far more often than the others, so that writers meet.
pub(super) fn random_entry(rng: &mut ChaCha8Rng) -> EntryKey {
    if rng.random_range(0..100) < 60 {
        let hot = [
            ("base", "app/llm", "model"),
            ("base", "app", "url"),
            ("staging", "app/db", "model"),
            ("production", "app", "model"),
            ("base", "app/db", "limit"),
        ];
        let (environment, namespace, key) = hot[rng.random_range(0..hot.len())];
        return entry(environment, namespace, key);
    }
    let environment = ENVIRONMENTS[rng.random_range(0..ENVIRONMENTS.len())];
    let namespace = NAMESPACES[rng.random_range(0..NAMESPACES.len())];
    entry(environment, namespace, KEYS[rng.random_range(0..KEYS.len())])
}
