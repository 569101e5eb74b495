//! Figures of the sync port. Labels are of fixed sets: an edge's name is never one.

use llm_config_shared::replication::frame::{HubFrame, Refusal};
use llm_config_shared::write::{Answer, Verdict};

/// A frame is on its way to an edge.
pub(super) fn sent(frame: &HubFrame) {
    match frame {
        HubFrame::Segment { bytes, .. } => bytes_sent("segment", bytes.len()),
        HubFrame::Checkpoint { bytes, .. } => bytes_sent("checkpoint", bytes.len()),
        HubFrame::Refused { refusal, .. } => {
            metrics::counter!("sync_refusals_total", "reason" => reason(refusal)).increment(1);
        }
        HubFrame::Welcome(_) => metrics::counter!("sync_sessions_total").increment(1),
        HubFrame::End { .. } => metrics::counter!("sync_transfers_total").increment(1),
        HubFrame::UploadResult { answers, .. } => decided(answers),
        HubFrame::Grants(_) | HubFrame::Reply { .. } => {}
    }
}

fn bytes_sent(kind: &'static str, length: usize) {
    metrics::counter!("sync_bytes_sent_total", "kind" => kind).increment(length as u64);
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

fn decided(answers: &[Answer]) {
    for answer in answers {
        let decision = match answer.verdict {
            Verdict::Admitted { .. } => "admitted",
            Verdict::Lost { .. } => "lost",
            Verdict::Held(_) => "held",
            Verdict::Denied(_) => "denied",
            Verdict::Duplicate => "duplicate",
            Verdict::Reidentify => "reidentify",
        };
        metrics::counter!("sync_writes_total", "decision" => decision).increment(1);
    }
}
