//! Conflicts and held writes: what each side was, and what people decide about them.

use std::sync::Arc;

use llm_config_proto::rest::conflicts::{
    Answer, ChangeDecided, ConflictDetail, ConflictInfo, ConflictService, DecideOptions, HadSeen, HeldDetail,
    HeldInfo, PolicyInfo, Side, Site,
};
use llm_config_proto::rest::error::{ApiError, ErrorKind};
use llm_config_proto::rest::service::{Answered, Caller};
use llm_config_proto::rest::undo::{ChangeUndone, UndoOptions};
use llm_config_shared::entry::{Author, ChangeId, HistoryRow};
use llm_config_shared::name::{EntryKey, Namespace};
use llm_config_shared::policy::ConflictPolicy;
use llm_config_shared::replication::admit::{
    Decision, OpRefused, SettleRefused, SettleSubmission, SettledNow, Terms,
};
use llm_config_shared::settled::{ConflictState, Settled, held_id};
use llm_config_shared::store::{Conflict, Journal, JournalError, Page, Paged};
use llm_config_shared::vector::Vector;
use uuid::Uuid;

use super::Api;
use super::write::{not_judged, refusal};
use crate::guard;
use crate::registry::Registry;

impl<S: Journal + Registry> ConflictService for Api<S> {
    async fn conflicts(
        &self,
        caller: &Caller,
        state: Option<ConflictState>,
        page: Page,
    ) -> Answer<Paged<ConflictInfo>> {
        guard::may_read_all(caller)?;
        let conflicts = self.parts.store.conflicts(&caller.tenant, state, page).await?;
        let mut rows = Vec::with_capacity(conflicts.rows.len());
        for conflict in conflicts.rows {
            rows.push(self.told_conflict(caller, conflict).await?);
        }
        Ok(Paged { rows, next: conflicts.next })
    }

    async fn conflict(&self, caller: &Caller, id: Uuid, reveal: bool) -> Answer<ConflictDetail> {
        let conflict = self.visible_conflict(caller, id).await?;
        self.conflict_detail(caller, conflict, reveal).await
    }

    async fn restore_conflict(
        &self,
        caller: &Caller,
        id: Uuid,
        options: DecideOptions,
    ) -> Answer<Answered<ConflictDetail>> {
        let conflict = self.visible_conflict(caller, id).await?;
        guard::may_write(caller, &conflict.at.scope.namespace)?;
        let (_, loser) = self.sides(&conflict).await?;
        let terms = Terms { if_version: options.if_version, over_secret: options.over_secret };
        let decision = Decision::Restore {
            conflict: id,
            loser: conflict.loser,
            secret: loser.content.is_secret(),
            terms,
        };
        let told = format!(
            "restores version {} by {}, which lost to version {}",
            conflict.loser_version, loser.author.name, conflict.winner_version
        );
        let done = self.decide(caller, &conflict.at, options, Some(told), decision).await;
        let done = done.map_err(|refused| refused.about_conflict(&conflict))?;
        let settled = Conflict { settled: Some(done.settled.clone()), ..conflict };
        let detail = self.conflict_detail(caller, settled, false).await?;
        Ok(self.answered(detail, &done))
    }

    async fn dismiss_conflict(&self, caller: &Caller, id: Uuid) -> Answer<ConflictDetail> {
        let conflict = self.visible_conflict(caller, id).await?;
        guard::may_write(caller, &conflict.at.scope.namespace)?;
        let decision = Decision::Dismiss { conflict: id };
        let done = self.decide(caller, &conflict.at, DecideOptions::default(), None, decision).await;
        let done = done.map_err(|refused| refused.about_conflict(&conflict))?;
        self.conflict_detail(caller, Conflict { settled: Some(done.settled), ..conflict }, false).await
    }

    async fn held(&self, caller: &Caller, page: Page) -> Answer<Paged<HeldInfo>> {
        guard::may_read_all(caller)?;
        let held = self.parts.store.held(&caller.tenant, page).await?;
        let mut rows = Vec::with_capacity(held.rows.len());
        for row in held.rows {
            rows.push(HeldInfo { id: held_id(row.stamp.id), write: self.past_of(caller, row).await? });
        }
        Ok(Paged { rows, next: held.next })
    }

    async fn held_write(&self, caller: &Caller, id: Uuid, reveal: bool) -> Answer<HeldDetail> {
        let row = self.visible_held(caller, id).await?;
        self.held_detail(caller, row, reveal).await
    }

    async fn release_held(
        &self,
        caller: &Caller,
        id: Uuid,
        options: DecideOptions,
    ) -> Answer<Answered<HeldDetail>> {
        let row = self.visible_held(caller, id).await?;
        guard::may_write(caller, &row.at.scope.namespace)?;
        let terms = Terms { if_version: options.if_version, over_secret: options.over_secret };
        let by_its_time =
            terms.if_version.is_none() && self.changes_of_losses().await?.contains(&row.found_in());
        let secret = row.content.is_secret();
        let decision = Decision::Release { held: row.stamp.id, terms, by_its_time, secret };
        let told = format!("releases a write by {} that was held", row.author.name);
        let done = self.decide(caller, &row.at, options, Some(told), decision).await;
        let done = done.map_err(|refused| refused.about_held(&row))?;
        let detail = self.held_write(caller, id, false).await?;
        Ok(self.answered(detail, &done))
    }

