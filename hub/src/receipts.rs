//! Who has a change and who uses it: worked out from what edges have acknowledged and what they said is in use.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use llm_config_proto::rest::receipts::{ConsumerReceipt, EdgeReceipt, Receipts};
use llm_config_shared::entry::{ChangeId, HistoryRow, Status};
use llm_config_shared::feed::{Environments, Feed};
use llm_config_shared::name::{EntryKey, Tenant};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::{Journal, JournalError};

use crate::registry::{Edge, Registry, Use};
use crate::sync::roster::Roster;

/// Who has a change; none when there is no such one.
///
/// # Errors
/// When the database cannot be used.
pub async fn of_change<S: Journal + Registry>(
    store: &S,
    roster: &Roster,
    tenant: &Tenant,
    change: ChangeId,
) -> Result<Option<Receipts>, JournalError> {
    let Some((_, rows)) = store.change(tenant, change).await? else { return Ok(None) };
    let wrote = wrote(&rows);
    let environments = store.environments(tenant).await?;
    let edges = store.edges(tenant).await?;
    let entries: Vec<EntryKey> = wrote.values().map(|write| write.at.clone()).collect();
    let uses = store.uses_of(&entries).await?;
    let edges = judged(&wrote, edges, &environments, &uses, |edge| roster.is_connected(edge));
    Ok(Some(Receipts { change, edges }))
}

/// What a change left in an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wrote {
    at: EntryKey,
    version: u64,
    /// Its place in this region's order.
    seq: u64,
    secret: bool,
    deletes: bool,
}

/// The last write of each entry: only what is or was a value is delivered to anybody.
fn wrote(rows: &[HistoryRow]) -> BTreeMap<&EntryKey, Wrote> {
    let mut last = BTreeMap::new();
    for row in rows.iter().filter(|row| row.status == Status::Applied) {
        let Some(seq) = row.seq else { continue };
        last.insert(
            &row.at,
            Wrote {
                at: row.at.clone(),
                version: row.version,
                seq,
                secret: row.content.is_secret(),
                deletes: !row.content.is_live(),
            },
        );
    }
    last
}

fn judged(
    wrote: &BTreeMap<&EntryKey, Wrote>,
    edges: Vec<Edge>,
    environments: &Environments,
    uses: &[Use],
    connected: impl Fn(ActorId) -> bool,
) -> Vec<EdgeReceipt> {
    let mut by_edge: HashMap<ActorId, Vec<&Use>> = HashMap::new();
    for used in uses {
        by_edge.entry(used.edge).or_default().push(used);
    }
    let there = edges.into_iter().filter(|edge| edge.removed_at.is_none());
    let receipt = |edge: Edge| {
        let feeds = edge.binding.feeds(&edge.tenant, &edge.name, environments);
        let last = wrote.values().filter(|write| receives(&feeds, write)).map(|write| write.seq).max()?;
        let used = by_edge.get(&edge.id).map_or(&[][..], Vec::as_slice);
        Some(EdgeReceipt {
            edge: edge.name.as_str().into(),
            connected: connected(edge.id),
            last_seen_at: edge.last_seen_at,
            delivered: edge.acked_seq >= last,
            consumers: consumers(wrote, used),
        })
    };
    there.filter_map(receipt).collect()
}

fn receives(feeds: &[Feed], write: &Wrote) -> bool {
    feeds.iter().any(|feed| feed.contains(&write.at) && (feed.secrets || !write.secret))
}

/// Each consumer once, with the entry in which it is furthest behind. What was deleted keeps its last value where it is
/// used: there is nothing to wait for.
fn consumers(wrote: &BTreeMap<&EntryKey, Wrote>, used: &[&Use]) -> Vec<ConsumerReceipt> {
    let mut worst: BTreeMap<Arc<str>, ConsumerReceipt> = BTreeMap::new();
    for used in used {
        let Some(write) = wrote.get(&used.at).filter(|write| !write.deletes) else { continue };
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
