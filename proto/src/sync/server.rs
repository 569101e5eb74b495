//! The hub's end: services in domain types behind the generated ones.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use llm_config_shared::limits::FRAME_BYTES_MAX;
use llm_config_shared::newer::Taken;
use llm_config_shared::replication::admit::{HandIn, Upload};
use llm_config_shared::replication::frame::{EdgeFrame, HubFrame, Response as Answered};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::fleet::{FleetPage, RegionSeats};
use llm_config_shared::store::region::{KeyName, RegionAsk, RegionKey, RegionPage};
use llm_config_shared::vector::ShardId;
use llm_config_shared::write::Answer;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_stream::{Stream, StreamExt};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::client::SyncError;
use super::enrol::{Challenge, EnrollReply, EnrollRequest, RenewReply, RenewRequest, WipeReport};
use super::entry::InvalidMessage;
use super::fleet::{Joined, PassedJoin};
use super::hubs::{MESSAGE_BYTES_MAX, PassedRequest};
use super::status::SyncRefusal;
use super::wire::hubs_server::{Hubs as WireHubs, HubsServer};
use super::wire::sync_server::{Sync as WireService, SyncServer};
use super::{DESCRIPTORS, wire};

/// What an edge says, until it goes. After an error nothing follows.
pub type EdgeFrames = Pin<Box<dyn Stream<Item = Result<EdgeFrame, SyncError>> + Send>>;
/// What the hub says. The stream's end ends the call; it is only asked for more when the edge can take more.
pub type HubOut = Pin<Box<dyn Stream<Item = HubFrame> + Send>>;

/// Who is at the other end of the connection, as TLS knows it.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: Option<SocketAddr>,
    /// Leaf first, verified against the CA; none when the client showed no certificate.
    pub certificates: Option<Arc<Vec<CertificateDer<'static>>>>,
}

/// The sync service in domain types. Each call judges the peer by itself: a connection proves nothing.
pub trait SyncEndpoint: Send + Sync + 'static {
    /// Presents a join token; without a certificate.
    fn enroll(
        &self,
        peer: Peer,
        request: EnrollRequest,
    ) -> impl Future<Output = Result<EnrollReply, SyncRefusal>> + Send;
    /// A nonce for a renewal; without a certificate.
    fn challenge(
        &self,
        peer: Peer,
        edge: ActorId,
    ) -> impl Future<Output = Result<Challenge, SyncRefusal>> + Send;
    /// A renewal by proof of possession; without a certificate.
    fn renew(
        &self,
        peer: Peer,
        request: RenewRequest,
    ) -> impl Future<Output = Result<RenewReply, SyncRefusal>> + Send;
    /// A removed edge says that its data is destroyed; without a certificate.
    fn report_wipe(
        &self,
        peer: Peer,
        report: WipeReport,
    ) -> impl Future<Output = Result<(), SyncRefusal>> + Send;
    /// One session; only with the certificate of an edge that was not removed.
    fn stream(
        &self,
        peer: Peer,
        frames: EdgeFrames,
    ) -> impl Future<Output = Result<HubOut, SyncRefusal>> + Send;
}