    async fn drop_held(&self, caller: &Caller, id: Uuid) -> Answer<HeldDetail> {
        let row = self.visible_held(caller, id).await?;
        guard::may_write(caller, &row.at.scope.namespace)?;
        let decision = Decision::Drop { held: row.stamp.id };
        let done = self.decide(caller, &row.at, DecideOptions::default(), None, decision).await;
        done.map_err(|refused| refused.about_held(&row))?;
        self.held_write(caller, id, false).await
    }

    async fn release_change(
        &self,
        caller: &Caller,
        id: ChangeId,
        options: DecideOptions,
    ) -> Answer<ChangeDecided> {
        self.decide_change(caller, id, Some(options)).await
    }

    async fn drop_change(&self, caller: &Caller, id: ChangeId) -> Answer<ChangeDecided> {
        self.decide_change(caller, id, None).await
    }

    async fn undo_change(
        &self,
        caller: &Caller,
        id: ChangeId,
        options: UndoOptions,
    ) -> Answer<Answered<ChangeUndone>> {
        self.undo(caller, id, options).await
    }

    async fn policy(&self, caller: &Caller, namespace: Namespace) -> Answer<PolicyInfo> {
        self.policy_of(caller, namespace).await
    }

    async fn set_policy(
        &self,
        caller: &Caller,
        namespace: Namespace,
        policy: Option<ConflictPolicy>,
    ) -> Answer<PolicyInfo> {
        self.put_policy(caller, namespace, policy).await
    }
}

/// Why nothing was decided: the writer had its reasons, or did not judge.
pub(super) enum Undecided {
    Refused(SettleRefused),
    Other(ApiError),
}

impl Undecided {
    fn about_conflict(self, conflict: &Conflict) -> ApiError {
        let refused = match self {
            Self::Refused(refused) => refused,
            Self::Other(error) => return error,
        };
        match refused {
            SettleRefused::Missing | SettleRefused::Admitted => no_conflict(conflict.id),
            SettleRefused::Otherwise(settled) => {
                ApiError::conflict(format!("the conflict was restored by {}", told(&settled)))
                    .detail("state", ConflictState::of(Some(&settled)).as_str())
            }
            SettleRefused::Changed { current } => ApiError::conflict(format!(
                "{} has another value since: it is at version {current} now, and the conflict was about version {}; \
                 look at it, then say if_version {current} to replace it",
                conflict.at.key, conflict.winner_version
            ))
            .detail("current_version", current)
            .detail("winner_version", conflict.winner_version),
            SettleRefused::Operation(refused) => unwritten(&conflict.at, &refused),
        }
    }

    pub(super) fn about_held(self, row: &HistoryRow) -> ApiError {
        let refused = match self {
            Self::Refused(refused) => refused,
            Self::Other(error) => return error,
        };
        match refused {
            SettleRefused::Missing => no_held(held_id(row.stamp.id)),
            SettleRefused::Admitted => {
                let told = "the write was admitted when another edge or region brought it; there is nothing left to decide";
                ApiError::conflict(told)
            }
            SettleRefused::Otherwise(settled) => {
                let how = if settled.wrote.is_some() { "released" } else { "dropped" };
                ApiError::conflict(format!("the write was {how} by {}", told(&settled))).detail("status", how)
            }
            SettleRefused::Changed { current } => {
                ApiError::conflict("the entry has another value since").detail("current_version", current)
            }
            SettleRefused::Operation(refused) => unwritten(&row.at, &refused),
        }
    }
}

/// A secret in the way is told as something that cannot be done so, whatever the entry's version.
fn unwritten(at: &EntryKey, refused: &OpRefused) -> ApiError {
    if *refused != OpRefused::HoldsSecret {
        return refusal(at, refused);
    }
    ApiError::new(
        ErrorKind::Unprocessable,
        format!("{} holds a secret now; say secret: false to replace it by the plain value", at.key),
    )
    .detail("field", "secret")
}

fn told(settled: &Settled) -> String {
    format!("{} at {}", settled.by, settled.at.to_rfc3339())
}

fn no_conflict(id: Uuid) -> ApiError {
    ApiError::not_found(format!("there is no conflict {id}"))
}

fn no_held(id: Uuid) -> ApiError {
    ApiError::not_found(format!("there is no held write {id}"))
}

impl<S: Journal + Registry> Api<S> {
    async fn told_conflict(&self, caller: &Caller, conflict: Conflict) -> Result<ConflictInfo, ApiError> {
        let (winner, loser) = self.sides(&conflict).await?;
        Ok(ConflictInfo {
            id: conflict.id,
            winner: self.told(caller, winner, false).await?,
            loser: self.told(caller, loser, false).await?,
            at: conflict.at,
            detected_at: conflict.detected_at,
            settled: conflict.settled,
        })
    }

