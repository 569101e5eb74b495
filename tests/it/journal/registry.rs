//! The hub's tables beside the journal.

use std::collections::BTreeMap;
use std::sync::Arc;

use llm_config_hub::registry::{
    ApiToken, Edge, EdgeKeys, GrantRow, JoinOutcome, JoinToken, Registry, SetEnvironmentError,
    SetPolicyError, Versions, WrappedRoot,
};
use llm_config_shared::access::Role;
use llm_config_shared::feed::{Binding, Environments, InvalidParent};
use llm_config_shared::limits::POLICIES_MAX;
use llm_config_shared::name::{EdgeName, Environment, Key, Namespace, Subtree};
use llm_config_shared::policy::ConflictPolicy;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::time::UnixMillis;
use uuid::Uuid;

use super::book::{NOW, tenant};

pub(super) fn environment(name: &str) -> Environment {
    Environment::parse(name).unwrap()
}

pub(super) fn edge_name(name: &str) -> EdgeName {
    EdgeName::parse(name).unwrap()
}

pub(super) fn join_token(number: u8, name: &str, max_uses: u32) -> JoinToken {
    JoinToken {
        id: Uuid::from_u128(number.into()),
        tenant: tenant("acme"),
        name: edge_name(name),
        hash: [number; 32],
        binding: Binding {
            namespaces: vec![Subtree::parse("app/llm").unwrap(), Subtree::ALL],
            environments: vec![environment("production"), environment("base")],
            write: vec![Subtree::parse("edges/kiosk").unwrap()],
        },
        labels: BTreeMap::from([("site".to_owned(), "Zürich".to_owned())]),
        created_at: NOW,
        created_by: "token:ops".to_owned(),
        expires_at: UnixMillis(NOW.0 + 900_000),
        max_uses,
        uses: 0,
    }
}

pub(super) fn edge_keys(number: u8) -> EdgeKeys {
    EdgeKeys { public_key: vec![number, 0, 255], sealing_key: vec![number; 32] }
}

/// Joins as the edge with this number.
pub(super) async fn join(registry: &impl Registry, token: &JoinToken, edge: u8) -> JoinOutcome {
    let id = ActorId(Uuid::from_u128(100 + u128::from(edge)));
    registry.join(&token.hash, &edge_keys(edge), None, id, NOW).await.unwrap()
}

pub(super) async fn joined(registry: &impl Registry, token: &JoinToken, edge: u8) -> Edge {
    match join(registry, token, edge).await {
        JoinOutcome::Joined(edge) => edge,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn tenants_are_created_once(registry: &Arc<impl Registry>) {
    assert!(registry.tenants().await.unwrap().is_empty());
    assert!(registry.create_tenant(&tenant("b"), NOW).await.unwrap());
    assert!(registry.create_tenant(&tenant("a"), UnixMillis(5)).await.unwrap());
    registry.set_environment(&tenant("b"), &environment("lab"), None).await.unwrap();
    assert!(!registry.create_tenant(&tenant("b"), UnixMillis(9)).await.unwrap());
    let rows = registry.tenants().await.unwrap();
    let found: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.created_at)).collect();
    assert_eq!(found, [("a", UnixMillis(5)), ("b", NOW)]);
    assert_eq!(registry.environments(&tenant("a")).await.unwrap(), Environments::standard());
    assert!(registry.environments(&tenant("b")).await.unwrap().contains(&environment("lab")), "left alone");
    assert_eq!(registry.environments(&tenant("c")).await.unwrap(), Environments::default());
}

