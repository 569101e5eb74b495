//! What somebody carries from this edge to its hub: the writes that wait, what it holds and who uses it, in a file.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use llm_config_proto::possession::carried_message;
use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::Caller;
use llm_config_proto::sync::Piece;
use llm_config_shared::limits::CARRIED_MS;
use llm_config_shared::parcel::{Cover, Label, Packer};
use llm_config_shared::replication::frame::EdgeFrame;
use llm_config_shared::seal::SealKey;
use llm_config_shared::secret::seal_file_key;
use llm_config_shared::time::UnixMillis;

use super::service::EdgeService;
use crate::uses;

/// Makes the file.
pub(super) async fn carry(State(service): State<Arc<EdgeService>>, caller: Caller) -> Response {
    match carried(&service, &caller).await {
        Ok((file, writes, left)) => {
            let head = [
                ("content-type", "application/octet-stream".to_owned()),
                ("x-config-writes", writes.to_string()),
                ("x-config-writes-left", left.to_string()),
            ];
            (head, file).into_response()
        }
        Err(error) => error.into_response(),
    }
}

async fn carried(service: &EdgeService, caller: &Caller) -> Result<(Vec<u8>, usize, usize), ApiError> {
    if !caller.reveal {
        return Err(ApiError::forbidden("you may not see what others wrote here"));
    }
    let reporter = &service.reporter;
    let hub_key = reporter.hub_key().ok_or_else(|| {
        ApiError::conflict("this edge has not heard yet to which key of its hub such a file is sealed")
    })?;
    let exported = service.handle.export().await;
    let exported = exported.map_err(|error| ApiError::unavailable(error.to_string(), 1))?;
    let exported = exported.map_err(|error| ApiError::conflict(error.to_string()))?;
    let (writes, left) = (exported.writes.len(), exported.left);
    let now = service.clock.wall();
    let receiver = reporter.receiver();
    let label = Label {
        tenant: receiver.tenant.clone(),
        edge: receiver.edge,
        issued_at: now,
        not_after: UnixMillis(now.0 + CARRIED_MS),
    };
    let key = SealKey::new(rand::random());
    let sealed = seal_file_key(&key, &label.bytes(), &hub_key, &mut rand::rng())
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let cover = Cover { label, key: sealed };
    let signed = cover
        .signed_by_edge(|body| reporter.keys().sign(&carried_message(body)))
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let (mut packer, mut file) = Packer::new(key, &signed);
    // Who uses what here has nobody else to tell of it.
    let uses = uses::request(&service.uses, false).map(|request| EdgeFrame::Call { id: 0, request });
    for frame in exported.into_frames().into_iter().chain(uses) {
        file.extend(packer.pack(&Piece::FromEdge(frame).encode()));
    }
    file.extend(packer.end());
    Ok((file, writes, left))
}
