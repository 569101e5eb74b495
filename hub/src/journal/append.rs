//! One group commit. The fence comes first; everything decided is written behind it; the head moves last.

use std::collections::{BTreeMap, BTreeSet};

use llm_config_shared::entry::{HubRow, Status};
use llm_config_shared::name::{EntryKey, Scope};
use llm_config_shared::settled::held_id;
use llm_config_shared::stamp::{ActorId, WriteId};
use llm_config_shared::store::{ChangeRow, Commit, Fence, Frontier, JournalError};

use super::dialect::{Answer, Column, Transact};
use super::failure::corrupt;
use super::{conflicts, encoding, newer, scopes, stubs};

mod statements;

pub(super) type Numbers = BTreeMap<Scope, i64>;

/// What can be seen to be wrong with a commit without a database.
pub(super) fn check(commit: &Commit) -> Answer<()> {
    let before = commit.fence.position.seq;
    let taken: BTreeSet<u64> = commit.history.iter().filter_map(|row| row.seq).collect();
    let given = commit.history.iter().filter(|row| row.seq.is_some()).count();
    let dense = taken.len() == given && (before + 1..=commit.seq).eq(taken.iter().copied());
    if commit.seq < before || !dense {
        return Err(corrupt("a commit whose places are not dense"));
    }
    let places: BTreeSet<u64> = commit.rows.iter().map(|row| row.row.dot.position.seq).collect();
    let epoch = commit.fence.position.epoch;
    let ours = |row: &HubRow| row.row.dot.shard == commit.fence.shard && row.row.dot.position.epoch == epoch;
    if places.len() != commit.rows.len() || !places.is_subset(&taken) || !commit.rows.iter().all(ours) {
        return Err(corrupt("a commit with a row in a place that it did not take"));
    }
    Ok(())
}

pub(super) async fn append<T: Transact>(tx: &mut T, commit: &Commit) -> Answer<()> {
    fence(tx, &commit.fence).await?;
    let numbers = scopes::put(tx, commit).await?;
    put_frontiers(tx, &commit.frontiers).await?;
    put_rows(tx, &numbers, commit).await?;
    raise(tx, &numbers, &commit.raised).await?;
    stubs::change(tx, &numbers, &commit.stubs).await?;
    withdraw(tx, &commit.withdrawn).await?;
    put_history(tx, &numbers, commit).await?;
    supersede(tx, &commit.superseded).await?;
    put_conflicts(tx, &numbers, commit).await?;
    conflicts::settle(tx, &commit.settled).await?;
    put_changes(tx, &commit.changes).await?;
    newer::put(tx, commit).await?;
    put_repeats(tx, commit).await?;
    move_head(tx, commit).await
}

/// Taken first: a process that was paused here finds, when it wakes, that it no longer leads, before it wrote anything.
pub(super) async fn fence<T: Transact>(tx: &mut T, fence: &Fence) -> Answer<()> {
    let shard = fence.shard.0.as_bytes().as_slice();
    let at = fence.position;
    let held = tx.fetch(statements::FENCE, vec![shard.into(), at.epoch.into(), at.seq.into()]).await?;
    if held.is_empty() { Err(JournalError::Fenced) } else { Ok(()) }
}

async fn move_head<T: Transact>(tx: &mut T, commit: &Commit) -> Answer<()> {
    let shard = commit.fence.shard.0.as_bytes().as_slice();
    if let Some(following) = &commit.following {
        let record = encoding::following(following);
        tx.execute(statements::FOLLOWING, vec![shard.into(), record.into()]).await?;
    }
    let moved =
        tx.execute(statements::HEAD, vec![shard.into(), commit.seq.into(), commit.hlc.0.into()]).await?;
    expect("head", 1, moved)
}

/// Aborts the transaction where the database did something else than was planned.
pub(super) fn expect(what: &str, planned: usize, done: u64) -> Answer<()> {
    if done == planned as u64 {
        return Ok(());
    }
    Err(corrupt(format!("of {planned} {what} planned, {done} could be written")))
}

