//! What on this machine uses which version of an entry: told by processes, files and clients, and told on to the hub.
//!
//! Kept in memory: whoever goes on running says it again and again, and what need not go on running (`lasting`) is kept
//! by the hub once it has heard of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use llm_config_shared::limits::USES_MAX;
use llm_config_shared::time::Instant;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

mod report;

pub(crate) use report::{Teller, request};

/// Who does not say again within this time that it uses something is taken to have gone.
pub(crate) const LAPSE_MS: u64 = 90_000;

/// A version of an entry that is in use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsedEntry {
    pub(crate) namespace: String,
    pub(crate) key: String,
    pub(crate) environment: String,
    pub(crate) version: u64,
}

/// Something that uses values.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Consumer {
    lasting: bool,
    entries: Vec<UsedEntry>,
    said_at: Instant,
}

/// More than is kept of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {USES_MAX} uses of values are told of on this machine, and no more are kept")]
pub(crate) struct TooMany;

/// All of them.
pub(crate) struct Uses {
    consumers: Mutex<BTreeMap<Arc<str>, Consumer>>,
    /// Rises with each difference.
    changes: watch::Sender<u64>,
}

/// One of them, as it is told on.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Told {
    pub(crate) consumer: Arc<str>,
    pub(crate) lasting: bool,
    pub(crate) entries: Vec<UsedEntry>,
}

impl Default for Uses {
    fn default() -> Self {
        Self { consumers: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl Uses {
    /// What a consumer uses now, in place of what it said before.
    ///
    /// # Errors
    /// When that is too much; then what it said before stays.
    pub(crate) fn say(
        &self,
        consumer: &str,
        lasting: bool,
        mut entries: Vec<UsedEntry>,
        now: Instant,
    ) -> Result<(), TooMany> {
        entries.sort();
        entries.dedup();
        let mut consumers = self.consumers();
        let others = consumers.iter().filter(|(name, _)| ***name != *consumer);
        let count: usize = others.map(|(_, other)| other.entries.len().max(1)).sum();
        if count + entries.len().max(1) > USES_MAX {
            return Err(TooMany);
        }
        let new = Consumer { lasting, entries, said_at: now };
        let before = consumers.insert(consumer.into(), new.clone());
        if before.is_none_or(|before| (before.lasting, before.entries) != (new.lasting, new.entries)) {
            self.changed();
        }
        Ok(())
    }

    /// The consumer has gone.
    pub(crate) fn forget(&self, consumer: &str) {
        if self.consumers().remove(consumer).is_some() {
            self.changed();
        }
    }

    /// Those that have not said anything for too long have gone, too.
    pub(crate) fn lapse(&self, now: Instant) {
        let mut consumers = self.consumers();
        let before = consumers.len();
        consumers.retain(|_, consumer| consumer.lasting || now - consumer.said_at <= LAPSE_MS);
        if consumers.len() != before {
            self.changed();
        }
    }

    /// All of them, by name.
    pub(crate) fn told(&self) -> Vec<Told> {
        let told = |(name, consumer): (&Arc<str>, &Consumer)| Told {
            consumer: Arc::clone(name),
            lasting: consumer.lasting,
            entries: consumer.entries.clone(),
        };
        self.consumers().iter().map(told).collect()
    }

    /// Rises when something is used otherwise than before.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn consumers(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Consumer>> {
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(key: &str, version: u64) -> UsedEntry {
        UsedEntry { namespace: "app".into(), key: key.into(), environment: "base".into(), version }
    }

    fn names(uses: &Uses) -> Vec<String> {
        uses.told().iter().map(|told| told.consumer.to_string()).collect()
    }

    #[test]
    fn the_newest_of_a_consumer_counts_and_saying_the_same_changes_nothing() {
        let uses = Uses::default();
        let changes = uses.changes();
        let say = |version, at| uses.say("a", false, vec![used("k", version)], Instant(at)).unwrap();
        say(1, 0);
        say(2, 1);
        assert_eq!(uses.told()[0].entries, [used("k", 2)]);
        let after = *changes.borrow();
        say(2, 2);
        assert_eq!((after, *changes.borrow()), (2, 2));
    }

    #[test]
    fn who_says_nothing_more_has_gone_unless_it_lasts() {
        let uses = Uses::default();
        uses.say("file", true, vec![used("k", 1)], Instant(0)).unwrap();
        uses.say("process", false, vec![used("k", 1)], Instant(0)).unwrap();
        uses.say("client", false, vec![used("k", 1)], Instant(LAPSE_MS)).unwrap();
        uses.lapse(Instant(LAPSE_MS));
        assert_eq!(names(&uses), ["client", "file", "process"]);
        uses.lapse(Instant(LAPSE_MS + 1));
        assert_eq!(names(&uses), ["client", "file"]);
        uses.forget("client");
        assert_eq!(names(&uses), ["file"]);
    }

    #[test]
    fn there_is_a_bound_and_what_was_said_before_it_stays() {
        let uses = Uses::default();
        let many = |count: usize| (0..count).map(|n| used(&n.to_string(), 1)).collect::<Vec<_>>();
        uses.say("a", false, many(USES_MAX - 1), Instant(0)).unwrap();
        uses.say("b", false, many(1), Instant(0)).unwrap();
        assert_eq!(uses.say("c", false, vec![], Instant(0)), Err(TooMany));
        assert_eq!(uses.say("b", false, many(2), Instant(0)), Err(TooMany));
        assert_eq!(names(&uses), ["a", "b"]);
        uses.say("a", false, many(2), Instant(0)).unwrap();
    }
}
