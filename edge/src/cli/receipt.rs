//! Receipt: a command tells its edge which versions it uses, for as long as it uses them. That it cannot be told never
//! holds the command up.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::address::Address;
use super::connection::Connection;
use super::pace::Backoff;
use super::reading::Used;
use super::target::Target;

/// It is said again this often; who says nothing for three times as long is taken to have gone.
const AGAIN: Duration = Duration::from_secs(30);
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long an ending command waits to say that it ends.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// A consumer of an edge.
pub(crate) struct Receipt {
    connection: Arc<Connection>,
    consumer: String,
    latest: watch::Sender<Vec<Used>>,
    task: JoinHandle<()>,
}

impl Receipt {
    /// A consumer under this name that goes on running; none when it is not an edge that is asked.
    pub(crate) fn start(connection: &Arc<Connection>, consumer: String) -> Option<Self> {
        let Target::Edge { .. } = connection.target() else { return None };
        let (latest, uses) = watch::channel(Vec::new());
        let task = tokio::spawn(tell(Arc::clone(connection), consumer.clone(), uses));
        Some(Self { connection: Arc::clone(connection), consumer, latest, task })
    }

    /// These versions are in use now.
    pub(crate) fn uses(&self, used: Vec<Used>) {
        self.latest.send_replace(used);
    }

    /// Nothing is in use any more.
    pub(crate) async fn end(self) {
        self.task.abort();
        let address = Address::new(&["edge", "uses", &self.consumer]);
        // An edge that cannot be told takes it to have gone in a while.
        let _ = tokio::time::timeout(LEAVE_MAX, self.connection.ask(Method::DELETE, &address, None)).await;
    }
}

async fn tell(connection: Arc<Connection>, consumer: String, mut uses: watch::Receiver<Vec<Used>>) {
    let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
    // Nothing is used before the first time.
    let mut going_on = uses.changed().await.is_ok();
    while going_on {
        let used = uses.borrow_and_update().clone();
        let pause = if say(&connection, &consumer, false, &used).await {
            backoff.reset();
            AGAIN
        } else {
            backoff.next(rand::random())
        };
        going_on = match tokio::time::timeout(pause, uses.changed()).await {
            Ok(changed) => changed.is_ok(),
            Err(_) => true,
        };
    }
}

/// Says once which versions are in use, and whether the edge has heard it. `lasting`: until this consumer says something
/// else, whether it runs or not.
pub(crate) async fn say(connection: &Connection, consumer: &str, lasting: bool, used: &[Used]) -> bool {
    let Target::Edge { .. } = connection.target() else { return false };
    let body = json!({ "consumer": consumer, "lasting": lasting, "entries": used }).to_string();
    connection.ask(Method::POST, &Address::new(&["edge", "uses"]), Some(body)).await.is_ok()
}
