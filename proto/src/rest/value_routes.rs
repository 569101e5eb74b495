//! The routes about values, generic over the service: the hub's and the edge's are these.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CONTENT_TYPE, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use llm_config_shared::name::{EdgeName, Key, Namespace, Subtree};
use llm_config_shared::store::Page;

use super::answer::{ErrorBody, json_text, more, respond, tagged};
use super::diff::PatchOperation;
use super::error::{ApiError, ErrorKind};
use super::events::event_stream;
use super::explain::{ExplainEntry, ExplainedBody};
use super::extract::{Names, json};
use super::likely::looks_like_a_secret;
use super::position;
use super::query::Query;
use super::requests::{BulkRequestBody, OptionsBody, SetBody};
use super::router::routed;
use super::service::{
    BulkAction, Call, ConfigService, DeleteEntry, Deleted, Demand, Entry, EntryPage, Follow, GetDiff,
    GetEntry, GetHistory, ListEntries, NewValue, RollbackEntry, Served, Shown, Target, Written,
};
use super::types::{BulkBody, EntryBody, EventBody, PastBody, PendingBody, bulk_answer, patch_of, raw};

/// How many entries a list shows unless asked, and at most.
pub const LIST_LIMIT: usize = 1_000;
/// See [`LIST_LIMIT`].
pub const LIST_LIMIT_MAX: usize = 5_000;
/// How many versions, changes or conflicts are shown unless asked.
pub const PAGE_LIMIT: usize = 100;
/// See [`PAGE_LIMIT`].
pub const PAGE_LIMIT_MAX: usize = 1_000;

type Result<T = Response> = std::result::Result<T, ApiError>;
type Service<S> = State<Arc<S>>;
type Pair = Names<(String, String)>;

/// The routes, to be given their service.
pub fn value_routes<S: ConfigService>() -> Router<Arc<S>> {
    routed::<__path_get_entry, _, Arc<S>>(get_entry::<S>)
        .merge(routed::<__path_put_entry, _, Arc<S>>(put_entry::<S>))
        .merge(routed::<__path_post_entry, _, Arc<S>>(put_entry::<S>))
        .merge(routed::<__path_delete_entry, _, Arc<S>>(delete_entry::<S>))
        .merge(routed::<__path_list_entries, _, Arc<S>>(list_entries::<S>))
        .merge(routed::<__path_explain, _, Arc<S>>(explain::<S>))
        .merge(routed::<__path_history, _, Arc<S>>(history::<S>))
        .merge(routed::<__path_rollback, _, Arc<S>>(rollback::<S>))
        .merge(routed::<__path_diff, _, Arc<S>>(diff::<S>))
        .merge(routed::<__path_events, _, Arc<S>>(events::<S>))
        .merge(routed::<__path_metrics, _, Arc<S>>(metrics::<S>))
        .route("/api/v1/metrics", axum::routing::get(metrics::<S>))
        // A namespace may be called `bulk`: the path is that of a list, and only POST means the operations.
        .route("/api/v1/configs/{namespace}", axum::routing::post(bulk::<S>))
}

pub(super) fn target(names: (String, String), query: &mut Query) -> Result<Target> {
    let (namespace, key) = parse_names(&names)?;
    Ok(Target { namespace, key, environment: query.environment()? })
}

fn parse_names((namespace, key): &(String, String)) -> Result<(Namespace, Key)> {
    Ok((Namespace::parse(namespace)?, Key::parse(key)?))
}

fn demand(query: &mut Query) -> Result<Demand> {
    let at_least = query.text("at_least").map(|token| {
        position::parse(&token)
            .map_err(|error| ApiError::bad_request(error.to_string()).detail("field", "at_least"))
    });
    Ok(Demand { at_least: at_least.transpose()?, max_staleness_ms: query.duration_ms("max_staleness")? })
}

fn page(query: &mut Query) -> Result<Page> {
    let limit = query.limit(PAGE_LIMIT, PAGE_LIMIT_MAX)?;
    Ok(Page { before: query.number("cursor")?, limit })
}