    /// What the caller may not see is as if it were not there.
    async fn visible_conflict(&self, caller: &Caller, id: Uuid) -> Result<Conflict, ApiError> {
        let found = self.parts.store.conflict(&caller.tenant, id).await?;
        let visible = found.filter(|conflict| guard::may_read(caller, &conflict.at).is_ok());
        visible.ok_or_else(|| no_conflict(id))
    }

    async fn visible_held(&self, caller: &Caller, id: Uuid) -> Result<HistoryRow, ApiError> {
        let found = self.parts.store.held_write(&caller.tenant, id).await?;
        let visible = found.filter(|row| guard::may_read(caller, &row.at).is_ok());
        visible.ok_or_else(|| no_held(id))
    }

    async fn sides(&self, conflict: &Conflict) -> Result<(HistoryRow, HistoryRow), ApiError> {
        let rows = self.parts.store.writes(&[conflict.winner, conflict.loser]).await?;
        let side = |id| rows.iter().find(|row| row.stamp.id == id).cloned();
        match (side(conflict.winner), side(conflict.loser)) {
            (Some(winner), Some(loser)) => Ok((winner, loser)),
            _ => Err(JournalError::Corrupt("a conflict whose writes are not in the history".into()).into()),
        }
    }

    async fn conflict_detail(
        &self,
        caller: &Caller,
        conflict: Conflict,
        reveal: bool,
    ) -> Result<ConflictDetail, ApiError> {
        let (winner, loser) = self.sides(&conflict).await?;
        Ok(ConflictDetail {
            id: conflict.id,
            winner: self.side(caller, winner, reveal).await?,
            loser: self.side(caller, loser, reveal).await?,
            current_version: self.current_version(&conflict.at).await?,
            at: conflict.at,
            detected_at: conflict.detected_at,
            settled: conflict.settled,
        })
    }

    async fn held_detail(
        &self,
        caller: &Caller,
        row: HistoryRow,
        reveal: bool,
    ) -> Result<HeldDetail, ApiError> {
        Ok(HeldDetail {
            id: held_id(row.stamp.id),
            at: row.at.clone(),
            current_version: self.current_version(&row.at).await?,
            write: self.side(caller, row, reveal).await?,
        })
    }

    async fn current_version(&self, at: &EntryKey) -> Result<Option<u64>, ApiError> {
        let read = self.parts.store.entries(std::slice::from_ref(at)).await?;
        let live = read.value.into_iter().flatten().find(|row| row.row.content.is_live());
        Ok(live.map(|row| row.row.version))
    }

    async fn side(&self, caller: &Caller, row: HistoryRow, reveal: bool) -> Result<Side, ApiError> {
        let here = self.parts.tail.head().shard;
        let site = match row.author.name.strip_prefix("edge:").and_then(|name| name.split('/').next()) {
            Some(edge) if row.stamp.id.actor.0 != here.0 => Site::Edge(edge.into()),
            Some(_) | None => Site::Hub,
        };
        let had_seen = match row.base {
            None => HadSeen::Nothing,
            Some(base) => match self.parts.store.writes(&[base.stamp.id]).await?.first() {
                Some(seen) if seen.version > 0 => HadSeen::Version(seen.version),
                Some(_) | None => HadSeen::Unadmitted,
            },
        };
        Ok(Side {
            site,
            compared_at: row.stamp.hlc.physical(),
            claimed_at: row.claimed_hlc.map(|hlc| hlc.physical()),
            had_seen,
            past: self.told(caller, row, reveal).await?,
        })
    }

    async fn decide(
        &self,
        caller: &Caller,
        at: &EntryKey,
        options: DecideOptions,
        told: Option<String>,
        decision: Decision,
    ) -> Result<SettledNow, Undecided> {
        let how = match &decision {
            Decision::Restore { .. } => "restored",
            Decision::Dismiss { .. } => "dismissed",
            Decision::Release { .. } => "released",
            Decision::Drop { .. } => "dropped",
        };
        let submission = SettleSubmission {
            at: at.clone(),
            author: Author { name: Arc::clone(&caller.name), claimed: options.claimed_user },
            change: ChangeId(Uuid::now_v7()),
            message: options.message.or_else(|| told.map(Arc::from)),
            decision,
        };
        let judged = self.parts.writer.settle(submission).await;
        let done = judged.map_err(|error| Undecided::Other(not_judged(error)))?;
        let done = done.map_err(Undecided::Refused)?;
        metrics::counter!("conflict_decisions_total", "decision" => how).increment(1);
        tracing::info!(caller = %caller.name, entry = %at.id(), how, "a person decided about a write");
        Ok(done)
    }

    /// With the place of what was written, so that its author can read it anywhere.
    fn answered<T>(&self, value: T, done: &SettledNow) -> Answered<T> {
        let position = match &done.row {
            Some(row) => Vector::at(row.row.dot.shard, row.row.dot.position),
            None => self.parts.tail.head().vector(),
        };
        let answered = Answered::new(value).at(position);
        match done.settled.wrote {
            Some((change, _)) => answered.of_change(change),
            None => answered,
        }
    }
}