pub(super) fn number(numbers: &Numbers, at: &EntryKey) -> i64 {
    // Every scope of the commit was numbered just before.
    numbers.get(&at.scope).copied().unwrap_or_default()
}

async fn put_rows<T: Transact>(tx: &mut T, numbers: &Numbers, commit: &Commit) -> Answer<()> {
    let mut sorted: Vec<&HubRow> = commit.rows.iter().collect();
    sorted.sort_by(|a, b| a.row.at.cmp(&b.row.at));
    let rows = sorted.as_slice();
    let (kinds, values): (Vec<_>, Vec<_>) =
        rows.iter().map(|row| encoding::content(&row.row.content)).unzip();
    let columns = vec![
        Column::ids(rows.iter().map(|row| number(numbers, &row.row.at))),
        Column::texts(rows.iter().map(|row| row.row.at.key.as_str())),
        Column::blobs(rows.iter().map(|row| row.row.dot.shard.0.as_bytes().as_slice())),
        Column::ints(rows.iter().map(|row| row.row.dot.position.epoch)),
        Column::ints(rows.iter().map(|row| row.row.dot.position.seq)),
        Column::ints(rows.iter().map(|row| row.row.stamp.hlc.0)),
        Column::blobs(rows.iter().map(|row| row.row.stamp.id.actor.0.as_bytes().as_slice())),
        Column::ints(rows.iter().map(|row| row.row.stamp.id.incarnation)),
        Column::ints(rows.iter().map(|row| row.row.stamp.id.counter)),
        Column::ints(rows.iter().map(|row| row.row.version)),
        Column::ints(rows.iter().map(|row| row.top_version)),
        Column::ints(rows.iter().map(|row| row.plain_seq)),
        Column::ints(kinds),
        Column::blobs_or_null(values),
        Column::blobs(rows.iter().map(|row| row.row.content.hash().to_vec())),
        Column::blobs(rows.iter().map(|row| encoding::metadata(&row.row.metadata))),
        Column::blobs(rows.iter().map(|row| row.row.change.0.as_bytes().as_slice())),
        Column::blobs(rows.iter().map(|row| encoding::vector(&row.context))),
        Column::blobs_or_null(rows.iter().map(|row| row.base.as_ref().map(encoding::base))),
        Column::ints(rows.iter().map(|_| commit.admitted_at.0)),
        Column::blobs_or_null(rows.iter().map(|row| row.origin.map(encoding::dot))),
        Column::ints_or_null(rows.iter().map(|row| Some(row.row.content.told()?.expires_at?.0))),
    ];
    expect("entries", rows.len(), tx.execute_each(statements::ENTRY, columns).await?)
}

async fn raise<T: Transact>(tx: &mut T, numbers: &Numbers, raised: &[(EntryKey, u64)]) -> Answer<()> {
    let mut highest: BTreeMap<&EntryKey, u64> = BTreeMap::new();
    for (at, version) in raised {
        let top = highest.entry(at).or_default();
        *top = (*top).max(*version);
    }
    let columns = vec![
        Column::ids(highest.keys().map(|at| number(numbers, at))),
        Column::texts(highest.keys().map(|at| at.key.as_str())),
        Column::ints(highest.values().copied()),
    ];
    expect("raised versions", highest.len(), tx.execute_each(statements::RAISE, columns).await?)
}

