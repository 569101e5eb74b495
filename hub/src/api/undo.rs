//! Undoing a change: every entry whose value it is holds again what it held before, as another change.
//!
//! Nobody replaces what they have not seen: where an entry has another value since, nothing is undone, and its caller is
//! told of it. The undoing's id follows from the change, so that who asks again, because an answer was lost or a part was
//! not reached, goes on where it was. What was before comes from the history, which keeps neither tags nor descriptions.

use std::collections::BTreeMap;
use std::sync::Arc;

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::{Answered, Caller};
use llm_config_proto::rest::undo::{ChangeUndone, EntryUndone, UndoOptions};
use llm_config_shared::entry::{Author, ChangeId, Content, HistoryRow, HubRow};
use llm_config_shared::limits::BULK_OPERATIONS_MAX;
use llm_config_shared::name::EntryKey;
use llm_config_shared::replication::admit::{ApiSubmission, OpAction, OpRefused, Operation};
use llm_config_shared::stamp::WriteId;
use llm_config_shared::store::{Journal, Page};
use llm_config_shared::vector::Vector;
use serde_json::json;

use super::write::{not_judged, refusal};
use super::{Api, at_position};
use crate::guard;
use crate::registry::Registry;
use crate::writer::Written;

/// Entries that a refusal names one by one.
const NAMED_MAX: usize = 20;
/// Writes of an entry that are looked at at a time, for what it held before.
const LOOK_BACK: usize = 8;
/// How often it is looked again when somebody wrote between the look and the write.
const TRIES_MAX: usize = 3;

/// Why it was not done, or not to its end.
struct Stopped {
    error: ApiError,
    /// Somebody wrote since it was looked.
    moved: bool,
}

impl<E: Into<ApiError>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self { error: error.into(), moved: false }
    }
}

/// What the change wrote last of an entry, and what the entry holds now.
struct Touched {
    last: HistoryRow,
    current: Option<HubRow>,
}

/// What is to be written to one entry.
struct Step {
    operation: Operation,
    back_to: Option<u64>,
}

/// What was found when it was looked.
struct Look {
    due: Vec<Touched>,
    /// Undone when it was asked before, each with its version now.
    done: Vec<(HistoryRow, u64)>,
    head: Vector,
}

/// The last write of each entry that became its value: nothing else can be undone.
fn last_writes(rows: Vec<HistoryRow>) -> Vec<HistoryRow> {
    let mut entries: BTreeMap<EntryKey, HistoryRow> = BTreeMap::new();
    for row in rows.into_iter().filter(|row| row.seq.is_some()) {
        let later = entries.get(&row.at).is_none_or(|known| known.seq < row.seq);
        if later {
            entries.insert(row.at.clone(), row);
        }
    }
    entries.into_values().collect()
}

impl<S: Journal + Registry> Api<S> {
    pub(super) async fn undo(
        &self,
        caller: &Caller,
        id: ChangeId,
        options: UndoOptions,
    ) -> Result<Answered<ChangeUndone>, ApiError> {
        let (mut tries, mut written) = (1, 0);
        loop {
            let before = written;
            match self.undo_now(caller, id, &options, &mut written).await {
                Ok(undone) => return Ok(undone),
                Err(Stopped { moved: true, .. }) if written > before => tries = 1,
                Err(Stopped { moved: true, .. }) if tries < TRIES_MAX => tries += 1,
                Err(Stopped { error, .. }) => return Err(error),
            }
        }
    }

    /// Looks, and writes what is due; `written` counts that, also where it stopped.
    async fn undo_now(
        &self,
        caller: &Caller,
        id: ChangeId,
        options: &UndoOptions,
        written: &mut usize,
    ) -> Result<Answered<ChangeUndone>, Stopped> {
        let writes = self.writes_to_undo(caller, id).await?;
        let Look { due, done, head } = self.look(writes, id.undoing()).await?;
        let mut steps = Vec::with_capacity(due.len());
        for touched in due {
            steps.extend(self.step(id, touched, done.len()).await?);
        }
        if steps.is_empty() && done.is_empty() {
            let why = "nothing that the change wrote is an entry's value, so there is nothing to undo";
            return Err(ApiError::unprocessable(why).into());
        }
        let (mut entries, position) = self.write_steps(caller, id, steps, options, written).await?;
        if !options.dry_run {
            for (last, version) in done {
                let back_to = self.held_before(&last, id).await?.and_then(|before| live_version(&before));
                entries.push(EntryUndone { at: last.at, version: Some(version), back_to });
            }
            entries.sort_by(|a, b| a.at.cmp(&b.at));
            tracing::info!(caller = %caller.name, change = %id.0, entries = entries.len(), "a change is undone");
        }
        let undone = ChangeUndone { change: id, wrote: id.undoing(), dry_run: options.dry_run, entries };
        let answered = at_position(undone, position.unwrap_or(head));
        Ok(if options.dry_run { answered } else { answered.of_change(id.undoing()) })
    }

