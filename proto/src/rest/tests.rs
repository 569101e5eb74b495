//! The routes over a service of one entry: shapes, headers, and what bad input gets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{HeaderMap, Request};
use llm_config_shared::access::Role;
use llm_config_shared::entry::{Author, ChangeId, ChangeType, Metadata, Status};
use llm_config_shared::limits::VALUE_BYTES_MAX;
use llm_config_shared::name::{EntryKey, Environment, Tenant};
use llm_config_shared::replication::frame::Response;
use llm_config_shared::resolve::Looked;
use llm_config_shared::store::{Event, Paged};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::value::Value;
use llm_config_shared::vector::{Dot, Position, ShardId, Vector};
use serde_json::{Value as Json, json};
use tower::ServiceExt;
use uuid::Uuid;

use super::error::ApiError;
use super::explain::{ExplainEntry, Explained, Found, Place};
use super::service::*;
use super::*;

/// Keeps what was set last, under any name; keys that begin with `wait` are queued, `far` is answered elsewhere.
#[derive(Default)]
struct OneEntry(Mutex<Option<NewValue>>);

fn vector() -> Vector {
    Vector::at(ShardId(Uuid::from_u128(1)), Position { epoch: 1, seq: 7 })
}

fn at(call: &Call, target: &Target) -> Result<EntryKey, ApiError> {
    let environment =
        target.environment.clone().unwrap_or_else(|| Environment::parse("development").unwrap());
    if environment.as_str() == "nowhere" {
        return Err(ApiError::unknown_environment(&environment));
    }
    Ok(target.at(&call.caller.tenant, &environment))
}

fn entry(at: EntryKey, value: &NewValue, reveal: bool) -> Entry {
    let told = match value {
        NewValue::Plain { .. } => None,
        NewValue::Secret(secret) => Some(secret.told),
    };
    let value = match value {
        NewValue::Plain { value, .. } => Shown::Plain(value.clone()),
        NewValue::Secret(secret) if reveal => Shown::Revealed(secret.text.clone()),
        NewValue::Secret(_) => Shown::Masked,
    };
    let metadata = Metadata {
        created_at: UnixMillis(0),
        created_by: "token:t".into(),
        updated_at: UnixMillis(1_000),
        updated_by: "token:t".into(),
        tags: vec![],
        description: None,
    };
    Entry { at, origin: None, value, version: 3, metadata, told, pending: false }
}

fn past(value: &str) -> Past {
    Past {
        version: 2,
        value: Some(Shown::Plain(Value::parse(value).unwrap())),
        told: None,
        purged: false,
        author: Author { name: "token:t".into(), claimed: None },
        created_at: UnixMillis(0),
        message: Some("why".into()),
        change_type: ChangeType::Update,
        change: ChangeId(Uuid::from_u128(5)),
        made_in: None,
        status: Status::SupersededConcurrent,
        reason: None,
        settled: None,
    }
}

impl ConfigService for OneEntry {
    async fn get(&self, call: &Call, request: GetEntry) -> Answer<Entry> {
        if request.target.key.as_str() == "far" {
            let forwarded = call.to_request();
            let body = Bytes::from(format!("\"{} {}\"", forwarded.method, forwarded.target));
            let headers = vec![("x-config-age-ms".into(), "5".into()), ("connection".into(), "close".into())];
            return Ok(Served::Ready(Response { status: 200, headers, body }));
        }
        let at = at(call, &request.target)?;
        let held = self.0.lock().unwrap();
        let value = held.as_ref().ok_or_else(|| ApiError::not_found("no such entry"))?;
        let freshness = Freshness { age_ms: 12, source: Source::Replica };
        Ok(Answered::new(entry(at, value, request.reveal)).at(vector()).fresh(freshness).into())
    }

    async fn explain(&self, call: &Call, request: ExplainEntry) -> Answer<Explained> {
        let at = at(call, &request.target)?;
        let held = self.0.lock().unwrap();
        let held = held.as_ref().map(|value| entry(at.clone(), value, false));
        let place = |found: Found, entry| Place { at: at.clone(), found, entry };
        let looked = if held.is_some() { Looked::Used } else { Looked::Empty };
        let places = vec![place(Found::NotReceived, None), place(Found::Looked(looked), held)];
        Ok(Answered::new(Explained { at, edge: request.edge, places }).into())
    }

