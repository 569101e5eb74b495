//! Writes that edges made: concurrent with what the hub has, or not, decided by what their author had seen.

use std::sync::Arc;

use super::contest::Rival;
use super::{Entering, Planner};
use crate::entry::{ChangeId, ChangeType, Content, HubRow, Status};
use crate::feed::{Environments, Feed};
use crate::name::{EntryKey, Subtree, Tenant};
use crate::stamp::{ActorId, Hlc};
use crate::store::{Frontier, PlanningRequest};
use crate::time::UnixMillis;
use crate::vector::{Dot, Vector};
use crate::write::{Action, Answer, Base, Denial, HeldReason, Verdict, Write};

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
            request.writes.push((write.id.actor, write.id.counter));
            let frontier = (self.edge, write.id.incarnation);
            if !request.frontiers.contains(&frontier) {
                request.frontiers.push(frontier);
            }
        }
        if !request.policies.contains(&self.tenant) {
            request.policies.push(self.tenant.clone());
        }
    }
}

/// SHA-256 over place, content and change: what makes a repeated write the same write. Without the change, one that a
/// copy of the replica made later, with the same content under the same number, would pass for it.
pub(super) fn content_hash(at: &EntryKey, change: ChangeId, content: &Content) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(at.id().as_bytes());
    context.update(change.0.as_bytes());
    context.update(&content.hash());
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Whether the author's feed left this row out: its vector may cover a secret that nobody there can have seen. What the edge
/// receives by now may be something else.
fn hides(feeds: &[Feed], without_secrets: bool, current: &HubRow) -> bool {
    let at = &current.row.at;
    let received = || feeds.iter().any(|feed| feed.secrets && feed.contains(at));
    current.row.content.is_secret() && (without_secrets || !received())
}

impl Planner {
    /// Whether the author of a write had seen the row that is current now. The row's stamp may be the hub's, where a policy
    /// made it win; its id is what the author knew.
    pub(super) fn has_seen(&self, write: &Entering, current: &HubRow) -> bool {
        let row = &current.row;
        let own_earlier = row.stamp.id.actor == write.stamp.id.actor
            && row.stamp.id.incarnation == write.stamp.id.incarnation
            && row.stamp.id.counter < write.stamp.id.counter;
        let follows = |base: Base| match self.rules.base_change {
            true => base.is(row.stamp, row.change),
            // The fault that the rule guards against: the number alone says which write it was.
            false => base.is(row.stamp, base.change),
        };
        self.is_seen_in(current, &write.context) || own_earlier || write.base.is_some_and(follows)
    }

    fn is_seen_in(&self, current: &HubRow, context: &Vector) -> bool {
        if self.rules.region_epochs {
            return current.is_seen_in(context, &self.epochs);
        }
        // The fault that the rule guards against: numbers alone say what was seen.
        let origin = current.origin.is_some_and(|origin| context.covers_dot(origin));
        origin || context.covers_dot(current.row.dot)
    }

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
        let content = write.action.content();
        let hash = content_hash(&write.at, write.change, &content);
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
        self.admit(upload, entering, write.without_secrets)
    }

    fn admit(&mut self, upload: &Upload, write: Entering, without_secrets: bool) -> Verdict {
        if let Some(denial) = denial(&upload.write, &upload.environments, &write.at) {
            self.set_aside(&write, Status::Denied, denial.to_string().into());
            return Verdict::Denied(denial);
        }
        self.enter(&upload.feeds, write, without_secrets)
    }

    /// Stamps beyond this are ahead of the hub's clock: nothing is admitted under them.
    pub(super) fn latest(&self) -> Hlc {
        Hlc::from_physical(UnixMillis(self.physical.0 + 2 * self.epsilon_ms))
    }

    /// Judges a write by its stamp, and by what its author had seen.
    pub(super) fn enter(&mut self, feeds: &[Feed], write: Entering, without_secrets: bool) -> Verdict {
        let bound = self.latest();
        if write.stamp.hlc > bound {
            return self.hold(&write, HeldReason::ClockAhead);
        }
        self.leader.clock.receive(write.stamp.hlc, bound);
        let version = self.next_version(&write.at);
        let Some(current) = self.rows.get(&write.at) else {
            self.win(write, version);
            return Verdict::Admitted { version };
        };
        if current.row.stamp.id == write.stamp.id {
            return Verdict::Duplicate;
        }
        let concurrent = !self.has_seen(&write, current) || hides(feeds, without_secrets, current);
        if concurrent && current.row.content.is_secret() {
            return self.hold(&write, HeldReason::ConcurrentSecret);
        }
        let rival = Rival::of(current);
        if concurrent { self.contest(write, version, rival) } else { self.follow(write, version, rival) }
    }

    pub(super) fn lose(&mut self, write: &Entering, version: u64) {
        self.record(write, version, change_type(write), Status::SupersededConcurrent, None, None);
        let current = self.rows.get_mut(&write.at).expect("a write only loses to a current row");
        current.top_version = version;
        self.raised.insert(write.at.clone());
    }

    pub(super) fn hold(&mut self, write: &Entering, reason: HeldReason) -> Verdict {
        self.set_aside(write, Status::Held, reason.to_string().into());
        Verdict::Held(reason)
    }

    pub(super) fn set_aside(&mut self, write: &Entering, status: Status, reason: Arc<str>) {
        self.record(write, 0, change_type(write), status, Some(reason), None);
    }
}

pub(super) fn change_type(write: &Entering) -> ChangeType {
    if write.content.is_live() { ChangeType::Update } else { ChangeType::Delete }
}

/// Why an edge that may write in these subtrees may not write there.
pub(super) fn denial(write: &[Subtree], environments: &Environments, at: &EntryKey) -> Option<Denial> {
    let scope = &at.scope;
    if !write.iter().any(|subtree| subtree.contains(&scope.namespace)) {
        return Some(Denial::Namespace);
    }
    (!environments.contains(&scope.environment)).then_some(Denial::Environment)
}

pub(super) fn entering(
    write: &Write,
    content: Content,
    content_hash: [u8; 32],
    physical: UnixMillis,
) -> Entering {
    let (tags, description) = match &write.action {
        Action::Set { tags, description, .. } => (tags.clone(), description.clone()),
        Action::Delete | Action::Sealed(_) => (None, None),
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
        returned_in: None,
        tags,
        description,
        rollback: false,
        context: write.context.clone(),
        base: write.base,
        known: None,
    }
}

/// For those who want to know what an upload's answer refers to.
impl Answer {
    /// Whether a replica that has come to `vector` needs no pending write in this answer's place.
    pub fn is_covered(&self, vector: &Vector) -> bool {
        self.current.is_none_or(|dot: Dot| vector.covers_dot(dot))
    }
}
