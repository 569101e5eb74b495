//! Every request passes here: who is asking, by the kernel's word on the socket and by a token on TCP, and may they.

use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::AUTHORIZATION;
use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::router::is_public;
use llm_config_proto::rest::service::Caller;
use llm_config_shared::access::Role;
use llm_config_shared::name::Tenant;

use super::tcp::BearerToken;
use super::unix::Peer;

const ROOT: u32 = 0;

/// Who may come in through one window.
#[derive(Clone, Debug)]
pub(crate) enum Gate {
    /// Root and the daemon's own user; everybody else waits for a policy.
    Socket {
        own_uid: u32,
    },
    Token(BearerToken),
}

/// A gate and whose entries lie behind it.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) gate: Gate,
    pub(crate) tenant: Tenant,
}

impl Guard {
    fn admit(&self, request: &Request) -> Result<Caller, ApiError> {
        let name = match &self.gate {
            Gate::Socket { own_uid } => {
                let peer = request.extensions().get::<ConnectInfo<Peer>>();
                let uid = peer.and_then(|ConnectInfo(peer)| peer.uid);
                match uid {
                    Some(uid) if uid == ROOT || uid == *own_uid => format!("uid:{uid}"),
                    Some(uid) => {
                        return Err(ApiError::forbidden(format!(
                            "user {uid} may not use this edge: only root and user {own_uid} may"
                        )));
                    }
                    None => return Err(ApiError::forbidden("the system does not say who you are")),
                }
            }
            Gate::Token(token) => {
                let header = request.headers().get(AUTHORIZATION).and_then(|header| header.to_str().ok());
                if !token.is_shown_in(header) {
                    return Err(ApiError::unauthorized("this request needs the edge's token"));
                }
                "token:local".to_owned()
            }
        };
        Ok(Caller {
            tenant: self.tenant.clone(),
            name: name.into(),
            role: Role::Writer,
            read: None,
            write: None,
            reveal: true,
        })
    }
}

/// Lets in whom the gate admits, under the name that it gives them.
pub(crate) async fn guard(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    match guard.admit(&request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(_) if is_public(request.method(), request.uri().path()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}