    async fn list(&self, call: &Call, request: ListEntries) -> Answer<EntryPage> {
        let target = |key: &str| Target {
            namespace: request.namespace.clone(),
            key: llm_config_shared::name::Key::parse(key).unwrap(),
            environment: request.environment.clone(),
        };
        let value = NewValue::Plain { value: Value::parse("1").unwrap(), over_secret: false };
        let entries = ["a", "b"].map(|key| entry(at(call, &target(key)).unwrap(), &value, false));
        let after = request.after.map(|(_, key)| key.to_string());
        let entries = entries.into_iter().filter(|e| after.as_deref() < Some(e.at.key.as_str()));
        let entries: Vec<Entry> = entries.take(request.limit).collect();
        let last = entries.last().map(|e| (e.at.scope.namespace.clone(), e.at.key.clone()));
        let next = last.filter(|(_, key)| key.as_str() == "a");
        Ok(Answered::new(EntryPage { entries, next }).into())
    }

    async fn set(&self, call: &Call, request: SetEntry) -> Answer<Written> {
        let at = at(call, &request.target)?;
        if let Some(expected) = request.options.if_version.filter(|version| *version != 3) {
            return Err(ApiError::version_mismatch(expected, 3));
        }
        if at.key.as_str().starts_with("wait") {
            let pending = Pending { at, place: 4, last_version: 0 };
            return Ok(Answered::new(Written::Pending(pending)).into());
        }
        let written = entry(at, &request.value, false);
        *self.0.lock().unwrap() = Some(request.value);
        Ok(Answered::new(Written::Applied(written)).of_change(ChangeId(Uuid::from_u128(5))).into())
    }

    async fn delete(&self, _: &Call, _: DeleteEntry) -> Answer<Deleted> {
        let gone = self.0.lock().unwrap().take();
        gone.map(|_| Answered::new(Deleted::Applied).into())
            .ok_or_else(|| ApiError::not_found("no such entry"))
    }

    async fn history(&self, _: &Call, request: GetHistory) -> Answer<Paged<Past>> {
        assert_eq!(request.page.limit, PAGE_LIMIT);
        Ok(Answered::new(Paged { rows: vec![past("1")], next: Some(9) }).into())
    }

    async fn rollback(&self, call: &Call, request: RollbackEntry) -> Answer<Written> {
        assert_eq!(request.options.claimed_user.as_deref(), Some("me"));
        let value = NewValue::Plain {
            value: Value::parse(&request.version.to_string()).unwrap(),
            over_secret: false,
        };
        Ok(Answered::new(Written::Applied(entry(at(call, &request.target)?, &value, false))).into())
    }

    async fn diff(&self, _: &Call, request: GetDiff) -> Answer<TwoVersions> {
        let shown = |version: u64| Some(Shown::Plain(Value::parse(&version.to_string()).unwrap()));
        Ok(Answered::new(TwoVersions { from: shown(request.from), to: shown(request.to), changed: true })
            .into())
    }

    async fn bulk(&self, _: &Call, request: Bulk) -> Answer<BulkResult> {
        let item = |operation: BulkOperation| BulkItem {
            outcome: match operation.action {
                BulkAction::Set { .. } => BulkOutcome::Set { version: 1 },
                BulkAction::Delete => BulkOutcome::Failed(ApiError::not_found("no such entry")),
            },
            target: operation.target,
        };
        let results = request.operations.into_iter().map(item).collect();
        let change = request.own.map(|own| own.change);
        Ok(Answered::new(BulkResult { change, dry_run: request.dry_run, results }).into())
    }

    async fn events(&self, call: &Call, follow: Follow) -> Result<Events, ApiError> {
        assert_eq!(follow.after, Some(vector()));
        let target = Target {
            namespace: llm_config_shared::name::Namespace::parse("app").unwrap(),
            key: llm_config_shared::name::Key::parse("k").unwrap(),
            environment: None,
        };
        let entry = at(call, &target)?;
        let clash = Told::Conflict(Clash {
            conflict: Some(Uuid::from_u128(6)),
            at: entry.clone(),
            winner_version: Some(4),
            loser_version: 3,
            winner: Some("token:t".into()),
            loser: Some("edge:e/uid:0".into()),
            position: Some(vector()),
        });
        let held = Told::Held(HeldAtHub { at: entry.clone(), reason: "its time is ahead".into() });
        let event = Event {
            at: entry,
            dot: Dot { shard: ShardId(Uuid::from_u128(1)), position: Position { epoch: 1, seq: 8 } },
            version: 1,
            change: ChangeId(Uuid::from_u128(5)),
            change_type: ChangeType::Create,
            secret: false,
            author: "token:t".into(),
            created_at: UnixMillis(0),
        };
        Ok(Box::pin(tokio_stream::iter([Told::Change(event), Told::Reset(vector()), clash, held])))
    }

