//! The line to the process that leads: opened when something is to be passed on, kept, and dropped with its leader.

use std::sync::Arc;
use std::time::Duration;

use llm_config_proto::sync::{Dial, HubsClient, PassedRequest, RefusalKind, SyncError, SyncRefusal};
use llm_config_proto::tls::Trust;
use llm_config_shared::newer::Taken;
use llm_config_shared::replication::admit::{HandIn, Upload};
use llm_config_shared::replication::frame::Response;
use llm_config_shared::write::Answer;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::{ProcessAt, Role};
use crate::clock;
use crate::identity::Identity;
use crate::identity::ca::CaError;
use crate::writer::{WriteError, WriterHandle};

/// How long an edge's writes wait for somebody to lead. After that the edge comes again by itself.
const UPLOAD_WAIT_MAX: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// Why nobody else answered.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("no process of this hub is known to lead; nothing was written; try again in a second")]
    NoLeader,
    #[error(
        "the process of this hub that leads cannot be reached; nothing was written; try again in a second"
    )]
    Unreachable(#[source] SyncError),
    #[error("another process of this hub is about to lead; nothing was written; try again in a second")]
    Moved,
    #[error("the process of this hub that leads does not take it ({0}); nothing was written")]
    Refused(SyncRefusal),
    #[error(
        "the process of this hub that leads was lost; whether it wrote is not known; try again in a second"
    )]
    Lost(#[source] SyncError),
    #[error(
        "who leads this hub has changed; whether the one before wrote is not known; try again in a second"
    )]
    Replaced,
    #[error("the hub cannot make a certificate for itself")]
    Certificate(#[from] CaError),
}

impl LineError {
    /// Whether the same may be asked again without being done twice.
    pub fn is_nothing_done(&self) -> bool {
        match self {
            Self::NoLeader | Self::Unreachable(_) | Self::Moved | Self::Refused(_) | Self::Certificate(_) => {
                true
            }
            Self::Lost(_) | Self::Replaced => false,
        }
    }

    fn outcome(&self) -> &'static str {
        if self.is_nothing_done() { "refused" } else { "lost" }
    }
}

impl From<SyncError> for LineError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Refused(refusal) if refusal.kind == RefusalKind::Busy => Self::Moved,
            SyncError::Refused(refusal) if refusal.kind != RefusalKind::Internal => Self::Refused(refusal),
            SyncError::Unreachable { .. } | SyncError::UntrustedHub(_) | SyncError::Tls(_) => {
                Self::Unreachable(error)
            }
            // A certificate is refused by an alert, which may also come later than the call.
            SyncError::Refused(_)
            | SyncError::CertificateRefused(_)
            | SyncError::Invalid(_)
            | SyncError::Lost(_) => Self::Lost(error),
        }
    }
}

