//! Telling the hub what is used here: all of it, whenever something is different or the hub is back.

use std::sync::Arc;
use std::time::Duration;

use llm_config_shared::replication::frame::Request;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Told, Uses};
use crate::clock::Clock;
use crate::daemon::handle::Handle;
use crate::view::View;

/// What differs within this time is told at once.
const PAUSE: Duration = Duration::from_millis(250);
/// How often it is looked whether the hub is back, and who has gone.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// From one attempt that failed to the next.
const AGAIN_MS: u64 = 5_000;

/// Tells on what is used.
pub(crate) struct Teller {
    pub(crate) uses: Arc<Uses>,
    pub(crate) view: Arc<View>,
    pub(crate) handle: Handle,
    pub(crate) clock: Arc<Clock>,
}

#[derive(Serialize)]
struct Report {
    /// Others than these have gone.
    complete: bool,
    consumers: Vec<Told>,
}

/// What the hub is asked to note of uses here; none where nothing is to be said.
pub(crate) fn request(uses: &Uses, complete: bool) -> Option<Request> {
    let report = Report { complete, consumers: uses.told() };
    if report.consumers.is_empty() && !complete {
        return None;
    }
    let body = serde_json::to_vec(&report).expect("text and numbers");
    let (method, target, caller) = ("PUT".into(), "/api/v1/uses".into(), "daemon".into());
    Some(Request { method, target, body: body.into(), caller })
}

/// What came of telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Yes,
    /// A hub of before this was told, or one that takes no more.
    Never,
    Later,
}

impl Teller {
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let mut changes = self.uses.changes();
        let (mut told, mut told_all, mut was_connected, mut again_at) =
            (None, false, false, self.clock.now());
        loop {
            let now = self.clock.now();
            self.uses.lapse(now);
            let complete = self.uses.is_complete(now);
            let connected = self.view.is_connected();
            let current = *changes.borrow_and_update();
            let owed = told != Some(current) || !was_connected || told_all != complete;
            if connected && owed && now >= again_at {
                match self.tell(complete).await {
                    Heard::Yes => (told, told_all, was_connected) = (Some(current), complete, true),
                    // Until it is connected anew.
                    Heard::Never => (told, told_all, was_connected) = (Some(current), complete, true),
                    Heard::Later => again_at = self.clock.now() + AGAIN_MS,
                }
            }
            was_connected &= connected;
            let changed = tokio::time::timeout(LOOK_EVERY, changes.changed()).await.is_ok();
            if changed {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn tell(&self, complete: bool) -> Heard {
        let Some(request) = request(&self.uses, complete) else { return Heard::Yes };
        match self.handle.call(request).await {
            Ok(answer) if answer.status < 300 => Heard::Yes,
            Ok(answer) if matches!(answer.status, 404 | 405 | 413 | 422) => {
                tracing::info!(status = answer.status, "the hub does not take what is used here");
                Heard::Never
            }
            Ok(answer) => {
                tracing::debug!(status = answer.status, "the hub could not take what is used here");
                Heard::Later
            }
            Err(error) => {
                tracing::debug!(%error, "the hub could not be told what is used here");
                Heard::Later
            }
        }
    }
}
