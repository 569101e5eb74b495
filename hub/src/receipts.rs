//! Who has a change and who uses it: worked out from what edges have acknowledged and what they said is in use.

use llm_config_shared::entry::ChangeId;
use llm_config_shared::feed::Environments;
use llm_config_shared::in_use::{self, Receipts, Receiver};
use llm_config_shared::name::{EntryKey, Tenant};
use llm_config_shared::store::{Journal, JournalError};

use crate::registry::{Edge, Registry};
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
    let wrote = in_use::wrote(&rows);
    let environments = store.environments(tenant).await?;
    let edges = store.edges(tenant).await?;
    let entries: Vec<EntryKey> = wrote.iter().map(|write| write.at.clone()).collect();
    let uses = store.uses_of(&entries).await?;
    let receivers = edges.into_iter().map(|edge| receiver(edge, &environments, roster)).collect();
    Ok(Some(in_use::receipts(change, &wrote, receivers, &uses)))
}

fn receiver(edge: Edge, environments: &Environments, roster: &Roster) -> Receiver {
    Receiver {
        edge: edge.id,
        name: edge.name.as_str().into(),
        feeds: edge.binding.feeds(&edge.tenant, &edge.name, environments),
        removed: edge.removed_at.is_some(),
        connected: roster.is_connected(edge.id),
        last_seen_at: edge.last_seen_at,
        acked_seq: edge.acked_seq,
    }
}
