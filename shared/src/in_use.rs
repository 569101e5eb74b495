//! Who has a change and who uses it: worked out from what edges have acknowledged and from what they said is in use.
//!
//! `consumers` is the edge's half: what uses which version on one machine, and what of it is told on.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::entry::{ChangeId, HistoryRow, Status};
use crate::feed::Feed;
use crate::name::EntryKey;
use crate::stamp::ActorId;
use crate::time::UnixMillis;

pub mod consumers;

/// Who has a change and who uses it. Edges that receive nothing of it are not in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipts {
    pub change: ChangeId,
    /// By name.
    pub edges: Vec<EdgeReceipt>,
}

/// What one edge has of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeReceipt {
    pub edge: Arc<str>,
    pub connected: bool,
    pub last_seen_at: Option<UnixMillis>,
    /// All that it receives of the change is on its disk.
    pub delivered: bool,
    /// What uses entries of the change there, whatever the version. Empty: nothing has said that it does.
    pub consumers: Vec<ConsumerReceipt>,
}

/// What one consumer has of a change: the entry of it in which it is furthest behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerReceipt {
    pub consumer: Arc<str>,
    pub at: EntryKey,
    pub wrote: u64,
    pub uses: u64,
}

impl ConsumerReceipt {
    /// Whether it uses what the change wrote, or something newer.
    pub fn is_current(&self) -> bool {
        self.uses >= self.wrote
    }
}

impl EdgeReceipt {
    /// Whether everything that uses entries of the change there uses what it wrote. An edge where nothing does is no
    /// reason to wait.
    pub fn in_use(&self) -> bool {
        self.delivered && self.consumers.iter().all(ConsumerReceipt::is_current)
    }
}

impl Receipts {
    /// Every edge has it.
    pub fn delivered(&self) -> bool {
        self.edges.iter().all(|edge| edge.delivered)
    }

    /// Everything that uses it uses it as the change left it. While nothing uses it anywhere, nothing is proved.
    pub fn in_use(&self) -> bool {
        self.edges.iter().all(EdgeReceipt::in_use) && self.edges.iter().any(|edge| !edge.consumers.is_empty())
    }
}

/// One version in use, as an edge said it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    pub edge: ActorId,
    pub consumer: Arc<str>,
    pub at: EntryKey,
    pub version: u64,
}

/// An edge, as the hub knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    pub edge: ActorId,
    pub name: Arc<str>,
    pub feeds: Vec<Feed>,
    /// It was removed, or lost: nobody waits for it.
    pub removed: bool,
    pub connected: bool,
    pub last_seen_at: Option<UnixMillis>,
    /// How far in this region's order it has everything on its disk.
    pub acked_seq: u64,
}

/// What a change left in an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrote {
    pub at: EntryKey,
    pub version: u64,
    /// Its place in this region's order.
    pub seq: u64,
    pub secret: bool,
    pub deletes: bool,
}

/// The last write of each entry among those of a change, in the order of entries: only what is or was a value is delivered to anybody.
pub fn wrote(rows: &[HistoryRow]) -> Vec<Wrote> {
    let mut last = BTreeMap::new();
    for row in rows.iter().filter(|row| row.status == Status::Applied) {
        let Some(seq) = row.seq else { continue };
        let wrote = Wrote {
            at: row.at.clone(),
            version: row.version,
            seq,
            secret: row.content.is_secret(),
            deletes: !row.content.is_live(),
        };
        last.insert(&row.at, wrote);
    }
    last.into_values().collect()
}

/// What each of the receivers has of a change that wrote this, each entry once and in their order.
pub fn receipts(change: ChangeId, wrote: &[Wrote], receivers: Vec<Receiver>, uses: &[Use]) -> Receipts {
    let mut by_edge: BTreeMap<ActorId, Vec<&Use>> = BTreeMap::new();
    for used in uses {
        by_edge.entry(used.edge).or_default().push(used);
    }
    let there = receivers.into_iter().filter(|receiver| !receiver.removed);
    let receipt = |receiver: Receiver| {
        let received = wrote.iter().filter(|write| receives(&receiver.feeds, write));
        let last = received.map(|write| write.seq).max()?;
        let used = by_edge.get(&receiver.edge).map_or(&[][..], Vec::as_slice);
        Some(EdgeReceipt {
            edge: receiver.name,
            connected: receiver.connected,
            last_seen_at: receiver.last_seen_at,
            delivered: receiver.acked_seq >= last,
            consumers: consumers_of(wrote, used),
        })
    };
    Receipts { change, edges: there.filter_map(receipt).collect() }
}

fn receives(feeds: &[Feed], write: &Wrote) -> bool {
    feeds.iter().any(|feed| feed.contains(&write.at) && (feed.secrets || !write.secret))
}

/// Each consumer once, with the entry in which it is furthest behind. What was deleted keeps its last value where it is
/// used: there is nothing to wait for.
fn consumers_of(wrote: &[Wrote], used: &[&Use]) -> Vec<ConsumerReceipt> {
    let mut worst: BTreeMap<Arc<str>, ConsumerReceipt> = BTreeMap::new();
    for used in used {
        let write = wrote.binary_search_by(|write| write.at.cmp(&used.at)).ok().map(|at| &wrote[at]);
        let Some(write) = write.filter(|write| !write.deletes) else { continue };
        let receipt = ConsumerReceipt {
            consumer: Arc::clone(&used.consumer),
            at: used.at.clone(),
            wrote: write.version,
            uses: used.version,
        };
        let known = worst.entry(Arc::clone(&used.consumer)).or_insert_with(|| receipt.clone());
        if known.is_current() && !receipt.is_current() {
            *known = receipt;
        }
    }
    worst.into_values().collect()
}

#[cfg(test)]
mod tests;
