//! Names of the world: a tenant, its environments and namespaces, and what edges receive.

use llm_config_shared::feed::{Binding, Environments};
use llm_config_shared::name::{EntryKey, Environment, Key, Namespace, Scope, Subtree, Tenant};
use llm_config_shared::policy::{ConflictPolicy, Policies};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

const NAMESPACES: [&str; 7] = ["app", "app/llm", "app/llm/eu", "app/db", "team", "edges/e0", "edges/e3"];
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

/// How many kinds of edges there are.
pub(super) const BINDINGS: usize = 10;

/// How many edges a world has. Most have few, which is cheap; one in sixteen has as many as there are kinds.
pub(super) fn random_edges(rng: &mut ChaCha8Rng) -> usize {
    match rng.random_range(0..16) {
        0 => BINDINGS,
        1 | 2 => rng.random_range(6..BINDINGS),
        _ => rng.random_range(3..6),
    }
}

/// What an edge of a kind receives and where it may write, to begin with. They overlap: one inside another, at several
/// depths; the same subtree in other environments, whose parents bring it with secrets or without.
pub(super) fn binding(kind: usize) -> Binding {
    let (namespaces, named, write): (&[&str], &[&str], &[&str]) = match kind % BINDINGS {
        0 => (&["app"], &["production"], &[]),
        1 => (&["app/llm"], &["base"], &["app"]),
        2 => (&[], &["base", "production"], &[]),
        3 => (&["team", "app/db"], &["staging"], &[]),
        4 => (&["app", "app/llm"], &["staging", "base"], &[]),
        5 => (&["app/llm/eu"], &["production"], &["app/llm"]),
        6 => (&["app/llm", "app/db"], &["production", "staging"], &[]),
        7 => (&[], &["staging"], &[]),
        8 => (&["edges", "app/llm"], &["base"], &["app", "edges"]),
        _ => (&["team", "app"], &["production", "base"], &["team", "app/db"]),
    };
    let subtrees = |names: &[&str]| -> Vec<Subtree> {
        names.iter().map(|name| Subtree::parse(name).expect("a literal name")).collect()
    };
    Binding {
        namespaces: subtrees(namespaces),
        environments: named.iter().map(|name| environment(name)).collect(),
        write: if write.is_empty() { vec![Subtree::ALL] } else { subtrees(write) },
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
