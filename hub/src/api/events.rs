//! Changes as they happen, for those who follow the hub. A follower that is slow is read for from the journal later;
//! nothing queues for it.

use std::sync::Arc;

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::{Caller, Clash, Events, ExpiryNotice, Follow, HeldAtHub, Told};
use llm_config_shared::access::Permission;
use llm_config_shared::name::{EntryKey, Environment};
use llm_config_shared::store::{Conflict, Head, Journal, JournalError};
use llm_config_shared::vector::{Position, Vector};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::Api;
use crate::guard;
use crate::registry::Registry;

/// Told ahead of a follower that does not read.
const AHEAD_MAX: usize = 64;
/// Read from the journal at once.
const READ_MAX: usize = 500;

impl<S: Journal + Registry> Api<S> {
    pub(super) async fn follow(&self, caller: &Caller, request: Follow) -> Result<Events, ApiError> {
        guard::may(caller, Permission::Read)?;
        let environment = match &request.environment {
            Some(environment) => Some(self.environment(caller, Some(environment)).await?.1),
            None => None,
        };
        let heads = self.parts.tail.subscribe();
        let head = Arc::clone(&heads.borrow());
        let begin = beginning(&head, request.after.as_ref());
        let told_from = request.after.as_ref().map(|after| after.seq(head.shard));
        let conflicts = self.parts.store.conflict_mark(&caller.tenant, told_from).await?;
        let held = self.parts.store.held_mark().await?;
        let warned = self.parts.store.warning_mark().await?;
        let (tell, told) = mpsc::channel(AHEAD_MAX);
        let following = Following {
            store: Arc::clone(&self.parts.store),
            caller: caller.clone(),
            request: Follow { environment, ..request },
            heads,
            marks: [conflicts, held, warned],
            warnings: self.parts.expiry_warnings.clone(),
            tell,
            stop: self.parts.stop.clone(),
        };
        tokio::spawn(following.run(begin));
        Ok(Box::pin(ReceiverStream::new(told)))
    }
}

/// Where a follower begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    /// With what comes after.
    After(u64),
    /// What it knows is not this hub's history.
    Anew(u64),
}

fn beginning(head: &Head, after: Option<&Vector>) -> Beginning {
    let Some(after) = after else {
        return Beginning::After(head.position.seq);
    };
    match after.get(head.shard) {
        Some(position) if head.vector().covers(after) => Beginning::After(position.seq),
        None if after.is_empty() => Beginning::After(0),
        Some(_) | None => Beginning::Anew(head.position.seq),
    }
}

/// What is told beside changes, each numbered by itself.
#[derive(Clone, Copy)]
enum Queue {
    Conflicts,
    Held,
    /// Warnings of secrets that expire.
    Expiries,
}

struct Following<S> {
    store: Arc<S>,
    caller: Caller,
    request: Follow,
    heads: watch::Receiver<Arc<Head>>,
    /// The number of the last that was told, of each [`Queue`].
    marks: [u64; 3],
    /// Changes when there is a new warning.
    warnings: watch::Receiver<u64>,
    tell: mpsc::Sender<Told>,
    stop: CancellationToken,
}

impl<S: Journal + Registry> Following<S> {
    async fn run(mut self, begin: Beginning) {
        let stop = self.stop.clone();
        tokio::select! {
            _ = self.tell_all(begin) => {}
            () = stop.cancelled() => {}
        }
    }

    /// Ends when the follower has gone; the database being away only delays.
    async fn tell_all(&mut self, begin: Beginning) -> Option<()> {
        let mut after = match begin {
            Beginning::After(seq) => seq,
            Beginning::Anew(seq) => {
                let head = self.heads.borrow().vector();
                self.tell.send(Told::Reset(head)).await.ok()?;
                seq
            }
        };
        loop {
            let up_to = self.heads.borrow_and_update().position.seq;
            if up_to > after {
                after = self.tell_after(after, up_to).await?;
            }
            self.warnings.borrow_and_update();
            if !self.tell_queues(after).await? {
                continue;
            }
            if after >= up_to {
                tokio::select! {
                    changed = self.heads.changed() => changed.ok()?,
                    Ok(()) = self.warnings.changed() => {}
                    () = self.tell.closed() => return None,
                }
            }
        }
    }

    /// Tells some of what comes after; how far that was.
    async fn tell_after(&self, after: u64, up_to: u64) -> Option<u64> {
        let events = match self.store.events_after(&self.caller.tenant, after, READ_MAX).await {
            Ok(events) => events,
            Err(error) => {
                later(&error).await;
                return Some(after);
            }
        };
        // The journal may already have come further than the head that was seen.
        let come_to = match events.last() {
            Some(last) if events.len() == READ_MAX => last.dot.position.seq,
            Some(last) => up_to.max(last.dot.position.seq),
            None => up_to,
        };
        for event in events {
            if self.wanted(&event.at) {
                self.tell.send(Told::Change(event)).await.ok()?;
            }
        }
        Some(come_to)
    }

