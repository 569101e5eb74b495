//! Join tokens: who gets in, as what, and who does not.

use std::sync::Arc;

use llm_config_hub::registry::{EdgeKeys, JoinOutcome, JoinRefusal, Registry};
use llm_config_shared::name::EdgeName;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::time::UnixMillis;
use uuid::Uuid;

use super::book::{NOW, tenant};
use super::registry::{edge_keys, edge_name, join, join_token, joined};

fn refused(refusal: JoinRefusal) -> JoinOutcome {
    JoinOutcome::Refused(refusal)
}

pub(super) async fn a_join_token_is_used_once(registry: &Arc<impl Registry>) {
    registry.create_tenant(&tenant("acme"), NOW).await.unwrap();
    let token = join_token(1, "kiosk", 1);
    assert_eq!(join(&**registry, &token, 1).await, refused(JoinRefusal::Unknown));
    registry.add_join_token(&token).await.unwrap();
    let edge = joined(&**registry, &token, 1).await;
    assert_eq!((edge.name.as_str(), edge.joined_at, edge.acked_seq), ("kiosk", NOW, 0));
    assert_eq!(join(&**registry, &token, 2).await, refused(JoinRefusal::Used), "another key");
    assert_eq!(registry.edges(&tenant("acme")).await.unwrap(), [edge]);
}

pub(super) async fn the_same_key_is_answered_again(registry: &Arc<impl Registry>) {
    registry.create_tenant(&tenant("acme"), NOW).await.unwrap();
    let token = join_token(1, "kiosk", 1);
    registry.add_join_token(&token).await.unwrap();
    let edge = joined(&**registry, &token, 1).await;
    // The answer got lost, and when the edge asks again the token has run out.
    let late = UnixMillis(token.expires_at.0 + 1);
    let other_id = ActorId(Uuid::from_u128(55));
    let again = registry.join(&token.hash, &edge_keys(1), None, other_id, late).await.unwrap();
    assert_eq!(again, JoinOutcome::Again(edge.clone()));
    let keys = EdgeKeys { sealing_key: vec![9; 32], ..edge_keys(1) };
    let JoinOutcome::Again(renewed) = registry.join(&token.hash, &keys, None, other_id, late).await.unwrap()
    else {
        panic!("the same edge again");
    };
    assert_eq!((renewed.id, renewed.sealing_key.as_slice()), (edge.id, [9; 32].as_slice()));
    assert_eq!(registry.edge(edge.id).await.unwrap(), Some(renewed), "grants go to the key that it has now");
    registry.remove_edge(&tenant("acme"), &edge.name, NOW).await.unwrap();
    assert_eq!(join(&**registry, &token, 1).await, refused(JoinRefusal::Used), "a removed edge stays out");
}

pub(super) async fn a_token_that_ran_out_is_refused(registry: &Arc<impl Registry>) {
    registry.create_tenant(&tenant("acme"), NOW).await.unwrap();
    let token = join_token(1, "kiosk", 1);
    registry.add_join_token(&token).await.unwrap();
    let id = ActorId(Uuid::from_u128(1));
    let late = registry.join(&token.hash, &edge_keys(1), None, id, token.expires_at).await.unwrap();
    assert_eq!(late, refused(JoinRefusal::Expired));
    joined(&**registry, &token, 1).await;
}

pub(super) async fn names_of_edges_are_not_shared(registry: &Arc<impl Registry>) {
    registry.create_tenant(&tenant("acme"), NOW).await.unwrap();
    let tokens = [join_token(1, "kiosk", 1), join_token(2, "kiosk", 1)];
    for token in &tokens {
        registry.add_join_token(token).await.unwrap();
    }
    joined(&**registry, &tokens[0], 1).await;
    assert_eq!(join(&**registry, &tokens[1], 2).await, refused(JoinRefusal::NameTaken));
    // The use was not taken.
    registry.remove_edge(&tenant("acme"), &edge_name("kiosk"), NOW).await.unwrap();
    joined(&**registry, &tokens[1], 2).await;
}

pub(super) async fn a_token_of_many_uses_numbers_its_edges(registry: &Arc<impl Registry>) {
    registry.create_tenant(&tenant("acme"), NOW).await.unwrap();
    let token = join_token(1, "store", 5);
    registry.add_join_token(&token).await.unwrap();
    let ask = async |number: u8, requested: Option<&str>| {
        let requested = requested.map(edge_name);
        let id = ActorId(Uuid::from_u128(number.into()));
        registry.join(&token.hash, &edge_keys(number), requested.as_ref(), id, NOW).await.unwrap()
    };
    let mut names: Vec<EdgeName> = Vec::new();
    for (number, requested) in
        [(1, None), (2, Some("store-berlin")), (3, Some("elsewhere")), (4, Some("store-4"))]
    {
        let JoinOutcome::Joined(edge) = ask(number, requested).await else { panic!("{number} joins") };
        names.push(edge.name);
    }
    assert_eq!(names, ["store-1", "store-berlin", "store-3", "store-4"].map(edge_name));
    assert_eq!(ask(5, Some("store-berlin")).await, refused(JoinRefusal::NameTaken));
    let JoinOutcome::Joined(last) = ask(6, None).await else { panic!("it has a use left") };
    assert_eq!(last.name, edge_name("store-5"));
    assert_eq!(ask(7, None).await, refused(JoinRefusal::Used));
}

pub(super) async fn one_use_is_not_taken_twice_at_once(registry: &Arc<impl Registry>) {
    registry.create_tenant(&tenant("acme"), NOW).await.unwrap();
    let token = join_token(1, "kiosk", 1);
    registry.add_join_token(&token).await.unwrap();
    let tasks = (1..=6).map(|number| {
        let (registry, token) = (Arc::clone(registry), token.clone());
        tokio::spawn(async move { join(&*registry, &token, number).await })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut in_all = 0;
    for task in tasks {
        match task.await.unwrap() {
            JoinOutcome::Joined(_) => in_all += 1,
            other => assert_eq!(other, refused(JoinRefusal::Used)),
        }
    }
    assert_eq!(in_all, 1);
}
