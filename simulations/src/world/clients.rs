//! Clients of the hub's API: they send, wait, and try again under the same name when no answer comes.

use std::collections::BTreeMap;

use llm_config_shared::entry::{Author, ChangeId, Content};
use llm_config_shared::name::{EntryKey, Tenant};
use llm_config_shared::replication::admit::{
    ApiSubmission, OpAction, OpOutcome, Operation, RepeatKey, SetValue, Submission,
};
use llm_config_shared::stamp::WriteId;
use llm_config_shared::value::Value;
use rand::RngExt;
use uuid::Uuid;

use super::writer::{Asked, Job, Waits};
use super::{Event, World};
use crate::invariants::Check;

/// What a client wants done to one entry.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Set(Value, bool),
    Secret(String),
    Delete,
    Restore(Content),
}

/// A request that a client keeps until it is answered.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) change: ChangeId,
    pub(super) operations: Vec<(EntryKey, Wish, Option<u64>)>,
    pub(super) atomic: bool,
    pub(super) dry_run: bool,
    tries: u32,
}

/// All requests without an answer, and what was answered.
#[derive(Debug, Default)]
pub(super) struct Clients {
    waiting: BTreeMap<u64, Wanted>,
    last: u64,
    /// Writes of which a client heard that they are done.
    pub(super) acknowledged: Vec<WriteId>,
    /// Changes of which a client heard that nothing was done.
    pub(super) undone: Vec<ChangeId>,
}

impl Clients {
    /// Whether nobody waits for an answer.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl World {
    /// A client sends a request for the first time.
    pub(super) fn request(
        &mut self,
        operations: Vec<(EntryKey, Wish, Option<u64>)>,
        atomic: bool,
        dry_run: bool,
    ) -> Check {
        self.clients.last += 1;
        let request = self.clients.last;
        let change = ChangeId(Uuid::from_u128(0xc4a0_0000_0000 + u128::from(request)));
        if atomic {
            self.truth.atomic_changes.insert(change);
        }
        let wanted = Wanted { change, operations, atomic, dry_run, tries: 0 };
        self.clients.waiting.insert(request, wanted);
        self.retry(request)
    }

    pub(super) fn retry(&mut self, request: u64) -> Check {
        let Some(wanted) = self.clients.waiting.get_mut(&request) else { return Ok(()) };
        wanted.tries += 1;
        if wanted.tries > 6 {
            self.clients.waiting.remove(&request);
            return Ok(());
        }
        if wanted.tries > 1 {
            self.stats.count("repeated requests");
        }
        let wanted = wanted.clone();
        let leading: Vec<usize> = (0..self.hubs.len())
            .filter(|hub| self.hubs[*hub].up && self.hubs[*hub].leader.is_some())
            .collect();
        let reachable: Vec<usize> =
            leading.into_iter().filter(|hub| self.hubs[*hub].paused_until <= self.now).collect();
        if reachable.is_empty() {
            self.unanswered(request);
            return Ok(());
        }
        let hub = reachable[self.rng.random_range(0..reachable.len())];
        let submission = submission(&self.tenant, wanted);
        self.submit(hub, Job { asked: Asked::Writes(submission), waits: Waits::Client { request } })
    }

    /// No answer came, or none that helps.
    pub(super) fn unanswered(&mut self, request: u64) {
        let after = self.rng.random_range(200..3_000);
        self.schedule(after, Event::Retry { request });
    }

    /// The hub has answered; nothing in the answer where it says only that it had done it before.
    pub(super) fn answered(&mut self, request: u64, outcomes: Option<Vec<OpOutcome>>) -> Check {
        let Some(wanted) = self.clients.waiting.remove(&request) else { return Ok(()) };
        let Some(outcomes) = outcomes else {
            self.stats.count("repeated answers");
            return Ok(());
        };
        self.stats.count("api requests");
        let refused = outcomes.iter().any(Result::is_err);
        if refused {
            self.stats.count("api refusals");
        }
        if wanted.dry_run || (wanted.atomic && refused) {
            self.clients.undone.push(wanted.change);
            return Ok(());
        }
        let done = outcomes.into_iter().flatten().map(|row| row.row.stamp.id);
        self.clients.acknowledged.extend(done);
        Ok(())
    }
}

fn submission(tenant: &Tenant, wanted: Wanted) -> Submission {
    let operations = wanted.operations.into_iter().map(|(at, wish, if_version)| {
        let set = |value| OpAction::Set { value, tags: None, description: None };
        let action = match wish {
            Wish::Set(value, over_secret) => set(SetValue::Plain { value, over_secret }),
            Wish::Secret(text) => set(SetValue::Secret(text.into_bytes().into())),
            Wish::Delete => OpAction::Delete,
            Wish::Restore(content) => OpAction::Rollback { content },
        };
        Operation { at, action, if_version }
    });
    Submission::Api(ApiSubmission {
        tenant: tenant.clone(),
        author: Author { name: "token:client".into(), claimed: None },
        change: Some(wanted.change),
        message: None,
        operations: operations.collect(),
        atomic: wanted.atomic,
        dry_run: wanted.dry_run,
        repeat: (!wanted.dry_run).then_some(RepeatKey { batch: 1, request_hash: [1; 32] }),
    })
}