/// Why an edge's writes were not decided.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error(transparent)]
    Here(#[from] WriteError),
    #[error(transparent)]
    There(#[from] LineError),
}

/// To the process that leads, from one that does not.
pub struct Line {
    me: Uuid,
    role: watch::Receiver<Role>,
    identity: Arc<Identity>,
    open: Mutex<Option<(ProcessAt, HubsClient)>>,
}

impl Line {
    /// `role` says who leads; `me` is this process.
    pub fn new(me: Uuid, role: watch::Receiver<Role>, identity: Arc<Identity>) -> Self {
        Self { me, role, identity, open: Mutex::default() }
    }

    /// Has an API client's request answered.
    ///
    /// # Errors
    /// When it was not, or nobody knows.
    pub async fn pass(&self, request: PassedRequest) -> Result<Response, LineError> {
        self.ask("request", |mut leader| async move { leader.pass(request).await }).await
    }

    /// Decides an edge's writes, here or at the process that leads. Waits for somebody to lead, as long as it is certain
    /// that nobody has decided them yet.
    ///
    /// # Errors
    /// When they were not decided, or nobody knows. Sent again in another session they are recognised.
    pub async fn upload(&self, writer: &WriterHandle, upload: Upload) -> Result<Vec<Answer>, UploadError> {
        let until = Instant::now() + UPLOAD_WAIT_MAX;
        loop {
            let elsewhere = self.role.borrow().is_elsewhere();
            let decided = if elsewhere {
                let upload = &upload;
                let there = self.ask("upload", |mut leader| async move { leader.admit(upload).await });
                there.await.map_err(UploadError::from)
            } else {
                writer.upload(upload.clone()).await.map_err(UploadError::from)
            };
            match decided {
                Err(error) if error.is_worth_another_attempt() && Instant::now() < until => {
                    pause().await;
                }
                decided => return decided,
            }
        }
    }

    /// Judges what an edge hands in of a loss, here or at the process that leads, as [`upload`](Self::upload) does.
    ///
    /// # Errors
    /// When it was not judged, or nobody knows. Given again it is recognised.
    pub async fn take_in(&self, writer: &WriterHandle, hand_in: HandIn) -> Result<Taken, UploadError> {
        let until = Instant::now() + UPLOAD_WAIT_MAX;
        loop {
            let elsewhere = self.role.borrow().is_elsewhere();
            let taken = if elsewhere {
                let hand_in = &hand_in;
                let there = self.ask("hand-in", |mut leader| async move { leader.take_in(hand_in).await });
                there.await.map_err(UploadError::from)
            } else {
                writer.take_in(hand_in.clone()).await.map_err(UploadError::from)
            };
            match taken {
                Err(error) if error.is_worth_another_attempt() && Instant::now() < until => pause().await,
                taken => return taken,
            }
        }
    }

    /// One call, given up when another process takes the lead: the one that was called may never answer.
    async fn ask<T, F: Future<Output = Result<T, SyncError>>>(
        &self,
        what: &'static str,
        call: impl FnOnce(HubsClient) -> F,
    ) -> Result<T, LineError> {
        let answered = self.called(call).await;
        let outcome = answered.as_ref().map_or_else(LineError::outcome, |_| "answered");
        metrics::counter!("hub_passed_on_total", "what" => what, "outcome" => outcome).increment(1);
        match &answered {
            Ok(_) => {}
            // Many at once while nobody leads, and each caller is told.
            Err(error) if error.is_nothing_done() => {
                tracing::debug!(what, %error, cause = cause(error), "not passed on")
            }
            Err(error) => tracing::info!(what, %error, cause = cause(error), "passed on, and not answered"),
        }
        answered
    }

    async fn called<T, F: Future<Output = Result<T, SyncError>>>(
        &self,
        call: impl FnOnce(HubsClient) -> F,
    ) -> Result<T, LineError> {
        let mut role = self.role.clone();
        let leader = role.borrow_and_update().leader().cloned().ok_or(LineError::NoLeader)?;
        let asked = async {
            let client = self.client(&leader).await?;
            let answer = call(client).await.map_err(LineError::from);
            if matches!(answer, Err(LineError::Unreachable(_) | LineError::Lost(_))) {
                self.hang_up(&leader).await;
            }
            answer
        };
        let replaced = async { drop(role.wait_for(|role| role.leader() != Some(&leader)).await) };
        tokio::select! {
            answer = asked => answer,
            () = replaced => {
                self.hang_up(&leader).await;
                Err(LineError::Replaced)
            }
        }
    }

    async fn client(&self, leader: &ProcessAt) -> Result<HubsClient, LineError> {
        let mut open = self.open.lock().await;
        if let Some((at, client)) = &*open
            && at == leader
        {
            return Ok(client.clone());
        }
        let ca = self.identity.ca();
        let dial = Dial {
            address: leader.address.trim_start_matches("https://").to_owned(),
            trust: Trust::Ca { pem: ca.pem() },
            identity: Some(ca.issue_process(self.me, clock::now())?),
        };
        let client = HubsClient::connect(&dial).await?;
        *open = Some((leader.clone(), client.clone()));
        Ok(client)
    }

    /// The next call connects anew.
    async fn hang_up(&self, leader: &ProcessAt) {
        self.open.lock().await.take_if(|(at, _)| at == leader);
    }
}

async fn pause() {
    tokio::time::sleep(PAUSE.mul_f64(1.0 + 3.0 * rand::random::<f64>())).await;
}

fn cause(error: &LineError) -> Option<String> {
    std::error::Error::source(error).map(ToString::to_string)
}

impl UploadError {
    fn is_worth_another_attempt(&self) -> bool {
        match self {
            Self::Here(error) => *error == WriteError::Moved,
            Self::There(error) => {
                matches!(error, LineError::NoLeader | LineError::Unreachable(_) | LineError::Moved)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_certainly_not_done_is_tried_again() {
        let again = |error: SyncError| {
            let error = LineError::from(error);
            (error.is_nothing_done(), UploadError::There(error).is_worth_another_attempt())
        };
        let refused = |kind| SyncError::Refused(SyncRefusal::new(kind, "why"));
        let source = std::io::ErrorKind::ConnectionRefused.into();
        assert_eq!(again(SyncError::Unreachable { address: "a".into(), source }), (true, true));
        assert_eq!(again(refused(RefusalKind::Busy)), (true, true), "it does not lead, or has no room");
        assert_eq!(again(refused(RefusalKind::Removed)), (true, false));
        // A session's first upload twice in that session would look like one of a copied replica.
        assert_eq!(
            again(refused(RefusalKind::Internal)),
            (false, false),
            "its database broke during the commit"
        );
        assert_eq!(again(SyncError::Lost("reset".into())), (false, false));
        assert_eq!(again(SyncError::CertificateRefused("expired".into())), (false, false));
        assert!(!UploadError::There(LineError::Replaced).is_worth_another_attempt());
        assert!(UploadError::Here(WriteError::Moved).is_worth_another_attempt());
        assert!(!UploadError::Here(WriteError::Unavailable).is_worth_another_attempt());
    }
}
