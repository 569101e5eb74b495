//! Changes for those who follow them, from the switches of the view.

use std::pin::Pin;

use llm_config_proto::rest::service::{Events, Follow, Told};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::service::EdgeService;

/// Changes that wait for a slow follower before it is told to read anew.
const WAITING_MAX: usize = 256;

impl EdgeService {
    /// What changes from now on, as far as the follower asked for it; ends with the daemon.
    pub(super) fn follow(&self, request: Follow) -> Events {
        let mut switches = self.view.follow();
        let (sender, told) = mpsc::channel(WAITING_MAX);
        let (view, stop) = (self.view.clone(), self.stop.clone());
        tokio::spawn(async move {
            let position = view.position();
            // What happened in between is not kept here.
            if request.after.as_ref().is_some_and(|after| *after != position)
                && sender.send(Told::Reset(position)).await.is_err()
            {
                return;
            }
            loop {
                let batch = tokio::select! {
                    batch = switches.recv() => batch,
                    () = sender.closed() => return,
                    () = stop.cancelled() => return,
                };
                let batch = match batch {
                    Ok(batch) => batch,
                    Err(RecvError::Lagged(_)) => [Told::Reset(view.position())].into(),
                    Err(RecvError::Closed) => return,
                };
                for told in batch.iter().filter(|told| is_wanted(&request, told)) {
                    if !send(&sender, told.clone(), &stop).await {
                        return;
                    }
                }
            }
        });
        let events: Pin<Box<ReceiverStream<Told>>> = Box::pin(ReceiverStream::new(told));
        events
    }
}

async fn send(sender: &mpsc::Sender<Told>, told: Told, stop: &CancellationToken) -> bool {
    tokio::select! {
        sent = sender.send(told) => sent.is_ok(),
        () = stop.cancelled() => false,
    }
}

fn is_wanted(request: &Follow, told: &Told) -> bool {
    let at = match told {
        Told::Reset(_) => return true,
        Told::Change(change) => &change.at,
        Told::Conflict(clash) => &clash.at,
        Told::Held(held) => &held.at,
        Told::Expiry(notice) => &notice.secret.at,
    };
    let scope = &at.scope;
    request.subtree.as_ref().is_none_or(|subtree| subtree.contains(&scope.namespace))
        && request.environment.as_ref().is_none_or(|environment| *environment == scope.environment)
}