    /// What the change wrote last of each entry, for somebody who may see and change all of it.
    async fn writes_to_undo(&self, caller: &Caller, id: ChangeId) -> Result<Vec<HistoryRow>, ApiError> {
        let missing = || ApiError::not_found(format!("there is no change {}", id.0));
        let (_, rows) = self.parts.store.change(&caller.tenant, id).await?.ok_or_else(missing)?;
        let visible = rows.iter().filter(|row| guard::may_read(caller, &row.at).is_ok()).count();
        match visible {
            0 => return Err(missing()),
            all if all == rows.len() => {}
            _ => return Err(ApiError::forbidden("the change wrote entries that you may not see")),
        }
        let writes = last_writes(rows);
        writes.iter().try_for_each(|last| guard::may_write(caller, &last.at.scope.namespace))?;
        Ok(writes)
    }

    /// Which entries still hold what the change wrote, and which were undone when it was asked before.
    async fn look(&self, writes: Vec<HistoryRow>, undoing: ChangeId) -> Result<Look, ApiError> {
        let keys: Vec<EntryKey> = writes.iter().map(|last| last.at.clone()).collect();
        let (mut current, mut head) = (Vec::with_capacity(keys.len()), Vector::EMPTY);
        for keys in keys.chunks(BULK_OPERATIONS_MAX) {
            let read = self.parts.store.entries(keys).await?;
            current.extend(read.value);
            head = read.head;
        }
        let (mut due, mut done, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        for (last, current) in writes.into_iter().zip(current) {
            let newest = match &current {
                Some(row) => Some((row.row.stamp.id, row.row.change, row.row.version)),
                // A deletion was purged: this one, or a later one.
                None => self.newest(&last.at).await?,
            };
            match newest {
                Some((id, ..)) if id == last.stamp.id => due.push(Touched { last, current }),
                Some((_, change, version)) if change == undoing => done.push((last, version)),
                newest => changed.push((last.at, newest.map_or(0, |(_, _, version)| version))),
            }
        }
        match changed.is_empty() {
            true => Ok(Look { due, done, head }),
            false => Err(other_values(&changed, done.len())),
        }
    }

    /// What gives one entry back what it held; none where it came and went within the change.
    async fn step(&self, id: ChangeId, touched: Touched, done: usize) -> Result<Option<Step>, ApiError> {
        let Touched { last, current } = touched;
        let before = self.held_before(&last, id).await?;
        let back_to = before.as_ref().and_then(live_version);
        let action = match before.map(|before| before.content) {
            Some(content) if content.is_purged() => return Err(purged(&last.at, back_to.unwrap_or(0), done)),
            Some(content @ (Content::Plain(_) | Content::Secret(_))) => OpAction::Rollback { content },
            Some(Content::Deleted) | None if !last.content.is_live() => return Ok(None),
            Some(Content::Deleted) | None => OpAction::Delete,
        };
        let live = current.filter(|row| row.row.content.is_live());
        let if_version = Some(live.map_or(0, |row| row.row.version));
        Ok(Some(Step { operation: Operation { at: last.at, action, if_version }, back_to }))
    }

    /// Writes the steps, so many in one transaction as fit, each transaction all or nothing.
    async fn write_steps(
        &self,
        caller: &Caller,
        id: ChangeId,
        steps: Vec<Step>,
        options: &UndoOptions,
        written: &mut usize,
    ) -> Result<(Vec<EntryUndone>, Option<Vector>), Stopped> {
        let (mut entries, mut position) = (Vec::with_capacity(steps.len()), None);
        let mut steps = steps.into_iter().peekable();
        while steps.peek().is_some() {
            let some: Vec<Step> = steps.by_ref().take(BULK_OPERATIONS_MAX).collect();
            match self.write_some(caller, id, some, options).await {
                Ok((done, at)) => {
                    *written += if options.dry_run { 0 } else { done.len() };
                    entries.extend(done);
                    position = Some(at);
                }
                Err(mut stopped) => {
                    if *written > 0 {
                        let told =
                            format!("; {written} entries were undone before that, ask again for the others");
                        stopped.error.message.push_str(&told);
                    }
                    return Err(stopped);
                }
            }
        }
        Ok((entries, position))
    }

    async fn write_some(
        &self,
        caller: &Caller,
        id: ChangeId,
        steps: Vec<Step>,
        options: &UndoOptions,
    ) -> Result<(Vec<EntryUndone>, Vector), Stopped> {
        let places: Vec<(EntryKey, Option<u64>)> =
            steps.iter().map(|step| (step.operation.at.clone(), step.back_to)).collect();
        let told = || Arc::from(format!("undoes change {}", id.0));
        let submission = ApiSubmission {
            tenant: caller.tenant.clone(),
            author: Author { name: caller.name.clone(), claimed: options.claimed_user.clone() },
            change: Some(id.undoing()),
            message: Some(options.message.clone().unwrap_or_else(told)),
            operations: steps.into_iter().map(|step| step.operation).collect(),
            atomic: true,
            dry_run: options.dry_run,
            repeat: None,
        };
        let written = self.parts.writer.write(submission, None).await.map_err(not_judged)?;
        let Written::Now { outcomes, position } = written else {
            unreachable!("a request without a name is not repeated")
        };
        let mut entries = Vec::with_capacity(places.len());
        for ((at, back_to), outcome) in places.into_iter().zip(outcomes) {
            let row = outcome.map_err(|refused| Stopped {
                error: refusal(&at, &refused),
                moved: matches!(refused, OpRefused::VersionMismatch { .. } | OpRefused::NotFound),
            })?;
            let version = (!options.dry_run).then_some(row.row.version);
            entries.push(EntryUndone { at, version, back_to });
        }
        Ok((entries, position))
    }

    /// What the entry held before the change's last write: what other changes wrote, be it between two writes of this one.
    async fn held_before(&self, last: &HistoryRow, id: ChangeId) -> Result<Option<HistoryRow>, ApiError> {
        let other = |row: &HistoryRow| row.change != id && row.returned_in != Some(id);
        self.newest_value(&last.at, |row| row.seq < last.seq && other(row)).await
    }

    /// The write that gave the entry the value that it has, or took it away, with its change and version.
    async fn newest(&self, at: &EntryKey) -> Result<Option<(WriteId, ChangeId, u64)>, ApiError> {
        let newest = self.newest_value(at, |_| true).await?;
        Ok(newest.map(|row| (row.stamp.id, row.change, row.version)))
    }

    /// The newest write of the entry that was its value and is `wanted`.
    async fn newest_value(
        &self,
        at: &EntryKey,
        wanted: impl Fn(&HistoryRow) -> bool,
    ) -> Result<Option<HistoryRow>, ApiError> {
        let mut page = Page { before: None, limit: LOOK_BACK };
        loop {
            let read = self.parts.store.history(at, page).await?.value;
            match read.rows.into_iter().find(|row| row.seq.is_some() && wanted(row)) {
                None if read.next.is_some() => page.before = read.next,
                found => return Ok(found),
            }
        }
    }
}

fn live_version(row: &HistoryRow) -> Option<u64> {
    row.content.is_live().then_some(row.version)
}

fn place(at: &EntryKey) -> String {
    format!("{} in namespace {} and environment {}", at.key, at.scope.namespace, at.scope.environment)
}

/// What a refusal says of what was undone when it was asked before.
fn so_far(done: usize) -> String {
    match done {
        0 => "nothing was undone".to_owned(),
        done => format!("nothing more was undone than the {done} entries of before"),
    }
}

fn purged(at: &EntryKey, version: u64, done: usize) -> ApiError {
    let told = format!(
        "the value that {} held before, version {version}, was purged, so {}; set another one, and bring the others back \
         with rollback",
        place(at),
        so_far(done)
    );
    ApiError::conflict(told).detail("version", version)
}

fn other_values(changed: &[(EntryKey, u64)], done: usize) -> ApiError {
    let name = |(at, version): &(EntryKey, u64)| {
        json!({ "namespace": at.scope.namespace.as_str(), "key": at.key.as_str(),
            "environment": at.scope.environment.as_str(), "current_version": version })
    };
    let named: Vec<_> = changed.iter().take(NAMED_MAX).map(name).collect();
    let first = place(&changed[0].0);
    let who = match changed.len() {
        1 => format!("{first} has"),
        2 => format!("{first} and another entry have"),
        more => format!("{first} and {} other entries have", more - 1),
    };
    let told =
        format!("{who} another value since, so {}; bring single values back with rollback", so_far(done));
    ApiError::conflict(told).detail("entries", named).detail("count", changed.len())
}
