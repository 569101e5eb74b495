//! Undoing a change: every entry whose value it is holds again what it held before, as another change.
//!
//! Nobody replaces what they have not seen: where an entry has another value since, nothing is undone, and its caller is
//! told of it. The undoing's id follows from the change, so that who asks again, because an answer was lost or a part was
//! not reached, goes on where it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::{Answered, Caller};
use llm_config_proto::rest::undo::{ChangeUndone, EntryUndone, UndoOptions};
use llm_config_shared::entry::{Author, ChangeId, Content, HistoryRow, HubRow};
use llm_config_shared::limits::BULK_OPERATIONS_MAX;
use llm_config_shared::name::EntryKey;
use llm_config_shared::replication::admit::{ApiSubmission, OpAction, Operation};
use llm_config_shared::store::{Journal, Page};
use llm_config_shared::vector::Vector;
use serde_json::json;

use super::read::purged;
use super::write::{not_judged, refusal};
use super::{Api, at_position};
use crate::guard;
use crate::registry::Registry;
use crate::writer::Written;

/// Entries that a refusal names one by one.
const NAMED_MAX: usize = 20;
/// Writes of an entry that are looked at at a time, for what it held before.
const LOOK_BACK: usize = 50;

/// What a change did to one entry.
struct Touched {
    /// The place of its first write in the order.
    first: u64,
    /// Its last write.
    last: HistoryRow,
}

impl Touched {
    /// What `if_version` says of an entry whose value is the change's.
    fn version(&self) -> u64 {
        if self.last.content.is_live() { self.last.version } else { 0 }
    }

    /// Whether the entry holds what the change wrote last. A deletion may have been purged.
    fn is_current(&self, current: Option<&HubRow>) -> bool {
        let deleted = || !self.last.content.is_live();
        current.map_or_else(deleted, |row| row.row.stamp.id == self.last.stamp.id)
    }
}

/// What the change wrote, by entry: only what became its value can be undone.
fn touched(rows: Vec<HistoryRow>) -> BTreeMap<EntryKey, Touched> {
    let mut entries: BTreeMap<EntryKey, Touched> = BTreeMap::new();
    for row in rows {
        let Some(seq) = row.seq else { continue };
        let entry = entries.entry(row.at.clone());
        let known = entry.or_insert_with(|| Touched { first: seq, last: row.clone() });
        known.first = known.first.min(seq);
        if known.last.seq < Some(seq) {
            known.last = row;
        }
    }
    entries
}

impl<S: Journal + Registry> Api<S> {
    pub(super) async fn undo(
        &self,
        caller: &Caller,
        id: ChangeId,
        options: UndoOptions,
    ) -> Result<Answered<ChangeUndone>, ApiError> {
        let missing = || ApiError::not_found(format!("there is no change {}", id.0));
        let (_, rows) = self.parts.store.change(&caller.tenant, id).await?.ok_or_else(missing)?;
        if !rows.iter().any(|row| guard::may_read(caller, &row.at).is_ok()) {
            return Err(missing());
        }
        let touched: Vec<_> = touched(rows).into_iter().collect();
        touched.iter().try_for_each(|(at, _)| guard::may_write(caller, &at.scope.namespace))?;
        if touched.is_empty() {
            let why = "nothing that the change wrote became an entry's value, so there is nothing to undo";
            return Err(ApiError::unprocessable(why));
        }
        let wrote = id.undoing();
        let (due, mut entries) = self.still_there(touched, wrote).await?;
        let mut position = None;
        for due in due.chunks(BULK_OPERATIONS_MAX) {
            let (written, at) = self.undo_some(caller, (id, due), &options).await?;
            entries.extend(written);
            position = at.or(position);
        }
        entries.sort_by(|a, b| a.at.cmp(&b.at));
        tracing::info!(caller = %caller.name, change = %id.0, entries = entries.len(), dry_run = options.dry_run,
            "a change is undone");
        let undone = ChangeUndone { change: id, wrote, dry_run: options.dry_run, entries };
        Ok(match position {
            Some(position) if !options.dry_run => at_position(undone, position).of_change(wrote),
            Some(_) | None => Answered::new(undone),
        })
    }