/// Names the content, not the place of the copy: equal on every replica.
fn tag(entry: &Entry) -> String {
    let shown = match entry.value {
        Shown::Plain(_) | Shown::Masked => "",
        Shown::Revealed(_) => ".clear",
    };
    format!("\"{}.{}{shown}\"", entry.id().simple(), entry.version)
}

#[utoipa::path(get, path = "/api/v1/configs/{namespace}/{key}", operation_id = "getEntry", tag = "values",
    params(("namespace" = String, Path, description = "Folder path, percent-encoded"), ("key" = String, Path),
        ("env" = Option<String>, Query), ("resolve" = Option<bool>, Query, description = "Follow inheritance"),
        ("with_overrides" = Option<bool>, Query, description = "The same as resolve"),
        ("version" = Option<u64>, Query), ("reveal" = Option<bool>, Query, description = "Show a secret in clear"),
        ("at_least" = Option<String>, Query, description = "Wait for this position"),
        ("max_staleness" = Option<String>, Query, description = "Refuse to answer from older data, as 30s")),
    responses((status = 200, body = EntryBody), (status = 304), (status = 404, body = ErrorBody),
        (status = 423, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn get_entry<S: ConfigService>(
    State(service): Service<S>,
    Names(names): Pair,
    mut query: Query,
    headers: HeaderMap,
    call: Call,
) -> Result {
    let request = GetEntry {
        target: target(names, &mut query)?,
        resolve: query.flag("resolve")? | query.flag("with_overrides")?,
        version: query.number("version")?,
        reveal: query.flag("reveal")?,
        demand: demand(&mut query)?,
    };
    query.end()?;
    let served = service.get(&call, request).await?;
    Ok(respond(served, |entry| {
        // What waits at an edge has no version of its own yet, so nothing may be kept under one.
        if entry.pending {
            return Json(EntryBody::from(entry)).into_response();
        }
        let (tag, known) = (tag(&entry), headers.get(IF_NONE_MATCH));
        tagged(&tag, known, || Json(EntryBody::from(entry)).into_response())
    }))
}

fn written(served: Served<Written>, warnings: Vec<String>) -> Response {
    respond(served, |written| match written {
        Written::Applied(entry) => {
            let tag = tag(&entry);
            let mut body = EntryBody::from(entry);
            body.warnings = warnings;
            tagged(&tag, None, || Json(body).into_response())
        }
        Written::Pending(pending) => {
            let mut body = PendingBody::from(pending);
            body.warnings = warnings;
            (StatusCode::ACCEPTED, Json(body)).into_response()
        }
    })
}

#[utoipa::path(put, path = "/api/v1/configs/{namespace}/{key}", operation_id = "setEntry", tag = "values",
    params(("namespace" = String, Path), ("key" = String, Path), ("env" = Option<String>, Query)),
    request_body = SetBody,
    responses((status = 200, body = EntryBody), (status = 202, body = PendingBody, description = "Waits at the edge"),
        (status = 400, body = ErrorBody), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 413, body = ErrorBody), (status = 422, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn put_entry<S: ConfigService>(
    State(service): Service<S>,
    Names(names): Pair,
    mut query: Query,
    call: Call,
) -> Result {
    let (namespace, key) = parse_names(&names)?;
    let environment = query.environment()?;
    query.end()?;
    let request = json::<SetBody>(&call.original.body)?.parse(namespace, key, environment)?;
    let warnings = warnings(&request.target.key, &request.value);
    Ok(written(service.set(&call, request).await?, warnings))
}

/// What the author of a value may want to think over.
fn warnings(key: &Key, value: &NewValue) -> Vec<String> {
    let NewValue::Plain { value, .. } = value else { return Vec::new() };
    let looks = looks_like_a_secret(key, value).map(|why| {
        format!("the value {why}, and is kept in the clear; set it as a secret to have it encrypted")
    });
    looks.into_iter().collect()
}

/// The same as PUT.
#[utoipa::path(post, path = "/api/v1/configs/{namespace}/{key}", operation_id = "postEntry", tag = "values",
    params(("namespace" = String, Path), ("key" = String, Path), ("env" = Option<String>, Query)),
    request_body = SetBody,
    responses((status = 200, body = EntryBody), (status = 202, body = PendingBody, description = "Waits at the edge")))]
#[expect(dead_code, reason = "carries the description; PUT's handler serves both")]
fn post_entry() {}

#[utoipa::path(delete, path = "/api/v1/configs/{namespace}/{key}", operation_id = "deleteEntry", tag = "values",
    params(("namespace" = String, Path), ("key" = String, Path), ("env" = Option<String>, Query),
        ("if_version" = Option<u64>, Query), ("change_description" = Option<String>, Query)),
    responses((status = 204), (status = 202, body = PendingBody, description = "Waits at the edge"),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn delete_entry<S: ConfigService>(
    State(service): Service<S>,
    Names(names): Pair,
    query: Query,
    call: Call,
) -> Result {
    let (target, options) = options(&names, query, &call)?;
    let served = service.delete(&call, DeleteEntry { target, options }).await?;
    Ok(respond(served, |deleted| match deleted {
        Deleted::Applied => StatusCode::NO_CONTENT.into_response(),
        Deleted::Pending(pending) => (StatusCode::ACCEPTED, Json(PendingBody::from(pending))).into_response(),
    }))
}

/// Clients say these in the query, in a body, or not at all.
fn options(
    names: &(String, String),
    mut query: Query,
    call: &Call,
) -> Result<(Target, super::service::WriteOptions)> {
    let (namespace, key) = parse_names(names)?;
    let in_query = OptionsBody::of_query(&mut query)?;
    query.end()?;
    let body = &call.original.body;
    let in_body = if body.is_empty() { OptionsBody::default() } else { json(body)? };
    in_body.or(in_query).parse(namespace, key)
}

#[utoipa::path(get, path = "/api/v1/configs/{namespace}", operation_id = "listEntries", tag = "values",
    params(("namespace" = String, Path), ("env" = Option<String>, Query), ("recursive" = Option<bool>, Query),
        ("prefix" = Option<String>, Query, description = "Keys that begin so"), ("tag" = Option<String>, Query),
        ("resolve" = Option<bool>, Query), ("reveal" = Option<bool>, Query),
        ("format" = Option<String>, Query, description = "`object`: values by key, instead of an array of entries"),
        ("limit" = Option<u64>, Query), ("cursor" = Option<String>, Query, description = "From X-Next-Cursor"),
        ("at_least" = Option<String>, Query), ("max_staleness" = Option<String>, Query)),
    responses((status = 200, body = Vec<EntryBody>), (status = 503, body = ErrorBody)))]
