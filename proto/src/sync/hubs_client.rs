//! The end of a process of the hub that does not lead: one connection to the one that does.

use std::time::Duration;

use llm_config_shared::newer::Taken;
use llm_config_shared::replication::admit::{HandIn, Upload};
use llm_config_shared::replication::frame::Response;
use llm_config_shared::store::fleet::{FleetPage, RegionSeats};
use llm_config_shared::store::region::{KeyName, RegionAsk, RegionKey, RegionPage};
use llm_config_shared::vector::ShardId;
use llm_config_shared::write::Answer;
use tonic::transport::Channel;

use super::client::{Dial, SyncError, answer_within, connection};
use super::entry::uuid_bytes;
use super::fleet::{Joined, PassedJoin};
use super::hubs::{MESSAGE_BYTES_MAX, PassedRequest};
use super::regions;
use super::wire;
use super::wire::hubs_client::HubsClient as WireClient;

/// A process beside this one that says nothing for twice so long is not there.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Longer nobody waits for an answer. Longer than the leader gives itself.
const TIMEOUT: Duration = Duration::from_secs(25);

/// One connection to another process of the hub; cheap to clone.
#[derive(Clone)]
pub struct HubsClient {
    wire: WireClient<Channel>,
}

impl HubsClient {
    /// Connects and shakes hands, both bounded in time.
    ///
    /// # Errors
    /// When the process cannot be reached or is not of this hub.
    pub async fn connect(dial: &Dial) -> Result<Self, SyncError> {
        let (channel, _) = connection(dial, KEEPALIVE).await?;
        let wire = WireClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { wire })
    }

    /// Has a request answered.
    ///
    /// # Errors
    /// When the other process refuses: then it did nothing. After any other error it may have.
    pub async fn pass(&mut self, request: PassedRequest) -> Result<Response, SyncError> {
        let call = self.wire.pass(wire::PassRequest::from(request));
        Ok(answer_within(TIMEOUT, call).await?.try_into()?)
    }

    /// Reads on in that hub's history.
    ///
    /// # Errors
    /// When it cannot be asked, or does not answer so.
    pub async fn follow(&mut self, ask: &RegionAsk) -> Result<RegionPage, SyncError> {
        let call = self.wire.follow(wire::FollowRequest::from(ask));
        Ok(regions::page(answer_within(TIMEOUT, call).await?, ask.read)?)
    }

    /// Asks for that hub's keys of secrets, in the order of their names, behind one of them.
    ///
    /// # Errors
    /// When it cannot be asked, or does not answer so.
    pub async fn keys(&mut self, after: Option<&KeyName>) -> Result<Vec<RegionKey>, SyncError> {
        let call = self.wire.keys(wire::KeysRequest { after: after.map(Into::into) });
        Ok(answer_within(TIMEOUT, call).await?.try_into()?)
    }

    /// Reads on in that hub's tables of the fleet, behind a place in its order.
    ///
    /// # Errors
    /// When it cannot be asked, or does not answer so.
    pub async fn fleet(&mut self, after: u64) -> Result<FleetPage, SyncError> {
        let call = self.wire.fleet(wire::FleetRequest { after });
        Ok(answer_within(TIMEOUT, call).await?.try_into()?)
    }

    /// Asks which edges are connected there, for `region`.
    ///
    /// # Errors
    /// When it cannot be asked, or does not answer so.
    pub async fn seats(&mut self, region: ShardId) -> Result<RegionSeats, SyncError> {
        let call = self.wire.seats(wire::SeatsRequest { region: uuid_bytes(region.0) });
        Ok(answer_within(TIMEOUT, call).await?.try_into()?)
    }

    /// Has an edge join at the home of the fleet's tables.
    ///
    /// # Errors
    /// When the other hub refuses: then it did nothing. After any other error it may have.
    pub async fn join(&mut self, join: PassedJoin) -> Result<Joined, SyncError> {
        let call = self.wire.join(wire::JoinRequest::from(join));
        Ok(answer_within(TIMEOUT, call).await?.try_into()?)
    }

    /// Has an edge's writes decided.
    ///
    /// # Errors
    /// When the other process refuses: then it did nothing. After any other error it may have.
    pub async fn admit(&mut self, upload: &Upload) -> Result<Vec<Answer>, SyncError> {
        let call = self.wire.admit(wire::AdmitRequest::from(upload));
        Ok(answer_within(TIMEOUT, call).await?.try_into()?)
    }

    /// Has what an edge hands in of a loss judged.
    ///
    /// # Errors
    /// When the other process refuses: then it did nothing. After any other error it may have.
    pub async fn take_in(&mut self, hand_in: &HandIn) -> Result<Taken, SyncError> {
        let call = self.wire.take_in(wire::TakeInRequest::from(hand_in));
        Ok(answer_within(TIMEOUT, call).await?.try_into()?)
    }
}
