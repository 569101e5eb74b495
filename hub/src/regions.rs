//! Other regions: hubs with databases of their own. The process that leads reads on in the history of each, and its writer
//! takes in what it finds there. A region that cannot be reached is asked again, for as long as it takes.
//!
//! Beside the entries go the tables of the fleet (`fleet`), of which one region is the `home`.

use std::sync::Arc;
use std::time::Duration;

use llm_config_proto::sync::{HubsClient, SyncError};
use llm_config_shared::entry::Content;
use llm_config_shared::replication::admit::NotFollowed;
use llm_config_shared::store::region::{Following, KeyName, RegionAsk, RegionPage};
use llm_config_shared::store::{Journal, JournalError};
use llm_config_shared::vector::ShardId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::identity::Identity;
use crate::processes::Role;
use crate::registry::Registry;
use crate::secrets::{SecretError, SecretStore};
use crate::writer::{WriteError, WriterHandle};

pub mod fleet;
pub mod home;
mod peer;
mod seats;

use peer::{Failures, NotConnected, Peer};

/// From one question to the next, when there was nothing new.
const PAUSE: Duration = Duration::from_millis(200);
/// How often the keys of secrets are asked for that may have been made there: a region goes on sealing with an older one
/// until it has heard of them.
const KEYS_EVERY: Duration = Duration::from_secs(30);

/// Why a region was not read on.
#[derive(Debug, thiserror::Error)]
enum NotRead {
    #[error(transparent)]
    Unconnected(#[from] NotConnected),
    #[error(transparent)]
    Unreachable(#[from] SyncError),
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
        peer::keep(Reading { reader: self, known: None }, stop).await;
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

/// A reader, and whose history it reads: not `known` before the first answer, nor where it was left.
struct Reading<J, R> {
    reader: Reader<J, R>,
    known: Option<ShardId>,
}

impl<J: Journal, R: Registry> Peer for Reading<J, R> {
    type Error = NotRead;

    fn writer(&self) -> &WriterHandle {
        &self.reader.writer
    }

    async fn keep_up(&mut self, failures: &mut Failures) -> Result<(), NotRead> {
        let Self { reader, known } = self;
        let mut client = peer::connect(&reader.identity, reader.process, &reader.address).await?;
        tracing::info!(region = reader.address, "follows another region");
        let mut keys_at = None;
        while reader.writer.role() == Role::Leading {
            let (head, following) = (reader.journal.head().await?, reader.journal.following().await?);
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
            if !reader.has_keys(&page) {
                reader.fetch_keys(&mut client).await?;
            } else if keys_at.is_none_or(|at: Instant| at.elapsed() >= KEYS_EVERY) {
                keys_at = Some(Instant::now());
                // Values go on also while what holds the keys is away, here or there.
                if let Err(error) = reader.fetch_keys(&mut client).await {
                    tracing::warn!(region = reader.address, %error, "another region's keys of secrets cannot be had now");
                }
            }
            let (writes, more) = (page.writes.len(), page.regions.is_none());
            metrics::counter!("region_writes_total").increment(writes as u64);
            if writes > 0 || more || is_news(&page, &following, head.shard) {
                reader.writer.follow(page).await??;
            } else {
                tokio::time::sleep(PAUSE).await;
            }
            failures.are_over();
        }
        Ok(())
    }

    fn tell(&mut self, error: &NotRead, first: bool) {
        if first {
            tracing::warn!(region = self.reader.address, %error, "another region cannot be followed now");
        }
    }
}

/// Whether a page without writes says anything that is not known.
fn is_news(page: &RegionPage, before: &Following, own: ShardId) -> bool {
    let mut after = before.clone();
    after.has_read(page, own);
    after != *before
}
