//! Figures of the sync port. Labels are of fixed sets: an edge's name is never one.

use llm_config_shared::newer::Taken;
use llm_config_shared::replication::frame::{HubFrame, Refusal};
use llm_config_shared::replication::repair::{RepairAnswer, Unrepaired};
use llm_config_shared::write::{Answer, HeldReason, Verdict};

/// A frame is on its way to an edge.
pub(super) fn sent(frame: &HubFrame) {
    match frame {
        HubFrame::Segment { bytes, .. } => bytes_sent("segment", "gzip", bytes.len()),
        HubFrame::Checkpoint { bytes, .. } => bytes_sent("checkpoint", "none", bytes.len()),
        HubFrame::Refused { refusal, .. } => {
            metrics::counter!("sync_refusals_total", "reason" => reason(refusal)).increment(1);
        }
        HubFrame::Welcome(_) => metrics::counter!("sync_sessions_total").increment(1),
        HubFrame::End { .. } => metrics::counter!("sync_transfers_total").increment(1),
        HubFrame::UploadResult { answers, .. } => decided(answers),
        HubFrame::Repair { answer, .. } => repaired(answer),
        HubFrame::Taken { taken, .. } => taken_in(taken),
        HubFrame::OfflineLimit(_) | HubFrame::Grants(_) | HubFrame::Reply { .. } => {}
    }
}

/// An edge has handed in what the hub lacked after it was restored.
fn taken_in(taken: &Taken) {
    for (outcome, count) in taken.counts() {
        metrics::counter!("sync_newer_writes_total", "outcome" => outcome).increment(count);
    }
}

fn bytes_sent(kind: &'static str, codec: &'static str, length: usize) {
    metrics::counter!("sync_bytes_total", "kind" => kind, "codec" => codec).increment(length as u64);
}

/// An edge's replica differs from this hub: a bug of one of the two, or a bad disk there.
fn repaired(answer: &RepairAnswer) {
    let step = match answer {
        RepairAnswer::Differing { .. } => "compared",
        RepairAnswer::Rows(_) => "sent",
        RepairAnswer::Not(Unrepaired::Moved) => "moved",
        RepairAnswer::Not(Unrepaired::Unfit) => "unfit",
        RepairAnswer::Not(Unrepaired::Busy) => "busy",
    };
    metrics::counter!("sync_repairs_total", "step" => step).increment(1);
}

fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Behind => "behind",
        Refusal::Ahead => "ahead",
        Refusal::Removed => "removed",
        Refusal::Replaced => "replaced",
        Refusal::Resubscribe => "resubscribe",
        Refusal::Busy => "busy",
        Refusal::Protocol(_) => "protocol",
    }
}

fn held(reason: HeldReason) -> &'static str {
    match reason {
        HeldReason::ClockAhead => "clock-ahead",
        HeldReason::ConcurrentSecret => "concurrent-secret",
        HeldReason::Policy => "policy",
        HeldReason::Newer => "newer",
    }
}

fn decided(answers: &[Answer]) {
    for answer in answers {
        let decision = match answer.verdict {
            Verdict::Admitted { .. } => "admitted",
            Verdict::Lost { .. } => "lost",
            Verdict::Held(reason) => {
                metrics::counter!("sync_held_total", "reason" => held(reason)).increment(1);
                "held"
            }
            Verdict::Denied(_) => "denied",
            Verdict::Duplicate => "duplicate",
            Verdict::Reidentify => "reidentify",
        };
        metrics::counter!("sync_writes_total", "decision" => decision).increment(1);
    }
}
