//! Which edges are connected to this process, one session each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use llm_config_shared::replication::frame::Refusal;
use llm_config_shared::replication::hub::Profile;
use llm_config_shared::stamp::ActorId;
use tokio::sync::{Notify, watch};

use crate::registry::Edge;

/// What a session is told from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notice {
    /// End, and say this.
    pub(super) close: Option<Refusal>,
    /// Newest key epochs of the edge's secrets, added up; the keys are handed out again when it rises.
    pub(super) key_epochs: u64,
}

/// The connected edges.
#[derive(Default)]
pub struct Roster {
    seats: Mutex<Seats>,
    recheck: Notify,
}

#[derive(Default)]
struct Seats {
    last: u64,
    taken: HashMap<ActorId, Taken>,
}

struct Taken {
    number: u64,
    seated: Seated,
    notice: watch::Sender<Notice>,
}

/// A connected edge as its session knows it.
#[derive(Clone)]
pub(super) struct Seated {
    pub(super) edge: Arc<Edge>,
    pub(super) profile: Arc<Profile>,
}

/// The place of one session; given up when it is dropped.
pub(super) struct Seat {
    roster: Arc<Roster>,
    edge: ActorId,
    number: u64,
    pub(super) notice: watch::Receiver<Notice>,
}

impl Roster {
    /// Takes the edge's place. Whoever had it is told to end: the newest session wins over a half-open one.
    pub(super) fn sit(self: &Arc<Self>, seated: Seated, key_epochs: u64) -> Seat {
        let mut seats = self.seats();
        seats.last += 1;
        let number = seats.last;
        let edge = seated.edge.id;
        let (notice, receiver) = watch::channel(Notice { close: None, key_epochs });
        if let Some(before) = seats.taken.insert(edge, Taken { number, seated, notice }) {
            before.notice.send_modify(|notice| notice.close = Some(Refusal::Replaced));
        }
        metrics::gauge!("sync_connected_edges").set(seats.taken.len() as f64);
        Seat { roster: Arc::clone(self), edge, number, notice: receiver }
    }

    /// Whether the edge has a session here.
    pub fn is_connected(&self, edge: ActorId) -> bool {
        self.seats().taken.contains_key(&edge)
    }

    /// How many edges have a session here.
    pub fn connected(&self) -> usize {
        self.seats().taken.len()
    }

    /// Ends all sessions.
    pub(super) fn close_all(&self, refusal: &Refusal) {
        for taken in self.seats().taken.values() {
            taken.notice.send_modify(|notice| notice.close = Some(refusal.clone()));
        }
    }

    /// Compares the connected edges with the registry now instead of in a moment: something about them was changed.
    pub fn recheck(&self) {
        self.recheck.notify_one();
    }

    pub(super) async fn recheck_asked(&self) {
        self.recheck.notified().await;
    }

    pub(super) fn seated(&self) -> Vec<Seated> {
        self.seats().taken.values().map(|taken| taken.seated.clone()).collect()
    }

    /// Tells the edge's session, if it still has one.
    pub(super) fn tell(&self, edge: ActorId, change: impl FnOnce(&mut Notice) -> bool) {
        if let Some(taken) = self.seats().taken.get(&edge) {
            taken.notice.send_if_modified(change);
        }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.roster.seats();
        if seats.taken.get(&self.edge).is_some_and(|taken| taken.number == self.number) {
            seats.taken.remove(&self.edge);
        }
        metrics::gauge!("sync_connected_edges").set(seats.taken.len() as f64);
    }
}
