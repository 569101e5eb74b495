//! What must hold of every recorded history, whatever happened to networks, disks and processes on the way.

use std::collections::BTreeMap;

use super::{AtEnd, Event, Past, Seen, Told, What};

/// What is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// A write was acknowledged and is not in the hub's history.
    Lost { place: String, key: String, tag: String },
    /// One write is in the hub's history more than once.
    Doubled { key: String, tag: String, times: usize },
    /// A write was refused and happened all the same.
    Refused { place: String, key: String, tag: String },
    /// A reader saw a version and then a lower one.
    Backwards { place: String, key: String, from: u64, to: u64 },
    /// A reader saw that an entry was gone, and then the version that it had had.
    CameBack { place: String, key: String, version: u64 },
    /// A reader at the writer's edge saw what was there before a write that had been taken, and counts.
    Vanished { place: String, key: String, tag: String },
    /// A reader saw under a version what the hub's history does not have there.
    Wrong { place: String, key: String, version: u64, tag: String },
    /// A reader saw as waiting what nobody wrote at that edge.
    Invented { place: String, key: String, tag: String },
    /// The hub does not show the latest write of its own history.
    NotTheLatest { key: String },
    /// An edge and the hub show different things.
    Diverged { edge: String, key: String },
}

/// Everything that is wrong.
pub fn check(events: &[Event], at_end: &AtEnd) -> Vec<Violation> {
    let mut found = writes_are_kept(events, at_end);
    found.extend(nothing_is_doubled(at_end));
    found.extend(readers_go_forward(events));
    found.extend(own_writes_are_seen(events, at_end));
    found.extend(readers_see_what_was_written(events, at_end));
    found.extend(the_latest_is_shown(at_end));
    found.extend(edges_equal_the_hub(at_end));
    found.sort();
    found.dedup();
    found
}

fn past<'a>(at_end: &'a AtEnd, key: &str) -> &'a [Past] {
    at_end.history.get(key).map(Vec::as_slice).unwrap_or_default()
}

fn writes_are_kept(events: &[Event], at_end: &AtEnd) -> Vec<Violation> {
    let mut found = Vec::new();
    for event in events {
        let (What::Set { tag, told } | What::Delete { tag, told }) = &event.what else { continue };
        let there = past(at_end, &event.key).iter().any(|past| past.tag == *tag);
        let (place, key, tag) = (event.place.clone(), event.key.clone(), tag.clone());
        match told {
            Told::Taken if !there => found.push(Violation::Lost { place, key, tag }),
            Told::Refused(_) if there => found.push(Violation::Refused { place, key, tag }),
            Told::Taken | Told::Refused(_) | Told::Unknown => {}
        }
    }
    found
}

fn nothing_is_doubled(at_end: &AtEnd) -> Vec<Violation> {
    let mut times: BTreeMap<(&String, &String), usize> = BTreeMap::new();
    for (key, rows) in &at_end.history {
        for past in rows {
            *times.entry((key, &past.tag)).or_default() += 1;
        }
    }
    let doubled = times.into_iter().filter(|(_, times)| *times > 1);
    doubled
        .map(|((key, tag), times)| Violation::Doubled { key: key.clone(), tag: tag.clone(), times })
        .collect()
}

/// What one reader knows of one key.
#[derive(Default)]
struct Known {
    version: u64,
    /// When the read of it began.
    began: u64,
    gone: bool,
}

/// Reads of one place that follow each other never go back. Those that overlap may come in any order, and have none.
fn readers_go_forward(events: &[Event]) -> Vec<Violation> {
    let mut reads: BTreeMap<(&str, &str), Vec<(&Event, &Seen)>> = BTreeMap::new();
    let mut deletions: BTreeMap<(&str, &str), Vec<&Event>> = BTreeMap::new();
    for event in events {
        let at = (event.place.as_str(), event.key.as_str());
        match &event.what {
            What::Read(seen) => reads.entry(at).or_default().push((event, seen)),
            What::Delete { told: Told::Taken | Told::Unknown, .. } => {
                deletions.entry(at).or_default().push(event);
            }
            What::Delete { told: Told::Refused(_), .. } | What::Set { .. } => {}
        }
    }
    let mut found = Vec::new();
    for (at, mut reads) in reads {
        reads.sort_by_key(|(event, _)| event.began);
        let deletions = deletions.get(&at).map(Vec::as_slice).unwrap_or_default();
        reader_goes_forward(at, &reads, deletions, &mut found);
    }
    found
}

