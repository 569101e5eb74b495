//! The routes about the rotation of secrets, generic over the service: the hub's alone.

use std::sync::Arc;

use axum::extract::State;
use axum::{Json, Router};
use http::StatusCode;
use llm_config_shared::seal::Suite;

use super::answer::ErrorBody;
use super::error::ApiError;
use super::extract::{Names, json};
use super::query::Query;
use super::rotation_types::{
    HoldingBackupBody, PlannedSecretBody, PurgeBody, PurgedBody, RotationBody, RotationPlanBody,
    RotationStateBody, SealingBody,
};
use super::rotations::RotationService;
use super::router::routed;
use super::service::{Call, Caller, Target};
use super::value_routes::target;

type Result<T> = std::result::Result<T, ApiError>;
type Service<A> = State<Arc<A>>;
type Pair = Names<(String, String)>;

/// The routes, to be given their service.
pub fn rotation_routes<A: RotationService>() -> Router<Arc<A>> {
    routed::<__path_list_planned, _, Arc<A>>(list_planned::<A>)
        .merge(routed::<__path_get_rotation, _, Arc<A>>(get_rotation::<A>))
        .merge(routed::<__path_put_rotation, _, Arc<A>>(put_rotation::<A>))
        .merge(routed::<__path_remove_rotation, _, Arc<A>>(remove_rotation::<A>))
        .merge(routed::<__path_rotate, _, Arc<A>>(rotate::<A>))
        .merge(routed::<__path_retire, _, Arc<A>>(retire::<A>))
        .merge(routed::<__path_purge, _, Arc<A>>(purge::<A>))
        .merge(routed::<__path_get_sealing, _, Arc<A>>(get_sealing::<A>))
        .merge(routed::<__path_put_sealing, _, Arc<A>>(put_sealing::<A>))
}

fn asked(names: (String, String), mut query: Query) -> Result<Target> {
    let target = target(names, &mut query)?;
    query.end()?;
    Ok(target)
}

#[utoipa::path(get, path = "/api/v1/secrets/rotations", operation_id = "listRotations", tag = "secrets",
    responses((status = 200, body = Vec<PlannedSecretBody>,
        description = "Every secret with a plan, what is due first at the top")))]
async fn list_planned<A: RotationService>(
    State(service): Service<A>,
    query: Query,
    caller: Caller,
) -> Result<Json<Vec<PlannedSecretBody>>> {
    query.end()?;
    let planned = service.planned(&caller).await?;
    Ok(Json(planned.into_iter().map(PlannedSecretBody::from).collect()))
}

#[utoipa::path(get, path = "/api/v1/secrets/{namespace}/{key}/rotation", operation_id = "getRotation", tag = "secrets",
    params(("namespace" = String, Path), ("key" = String, Path), ("env" = Option<String>, Query)),
    responses((status = 200, body = RotationStateBody), (status = 404, body = ErrorBody)))]
async fn get_rotation<A: RotationService>(
    State(service): Service<A>,
    Names(names): Pair,
    query: Query,
    caller: Caller,
) -> Result<Json<RotationStateBody>> {
    Ok(Json(service.rotation(&caller, asked(names, query)?).await?.into()))
}

#[utoipa::path(put, path = "/api/v1/secrets/{namespace}/{key}/rotation", operation_id = "setRotation", tag = "secrets",
    params(("namespace" = String, Path), ("key" = String, Path), ("env" = Option<String>, Query)),
    request_body = RotationPlanBody,
    responses((status = 200, body = RotationStateBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 422, body = ErrorBody)))]
async fn put_rotation<A: RotationService>(
    State(service): Service<A>,
    Names(names): Pair,
    query: Query,
    call: Call,
) -> Result<Json<RotationStateBody>> {
    let plan = json::<RotationPlanBody>(&call.original.body)?.parse()?;
    Ok(Json(service.set_rotation(&call.caller, asked(names, query)?, plan).await?.into()))
}

