//! Requests that only the hub can answer, in the words of the local caller.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use llm_config_proto::rest::answer::POSITION;
use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::position;
use llm_config_proto::rest::service::{Bulk, Call, Served};
use llm_config_shared::name::{Environment, Namespace};
use llm_config_shared::replication::frame::{Request, Response};
use llm_config_shared::vector::Vector;
use serde_json::value::RawValue;

use super::service::EdgeService;
use crate::daemon::handle::Unanswered;

/// How long the answer to a forwarded write is kept back until readers here see it.
const SEEN_HERE: Duration = Duration::from_secs(1);

type Members = BTreeMap<String, Box<RawValue>>;

impl EdgeService {
    /// The hub's answer. A request that names no environment means this edge's, which the hub has to be told.
    pub(super) async fn forward(&self, call: &Call, named: bool) -> Result<Response, ApiError> {
        let mut request = call.to_request();
        if !named {
            let separator = if request.target.contains('?') { '&' } else { '?' };
            let environment = self.view.default_environment();
            request.target = format!("{}{separator}env={environment}", request.target).into();
        }
        self.ask_hub(request).await
    }

    /// The same for a write, answered once readers here see it, if they do soon.
    pub(super) async fn forward_write<T>(
        &self,
        call: &Call,
        environment: Option<&Environment>,
        namespace: &Namespace,
    ) -> Result<Served<T>, ApiError> {
        let response = self.forward(call, environment.is_some()).await?;
        let environment = environment.cloned().unwrap_or_else(|| self.view.default_environment());
        self.see_here(&response, &[(environment, namespace.clone())]).await;
        Ok(Served::Ready(response))
    }

    /// Many operations; each that names no environment gets this edge's.
    pub(super) async fn forward_bulk<T>(&self, call: &Call, bulk: &Bulk) -> Result<Served<T>, ApiError> {
        let default = self.view.default_environment();
        let mut request = call.to_request();
        if bulk.operations.iter().any(|operation| operation.target.environment.is_none()) {
            request.body = with_environment(&request.body, &default)
                .ok_or_else(|| ApiError::bad_request("the body is not an object with operations"))?;
        }
        let response = self.ask_hub(request).await?;
        let place = |operation: &llm_config_proto::rest::service::BulkOperation| {
            let environment = operation.target.environment.clone().unwrap_or_else(|| default.clone());
            (environment, operation.target.namespace.clone())
        };
        let mut places: Vec<_> = bulk.operations.iter().map(place).collect();
        places.sort();
        places.dedup();
        self.see_here(&response, &places).await;
        Ok(Served::Ready(response))
    }

    async fn ask_hub(&self, request: Request) -> Result<Response, ApiError> {
        if !self.view.is_connected() {
            return Err(needs_hub());
        }
        self.handle.call(request).await.map_err(|error| match error {
            Unanswered::Unreachable => needs_hub(),
            Unanswered::Busy | Unanswered::Stopped | Unanswered::Late => {
                ApiError::unavailable(error.to_string(), 1)
            }
            Unanswered::Refused(refused) => ApiError::internal(refused.to_string()),
        })
    }

    async fn see_here(&self, response: &Response, places: &[(Environment, Namespace)]) {
        let header = response.headers.iter().find(|(name, _)| **name == *POSITION.as_str());
        let at = header.and_then(|(_, token)| position::parse(token).ok());
        let Some(at) = at.filter(|at: &Vector| response.status < 300 && !at.is_empty()) else { return };
        self.view
            .wait_until(SEEN_HERE, |view| {
                places.iter().all(|(environment, namespace)| {
                    view.reached(environment, namespace).is_none_or(|reached| reached.covers(&at))
                })
            })
            .await;
    }
}

pub(super) fn needs_hub() -> ApiError {
    ApiError::unavailable("this needs the hub, which cannot be reached now", 5).detail("hub", "unreachable")
}

/// Values stay the bytes that they were: only `env` is added where it is missing.
fn with_environment(body: &Bytes, environment: &Environment) -> Option<Bytes> {
    let mut members: Members = serde_json::from_slice(body).ok()?;
    let mut operations: Vec<Members> = serde_json::from_str(members.get("operations")?.get()).ok()?;
    let name = RawValue::from_string(format!("\"{environment}\"")).ok()?;
    for operation in &mut operations {
        if operation.get("env").is_none_or(|env| env.get() == "null") {
            operation.insert("env".into(), name.clone());
        }
    }
    let operations = serde_json::value::to_raw_value(&operations).ok()?;
    members.insert("operations".into(), operations);
    serde_json::to_vec(&members).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_added() {
        let body = Bytes::from_static(
            br#"{"atomic":true,"operations":[{"op":"set","value":18446744073709551615},{"env":"base","op":"delete"}]}"#,
        );
        let sent = with_environment(&body, &Environment::parse("production").unwrap()).unwrap();
        let text = std::str::from_utf8(&sent).unwrap();
        assert!(text.contains(r#""env":"production""#) && text.contains(r#""env":"base""#), "{text}");
        assert!(text.contains("18446744073709551615"), "{text}");
        assert_eq!(with_environment(&Bytes::from_static(b"[]"), &Environment::base()), None);
    }
}
