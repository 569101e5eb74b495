//! Writes made on this machine: durable here, uploaded, decided by the hub.

use super::{Alert, EdgeReplica, Effect, LocalWrite, Output, Phase, Published, WriteRefused};
use crate::limits::{COUNTER_BLOCK, OUTBOX_WRITES_MAX};
use crate::name::EntryKey;
use crate::replication::carry::mark;
use crate::replication::frame::EdgeFrame;
use crate::replication::outbox;
use crate::secret::KeyGrant;
use crate::stamp::WriteId;
use crate::store::replica::{Batch, PendingRecord, Record, Slot};
use crate::time::Instant;
use crate::vector::Vector;
use crate::write::{Answer, Base, Verdict, Write};

impl EdgeReplica {
    pub(super) fn handle_write(&mut self, local: LocalWrite, now: Instant) {
        let ticket = local.ticket;
        if let Err(reason) = self.check_write(&local.at) {
            return self.outputs.push_back(Output::WriteRefused { ticket, reason });
        }
        let counter = self.next_counter;
        self.next_counter += 1;
        let made_at = self.hub_time(now);
        let feed = self.feed_of(&local.at);
        let without_secrets = feed.is_some_and(|(feed, _)| !feed.secrets);
        let context = feed.map(|(_, state)| state.record.vector.clone()).unwrap_or_default();
        let write = Write {
            id: WriteId { actor: self.identity.edge, incarnation: self.state.incarnation, counter },
            hlc: self.clock.tick(made_at),
            claimed_hlc: None,
            context,
            without_secrets,
            base: self.seen(&local.at),
            at: local.at,
            action: local.action,
            author: local.author,
            made_at,
            message: local.message,
            change: local.change,
        };
        // In a session the clock is the hub's, so the stamp may go as it is.
        let sent = self.is_connected();
        let pending = PendingRecord { write, sent, hidden: false, decided: None };
        let mut put = vec![Record::Pending(pending.clone())];
        if counter >= self.state.counter_ceiling {
            self.state.counter_ceiling = counter + COUNTER_BLOCK;
        }
        put.push(self.state_record());
        self.outbox.begin(pending);
        let effect = Effect::Queued { ticket, counter };
        self.commit(Batch { put, remove: Vec::new() }, effect, now);
    }

    fn check_write(&self, at: &EntryKey) -> Result<(), WriteRefused> {
        if let Some(error) = &self.broken {
            return Err(WriteRefused::Store(error.clone()));
        }
        let scope = &at.scope;
        let allowed = self.state.write.iter().any(|subtree| subtree.contains(&scope.namespace));
        if scope.tenant != self.identity.tenant || !allowed {
            return Err(WriteRefused::Namespace(scope.namespace.clone()));
        }
        if !self.state.environments.contains(&scope.environment) {
            return Err(WriteRefused::Environment(scope.environment.clone()));
        }
        if self.row(at).is_some_and(|row| row.content.is_secret()) {
            return Err(WriteRefused::Secret);
        }
        let waiting = self.outbox.len();
        if waiting >= OUTBOX_WRITES_MAX { Err(WriteRefused::Full { waiting }) } else { Ok(()) }
    }

    /// The write that a reader now sees under this key.
    fn seen(&self, at: &EntryKey) -> Option<Base> {
        let pending = self.outbox.visible(at).map(Write::as_base);
        pending.or_else(|| self.row(at).map(|row| row.as_base()))
    }

    pub(super) fn complete_write(&mut self, ticket: u64, counter: u64, now: Instant) {
        let Some(pending) = self.outbox.complete(counter) else { return };
        let at = pending.write.at.clone();
        let place = self.outbox.undecided() as u64;
        self.publish_overlays(vec![at]);
        self.outputs.push_back(Output::Queued { ticket, counter, place });
        self.upload_or_subscribe(now);
    }

