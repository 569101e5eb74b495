//! The admin routes, generic over the service: the hub's alone.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use http::{StatusCode, Uri};
use llm_config_shared::entry::ChangeId;
use llm_config_shared::name::{EdgeName, Environment, Tenant};
use llm_config_shared::store::{Page, Paged};
use serde::Serialize;
use uuid::Uuid;

use super::admin::AdminService;
use super::admin_types::{
    ChangeBody, EdgeBody, EnvironmentBody, EnvironmentRequest, FleetBody, JoinTokenBody, JoinTokenRequest,
    RegionsBody, SubscriptionRequest, TenantBody, TenantRequest, TokenBody, TokenRequest,
};
use super::answer::{ErrorBody, more};
use super::error::ApiError;
use super::extract::{Names, json};
use super::query::Query;
use super::router::routed;
use super::service::{Call, Caller};
use super::value_routes::{PAGE_LIMIT, PAGE_LIMIT_MAX};

type Result<T> = std::result::Result<T, ApiError>;
type Service<A> = State<Arc<A>>;

/// The routes, to be given their service.
pub fn admin_routes<A: AdminService>() -> Router<Arc<A>> {
    routed::<__path_create_join_token, _, Arc<A>>(create_join_token::<A>)
        .merge(routed::<__path_list_tokens, _, Arc<A>>(list_tokens::<A>))
        .merge(routed::<__path_create_token, _, Arc<A>>(create_token::<A>))
        .merge(routed::<__path_remove_token, _, Arc<A>>(remove_token::<A>))
        .merge(routed::<__path_list_tenants, _, Arc<A>>(list_tenants::<A>))
        .merge(routed::<__path_create_tenant, _, Arc<A>>(create_tenant::<A>))
        .merge(routed::<__path_get_regions, _, Arc<A>>(get_regions::<A>))
        .merge(routed::<__path_list_environments, _, Arc<A>>(list_environments::<A>))
        .merge(routed::<__path_get_environment, _, Arc<A>>(get_environment::<A>))
        .merge(routed::<__path_put_environment, _, Arc<A>>(put_environment::<A>))
        .merge(routed::<__path_list_edges, _, Arc<A>>(list_edges::<A>))
        .merge(routed::<__path_get_edge, _, Arc<A>>(get_edge::<A>))
        .merge(routed::<__path_patch_edge, _, Arc<A>>(patch_edge::<A>))
        .merge(routed::<__path_remove_edge, _, Arc<A>>(remove_edge::<A>))
        .merge(routed::<__path_fleet, _, Arc<A>>(fleet::<A>))
        .merge(routed::<__path_list_changes, _, Arc<A>>(list_changes::<A>))
        .merge(routed::<__path_get_change, _, Arc<A>>(get_change::<A>))
}

#[utoipa::path(post, path = "/api/v1/join-tokens", operation_id = "createJoinToken", tag = "fleet",
    request_body = JoinTokenRequest,
    responses((status = 200, body = JoinTokenBody), (status = 403, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn create_join_token<A: AdminService>(
    State(service): Service<A>,
    call: Call,
) -> Result<Json<JoinTokenBody>> {
    let request = json::<JoinTokenRequest>(&call.original.body)?.parse()?;
    Ok(Json(service.create_join_token(&call.caller, request).await?.into()))
}

#[utoipa::path(get, path = "/api/v1/tokens", operation_id = "listTokens", tag = "access",
    responses((status = 200, body = Vec<TokenBody>)))]
async fn list_tokens<A: AdminService>(
    State(service): Service<A>,
    caller: Caller,
) -> Result<Json<Vec<TokenBody>>> {
    let tokens = service.tokens(&caller).await?;
    Ok(Json(tokens.into_iter().map(TokenBody::from).collect()))
}

#[utoipa::path(post, path = "/api/v1/tokens", operation_id = "createToken", tag = "access",
    request_body = TokenRequest,
    responses((status = 200, body = TokenBody), (status = 403, body = ErrorBody)))]
