//! What regions do where one number of an edge means two things: other writes, made by copies of its replica that went to
//! different regions, or one write under two times, because two hubs judged it by a policy.
//!
//! Nothing in a history is renamed or taken back, for authors and conflicts refer to it. What comes second to a region gets
//! another name there, which follows from what it says and its time: so whoever brings it again, it is known. Names differ
//! between regions then, and so nothing that regions must agree on may depend on them.

use super::super::{Entering, Planner};
use super::is_admitted;
use crate::entry::HubRow;
use crate::stamp::{Stamp, WriteId};
use crate::vector::ShardId;

/// The name of a write where its own is another's.
pub(super) fn another_name(stamp: Stamp, content_hash: [u8; 32]) -> WriteId {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(b"llm-config another name\0");
    context.update(&stamp.id.incarnation.to_be_bytes());
    context.update(&stamp.hlc.0.to_be_bytes());
    context.update(&content_hash);
    let digest = context.finish();
    let (first, _) = digest.as_ref().split_first_chunk::<8>().expect("SHA-256 has 32 bytes");
    WriteId { incarnation: u64::from_be_bytes(*first) >> 1, ..stamp.id }
}

/// Whether an edge gave both the same number, under whatever incarnation.
fn same_number(a: WriteId, b: WriteId) -> bool {
    a.actor == b.actor && a.counter == b.counter
}

impl Planner {
    /// The write under the name that it gets here; none where it is here already.
    pub(super) fn not_here(&mut self, write: Entering) -> Option<Entering> {
        let id = write.stamp.id;
        let Some(known) = self.past_of(id) else { return Some(write) };
        let of_edge = self.epochs.get(ShardId(id.actor.0)).is_none();
        let other = of_edge && self.rules.region_copies && known.content_hash != write.content_hash;
        let later = of_edge && self.rules.region_times && known.stamp.hlc < write.stamp.hlc;
        let admitted = is_admitted(known);
        if other || admitted && later {
            let name = another_name(write.stamp, write.content_hash);
            let named = Entering { stamp: Stamp { id: name, ..write.stamp }, ..write };
            return self.past_of(name).is_none().then_some(named);
        }
        if admitted {
            return None;
        }
        // An edge that went from one region to the other may have brought it to both, and here it was set aside.
        self.take_back(id);
        Some(write)
    }

    /// Whether they are one write, under two names.
    pub(super) fn is_same_write(&self, write: &Entering, current: &HubRow) -> bool {
        same_number(write.stamp.id, current.row.stamp.id) && write.change == current.row.change
    }
}
