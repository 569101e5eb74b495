//! What somebody carried from the hub to this edge in a file.
//!
//! The file is kept aside first and looked through to its end: only when every byte of it is as the hub made it, anything of it
//! is taken. It may be large, and is never in memory as a whole.

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::Caller;
use llm_config_proto::sync::Piece;
use llm_config_shared::parcel::{Cover, HUB_DOMAIN, Label, ParcelError, Unpacker, read_cover};
use llm_config_shared::removal::{CARRIED, verify_removal};
use llm_config_shared::replication::edge::Carried;
use llm_config_shared::replication::frame::{EdgeFrame, HubFrame};
use llm_config_shared::seal::SealKey;
use llm_config_shared::secret::open_file_key;
use llm_config_shared::segment::VerificationKeys;
use llm_config_shared::signed::verify_statement;
use serde_json::json;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::StreamExt as _;

use super::service::EdgeService;
use crate::daemon::carrying::Applied;
use crate::offline::Receiver;
use crate::wipe;

/// The file as it is looked through.
pub(crate) const SPOOL: &str = "carried";
const FILE_BYTES_MAX: u64 = 4 << 30;
/// Frames that wait for the loop.
const FRAMES_MAX: usize = 8;

/// One file at a time.
static TURN: Mutex<()> = Mutex::const_new(());

/// Takes it, and answers what came of it.
pub(super) async fn apply(State(service): State<Arc<EdgeService>>, caller: Caller, body: Body) -> Response {
    match taken(&service, &caller, body).await {
        Ok(Outcome::Applied(applied)) => {
            let secrets = service.reporter.status().await.secrets;
            let limit = applied.limit.as_ref().map(|limit| match limit {
                Ok(()) => "taken".to_owned(),
                Err(error) => error.to_string(),
            });
            axum::Json(json!({
                "entries": applied.entries,
                "as_of": applied.as_of.map(|at| at.to_rfc3339()),
                "offline_limit": limit,
                "pending": applied.progress.undecided,
                "secrets": secrets,
            }))
            .into_response()
        }
        Ok(Outcome::Removed) => axum::Json(json!({ "removed": true })).into_response(),
        Err(error) => error.into_response(),
    }
}

enum Outcome {
    Applied(Box<Applied>),
    /// The hub's word that this edge was removed: it is wiped.
    Removed,
}

/// What a file begins with.
enum Beginning {
    Session(Box<Carried>),
    Removal(Bytes),
}

async fn taken(service: &EdgeService, caller: &Caller, body: Body) -> Result<Outcome, ApiError> {
    if !caller.reveal {
        return Err(ApiError::forbidden("you may not see secrets in clear, so you may not unlock them"));
    }
    let _turn = TURN.try_lock().map_err(|_| ApiError::conflict("another file is being taken in"))?;
    let spool = Spool(service.reporter.directory().join(SPOOL));
    keep(&spool.0, body).await?;
    let reading = Reading {
        path: spool.0.clone(),
        receiver: service.reporter.receiver().clone(),
        keys: service.reporter.verification_keys(),
    };
    let checked = reading.clone();
    let (label, beginning) = blocking(move || checked.check()).await??;
    let carried = match beginning {
        Beginning::Session(carried) => carried,
        Beginning::Removal(statement) => {
            let Receiver { tenant, edge, .. } = &reading.receiver;
            verify_removal(&statement, &reading.keys, tenant, *edge, CARRIED).map_err(|error| {
                ApiError::conflict(format!("something in the file was not taken: {error}"))
            })?;
            drop(spool);
            return wipe(service).map(|()| Outcome::Removed);
        }
    };
    let now = service.clock.wall();
    if label.not_after < now {
        let until = label.not_after.to_rfc3339();
        return Err(ApiError::conflict(format!("the file was good until {until}; have a new one made")));
    }
    let (frames, receiver) = mpsc::channel(FRAMES_MAX);
    let feeding = tokio::task::spawn_blocking(move || reading.feed(&frames));
    let applied = service.handle.carry(carried, receiver).await;
    // Where the loop took nothing, the channel is closed and it ends. What could not be read again is why nothing was taken.
    feeding.await.map_err(|_| ApiError::internal("reading the file failed"))??;
    let applied = applied.map_err(|error| ApiError::unavailable(error.to_string(), 1))?;
    Ok(Outcome::Applied(Box::new(applied.map_err(|error| ApiError::conflict(error.to_string()))?)))
}

/// From here on a start of the daemon finishes what was begun.
fn wipe(service: &EdgeService) -> Result<(), ApiError> {
    let failed = |error: &dyn std::error::Error| ApiError::internal(error.to_string());
    let reporter = &service.reporter;
    wipe::begin(reporter.directory(), &reporter.identity(), reporter.keys(), service.clock.wall())
        .map_err(|error| failed(&error))?;
    tracing::warn!("a file says that the hub has removed this edge; its data is destroyed now");
    service.stop.cancel();
    Ok(())
}

/// The file on the disk, which goes when it was looked through.
struct Spool(PathBuf);