async fn create_token<A: AdminService>(State(service): Service<A>, call: Call) -> Result<Json<TokenBody>> {
    let request = json::<TokenRequest>(&call.original.body)?.parse()?;
    Ok(Json(service.create_token(&call.caller, request).await?.into()))
}

#[utoipa::path(delete, path = "/api/v1/tokens/{id}", operation_id = "removeToken", tag = "access",
    params(("id" = String, Path)), responses((status = 204), (status = 404, body = ErrorBody)))]
async fn remove_token<A: AdminService>(
    State(service): Service<A>,
    Names(id): Names<String>,
    caller: Caller,
) -> Result<StatusCode> {
    service.remove_token(&caller, uuid(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn uuid(text: &str) -> Result<Uuid> {
    Uuid::try_parse(text).map_err(|_| ApiError::bad_request("id must be a UUID").detail("field", "id"))
}

#[utoipa::path(get, path = "/api/v1/tenants", operation_id = "listTenants", tag = "access",
    responses((status = 200, body = Vec<TenantBody>)))]
async fn list_tenants<A: AdminService>(
    State(service): Service<A>,
    caller: Caller,
) -> Result<Json<Vec<TenantBody>>> {
    let tenants = service.tenants(&caller).await?;
    Ok(Json(tenants.into_iter().map(TenantBody::from).collect()))
}

#[utoipa::path(post, path = "/api/v1/tenants", operation_id = "createTenant", tag = "access",
    request_body = TenantRequest,
    responses((status = 200, body = TenantBody), (status = 409, body = ErrorBody)))]
async fn create_tenant<A: AdminService>(State(service): Service<A>, call: Call) -> Result<Json<TenantBody>> {
    let request: TenantRequest = json(&call.original.body)?;
    let tenant = Tenant::parse(&request.name)?;
    Ok(Json(service.create_tenant(&call.caller, tenant).await?.into()))
}

#[utoipa::path(get, path = "/api/v1/regions", operation_id = "getRegions", tag = "access",
    responses((status = 200, body = RegionsBody)))]
async fn get_regions<A: AdminService>(
    State(service): Service<A>,
    caller: Caller,
) -> Result<Json<RegionsBody>> {
    Ok(Json(service.regions(&caller).await?.into()))
}

#[utoipa::path(get, path = "/api/v1/environments", operation_id = "listEnvironments", tag = "environments",
    responses((status = 200, body = Vec<EnvironmentBody>)))]
async fn list_environments<A: AdminService>(
    State(service): Service<A>,
    caller: Caller,
) -> Result<Json<Vec<EnvironmentBody>>> {
    Ok(Json(EnvironmentBody::all(&service.environments(&caller).await?)))
}

#[utoipa::path(get, path = "/api/v1/environments/{name}", operation_id = "getEnvironment", tag = "environments",
    params(("name" = String, Path)),
    responses((status = 200, body = EnvironmentBody), (status = 404, body = ErrorBody)))]
async fn get_environment<A: AdminService>(
    State(service): Service<A>,
    Names(name): Names<String>,
    caller: Caller,
) -> Result<Json<EnvironmentBody>> {
    let name = Environment::parse(&name)?;
    let environments = service.environments(&caller).await?;
    if !environments.contains(&name) {
        return Err(ApiError::not_found(format!("environment {name} does not exist")));
    }
    Ok(Json(EnvironmentBody::of(&name, &environments)))
}

#[utoipa::path(put, path = "/api/v1/environments/{name}", operation_id = "setEnvironment", tag = "environments",
    params(("name" = String, Path)), request_body = EnvironmentRequest,
    responses((status = 200, body = EnvironmentBody), (status = 422, body = ErrorBody)))]
async fn put_environment<A: AdminService>(
    State(service): Service<A>,
    Names(name): Names<String>,
    call: Call,
) -> Result<Json<EnvironmentBody>> {
    let name = Environment::parse(&name)?;
    let request: EnvironmentRequest = json(&call.original.body)?;
    let parent = request.parent.as_deref().map(Environment::parse).transpose()?;
    let environments = service.set_environment(&call.caller, name.clone(), parent).await?;
    Ok(Json(EnvironmentBody::of(&name, &environments)))
}