async fn put_history<T: Transact>(tx: &mut T, numbers: &Numbers, commit: &Commit) -> Answer<()> {
    let rows = commit.history.as_slice();
    let (kinds, values): (Vec<_>, Vec<_>) = rows.iter().map(|row| encoding::content(&row.content)).unzip();
    let epoch = commit.fence.position.epoch;
    let columns = vec![
        Column::ids(rows.iter().map(|row| number(numbers, &row.at))),
        Column::texts(rows.iter().map(|row| row.at.key.as_str())),
        Column::ints(rows.iter().map(|row| row.version)),
        Column::ints(rows.iter().map(|row| row.stamp.hlc.0)),
        Column::blobs(rows.iter().map(|row| row.stamp.id.actor.0.as_bytes().as_slice())),
        Column::ints(rows.iter().map(|row| row.stamp.id.incarnation)),
        Column::ints(rows.iter().map(|row| row.stamp.id.counter)),
        Column::ints_or_null(rows.iter().map(|row| row.claimed_hlc.map(|hlc| hlc.0))),
        Column::ints(kinds),
        Column::blobs_or_null(values),
        Column::blobs(rows.iter().map(|row| row.content_hash.as_slice())),
        Column::blobs(rows.iter().map(|row| row.author.name.as_bytes())),
        Column::blobs_or_null(rows.iter().map(|row| row.author.claimed.as_ref().map(|text| text.as_bytes()))),
        Column::ints(rows.iter().map(|row| row.created_at.0)),
        Column::blobs_or_null(rows.iter().map(|row| row.message.as_ref().map(|text| text.as_bytes()))),
        Column::texts(rows.iter().map(|row| row.change_type.as_str())),
        Column::blobs(rows.iter().map(|row| row.change.0.as_bytes().as_slice())),
        Column::texts(rows.iter().map(|row| row.status.as_str())),
        Column::blobs_or_null(rows.iter().map(|row| row.reason.as_ref().map(|text| text.as_bytes()))),
        Column::ints_or_null(rows.iter().map(|row| row.seq.map(|_| epoch))),
        Column::ints_or_null(rows.iter().map(|row| row.seq)),
        Column::blobs(rows.iter().map(|row| encoding::vector(&row.context))),
        Column::blobs_or_null(rows.iter().map(|row| row.base.as_ref().map(encoding::base))),
        Column::blobs_or_null(rows.iter().map(|row| {
            // Whoever looks for what waited finds what became of it.
            let waits = row.status == Status::Held || commit.withdrawn.contains(&row.stamp.id);
            waits.then(|| held_id(row.stamp.id).as_bytes().to_vec())
        })),
        Column::blobs_or_null(rows.iter().map(|row| row.origin.map(encoding::dot))),
        Column::blobs_or_null(
            rows.iter().map(|row| row.returned_in.map(|change| change.0.as_bytes().to_vec())),
        ),
    ];
    expect("writes of the history", rows.len(), tx.execute_each(statements::HISTORY, columns).await?)
}

/// Before the history, which has each write once.
async fn withdraw<T: Transact>(tx: &mut T, withdrawn: &[WriteId]) -> Answer<()> {
    let ids: BTreeSet<&WriteId> = withdrawn.iter().collect();
    tx.execute_each(statements::UNCOUNT, write_ids(&ids)).await?;
    expect("writes withdrawn", ids.len(), tx.execute_each(statements::WITHDRAW, write_ids(&ids)).await?)
}

/// After the history, because a write may have lost within its own commit.
async fn supersede<T: Transact>(tx: &mut T, superseded: &[WriteId]) -> Answer<()> {
    let lost: BTreeSet<&WriteId> = superseded.iter().collect();
    expect("writes that lost", lost.len(), tx.execute_each(statements::SUPERSEDE, write_ids(&lost)).await?)
}

fn write_ids<'a>(ids: &BTreeSet<&'a WriteId>) -> Vec<Column<'a>> {
    vec![
        Column::blobs(ids.iter().map(|id| id.actor.0.as_bytes().as_slice())),
        Column::ints(ids.iter().map(|id| id.incarnation)),
        Column::ints(ids.iter().map(|id| id.counter)),
    ]
}

