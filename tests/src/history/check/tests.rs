//! Each kind of violation is shown to the checker, and found.

use serde_json::Value;

use super::*;
use crate::http::Rows;

/// A history that is right: two writes at the hub, one at an edge, a deletion, and a reader that sees all of it.
fn right() -> (Vec<Event>, AtEnd) {
    let events = vec![
        at("hub", 0, set("a", Told::Taken)),
        at("e1", 2, read(1, "a")),
        at("e1", 4, set("b", Told::Taken)),
        at("e1", 6, What::Read(Seen::Waiting { tag: "b".into() })),
        at("e1", 8, read(2, "b")),
        at("hub", 10, What::Delete { tag: "c".into(), told: Told::Taken }),
        at("e1", 12, What::Read(Seen::Absent)),
        at("hub", 14, set("d", Told::Unknown)),
        at("e2", 16, set("e", Told::Refused(403))),
        at("hub", 18, set("f", Told::Taken)),
        at("e1", 20, read(5, "f")),
    ];
    let history = vec![
        row("a", 1, false),
        row("b", 2, false),
        row("c", 3, true),
        row("d", 4, false),
        row("f", 5, false),
    ];
    let rows = Rows::from([("k".to_owned(), (Value::from("f"), 5))]);
    let edges = BTreeMap::from([("e1".to_owned(), rows.clone()), ("e2".to_owned(), rows.clone())]);
    (events, AtEnd { history: BTreeMap::from([("k".to_owned(), history)]), hub: rows, edges })
}

fn at(place: &str, began: u64, what: What) -> Event {
    Event { place: place.into(), key: "k".into(), began, ended: began + 1, what }
}

fn set(tag: &str, told: Told) -> What {
    What::Set { tag: tag.into(), told }
}

fn read(version: u64, tag: &str) -> What {
    What::Read(Seen::Decided { version, tag: tag.into() })
}

fn row(tag: &str, version: u64, deletion: bool) -> Past {
    Past { tag: tag.into(), version, deletion, applied: true }
}

fn rows_of(at_end: &mut AtEnd) -> &mut Vec<Past> {
    at_end.history.get_mut("k").unwrap()
}

fn names() -> (String, String) {
    ("e1".into(), "k".into())
}

#[test]
fn a_right_history_passes() {
    let (events, at_end) = right();
    assert_eq!(check(&events, &at_end), []);
}

#[test]
fn a_lost_write_and_a_lost_deletion_are_found() {
    let (events, mut at_end) = right();
    rows_of(&mut at_end).retain(|past| !matches!(past.tag.as_str(), "a" | "c"));
    let lost =
        |place: &str, tag: &str| Violation::Lost { place: place.into(), key: "k".into(), tag: tag.into() };
    let found = check(&events, &at_end);
    assert!(found.contains(&lost("hub", "a")) && found.contains(&lost("hub", "c")), "{found:?}");
}

#[test]
fn what_nobody_was_promised_may_be_missing() {
    let (events, mut at_end) = right();
    rows_of(&mut at_end).retain(|past| past.tag != "d");
    assert_eq!(check(&events, &at_end), []);
}

#[test]
fn a_doubled_write_is_found() {
    let (events, mut at_end) = right();
    rows_of(&mut at_end).insert(0, Past { applied: false, ..row("a", 0, false) });
    let doubled = Violation::Doubled { key: "k".into(), tag: "a".into(), times: 2 };
    assert_eq!(check(&events, &at_end), [doubled]);
}

#[test]
fn a_refused_write_that_happened_is_found() {
    let (events, mut at_end) = right();
    rows_of(&mut at_end).insert(0, Past { applied: false, ..row("e", 0, false) });
    let refused = Violation::Refused { place: "e2".into(), key: "k".into(), tag: "e".into() };
    assert_eq!(check(&events, &at_end), [refused]);
}

