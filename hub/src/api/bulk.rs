//! Many writes as one change.

use std::sync::Arc;

use llm_config_proto::rest::error::{ApiError, ErrorKind};
use llm_config_proto::rest::service::{
    Answered, Bulk, BulkAction, BulkItem, BulkOperation, BulkOutcome, BulkResult, Call, Target,
};
use llm_config_shared::entry::{Author, ChangeId};
use llm_config_shared::limits::BULK_OPERATIONS_MAX;
use llm_config_shared::name::EntryKey;
use llm_config_shared::replication::admit::{ApiSubmission, OpAction, OpOutcome, Operation, RepeatKey};
use llm_config_shared::store::Journal;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::write::{new_value, not_judged, refusal};
use super::{Api, at_position};
use crate::registry::Registry;
use crate::writer::{RenderAnswer, Written};

/// A bulk request, split into what the writer is asked and what was refused before.
struct Prepared {
    operations: Vec<Operation>,
    plan: Vec<Planned>,
}

/// What becomes of one operation of the request.
#[derive(Clone)]
enum Planned {
    /// The next of the writer's outcomes is its own.
    Submitted {
        at: EntryKey,
        delete: bool,
    },
    Refused(ApiError),
}

impl<S: Journal + Registry> Api<S> {
    pub(super) async fn write_bulk(
        &self,
        call: &Call,
        request: Bulk,
    ) -> Result<Answered<BulkResult>, ApiError> {
        let caller = &call.caller;
        let count = request.operations.len();
        if count > BULK_OPERATIONS_MAX {
            let message = format!("there are {count} operations; at most {BULK_OPERATIONS_MAX} are allowed");
            return Err(ApiError::unprocessable(message)
                .detail("field", "operations")
                .detail("limit", BULK_OPERATIONS_MAX));
        }
        let targets: Vec<Target> = request.operations.iter().map(|op| op.target.clone()).collect();
        let Prepared { operations, plan } = self.prepare(call, request.operations, request.atomic).await?;
        let change = request.own.map_or_else(|| ChangeId(Uuid::now_v7()), |own| own.change);
        let repeat = request.own.map(|own| RepeatKey {
            batch: own.batch,
            request_hash: self.parts.repeats.of(&call.original.body),
        });
        let submission = ApiSubmission {
            tenant: caller.tenant.clone(),
            author: Author { name: caller.name.clone(), claimed: request.claimed_user },
            change: Some(change),
            message: request.message,
            operations,
            atomic: request.atomic,
            dry_run: request.dry_run,
            repeat,
        };
        let render: Option<RenderAnswer> = repeat.map(|_| {
            let plan = plan.clone();
            Box::new(move |outcomes: &[OpOutcome]| stored(&judged(&plan, outcomes))) as RenderAnswer
        });
        let written = self.parts.writer.write(submission, render).await.map_err(not_judged)?;
        let (outcomes, position) = match written {
            Written::Now { outcomes, position } => (judged(&plan, &outcomes), position),
            Written::Before { answer, position } => (recalled(&answer)?, position),
        };
        if request.atomic
            && let Some(failure) = first_failure(&outcomes)
        {
            return Err(failure);
        }
        let items = targets.into_iter().zip(outcomes);
        let results = items.map(|(target, outcome)| BulkItem { target, outcome }).collect();
        let change = (!request.dry_run).then_some(change);
        let answered = at_position(BulkResult { change, dry_run: request.dry_run, results }, position);
        Ok(match change {
            Some(change) => answered.of_change(change),
            None => answered,
        })
    }

    async fn prepare(
        &self,
        call: &Call,
        asked: Vec<BulkOperation>,
        atomic: bool,
    ) -> Result<Prepared, ApiError> {
        let mut prepared = Prepared { operations: Vec::new(), plan: Vec::with_capacity(asked.len()) };
        for (n, operation) in asked.into_iter().enumerate() {
            match self.operation(call, operation).await {
                Ok(operation) => {
                    let delete = matches!(operation.action, OpAction::Delete);
                    prepared.plan.push(Planned::Submitted { at: operation.at.clone(), delete });
                    prepared.operations.push(operation);
                }
                // Nobody can tell yet whether it would have been refused.
                Err(error) if error.kind == ErrorKind::Unavailable => return Err(error),
                Err(error) if atomic => return Err(numbered(error, n)),
                Err(error) => prepared.plan.push(Planned::Refused(error)),
            }
        }
        Ok(prepared)
    }

