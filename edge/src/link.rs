//! The stream to the hub as two bounded channels: frames go out, events come back tagged with the attempt they belong to.

use llm_config_proto::sync::{Client, Dial, SyncError};
use llm_config_shared::replication::frame::{EdgeFrame, HubFrame};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

/// Frames that wait for the network. Uploads go one at a time; what may queue here are forwarded requests.
const OUTGOING_MAX: usize = 4_096;
/// Frames that wait for the loop. Few, so that a busy loop slows the hub down instead of filling memory.
pub(crate) const INCOMING_MAX: usize = 8;

/// What happened to one attempt.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    Opened,
    Frame(HubFrame),
    /// The last event of an attempt; none when the hub ended the stream in order.
    Closed(Option<SyncError>),
}

/// Which attempt an event belongs to.
pub(crate) type Attempt = u64;

/// One attempt, ended when this is dropped.
pub(crate) struct Link {
    pub(crate) attempt: Attempt,
    outgoing: mpsc::Sender<EdgeFrame>,
    task: JoinHandle<()>,
}

/// The network does not take frames as fast as they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stuck;

impl Link {
    /// Begins to connect.
    pub(crate) fn open(dial: Dial, attempt: Attempt, events: mpsc::Sender<(Attempt, LinkEvent)>) -> Self {
        let (outgoing, frames) = mpsc::channel(OUTGOING_MAX);
        let task = tokio::spawn(async move {
            let closed = session(&dial, frames, attempt, &events).await.err();
            // The loop is gone: nobody is left to be told.
            let _ = events.send((attempt, LinkEvent::Closed(closed))).await;
        });
        Self { attempt, outgoing, task }
    }

    /// Frames that somebody brought, in the place of a connection. It takes none, and its end is not told: the loop knows
    /// from the frames where they end.
    pub(crate) fn carried(
        mut frames: mpsc::Receiver<HubFrame>,
        attempt: Attempt,
        events: mpsc::Sender<(Attempt, LinkEvent)>,
    ) -> Self {
        let (outgoing, _) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            while let Some(frame) = frames.recv().await {
                if events.send((attempt, LinkEvent::Frame(frame))).await.is_err() {
                    return;
                }
            }
        });
        Self { attempt, outgoing, task }
    }

    /// Hands a frame to the network.
    ///
    /// # Errors
    /// When too many wait already.
    pub(crate) fn send(&self, frame: EdgeFrame) -> Result<(), Stuck> {
        self.outgoing.try_send(frame).map_err(|_| Stuck)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn session(
    dial: &Dial,
    frames: mpsc::Receiver<EdgeFrame>,
    attempt: Attempt,
    events: &mpsc::Sender<(Attempt, LinkEvent)>,
) -> Result<(), SyncError> {
    let mut client = Client::connect(dial).await?;
    let mut incoming = client.stream(ReceiverStream::new(frames)).await?;
    let mut event = LinkEvent::Opened;
    while events.send((attempt, event)).await.is_ok() {
        let Some(frame) = incoming.next().await else { break };
        event = LinkEvent::Frame(frame?);
    }
    Ok(())
}