#[test]
fn a_read_that_goes_back_is_found_unless_the_reads_overlap() {
    let (mut events, at_end) = right();
    events.push(at("e1", 22, read(2, "b")));
    let (place, key) = names();
    assert_eq!(check(&events, &at_end), [Violation::Backwards { place, key, from: 5, to: 2 }]);
    events.last_mut().unwrap().began = 20;
    assert_eq!(check(&events, &at_end), []);
    let (mut events, at_end) = right();
    events.push(at("e2", 22, read(2, "b")));
    assert_eq!(check(&events, &at_end), [], "another edge may be behind");
}

#[test]
fn own_waiting_writes_excuse_no_lower_version() {
    let (mut events, at_end) = right();
    events.push(at("e1", 22, What::Read(Seen::Waiting { tag: "b".into() })));
    events.push(at("e1", 24, read(2, "b")));
    let (place, key) = names();
    assert_eq!(check(&events, &at_end), [Violation::Backwards { place, key, from: 5, to: 2 }]);
}

#[test]
fn a_deleted_entry_that_comes_back_is_found_unless_the_edge_itself_deleted_it() {
    let (mut events, at_end) = right();
    events.push(at("e1", 22, What::Read(Seen::Absent)));
    events.push(at("e1", 24, read(5, "f")));
    let (place, key) = names();
    assert_eq!(check(&events, &at_end), [Violation::CameBack { place, key, version: 5 }]);
    events.push(at("e1", 21, What::Delete { tag: "g".into(), told: Told::Unknown }));
    assert_eq!(check(&events, &at_end), [], "its own deletion gave way");
    events.last_mut().unwrap().what = What::Delete { tag: "g".into(), told: Told::Refused(404) };
    assert_eq!(check(&events, &at_end).len(), 1, "a refused deletion excuses nothing");
}

#[test]
fn an_own_write_that_vanishes_is_found_unless_it_does_not_count() {
    let (mut events, mut at_end) = right();
    events.truncate(3);
    events.push(at("e1", 6, read(1, "a")));
    let (place, key) = names();
    assert_eq!(check(&events, &at_end), [Violation::Vanished { place, key, tag: "b".into() }]);
    events.last_mut().unwrap().place = "e2".into();
    assert_eq!(check(&events, &at_end), [], "it may not have come to another edge");
    events.last_mut().unwrap().place = "e1".into();
    rows_of(&mut at_end)[1].applied = false;
    assert_eq!(check(&events, &at_end), [], "it lost to another");
}

#[test]
fn a_value_that_nobody_wrote_is_found() {
    let (mut events, at_end) = right();
    let (place, key) = names();
    events.push(at("e1", 22, read(5, "x")));
    let wrong = Violation::Wrong { place, key, version: 5, tag: "x".into() };
    assert_eq!(check(&events, &at_end), [wrong]);
    events.pop();
    let (place, key) = names();
    events.push(at("e1", 22, What::Read(Seen::Waiting { tag: "a".into() })));
    let invented = Violation::Invented { place, key, tag: "a".into() };
    assert_eq!(check(&events, &at_end), [invented], "a was written elsewhere");
}

#[test]
fn a_hub_that_shows_something_else_than_its_latest_write_is_found() {
    let (events, mut at_end) = right();
    let deleted = row("g", 6, true);
    rows_of(&mut at_end).push(deleted);
    assert_eq!(check(&events, &at_end), [Violation::NotTheLatest { key: "k".into() }]);
    let (events, mut at_end) = right();
    at_end.hub.insert("unknown".into(), (Value::Null, 1));
    at_end.edges.clear();
    assert_eq!(check(&events, &at_end), [Violation::NotTheLatest { key: "unknown".into() }]);
}

#[test]
fn an_edge_that_differs_is_found() {
    let diverged = |key: &str| Violation::Diverged { edge: "e2".into(), key: key.into() };
    let (events, mut at_end) = right();
    at_end.edges.get_mut("e2").unwrap().insert("k".into(), (Value::from("f"), 4));
    assert_eq!(check(&events, &at_end), [diverged("k")]);
    at_end.edges.get_mut("e2").unwrap().clear();
    assert_eq!(check(&events, &at_end), [diverged("k")], "missing");
    let (events, mut at_end) = right();
    at_end.edges.get_mut("e2").unwrap().insert("more".into(), (Value::Null, 1));
    assert_eq!(check(&events, &at_end), [diverged("more")]);
}