async fn put_conflicts<T: Transact>(tx: &mut T, numbers: &Numbers, commit: &Commit) -> Answer<()> {
    let rows = commit.conflicts.as_slice();
    let columns = vec![
        Column::blobs(rows.iter().map(|row| row.id.as_bytes().as_slice())),
        Column::texts(rows.iter().map(|row| row.at.scope.tenant.as_str())),
        Column::ids(rows.iter().map(|row| number(numbers, &row.at))),
        Column::texts(rows.iter().map(|row| row.at.key.as_str())),
        Column::blobs(rows.iter().map(|row| row.winner.actor.0.as_bytes().as_slice())),
        Column::ints(rows.iter().map(|row| row.winner.incarnation)),
        Column::ints(rows.iter().map(|row| row.winner.counter)),
        Column::blobs(rows.iter().map(|row| row.loser.actor.0.as_bytes().as_slice())),
        Column::ints(rows.iter().map(|row| row.loser.incarnation)),
        Column::ints(rows.iter().map(|row| row.loser.counter)),
        Column::ints(rows.iter().map(|row| row.winner_version)),
        Column::ints(rows.iter().map(|row| row.loser_version)),
        Column::ints(rows.iter().map(|row| row.detected_at.0)),
        Column::ints(rows.iter().map(|_| commit.seq)),
    ];
    expect("conflicts", rows.len(), tx.execute_each(statements::CONFLICT, columns).await?)
}

/// A frontier never goes back, whatever is sent again.
async fn put_frontiers<T: Transact>(tx: &mut T, frontiers: &[Frontier]) -> Answer<()> {
    let mut last: BTreeMap<(ActorId, u64), Frontier> = BTreeMap::new();
    for frontier in frontiers {
        let known = last.entry((frontier.edge, frontier.incarnation)).or_insert(*frontier);
        known.last_counter = known.last_counter.max(frontier.last_counter);
        known.session = known.session.max(frontier.session);
    }
    let columns = vec![
        Column::blobs(last.values().map(|row| row.edge.0.as_bytes().as_slice())),
        Column::ints(last.values().map(|row| row.incarnation)),
        Column::ints(last.values().map(|row| row.last_counter)),
        Column::ints(last.values().map(|row| row.session)),
    ];
    expect("frontiers", last.len(), tx.execute_each(statements::FRONTIER, columns).await?)
}

/// `writes` counts what is added; author, time and message stay those of the first part.
async fn put_changes<T: Transact>(tx: &mut T, changes: &[ChangeRow]) -> Answer<()> {
    let mut merged: Vec<ChangeRow> = Vec::with_capacity(changes.len());
    let mut places = BTreeMap::new();
    for change in changes {
        let place = *places.entry((&change.tenant, change.id)).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(known) => known.writes += change.writes,
            None => merged.push(change.clone()),
        }
    }
    let columns = vec![
        Column::texts(merged.iter().map(|row| row.tenant.as_str())),
        Column::blobs(merged.iter().map(|row| row.id.0.as_bytes().as_slice())),
        Column::ints(merged.iter().map(|row| row.created_at.0)),
        Column::blobs(merged.iter().map(|row| row.author.as_bytes())),
        Column::blobs_or_null(merged.iter().map(|row| row.message.as_ref().map(|text| text.as_bytes()))),
        Column::ints(merged.iter().map(|row| row.writes)),
    ];
    expect("changes", merged.len(), tx.execute_each(statements::CHANGE, columns).await?)
}

async fn put_repeats<T: Transact>(tx: &mut T, commit: &Commit) -> Answer<()> {
    let rows = commit.repeats.as_slice();
    let columns = vec![
        Column::texts(rows.iter().map(|row| row.tenant.as_str())),
        Column::blobs(rows.iter().map(|row| row.change.0.as_bytes().as_slice())),
        Column::ints(rows.iter().map(|row| row.batch)),
        Column::blobs(rows.iter().map(|row| row.request_hash.as_slice())),
        Column::blobs(rows.iter().map(|row| row.answer.as_bytes())),
    ];
    expect("answers kept", rows.len(), tx.execute_each(statements::REPEAT, columns).await?)
}
