//! What the hub hears of an edge: over a session in order, by file at any time, twice, or never.

use std::collections::BTreeSet;
use std::sync::Arc;

use llm_config_shared::name::EntryKey;
use llm_config_shared::time::Instant;
use rand::RngExt;

use super::super::Secrets;
use super::programs::Told;
use crate::invariants::Check;

/// What an edge says of itself at one moment.
#[derive(Clone)]
pub(super) struct Word {
    edge: usize,
    made_at: u64,
    /// How far its disk has come.
    has: usize,
    /// Others than those who are told of have gone.
    complete: bool,
    told: Vec<Told>,
    /// What really was in use of what the hub was told of, with this word or before.
    uses: Vec<(EntryKey, u64)>,
}

/// A file that the hub has opened, and not yet noted.
pub(super) struct Opened {
    word: Word,
    is_news: bool,
}

/// What the hub knows of an edge, and what is true of the newest word that came.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) last_seen: u64,
    /// As the hub counts it.
    pub(super) acked: usize,
    /// As the newest acknowledgement had it, whichever came last.
    pub(super) has: usize,
    has_at: u64,
    pub(super) complete: bool,
    made_at: u64,
    pub(super) uses: Vec<(EntryKey, u64)>,
    /// Whom it ever told of as lasting.
    lasting: BTreeSet<Arc<str>>,
}

impl Heard {
    /// The versions of an entry that were in use there.
    pub(super) fn of(&self, at: &EntryKey) -> impl Iterator<Item = u64> {
        self.uses.iter().filter(move |(used, _)| used == at).map(|(_, version)| *version)
    }

    fn came(&mut self, word: &Word) {
        let lasting = word.told.iter().filter(|consumer| consumer.lasting);
        self.lasting.extend(lasting.map(|consumer| Arc::clone(&consumer.consumer)));
        if word.made_at >= self.made_at {
            self.made_at = word.made_at;
            // Of what lasts and was told of in an earlier life of the daemon alone, the hub knows what it heard then.
            let names = |name: &Arc<str>| word.told.iter().any(|consumer| consumer.consumer == *name);
            self.complete = word.complete && self.lasting.iter().all(names);
            self.uses.clone_from(&word.uses);
        }
    }
}

impl Secrets {
    /// What the edge would say now. Whoever it tells of, the hub is told of, if this comes.
    fn says_who_uses_what(&mut self, n: usize, by_file: bool) -> Option<Word> {
        let (now, gathers) = (self.now, self.rules.gathering);
        let running = self.rotations.running[n].as_mut()?;
        let told = running.consumers.told();
        // A file may be old when it comes: it never says that others have gone.
        let complete = !by_file && (running.consumers.is_complete(Instant(now)) || !gathers);
        let is_told = |name: &str| told.iter().any(|consumer| &*consumer.consumer == name);
        let known = running.programs.iter().filter(|(name, program)| program.known || is_told(name));
        let uses = known.map(|(_, program)| program.uses.clone()).collect();
        Some(Word { edge: n, made_at: now, has: self.machines[n].disk.has, complete, told, uses })
    }

    fn is_told(&mut self, word: &Word) {
        self.rotations.heard[word.edge].came(word);
        let Some(running) = &mut self.rotations.running[word.edge] else { return };
        for consumer in &word.told {
            if let Some(program) = running.programs.get_mut(&consumer.consumer) {
                // An old file may tell of another that was called so.
                program.known |= consumer.entries.iter().any(|(at, _)| *at == program.uses.0);
            }
        }
    }

    /// A session: new values come, an acknowledgement goes, and a word about who uses what; each may be lost with the rest.
    pub(super) fn meets_the_hub(&mut self, n: usize) -> Check {
        if self.is_lost(n) || self.rotations.running[n].is_none() {
            return Ok(());
        }
        let mut comes = || self.rotations.rng.random_range(0..5) > 0;
        let (delivered, acknowledged, said) = (comes(), comes(), comes());
        // It begins with what the edge has: less than before, where its disk was set back.
        self.hub_hears_what_it_has(n);
        if delivered {
            self.machines[n].disk.has = self.hub.sealed.len();
        }
        if acknowledged {
            self.hub_hears_what_it_has(n);
        }
        if let Some(word) = self.says_who_uses_what(n, false).filter(|_| said) {
            self.rotations.ledger.note(n, word.complete, &word.told);
            self.is_told(&word);
        }
        Ok(())
    }

    fn hub_hears_what_it_has(&mut self, n: usize) {
        let (has, heard) = (self.machines[n].disk.has, &mut self.rotations.heard[n]);
        (heard.last_seen, heard.acked) = (self.now, has);
        (heard.has_at, heard.has) = (self.now, has);
    }

    pub(super) fn file_is_made(&mut self, n: usize) {
        if let Some(word) = self.says_who_uses_what(n, true) {
            self.rotations.files.push(word);
            self.stats.count("files about who uses what");
        }
    }

    /// Somebody brings a file to the hub, perhaps again: it is news unless the edge was heard later.
    pub(super) fn file_is_opened(&mut self) -> Check {
        if self.rotations.files.is_empty() {
            return Ok(());
        }
        let at = self.rotations.rng.random_range(0..self.rotations.files.len());
        let word = self.rotations.files[at].clone();
        if self.is_lost(word.edge) {
            self.stats.count("files of lost edges refused");
            return Ok(());
        }
        let is_news = self.rotations.heard[word.edge].last_seen <= word.made_at;
        self.rotations.opened.push(Opened { word, is_news });
        if self.rotations.rng.random_range(0..2) == 0 { Ok(()) } else { self.file_is_noted() }
    }

    /// The hub comes to the end of a file; the edge may have been heard meanwhile.
    pub(super) fn file_is_noted(&mut self) -> Check {
        let Some(Opened { word, is_news }) = self.rotations.opened.pop() else { return Ok(()) };
        let heard = &mut self.rotations.heard[word.edge];
        let is_news = is_news && (heard.last_seen <= word.made_at || !self.rules.file_order);
        if !is_news || self.hub.edges[word.edge].lost_at.is_some() {
            self.stats.count("files that were no news");
            return Ok(());
        }
        (heard.last_seen, heard.acked) = (word.made_at, word.has);
        if word.made_at >= heard.has_at {
            (heard.has_at, heard.has) = (word.made_at, word.has);
        }
        self.rotations.ledger.note(word.edge, word.complete, &word.told);
        self.is_told(&word);
        Ok(())
    }
}
