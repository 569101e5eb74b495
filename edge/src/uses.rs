//! What on this machine uses which version of an entry: told by processes, files and clients, and told on to the hub.
//!
//! Kept in memory: whoever goes on running says it again and again, and what need not go on running (`lasting`) is kept
//! by the hub once it has heard of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use llm_config_shared::in_use::consumers::{self, Consumers, TooMany};
use llm_config_shared::time::Instant;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

mod report;

pub(crate) use report::{Teller, request};

/// A version of an entry that is in use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsedEntry {
    pub(crate) namespace: String,
    pub(crate) key: String,
    pub(crate) environment: String,
    pub(crate) version: u64,
}

/// All of them.
pub(crate) struct Uses {
    consumers: Mutex<Consumers<UsedEntry>>,
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

impl From<consumers::Told<UsedEntry>> for Told {
    fn from(told: consumers::Told<UsedEntry>) -> Self {
        let consumers::Told { consumer, lasting, entries } = told;
        Self { consumer, lasting, entries }
    }
}

impl Uses {
    /// None, as the daemon starts.
    pub(crate) fn starting(now: Instant) -> Self {
        Self { consumers: Mutex::new(Consumers::starting(now)), changes: watch::Sender::new(0) }
    }

    /// What a consumer uses now, in place of what it said before.
    ///
    /// # Errors
    /// When that is too much; then what it said before stays.
    pub(crate) fn say(
        &self,
        consumer: &str,
        lasting: bool,
        entries: Vec<UsedEntry>,
        now: Instant,
    ) -> Result<(), TooMany> {
        let differs = self.consumers().say(consumer, lasting, entries, now)?;
        self.changed_if(differs);
        Ok(())
    }

    /// The consumer has gone.
    pub(crate) fn forget(&self, consumer: &str) {
        let differs = self.consumers().forget(consumer);
        self.changed_if(differs);
    }

    /// Those that have not said anything for too long have gone, too.
    pub(crate) fn lapse(&self, now: Instant) {
        let differs = self.consumers().lapse(now);
        self.changed_if(differs);
    }

    /// All of them, by name.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.consumers().told().into_iter().map(Told::from).collect()
    }

    /// Whether others than those have gone.
    pub(crate) fn is_complete(&self, now: Instant) -> bool {
        self.consumers().is_complete(now)
    }

    /// Rises when something is used otherwise than before.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed_if(&self, differs: bool) {
        if differs {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    fn consumers(&self) -> MutexGuard<'_, Consumers<UsedEntry>> {
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told_as_a_change() {
        let uses = Uses::starting(Instant(0));
        let changes = uses.changes();
        let used = |version| UsedEntry {
            namespace: "app".into(),
            key: "k".into(),
            environment: "base".into(),
            version,
        };
        let count = |act: &dyn Fn()| {
            act();
            *changes.borrow()
        };
        let say = |version, at| move |uses: &Uses| uses.say("a", false, vec![version], Instant(at)).unwrap();
        assert_eq!(count(&|| say(used(1), 0)(&uses)), 1);
        assert_eq!(count(&|| say(used(1), 5)(&uses)), 1);
        assert_eq!(count(&|| say(used(2), 6)(&uses)), 2);
        assert_eq!(count(&|| uses.lapse(Instant(7))), 2);
        assert_eq!(count(&|| uses.forget("a")), 3);
        assert_eq!(count(&|| uses.forget("a")), 3);
    }
}
