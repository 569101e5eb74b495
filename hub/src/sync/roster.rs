//! Which edges are connected to this process: one session of each replica, of which an edge has one unless it was
//! copied.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use llm_config_shared::offline::OfflineLimits;
use llm_config_shared::replication::frame::Refusal;
use llm_config_shared::replication::hub::Profile;
use llm_config_shared::replication::seats::{Greeting, Meeting};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::time::Instant;
use tokio::sync::{Notify, watch};

use super::lag::{Lag, Slowest};
use crate::registry::Edge;

/// Most sessions of one edge. Its data should be there once; whoever copies a machine does so a few times.
const SEATS_MAX: usize = 8;
/// What another region said of its edges is believed for so long.
const REGION_BELIEVED: Duration = Duration::from_secs(15);

/// What a session is told from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notice {
    /// End, and say this.
    pub(super) close: Option<Refusal>,
    /// Newest key epochs of the edge's secrets, added up; the keys are handed out again when it rises.
    pub(super) key_epochs: u64,
    /// The tenant's offline limits, once they were looked at.
    pub(super) limits: Option<Arc<OfflineLimits>>,
}

/// The connected edges.
#[derive(Default)]
pub struct Roster {
    seats: Mutex<Seats>,
    /// Edges with a session at another process of the hub, as those said lately.
    elsewhere: Mutex<BTreeSet<ActorId>>,
    /// The same of other regions, by where they are asked, and when they said so.
    regions: Mutex<BTreeMap<String, (BTreeSet<ActorId>, std::time::Instant)>>,
    recheck: Notify,
}

#[derive(Default)]
struct Seats {
    last: u64,
    /// Oldest first; never empty.
    taken: HashMap<ActorId, Vec<Taken>>,
}

struct Taken {
    number: u64,
    seated: Seated,
    notice: watch::Sender<Notice>,
    /// None until its first frame has come.
    greeting: Option<Greeting>,
    /// None while it has acknowledged all that it was sent.
    lag: Option<Lag>,
}

impl Taken {
    fn replaced(&self) {
        self.notice.send_modify(|notice| notice.close = Some(Refusal::Replaced));
    }
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
    /// Takes a place. Which replica sits there is only known when it has greeted: of those that have not, the newest
    /// stays.
    pub(super) fn sit(self: &Arc<Self>, seated: Seated, key_epochs: u64) -> Seat {
        let mut seats = self.seats();
        seats.last += 1;
        let number = seats.last;
        let edge = seated.edge.id;
        let (notice, receiver) = watch::channel(Notice { close: None, key_epochs, limits: None });
        let of_edge = seats.taken.entry(edge).or_default();
        let surplus = of_edge.len().saturating_sub(SEATS_MAX - 1);
        let mut place = 0;
        of_edge.retain(|taken| {
            place += 1;
            let stays = place > surplus && taken.greeting.is_some();
            if !stays {
                taken.replaced();
            }
            stays
        });
        of_edge.push(Taken { number, seated, notice, greeting: None, lag: None });
        metrics::gauge!("sync_connected_edges").set(seats.taken.len() as f64);
        Seat { roster: Arc::clone(self), edge, number, notice: receiver }
    }

    /// Whether the edge has a session here, or had one at another process of the hub or in another region when that last
    /// said so.
    pub fn is_connected(&self, edge: ActorId) -> bool {
        self.seats().taken.contains_key(&edge)
            || self.elsewhere().contains(&edge)
            || self.is_in_a_region(edge)
    }

    fn is_in_a_region(&self, edge: ActorId) -> bool {
        let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.values().any(|(edges, at)| at.elapsed() <= REGION_BELIEVED && edges.contains(&edge))
    }

    /// What the region at this address said.
    pub fn heard_in_region(&self, address: &str, edges: BTreeSet<ActorId>) {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.insert(address.to_owned(), (edges, std::time::Instant::now()));
    }

    /// The edges that are connected to any process of this hub.
    pub fn in_this_region(&self) -> BTreeSet<ActorId> {
        let mut edges = self.edges();
        edges.extend(self.elsewhere().iter());
        edges
    }

    /// The edges that have a session here.
    pub(super) fn edges(&self) -> BTreeSet<ActorId> {
        self.seats().taken.keys().copied().collect()
    }

    /// What the other processes said.
    pub(super) fn heard_elsewhere(&self, edges: BTreeSet<ActorId>) {
        *self.elsewhere() = edges;
    }

    fn elsewhere(&self) -> MutexGuard<'_, BTreeSet<ActorId>> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many edges have a session here.
    pub fn connected(&self) -> usize {
        self.seats().taken.len()
    }

    /// How far the slowest edges are behind.
    pub(super) fn slowest(&self, now: Instant) -> Slowest {
        Slowest::of(self.seats().taken.values().flatten().filter_map(|taken| taken.lag), now)
    }

    /// Ends all sessions.
    pub(super) fn close_all(&self, refusal: &Refusal) {
        for taken in self.seats().taken.values().flatten() {
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

    /// Everybody, by the number of the place.
    pub(super) fn seated(&self) -> Vec<(u64, Seated)> {
        self.seats().taken.values().flatten().map(|taken| (taken.number, taken.seated.clone())).collect()
    }

    /// Tells the session in a place of the edge, if it is still there.
    pub(super) fn tell(&self, edge: ActorId, number: u64, change: impl FnOnce(&mut Notice) -> bool) {
        let seats = self.seats();
        let of_edge = seats.taken.get(&edge).map_or(&[][..], Vec::as_slice);
        if let Some(taken) = of_edge.iter().find(|taken| taken.number == number) {
            taken.notice.send_if_modified(change);
        }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// The session says how far its edge is behind.
    pub(super) fn lags(&self, lag: Option<Lag>) {
        let mut seats = self.roster.seats();
        let mut of_edge = seats.taken.get_mut(&self.edge).into_iter().flatten();
        if let Some(taken) = of_edge.find(|taken| taken.number == self.number) {
            taken.lag = lag;
        }
    }

    /// The session says which it is. Half-open ones of the same replica are told to end. Whether there is another that
    /// is not older: then there are two of that replica, and both stay until this one has another name.
    pub(super) fn greet(&self, greeting: Greeting) -> bool {
        let mut seats = self.roster.seats();
        let mut copied = false;
        let Some(of_edge) = seats.taken.get_mut(&self.edge) else { return copied };
        of_edge.retain_mut(|taken| {
            if taken.number == self.number {
                taken.greeting = Some(greeting);
                return true;
            }
            match taken.greeting.map(|earlier| greeting.meets(earlier)) {
                Some(Meeting::Older) => {
                    taken.replaced();
                    false
                }
                Some(Meeting::Twin) => {
                    copied = true;
                    true
                }
                Some(Meeting::Stranger) | None => true,
            }
        });
        copied
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.roster.seats();
        if let Some(of_edge) = seats.taken.get_mut(&self.edge) {
            of_edge.retain(|taken| taken.number != self.number);
            if of_edge.is_empty() {
                seats.taken.remove(&self.edge);
            }
        }
        metrics::gauge!("sync_connected_edges").set(seats.taken.len() as f64);
    }
}