fn reader_goes_forward(
    (place, key): (&str, &str),
    reads: &[(&Event, &Seen)],
    deletions: &[&Event],
    found: &mut Vec<Violation>,
) {
    let mut known = Known::default();
    let mut last_ended = 0;
    for (event, seen) in reads {
        if event.began < last_ended {
            continue;
        }
        last_ended = event.ended;
        match seen {
            Seen::Decided { version, .. } => {
                let (place, key) = (place.to_owned(), key.to_owned());
                if *version < known.version {
                    found.push(Violation::Backwards { place, key, from: known.version, to: *version });
                } else if *version == known.version && known.gone {
                    found.push(Violation::CameBack { place, key, version: *version });
                }
                known = Known { version: *version, began: event.began, gone: false };
            }
            // Its own deletion may still give way to what the hub decided meanwhile.
            Seen::Absent => {
                let own = |deletion: &&Event| deletion.ended > known.began && deletion.began < event.ended;
                known.gone = known.version > 0 && !deletions.iter().any(own);
            }
            Seen::Waiting { .. } => {}
        }
    }
}

/// A write that was taken and counts.
struct Taken<'a> {
    ended: u64,
    version: u64,
    tag: &'a str,
}

/// Whoever writes at an edge finds it there from then on: as a write that waits, as a row, or as what came later.
fn own_writes_are_seen(events: &[Event], at_end: &AtEnd) -> Vec<Violation> {
    let mut taken: BTreeMap<(&str, &str), Vec<Taken<'_>>> = BTreeMap::new();
    for event in events {
        let (What::Set { tag, told: Told::Taken } | What::Delete { tag, told: Told::Taken }) = &event.what
        else {
            continue;
        };
        let counts = past(at_end, &event.key).iter().find(|past| past.tag == *tag && past.applied);
        if let Some(past) = counts {
            let at = (event.place.as_str(), event.key.as_str());
            taken.entry(at).or_default().push(Taken { ended: event.ended, version: past.version, tag });
        }
    }
    let mut found = Vec::new();
    for event in events {
        let What::Read(Seen::Decided { version, .. }) = &event.what else { continue };
        let own =
            taken.get(&(event.place.as_str(), event.key.as_str())).map(Vec::as_slice).unwrap_or_default();
        let vanished = own.iter().find(|own| own.ended < event.began && *version < own.version);
        found.extend(vanished.map(|own| Violation::Vanished {
            place: event.place.clone(),
            key: event.key.clone(),
            tag: own.tag.to_owned(),
        }));
    }
    found
}

fn readers_see_what_was_written<'a>(events: &'a [Event], at_end: &AtEnd) -> Vec<Violation> {
    let mut found = Vec::new();
    let set = |event: &'a Event| match &event.what {
        What::Set { tag, .. } => Some((tag.as_str(), event)),
        What::Delete { .. } | What::Read(_) => None,
    };
    let sets: BTreeMap<&str, &Event> = events.iter().filter_map(set).collect();
    for event in events {
        let What::Read(seen) = &event.what else { continue };
        let (place, key) = (event.place.clone(), event.key.clone());
        match seen {
            Seen::Decided { version, tag } => {
                // Also one that another write of the same time took the place of later.
                let is_it = |past: &Past| past.version == *version && past.tag == *tag;
                if !past(at_end, &key).iter().any(is_it) {
                    found.push(Violation::Wrong { place, key, version: *version, tag: tag.clone() });
                }
            }
            Seen::Waiting { tag } => {
                let written_here =
                    |set: &&&Event| set.place == place && set.key == key && set.began < event.ended;
                if sets.get(tag.as_str()).filter(written_here).is_none() {
                    found.push(Violation::Invented { place, key, tag: tag.clone() });
                }
            }
            Seen::Absent => {}
        }
    }
    found
}

fn the_latest_is_shown(at_end: &AtEnd) -> Vec<Violation> {
    let mut found = Vec::new();
    for (key, rows) in &at_end.history {
        let latest = rows.iter().filter(|past| past.applied).max_by_key(|past| past.version);
        let wanted = latest
            .filter(|past| !past.deletion)
            .map(|past| (serde_json::Value::from(past.tag.clone()), past.version));
        if at_end.hub.get(key) != wanted.as_ref() {
            found.push(Violation::NotTheLatest { key: key.clone() });
        }
    }
    let unknown = at_end.hub.keys().filter(|key| !at_end.history.contains_key(*key));
    found.extend(unknown.map(|key| Violation::NotTheLatest { key: key.clone() }));
    found
}

fn edges_equal_the_hub(at_end: &AtEnd) -> Vec<Violation> {
    let mut found = Vec::new();
    for (edge, rows) in &at_end.edges {
        let keys = rows.keys().chain(at_end.hub.keys());
        let differ = keys.filter(|key| rows.get(*key) != at_end.hub.get(*key));
        found.extend(differ.map(|key| Violation::Diverged { edge: edge.clone(), key: key.clone() }));
    }
    found
}

#[cfg(test)]
mod tests;