    async fn health(&self) -> Health {
        Health {
            status: HealthStatus::Healthy,
            uptime_ms: 5_000,
            now: UnixMillis(0),
            ready: false,
            role: Some(HubRole::Follower),
            reasons: Vec::new(),
        }
    }

    async fn metrics(&self, _: &Call) -> Result<String, ApiError> {
        Ok("up 1\n".into())
    }
}

/// Every request has a caller, as behind a guard.
fn app() -> Router {
    let caller = Caller {
        tenant: Tenant::parse("default").unwrap(),
        name: "token:t".into(),
        role: Role::Writer,
        read: None,
        write: None,
        reveal: true,
    };
    let routes = router::value_routes::<OneEntry>().layer(axum::Extension(caller));
    let routes = routes.merge(router::health_routes::<OneEntry>()).with_state(Arc::new(OneEntry::default()));
    router::finish(routes.merge(router::document_routes(&openapi::edge_document())))
}

async fn ask(app: &Router, method: &str, target: &str, body: impl Into<Body>) -> (u16, HeaderMap, Json) {
    let request = Request::builder().method(method).uri(target).body(body.into()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let json = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into());
    (parts.status.as_u16(), parts.headers, json)
}

const MODEL: &str = "/api/v1/configs/app%2Fllm/model";

#[tokio::test]
async fn an_entry_comes_back_as_it_was_set() {
    let app = app();
    assert_eq!(ask(&app, "GET", MODEL, "").await.0, 404);
    let body = r#"{"value": {"big": 9007199254740993, "top_p": null}, "env": "production", "user": "me", "secret": false}"#;
    let (status, headers, entry) = ask(&app, "POST", MODEL, body).await;
    assert_eq!((status, &entry["namespace"], &entry["key"]), (200, &json!("app/llm"), &json!("model")));
    assert_eq!(entry["value"], json!({"big": 9_007_199_254_740_993_u64, "top_p": null}));
    assert_eq!((&entry["environment"], &entry["version"]), (&json!("production"), &json!(3)));
    assert_eq!(entry["metadata"]["created_at"], "1970-01-01T00:00:00.000Z");
    assert_eq!((&entry["metadata"]["tags"], &entry["metadata"]["description"]), (&json!([]), &Json::Null));
    assert_eq!(entry.get("secret"), None);
    assert_eq!(headers[answer::CHANGE], Uuid::from_u128(5).to_string());

    let (status, headers, read) = ask(&app, "GET", &format!("{MODEL}?env=prod&max_staleness=30s"), "").await;
    assert_eq!((status, &read), (200, &entry));
    assert_eq!(position::parse(headers[answer::POSITION].to_str().unwrap()), Ok(vector()));
    assert_eq!(
        (&headers[answer::AGE_MS], &headers[answer::SOURCE]),
        (&"12".parse().unwrap(), &"replica".parse().unwrap())
    );
    assert_eq!(ask(&app, "DELETE", MODEL, "").await.0, 204);
    assert_eq!(ask(&app, "DELETE", MODEL, "").await.0, 404);
}

