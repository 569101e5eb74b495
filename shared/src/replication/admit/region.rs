//! Writes that another region has admitted. They keep their stamps, and get a place in this region's order, so that what
//! edges here are sent stays one order however many regions there are.
//!
//! Who comes later in the last-write-wins order wins here as there, so every region ends with the same. The conflict test
//! runs again: a write of each side may have met only here.

use super::contest::Rival;
use super::{Entering, Known, Planner};
use crate::entry::{ChangeType, HistoryRow, HubRow, Status};
use crate::stamp::{Hlc, WriteId};
use crate::store::region::{RegionPage, RegionWrite};
use crate::store::{Frontier, PlanningRequest};
use crate::time::UnixMillis;
use crate::vector::ShardId;

mod names;

use names::another_name;

/// Why a page of another region was not taken. Nothing of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFollowed {
    #[error(
        "the clock of another region is {ahead_ms} ms ahead of this one's; it is followed when the time has come"
    )]
    ClockAhead { ahead_ms: u64 },
    #[error("another page of that region was taken meanwhile")]
    Outdated,
}

impl RegionPage {
    /// Adds what planning it needs to `request`.
    pub fn needs(&self, request: &mut PlanningRequest) {
        for RegionWrite { row, .. } in &self.writes {
            request.keys.push(row.at.clone());
            request.past.extend([row.stamp.id, another_name(row.stamp, row.content_hash)]);
            let frontier = (row.stamp.id.actor, row.stamp.id.incarnation);
            if !request.frontiers.contains(&frontier) {
                request.frontiers.push(frontier);
            }
        }
    }
}

impl Planner {
    /// Takes a page of another region's history in, whole.
    ///
    /// # Errors
    /// When it is not the next page, or of a time that has not come here yet.
    pub fn follow_region(&mut self, page: RegionPage) -> Result<(), NotFollowed> {
        if self.leader.following.bookmark(page.shard) != page.after {
            return Err(NotFollowed::Outdated);
        }
        let bound = Hlc::from_physical(UnixMillis(self.physical.0 + 2 * self.epsilon_ms));
        let latest = page.writes.iter().map(|write| write.row.stamp.hlc).max();
        if let Some(latest) = latest.filter(|latest| *latest > bound) {
            let ahead_ms = latest.physical().0.saturating_sub(self.physical.0);
            return Err(NotFollowed::ClockAhead { ahead_ms });
        }
        self.leader.following.has_read(&page, self.leader.shard);
        self.epochs = self.leader.epochs();
        self.followed = true;
        for write in page.writes {
            self.take_over(write);
        }
        Ok(())
    }

    fn take_over(&mut self, write: RegionWrite) {
        let version = write.row.version;
        let Some(entering) = self.not_here(entering(write)) else { return };
        let id = entering.stamp.id;
        self.known_writes.insert(id, entering.content_hash);
        self.know_incarnation(id);
        self.leader.clock.receive(entering.stamp.hlc, Hlc::MAX);
        // The number that it has there, unless this region has given that one already: then the next one here.
        let next = if self.rules.region_versions { self.next_version(&entering.at) } else { 0 };
        let version = version.max(next);
        let Some(current) = self.rows.get(&entering.at) else {
            self.win(entering, version);
            return;
        };
        let rival = Rival::of(current);
        let later = self.comes_later(&entering, rival);
        let seen = if later { self.has_seen(&entering, current) } else { self.was_seen(&entering, current) };
        let concurrent = !seen && !self.is_same_write(&entering, current);
        match (later, concurrent && self.rules.judge_regions) {
            (true, true) => {
                self.replace(entering, version, rival);
            }
            (true, false) => {
                self.win(entering, version);
            }
            (false, true) => {
                self.conflict(&entering, rival, Rival::at(&entering, version));
                self.stand_below(&entering, version, Status::SupersededConcurrent);
            }
            (false, false) => self.stand_below(&entering, version, Status::Applied),
        }
    }

    /// An edge that comes here is known by what it wrote elsewhere, under each of its incarnations.
    fn know_incarnation(&mut self, WriteId { actor, incarnation, .. }: WriteId) {
        let place = (actor, incarnation);
        if self.epochs.get(ShardId(actor.0)).is_none() && !self.frontiers.contains_key(&place) {
            let known = Frontier { edge: actor, incarnation, last_counter: 0, session: 0 };
            self.frontiers.insert(place, known);
            self.moved.insert(place);
        }
    }

    /// Whether the author of what is current had seen this write.
    fn was_seen(&self, entering: &Entering, current: &HubRow) -> bool {
        let (own, row) = (entering.stamp.id, current.row.stamp.id);
        let own_earlier =
            own.actor == row.actor && own.incarnation == row.incarnation && own.counter < row.counter;
        let in_context =
            entering.origin().is_some_and(|origin| self.epochs.has_seen(&current.context, origin));
        in_context || own_earlier || current.base.is_some_and(|base| base.is(entering.stamp, entering.change))
    }

    /// Goes to the history alone: the entry has something later.
    fn stand_below(&mut self, entering: &Entering, version: u64, status: Status) {
        self.record(entering, version, super::upload::change_type(entering), status, None, None);
        let current = self.rows.get_mut(&entering.at).expect("it stands below a current row");
        if current.top_version < version {
            current.top_version = version;
            self.raised.insert(entering.at.clone());
        }
    }
}

fn is_admitted(known: &HistoryRow) -> bool {
    matches!(known.status, Status::Applied | Status::SupersededConcurrent)
}

fn entering(write: RegionWrite) -> Entering {
    let RegionWrite { row, origin, metadata } = write;
    Entering {
        at: row.at,
        stamp: row.stamp,
        claimed_hlc: row.claimed_hlc,
        content: row.content,
        content_hash: row.content_hash,
        author: row.author,
        made_at: row.created_at,
        message: row.message,
        change: row.change,
        returned_in: row.returned_in,
        tags: None,
        description: None,
        rollback: row.change_type == ChangeType::Rollback,
        context: row.context,
        base: row.base,
        known: Some(Known { origin, metadata }),
    }
}
