//! A file that somebody brought, on its way into the loop.

use llm_config_shared::replication::edge::{Carried, Exported, Input, NotTaken, Published};
use llm_config_shared::replication::frame::HubFrame;
use llm_config_shared::store::replica::ReplicaStore;
use llm_config_shared::time::UnixMillis;
use tokio::sync::{mpsc, oneshot};

use super::Loop;
use super::handle::Progress;
use crate::link::Link;
use crate::offline::NotCarried;

/// What came of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Entries that came, changed or went.
    pub entries: usize,
    /// The hub's time that everything is as of.
    pub as_of: Option<UnixMillis>,
    /// Whether secrets stay open for another offline limit; none where the file says nothing of it.
    pub limit: Option<Result<(), NotCarried>>,
    /// How far things have come then.
    pub progress: Progress,
}

/// Who waits for the end of a file.
pub(super) struct Carrying {
    applied: Applied,
    answer: oneshot::Sender<Result<Applied, NotTaken>>,
}

impl Carrying {
    /// Readers see something new.
    pub(super) fn count(&mut self, published: &Published) {
        self.applied.entries += published.rows.len();
        self.applied.as_of = self.applied.as_of.max(published.confirmed_at);
    }
}

impl<S: ReplicaStore + 'static> Loop<'_, S> {
    /// In the place of a connection, of which there is none, or only an attempt.
    pub(super) fn carry(
        &mut self,
        carried: Box<Carried>,
        frames: mpsc::Receiver<HubFrame>,
        answer: oneshot::Sender<Result<Applied, NotTaken>>,
    ) {
        if self.replica.is_connected() || self.carrying.is_some() {
            // Whoever asked may have given up.
            return drop(answer.send(Err(NotTaken::Connected)));
        }
        let now = self.now();
        self.around.offline.keep_hub_key(carried.welcome.carry_key.as_deref());
        self.replica.handle(Input::Disconnected, now);
        self.attempts += 1;
        self.link = Some(Link::carried(frames, self.attempts, self.event_sender.clone()));
        self.carrying = Some(Carrying { applied: Applied::default(), answer });
        self.replica.handle(Input::Carried(carried), now);
    }

    /// What waits for the hub, for somebody who carries it there.
    pub(super) fn export(&mut self, answer: oneshot::Sender<Result<Box<Exported>, NotTaken>>) {
        if self.replica.is_connected() || self.carrying.is_some() || self.exporting.is_some() {
            return drop(answer.send(Err(NotTaken::Connected)));
        }
        let now = self.now();
        self.link = None;
        self.replica.handle(Input::Disconnected, now);
        self.exporting = Some(answer);
        self.replica.handle(Input::Export, now);
    }

    pub(super) fn exported(&mut self, exported: Result<Box<Exported>, NotTaken>) {
        if let Some(answer) = self.exporting.take() {
            let _ = answer.send(exported);
        }
    }

    /// The word on the offline limit that lies in the file. It may be too old when entries are still worth having.
    pub(super) fn heard_carried(&mut self, statement: &bytes::Bytes) -> bool {
        let Some(carrying) = &mut self.carrying else { return false };
        let taken = self.around.offline.carried(statement, &self.keys);
        if taken.is_ok() {
            self.around.view.unlock_secrets();
            self.around.notes.clear(super::Topic::Offline);
        }
        carrying.applied.limit = Some(taken);
        true
    }

    pub(super) fn end_carrying(&mut self, outcome: Result<(), NotTaken>) {
        self.link = None;
        let progress = self.progress();
        let Some(Carrying { applied, answer }) = self.carrying.take() else { return };
        match &outcome {
            Ok(()) => tracing::info!(entries = applied.entries, "a file from the hub was taken in"),
            Err(reason) => tracing::warn!(%reason, "a file from the hub was not taken"),
        }
        let _ = answer.send(outcome.map(|()| Applied { progress, ..applied }));
    }
}
