//! The offline limit: how long an edge may open secrets without hearing from its hub, and what it is worth then.
//!
//! Limits are set per namespace at the hub, and of those above a secret the tightest counts. [`Contact`] measures how long
//! the hub was silent by clocks that nobody has to trust: the wall clock can only make it seem longer. The hub says the
//! limits in a signed [`LimitStatement`], which also carries the key without which the replica's secret keys stay shut.

use std::collections::BTreeMap;

use crate::feed::Feed;
use crate::limits::OFFLINE_LIMIT_MS;
use crate::name::{Namespace, Subtree};

mod contact;
mod gate;
mod statement;

pub use contact::{BootId, Clocks, Contact};
pub use gate::{Gate, GateRules, LimitKeys, Lock, LockedBy, NotCarried};
pub use statement::{LimitStatement, SessionMark, verify_limit};

/// Limits as they were set, each for a namespace and everything below it, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfflineLimits(BTreeMap<Subtree, u64>);

impl OfflineLimits {
    /// Sets one.
    pub fn set(&mut self, subtree: Subtree, limit_ms: u64) {
        self.0.insert(subtree, limit_ms);
    }

    /// All that were set.
    pub fn iter(&self) -> impl Iterator<Item = (&Subtree, u64)> {
        self.0.iter().map(|(subtree, limit_ms)| (subtree, *limit_ms))
    }

    /// What holds in a namespace: the tightest of what was set for it and for those above it.
    pub fn of(&self, namespace: &Namespace) -> u64 {
        self.source(namespace).map_or(OFFLINE_LIMIT_MS, |(_, limit_ms)| limit_ms)
    }

    /// Where the limit of a namespace was set; none where the default holds.
    pub fn source(&self, namespace: &Namespace) -> Option<(&Subtree, u64)> {
        let above = self.iter().filter(|(subtree, _)| subtree.contains(namespace));
        above.min_by_key(|(_, limit_ms)| *limit_ms)
    }

    /// The loosest and the tightest that hold anywhere in a subtree: after the first its key opens nothing any more.
    pub fn within(&self, subtree: &Subtree) -> (u64, u64) {
        let below = self.iter().filter(|(at, _)| subtree.covers(at) && *at != subtree);
        let top = self.top(subtree);
        let tightest = below.map(|(_, limit_ms)| limit_ms).min().unwrap_or(top);
        // A namespace that nobody named has the limit of the top.
        (top, tightest.min(top))
    }

    fn top(&self, subtree: &Subtree) -> u64 {
        let above = self.iter().filter(|(at, _)| at.covers(subtree));
        above.map(|(_, limit_ms)| limit_ms).min().unwrap_or(OFFLINE_LIMIT_MS)
    }

    /// What an edge with these feeds has to know, and nothing of what lies beside them.
    pub fn for_feeds(&self, feeds: &[Feed]) -> Self {
        let mut told = Self::default();
        for feed in feeds.iter().filter(|feed| feed.secrets) {
            told.set(feed.subtree.clone(), self.top(&feed.subtree));
            for (subtree, limit_ms) in self.iter().filter(|(at, _)| feed.subtree.covers(at)) {
                told.set(subtree.clone(), limit_ms.min(self.top(subtree)));
            }
        }
        told
    }

    /// The longest and the shortest of those that are set; the default where none is.
    pub fn extremes(&self) -> (u64, u64) {
        let longest = self.0.values().copied().max().unwrap_or(OFFLINE_LIMIT_MS);
        (longest, self.0.values().copied().min().unwrap_or(OFFLINE_LIMIT_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{Environment, Tenant};

    fn subtree(path: &str) -> Subtree {
        Subtree::parse(path).unwrap()
    }

    fn limits(set: &[(&str, u64)]) -> OfflineLimits {
        let mut limits = OfflineLimits::default();
        set.iter().for_each(|(path, ms)| limits.set(subtree(path), *ms));
        limits
    }

    #[test]
    fn the_tightest_of_those_above_counts_and_the_default_only_where_nobody_set_one() {
        let limits = limits(&[("app", 5_000), ("app/llm", 9_000), ("app/pay", 1_000), ("slow", 900_000_000)]);
        let of = |path: &str| limits.of(&Namespace::parse(path).unwrap());
        assert_eq!((of("app"), of("app/llm"), of("app/pay/eu")), (5_000, 5_000, 1_000));
        assert_eq!((of("application"), of("slow/x")), (OFFLINE_LIMIT_MS, 900_000_000));
        assert_eq!(limits.within(&subtree("app")), (5_000, 1_000));
        assert_eq!(limits.within(&Subtree::ALL), (OFFLINE_LIMIT_MS, 1_000));
    }

    #[test]
    fn an_edge_is_told_what_holds_in_its_feeds_and_no_other_name() {
        let feed = |path: &str, secrets| Feed {
            tenant: Tenant::parse("t").unwrap(),
            environment: Environment::base(),
            subtree: subtree(path),
            secrets,
        };
        let all = limits(&[("app", 5_000), ("app/llm/x", 2_000), ("app/llm/y", 7_000), ("other", 1_000)]);
        let told = all.for_feeds(&[feed("app/llm", true), feed("other", false)]);
        let expected = limits(&[("app/llm", 5_000), ("app/llm/x", 2_000), ("app/llm/y", 5_000)]);
        assert_eq!(told, expected);
        for path in ["app/llm", "app/llm/x/z", "app/llm/y"] {
            let namespace = Namespace::parse(path).unwrap();
            assert_eq!(told.of(&namespace), all.of(&namespace), "{path}");
        }
    }
}
