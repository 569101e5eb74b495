//! The routes about conflicts, held writes and policies, generic over the service: the hub's alone.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use http::Uri;
use llm_config_shared::entry::ChangeId;
use llm_config_shared::name::Namespace;
use llm_config_shared::settled::ConflictState;

use super::admin_routes::{page, paged, uuid};
use super::answer::{ErrorBody, respond};
use super::conflict_types::{
    ChangeDecidedBody, ConflictBody, ConflictDetailBody, DecideBody, HeldBody, HeldDetailBody, PolicyBody,
    PolicyRequest,
};
use super::conflicts::{ConflictService, DecideOptions};
use super::error::ApiError;
use super::extract::{Names, json};
use super::query::Query;
use super::router::routed;
use super::service::{Answered, Call, Caller};
use super::undo::{ChangeUndoneBody, UndoBody};

type Result<T> = std::result::Result<T, ApiError>;
type Service<A> = State<Arc<A>>;

/// The routes, to be given their service.
pub fn conflict_routes<A: ConflictService>() -> Router<Arc<A>> {
    routed::<__path_list_conflicts, _, Arc<A>>(list_conflicts::<A>)
        .merge(routed::<__path_get_conflict, _, Arc<A>>(get_conflict::<A>))
        .merge(routed::<__path_restore_conflict, _, Arc<A>>(restore_conflict::<A>))
        .merge(routed::<__path_dismiss_conflict, _, Arc<A>>(dismiss_conflict::<A>))
        .merge(routed::<__path_list_held, _, Arc<A>>(list_held::<A>))
        .merge(routed::<__path_get_held, _, Arc<A>>(get_held::<A>))
        .merge(routed::<__path_release_held, _, Arc<A>>(release_held::<A>))
        .merge(routed::<__path_drop_held, _, Arc<A>>(drop_held::<A>))
        .merge(routed::<__path_release_change, _, Arc<A>>(release_change::<A>))
        .merge(routed::<__path_drop_change, _, Arc<A>>(drop_change::<A>))
        .merge(routed::<__path_undo_change, _, Arc<A>>(undo_change::<A>))
        .merge(routed::<__path_get_policy, _, Arc<A>>(get_policy::<A>))
        .merge(routed::<__path_put_policy, _, Arc<A>>(put_policy::<A>))
        .merge(routed::<__path_remove_policy, _, Arc<A>>(remove_policy::<A>))
}

#[utoipa::path(get, path = "/api/v1/conflicts", operation_id = "listConflicts", tag = "changes",
    params(("state" = Option<String>, Query, description = "`open`, `restored` or `dismissed`; all if absent"),
        ("limit" = Option<u64>, Query), ("cursor" = Option<u64>, Query)),
    responses((status = 200, body = Vec<ConflictBody>, description = "Newest first, with both values")))]
async fn list_conflicts<A: ConflictService>(
    State(service): Service<A>,
    mut query: Query,
    uri: Uri,
    caller: Caller,
) -> Result<Response> {
    let state = query.text("state").map(|text| {
        let unknown = || ApiError::bad_request("state must be open, restored or dismissed");
        ConflictState::parse(&text).ok_or_else(|| unknown().detail("field", "state"))
    });
    let conflicts = service.conflicts(&caller, state.transpose()?, page(query)?).await?;
    Ok(paged::<_, ConflictBody>(conflicts, &uri))
}

fn reveal(mut query: Query) -> Result<bool> {
    let reveal = query.flag("reveal")?;
    query.end()?;
    Ok(reveal)
}

fn decided(call: &Call) -> Result<DecideOptions> {
    let body = &call.original.body;
    if body.is_empty() { DecideBody::default().parse() } else { json::<DecideBody>(body)?.parse() }
}

fn told<T, B: serde::Serialize + From<T>>(answered: Answered<T>) -> Response {
    respond(answered.into(), |value| Json(B::from(value)).into_response())
}