    /// Marks the next writes as sent; they go out once that is durable.
    pub(super) fn begin_upload(&mut self, now: Instant) {
        let pending = self.outbox.next_upload();
        if pending.is_empty() {
            return;
        }
        self.last_batch += 1;
        self.upload_in_flight = Some(self.last_batch);
        if pending.iter().all(|pending| pending.sent) {
            return self.send_upload(pending, now);
        }
        let pending: Vec<_> =
            pending.into_iter().map(|pending| PendingRecord { sent: true, ..pending }).collect();
        for record in &pending {
            self.outbox.put(record.clone());
        }
        let put = pending.iter().cloned().map(Record::Pending).collect();
        self.commit(Batch { put, remove: Vec::new() }, Effect::Sendable { pending }, now);
    }

    pub(super) fn send_upload(&mut self, pending: Vec<PendingRecord>, now: Instant) {
        let Some(batch) = self.upload_in_flight else { return };
        if !matches!(self.phase, Phase::Serving { .. }) {
            return;
        }
        let writes = pending.into_iter().map(|pending| pending.write).collect();
        self.send(EdgeFrame::Upload { batch, writes }, now);
    }

    pub(super) fn handle_upload_result(&mut self, batch: u64, answers: Vec<Answer>, now: Instant) {
        // In a file it is the answer to what was carried to the hub before, if that was this.
        let mut answers = answers;
        if self.phase == Phase::Carried {
            let pending = answers.iter().filter_map(|answer| self.outbox.get(answer.id.counter));
            if mark(pending) != batch {
                return;
            }
            answers.retain(|answer| answer.verdict != Verdict::Reidentify);
        } else if self.upload_in_flight != Some(batch) {
            return;
        }
        let copied = answers.iter().any(|answer| answer.verdict == Verdict::Reidentify);
        let (mut kept, mut removed, mut verdicts) = (Vec::new(), Vec::new(), Vec::new());
        for answer in answers {
            let vector = self.outbox_vector(answer.id.counter);
            self.note_decided(&answer);
            let at = match self.outbox.answered(&answer, vector.as_ref()) {
                Some(outbox::Effect::Keep(pending)) if self.rules.hide_by_row => {
                    let at = pending.write.at.clone();
                    kept.push(*pending);
                    at
                }
                Some(outbox::Effect::Keep(pending)) => {
                    removed.push((answer.id.counter, pending.write.at.clone()));
                    pending.write.at
                }
                Some(outbox::Effect::Remove { counter, at }) => {
                    removed.push((counter, at.clone()));
                    at
                }
                None => continue,
            };
            verdicts.push((answer.id.counter, at, answer.verdict));
        }
        for pending in &kept {
            self.outbox.put(pending.clone());
        }
        let mut put: Vec<Record> = kept.iter().cloned().map(Record::Pending).collect();
        put.push(self.state_record());
        let denied = |(counter, ..): &(u64, EntryKey)| {
            verdicts.iter().any(|(of, _, verdict)| of == counter && matches!(verdict, Verdict::Denied(_)))
        };
        let admitted: Vec<_> = removed.iter().filter(|removed| !denied(removed)).cloned().collect();
        let mut batch = self.begin_removals(&admitted, now);
        batch.put.append(&mut put);
        for (counter, _) in removed.iter().filter(|removed| denied(removed)) {
            self.outbox.begin_removal(*counter);
            batch.remove.push(Slot::Pending(*counter));
        }
        self.reidentifying = copied;
        self.commit(batch, Effect::Answered { kept, removed, verdicts }, now);
        if copied {
            self.reidentify(now);
        }
    }

    /// A stamp that the hub took is never followed by a smaller one, whatever the next hub process knows of it.
    fn note_decided(&mut self, answer: &Answer) {
        let admitted =
            matches!(answer.verdict, Verdict::Admitted { .. } | Verdict::Lost { .. } | Verdict::Duplicate);
        let pending = self.outbox.iter().find(|pending| pending.write.id == answer.id);
        if let Some(pending) = pending.filter(|_| admitted) {
            self.state.decided_hlc = self.state.decided_hlc.max(pending.write.hlc);
        }
    }