/// What the process that leads does for the other processes of its hub.
pub trait HubsEndpoint: Send + Sync + 'static {
    /// Whether the peer is a process of this hub; asked before anything of a call is read.
    ///
    /// # Errors
    /// When it is not.
    fn judge(&self, peer: &Peer) -> Result<(), SyncRefusal>;
    /// Answers an API client's request. A refusal says that nothing was done.
    fn pass(&self, request: PassedRequest) -> impl Future<Output = Result<Answered, SyncRefusal>> + Send;
    /// Decides an edge's writes. A refusal as busy says that nothing was done.
    fn admit(&self, upload: Upload) -> impl Future<Output = Result<Vec<Answer>, SyncRefusal>> + Send;
    /// Gives the hub of another region the next part of this one's history.
    fn follow(&self, ask: RegionAsk) -> impl Future<Output = Result<RegionPage, SyncRefusal>> + Send;
    /// Gives the hub of another region keys of secrets, in the order of their names, behind one of them.
    fn keys(
        &self,
        after: Option<KeyName>,
    ) -> impl Future<Output = Result<Vec<RegionKey>, SyncRefusal>> + Send;
    /// Gives the hub of another region the next rows of the fleet's tables.
    fn fleet(&self, after: u64) -> impl Future<Output = Result<FleetPage, SyncRefusal>> + Send;
    /// Says which edges are connected here, to the hub of that region.
    fn seats(&self, region: ShardId) -> impl Future<Output = Result<RegionSeats, SyncRefusal>> + Send;
    /// Lets an edge in that joins at another region. A refusal says that nothing was done.
    fn join(&self, join: PassedJoin) -> impl Future<Output = Result<Joined, SyncRefusal>> + Send;
    /// Judges what an edge hands in of a loss. A refusal as busy says that nothing was done.
    fn take_in(&self, hand_in: HandIn) -> impl Future<Output = Result<Taken, SyncRefusal>> + Send;
}

/// Bounds of the front door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    pub streams_per_connection: u32,
    pub header_bytes: u32,
    pub keepalive: Duration,
    pub window_bytes: u32,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            streams_per_connection: 100,
            header_bytes: 16 << 10,
            keepalive: Duration::from_secs(20),
            window_bytes: 1 << 20,
        }
    }
}

/// The listener ended with an error.
#[derive(Debug, thiserror::Error)]
#[error("the sync listener failed: {0}")]
pub struct ServeError(#[from] tonic::transport::Error);

/// Serves edges, the hub's other processes, health and reflection on `connections` until `shutdown`, then waits for open
/// calls to end.
///
/// # Errors
/// When the transport fails as a whole.
pub async fn serve<E, H, C, F>(
    endpoint: Arc<E>,
    hubs: Arc<H>,
    connections: C,
    limits: ServerLimits,
    shutdown: F,
) -> Result<(), ServeError>
where
    E: SyncEndpoint,
    H: HubsEndpoint,
    C: Stream<Item = io::Result<TlsStream<TcpStream>>> + Send,
    F: Future<Output = ()> + Send,
{
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<SyncServer<Adapter<E>>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were written by the compiler of this build");
    let sync = SyncServer::new(Adapter { endpoint })
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX);
    let between_hubs = HubsServer::new(HubsAdapter { endpoint: Arc::clone(&hubs) })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let of_this_hub = move |request: Request<()>| {
        hubs.judge(&peer(&request))?;
        Ok(request)
    };
    Server::builder()
        .max_concurrent_streams(limits.streams_per_connection)
        .http2_max_header_list_size(limits.header_bytes)
        .http2_keepalive_interval(Some(limits.keepalive))
        .http2_keepalive_timeout(Some(limits.keepalive))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_local_error_reset_streams(Some(256))
        .initial_stream_window_size(limits.window_bytes)
        .initial_connection_window_size(4 * limits.window_bytes)
        .add_service(health)
        .add_service(InterceptedService::new(reflection, with_certificate))
        .add_service(InterceptedService::new(between_hubs, of_this_hub))
        .add_service(sync)
        .serve_with_incoming_shutdown(connections, shutdown)
        .await?;
    Ok(())
}

fn with_certificate(request: Request<()>) -> Result<Request<()>, Status> {
    match request.peer_certs() {
        Some(_) => Ok(request),
        None => Err(Status::unauthenticated("a client certificate is required")),
    }
}

fn peer<T>(request: &Request<T>) -> Peer {
    Peer { address: request.remote_addr(), certificates: request.peer_certs() }
}

struct Adapter<E> {
    endpoint: Arc<E>,
}

fn parse<W, T: TryFrom<W, Error = InvalidMessage>>(message: W) -> Result<T, Status> {
    message.try_into().map_err(|invalid: InvalidMessage| SyncRefusal::from(invalid).into())
}