#[utoipa::path(get, path = "/api/v1/conflicts/{id}", operation_id = "getConflict", tag = "changes",
    params(("id" = String, Path), ("reveal" = Option<bool>, Query, description = "Show the plaintext of a secret")),
    responses((status = 200, body = ConflictDetailBody, description = "Both sides in full"),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn get_conflict<A: ConflictService>(
    State(service): Service<A>,
    Names(id): Names<String>,
    query: Query,
    caller: Caller,
) -> Result<Json<ConflictDetailBody>> {
    Ok(Json(service.conflict(&caller, uuid(&id)?, reveal(query)?).await?.into()))
}

#[utoipa::path(post, path = "/api/v1/conflicts/{id}/restore", operation_id = "restoreConflict", tag = "changes",
    params(("id" = String, Path)), request_body(content = Option<DecideBody>),
    responses((status = 200, body = ConflictDetailBody,
            description = "The loser is the entry's value again, as a new version; the same again when asked again"),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "The entry has another value since: say if_version"),
        (status = 422, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn restore_conflict<A: ConflictService>(
    State(service): Service<A>,
    Names(id): Names<String>,
    call: Call,
) -> Result<Response> {
    let restored = service.restore_conflict(&call.caller, uuid(&id)?, decided(&call)?).await?;
    Ok(told::<_, ConflictDetailBody>(restored))
}

#[utoipa::path(post, path = "/api/v1/conflicts/{id}/dismiss", operation_id = "dismissConflict", tag = "changes",
    params(("id" = String, Path)),
    responses((status = 200, body = ConflictDetailBody, description = "Seen; nothing is written"),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "It was restored before"), (status = 503, body = ErrorBody)))]
async fn dismiss_conflict<A: ConflictService>(
    State(service): Service<A>,
    Names(id): Names<String>,
    caller: Caller,
) -> Result<Json<ConflictDetailBody>> {
    Ok(Json(service.dismiss_conflict(&caller, uuid(&id)?).await?.into()))
}

#[utoipa::path(get, path = "/api/v1/held", operation_id = "listHeld", tag = "changes",
    params(("limit" = Option<u64>, Query), ("cursor" = Option<u64>, Query)),
    responses((status = 200, body = Vec<HeldBody>, description = "Writes that wait for a person, newest first")))]
async fn list_held<A: ConflictService>(
    State(service): Service<A>,
    query: Query,
    uri: Uri,
    caller: Caller,
) -> Result<Response> {
    let held = service.held(&caller, page(query)?).await?;
    Ok(paged::<_, HeldBody>(held, &uri))
}

#[utoipa::path(get, path = "/api/v1/held/{id}", operation_id = "getHeld", tag = "changes",
    params(("id" = String, Path), ("reveal" = Option<bool>, Query)),
    responses((status = 200, body = HeldDetailBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn get_held<A: ConflictService>(
    State(service): Service<A>,
    Names(id): Names<String>,
    query: Query,
    caller: Caller,
) -> Result<Json<HeldDetailBody>> {
    Ok(Json(service.held_write(&caller, uuid(&id)?, reveal(query)?).await?.into()))
}

#[utoipa::path(post, path = "/api/v1/held/{id}/release", operation_id = "releaseHeld", tag = "changes",
    params(("id" = String, Path)), request_body(content = Option<DecideBody>),
    responses((status = 200, body = HeldDetailBody,
            description = "Written anew by the caller; the same again when asked again"),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "It was dropped before, or the entry is not at if_version"),
        (status = 422, body = ErrorBody, description = "The entry holds a secret: say secret: false"),
        (status = 503, body = ErrorBody)))]
async fn release_held<A: ConflictService>(
    State(service): Service<A>,
    Names(id): Names<String>,
    call: Call,
) -> Result<Response> {
    let released = service.release_held(&call.caller, uuid(&id)?, decided(&call)?).await?;
    Ok(told::<_, HeldDetailBody>(released))
}

#[utoipa::path(post, path = "/api/v1/held/{id}/drop", operation_id = "dropHeld", tag = "changes",
    params(("id" = String, Path)),
    responses((status = 200, body = HeldDetailBody, description = "Closed; nothing is written"),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "It was released before"), (status = 503, body = ErrorBody)))]
async fn drop_held<A: ConflictService>(
    State(service): Service<A>,
    Names(id): Names<String>,
    caller: Caller,
) -> Result<Json<HeldDetailBody>> {
    Ok(Json(service.drop_held(&caller, uuid(&id)?).await?.into()))
}

