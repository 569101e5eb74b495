//! Telling an edge, at the handshake and again and again, that the hub is there: so long its secrets stay open.

use std::sync::Arc;
use std::time::Duration;

use llm_config_shared::limits::{CONTACT_EVERY_MS_MAX, OFFLINE_LIMIT_MS_MIN};
use llm_config_shared::offline::{OfflineLimits, SessionMark};
use llm_config_shared::replication::frame::HubFrame;
use llm_config_shared::store::Journal;
use tokio::time::Instant;

use super::session::{Ended, Session};
use crate::clock;
use crate::registry::Registry;

/// After a failure it is tried again in so long.
const AGAIN: Duration = Duration::from_secs(1);
/// Of the shortest limit so many words are said, so that one that is late does no harm.
const WORDS_PER_LIMIT: u64 = 4;

/// What a session has said of the offline limits.
#[derive(Default)]
pub(super) struct Said {
    /// The session as the edge began it; none before.
    pub(super) mark: Option<SessionMark>,
    limits: Option<OfflineLimits>,
    /// When to say it again; none where the edge has no secrets, or nothing was said.
    due: Option<Instant>,
}

impl Said {
    /// Waits until it is to be said again.
    pub(super) async fn due(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }
}

impl<J: Journal, R: Registry> Session<J, R> {
    /// Says the limits as they are now. When they cannot be had the edge goes on with what it was told.
    pub(super) async fn say_limit(&mut self, said: &mut Said) -> Result<(), Ended> {
        if said.mark.is_none() || !self.profile.feeds.iter().any(|feed| feed.secrets) {
            return Ok(());
        }
        match self.limit(said).await {
            Ok(frame) => self.send(frame).await,
            Err(error) => {
                tracing::warn!(edge = %self.edge.name, %error, "the edge cannot be told how long its secrets stay open");
                said.due = Some(Instant::now() + AGAIN);
                Ok(())
            }
        }
    }

    /// Says them at once where they have changed since.
    pub(super) async fn say_changed_limit(&mut self, said: &mut Said) -> Result<(), Ended> {
        let known = self.seat.notice.borrow().limits.clone();
        let now = known.map(|limits| limits.for_feeds(&self.profile.feeds));
        if said.due.is_some() && now.is_some() && now != said.limits {
            return self.say_limit(said).await;
        }
        Ok(())
    }

    async fn limit(&self, said: &mut Said) -> Result<HubFrame, crate::secrets::SecretError> {
        let known = self.seat.notice.borrow().limits.clone();
        let limits = match known {
            Some(limits) => limits,
            None => Arc::new(self.parts.registry.offline_limits(&self.edge.tenant).await?),
        };
        let (edge, feeds, now) = (&self.edge, &self.profile.feeds, clock::now());
        let statement = self.parts.secrets.limit_statement(edge, feeds, &limits, said.mark, now).await?;
        let (_, shortest_ms) = statement.limits.extremes();
        said.limits = Some(statement.limits.clone());
        let every_ms = (shortest_ms / WORDS_PER_LIMIT)
            .clamp(OFFLINE_LIMIT_MS_MIN / WORDS_PER_LIMIT, CONTACT_EVERY_MS_MAX);
        said.due = Some(Instant::now() + Duration::from_millis(every_ms));
        let signing = self.parts.identity.signing();
        let draft = statement.draft(signing.id());
        let signature = signing.sign(&draft.message());
        Ok(HubFrame::OfflineLimit(draft.signed(&signature)))
    }
}