    async fn operation(&self, call: &Call, operation: BulkOperation) -> Result<Operation, ApiError> {
        let at = self.writable(&call.caller, &operation.target).await?;
        let action = match operation.action {
            BulkAction::Delete => OpAction::Delete,
            BulkAction::Set { value, tags, description } => {
                OpAction::Set { value: new_value(value)?, tags, description }
            }
        };
        self.sealable(&at, &action).await?;
        Ok(Operation { at, action, if_version: operation.if_version })
    }
}

/// The outcome of every operation, in the order asked.
fn judged(plan: &[Planned], outcomes: &[OpOutcome]) -> Vec<BulkOutcome> {
    let mut outcomes = outcomes.iter();
    let of_one = |planned: &Planned| match planned {
        Planned::Refused(error) => BulkOutcome::Failed(error.clone()),
        Planned::Submitted { at, delete } => {
            match outcomes.next().expect("the writer answers every operation") {
                Ok(row) if *delete => BulkOutcome::Deleted { version: row.row.version },
                Ok(row) => BulkOutcome::Set { version: row.row.version },
                Err(refused) => BulkOutcome::Failed(refusal(at, refused)),
            }
        }
    };
    plan.iter().map(of_one).collect()
}

fn first_failure(outcomes: &[BulkOutcome]) -> Option<ApiError> {
    outcomes.iter().enumerate().find_map(|(n, outcome)| match outcome {
        BulkOutcome::Failed(error) => Some(numbered(error.clone(), n)),
        BulkOutcome::Set { .. } | BulkOutcome::Deleted { .. } | BulkOutcome::Pending { .. } => None,
    })
}

/// Says which of the operations it was.
fn numbered(mut error: ApiError, n: usize) -> ApiError {
    error.message = format!("operation {n}: {}; nothing was changed", error.message);
    error.detail("operation", n)
}

/// The outcomes as they are kept for a repetition.
fn stored(outcomes: &[BulkOutcome]) -> Arc<str> {
    let of_one = |outcome: &BulkOutcome| match outcome {
        BulkOutcome::Set { version } => json!({ "set": version }),
        BulkOutcome::Deleted { version } => json!({ "deleted": version }),
        BulkOutcome::Pending { place, last_version } => json!({ "pending": [place, last_version] }),
        BulkOutcome::Failed(error) => json!({ "failed": [error.kind.status(), error.message] }),
    };
    Json::Array(outcomes.iter().map(of_one).collect()).to_string().into()
}

/// The inverse of [`stored`].
fn recalled(answer: &str) -> Result<Vec<BulkOutcome>, ApiError> {
    let of_one = |item: &Json| {
        if let Some(version) = item["set"].as_u64() {
            return Some(BulkOutcome::Set { version });
        }
        if let Some(version) = item["deleted"].as_u64() {
            return Some(BulkOutcome::Deleted { version });
        }
        let kind = kind_of(item["failed"][0].as_u64()?)?;
        Some(BulkOutcome::Failed(ApiError::new(kind, item["failed"][1].as_str()?)))
    };
    let items: Option<Vec<BulkOutcome>> =
        serde_json::from_str::<Vec<Json>>(answer).ok().and_then(|items| items.iter().map(of_one).collect());
    items.ok_or_else(|| ApiError::internal("the kept answer to this change and batch cannot be read"))
}

fn kind_of(status: u64) -> Option<ErrorKind> {
    use ErrorKind::{
        BadRequest, Conflict, Forbidden, Internal, NotFound, TooLarge, Unavailable, Unprocessable,
    };
    [BadRequest, Forbidden, NotFound, Conflict, TooLarge, Unprocessable, Internal, Unavailable]
        .into_iter()
        .find(|kind| u64::from(kind.status()) == status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_answer_reads_back_the_same() {
        let outcomes = vec![
            BulkOutcome::Set { version: 3 },
            BulkOutcome::Deleted { version: 9 },
            BulkOutcome::Failed(ApiError::not_found("there is no k")),
        ];
        assert_eq!(recalled(&stored(&outcomes)), Ok(outcomes));
        assert!(recalled("[{}]").is_err() && recalled("").is_err());
    }

    #[test]
    fn an_atomic_failure_says_which_operation_it_was() {
        let outcomes =
            [BulkOutcome::Set { version: 1 }, BulkOutcome::Failed(ApiError::version_mismatch(1, 2))];
        let failure = first_failure(&outcomes).unwrap();
        assert_eq!((failure.kind, &failure.details["operation"]), (ErrorKind::Conflict, &json!(1)));
    }
}
