//! What people decide about conflicts and held writes. A decision is judged by what the journal holds now, and is in
//! one transaction with the write that comes of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::contest::Rival;
use super::newer::{has_been_seen, has_counted_past};
use super::{Entering, OpAction, OpRefused, Operation, Planner, Sealer, SetValue};
use crate::entry::{Author, ChangeId, Content, HistoryRow, HubRow, Status};
use crate::name::{EntryKey, Environment, Tenant};
use crate::settled::{Settled, Settlement, Waited};
use crate::stamp::{Stamp, WriteId};
use crate::store::PlanningRequest;

/// One decision of one person.
#[derive(Debug)]
pub struct SettleSubmission {
    /// The entry that it is about.
    pub at: EntryKey,
    pub author: Author,
    pub change: ChangeId,
    pub message: Option<Arc<str>>,
    pub decision: Decision,
}

/// What is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The loser becomes the entry's value again.
    Restore {
        conflict: Uuid,
        loser: WriteId,
        /// Its content has to be sealed anew.
        secret: bool,
        terms: Terms,
    },
    /// The conflict has been seen, and things stay as they are.
    Dismiss { conflict: Uuid },
    /// The held write is written anew: over what is there, or, with `by_its_time`, where its own time puts it.
    Release {
        held: WriteId,
        terms: Terms,
        by_its_time: bool,
        /// Its content has to be sealed anew.
        secret: bool,
    },
    /// The held write is not to be.
    Drop { held: WriteId },
}

/// Under which conditions a decision may write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The version that the person saw; 0 for none.
    pub if_version: Option<u64>,
    /// Also where the entry holds a secret.
    pub over_secret: bool,
}

/// What a decision did.
#[derive(Clone, Debug, PartialEq)]
pub struct SettledNow {
    pub settled: Settled,
    /// What was written; none where nothing was, or where it was decided the same way before.
    pub row: Option<Box<HubRow>>,
}

/// What came of a decision.
pub type SettleOutcome = Result<SettledNow, SettleRefused>;

/// Why a decision was not taken. Nothing of it was kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettleRefused {
    #[error("there is nothing to decide")]
    Missing,
    #[error("it was decided otherwise before")]
    Otherwise(Settled),
    #[error("somebody brought it through whom it could be admitted")]
    Admitted,
    #[error("the entry has another value since, with version {current}")]
    Changed { current: u64 },
    #[error(transparent)]
    Operation(#[from] OpRefused),
}

impl SettleSubmission {
    /// Adds what planning it needs to `request`.
    pub fn needs(&self, request: &mut PlanningRequest) {
        request.keys.push(self.at.clone());
        match &self.decision {
            Decision::Restore { conflict, loser, .. } => {
                request.conflicts.push(*conflict);
                request.past.push(*loser);
            }
            Decision::Dismiss { conflict } => request.conflicts.push(*conflict),
            Decision::Release { held, .. } | Decision::Drop { held } => request.past.push(*held),
        }
    }

    /// Tenants and environments in which this submission seals something.
    pub fn seals_in(&self) -> BTreeSet<(Tenant, Environment)> {
        let scope = &self.at.scope;
        let seals = matches!(
            self.decision,
            Decision::Restore { secret: true, .. } | Decision::Release { secret: true, .. }
        );
        seals.then(|| (scope.tenant.clone(), scope.environment.clone())).into_iter().collect()
    }
}

impl Planner {
    /// Judges a decision. The same one again is answered as the first time, and changes nothing.
    pub fn settle(&mut self, submission: &SettleSubmission, sealer: &mut impl Sealer) -> SettleOutcome {
        match &submission.decision {
            Decision::Restore { conflict, terms, .. } => self.restore(submission, *conflict, *terms, sealer),
            Decision::Dismiss { conflict } => self.dismiss(submission, *conflict),
            Decision::Release { held, terms, by_its_time, .. } => {
                // A time that has not come yet would stand above everything that is written until it does.
                let ahead = |row: &HistoryRow| row.stamp.hlc > self.latest();
                match *by_its_time && !self.known_past.get(held).is_some_and(ahead) {
                    true => self.release_by_its_time(submission, *held, *terms, sealer),
                    false => self.release(submission, *held, *terms, sealer),
                }
            }
            Decision::Drop { held } => self.drop_held(submission, *held),
        }
    }

