//! What a person should know about this edge: warnings by topic, and what the hub said about its writes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a warning is about; there is at most one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Certificate,
    Copy,
    Disk,
    Hub,
    Keys,
    Offline,
    Replica,
}

/// Shared by everything that has something to say.
#[derive(Debug, Default)]
pub struct Notes(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    warnings: BTreeMap<Topic, String>,
    held: u64,
    denied: u64,
    lost: u64,
}

impl Notes {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Only assignments happen under the lock, so nothing is ever half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what is said about the topic. True if it was not said already.
    pub fn warn(&self, topic: Topic, text: impl Into<String>) -> bool {
        let text = text.into();
        let before = self.inner().warnings.insert(topic, text.clone());
        before.as_ref() != Some(&text)
    }

    /// Nothing to say about the topic any more.
    pub fn clear(&self, topic: Topic) {
        self.inner().warnings.remove(&topic);
    }

    /// Everything there is to say.
    pub fn warnings(&self) -> Vec<String> {
        self.inner().warnings.values().cloned().collect()
    }

    pub(crate) fn count_held(&self) {
        self.inner().held += 1;
    }

    pub(crate) fn count_denied(&self) {
        self.inner().denied += 1;
    }

    pub(crate) fn count_lost(&self) {
        self.inner().lost += 1;
    }

    /// Writes that lost to others made at the same time, since the daemon began.
    pub fn lost(&self) -> u64 {
        self.inner().lost
    }

    /// Writes that the hub holds for a person, and that it did not admit, since the daemon began.
    pub fn held_and_denied(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.held, inner.denied)
    }
}
