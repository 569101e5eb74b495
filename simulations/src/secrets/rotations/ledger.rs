//! What the hub has noted of who uses what: as its tables do (`hub/src/journal/registry/uses.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use llm_config_shared::in_use::Use;
use llm_config_shared::name::EntryKey;

use super::super::Machine;
use super::programs::Told;

/// By edge and consumer.
#[derive(Default)]
pub(super) struct Ledger(BTreeMap<(usize, Arc<str>), Noted>);

struct Noted {
    lasting: bool,
    uses: Vec<(EntryKey, u64)>,
}

impl Ledger {
    /// Notes what an edge told, in place of what it told of the same before.
    pub(super) fn note(&mut self, edge: usize, complete: bool, told: &[Told]) {
        let names = |name: &Arc<str>| told.iter().any(|consumer| consumer.consumer == *name);
        self.0.retain(|(of, name), noted| {
            let replaced = names(name) || (complete && !noted.lasting);
            *of != edge || !replaced
        });
        for consumer in told {
            let noted = Noted { lasting: consumer.lasting, uses: consumer.entries.clone() };
            self.0.insert((edge, Arc::clone(&consumer.consumer)), noted);
        }
    }

    pub(super) fn uses_of(&self, at: &EntryKey, machines: &[Machine]) -> Vec<Use> {
        let of_at =
            |noted: &Noted| noted.uses.iter().find(|(used, _)| used == at).map(|(_, version)| *version);
        let used = |((edge, consumer), noted): (&(usize, Arc<str>), &Noted)| {
            let version = of_at(noted)?;
            let (edge, consumer) = (machines[*edge].actor, Arc::clone(consumer));
            Some(Use { edge, consumer, at: at.clone(), version })
        };
        self.0.iter().filter_map(used).collect()
    }
}