    fn restore(
        &mut self,
        submission: &SettleSubmission,
        id: Uuid,
        terms: Terms,
        sealer: &mut impl Sealer,
    ) -> SettleOutcome {
        let known = self.known_conflicts.get(&id).ok_or(SettleRefused::Missing)?;
        if let Some(settled) = known.settled.clone().filter(|settled| settled.wrote.is_some()) {
            return Ok(SettledNow { settled, row: None });
        }
        let loser = self.known_past.get(&known.loser).ok_or(SettleRefused::Missing)?;
        let current = self.rows.get(&submission.at);
        // Who restores has seen the two that met. A third value is only replaced by somebody who says that they know it.
        if terms.if_version.is_none() && current.is_none_or(|row| row.row.stamp.id != known.winner) {
            let live = current.filter(|row| row.row.content.is_live());
            return Err(SettleRefused::Changed { current: live.map_or(0, |row| row.row.version) });
        }
        let action = match loser.content.clone() {
            Content::Deleted => OpAction::Delete,
            content @ (Content::Plain(_) | Content::Secret(_)) => OpAction::Rollback { content },
        };
        let row = self.write_anew(submission, action, terms, sealer)?;
        Ok(self.settled(submission, Waited::Conflict(id), Some(row)))
    }

    fn dismiss(&mut self, submission: &SettleSubmission, id: Uuid) -> SettleOutcome {
        let known = self.known_conflicts.get(&id).ok_or(SettleRefused::Missing)?;
        match known.settled.clone() {
            Some(settled) if settled.wrote.is_some() => Err(SettleRefused::Otherwise(settled)),
            Some(settled) => Ok(SettledNow { settled, row: None }),
            None => Ok(self.settled(submission, Waited::Conflict(id), None)),
        }
    }

    fn release(
        &mut self,
        submission: &SettleSubmission,
        held: WriteId,
        terms: Terms,
        sealer: &mut impl Sealer,
    ) -> SettleOutcome {
        if let Some(before) = self.decided_before(held, Status::Released)? {
            return Ok(before);
        }
        let action = match self.known_past[&held].content.clone() {
            Content::Deleted => OpAction::Delete,
            Content::Plain(value) => {
                let value = SetValue::Plain { value, over_secret: terms.over_secret };
                OpAction::Set { value, tags: None, description: None }
            }
            content @ Content::Secret(_) => OpAction::Rollback { content },
        };
        let row = self.write_anew(submission, action, terms, sealer)?;
        Ok(self.settled(submission, Waited::Held(held), Some(row)))
    }

    /// As if it were uploaded now, under a name of the hub's: who decides only lets it in.
    fn release_by_its_time(
        &mut self,
        submission: &SettleSubmission,
        held: WriteId,
        terms: Terms,
        sealer: &mut impl Sealer,
    ) -> SettleOutcome {
        if let Some(before) = self.decided_before(held, Status::Released)? {
            return Ok(before);
        }
        let mut row = self.known_past[&held].clone();
        if self.covers_secret(&row.at) && !row.content.is_secret() && !terms.over_secret {
            return Err(OpRefused::HoldsSecret.into());
        }
        if let Content::Secret(sealed) = &row.content {
            let sealed = sealer.reseal(&row.at, sealed, self.next_version(&row.at));
            row.content = Content::Secret(sealed.map_err(OpRefused::from)?);
        }
        let version = self.next_version(&row.at);
        let entering = self.under_a_new_name(submission, &row);
        let won = self.enter_by_its_time(entering, &row);
        let now = won.then(|| self.rows[&row.at].clone());
        Ok(self.settled_as(submission, Waited::Held(held), Some(version), now))
    }

    /// A held write as one of who decides, with its own time.
    fn under_a_new_name(&mut self, submission: &SettleSubmission, held: &HistoryRow) -> Entering {
        Entering {
            at: held.at.clone(),
            stamp: Stamp { hlc: held.stamp.hlc, id: self.hub_write_id() },
            claimed_hlc: held.claimed_hlc,
            content_hash: held.content.hash(),
            content: held.content.clone(),
            author: submission.author.clone(),
            made_at: held.created_at,
            message: submission.message.clone(),
            change: submission.change,
            returned_in: None,
            tags: None,
            description: None,
            rollback: false,
            context: held.context.clone(),
            base: held.base,
            known: None,
        }
    }