pub(super) async fn environments_refuse_a_circle(registry: &Arc<impl Registry>) {
    let acme = tenant("acme");
    registry.create_tenant(&acme, NOW).await.unwrap();
    let set = async |name: &str, parent: Option<&str>| {
        let parent = parent.map(environment);
        registry.set_environment(&acme, &environment(name), parent.as_ref()).await
    };
    let changed = set("production", Some("base")).await.unwrap();
    assert_eq!(changed.parent(&environment("production")), Some(&Environment::base()));
    set("canary", Some("production")).await.unwrap();
    let circle = set("production", Some("canary")).await.unwrap_err();
    assert!(matches!(circle, SetEnvironmentError::Invalid(InvalidParent::Cycle { .. })), "{circle:?}");
    let unknown = set("x", Some("nowhere")).await.unwrap_err();
    assert!(matches!(unknown, SetEnvironmentError::Invalid(InvalidParent::Unknown(_))), "{unknown:?}");
    let known = registry.environments(&acme).await.unwrap();
    assert_eq!(known.parent(&environment("production")), Some(&Environment::base()), "nothing changed");
    assert!(!known.contains(&environment("x")));
    let nobody = registry.set_environment(&tenant("nobody"), &environment("x"), None).await;
    assert!(matches!(nobody, Err(SetEnvironmentError::Journal(_))), "{nobody:?}");

    // Two changes that are each fine and close a circle together: one of them loses.
    let both = [("staging", "edge"), ("edge", "staging")].map(|(name, parent)| {
        let (registry, acme) = (Arc::clone(registry), acme.clone());
        tokio::spawn(async move {
            registry.set_environment(&acme, &environment(name), Some(&environment(parent))).await
        })
    });
    let mut refused = 0;
    for change in both {
        refused += usize::from(change.await.unwrap().is_err());
    }
    assert_eq!(refused, 1);
}

pub(super) async fn policies_are_of_their_tenant_and_inherited(registry: &Arc<impl Registry>) {
    let (acme, other) = (tenant("acme"), tenant("other"));
    registry.create_tenant(&acme, NOW).await.unwrap();
    registry.create_tenant(&other, NOW).await.unwrap();
    let namespace = |path: &str| Namespace::parse(path).unwrap();
    let app = namespace("app");
    registry.set_policy(&acme, &app, Some(ConflictPolicy::Reject)).await.unwrap();
    registry.set_policy(&acme, &app, Some(ConflictPolicy::HubWins)).await.unwrap();
    let set = registry.set_policy(&acme, &namespace("app/llm"), Some(ConflictPolicy::Manual)).await.unwrap();
    assert_eq!(registry.policies(&acme).await.unwrap(), set);
    assert_eq!(set.of(&acme, &namespace("app/db")), ConflictPolicy::HubWins);
    assert_eq!(set.of(&acme, &namespace("app/llm/eu")), ConflictPolicy::Manual);
    assert_eq!(registry.policies(&other).await.unwrap().count(&other), 0);
    let left = registry.set_policy(&acme, &namespace("app/llm"), None).await.unwrap();
    assert_eq!(
        left.of(&acme, &namespace("app/llm/eu")),
        ConflictPolicy::HubWins,
        "what is above holds again"
    );
    assert_eq!(registry.policies(&acme).await.unwrap(), left);
    assert!(registry.set_policy(&tenant("nobody"), &app, None).await.is_err());
    for n in 1..POLICIES_MAX {
        let at = namespace(&format!("n{n}"));
        registry.set_policy(&acme, &at, Some(ConflictPolicy::EdgeWins)).await.unwrap();
    }
    let one_more = registry.set_policy(&acme, &namespace("more"), Some(ConflictPolicy::EdgeWins)).await;
    assert_eq!(one_more, Err(SetPolicyError::TooMany));
    assert_eq!(registry.policies(&acme).await.unwrap().count(&acme), POLICIES_MAX, "nothing of it is kept");
}

pub(super) async fn tokens_are_found_by_their_hash(registry: &Arc<impl Registry>) {
    registry.create_tenant(&tenant("acme"), NOW).await.unwrap();
    let token = |number: u8, role, expires_at| ApiToken {
        id: Uuid::from_u128(number.into()),
        tenant: tenant("acme"),
        name: format!("ops \0 {number}"),
        hash: [number; 32],
        role,
        created_at: UnixMillis(NOW.0 - u64::from(number)),
        created_by: "uid:0".to_owned(),
        expires_at,
    };
    let first = token(1, Role::Admin, None);
    let second = token(2, Role::Reader, Some(UnixMillis(1)));
    registry.add_token(&first).await.unwrap();
    registry.add_token(&second).await.unwrap();
    assert_eq!(registry.token(&[1; 32]).await.unwrap().as_ref(), Some(&first));
    assert_eq!(registry.token(&[2; 32]).await.unwrap().as_ref(), Some(&second), "also when it has expired");
    assert_eq!(registry.token(&[3; 32]).await.unwrap(), None);
    assert_eq!(
        registry.tokens(&tenant("acme")).await.unwrap(),
        [second.clone(), first.clone()],
        "oldest first"
    );
    assert!(registry.tokens(&tenant("other")).await.unwrap().is_empty());
    assert!(!registry.remove_token(&tenant("other"), first.id).await.unwrap(), "of another tenant");
    assert!(registry.remove_token(&tenant("acme"), first.id).await.unwrap());
    assert!(!registry.remove_token(&tenant("acme"), first.id).await.unwrap());
    assert_eq!(registry.token(&[1; 32]).await.unwrap(), None);
}

