//! Links heal, everybody reads everybody, and what is left must be the same everywhere.

use std::collections::BTreeSet;

use llm_config_shared::entry::{ChangeId, Row};
use llm_config_shared::name::EntryKey;
use llm_config_shared::stamp::Hlc;
use llm_config_shared::store::Journal;

use super::{Regions, places};
use crate::invariants::{Check, Violation};
use crate::journal::ready;

/// After so many rounds nothing may be left to read.
const ROUNDS_MAX: usize = 40;

/// What regions agree on. The name of a write is not: of two that copies of a replica made under one, the second that a
/// region hears of gets another there.
fn which(row: &Row) -> (EntryKey, Hlc, ChangeId) {
    (row.at.clone(), row.stamp.hlc, row.change)
}

impl Regions {
    pub(super) fn come_to_rest(&mut self) -> Check {
        self.cut.clear();
        // Whatever was ahead of somebody's clock is not any more.
        self.now += 10_000;
        self.read_everything()?;
        for edge in 0..self.edges.len() {
            self.comes_home(edge)?;
        }
        self.read_everything()?;
        for edge in 0..self.edges.len() {
            self.comes_home(edge)?;
        }
        self.nothing_is_lost()?;
        self.all_are_equal()
    }

    fn read_everything(&mut self) -> Check {
        for _ in 0..ROUNDS_MAX {
            let mut quiet = true;
            for reader in 0..self.sites.len() {
                for read in (0..self.sites.len()).filter(|read| *read != reader) {
                    quiet &= !self.follow(reader, read, 50)?;
                }
            }
            if quiet {
                return Ok(());
            }
        }
        Err(Violation::new("liveness", "regions never cease to read one another".into()))
    }

    /// To the region where it was last, or any other that takes it: time passes between attempts.
    fn comes_home(&mut self, edge: usize) -> Check {
        for attempt in 0..6 {
            let site = (self.edges[edge].home + attempt / 2) % self.sites.len();
            self.now += 2_000;
            self.visit(edge, site, u32::MAX)?;
            self.now += 2_000;
            if self.is_served(edge, site) {
                break;
            }
        }
        Ok(())
    }

    fn is_served(&self, edge: usize, site: usize) -> bool {
        let rows = self.rows(site);
        let edge = &self.edges[edge];
        let feeds = places::feeds(edge.who);
        let shown = edge.view.rows.values().map(|row| which(row));
        let there = rows.values().filter(|row| places::is_received(&feeds, row));
        edge.replica.pending() == 0 && shown.eq(there.map(which))
    }

    /// Whole leaderships of two regions are gone that the edge was told of. Neither can say anything of the other's, and the
    /// edge says that it has seen more than there is.
    fn saw_what_two_have_lost(&mut self, edge: usize) -> bool {
        let heads = self.sites.iter().map(|site| ready(site.journal.head()).expect("it was led"));
        let gone = heads.filter(|head| {
            let told = self.edges[edge].floor.get(head.shard);
            told.is_some_and(|told| told.seq > 0 && head.own_epochs().ordinal(told.epoch).is_none())
        });
        let stuck = gone.count() > 1;
        self.stats.add("edges that saw what two regions have lost", u64::from(stuck));
        stuck
    }

    fn nothing_is_lost(&self) -> Check {
        for (n, site) in self.sites.iter().enumerate() {
            let history: BTreeSet<ChangeId> =
                site.journal.whole_history().iter().map(|row| row.change).collect();
            if let Some(lost) = self.past.admitted.iter().find(|id| !history.contains(id)) {
                return Err(Violation::new("acknowledged", format!("region {n} never heard of {lost:?}")));
            }
        }
        Ok(())
    }

    fn all_are_equal(&mut self) -> Check {
        let first = self.rows(0);
        for site in 1..self.sites.len() {
            let rows = self.rows(site);
            for at in first.keys().chain(rows.keys()) {
                let (here, there) = (first.get(at).map(which), rows.get(at).map(which));
                if here != there {
                    let detail = format!("regions 0 and {site} differ in {}: {here:?}, {there:?}", at.key);
                    return Err(Violation::new("convergence", detail));
                }
            }
        }
        for (at, row) in &first {
            self.past.no_zombie(at, row.change)?;
        }
        for n in 0..self.edges.len() {
            if !self.is_served(n, 0) && !self.saw_what_two_have_lost(n) {
                let pending = self.edges[n].replica.pending();
                return Err(Violation::new("convergence", format!("edge {n} differs, {pending} pending")));
            }
        }
        Ok(())
    }
}
