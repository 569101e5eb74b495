//! What a world of regions is about: keys, policies, and what each edge receives.

use llm_config_shared::entry::Row;
use llm_config_shared::feed::Feed;
use llm_config_shared::name::{EntryKey, Environment, Key, Namespace, Scope, Subtree, Tenant};
use llm_config_shared::policy::{ConflictPolicy, Policies};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

const NAMESPACES: [&str; 2] = ["app", "team"];
const KEYS: [&str; 3] = ["model", "limit", "url"];

pub(super) fn tenant() -> Tenant {
    Tenant::parse("acme").expect("a literal name")
}

fn feed(subtree: &str, secrets: bool) -> Feed {
    let subtree = Subtree::parse(subtree).expect("a literal name");
    Feed { tenant: tenant(), environment: Environment::base(), subtree, secrets }
}

/// All that a region has.
pub(super) fn everything() -> Feed {
    feed("", true)
}

/// What an edge receives: everything, no secrets, a part of both, or a part of the names.
pub(super) fn feeds(edge: usize) -> Vec<Feed> {
    match edge {
        0 => vec![everything()],
        1 => vec![feed("", false)],
        2 => vec![feed("app", true), feed("team", false)],
        _ => vec![feed("app", false)],
    }
}

/// Whether a row that is there is sent in one of these feeds.
pub(super) fn is_received(feeds: &[Feed], row: &Row) -> bool {
    let secret = row.content.is_secret();
    feeds.iter().any(|feed| feed.contains(&row.at) && (feed.secrets || !secret))
}

/// What each of the two namespaces does with concurrent writes; a way for each in its turn.
pub(super) fn policies(turn: u64) -> Policies {
    let all = [
        ConflictPolicy::EdgeWins,
        ConflictPolicy::HubWins,
        ConflictPolicy::Reject,
        ConflictPolicy::Manual,
        ConflictPolicy::LastWriteWins,
    ];
    let mut policies = Policies::default();
    for (name, turn) in NAMESPACES.iter().zip([turn % 5, turn / 5 % 5]) {
        let namespace = Namespace::parse(name).expect("a literal name");
        policies.set(tenant(), namespace, all[turn as usize]);
    }
    policies
}

/// Few keys, so that writers meet.
pub(super) fn random_key(rng: &mut ChaCha8Rng) -> EntryKey {
    let (namespace, key) = (rng.random_range(0..NAMESPACES.len()), rng.random_range(0..KEYS.len()));
    let scope = Scope {
        tenant: tenant(),
        environment: Environment::base(),
        namespace: Namespace::parse(NAMESPACES[namespace]).expect("a literal name"),
    };
    EntryKey { scope, key: Key::parse(KEYS[key]).expect("a literal name") }
}
