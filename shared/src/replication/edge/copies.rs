//! Session rule 7: a replica that was copied, or set back to an earlier state, goes on under an incarnation of its own.

use super::{Alert, EdgeReplica, Effect, Output};
use crate::name::EntryKey;
use crate::store::replica::{Batch, Record};
use crate::time::Instant;

impl EdgeReplica {
    /// Takes the spare incarnation, and gives it to every write that the hub has not decided, in one batch. Numbers
    /// stay as they are: under the new incarnation nobody has used any, and who waits for one is answered as before.
    pub(super) fn reidentify(&mut self, now: Instant) {
        self.reidentifying = self.spare.is_some();
        let Some(spare) = self.spare.take() else { return self.hang_up(0, now) };
        self.state.incarnation = spare;
        let renamed = self.outbox.reidentify(spare);
        let touched = renamed.iter().map(|pending| pending.write.at.clone()).collect();
        let mut put = vec![self.state_record()];
        put.extend(renamed.into_iter().map(Record::Pending));
        self.commit(Batch { put, remove: Vec::new() }, Effect::Reidentified { touched }, now);
    }

    /// The incarnation of a session is what it was greeted with, so the next one begins. One that is beginning already
    /// has not greeted yet: its own batch comes back behind this one.
    pub(super) fn complete_reidentify(&mut self, touched: Vec<EntryKey>, now: Instant) {
        self.reidentifying = false;
        self.publish_overlays(touched);
        let again = self.outbox.undecided();
        self.outputs.push_back(Output::Alert(Alert::Copied { again }));
        if self.is_connected() {
            self.hang_up(0, now);
        }
    }
}

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one output among many")]
mod tests;
