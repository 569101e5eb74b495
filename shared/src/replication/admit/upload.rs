//! Writes that edges made: concurrent with what the hub has, or not, decided by what their author had seen.

use std::sync::Arc;

use uuid::Uuid;

use super::{Entering, Planner};
use crate::entry::{ChangeType, Content, HubRow, Status};
use crate::feed::{Environments, Feed};
use crate::name::{Subtree, Tenant};
use crate::stamp::{ActorId, Hlc, Stamp, WriteId};
use crate::store::{Conflict, Frontier, PlanningRequest};
use crate::time::UnixMillis;
use crate::vector::{Dot, Vector};
use crate::write::{Action, Answer, Denial, HeldReason, Verdict, Write};

/// One batch of an edge's writes, with what the hub knows of that edge.
#[derive(Clone, Debug)]
pub struct Upload {
    pub edge: ActorId,
    pub tenant: Tenant,
    /// Where it may write.
    pub write: Vec<Subtree>,
    /// What it receives.
    pub feeds: Vec<Feed>,
    pub environments: Environments,
    pub session: u64,
    /// The first of its session.
    pub first: bool,
    /// In the order of their counters.
    pub writes: Vec<Write>,
}

impl Upload {
    /// Adds what planning it needs to `request`.
    pub fn needs(&self, request: &mut PlanningRequest) {
        for write in &self.writes {
            request.keys.push(write.at.clone());
            request.writes.push(write.id);
            let frontier = (self.edge, write.id.incarnation);
            if !request.frontiers.contains(&frontier) {
                request.frontiers.push(frontier);
            }
        }
    }
}

/// SHA-256 over place, content and change: what makes a repeated write the same write. Without the change, one that a
/// copy of the replica made later, with the same content under the same number, would pass for it.
fn content_hash(write: &Write, content: &Content) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(write.at.id().as_bytes());
    context.update(write.change.0.as_bytes());
    context.update(&content.hash());
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Whether the author of a write had seen the row that is current now.
fn has_seen(write: &Entering, current: &HubRow) -> bool {
    let row = &current.row;
    let own_earlier = row.stamp.id.actor == write.stamp.id.actor
        && row.stamp.id.incarnation == write.stamp.id.incarnation
        && row.stamp.id.counter < write.stamp.id.counter;
    write.context.covers_dot(row.dot) || write.base == Some(row.stamp) || own_earlier
}

/// Whether the edge's feeds leave this row out: its vector may cover a secret that nobody there can have seen.
fn hides(upload: &Upload, current: &HubRow) -> bool {
    let at = &current.row.at;
    current.row.content.is_secret() && !upload.feeds.iter().any(|feed| feed.secrets && feed.contains(at))
}

impl Planner {
    /// Judges an edge's writes, in order. Every one is answered; every one that is no duplicate is in the history, or
    /// comes back under another incarnation.
    pub fn upload(&mut self, upload: &Upload) -> Vec<Answer> {
        let mut copied = self.rules.clones && self.is_of_copy(upload);
        upload.writes.iter().map(|write| self.uploaded(upload, write, &mut copied)).collect()
    }

    fn uploaded(&mut self, upload: &Upload, write: &Write, copied: &mut bool) -> Answer {
        let verdict = self.judge(upload, write, copied);
        // Named also where the edge is not to receive the key any more: until the switch that takes the key from its
        // readers, they see their own write.
        let current = self.rows.get(&write.at).map(|row| row.row.dot);
        Answer { id: write.id, verdict, current }
    }

    fn judge(&mut self, upload: &Upload, write: &Write, copied: &mut bool) -> Verdict {
        if write.id.actor != upload.edge || write.at.scope.tenant != upload.tenant {
            // In nobody's name and nobody's history: an edge speaks for itself, in its own tenant.
            return Verdict::Denied(Denial::Namespace);
        }
        let frontier = (upload.edge, write.id.incarnation);
        let last = self.frontiers.get(&frontier).map_or(0, |frontier| frontier.last_counter);
        let content = match &write.action {
            Action::Set { value, .. } => Content::Plain(value.clone()),
            Action::Delete => Content::Deleted,
        };
        let hash = content_hash(write, &content);
        if let Some(verdict) = self.repetition(write, hash, last, copied) {
            return verdict;
        }
        let moved = Frontier {
            edge: upload.edge,
            incarnation: write.id.incarnation,
            last_counter: write.id.counter,
            session: upload.session,
        };
        self.frontiers.insert(frontier, moved);
        self.moved.insert(frontier);
        self.known_writes.insert(write.id, hash);
        let entering = entering(write, content, hash, self.physical);
        self.admit(upload, entering)
    }

