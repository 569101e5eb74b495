//! What on one machine uses which version of entries: told by processes, files and clients, and told on to the hub.
//!
//! Whoever goes on running says it again and again; what need not go on running (`lasting`) is kept by the hub once it has
//! heard of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::limits::USES_MAX;
use crate::time::Instant;

/// Who does not say again within this time that it uses something is taken to have gone.
pub const LAPSE_MS: u64 = 90_000;
/// So long after a start nobody is taken to have gone: those who go on running have to say so again first.
pub const GATHERING_MS: u64 = LAPSE_MS / 2;

/// More than is kept of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {USES_MAX} uses of values are told of on this machine, and no more are kept")]
pub struct TooMany;

/// Something that uses values.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Consumer<E> {
    lasting: bool,
    entries: Vec<E>,
    said_at: Instant,
}

/// One of them, as it is told on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told<E> {
    pub consumer: Arc<str>,
    pub lasting: bool,
    pub entries: Vec<E>,
}

/// All of them, since a start. `E` is a version of an entry.
#[derive(Debug)]
pub struct Consumers<E> {
    began: Instant,
    consumers: BTreeMap<Arc<str>, Consumer<E>>,
}

impl<E: Clone + Ord> Consumers<E> {
    /// Nobody, as after a start.
    pub fn starting(now: Instant) -> Self {
        Self { began: now, consumers: BTreeMap::new() }
    }

    /// What a consumer uses now, in place of what it said before. Whether that differs.
    ///
    /// # Errors
    /// When that is too much; then what it said before stays.
    pub fn say(
        &mut self,
        consumer: &str,
        lasting: bool,
        mut entries: Vec<E>,
        now: Instant,
    ) -> Result<bool, TooMany> {
        entries.sort();
        entries.dedup();
        let others = self.consumers.iter().filter(|(name, _)| ***name != *consumer);
        let count: usize = others.map(|(_, other)| other.entries.len().max(1)).sum();
        if count + entries.len().max(1) > USES_MAX {
            return Err(TooMany);
        }
        let new = Consumer { lasting, entries, said_at: now };
        let before = self.consumers.insert(consumer.into(), new.clone());
        Ok(before.is_none_or(|before| (before.lasting, before.entries) != (new.lasting, new.entries)))
    }

    /// The consumer has gone. One that lasts is told of without entries from then on: the hub keeps it until it hears that.
    /// Whether anything differs.
    pub fn forget(&mut self, consumer: &str) -> bool {
        match self.consumers.get_mut(consumer) {
            Some(known) if known.lasting => !std::mem::take(&mut known.entries).is_empty(),
            Some(_) => self.consumers.remove(consumer).is_some(),
            None => false,
        }
    }

    /// Those that have not said anything for too long have gone, too. Whether there were any.
    pub fn lapse(&mut self, now: Instant) -> bool {
        let before = self.consumers.len();
        self.consumers.retain(|_, consumer| consumer.lasting || now - consumer.said_at <= LAPSE_MS);
        self.consumers.len() != before
    }

    /// All of them, by name.
    pub fn told(&self) -> Vec<Told<E>> {
        let told = |(name, consumer): (&Arc<str>, &Consumer<E>)| Told {
            consumer: Arc::clone(name),
            lasting: consumer.lasting,
            entries: consumer.entries.clone(),
        };
        self.consumers.iter().map(told).collect()
    }

    /// Whether others than those who have said something since the start have gone.
    pub fn is_complete(&self, now: Instant) -> bool {
        now - self.began >= GATHERING_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(consumers: &Consumers<u64>) -> Vec<String> {
        consumers.told().iter().map(|told| told.consumer.to_string()).collect()
    }

    #[test]
    fn the_newest_of_a_consumer_counts_and_saying_the_same_changes_nothing() {
        let mut consumers = Consumers::starting(Instant(0));
        let mut say = |version, at| consumers.say("a", false, vec![version], Instant(at)).unwrap();
        assert_eq!([say(1, 0), say(2, 1), say(2, 2)], [true, true, false]);
        assert_eq!(consumers.told()[0].entries, [2]);
    }

    #[test]
    fn who_says_nothing_more_has_gone_unless_it_lasts() {
        let mut consumers = Consumers::starting(Instant(0));
        consumers.say("file", true, vec![1], Instant(0)).unwrap();
        consumers.say("process", false, vec![1], Instant(0)).unwrap();
        consumers.say("client", false, vec![1], Instant(LAPSE_MS)).unwrap();
        assert!(!consumers.lapse(Instant(LAPSE_MS)));
        assert_eq!(names(&consumers), ["client", "file", "process"]);
        assert!(consumers.lapse(Instant(LAPSE_MS + 1)));
        assert_eq!(names(&consumers), ["client", "file"]);
        assert_eq!((consumers.forget("client"), consumers.forget("client")), (true, false));
        assert_eq!(names(&consumers), ["file"]);
    }

    #[test]
    fn one_that_lasts_and_has_gone_is_told_of_as_using_nothing() {
        let mut consumers = Consumers::starting(Instant(0));
        consumers.say("file", true, vec![1], Instant(0)).unwrap();
        assert_eq!((consumers.forget("file"), consumers.forget("file")), (true, false));
        let nothing = Told { consumer: "file".into(), lasting: true, entries: vec![] };
        assert_eq!(consumers.told(), [nothing]);
    }

    #[test]
    fn nobody_has_gone_right_after_a_start() {
        let consumers = Consumers::<u64>::starting(Instant(7));
        assert!(!consumers.is_complete(Instant(6 + GATHERING_MS)));
        assert!(consumers.is_complete(Instant(7 + GATHERING_MS)));
    }

    #[test]
    fn there_is_a_bound_and_what_was_said_before_it_stays() {
        let mut consumers = Consumers::starting(Instant(0));
        let many = |count: usize| (0..count as u64).collect::<Vec<_>>();
        consumers.say("a", false, many(USES_MAX - 1), Instant(0)).unwrap();
        consumers.say("b", false, many(1), Instant(0)).unwrap();
        assert_eq!(consumers.say("c", false, vec![], Instant(0)), Err(TooMany));
        assert_eq!(consumers.say("b", false, many(2), Instant(0)), Err(TooMany));
        assert_eq!(names(&consumers), ["a", "b"]);
        consumers.say("a", false, many(2), Instant(0)).unwrap();
    }
}
