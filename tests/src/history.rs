//! What was asked and what was answered, in the order in which it happened, to be checked when everything is whole
//! again.
//!
//! Every write has a tag that no other write has: it is the value of what is set and the message of every change, so
//! that the hub's history names each of them.

pub mod check;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::http::Rows;

/// What a writer was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It counts, or it is kept; nobody may lose it any more.
    Taken,
    /// It was not done, clearly.
    Refused(u16),
    /// Nothing, or that something failed: it may have happened or not.
    Unknown,
}

/// What a reader was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// What the hub decided.
    Decided {
        version: u64,
        tag: String,
    },
    /// A write of this edge that waits for the hub.
    Waiting {
        tag: String,
    },
    Absent,
}

/// What somebody did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Set { tag: String, told: Told },
    Delete { tag: String, told: Told },
    Read(Seen),
}

/// One invocation and its answer. The numbers are of one order over all places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub place: String,
    pub key: String,
    pub began: u64,
    pub ended: u64,
    pub what: What,
}

/// Collects events from all who write and read.
#[derive(Debug, Default)]
pub struct Recorder {
    clock: AtomicU64,
    events: Mutex<Vec<Event>>,
}

impl Recorder {
    /// A number higher than all before.
    pub fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Something that began at that tick has ended.
    ///
    /// # Panics
    /// When another task panicked in here.
    pub fn record(&self, place: &str, key: &str, began: u64, what: What) {
        let event = Event { place: place.to_owned(), key: key.to_owned(), began, ended: self.tick(), what };
        self.events.lock().expect("nobody panics in here").push(event);
    }

    /// All so far.
    ///
    /// # Panics
    /// When another task panicked in here.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().expect("nobody panics in here").clone()
    }

    /// Writes of a place that were taken so far.
    ///
    /// # Panics
    /// When another task panicked in here.
    pub fn taken(&self, place: &str) -> usize {
        let counts = |event: &&Event| match &event.what {
            What::Set { told, .. } | What::Delete { told, .. } => *told == Told::Taken,
            What::Read(_) => false,
        };
        let events = self.events.lock().expect("nobody panics in here");
        events.iter().filter(|event| event.place == place).filter(counts).count()
    }
}

/// A write in the hub's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    pub tag: String,
    pub version: u64,
    pub deletion: bool,
    /// It is or was what readers see; others are kept beside.
    pub applied: bool,
}

/// How it looks when everything is whole again.
#[derive(Clone, Debug, Default)]
pub struct AtEnd {
    pub history: BTreeMap<String, Vec<Past>>,
    pub hub: Rows,
    pub edges: BTreeMap<String, Rows>,
}