pub(super) async fn edges_are_listed_removed_and_touched(registry: &Arc<impl Registry>) {
    let acme = tenant("acme");
    registry.create_tenant(&acme, NOW).await.unwrap();
    let mut edges = Vec::new();
    for (number, name) in [(1, "kiosk"), (2, "attic")] {
        let token = join_token(number, name, 1);
        registry.add_join_token(&token).await.unwrap();
        edges.push(joined(&**registry, &token, number).await);
    }
    let [kiosk, attic] = edges.try_into().unwrap();
    assert_eq!(
        (&kiosk.binding, &kiosk.labels),
        (&join_token(1, "kiosk", 1).binding, &join_token(1, "kiosk", 1).labels)
    );
    assert_eq!(registry.edges(&acme).await.unwrap(), [attic.clone(), kiosk.clone()]);
    assert_eq!(registry.edge(kiosk.id).await.unwrap().as_ref(), Some(&kiosk));
    assert_eq!(registry.edge_named(&acme, &kiosk.name).await.unwrap().as_ref(), Some(&kiosk));
    assert_eq!(registry.edge_named(&tenant("other"), &kiosk.name).await.unwrap(), None);

    let unknown = ActorId(Uuid::from_u128(9));
    let seen =
        [(kiosk.id, NOW, 3), (unknown, NOW, 1), (attic.id, NOW, 8), (kiosk.id, UnixMillis(NOW.0 + 1), 5)];
    registry.touch_edges(&seen).await.unwrap();
    registry.touch_edges(&[]).await.unwrap();
    let silent = [(kiosk.id, UnixMillis(NOW.0 + 1), 0)];
    registry.touch_edges(&silent).await.unwrap();
    let elsewhere = [(kiosk.id, NOW, 4), (attic.id, NOW, 9), (unknown, NOW, 1)];
    registry.touch_edges_elsewhere(&elsewhere).await.unwrap();
    let both = async || (registry.edge(kiosk.id).await, registry.edge(attic.id).await);
    let (one, other) = both().await;
    assert_eq!(
        (one.unwrap().unwrap().acked_seq, other.unwrap().unwrap().acked_seq),
        (5, 9),
        "it never shrinks"
    );
    registry.touch_edges(&silent).await.unwrap();
    registry.set_sealing_key(kiosk.id, &[7; 32]).await.unwrap();
    let touched = registry.edge(kiosk.id).await.unwrap().unwrap();
    assert_eq!((touched.last_seen_at, touched.acked_seq), (Some(UnixMillis(NOW.0 + 1)), 5));
    assert_eq!(touched.sealing_key, [7; 32]);

    let binding = Binding { namespaces: vec![], environments: vec![], write: vec![Subtree::ALL] };
    let bound = registry.bind_edge(&acme, &kiosk.name, &binding).await.unwrap().unwrap();
    assert_eq!((&bound.binding, bound.id, bound.acked_seq), (&binding, kiosk.id, 5));
    assert_eq!(registry.edge(attic.id).await.unwrap().unwrap().binding, attic.binding, "and nobody else's");
    assert_eq!(registry.bind_edge(&tenant("other"), &kiosk.name, &binding).await.unwrap(), None);

    assert!(registry.remove_edge(&acme, &kiosk.name, NOW).await.unwrap());
    assert_eq!(registry.bind_edge(&acme, &kiosk.name, &kiosk.binding).await.unwrap(), None);
    assert!(!registry.remove_edge(&acme, &kiosk.name, NOW).await.unwrap());
    assert_eq!(registry.edge_named(&acme, &kiosk.name).await.unwrap(), None);
    assert_eq!(registry.edge(kiosk.id).await.unwrap().unwrap().removed_at, Some(NOW));
    assert_eq!(registry.edges(&acme).await.unwrap().len(), 2, "removed ones stay in the list");
    // Its name is free again.
    let token = join_token(3, "kiosk", 1);
    registry.add_join_token(&token).await.unwrap();
    let new = joined(&**registry, &token, 3).await;
    assert_eq!(registry.edge_named(&acme, &kiosk.name).await.unwrap(), Some(new));
}