    /// Which entries still hold what the change wrote, and which were undone when it was asked before.
    async fn still_there(
        &self,
        touched: Vec<(EntryKey, Touched)>,
        undoing: ChangeId,
    ) -> Result<(Vec<(EntryKey, Touched)>, Vec<EntryUndone>), ApiError> {
        let keys: Vec<EntryKey> = touched.iter().map(|(at, _)| at.clone()).collect();
        let mut current = Vec::with_capacity(keys.len());
        for keys in keys.chunks(BULK_OPERATIONS_MAX) {
            current.extend(self.parts.store.entries(keys).await?.value);
        }
        let (mut due, mut done, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        for ((at, entry), row) in touched.into_iter().zip(current) {
            match row {
                row if entry.is_current(row.as_ref()) => due.push((at, entry)),
                Some(row) if row.row.change == undoing => {
                    let before = self.held_before(&at, entry.first).await?;
                    done.push(undone(&at, Some(row.row.version), before.as_ref()));
                }
                row => changed.push((at, row.map_or(0, |row| row.row.version))),
            }
        }
        if changed.is_empty() { Ok((due, done)) } else { Err(other_values(&changed)) }
    }

    /// Undoes what fits into one transaction, all or nothing.
    async fn undo_some(
        &self,
        caller: &Caller,
        (id, due): (ChangeId, &[(EntryKey, Touched)]),
        options: &UndoOptions,
    ) -> Result<(Vec<EntryUndone>, Option<Vector>), ApiError> {
        let (mut operations, mut back) = (Vec::new(), Vec::new());
        for (at, entry) in due {
            let before = self.held_before(at, entry.first).await?;
            let action = match before.as_ref().map(|before| before.content.clone()) {
                Some(content @ (Content::Plain(_) | Content::Secret(_))) => OpAction::Rollback { content },
                // It came and went within the change.
                Some(Content::Deleted) | None if !entry.last.content.is_live() => continue,
                Some(Content::Deleted) | None => OpAction::Delete,
            };
            operations.push(Operation { at: at.clone(), action, if_version: Some(entry.version()) });
            back.push(before);
        }
        if operations.is_empty() {
            return Ok((Vec::new(), None));
        }
        let places: Vec<EntryKey> = operations.iter().map(|operation| operation.at.clone()).collect();
        let told = || Arc::from(format!("undoes change {}", id.0));
        let submission = ApiSubmission {
            tenant: caller.tenant.clone(),
            author: Author { name: caller.name.clone(), claimed: options.claimed_user.clone() },
            change: Some(id.undoing()),
            message: Some(options.message.clone().unwrap_or_else(told)),
            operations,
            atomic: true,
            dry_run: options.dry_run,
            repeat: None,
        };
        let written = self.parts.writer.write(submission, None).await.map_err(not_judged)?;
        let Written::Now { outcomes, position } = written else {
            unreachable!("a request without a name is not repeated")
        };
        let mut entries = Vec::with_capacity(places.len());
        for ((at, before), outcome) in places.iter().zip(&back).zip(outcomes) {
            let row = outcome.map_err(|refused| refusal(at, &refused))?;
            let version = (!options.dry_run).then_some(row.row.version);
            entries.push(undone(at, version, before.as_ref()));
        }
        Ok((entries, Some(position)))
    }

    /// What an entry held just before this place of the order.
    async fn held_before(&self, at: &EntryKey, place: u64) -> Result<Option<HistoryRow>, ApiError> {
        let mut page = Page { before: None, limit: LOOK_BACK };
        loop {
            let read = self.parts.store.history(at, page).await?.value;
            let earlier = |row: &HistoryRow| row.seq.is_some_and(|seq| seq < place);
            match read.rows.into_iter().find(earlier) {
                Some(row) if row.content.is_purged() => return Err(purged(at, row.version)),
                Some(row) => return Ok(Some(row)),
                None if read.next.is_none() => return Ok(None),
                None => page.before = read.next,
            }
        }
    }
}

fn undone(at: &EntryKey, version: Option<u64>, before: Option<&HistoryRow>) -> EntryUndone {
    let back_to = before.filter(|before| before.content.is_live()).map(|before| before.version);
    EntryUndone { at: at.clone(), version, back_to }
}

fn other_values(changed: &[(EntryKey, u64)]) -> ApiError {
    let name = |(at, version): &(EntryKey, u64)| {
        json!({ "namespace": at.scope.namespace.as_str(), "key": at.key.as_str(),
            "environment": at.scope.environment.as_str(), "current_version": version })
    };
    let named: Vec<_> = changed.iter().take(NAMED_MAX).map(name).collect();
    let (first, _) = &changed[0];
    let entry = format!("{} in namespace {} ({})", first.key, first.scope.namespace, first.scope.environment);
    let who = match changed.len() {
        1 => format!("{entry} has"),
        2 => format!("{entry} and another entry have"),
        more => format!("{entry} and {} other entries have", more - 1),
    };
    ApiError::conflict(format!(
        "{who} another value since, so nothing was undone; bring single values back with rollback"
    ))
    .detail("entries", named)
    .detail("count", changed.len())
}
