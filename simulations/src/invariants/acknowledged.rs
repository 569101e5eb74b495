//! 4: every write that was acknowledged is in the hub's history, as winner, loser, held or denied; and of what was
//! answered as not done there is nothing.

use std::collections::BTreeSet;

use llm_config_shared::entry::{ChangeId, HistoryRow};
use llm_config_shared::stamp::WriteId;

use super::{Check, Violation};
use crate::truth::Truth;

/// At rest.
///
/// # Errors
/// When a write is missing, or one too many is there.
pub fn all(truth: &Truth, history: &[HistoryRow], by_clients: &[WriteId], undone: &[ChangeId]) -> Check {
    let known: BTreeSet<WriteId> =
        history.iter().map(|row| truth.identity(row.stamp.id, row.change)).collect();
    let lost = |id: &WriteId| Err(Violation::new("acknowledged", format!("{id:?} is lost")));
    for (id, made) in &truth.writes {
        if made.acknowledged && !known.contains(id) {
            return lost(id);
        }
    }
    if let Some(id) = truth.owed.iter().find(|id| !known.contains(id) && !truth.copied.contains(&id.actor)) {
        return Err(Violation::new(
            "brought back",
            format!("{id:?} is lost, and its author's machine had it"),
        ));
    }
    if let Some(id) = by_clients.iter().find(|id| !known.contains(id)) {
        return lost(id);
    }
    let undone: BTreeSet<&ChangeId> = undone.iter().collect();
    // A hub that lost a change may refuse it when it is asked for again, and then an edge brings back what it was before.
    let asked_for = |row: &&HistoryRow| row.returned_in.is_none() && undone.contains(&row.change);
    match history.iter().find(asked_for) {
        Some(row) => Err(Violation::new("acknowledged", format!("{:?} was not to be done", row.change))),
        None => Ok(()),
    }
}
