//! All held writes of one change, decided as one: mostly what edges brought back after the hub was restored.

use std::collections::BTreeSet;
use std::sync::Arc;

use llm_config_proto::rest::conflicts::{Answer, ChangeDecided, DecideOptions, Undecided as Left};
use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::Caller;
use llm_config_shared::entry::{Author, ChangeId, HistoryRow, Status};
use llm_config_shared::replication::admit::{Decision, SettleSubmission, SettledNow, Terms};
use llm_config_shared::settled::held_id;
use llm_config_shared::store::{Journal, Loss};
use uuid::Uuid;

use super::Api;
use super::conflicts::Undecided;
use super::write::not_judged;
use crate::guard;
use crate::registry::Registry;

/// Decisions that wait for the writer at a time: others get their turn in between.
const AT_ONCE: usize = 200;

impl<S: Journal + Registry> Api<S> {
    /// With `options` they are released, without dropped. One by one in the order of their times, so that asked again it
    /// goes on where it was; what the caller may not write, or what a secret is in the way of, is left and told.
    pub(super) async fn decide_change(
        &self,
        caller: &Caller,
        id: ChangeId,
        options: Option<DecideOptions>,
    ) -> Answer<ChangeDecided> {
        let missing = || ApiError::not_found(format!("there is no change {}", id.0));
        let (_, rows) = self.parts.store.change(&caller.tenant, id).await?.ok_or_else(missing)?;
        let mut rows: Vec<HistoryRow> =
            rows.into_iter().filter(|row| guard::may_read(caller, &row.at).is_ok()).collect();
        if rows.is_empty() {
            return Err(missing());
        }
        rows.sort_by_key(|row| row.stamp);
        let wanted = if options.is_some() { Status::Released } else { Status::Dropped };
        let before = rows.iter().filter(|row| row.status == wanted).count() as u64;
        let mut done = ChangeDecided { change: id, wrote: None, decided: before, undecided: Vec::new() };
        let wrote = ChangeId(Uuid::now_v7());
        let losses = self.changes_of_losses().await?;
        rows.retain(|row| row.status == Status::Held);
        for rows in rows.chunks(AT_ONCE) {
            let (mut mine, mut submissions) = (Vec::new(), Vec::new());
            for row in rows {
                match guard::may_write(caller, &row.at.scope.namespace) {
                    Ok(()) => {
                        submissions.push(submission(
                            caller,
                            row,
                            wrote,
                            losses.contains(&row.found_in()),
                            options.as_ref(),
                        ));
                        mine.push(row);
                    }
                    Err(error) => done.undecided.push(left(row, &error)),
                }
            }
            let outcomes = self.parts.writer.settle_all(submissions).await;
            for (row, outcome) in mine.into_iter().zip(outcomes) {
                let outcome = outcome.map_err(not_judged)?;
                match outcome.map_err(|refused| Undecided::Refused(refused).about_held(row)) {
                    Ok(now) => count(&mut done, &now, wrote),
                    Err(error) => done.undecided.push(left(row, &error)),
                }
            }
        }
        let (decided, left) = (done.decided - before, done.undecided.len());
        let how = if options.is_some() { "released" } else { "dropped" };
        metrics::counter!("conflict_decisions_total", "decision" => how).increment(decided);
        tracing::info!(caller = %caller.name, change = %id.0, how, decided, left, "a person decided about a change");
        Ok(done)
    }

    /// The changes of what edges brought back after each loss: there the time of each write says where it belongs.
    pub(super) async fn changes_of_losses(&self) -> Result<BTreeSet<ChangeId>, ApiError> {
        Ok(self.parts.store.losses().await?.iter().map(Loss::change).collect())
    }
}

fn submission(
    caller: &Caller,
    row: &HistoryRow,
    change: ChangeId,
    by_its_time: bool,
    options: Option<&DecideOptions>,
) -> SettleSubmission {
    let held = row.stamp.id;
    let decision = match options {
        Some(options) => {
            let terms = Terms { if_version: None, over_secret: options.over_secret };
            Decision::Release { held, terms, by_its_time, secret: row.content.is_secret() }
        }
        None => Decision::Drop { held },
    };
    let told = || Arc::from(format!("releases what was held in change {}", row.found_in().0));
    SettleSubmission {
        at: row.at.clone(),
        author: Author {
            name: Arc::clone(&caller.name),
            claimed: options.and_then(|options| options.claimed_user.clone()),
        },
        change,
        message: Some(options.and_then(|options| options.message.clone()).unwrap_or_else(told)),
        decision,
    }
}

fn count(done: &mut ChangeDecided, now: &SettledNow, wrote: ChangeId) {
    done.decided += 1;
    if now.settled.wrote.as_ref().is_some_and(|(change, _)| *change == wrote) {
        done.wrote = Some(wrote);
    }
}

fn left(row: &HistoryRow, error: &ApiError) -> Left {
    Left { id: held_id(row.stamp.id), at: row.at.clone(), why: error.message.clone() }
}
