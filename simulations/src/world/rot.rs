//! A disk that rots: while an edge is down, one of its rows is lost, changed, set back, or doubled under another name.
//!
//! Readers may be shown that until the edge meets a hub. From then on its feed does not move before it is again what the
//! hub has there.

use std::collections::BTreeSet;
use std::sync::Arc;

use llm_config_shared::entry::{Content, HubRow, Row};
use llm_config_shared::feed::Feed;
use llm_config_shared::name::{EntryKey, Key};
use llm_config_shared::replication::edge::{Input, Published};
use llm_config_shared::store::replica::{Record, ReplicaStore as _, Slot};
use llm_config_shared::value::Value;
use rand::RngExt;

use super::World;
use crate::invariants::{Check, Violation, reads, replays, vectors};
use crate::view::View;

impl World {
    /// A disk rots while its edge runs, and is read again. What memory holds is written anew.
    pub(super) fn rots_and_is_reread(&mut self) -> Check {
        let edge = self.rng.random_range(0..self.edges.len());
        let host = &self.edges[edge];
        if !self.rots || host.replica.is_none() || host.disk.waiting() > 0 || host.heard_at >= self.now {
            return Ok(());
        }
        let rotten = host.rotten.clone();
        let Some((at, before)) = self.rot(edge) else { return Ok(()) };
        let records = self.edges[edge].disk.load().expect("the simulator's disk can be read");
        self.edge_input(edge, Input::Reread(records))?;
        let host = &mut self.edges[edge];
        if host.disk.waiting() == 0 {
            // In the middle of a switch, or a row that nobody reads yet: as if nothing had been.
            host.disk.rot(Slot::Row(at), before);
            host.rotten = rotten;
        }
        Ok(())
    }

    /// Gives the entry that rotted, and what was on the disk.
    pub(super) fn rot(&mut self, edge: usize) -> Option<(EntryKey, Option<Record>)> {
        let rows: Vec<Arc<Row>> = self.edges[edge].disk.records().filter_map(row).collect();
        if rows.is_empty() {
            return None;
        }
        let row = rows[self.rng.random_range(0..rows.len())].clone();
        let (at, becomes) = match self.rng.random_range(0..4) {
            0 => (row.at.clone(), None),
            1 => {
                let value = Value::string("rotten").expect("a short text");
                (row.at.clone(), Some(Row { content: Content::Plain(value), ..(*row).clone() }))
            }
            2 => (row.at.clone(), self.before(&row)),
            _ => {
                let mut double = (*row).clone();
                double.at.key = Key::parse("double").expect("a literal name");
                (double.at.clone(), Some(double))
            }
        };
        self.stats.count("rows that rotted");
        self.trace.write(self.now, format_args!("edge {edge}: {} of {} rots", at.key, at.scope.namespace));
        let host = &mut self.edges[edge];
        let before = host.disk.rot(Slot::Row(at.clone()), becomes.map(|row| Record::Row(Arc::new(row))));
        host.rotten.insert(at.clone());
        Some((at, before))
    }

    /// What the row replaced, if readers saw that.
    fn before(&self, row: &Row) -> Option<Row> {
        let before = self.journal.row_at(&row.at, row.dot.position.seq - 1)?;
        matches!(before.row.content, Content::Plain(_)).then_some(before.row)
    }

    /// What a feed shows when it moves is what the hub has there. What rotted is excused at a start, and changes without
    /// news when it is put right. Gives the entries that may still be wrong.
    pub(super) fn check_contents(
        &mut self,
        edge: usize,
        before: &View,
        published: &Published,
        fresh: bool,
    ) -> Result<BTreeSet<EntryKey>, Violation> {
        let host = &self.edges[edge];
        if fresh {
            vectors::never_ahead(&self.journal, edge, before, &self.healed(edge), published)?;
            let rotten = self.edges[edge].rotten.clone();
            for at in &rotten {
                self.look(edge, at)?;
            }
            return Ok(rotten);
        }
        vectors::never_ahead(&self.journal, edge, before, &host.view, published)?;
        let mut news = published.clone();
        news.rows.retain(|(at, _)| !host.rotten.contains(at));
        replays::only_news(&self.journal, edge, before, &host.view, &news)?;
        let compared = |at: &EntryKey| published.feeds.iter().any(|(feed, _)| feed.contains(at));
        let wrong = host.rotten.iter().filter(|at| !compared(at)).cloned().collect();
        // What is being written anew may still be lost in a power cut.
        if host.disk.waiting() == 0 {
            self.edges[edge].rotten.retain(|at| !compared(at));
        }
        Ok(wrong)
    }

    /// A reader looks at a key. Where that rotted, the feed has come so far all the same that it counts as seen.
    pub(super) fn look(&mut self, edge: usize, at: &EntryKey) -> Check {
        let host = &self.edges[edge];
        if !host.rotten.contains(at) {
            return reads::look(&mut self.truth, &self.journal, edge, &host.view, at);
        }
        if let Some((feed, row)) = self.as_the_hub_has_it(&host.view, at)
            && (feed.secrets || row.plain_seq > 0)
        {
            let name = self.truth.identity(row.row.stamp.id, row.row.change);
            self.truth.learn(edge, at, name);
        }
        Ok(())
    }

    fn as_the_hub_has_it<'a>(&self, view: &'a View, at: &EntryKey) -> Option<(&'a Feed, HubRow)> {
        let (feed, vector) = view.feed_of(at)?;
        let place = vector.iter().map(|(_, position)| position.seq).max().unwrap_or(0);
        Some((feed, self.journal.row_at(at, place)?))
    }

    /// The edge's view as it would be if nothing had rotted.
    fn healed(&self, edge: usize) -> View {
        let host = &self.edges[edge];
        let mut view = host.view.clone();
        for at in &host.rotten {
            let there = self.as_the_hub_has_it(&host.view, at);
            let shown = there.filter(|(feed, row)| match row.row.content {
                Content::Plain(_) => true,
                Content::Secret(_) => feed.secrets,
                Content::Deleted => false,
            });
            match shown {
                Some((_, row)) => drop(view.rows.insert(at.clone(), Arc::new(row.row))),
                None => drop(view.rows.remove(at)),
            }
        }
        view
    }
}

fn row(record: &Record) -> Option<Arc<Row>> {
    match record {
        Record::Row(row) => Some(row.clone()),
        Record::Staged(_)
        | Record::Stage(..)
        | Record::Feed(..)
        | Record::Pending(_)
        | Record::Kept(_)
        | Record::Grant(_)
        | Record::State(_) => None,
    }
}