    /// Tells what came into any queue since; false when that has to be tried again.
    async fn tell_queues(&mut self, after: u64) -> Option<bool> {
        for queue in [Queue::Conflicts, Queue::Held, Queue::Expiries] {
            if !self.tell_queue(queue, after).await? {
                return Some(false);
            }
        }
        Some(true)
    }

    /// Tells what came into a queue since; false when that has to be tried again.
    async fn tell_queue(&mut self, queue: Queue, after: u64) -> Option<bool> {
        loop {
            let page = match self.page(queue, after).await {
                Ok(page) => page,
                Err(error) => {
                    later(&error).await;
                    return Some(false);
                }
            };
            let more = page.len() == READ_MAX;
            for (number, told) in page {
                if let Some(told) = told {
                    self.tell.send(told).await.ok()?;
                }
                self.marks[queue as usize] = number;
            }
            if !more {
                return Some(true);
            }
        }
    }

    /// The next of a queue, by number; nothing to tell of what is not wanted.
    async fn page(&self, queue: Queue, after: u64) -> Result<Vec<(u64, Option<Told>)>, JournalError> {
        let (tenant, mark) = (&self.caller.tenant, self.marks[queue as usize]);
        let mut page = Vec::new();
        match queue {
            Queue::Conflicts => {
                for (number, conflict) in self.store.conflicts_after(tenant, mark, READ_MAX).await? {
                    let told = if self.wanted(&conflict.at) {
                        Some(Told::Conflict(self.clash(conflict, after).await?))
                    } else {
                        None
                    };
                    page.push((number, told));
                }
            }
            Queue::Held => {
                for (number, row) in self.store.held_after(tenant, mark, READ_MAX).await? {
                    let held = HeldAtHub { at: row.at, reason: row.reason.unwrap_or_default() };
                    page.push((number, self.wanted(&held.at).then_some(Told::Held(held))));
                }
            }
            Queue::Expiries => {
                for warning in self.store.warnings_after(tenant, mark, READ_MAX).await? {
                    let wanted = self.wanted(&warning.secret.at);
                    let notice = ExpiryNotice { secret: warning.secret.into(), days: warning.days };
                    page.push((warning.number, wanted.then_some(Told::Expiry(notice))));
                }
            }
        }
        Ok(page)
    }

    async fn clash(&self, conflict: Conflict, after: u64) -> Result<Clash, JournalError> {
        let sides = self.store.writes(&[conflict.winner, conflict.loser]).await?;
        let author = |id| sides.iter().find(|row| row.stamp.id == id).map(|row| row.author.name.clone());
        let head = self.heads.borrow().clone();
        let position = Position { epoch: head.position.epoch, seq: after };
        Ok(Clash {
            conflict: Some(conflict.id),
            winner_version: Some(conflict.winner_version),
            loser_version: conflict.loser_version,
            winner: author(conflict.winner),
            loser: author(conflict.loser),
            position: Some(Vector::at(head.shard, position)),
            at: conflict.at,
        })
    }

    fn wanted(&self, at: &EntryKey) -> bool {
        let scope = &at.scope;
        let in_environment = |environment: &Environment| *environment == scope.environment;
        self.request.subtree.as_ref().is_none_or(|subtree| subtree.contains(&scope.namespace))
            && self.request.environment.as_ref().is_none_or(in_environment)
            && guard::may_read(&self.caller, at).is_ok()
    }
}

/// The database being away only delays.
async fn later(error: &JournalError) {
    tracing::warn!(%error, "changes could not be read for a follower");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
}

#[cfg(test)]
mod tests {
    use llm_config_shared::stamp::Hlc;
    use llm_config_shared::vector::{Epoch, EpochTable, Epochs, Position, ShardId};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_follower_goes_on_where_it_was_unless_that_is_another_history() {
        let shard = |n| ShardId(Uuid::from_u128(n));
        let position = |seq| Position { epoch: 9, seq };
        let own = EpochTable::new(vec![Epoch { ordinal: 0, epoch: 9, start_seq: 0 }]);
        let (epochs, regions) = (Epochs::of(shard(1), own), Vector::EMPTY);
        let head = Head { shard: shard(1), position: position(10), hlc: Hlc(1), horizon: 0, epochs, regions };
        let begin = |after: Option<(u128, u64)>| {
            beginning(&head, after.map(|(n, seq)| Vector::at(shard(n), position(seq))).as_ref())
        };
        assert_eq!(begin(None), Beginning::After(10));
        assert_eq!(begin(Some((1, 4))), Beginning::After(4));
        assert_eq!(begin(Some((1, 11))), Beginning::Anew(10));
        assert_eq!(begin(Some((2, 4))), Beginning::Anew(10));
        assert_eq!(beginning(&head, Some(&Vector::EMPTY)), Beginning::After(0));
    }
}
