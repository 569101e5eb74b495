//! The routes about who has a change, who uses it, and which secrets expire, generic over the service: the hub's alone.

use std::sync::Arc;

use axum::extract::State;
use axum::{Json, Router};
use http::StatusCode;
use llm_config_shared::entry::ChangeId;

use super::admin_routes::uuid;
use super::answer::ErrorBody;
use super::error::ApiError;
use super::extract::Names;
use super::query::Query;
use super::receipt_types::{ExpiringBody, ReceiptsBody, UsesBody};
use super::receipts::{LifeService, UsesReport};
use super::router::routed;
use super::service::{Call, Caller};
use super::value_routes::{PAGE_LIMIT, PAGE_LIMIT_MAX};

type Result<T> = std::result::Result<T, ApiError>;
type Service<A> = State<Arc<A>>;

/// Thirty days.
const WITHIN_MS: u64 = 30 * 86_400_000;

/// The routes, to be given their service.
pub fn receipt_routes<A: LifeService>() -> Router<Arc<A>> {
    routed::<__path_get_receipts, _, Arc<A>>(get_receipts::<A>)
        .merge(routed::<__path_put_uses, _, Arc<A>>(put_uses::<A>))
        .merge(routed::<__path_list_expiring, _, Arc<A>>(list_expiring::<A>))
}

#[utoipa::path(get, path = "/api/v1/changes/{id}/receipts", operation_id = "getReceipts", tag = "changes",
    params(("id" = String, Path)),
    responses((status = 200, body = ReceiptsBody,
            description = "Edges that receive something of the change: who has it, and what there uses it. Ask again to \
                wait; edges confirm what they have every few seconds"),
        (status = 404, body = ErrorBody)))]
async fn get_receipts<A: LifeService>(
    State(service): Service<A>,
    Names(id): Names<String>,
    caller: Caller,
) -> Result<Json<ReceiptsBody>> {
    Ok(Json(service.receipts(&caller, ChangeId(uuid(&id)?)).await?.into()))
}

#[utoipa::path(put, path = "/api/v1/uses", operation_id = "reportUses", tag = "fleet",
    request_body = UsesBody,
    responses((status = 204, description = "For edges: what there uses values, in place of what was said before"),
        (status = 403, body = ErrorBody), (status = 413, body = ErrorBody)))]
async fn put_uses<A: LifeService>(State(service): Service<A>, call: Call) -> Result<StatusCode> {
    let report = UsesReport::parse(&call.original.body)?;
    service.report_uses(&call.caller, report).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(get, path = "/api/v1/secrets/expiring", operation_id = "listExpiring", tag = "secrets",
    params(("within" = Option<String>, Query, description = "As 30d, which is what is asked unless said"),
        ("limit" = Option<u64>, Query)),
    responses((status = 200, body = Vec<ExpiringBody>,
        description = "Secrets that expire within that time or have expired, the first to expire first")))]
async fn list_expiring<A: LifeService>(
    State(service): Service<A>,
    mut query: Query,
    caller: Caller,
) -> Result<Json<Vec<ExpiringBody>>> {
    let within_ms = query.duration_ms("within")?.unwrap_or(WITHIN_MS);
    let limit = query.limit(PAGE_LIMIT, PAGE_LIMIT_MAX)?;
    query.end()?;
    let secrets = service.expiring(&caller, within_ms, limit).await?;
    Ok(Json(secrets.into_iter().map(ExpiringBody::from).collect()))
}