pub(super) async fn wrapped_keys_and_roots_stay_what_they_were_first(registry: &Arc<impl Registry>) {
    assert_eq!(registry.wrapped_key("ca").await.unwrap(), None);
    assert_eq!(registry.put_wrapped_key("ca", &[1, 2]).await.unwrap(), [1, 2]);
    assert_eq!(registry.put_wrapped_key("ca", &[3]).await.unwrap(), [1, 2]);
    assert_eq!(registry.wrapped_key("ca").await.unwrap(), Some(vec![1, 2]));
    assert_eq!(registry.wrapped_key("signing").await.unwrap(), None);

    let root = |name: &str, key_epoch, wrapped: u8| WrappedRoot {
        tenant: tenant("acme"),
        environment: environment(name),
        key_epoch,
        wrapped: vec![wrapped; 60],
        created_at: NOW,
    };
    let first = root("production", 1, 1);
    assert_eq!(registry.put_root(&first).await.unwrap(), first);
    assert_eq!(registry.put_root(&root("production", 1, 2)).await.unwrap(), first);
    registry.put_root(&root("production", 2, 3)).await.unwrap();
    registry.put_root(&root("base", 1, 4)).await.unwrap();
    let expected = [root("base", 1, 4), first, root("production", 2, 3)];
    assert_eq!(registry.roots(&tenant("acme")).await.unwrap(), expected);
    assert!(registry.roots(&tenant("other")).await.unwrap().is_empty());
}

pub(super) async fn grants_are_recorded_once(registry: &Arc<impl Registry>) {
    let edge = ActorId(Uuid::from_u128(4));
    let grant = |subtree: &str, key_epoch, granted_at| GrantRow {
        edge,
        tenant: tenant("acme"),
        environment: environment("production"),
        subtree: Subtree::parse(subtree).unwrap(),
        key_epoch,
        granted_at: UnixMillis(granted_at),
    };
    registry.record_grants(&[grant("", 1, 10), grant("app", 1, 10), grant("app", 1, 10)]).await.unwrap();
    registry.record_grants(&[grant("app", 1, 99), grant("app", 2, 99)]).await.unwrap();
    let found = registry.grants(edge).await.unwrap();
    assert_eq!(found, [grant("", 1, 10), grant("app", 1, 10), grant("app", 2, 99)], "the first time counts");
    assert!(registry.grants(ActorId(Uuid::from_u128(5))).await.unwrap().is_empty());
}

pub(super) async fn what_was_the_same_on_both_sides_is_kept_for_each_source(registry: &Arc<impl Registry>) {
    let key = |name: &str| Key::parse(name).unwrap();
    let (both, here) = (
        Versions { vault: Some(3), entry: Some(7) },
        Versions { vault: None, entry: Some(u64::from(u32::MAX)) },
    );
    registry.note_source_key("one", &key("a/b"), both).await.unwrap();
    registry.note_source_key("one", &key("c"), both).await.unwrap();
    registry.note_source_key("two", &key("c"), both).await.unwrap();
    registry.note_source_key("one", &key("c"), here).await.unwrap();
    let expected = BTreeMap::from([(key("a/b"), both), (key("c"), here)]);
    assert_eq!(registry.source_keys("one").await.unwrap(), expected);
    registry.note_source_key("one", &key("c"), Versions::default()).await.unwrap();
    assert_eq!(registry.source_keys("one").await.unwrap(), BTreeMap::from([(key("a/b"), both)]));
    assert_eq!(registry.source_keys("two").await.unwrap(), BTreeMap::from([(key("c"), both)]));
    assert!(registry.source_keys("three").await.unwrap().is_empty());
}
