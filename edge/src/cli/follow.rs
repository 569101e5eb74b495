//! Follow: tells a command that goes on running when something that it read may have changed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use llm_config_proto::rest::ServerEvent;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::address::Address;
use super::connection::Connection;
use super::output;
use super::pace::Backoff;

/// Pauses before a stream that broke is opened again.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Without any news a reader looks again after this long: what an environment inherits may change without an event.
const QUIET_MAX: Duration = Duration::from_secs(300);

/// Where an event is about, as far as that matters here.
#[derive(Debug, Deserialize)]
struct Place {
    namespace: String,
}

/// Follows changes for as long as it lives. When the edge or hub goes away, it waits for it.
pub(crate) struct Follower {
    changed: Arc<Notify>,
    namespaces: Arc<Mutex<BTreeSet<String>>>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Follows what happens in some namespaces. Every new stream counts as a change, for nobody knows what was missed.
    pub(crate) fn start(connection: Arc<Connection>, namespaces: BTreeSet<String>) -> Self {
        let changed = Arc::new(Notify::new());
        let namespaces = Arc::new(Mutex::new(namespaces));
        let task = tokio::spawn(follow(connection, Arc::clone(&changed), Arc::clone(&namespaces)));
        Self { changed, namespaces, task }
    }

    /// Follows other namespaces from now on.
    pub(crate) fn watch(&self, namespaces: BTreeSet<String>) {
        *self.namespaces.lock().unwrap_or_else(PoisonError::into_inner) = namespaces;
    }

    /// Returns when something may have changed since it last returned.
    pub(crate) async fn changed(&self) {
        if tokio::time::timeout(QUIET_MAX, self.changed.notified()).await.is_err() {
            output::hint("looking again, as nothing was heard for a while");
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(connection: Arc<Connection>, changed: Arc<Notify>, namespaces: Arc<Mutex<BTreeSet<String>>>) {
    // No filter: a value may come from any environment of the chain, and from the edge's own subtree.
    let address = Address::new(&["events"]);
    let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
    let mut away = false;
    loop {
        if let Ok(mut events) = connection.events(&address, None).await {
            if std::mem::take(&mut away) {
                output::hint(format!("{} is back", connection.target()));
            }
            changed.notify_one();
            while let Ok(Some(event)) = events.next().await {
                backoff.reset();
                let namespaces = namespaces.lock().unwrap_or_else(PoisonError::into_inner);
                if concerns(&event, &namespaces) {
                    changed.notify_one();
                }
            }
        }
        if !std::mem::replace(&mut away, true) {
            output::hint(format!("{} does not answer; going on with what is here", connection.target()));
        }
        tokio::time::sleep(backoff.next(rand::random())).await;
    }
}

/// Whether an event may change what somebody sees who reads these namespaces. An edge's own `edges/NAME/app` counts for
/// `app`.
fn concerns(event: &ServerEvent, namespaces: &BTreeSet<String>) -> bool {
    let Ok(place) = serde_json::from_str::<Place>(&event.data) else { return true };
    namespaces.iter().any(|wanted| {
        let below = place.namespace.strip_suffix(wanted.as_str());
        below.is_some_and(|above| above.is_empty() || above.ends_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_read_counts_and_what_is_not_understood_counts_always() {
        let told = |data: &str| {
            let event = ServerEvent { event: "change".into(), data: data.into(), ..ServerEvent::default() };
            concerns(&event, &BTreeSet::from(["app/llm".to_owned()]))
        };
        assert!(told(r#"{"namespace":"app/llm","key":"k"}"#));
        assert!(told(r#"{"namespace":"edges/kiosk-7/app/llm","key":"k"}"#), "the edge's own values");
        assert!(!told(r#"{"namespace":"app/llm/x","key":"k"}"#));
        assert!(!told(r#"{"namespace":"my-app/llm","key":"k"}"#));
        assert!(!told(r#"{"namespace":"app","key":"k"}"#));
        assert!(told(r#"{"position":"p"}"#), "a reset");
    }
}