#[tokio::test]
async fn secrets_are_masked_unless_revealed() {
    let app = app();
    let (status, _, entry) = ask(&app, "PUT", MODEL, r#"{"value": "sk-1", "secret": true}"#).await;
    assert_eq!((status, &entry["value"], &entry["secret"]), (200, &json!("<encrypted>"), &json!(true)));
    assert_eq!(ask(&app, "GET", &format!("{MODEL}?reveal=true"), "").await.2["value"], "sk-1");
    let (status, _, error) = ask(&app, "PUT", MODEL, r#"{"value": {"not": "text"}, "secret": true}"#).await;
    assert_eq!((status, &error["error"]), (400, &json!("Bad Request")));
}

#[tokio::test]
async fn a_write_that_waits_says_its_place() {
    let (status, _, body) = ask(&app(), "PUT", "/api/v1/configs/app/wait", r#"{"value": null}"#).await;
    assert_eq!((status, &body["pending"], &body["place"]), (202, &json!(true), &json!(4)));
    assert_eq!(body["version"], 0);
}

#[tokio::test]
async fn bad_input_is_refused_with_the_field_and_the_limit() {
    let app = app();
    let large = format!(r#"{{"value": "{}"}}"#, "x".repeat(VALUE_BYTES_MAX));
    let cases: [(&str, &str, u16, &str); 14] = [
        (MODEL, r#"{"value": 18446744073709551616}"#, 422, "value"),
        (MODEL, r#"{"value": {"a": 1, "a": 2}}"#, 422, "value"),
        (
            MODEL,
            r#"{"value": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}"#,
            422,
            "value",
        ),
        (MODEL, &large, 413, "value"),
        (MODEL, r#"{"valeu": 1}"#, 400, "body"),
        (MODEL, r#"{"value": 1"#, 400, "body"),
        (MODEL, r#"{"env": "base"}"#, 400, "body"),
        (MODEL, r#"{"value": 1, "env": "nowhere"}"#, 400, "env"),
        (MODEL, r#"{"value": 1, "ttl": 60}"#, 422, "ttl"),
        (MODEL, r#"{"value": "x", "secret": true, "secret_type": "jwt"}"#, 422, "secret_type"),
        (MODEL, r#"{"value": 1, "tags": [""]}"#, 422, "tags"),
        ("/api/v1/configs/app%2F..%2Fx/k", r#"{"value": 1}"#, 400, "namespace"),
        ("/api/v1/configs/app/a%20b", r#"{"value": 1}"#, 400, "key"),
        ("/api/v1/configs/app/k?enviroment=prod", r#"{"value": 1}"#, 400, "enviroment"),
    ];
    for (target, body, status, field) in cases {
        let (got, _, error) = ask(&app, "PUT", target, body.to_owned()).await;
        let shown = &body[..body.len().min(60)];
        assert_eq!((got, &error["details"]["field"]), (status, &json!(field)), "{shown}: {error}");
        assert!(error["error"].is_string() && error["message"].is_string(), "{error}");
    }
    let (status, _, error) = ask(&app, "PUT", MODEL, r#"{"value": 1, "if_version": 2}"#).await;
    assert_eq!((status, &error["details"]["current_version"]), (409, &json!(3)));
    let huge = vec![b' '; extract::BODY_BYTES_MAX + 1];
    assert_eq!(ask(&app, "PUT", MODEL, huge).await.0, 413);
    for (target, status) in
        [("/nowhere", 404), ("/api/v1/configs/a/b/c/d", 404), ("/api/v1/configs/app/%FF", 400)]
    {
        let (got, _, error) = ask(&app, "GET", target, "").await;
        assert_eq!((got, error["message"].is_string()), (status, true), "{target}");
    }
    let (status, _, error) = ask(&app, "PATCH", MODEL, "").await;
    assert_eq!((status, &error["error"]), (405, &json!("Method Not Allowed")));
    assert_eq!(ask(&app, "POST", "/api/v1/configs/app", "{}").await.0, 405);
}

#[tokio::test]
async fn names_are_decoded_once() {
    let (_, _, entry) = ask(&app(), "PUT", "/api/v1/configs/app/a%252Fb%3A%2F", r#"{"value": 1}"#).await;
    assert_eq!(entry["key"], "a%2Fb:/");
}

#[tokio::test]
async fn a_tag_that_is_known_gets_no_body() {
    let app = app();
    ask(&app, "PUT", MODEL, r#"{"value": 1}"#).await;
    let (_, headers, _) = ask(&app, "GET", MODEL, "").await;
    let request = Request::get(MODEL).header("if-none-match", &headers["etag"]).body(Body::empty()).unwrap();
    assert_eq!(app.oneshot(request).await.unwrap().status(), 304);
}

#[tokio::test]
async fn a_list_goes_on_where_the_link_says() {
    let app = app();
    let (status, headers, list) = ask(&app, "GET", "/api/v1/configs/app?limit=1&env=prod", "").await;
    assert_eq!((status, list.as_array().unwrap().len()), (200, 1));
    let link = headers["link"].to_str().unwrap();
    let next = link.trim_start_matches('<').split('>').next().unwrap();
    let (_, headers, list) = ask(&app, "GET", next, "").await;
    assert_eq!((list[0]["key"].as_str(), headers.get("link")), (Some("b"), None));
    let (_, _, object) = ask(&app, "GET", "/api/v1/configs/app?format=object", "").await;
    assert_eq!(object, json!({"a": 1, "b": 1}));
    assert_eq!(ask(&app, "GET", "/api/v1/configs/bulk", "").await.0, 200);
    assert_eq!(ask(&app, "GET", "/api/v1/configs/app?limit=0", "").await.0, 400);
    assert_eq!(ask(&app, "GET", "/api/v1/configs/app?cursor=abc", "").await.0, 400);
}

#[tokio::test]
async fn history_rollback_and_diff() {
    let app = app();
    let (_, headers, history) = ask(&app, "GET", &format!("{MODEL}/history?env=prod"), "").await;
    assert_eq!(headers[answer::NEXT_CURSOR], "9");
    let expected = json!([{"version": 2, "value": 1, "created_at": "1970-01-01T00:00:00.000Z", "created_by": "token:t",
        "change_description": "why", "change_type": "update", "change": Uuid::from_u128(5).to_string(),
        "status": "superseded_concurrent"}]);
    assert_eq!(history, expected);
    let (status, _, entry) =
        ask(&app, "POST", &format!("{MODEL}/rollback/1?env=prod"), r#"{"user": "me"}"#).await;
    assert_eq!((status, &entry["value"], &entry["environment"]), (200, &json!(1), &json!("production")));
    assert_eq!(ask(&app, "POST", &format!("{MODEL}/rollback/x"), "").await.0, 400);
    let (_, _, patch) = ask(&app, "GET", &format!("{MODEL}/diff?from=1&to=2"), "").await;
    assert_eq!(patch, json!([{"op": "replace", "path": "", "value": 2}]));
    assert_eq!(ask(&app, "GET", &format!("{MODEL}/diff?from=1"), "").await.0, 400);
}

#[tokio::test]
async fn a_bulk_request_answers_operation_by_operation() {
    let app = app();
    let body = json!({"operations": [
        {"op": "set", "namespace": "a", "key": "b", "env": "prod", "value": null},
        {"op": "delete", "namespace": "a", "key": "c"},
    ], "atomic": false, "change": Uuid::from_u128(5).to_string(), "batch": 2});
    let (status, _, answer) = ask(&app, "POST", "/api/v1/configs/bulk", body.to_string()).await;
    assert_eq!((status, &answer["succeeded"], &answer["failed"]), (200, &json!(1), &json!(1)));
    assert_eq!((&answer["results"][0]["status"], &answer["results"][0]["version"]), (&json!(200), &json!(1)));
    assert_eq!(
        (&answer["results"][1]["status"], &answer["results"][1]["error"]),
        (&json!(404), &json!("Not Found"))
    );
    let many = json!({"operations": vec![json!({"op": "delete", "namespace": "a", "key": "c"}); 501]});
    let (status, _, error) = ask(&app, "POST", "/api/v1/configs/bulk", many.to_string()).await;
    assert_eq!((status, &error["details"]["limit"]), (422, &json!(500)));
    let bad = json!({"operations": [{"op": "set", "namespace": "a", "key": "b"}]});
    let (status, _, error) = ask(&app, "POST", "/api/v1/configs/bulk", bad.to_string()).await;
    assert_eq!((status, &error["details"]), (400, &json!({"field": "value", "operation": 0})));
}

#[tokio::test]
async fn followers_hear_changes_as_events() {
    let app = app();
    let request = Request::get("/api/v1/events").header("last-event-id", position::encode(&vector()));
    let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    let lines: BTreeMap<&str, usize> =
        ["event: change", "event: conflict", "event: held", "event: reset", "id: "]
            .map(|l| (l, text.matches(l).count()))
            .into();
    assert_eq!(lines.into_values().collect::<Vec<_>>(), [1, 1, 1, 1, 3], "{text}");
    assert!(text.contains(r#""winner_version":4,"loser_version":3,"winner":"token:t""#), "{text}");
    assert!(text.contains(r#""reason":"its time is ahead""#), "{text}");
    assert!(text.contains(r#""namespace":"app""#), "{text}");
}

#[tokio::test]
async fn an_answer_made_elsewhere_goes_out_as_it_came() {
    let (status, headers, body) = ask(&app(), "GET", "/api/v1/configs/app/far?env=prod", "").await;
    assert_eq!((status, body), (200, json!("GET /api/v1/configs/app/far?env=prod")));
    assert_eq!((&headers["x-config-age-ms"], headers.get("connection")), (&"5".parse().unwrap(), None));
}

#[tokio::test]
async fn nothing_but_health_is_answered_without_a_caller() {
    let routes = router::value_routes::<OneEntry>().merge(router::health_routes::<OneEntry>());
    let app = router::finish(routes.with_state(Arc::new(OneEntry::default())));
    for target in [MODEL, "/api/v1/configs/app", "/metrics", "/api/v1/events"] {
        let (status, headers, error) = ask(&app, "GET", target, "").await;
        assert_eq!(
            (status, &error["error"], headers.contains_key("www-authenticate")),
            (401, &json!("Unauthorized"), true)
        );
    }
    let (status, _, health) = ask(&app, "GET", "/health", "").await;
    assert_eq!(
        (status, &health["status"], &health["service"]),
        (200, &json!("healthy"), &json!("llm-config-manager"))
    );
    assert_eq!((&health["uptime"], &health["role"]), (&json!(5), &json!("follower")));
    assert_eq!(ask(&app, "GET", "/health/live", "").await.0, 200);
    assert_eq!(ask(&app, "GET", "/health/ready", "").await.0, 503);
}
