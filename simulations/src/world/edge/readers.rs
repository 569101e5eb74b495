//! What readers and authors at an edge are shown, and what is known of their writes.

use llm_config_shared::name::EntryKey;
use llm_config_shared::replication::edge::Published;
use llm_config_shared::store::replica::{Batch, Record};
use llm_config_shared::vector::Vector;

use crate::invariants::{Check, Violation, reads, vectors};
use crate::truth::Made;
use crate::view::View;
use crate::world::{SHARD, World};

/// An entry in a line of the trace.
struct Name<'a>(&'a EntryKey);

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let EntryKey { scope, key } = self.0;
        write!(f, "{}:{}/{key}", scope.environment, scope.namespace)
    }
}

impl World {
    /// What readers saw before is still there, or something later.
    pub(super) fn check_readers_after_restart(&mut self, edge: usize) -> Check {
        if self.is_astray(edge) {
            return Ok(());
        }
        let keys: Vec<_> = self.truth.readers[edge].seen.keys().cloned().collect();
        for at in keys {
            self.look(edge, &at)?;
        }
        Ok(())
    }

    /// A write leaves the state machine for the first time: its author has seen what readers see now.
    pub(super) fn note_writes(&mut self, edge: usize, batch: &Batch) -> Check {
        for record in &batch.put {
            let Record::Pending(pending) = record else { continue };
            let write = &pending.write;
            if !std::mem::take(&mut self.edges[edge].expecting) {
                if write.claimed_hlc.is_some() && pending.decided.is_none() && !pending.sent {
                    self.stats.count("restamps");
                }
                continue;
            }
            if self.truth.readers[edge].own.contains(&write.id) && self.truth.writes.contains_key(&write.id) {
                let detail = format!("edge {edge} gave number {} twice", write.id.counter);
                return Err(Violation::new("stamps", detail));
            }
            let name = self.truth.made_at_edge(edge, write, write.action.content().hash());
            if name != write.id {
                self.stats.count("numbers that two copies gave");
            }
            self.edges[edge].numbered.insert(write.id.counter, name);
            self.stats.count("edge writes");
            let durable_at = self.edges[edge].disk.synced() + self.edges[edge].disk.waiting() as u64 + 1;
            self.edges[edge].unsynced.push((durable_at, name));
            let (counter, at) = (write.id.counter, &write.at);
            self.trace.write(self.now, format_args!("edge {edge} writes {counter} {}", Name(at)));
        }
        Ok(())
    }

    pub(super) fn published(&mut self, edge: usize, published: &Published) -> Check {
        let (rows, pending) = (published.rows.len(), published.pending.len());
        self.trace.write(self.now, format_args!("edge {edge} shows {rows} rows, {pending} pending"));
        for (feed, vector) in &published.feeds {
            let (to, environment) = (vector.as_ref().map(|vector| vector.seq(SHARD)), &feed.environment);
            let (top, secrets) = (&feed.subtree, feed.secrets);
            self.trace.write(self.now, format_args!("  {environment} {top:?} {secrets} {to:?}"));
        }
        let before = self.edges[edge].view.clone();
        self.edges[edge].view.apply(published);
        if self.is_astray(edge) {
            // Nothing can be compared, but what they are shown they have seen.
            for (at, row) in published.rows.iter().filter_map(|(at, row)| Some((at, row.as_ref()?))) {
                let id = self.truth.identity(row.stamp.id, row.change);
                self.truth.learn(edge, at, id);
            }
            (self.edges[edge].astray, self.edges[edge].fresh) = (true, false);
            return Ok(());
        }
        // What a relay brought early, the hub of this stream cannot know; it hears of it in the next.
        if !self.is_tampered(edge) {
            self.was_told_what_it_shows(edge);
        }
        let before = if std::mem::take(&mut self.edges[edge].astray) {
            self.comes_back(edge)?;
            View::default()
        } else {
            before
        };
        reads::forget_dropped(&mut self.truth, edge, &before, &self.edges[edge].view);
        let fresh = std::mem::take(&mut self.edges[edge].fresh);
        let wrong = self.check_contents(edge, &before, published, fresh)?;
        if !self.edges[edge].foreign {
            vectors::whole_changes(&self.truth, edge, &self.edges[edge].view)?;
        }
        for (at, row) in published.rows.iter().filter(|(at, _)| !wrong.contains(at)) {
            // Also under an own pending write: what the replica holds, the author of the next write had.
            if let Some(row) = row {
                let name = self.truth.identity(row.stamp.id, row.change);
                self.truth.learn(edge, at, name);
            }
        }
        let touched = published.rows.iter().map(|(at, _)| at);
        let touched = touched.chain(published.pending.iter().map(|(at, _)| at));
        for at in touched.filter(|at| !wrong.contains(*at)) {
            reads::look(&mut self.truth, &self.journal, edge, &self.edges[edge].view, at)?;
        }
        Ok(())
    }

    pub(super) fn was_told_what_it_shows(&mut self, edge: usize) {
        let host = &mut self.edges[edge];
        let places = host.view.feeds.values().flat_map(Vector::iter);
        let seen = places.map(|(_, position)| position.seq).max().unwrap_or(0);
        host.told = host.told.max(seen.min(host.heard));
    }

    pub(super) fn queued(&mut self, edge: usize, counter: u64) {
        let name = self.edges[edge].numbered.get(&counter);
        if let Some(made) = name.and_then(|name| self.truth.writes.get_mut(name)) {
            made.acknowledged = true;
            self.stats.count("edge writes acknowledged");
        }
    }

    /// Writes that were never durable and of which nobody heard have never been.
    pub(super) fn forget_unsynced(&mut self, edge: usize) {
        let synced = self.edges[edge].disk.synced();
        for (durable_at, id) in std::mem::take(&mut self.edges[edge].unsynced) {
            let unheard = |made: &Made| !made.acknowledged && made.status.is_none();
            if durable_at > synced && self.truth.writes.get(&id).is_some_and(unheard) {
                self.truth.writes.remove(&id);
                self.truth.readers[edge].own.remove(&id);
                self.stats.count("edge writes lost before they were queued");
            }
        }
    }
}