    /// Judges a write that was held, and now has another name, by its time. Whether it is the entry's value now.
    fn enter_by_its_time(&mut self, write: Entering, held: &HistoryRow) -> bool {
        let version = self.next_version(&write.at);
        let Some(current) = self.rows.get(&write.at) else {
            self.win(write, version);
            return true;
        };
        let rival = Rival::of(current);
        let passed = has_been_seen(held.stamp, held.change, current);
        let row = &current.row;
        let follows = write.context.covers_dot(row.dot)
            || write.base.is_some_and(|base| base.is(row.stamp, row.change))
            || has_counted_past(row.stamp.id, held.stamp.id);
        let wins = !passed && held.stamp > row.stamp;
        match (wins, passed || follows) {
            (true, true) => drop(self.win(write, version)),
            (true, false) => drop(self.replace(write, version, rival)),
            (false, true) => self.lose(&write, version),
            (false, false) => drop(self.give_way(&write, version, rival)),
        }
        wins
    }

    fn drop_held(&mut self, submission: &SettleSubmission, held: WriteId) -> SettleOutcome {
        if let Some(before) = self.decided_before(held, Status::Dropped)? {
            return Ok(before);
        }
        Ok(self.settled(submission, Waited::Held(held), None))
    }

    /// What was decided about a write that was held, if that is what is `wanted` now; none while it is still held.
    fn decided_before(&self, held: WriteId, wanted: Status) -> Result<Option<SettledNow>, SettleRefused> {
        let row = self.past_of(held).ok_or(SettleRefused::Missing)?;
        match (row.status, row.settled.clone()) {
            (Status::Held, _) => Ok(None),
            (status, Some(settled)) if status == wanted => Ok(Some(SettledNow { settled, row: None })),
            (_, Some(settled)) => Err(SettleRefused::Otherwise(settled)),
            (Status::Applied | Status::SupersededConcurrent, None) => Err(SettleRefused::Admitted),
            (_, None) => Err(SettleRefused::Missing),
        }
    }

    /// A normal write of who decides, which has seen the current row.
    fn write_anew(
        &mut self,
        submission: &SettleSubmission,
        action: OpAction,
        terms: Terms,
        sealer: &mut impl Sealer,
    ) -> Result<HubRow, SettleRefused> {
        let current = self.rows.get(&submission.at);
        let holds_secret = current.is_some_and(|row| row.row.content.is_secret());
        let stays_secret = matches!(action, OpAction::Rollback { content: Content::Secret(_) });
        if holds_secret && !stays_secret && !terms.over_secret {
            return Err(OpRefused::HoldsSecret.into());
        }
        let SettleSubmission { at, author, change, message, .. } = submission;
        let operation = Operation { at: at.clone(), action, if_version: terms.if_version };
        Ok(self.operation(operation, author, *change, message.as_ref(), sealer)?)
    }

    /// Keeps the decision, for the commit and for what is judged after it.
    fn settled(&mut self, submission: &SettleSubmission, what: Waited, row: Option<HubRow>) -> SettledNow {
        let version = row.as_ref().map(|row| row.row.version);
        self.settled_as(submission, what, version, row)
    }

    fn settled_as(
        &mut self,
        submission: &SettleSubmission,
        what: Waited,
        version: Option<u64>,
        row: Option<HubRow>,
    ) -> SettledNow {
        let wrote = version.map(|version| (submission.change, version));
        let settled = Settled { by: submission.author.name.clone(), at: self.physical, wrote };
        self.settle_waited(what, settled.clone());
        SettledNow { settled, row: row.map(Box::new) }
    }

    pub(super) fn settle_waited(&mut self, what: Waited, settled: Settled) {
        match what {
            Waited::Conflict(id) => {
                if let Some(known) = self.known_conflicts.get_mut(&id) {
                    known.settled = Some(settled.clone());
                }
            }
            Waited::Held(id) => {
                if let Some(known) = self.known_past.get_mut(&id) {
                    known.status = if settled.wrote.is_some() { Status::Released } else { Status::Dropped };
                    known.settled = Some(settled.clone());
                }
            }
        }
        self.settled.retain(|earlier| earlier.what != what);
        self.settled.push(Settlement { what, settled });
    }
}