#[tonic::async_trait]
impl<E: SyncEndpoint> WireService for Adapter<E> {
    async fn enroll(
        &self,
        request: Request<wire::EnrollRequest>,
    ) -> Result<Response<wire::EnrollReply>, Status> {
        let peer = peer(&request);
        let reply = self.endpoint.enroll(peer, parse(request.into_inner())?).await?;
        Ok(Response::new(reply.into()))
    }

    async fn challenge(
        &self,
        request: Request<wire::ChallengeRequest>,
    ) -> Result<Response<wire::ChallengeReply>, Status> {
        let peer = peer(&request);
        let reply = self.endpoint.challenge(peer, parse(request.into_inner())?).await?;
        Ok(Response::new(reply.into()))
    }

    async fn renew(
        &self,
        request: Request<wire::RenewRequest>,
    ) -> Result<Response<wire::RenewReply>, Status> {
        let peer = peer(&request);
        let reply = self.endpoint.renew(peer, parse(request.into_inner())?).await?;
        Ok(Response::new(reply.into()))
    }

    async fn report_wipe(
        &self,
        request: Request<wire::WipeReport>,
    ) -> Result<Response<wire::WipeNoted>, Status> {
        let peer = peer(&request);
        self.endpoint.report_wipe(peer, parse(request.into_inner())?).await?;
        Ok(Response::new(wire::WipeNoted {}))
    }

    type StreamStream = Pin<Box<dyn Stream<Item = Result<wire::HubMessage, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<tonic::Streaming<wire::EdgeMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let peer = peer(&request);
        let frames = request.into_inner().map(|message| match message {
            Ok(message) => EdgeFrame::try_from(message).map_err(SyncError::Invalid),
            Err(status) => Err(SyncError::from_status(&status)),
        });
        let out = self.endpoint.stream(peer, Box::pin(frames)).await?;
        Ok(Response::new(Box::pin(out.map(|frame| Ok(frame.into())))))
    }
}

struct HubsAdapter<H> {
    endpoint: Arc<H>,
}

#[tonic::async_trait]
impl<H: HubsEndpoint> WireHubs for HubsAdapter<H> {
    async fn pass(&self, request: Request<wire::PassRequest>) -> Result<Response<wire::PassReply>, Status> {
        let answer = self.endpoint.pass(parse(request.into_inner())?).await?;
        Ok(Response::new(answer.into()))
    }

    async fn admit(
        &self,
        request: Request<wire::AdmitRequest>,
    ) -> Result<Response<wire::AdmitReply>, Status> {
        let answers = self.endpoint.admit(parse(request.into_inner())?).await?;
        Ok(Response::new(answers.into()))
    }

    async fn follow(
        &self,
        request: Request<wire::FollowRequest>,
    ) -> Result<Response<wire::FollowReply>, Status> {
        let page = self.endpoint.follow(parse(request.into_inner())?).await?;
        Ok(Response::new(page.into()))
    }

    async fn keys(&self, request: Request<wire::KeysRequest>) -> Result<Response<wire::KeysReply>, Status> {
        let keys = self.endpoint.keys(parse(request.into_inner())?).await?;
        Ok(Response::new(keys.into()))
    }

    async fn fleet(
        &self,
        request: Request<wire::FleetRequest>,
    ) -> Result<Response<wire::FleetReply>, Status> {
        let page = self.endpoint.fleet(request.into_inner().after).await?;
        Ok(Response::new(page.into()))
    }

    async fn seats(
        &self,
        request: Request<wire::SeatsRequest>,
    ) -> Result<Response<wire::SeatsReply>, Status> {
        let seats = self.endpoint.seats(parse(request.into_inner())?).await?;
        Ok(Response::new(seats.into()))
    }

    async fn join(&self, request: Request<wire::JoinRequest>) -> Result<Response<wire::JoinReply>, Status> {
        let joined = self.endpoint.join(parse(request.into_inner())?).await?;
        Ok(Response::new(joined.into()))
    }

    async fn take_in(
        &self,
        request: Request<wire::TakeInRequest>,
    ) -> Result<Response<wire::TakeInReply>, Status> {
        let taken = self.endpoint.take_in(parse(request.into_inner())?).await?;
        Ok(Response::new(taken.into()))
    }
}