    fn outbox_vector(&self, counter: u64) -> Option<Vector> {
        let pending = self.outbox.iter().find(|pending| pending.write.id.counter == counter)?;
        self.vector_to_go_by(&pending.write.at)
    }

    /// How far the feed of this entry has come in the hub's order: not at all, where what it has is of a history that is
    /// gone.
    fn vector_to_go_by(&self, at: &EntryKey) -> Option<Vector> {
        let vector = self.vector_of(at)?;
        Some(if self.recovering.is_some() { Vector::EMPTY } else { vector.clone() })
    }

    pub(super) fn complete_answers(
        &mut self,
        kept: Vec<PendingRecord>,
        removed: Vec<(u64, EntryKey)>,
        verdicts: Vec<(u64, EntryKey, Verdict)>,
        now: Instant,
    ) {
        let mut covered = Vec::new();
        for pending in kept {
            // While the answer was being made durable, the row that the hub named may have arrived, or its feed have gone.
            let here = self.vector_to_go_by(&pending.write.at);
            let reached = |dot| here.as_ref().is_none_or(|vector| vector.covers_dot(dot));
            if pending.decided.is_some_and(reached) {
                covered.push((pending.write.id.counter, pending.write.at));
            }
        }
        self.remove_pending(covered, now);
        let touched = removed.iter().map(|(_, at)| at.clone()).collect();
        for (counter, _) in removed {
            self.outbox.remove(counter);
        }
        self.publish_overlays(touched);
        for (counter, at, verdict) in verdicts {
            match &verdict {
                Verdict::Held(_) => self.outputs.push_back(Output::Alert(Alert::Held { counter })),
                Verdict::Denied(reason) => {
                    self.outputs.push_back(Output::Alert(Alert::Denied { counter, reason: *reason }));
                }
                Verdict::Admitted { .. }
                | Verdict::Lost { .. }
                | Verdict::Duplicate
                | Verdict::Reidentify => {}
            }
            self.outputs.push_back(Output::Decided { counter, at, verdict });
        }
        self.upload_in_flight = None;
        self.upload_or_subscribe(now);
    }

    /// A batch that takes out writes that the hub has, and keeps them for a while all the same.
    pub(super) fn begin_removals(&mut self, removed: &[(u64, EntryKey)], now: Instant) -> Batch {
        for (counter, _) in removed {
            self.outbox.begin_removal(*counter);
        }
        let writes = removed.iter().filter_map(|(counter, _)| self.outbox.get(*counter)).cloned().collect();
        let mut batch = self.keep(writes, now);
        batch.remove.extend(removed.iter().map(|(counter, _)| Slot::Pending(*counter)));
        batch
    }

    fn remove_pending(&mut self, removed: Vec<(u64, EntryKey)>, now: Instant) {
        if removed.is_empty() {
            return;
        }
        let batch = self.begin_removals(&removed, now);
        self.commit(batch, Effect::Confirmed { feeds: Vec::new(), removed }, now);
    }

    pub(super) fn publish_overlays(&mut self, keys: Vec<EntryKey>) {
        let pending = keys.into_iter().map(|at| self.overlay(at)).collect();
        let pending_count = self.outbox.undecided();
        self.outputs.push_back(Output::Publish(Published { pending, pending_count, ..Published::default() }));
    }

    pub(super) fn handle_grants(&mut self, grants: Vec<KeyGrant>, now: Instant) {
        let put = grants.iter().cloned().map(Record::Grant).collect();
        self.commit(Batch { put, remove: Vec::new() }, Effect::Granted(grants), now);
    }

    pub(super) fn complete_grants(&mut self, grants: Vec<KeyGrant>) {
        for grant in &grants {
            let place = |known: &KeyGrant| {
                known.environment == grant.environment
                    && known.subtree == grant.subtree
                    && known.key_epoch == grant.key_epoch
            };
            self.grants.retain(|known| !place(known));
            self.grants.push(grant.clone());
        }
        let pending_count = self.outbox.undecided();
        self.outputs.push_back(Output::Publish(Published { grants, pending_count, ..Published::default() }));
    }
}