#[utoipa::path(post, path = "/api/v1/changes/{id}/release", operation_id = "releaseChange", tag = "changes",
    params(("id" = String, Path)), request_body(content = Option<DecideBody>),
    responses((status = 200, body = ChangeDecidedBody,
            description = "All its held writes are written, each where its own time puts it; what lost is a conflict"),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 422, body = ErrorBody, description = "if_version is about one entry"), (status = 503, body = ErrorBody)))]
async fn release_change<A: ConflictService>(
    State(service): Service<A>,
    Names(id): Names<String>,
    call: Call,
) -> Result<Json<ChangeDecidedBody>> {
    let options = decided(&call)?;
    if options.if_version.is_some() {
        let told = "a change is of many entries: if_version is for one, at /api/v1/held/{id}/release";
        return Err(ApiError::unprocessable(told).detail("field", "if_version"));
    }
    Ok(Json(service.release_change(&call.caller, ChangeId(uuid(&id)?), options).await?.into()))
}

#[utoipa::path(post, path = "/api/v1/changes/{id}/drop", operation_id = "dropChange", tag = "changes",
    params(("id" = String, Path)),
    responses((status = 200, body = ChangeDecidedBody, description = "All its held writes are closed; nothing is written"),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn drop_change<A: ConflictService>(
    State(service): Service<A>,
    Names(id): Names<String>,
    caller: Caller,
) -> Result<Json<ChangeDecidedBody>> {
    Ok(Json(service.drop_change(&caller, ChangeId(uuid(&id)?)).await?.into()))
}

#[utoipa::path(post, path = "/api/v1/changes/{id}/undo", operation_id = "undoChange", tag = "changes",
    params(("id" = String, Path)), request_body(content = Option<UndoBody>),
    responses((status = 200, body = ChangeUndoneBody,
            description = "Its entries have the values again that they had before, as another change, 500 in a transaction; \
                the same again when asked again"),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "Entries have another value since: nothing was undone"),
        (status = 422, body = ErrorBody, description = "Nothing of it is any entry's value"), (status = 503, body = ErrorBody)))]
async fn undo_change<A: ConflictService>(
    State(service): Service<A>,
    Names(id): Names<String>,
    call: Call,
) -> Result<Response> {
    let body = &call.original.body;
    let options = if body.is_empty() { UndoBody::default() } else { json::<UndoBody>(body)? }.parse()?;
    let undone = service.undo_change(&call.caller, ChangeId(uuid(&id)?), options).await?;
    Ok(told::<_, ChangeUndoneBody>(undone))
}

#[utoipa::path(get, path = "/api/v1/namespaces/{namespace}/policy", operation_id = "getPolicy", tag = "changes",
    params(("namespace" = String, Path)), responses((status = 200, body = PolicyBody), (status = 403, body = ErrorBody)))]
async fn get_policy<A: ConflictService>(
    State(service): Service<A>,
    Names(namespace): Names<String>,
    caller: Caller,
) -> Result<Json<PolicyBody>> {
    Ok(Json(service.policy(&caller, Namespace::parse(&namespace)?).await?.into()))
}

#[utoipa::path(put, path = "/api/v1/namespaces/{namespace}/policy", operation_id = "setPolicy", tag = "changes",
    params(("namespace" = String, Path)), request_body = PolicyRequest,
    responses((status = 200, body = PolicyBody, description = "It holds for everything below that has none itself"),
        (status = 403, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn put_policy<A: ConflictService>(
    State(service): Service<A>,
    Names(namespace): Names<String>,
    call: Call,
) -> Result<Json<PolicyBody>> {
    let policy = json::<PolicyRequest>(&call.original.body)?.parse()?;
    let namespace = Namespace::parse(&namespace)?;
    Ok(Json(service.set_policy(&call.caller, namespace, Some(policy)).await?.into()))
}

#[utoipa::path(delete, path = "/api/v1/namespaces/{namespace}/policy", operation_id = "removePolicy", tag = "changes",
    params(("namespace" = String, Path)),
    responses((status = 200, body = PolicyBody, description = "What holds above it holds here again"),
        (status = 403, body = ErrorBody)))]
async fn remove_policy<A: ConflictService>(
    State(service): Service<A>,
    Names(namespace): Names<String>,
    caller: Caller,
) -> Result<Json<PolicyBody>> {
    Ok(Json(service.set_policy(&caller, Namespace::parse(&namespace)?, None).await?.into()))
}