#[utoipa::path(get, path = "/api/v1/edges", operation_id = "listEdges", tag = "fleet",
    responses((status = 200, body = Vec<EdgeBody>, description = "By name, removed ones too")))]
async fn list_edges<A: AdminService>(
    State(service): Service<A>,
    caller: Caller,
) -> Result<Json<Vec<EdgeBody>>> {
    let edges = service.edges(&caller).await?;
    Ok(Json(edges.into_iter().map(EdgeBody::from).collect()))
}

#[utoipa::path(get, path = "/api/v1/edges/{name}", operation_id = "getEdge", tag = "fleet",
    params(("name" = String, Path)), responses((status = 200, body = EdgeBody), (status = 404, body = ErrorBody)))]
async fn get_edge<A: AdminService>(
    State(service): Service<A>,
    Names(name): Names<String>,
    caller: Caller,
) -> Result<Json<EdgeBody>> {
    Ok(Json(service.edge(&caller, EdgeName::parse(&name)?).await?.into()))
}

#[utoipa::path(patch, path = "/api/v1/edges/{name}", operation_id = "changeSubscription", tag = "fleet",
    params(("name" = String, Path)), request_body = SubscriptionRequest,
    responses((status = 200, body = EdgeBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn patch_edge<A: AdminService>(
    State(service): Service<A>,
    Names(name): Names<String>,
    call: Call,
) -> Result<Json<EdgeBody>> {
    let name = EdgeName::parse(&name)?;
    let changed = json::<SubscriptionRequest>(&call.original.body)?.parse()?;
    Ok(Json(service.change_subscription(&call.caller, name, changed).await?.into()))
}

#[utoipa::path(delete, path = "/api/v1/edges/{name}", operation_id = "removeEdge", tag = "fleet",
    params(("name" = String, Path)), responses((status = 204), (status = 404, body = ErrorBody)))]
async fn remove_edge<A: AdminService>(
    State(service): Service<A>,
    Names(name): Names<String>,
    caller: Caller,
) -> Result<StatusCode> {
    service.remove_edge(&caller, EdgeName::parse(&name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(get, path = "/api/v1/fleet", operation_id = "getFleet", tag = "fleet",
    responses((status = 200, body = FleetBody)))]
async fn fleet<A: AdminService>(State(service): Service<A>, caller: Caller) -> Result<Json<FleetBody>> {
    Ok(Json(service.fleet(&caller).await?.into()))
}

pub(super) fn page(mut query: Query) -> Result<Page> {
    let limit = query.limit(PAGE_LIMIT, PAGE_LIMIT_MAX)?;
    let page = Page { before: query.number("cursor")?, limit };
    query.end()?;
    Ok(page)
}

pub(super) fn paged<T, B: Serialize + From<T>>(paged: Paged<T>, uri: &Uri) -> Response {
    let rows: Vec<B> = paged.rows.into_iter().map(B::from).collect();
    let mut response = Json(rows).into_response();
    if let Some(next) = paged.next {
        more(&mut response, uri, &next.to_string());
    }
    response
}

#[utoipa::path(get, path = "/api/v1/changes", operation_id = "listChanges", tag = "changes",
    params(("limit" = Option<u64>, Query), ("cursor" = Option<u64>, Query)),
    responses((status = 200, body = Vec<ChangeBody>, description = "Newest first")))]
async fn list_changes<A: AdminService>(
    State(service): Service<A>,
    query: Query,
    uri: Uri,
    caller: Caller,
) -> Result<Response> {
    let changes = service.changes(&caller, page(query)?).await?;
    Ok(paged::<_, ChangeBody>(changes, &uri))
}

#[utoipa::path(get, path = "/api/v1/changes/{id}", operation_id = "getChange", tag = "changes",
    params(("id" = String, Path)), responses((status = 200, body = ChangeBody), (status = 404, body = ErrorBody)))]
async fn get_change<A: AdminService>(
    State(service): Service<A>,
    Names(id): Names<String>,
    caller: Caller,
) -> Result<Json<ChangeBody>> {
    Ok(Json(service.change(&caller, ChangeId(uuid(&id)?)).await?.into()))
}