async fn list_entries<S: ConfigService>(
    State(service): Service<S>,
    Names(namespace): Names<String>,
    mut query: Query,
    call: Call,
) -> Result {
    let namespace = Namespace::parse(&namespace)?;
    let as_object = match query.text("format").as_deref() {
        None | Some("array") => false,
        Some("object") => true,
        Some(_) => {
            return Err(ApiError::bad_request("format must be array or object").detail("field", "format"));
        }
    };
    let request = ListEntries {
        namespace: namespace.clone(),
        environment: query.environment()?,
        recursive: query.flag("recursive")?,
        prefix: query.text("prefix"),
        tag: query.text("tag"),
        resolve: query.flag("resolve")? | query.flag("with_overrides")?,
        reveal: query.flag("reveal")?,
        limit: query.limit(LIST_LIMIT, LIST_LIMIT_MAX)?,
        after: query.text("cursor").map(|cursor| parse_cursor(&cursor)).transpose()?,
        demand: demand(&mut query)?,
    };
    query.end()?;
    let served = service.list(&call, request).await?;
    Ok(respond(served, |EntryPage { entries, next }| {
        let mut response = if as_object {
            Json(object(&namespace, &entries)).into_response()
        } else {
            Json(entries.into_iter().map(EntryBody::from).collect::<Vec<_>>()).into_response()
        };
        if let Some((namespace, key)) = next {
            let cursor = URL_SAFE_NO_PAD.encode(format!("{namespace} {key}"));
            more(&mut response, &call.original.uri, &cursor);
        }
        response
    }))
}

