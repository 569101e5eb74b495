//! Who writes what: people at edges, online or not, and clients of the hub's API.

use llm_config_shared::entry::{Author, ChangeId};
use llm_config_shared::name::EntryKey;
use llm_config_shared::replication::edge::{Input, LocalWrite};
use llm_config_shared::replication::frame::Request;
use llm_config_shared::store::Journal;
use llm_config_shared::value::Value;
use llm_config_shared::write::Action;
use rand::RngExt;
use uuid::Uuid;

use super::clients::Wish;
use super::{World, places};
use crate::invariants::{Check, reads};
use crate::journal::ready;

impl World {
    /// A value that was never written before; now and then a long one.
    fn value(&mut self) -> Value {
        self.last_value += 1;
        let padding =
            if self.rng.random_range(0..25) == 0 { "lorem ipsum ".repeat(120) } else { String::new() };
        if self.rng.random_range(0..3) == 0 {
            return Value::string(&format!("value {} {padding}", self.last_value))
                .expect("far below the limit");
        }
        // Objects alike but for a member or two: what later ones change of them travels as patches.
        let (number, lever) = (self.last_value, self.rng.random_range(0..4));
        let text = format!(
            r#"{{"always":"the same text in every one of them, long enough to be worth a patch","n":{number},"of {lever}":true}}"#
        );
        Value::parse(&text).expect("an object of three members")
    }

    /// Somebody at a random edge writes once or a few times.
    pub(super) fn edge_writes(&mut self) -> Check {
        let edge = self.rng.random_range(0..self.edges.len());
        let times = if self.rng.random_range(0..6) == 0 { self.rng.random_range(2..6) } else { 1 };
        for _ in 0..times {
            let at = self.entry_for(edge);
            self.edge_writes_at(edge, at)?;
        }
        Ok(())
    }

    /// Mostly something that readers there see, so that writes follow reads.
    fn entry_for(&mut self, edge: usize) -> EntryKey {
        let rows = &self.edges[edge].view.rows;
        if !rows.is_empty() && self.rng.random_range(0..100) < 35 {
            let newest = rows.iter().max_by_key(|(_, row)| row.dot.position.seq).map(|(at, _)| at.clone());
            if let Some(at) = newest {
                return at;
            }
        }
        places::random_entry(&mut self.rng)
    }

    pub(super) fn edge_writes_at(&mut self, edge: usize, at: EntryKey) -> Check {
        if self.edges[edge].replica.is_none() {
            return Ok(());
        }
        if !self.is_astray(edge) {
            self.look(edge, &at)?;
        }
        let (view, rotten) = (&self.edges[edge].view, self.edges[edge].rotten.contains(&at));
        // Of an edge that is astray perhaps only other feeds are.
        if !rotten && !view.feed_of(&at).is_some_and(|(_, vector)| self.is_in_what_is_lost(vector)) {
            reads::know(&mut self.truth, &self.journal, edge, view, &at);
        }
        let action = if self.rng.random_range(0..100) < 25 {
            Action::Delete
        } else {
            Action::Set { value: self.value(), tags: None, description: None }
        };
        self.last_value += 1;
        let local = LocalWrite {
            ticket: self.last_value,
            at,
            action,
            author: Author { name: "edge:e/uid:0".into(), claimed: None },
            message: None,
            change: ChangeId(Uuid::from_u128(u128::from(self.last_value))),
        };
        self.edges[edge].expecting = true;
        let result = self.edge_input(edge, Input::Write(local));
        self.edges[edge].expecting = false;
        result
    }

    pub(super) fn edge_asks(&mut self) -> Check {
        let edge = self.rng.random_range(0..self.edges.len());
        let request = Request {
            method: "GET".into(),
            target: "/api/v1/configs".into(),
            body: bytes::Bytes::new(),
            caller: "uid:0".into(),
        };
        match self.rng.random_range(0..4) {
            0 => self.edge_input(edge, Input::Ask),
            1 => self.edge_input(edge, Input::Call { ticket: 1, request }),
            _ => self.edge_input(edge, Input::ConnectNow),
        }
    }

    /// A client sends one operation, an import, or several that have to be whole.
    pub(super) fn client_writes(&mut self) -> Check {
        let (count, atomic) = match self.rng.random_range(0..100) {
            0..60 => (1, false),
            60..88 => (self.rng.random_range(2..5), true),
            88..97 => (self.rng.random_range(2..6), false),
            _ => (self.rng.random_range(12..30), false),
        };
        let mut operations = Vec::with_capacity(count);
        for n in 0..count {
            let at = if count >= 12 {
                places::entry("base", "app/llm", &format!("import-{n}"))
            } else {
                places::random_entry(&mut self.rng)
            };
            if operations.iter().all(|(other, _, _): &(EntryKey, Wish, Option<u64>)| *other != at) {
                let wish = self.wish(&at);
                let if_version = self.if_version(&at);
                operations.push((at, wish, if_version));
            }
        }
        let dry_run = self.rng.random_range(0..30) == 0;
        self.request(operations, atomic, dry_run)
    }

    fn wish(&mut self, at: &EntryKey) -> Wish {
        match self.rng.random_range(0..100) {
            0..60 => {
                let over_secret = self.rng.random_range(0..2) == 0;
                Wish::Set(self.value(), over_secret)
            }
            60..72 => {
                self.last_value += 1;
                Wish::Secret(format!("secret {}", self.last_value))
            }
            72..90 => Wish::Delete,
            _ => match self.earlier_version(at) {
                Some(content) => Wish::Restore(content),
                None => Wish::Set(self.value(), true),
            },
        }
    }

    fn earlier_version(&mut self, at: &EntryKey) -> Option<llm_config_shared::entry::Content> {
        let version = self.rng.random_range(1..6);
        ready(self.journal.version(at, version)).ok().flatten().map(|row| row.content)
    }

    /// Sometimes the client says which version it has seen; sometimes that is wrong.
    fn if_version(&mut self, at: &EntryKey) -> Option<u64> {
        if self.rng.random_range(0..100) >= 25 {
            return None;
        }
        let row = ready(self.journal.entries(std::slice::from_ref(at))).ok()?.value.pop().flatten();
        let live = row.filter(|row| row.row.content.is_live());
        let version = live.map_or(0, |row| row.row.version);
        Some(if self.rng.random_range(0..5) == 0 { version + 1 } else { version })
    }
}
