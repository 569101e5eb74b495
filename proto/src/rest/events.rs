//! Changes as server-sent events (WHATWG HTML, section 9.2).

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use llm_config_shared::vector::Vector;
use tokio_stream::StreamExt;

use super::position;
use super::service::{Events, Told};
use super::types::{ClashBody, EventBody, ExpiryEventBody, HeldEventBody};

/// A line so often keeps proxies from closing a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn event_stream(events: Events) -> Response {
    let lines = events.map(|told| Ok::<_, Infallible>(event(told)));
    let mut response = Sse::new(lines).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn event(told: Told) -> Event {
    match told {
        Told::Change(change) => {
            let id = position::encode(&Vector::at(change.dot.shard, change.dot.position));
            let data = serde_json::to_string(&EventBody::from(change)).expect("text, numbers and a flag");
            Event::default().event("change").id(id).data(data)
        }
        Told::Reset(at) => {
            let id = position::encode(&at);
            let data = format!("{{\"position\":\"{id}\"}}");
            Event::default().event("reset").id(id).data(data)
        }
        Told::Conflict(clash) => {
            let id = clash.position.as_ref().map(position::encode);
            let data = serde_json::to_string(&ClashBody::from(clash)).expect("text and numbers");
            let event = Event::default().event("conflict").data(data);
            match id {
                Some(id) => event.id(id),
                None => event,
            }
        }
        Told::Held(held) => {
            let data = serde_json::to_string(&HeldEventBody::from(held)).expect("text");
            Event::default().event("held").data(data)
        }
        Told::Expiry(notice) => {
            let data = serde_json::to_string(&ExpiryEventBody::from(notice)).expect("text and numbers");
            Event::default().event("expiry").data(data)
        }
    }
}
