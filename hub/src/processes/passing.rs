//! API requests that write, at a process that does not lead: answered by the one that does, as if it had been asked.
//!
//! Only what goes through the writer is passed on. Reads, streams and what is kept beside entries are the database's,
//! which all processes share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequest as _, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, Method, header};
use llm_config_proto::rest::answer::{POSITION, passed_on};
use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::position;
use llm_config_proto::rest::service::Call;
use llm_config_proto::sync::{Asker, PassedRequest};
use llm_config_shared::replication::frame;
use llm_config_shared::stamp::ActorId;
use zeroize::Zeroizing;

use super::line::Line;
use crate::tail::Tail;
use crate::writer::WriterHandle;

/// How long an answer waits for this process to hear of the write that it is about.
const CATCH_UP_MAX: Duration = Duration::from_secs(2);

/// How a request came, where not through the door of the API.
#[derive(Clone, Debug)]
pub enum Through {
    /// An edge's session asks for a caller of the edge.
    Edge { edge: ActorId, caller: Arc<str> },
    /// Another process of the hub passed it on: it goes no further.
    Process,
    /// Another region passed it on, to the home of the fleet's tables: it is answered here or not at all.
    Region,
}

/// What passing on takes.
#[derive(Clone)]
pub struct Passing {
    writer: WriterHandle,
    line: Arc<Line>,
    tail: Arc<Tail>,
}

impl Passing {
    /// Where `writer` says that another process leads, over `line`.
    pub fn new(writer: WriterHandle, line: Arc<Line>, tail: Arc<Tail>) -> Self {
        Self { writer, line, tail }
    }

    /// The writer of this process.
    pub fn writer(&self) -> &WriterHandle {
        &self.writer
    }

    async fn answer(&self, request: Request) -> Result<Response, ApiError> {
        let answer = self.line.pass(passed(request).await?).await;
        let answer = answer.map_err(|error| ApiError::unavailable(error.to_string(), 1))?;
        self.catch_up(&answer).await;
        Ok(passed_on(answer))
    }

    /// Whoever wrote through this process reads here what they wrote, and whoever follows changes from here on is not told
    /// of it as of something new. A process that does not hear of it in time answers all the same: it is written.
    async fn catch_up(&self, answer: &frame::Response) {
        let said = answer.headers.iter().find(|(name, _)| POSITION == **name);
        let Some(written) = said.and_then(|(_, token)| position::parse(token).ok()) else { return };
        let mut heads = self.tail.subscribe();
        let covered = heads.wait_for(|head| head.vector().covers(&written));
        if tokio::time::timeout(CATCH_UP_MAX, covered).await.is_err() {
            tracing::warn!("this process has not heard of a write that was passed on; it is behind");
        }
    }
}

/// The request as it is passed on, to another process of this hub.
pub(crate) async fn passed(request: Request) -> Result<PassedRequest, ApiError> {
    let asker = asker(&request)?;
    let call = Call::from_request(request, &()).await?;
    let target = call.original.uri.path_and_query().map_or("/", |target| target.as_str());
    Ok(PassedRequest {
        method: call.original.method.as_str().into(),
        target: target.into(),
        body: call.original.body,
        asker,
        from_region: false,
    })
}

/// For whom the request is: whoever the guard let through, by their own token.
fn asker(request: &Request) -> Result<Asker, ApiError> {
    match request.extensions().get() {
        Some(Through::Edge { edge, caller }) => Ok(Asker::Edge { edge: *edge, caller: Arc::clone(caller) }),
        Some(Through::Process | Through::Region) => Err(ApiError::unavailable(
            "this process of the hub does not lead any more; nothing was written",
            1,
        )),
        None => by_token(request.headers(), request.extensions().get::<ConnectInfo<SocketAddr>>()),
    }
}

fn by_token(headers: &HeaderMap, from: Option<&ConnectInfo<SocketAddr>>) -> Result<Asker, ApiError> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match (authorization, from) {
        (Some(text), Some(from)) => {
            Ok(Asker::Token { authorization: Zeroizing::new(text.to_owned()), address: from.0.ip() })
        }
        _ => Err(ApiError::unauthorized("this request needs an API token")),
    }
}

/// Passes on what writes, where another process leads.
pub async fn pass_on(State(passing): State<Passing>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    // What comes from another region is about tables that every process of this one may write.
    let from_region = matches!(request.extensions().get(), Some(Through::Region));
    if reads || from_region || !passing.writer.role().is_elsewhere() {
        return next.run(request).await;
    }
    passing.answer(request).await.unwrap_or_else(ApiError::into_response)
}