#[utoipa::path(delete, path = "/api/v1/secrets/{namespace}/{key}/rotation", operation_id = "removeRotation",
    tag = "secrets", params(("namespace" = String, Path), ("key" = String, Path), ("env" = Option<String>, Query)),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn remove_rotation<A: RotationService>(
    State(service): Service<A>,
    Names(names): Pair,
    query: Query,
    caller: Caller,
) -> Result<StatusCode> {
    service.remove_rotation(&caller, asked(names, query)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(post, path = "/api/v1/secrets/{namespace}/{key}/rotate", operation_id = "rotate", tag = "secrets",
    params(("namespace" = String, Path), ("key" = String, Path), ("env" = Option<String>, Query)),
    responses((status = 202, body = RotationBody, description = "Begun: ask for the rotation to see how far it has come"),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn rotate<A: RotationService>(
    State(service): Service<A>,
    Names(names): Pair,
    query: Query,
    caller: Caller,
) -> Result<(StatusCode, Json<RotationBody>)> {
    let begun = service.rotate(&caller, asked(names, query)?).await?;
    Ok((StatusCode::ACCEPTED, Json(begun.into())))
}

#[utoipa::path(post, path = "/api/v1/secrets/{namespace}/{key}/retire", operation_id = "retire", tag = "secrets",
    params(("namespace" = String, Path), ("key" = String, Path), ("env" = Option<String>, Query)),
    responses((status = 200, body = RotationBody, description = "The old version is not needed any more"),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn retire<A: RotationService>(
    State(service): Service<A>,
    Names(names): Pair,
    query: Query,
    caller: Caller,
) -> Result<Json<RotationBody>> {
    Ok(Json(service.retire(&caller, asked(names, query)?).await?.into()))
}

#[utoipa::path(post, path = "/api/v1/secrets/{namespace}/{key}/purge", operation_id = "purgeVersion", tag = "secrets",
    params(("namespace" = String, Path), ("key" = String, Path), ("env" = Option<String>, Query)),
    request_body = PurgeBody,
    responses((status = 200, body = PurgedBody, description = "Its value is gone; its place in the history stays"),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "It is the current version")))]
async fn purge<A: RotationService>(
    State(service): Service<A>,
    Names(names): Pair,
    query: Query,
    call: Call,
) -> Result<Json<PurgedBody>> {
    let PurgeBody { version } = json(&call.original.body)?;
    let backups = service.purge(&call.caller, asked(names, query)?, version).await?;
    Ok(Json(PurgedBody { version, backups: backups.into_iter().map(HoldingBackupBody::from).collect() }))
}

#[utoipa::path(get, path = "/api/v1/secrets/sealing", operation_id = "getSealing", tag = "secrets",
    responses((status = 200, body = SealingBody)))]
async fn get_sealing<A: RotationService>(
    State(service): Service<A>,
    caller: Caller,
) -> Result<Json<SealingBody>> {
    Ok(Json(SealingBody { cipher: service.suite(&caller).await?.as_str().to_owned() }))
}

#[utoipa::path(put, path = "/api/v1/secrets/sealing", operation_id = "setSealing", tag = "secrets",
    request_body = SealingBody,
    responses((status = 200, body = SealingBody, description = "For what is written from now on; edges open all of them"),
        (status = 403, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn put_sealing<A: RotationService>(
    State(service): Service<A>,
    call: Call,
) -> Result<Json<SealingBody>> {
    let SealingBody { cipher } = json(&call.original.body)?;
    let suite = Suite::parse(&cipher).ok_or_else(|| {
        let known = Suite::ALL.map(Suite::as_str).join(", ");
        ApiError::unprocessable(format!("cipher must be one of {known}")).detail("field", "cipher")
    })?;
    Ok(Json(SealingBody { cipher: service.set_suite(&call.caller, suite).await?.as_str().to_owned() }))
}
