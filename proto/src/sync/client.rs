//! The edge's end: one connection to a hub, in domain types.
//!
//! A connection is made once and never behind the caller's back: whoever backs off has to know of every attempt.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use llm_config_shared::limits::FRAME_BYTES_MAX;
use llm_config_shared::replication::frame::{EdgeFrame, HubFrame};
use llm_config_shared::stamp::ActorId;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::enrol::{Challenge, EnrollReply, EnrollRequest, RenewReply, RenewRequest, WipeReport};
use super::entry::InvalidMessage;
use super::status::{SyncRefusal, refusal};
use super::wire;
use super::wire::sync_client::SyncClient;
use crate::tls::{Alpn, HUB_SERVER_NAME, Identity, TlsError, Trust, client_config};

const WINDOW_BYTES: u32 = 1 << 20;
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Connecting, handshake and each call but the stream.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the hub says, until the session ends. After an error nothing follows.
pub type HubFrames = Pin<Box<dyn Stream<Item = Result<HubFrame, SyncError>> + Send>>;

/// Whom to connect to, and as whom.
#[derive(Clone)]
pub struct Dial {
    /// `HOST:PORT`. The name in the hub's certificate is always [`HUB_SERVER_NAME`].
    pub address: String,
    pub trust: Trust,
    /// None for joining and renewing.
    pub identity: Option<Identity>,
}

/// Why a hub gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("the hub at {address} cannot be reached: {source}")]
    Unreachable { address: String, source: io::Error },
    #[error("the hub's certificate is not trusted: {0}")]
    UntrustedHub(rustls::Error),
    /// Expired, or of another CA: renew it.
    #[error("the hub refuses this edge's certificate: {0}")]
    CertificateRefused(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Refused(#[from] SyncRefusal),
    #[error("the message was not understood: {0}")]
    Invalid(#[from] InvalidMessage),
    #[error("the connection was lost: {0}")]
    Lost(String),
}

impl SyncError {
    /// Refusals come back as they went; the rest is sorted by what lies behind it.
    pub(super) fn from_status(status: &Status) -> Self {
        if let Some(refusal) = refusal(status) {
            return Self::Refused(refusal);
        }
        match alert(status) {
            Some(alert) => Self::CertificateRefused(alert),
            None => Self::Lost(deepest(status)),
        }
    }
}

/// The TLS alert behind an error. In TLS 1.3 a client is done before the server has looked at its certificate, so the
/// refusal arrives with the first call.
fn alert(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut at = Some(error);
    while let Some(error) = at {
        let tls = match error.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
            None => error.downcast_ref(),
        };
        if let Some(rustls::Error::AlertReceived(alert)) = tls {
            return Some(format!("{alert:?}"));
        }
        at = error.source();
    }
    None
}

fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

/// One connection.
pub struct Client {
    wire: SyncClient<Channel>,
    ca_pem: Option<String>,
}

impl Client {
    /// Connects and shakes hands, both bounded in time. That the hub accepts the identity is only known when a call was
    /// answered.
    ///
    /// # Errors
    /// When the hub cannot be reached or is not trusted.
    pub async fn connect(dial: &Dial) -> Result<Self, SyncError> {
        let (channel, ca_pem) = connection(dial, KEEPALIVE).await?;
        let wire = SyncClient::new(channel)
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX);
        Ok(Self { wire, ca_pem })
    }

    /// The certificate of the CA that the hub was trusted by.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Presents a join token.
    ///
    /// # Errors
    /// When the hub refuses or the connection is lost.
    pub async fn enroll(&mut self, request: EnrollRequest) -> Result<EnrollReply, SyncError> {
        let call = self.wire.enroll(wire::EnrollRequest::from(request));
        Ok(answer(call).await?.try_into()?)
    }

    /// A nonce for [`Client::renew`].
    ///
    /// # Errors
    /// When the hub refuses or the connection is lost.
    pub async fn challenge(&mut self, edge: ActorId) -> Result<Challenge, SyncError> {
        let call = self.wire.challenge(wire::ChallengeRequest::from(edge));
        Ok(answer(call).await?.try_into()?)
    }

    /// New credentials for proof of possession.
    ///
    /// # Errors
    /// When the hub refuses or the connection is lost.
    pub async fn renew(&mut self, request: RenewRequest) -> Result<RenewReply, SyncError> {
        let call = self.wire.renew(wire::RenewRequest::from(request));
        Ok(answer(call).await?.try_into()?)
    }

    /// Says that this edge's data is destroyed.
    ///
    /// # Errors
    /// When the hub refuses or the connection is lost.
    pub async fn report_wipe(&mut self, report: WipeReport) -> Result<(), SyncError> {
        let call = self.wire.report_wipe(wire::WipeReport::from(report));
        answer(call).await?;
        Ok(())
    }

    /// Begins a session. `frames` ending ends the edge's half.
    ///
    /// # Errors
    /// When the hub refuses, the certificate is not accepted, or the connection is lost.
    pub async fn stream(
        &mut self,
        frames: impl Stream<Item = EdgeFrame> + Send + 'static,
    ) -> Result<HubFrames, SyncError> {
        let messages = answer(self.wire.stream(frames.map(wire::EdgeMessage::from))).await?;
        Ok(Box::pin(messages.map(|message| match message {
            Ok(message) => Ok(HubFrame::try_from(message)?),
            Err(status) => Err(SyncError::from_status(&status)),
        })))
    }
}

/// One connection, for the calls of a client, and the certificate of the CA that the hub was trusted by. A hub that is
/// silent for twice `keepalive` is given up.
pub(super) async fn connection(
    dial: &Dial,
    keepalive: Duration,
) -> Result<(Channel, Option<String>), SyncError> {
    let stream = open(dial).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let ca_pem = dial.trust.ca_pem(chain);
    let mut once = Some(TokioIo::new(stream));
    let connector = service_fn(move |_| {
        let stream = once.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(stream)
    });
    // The scheme is the transport's affair here: the stream above is TLS already.
    let channel = Endpoint::from_static("http://hub.llm-config.internal")
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES)
        .http2_keep_alive_interval(keepalive)
        .keep_alive_timeout(keepalive)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|error| SyncError::from_status(&Status::from_error(Box::new(error))))?;
    Ok((channel, ca_pem))
}

async fn answer<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, SyncError> {
    answer_within(TIMEOUT, call).await
}

pub(super) async fn answer_within<T>(
    time_max: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, SyncError> {
    match tokio::time::timeout(time_max, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(SyncError::from_status(&status)),
        Err(_) => Err(SyncError::Lost("the hub did not answer in time".into())),
    }
}

async fn open(dial: &Dial) -> Result<TlsStream<TcpStream>, SyncError> {
    let config = client_config(&dial.trust, dial.identity.as_ref(), Alpn::H2)?;
    let unreachable = |source| SyncError::Unreachable { address: dial.address.clone(), source };
    let connecting = async {
        let tcp = TcpStream::connect(&dial.address).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        let name = ServerName::try_from(HUB_SERVER_NAME).expect("a literal DNS name");
        TlsConnector::from(config).connect(name, tcp).await.map_err(|error| handshake_error(dial, error))
    };
    match tokio::time::timeout(TIMEOUT, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(unreachable(io::ErrorKind::TimedOut.into())),
    }
}

fn handshake_error(dial: &Dial, error: io::Error) -> SyncError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => SyncError::CertificateRefused(format!("{alert:?}")),
        Some(tls) => SyncError::UntrustedHub(tls.clone()),
        None => SyncError::Unreachable { address: dial.address.clone(), source: error },
    }
}
