//! A double of what processes share, for several of them in one test.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use llm_config_shared::store::JournalError;
use tokio::sync::Notify;

use super::*;

/// One lock and one address. Where a test wants a process that heeds no lock, it gets a room of its own.
#[derive(Default)]
pub(crate) struct Room {
    seat: Arc<tokio::sync::Mutex<()>>,
    cut: Arc<Notify>,
    leader: Mutex<Option<ProcessAt>>,
    away: AtomicBool,
}

impl Room {
    /// Ends the hold of whoever leads, as a database does that ends a session.
    pub(crate) fn cut(&self) {
        self.cut.notify_waiters();
    }

    /// Whether nothing can be asked from now on.
    pub(crate) fn away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }
}

impl Processes for Room {
    const SHARED: bool = true;

    async fn stand(&self) -> Result<Option<Hold>, JournalError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(JournalError::Unavailable("it is away".to_owned()));
        }
        let Ok(seat) = Arc::clone(&self.seat).try_lock_owned() else { return Ok(None) };
        let cut = Arc::clone(&self.cut);
        Ok(Some(Hold::kept(|given_up| async move {
            tokio::select! {
                () = given_up.cancelled() => {}
                () = cut.notified() => {}
            }
            drop(seat);
        })))
    }

    async fn announce(&self, at: &ProcessAt, _: u64) -> Result<(), JournalError> {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = Some(at.clone());
        Ok(())
    }

    async fn leader(&self) -> Result<Option<ProcessAt>, JournalError> {
        Ok(self.leader.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn say_seats(
        &self,
        _: Uuid,
        _: &[ActorId],
        _: &[ActorId],
        _: UnixMillis,
    ) -> Result<(), JournalError> {
        Ok(())
    }

    async fn seats_elsewhere(&self, _: Uuid, _: UnixMillis) -> Result<BTreeSet<ActorId>, JournalError> {
        Ok(BTreeSet::new())
    }

    async fn news(&self) -> Result<Option<News>, JournalError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_hold_that_is_lost_says_so_each_time_and_one_that_is_dropped_is_free() {
    let room = Room::default();
    let mut hold = room.stand().await.unwrap().expect("nobody has it");
    assert!(room.stand().await.unwrap().is_none());
    tokio::task::yield_now().await;
    room.cut();
    hold.lost().await;
    hold.lost().await;
    let held = room.stand().await.unwrap().expect("it was lost");
    drop(held);
    let again = async {
        while room.stand().await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), again).await.expect("it was given up");
}
