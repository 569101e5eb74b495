//! Who is waited for, and who is not.

use uuid::Uuid;

use super::*;
use crate::name::{Environment, Key, Namespace, Scope, Subtree, Tenant};

const CHANGE: ChangeId = ChangeId(Uuid::nil());

fn at(namespace: &str) -> EntryKey {
    let scope = Scope {
        tenant: Tenant::parse("t").unwrap(),
        environment: Environment::base(),
        namespace: Namespace::parse(namespace).unwrap(),
    };
    EntryKey { scope, key: Key::parse("k").unwrap() }
}

fn wrote(namespace: &str) -> Wrote {
    Wrote { at: at(namespace), version: 5, seq: 40, secret: true, deletes: false }
}

fn receiver(number: u128, subtree: &str) -> Receiver {
    let feed = Feed {
        tenant: Tenant::parse("t").unwrap(),
        environment: Environment::base(),
        subtree: Subtree::parse(subtree).unwrap(),
        secrets: true,
    };
    Receiver {
        edge: ActorId(Uuid::from_u128(number)),
        name: format!("e{number}").into(),
        feeds: vec![feed],
        removed: false,
        connected: true,
        last_seen_at: None,
        acked_seq: 40,
    }
}

fn used(number: u128, namespace: &str, version: u64) -> Use {
    Use { edge: ActorId(Uuid::from_u128(number)), consumer: "agent".into(), at: at(namespace), version }
}

/// (everybody has it, everybody uses it)
fn judged(receivers: Vec<Receiver>, uses: &[Use]) -> (bool, bool) {
    let receipts = receipts(CHANGE, &[wrote("app")], receivers, uses);
    (receipts.delivered(), receipts.in_use())
}

#[test]
fn in_use_is_proved_by_those_who_use_it_and_never_by_nobody() {
    let both = || vec![receiver(1, "app"), receiver(2, "")];
    assert_eq!(judged(both(), &[used(1, "app", 5)]), (true, true), "no reason to wait for the other");
    assert_eq!(judged(both(), &[used(1, "app", 6), used(2, "app", 4)]), (true, false));
    assert_eq!(judged(both(), &[]), (true, false), "nobody has said that they use it");
    assert_eq!(judged(vec![], &[]), (true, false));
}

#[test]
fn an_edge_that_does_not_have_it_is_waited_for_unless_it_was_removed_or_receives_nothing_of_it() {
    let behind = Receiver { acked_seq: 39, ..receiver(2, "app") };
    let with = |other: Receiver| judged(vec![receiver(1, "app"), other], &[used(1, "app", 5)]);
    assert_eq!(with(behind.clone()), (false, false));
    assert_eq!(with(Receiver { removed: true, ..behind.clone() }), (true, true));
    assert_eq!(with(Receiver { feeds: receiver(2, "team").feeds, ..behind.clone() }), (true, true));
    let plain = Feed { secrets: false, ..behind.feeds[0].clone() };
    assert_eq!(with(Receiver { feeds: vec![plain], ..behind }), (true, true), "secrets are left out");
}

#[test]
fn what_a_removed_edge_uses_holds_nothing_up() {
    let removed = Receiver { removed: true, ..receiver(2, "app") };
    let uses = [used(1, "app", 5), used(2, "app", 4)];
    assert_eq!(judged(vec![receiver(1, "app"), removed], &uses), (true, true));
}

#[test]
fn a_consumer_is_shown_with_the_entry_in_which_it_is_furthest_behind() {
    let change = [wrote("app"), Wrote { deletes: true, ..wrote("gone") }, wrote("team")];
    let uses = [used(1, "app", 5), used(1, "team", 3), used(1, "gone", 1), used(1, "other", 1)];
    let found = receipts(CHANGE, &change, vec![receiver(1, "")], &uses);
    let [edge] = found.edges.as_slice() else { panic!("{found:?}") };
    let [consumer] = edge.consumers.as_slice() else { panic!("{edge:?}") };
    assert_eq!((&consumer.at, consumer.wrote, consumer.uses), (&at("team"), 5, 3));
}