impl Drop for Spool {
    fn drop(&mut self) {
        // One that stays is overwritten by the next.
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn keep(path: &Path, body: Body) -> Result<(), ApiError> {
    let failed = |error: &dyn std::fmt::Display| {
        ApiError::unavailable_now(format!("the file cannot be kept while it is looked through: {error}"))
    };
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).map_err(|error| failed(&error))?;
    let mut parts = body.into_data_stream();
    let mut length = 0;
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| ApiError::bad_request("the file ended before it was complete"))?;
        length += part.len() as u64;
        if length > FILE_BYTES_MAX {
            return Err(ApiError::too_large(format!("the file is larger than {FILE_BYTES_MAX} bytes")));
        }
        file =
            blocking(move || file.write_all(&part).map(|()| file)).await?.map_err(|error| failed(&error))?;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::internal("reading the file failed"))
}

/// Everything that a file is read with.
#[derive(Clone)]
struct Reading {
    path: PathBuf,
    receiver: Receiver,
    keys: VerificationKeys,
}

impl Reading {
    /// Looks through all of it.
    fn check(&self) -> Result<(Label, Beginning), ApiError> {
        let (label, mut pieces) = self.open()?;
        let beginning = match next(&mut pieces)? {
            Some(Piece::FromEdge(EdgeFrame::Subscribe { feeds: from, .. })) => match next(&mut pieces)? {
                Some(Piece::FromHub(HubFrame::Welcome(welcome))) => {
                    Beginning::Session(Box::new(Carried { from, welcome }))
                }
                Some(_) | None => return Err(senseless()),
            },
            Some(Piece::Removal(statement)) => Beginning::Removal(statement),
            Some(_) | None => return Err(senseless()),
        };
        while let Some(piece) = next(&mut pieces)? {
            if !matches!(piece, Piece::FromHub(_)) {
                return Err(senseless());
            }
        }
        Ok((label, beginning))
    }

    /// Hands the frames behind the beginning to the loop, until that wants no more.
    ///
    /// # Errors
    /// When what was looked through once cannot be read again; the loop then finds an end before the transfer's.
    fn feed(&self, frames: &mpsc::Sender<HubFrame>) -> Result<(), ApiError> {
        let (_, mut pieces) = self.open()?;
        while let Some(piece) = next(&mut pieces)? {
            match piece {
                Piece::FromHub(HubFrame::Welcome(_)) | Piece::FromEdge(_) | Piece::Removal(_) => {}
                Piece::FromHub(frame) => {
                    if frames.blocking_send(frame).is_err() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn open(&self) -> Result<(Label, Unpacker<BufReader<File>>), ApiError> {
        let unreadable = |error: ParcelError| ApiError::conflict(error.to_string());
        let file = File::open(&self.path).map_err(|error| unreadable(ParcelError::Io(error)))?;
        let mut file = BufReader::new(file);
        let signed = Bytes::from(read_cover(&mut file).map_err(unreadable)?);
        let body = verify_statement(HUB_DOMAIN, &signed, &self.keys)
            .map_err(|error| ApiError::conflict(format!("the file is not from this edge's hub: {error}")))?;
        let Cover { label, key } =
            Cover::decode(&body).map_err(|error| ApiError::conflict(error.to_string()))?;
        if label.tenant != self.receiver.tenant || label.edge != self.receiver.edge {
            return Err(ApiError::conflict("the file was made for another edge"));
        }
        let opened = self.receiver.sealing.open(|private| open_file_key(&key, &label.bytes(), private));
        let (key, _): (SealKey, _) = opened.map_err(|_| {
            ApiError::conflict("the file was made for an earlier key of this edge; have a new one made")
        })?;
        Ok((label, Unpacker::new(file, key, &signed)))
    }
}

fn senseless() -> ApiError {
    ApiError::conflict("the file makes no sense to this program; it may be of a newer one")
}

fn next(pieces: &mut Unpacker<BufReader<File>>) -> Result<Option<Piece>, ApiError> {
    let piece = pieces.next_piece().map_err(|error| ApiError::conflict(error.to_string()))?;
    piece.map(|piece| Piece::decode(&piece).map_err(|_| senseless())).transpose()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use llm_config_shared::name::Tenant;
    use llm_config_shared::stamp::ActorId;
    use uuid::Uuid;

    use super::*;
    use crate::keys::SealingKeys;

    #[test]
    fn what_cannot_be_read_again_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let sealing = Arc::new(SealingKeys::from_seed([9; 32]));
        let receiver =
            Receiver { tenant: Tenant::parse("t").unwrap(), edge: ActorId(Uuid::from_u128(7)), sealing };
        let reading = Reading { path: folder.path().join(SPOOL), receiver, keys: VerificationKeys::new([]) };
        let (frames, _taken) = mpsc::channel(FRAMES_MAX);
        let error = reading.feed(&frames).unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
        std::fs::write(&reading.path, b"cut").unwrap();
        let error = reading.feed(&frames).unwrap_err();
        assert!(!error.to_string().contains("No such file"), "{error}");
    }
}