/// Values by key; what lies deeper by its path below the namespace.
fn object(
    namespace: &Namespace,
    entries: &[Entry],
) -> std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> {
    let name = |entry: &Entry| {
        let path = entry.at.scope.namespace.as_str();
        match path.strip_prefix(namespace.as_str()).and_then(|rest| rest.strip_prefix('/')) {
            Some(below) => format!("{below}/{}", entry.at.key),
            None => entry.at.key.to_string(),
        }
    };
    entries.iter().map(|entry| (name(entry), raw(&entry.value))).collect()
}

/// Neither part has a space.
fn parse_cursor(cursor: &str) -> Result<(Namespace, Key)> {
    let invalid =
        || ApiError::bad_request("cursor is not one that this service gave").detail("field", "cursor");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid())?;
    let text = String::from_utf8(bytes).map_err(|_| invalid())?;
    let (namespace, key) = text.split_once(' ').ok_or_else(invalid)?;
    let parsed = (Namespace::parse(namespace), Key::parse(key));
    let (Ok(namespace), Ok(key)) = parsed else { return Err(invalid()) };
    Ok((namespace, key))
}

#[utoipa::path(get, path = "/api/v1/configs/{namespace}/{key}/explain", operation_id = "explainEntry", tag = "values",
    params(("namespace" = String, Path), ("key" = String, Path), ("env" = Option<String>, Query),
        ("edge" = Option<String>, Query, description = "As readers at this edge get it; a hub knows of all"),
        ("at_least" = Option<String>, Query), ("max_staleness" = Option<String>, Query)),
    responses((status = 200, body = ExplainedBody, description = "Where a reader looks, whether or not there is anything"),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn explain<S: ConfigService>(
    State(service): Service<S>,
    Names(names): Pair,
    mut query: Query,
    call: Call,
) -> Result {
    let request = ExplainEntry {
        target: target(names, &mut query)?,
        edge: query.parsed("edge", EdgeName::parse)?,
        demand: demand(&mut query)?,
    };
    query.end()?;
    let served = service.explain(&call, request).await?;
    Ok(respond(served, |explained| Json(ExplainedBody::from(explained)).into_response()))
}

#[utoipa::path(get, path = "/api/v1/configs/{namespace}/{key}/history", operation_id = "getHistory", tag = "values",
    params(("namespace" = String, Path), ("key" = String, Path), ("env" = Option<String>, Query),
        ("reveal" = Option<bool>, Query), ("limit" = Option<u64>, Query), ("cursor" = Option<u64>, Query)),
    responses((status = 200, body = Vec<PastBody>, description = "Newest first, losers of conflicts included"),
        (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn history<S: ConfigService>(
    State(service): Service<S>,
    Names(names): Pair,
    mut query: Query,
    call: Call,
) -> Result {
    let request = GetHistory {
        target: target(names, &mut query)?,
        reveal: query.flag("reveal")?,
        page: page(&mut query)?,
    };
    query.end()?;
    let served = service.history(&call, request).await?;
    Ok(respond(served, |paged| {
        let rows: Vec<PastBody> = paged.rows.into_iter().map(PastBody::from).collect();
        let mut response = Json(rows).into_response();
        if let Some(next) = paged.next {
            more(&mut response, &call.original.uri, &next.to_string());
        }
        response
    }))
}

#[utoipa::path(post, path = "/api/v1/configs/{namespace}/{key}/rollback/{version}", operation_id = "rollbackEntry",
    tag = "values", request_body(content = Option<OptionsBody>),
    params(("namespace" = String, Path), ("key" = String, Path), ("version" = u64, Path),
        ("env" = Option<String>, Query), ("if_version" = Option<u64>, Query)),
    responses((status = 200, body = EntryBody, description = "A new version with the old value"),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn rollback<S: ConfigService>(
    State(service): Service<S>,
    Names((namespace, key, version)): Names<(String, String, String)>,
    query: Query,
    call: Call,
) -> Result {
    let version = version
        .parse()
        .map_err(|_| ApiError::bad_request("version must be a number").detail("field", "version"))?;
    let (target, options) = options(&(namespace, key), query, &call)?;
    Ok(written(service.rollback(&call, RollbackEntry { target, version, options }).await?, Vec::new()))
}

#[utoipa::path(get, path = "/api/v1/configs/{namespace}/{key}/diff", operation_id = "diffVersions", tag = "values",
    params(("namespace" = String, Path), ("key" = String, Path), ("from" = u64, Query), ("to" = u64, Query),
        ("env" = Option<String>, Query)),
    responses((status = 200, body = Vec<PatchOperation>, description = "RFC 6902"),
        (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn diff<S: ConfigService>(
    State(service): Service<S>,
    Names(names): Pair,
    mut query: Query,
    call: Call,
) -> Result {
    let request = GetDiff {
        target: target(names, &mut query)?,
        from: query.required_number("from")?,
        to: query.required_number("to")?,
    };
    query.end()?;
    let served = service.diff(&call, request).await?;
    Ok(respond(served, |versions| Json(patch_of(&versions)).into_response()))
}

#[utoipa::path(post, path = "/api/v1/configs/bulk", operation_id = "bulk", tag = "values",
    request_body = BulkRequestBody,
    responses((status = 200, body = BulkBody), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 413, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn bulk<S: ConfigService>(
    State(service): Service<S>,
    Names(segment): Names<String>,
    query: Query,
    call: Call,
) -> Result {
    if segment != "bulk" {
        let message = "POST needs a key: /api/v1/configs/{namespace}/{key}";
        return Err(ApiError::new(ErrorKind::MethodNotAllowed, message));
    }
    query.end()?;
    let request = json::<BulkRequestBody>(&call.original.body)?.parse()?;
    let warnings = request.operations.iter().map(|operation| match &operation.action {
        BulkAction::Set { value, .. } => warnings(&operation.target.key, value),
        BulkAction::Delete => Vec::new(),
    });
    let warnings = warnings.collect();
    Ok(respond(service.bulk(&call, request).await?, |result| json_text(bulk_answer(result, warnings))))
}

#[utoipa::path(get, path = "/api/v1/events", operation_id = "followChanges", tag = "values",
    params(("namespace" = Option<String>, Query, description = "With everything below it"),
        ("env" = Option<String>, Query),
        ("after" = Option<String>, Query, description = "Continue after this position; also as Last-Event-ID")),
    responses((status = 200, content_type = "text/event-stream", body = EventBody,
        description = "`change` with an entry that changed, `reset` when changes were missed, `conflict` with two \
            writes that met (ClashBody), `held` with a write that waits for a person (HeldEventBody), and at the hub \
            `expiry` with a secret that expires soon (ExpiryEventBody)")))]
async fn events<S: ConfigService>(State(service): Service<S>, mut query: Query, request: Request) -> Result {
    let (parts, _) = request.into_parts();
    let caller = super::extract::caller(&parts)?;
    let last = parts.headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let after = query.text("after").or(last).map(|token| {
        position::parse(&token).map_err(|_| {
            ApiError::bad_request("after is not a position that this service gave").detail("field", "after")
        })
    });
    let follow = Follow {
        subtree: query.parsed("namespace", Subtree::parse)?,
        environment: query.environment()?,
        after: after.transpose()?,
    };
    query.end()?;
    let original =
        super::service::Original { method: parts.method, uri: parts.uri, body: bytes::Bytes::new() };
    Ok(event_stream(service.events(&Call { caller, original }, follow).await?))
}

#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "operations",
    responses((status = 200, content_type = "text/plain", body = String, description = "Prometheus text")))]
async fn metrics<S: ConfigService>(State(service): Service<S>, call: Call) -> Result {
    let text = service.metrics(&call).await?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