    fn admit(&mut self, upload: &Upload, write: Entering) -> Verdict {
        if let Some(denial) = denial(upload, &write) {
            self.set_aside(&write, Status::Denied, denial.to_string().into());
            return Verdict::Denied(denial);
        }
        let bound = Hlc::from_physical(UnixMillis(self.physical.0 + 2 * self.epsilon_ms));
        if write.stamp.hlc > bound {
            return self.hold(&write, HeldReason::ClockAhead);
        }
        self.leader.clock.receive(write.stamp.hlc, bound);
        let version = self.next_version(&write.at);
        let Some(current) = self.rows.get(&write.at) else {
            self.win(write, version);
            return Verdict::Admitted { version };
        };
        if current.row.stamp == write.stamp {
            return Verdict::Duplicate;
        }
        let concurrent = !has_seen(&write, current) || hides(upload, current);
        if concurrent && current.row.content.is_secret() {
            return self.hold(&write, HeldReason::ConcurrentSecret);
        }
        let rival = Rival { stamp: current.row.stamp, version: current.row.version };
        if concurrent {
            self.conflict(&write, version, rival);
        }
        if write.stamp > rival.stamp {
            if concurrent {
                self.superseded.push(rival.stamp.id);
            }
            self.win(write, version);
            Verdict::Admitted { version }
        } else {
            self.lose(&write, version);
            Verdict::Lost { version }
        }
    }

    fn lose(&mut self, write: &Entering, version: u64) {
        self.record(write, version, change_type(write), Status::SupersededConcurrent, None, None);
        let current = self.rows.get_mut(&write.at).expect("a write only loses to a current row");
        current.top_version = version;
        self.raised.insert(write.at.clone());
    }

    fn hold(&mut self, write: &Entering, reason: HeldReason) -> Verdict {
        self.set_aside(write, Status::Held, reason.to_string().into());
        Verdict::Held(reason)
    }

    fn set_aside(&mut self, write: &Entering, status: Status, reason: Arc<str>) {
        self.record(write, 0, change_type(write), status, Some(reason), None);
    }

    fn conflict(&mut self, write: &Entering, version: u64, rival: Rival) {
        let wins = write.stamp > rival.stamp;
        let (mine, theirs) = ((write.stamp.id, version), (rival.stamp.id, rival.version));
        let (winner, loser) = if wins { (mine, theirs) } else { (theirs, mine) };
        self.conflicts.push(Conflict {
            id: conflict_id(winner.0, loser.0),
            at: write.at.clone(),
            winner: winner.0,
            loser: loser.0,
            winner_version: winner.1,
            loser_version: loser.1,
            detected_at: self.physical,
        });
    }
}

/// The row that a write is concurrent with.
#[derive(Clone, Copy)]
struct Rival {
    stamp: Stamp,
    version: u64,
}

/// The same conflict has the same id wherever it is found.
fn conflict_id(winner: WriteId, loser: WriteId) -> Uuid {
    let mut name = Vec::with_capacity(64);
    for id in [winner, loser] {
        name.extend_from_slice(id.actor.0.as_bytes());
        name.extend_from_slice(&id.incarnation.to_be_bytes());
        name.extend_from_slice(&id.counter.to_be_bytes());
    }
    Uuid::new_v5(&CONFLICT_IDS, &name)
}

const CONFLICT_IDS: Uuid = uuid::uuid!("0b7a4a1e-6a0a-5d1b-8f3e-2d6c9b1f4e55");

fn change_type(write: &Entering) -> ChangeType {
    if write.content.is_live() { ChangeType::Update } else { ChangeType::Delete }
}

fn denial(upload: &Upload, write: &Entering) -> Option<Denial> {
    let scope = &write.at.scope;
    if !upload.write.iter().any(|subtree| subtree.contains(&scope.namespace)) {
        return Some(Denial::Namespace);
    }
    (!upload.environments.contains(&scope.environment)).then_some(Denial::Environment)
}

fn entering(write: &Write, content: Content, content_hash: [u8; 32], physical: UnixMillis) -> Entering {
    let (tags, description) = match &write.action {
        Action::Set { tags, description, .. } => (tags.clone(), description.clone()),
        Action::Delete => (None, None),
    };
    Entering {
        at: write.at.clone(),
        stamp: write.stamp(),
        claimed_hlc: write.claimed_hlc,
        content,
        content_hash,
        author: write.author.clone(),
        // An edge's clock may be wrong; what people read as the time of a write is never in the future.
        made_at: write.made_at.min(physical),
        message: write.message.clone(),
        change: write.change,
        tags,
        description,
        rollback: false,
        context: write.context.clone(),
        base: write.base,
    }
}

/// For those who want to know what an upload's answer refers to.
impl Answer {
    /// Whether a replica that has come to `vector` needs no pending write in this answer's place.
    pub fn is_covered(&self, vector: &Vector) -> bool {
        self.current.is_none_or(|dot: Dot| vector.covers_dot(dot))
    }
}
