//! Other regions: hubs with databases of their own. The process that leads reads on in the history of each, and its writer
//! takes in what it finds there. A region that cannot be reached is asked again, for as long as it takes.
//!
//! Beside the entries go the tables of the fleet (`fleet`), of which one region is the `home`.

use std::sync::Arc;
use std::time::Duration;

use llm_config_proto::sync::{Dial, HubsClient, SyncError};
use llm_config_proto::tls::Trust;
use llm_config_shared::entry::Content;
use llm_config_shared::replication::admit::NotFollowed;
use llm_config_shared::store::region::{Following, KeyName, RegionAsk, RegionPage};
use llm_config_shared::store::{Journal, JournalError};
use llm_config_shared::vector::ShardId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock;
use crate::identity::Identity;
use crate::identity::ca::CaError;
use crate::processes::Role;
use crate::registry::Registry;
use crate::secrets::{SecretError, SecretStore};
use crate::writer::{WriteError, WriterHandle};

pub mod fleet;
pub mod home;
mod seats;

/// From one question to the next, when there was nothing new.
const PAUSE: Duration = Duration::from_millis(200);
/// How often the keys of secrets are asked for that may have been made there: a region goes on sealing with an older one
/// until it has heard of them.
const KEYS_EVERY: Duration = Duration::from_secs(30);
/// The longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Why a region was not read on.
#[derive(Debug, thiserror::Error)]
enum NotRead {
    #[error(transparent)]
    Unreachable(#[from] SyncError),
    #[error(transparent)]
    Certificate(#[from] CaError),
    #[error(transparent)]
    Database(#[from] JournalError),
    #[error(transparent)]
    Writer(#[from] WriteError),
    #[error(transparent)]
    Page(#[from] NotFollowed),
    #[error(transparent)]
    Keys(#[from] SecretError),
    #[error("it is this very region")]
    Itself,
}

/// Reads one other region.
pub struct Reader<J, R> {
    /// `https://HOST:PORT` of its sync port.
    pub address: String,
    pub journal: Arc<J>,
    pub writer: WriterHandle,
    pub identity: Arc<Identity>,
    pub secrets: Arc<SecretStore<R>>,
    /// This process, as its certificates name it.
    pub process: Uuid,
}

impl<J: Journal, R: Registry> Reader<J, R> {
    /// Reads until `stop`, while this process leads.
    pub async fn keep(self, stop: CancellationToken) {
        let reading = async {
            let (mut failures, mut known) = (0_u32, None);
            loop {
                self.lead().await;
                match self.read_on(&mut known).await {
                    Ok(()) => failures = 0,
                    Err(error) => {
                        if failures == 0 {
                            tracing::warn!(region = self.address, %error, "another region cannot be followed now");
                        }
                        metrics::counter!("region_failures_total").increment(1);
                        failures += 1;
                    }
                }
                tokio::time::sleep(pause(failures)).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = reading => {}
        }
    }

    /// Waits until this process leads.
    async fn lead(&self) {
        let mut roles = self.writer.roles();
        drop(roles.wait_for(|role| *role == Role::Leading).await);
    }

    /// Reads over one connection until that fails, or another process leads. Whose history it is is not `known` before the
    /// first answer, nor where it was left.
    async fn read_on(&self, known: &mut Option<ShardId>) -> Result<(), NotRead> {
        let ca = self.identity.ca();
        let dial = Dial {
            address: self.address.trim_start_matches("https://").to_owned(),
            trust: Trust::Ca { pem: ca.pem() },
            identity: Some(ca.issue_process(self.process, clock::now())?),
        };
        let mut client = HubsClient::connect(&dial).await?;
        tracing::info!(region = self.address, "follows another region");
        let mut keys_at = None;
        while self.writer.role() == Role::Leading {
            let (head, following) = (self.journal.head().await?, self.journal.following().await?);
            let read = known.and_then(|shard| following.bookmark(shard));
            let ask = RegionAsk { read, have: head.vector(), epochs: head.epochs.clone() };
            let page = client.follow(&ask).await?;
            if page.shard == head.shard {
                return Err(NotRead::Itself);
            }
            if known.replace(page.shard) != Some(page.shard) {
                continue;
            }
            // Before what is sealed with them is here for anybody to read.
            if !self.has_keys(&page) {
                self.fetch_keys(&mut client).await?;
            } else if keys_at.is_none_or(|at: Instant| at.elapsed() >= KEYS_EVERY) {
                keys_at = Some(Instant::now());
                // Values go on also while what holds the keys is away, here or there.
                if let Err(error) = self.fetch_keys(&mut client).await {
                    tracing::warn!(region = self.address, %error, "another region's keys of secrets cannot be had now");
                }
            }
            let (writes, more) = (page.writes.len(), page.regions.is_none());
            metrics::counter!("region_writes_total").increment(writes as u64);
            if writes > 0 || more || is_news(&page, &following, head.shard) {
                self.writer.follow(page).await??;
            } else {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    fn has_keys(&self, page: &RegionPage) -> bool {
        page.writes.iter().all(|write| match &write.row.content {
            Content::Secret(sealed) => self.secrets.has(&KeyName {
                tenant: write.row.at.scope.tenant.clone(),
                environment: write.row.at.scope.environment.clone(),
                key_epoch: sealed.key_epoch,
            }),
            Content::Plain(_) | Content::Deleted => true,
        })
    }

    async fn fetch_keys(&self, client: &mut HubsClient) -> Result<(), NotRead> {
        let mut after = None;
        loop {
            let keys = client.keys(after.as_ref()).await?;
            let Some(last) = keys.last() else { return Ok(()) };
            for KeyName { tenant, environment, key_epoch } in self.secrets.take_over(&keys).await? {
                tracing::error!(
                    region = self.address, %tenant, %environment, key_epoch,
                    "another region has another key under the same name: rotate the secrets of one of the two"
                );
            }
            after = Some(last.name.clone());
        }
    }
}

/// Whether a page without writes says anything that is not known.
fn is_news(page: &RegionPage, before: &Following, own: ShardId) -> bool {
    let mut after = before.clone();
    after.has_read(page, own);
    after != *before
}

fn pause(failures: u32) -> Duration {
    clock::backoff(failures, PAUSE, PAUSE_MAX)
}
