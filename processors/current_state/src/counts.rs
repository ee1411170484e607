//! What the fold counts.

use crate::{metrics as names, processor::NAME};
use claims_runtime::metrics::{INCONSISTENCIES, LABEL_KIND, LABEL_PROCESSOR};
use claims_schemas::{EventType, EventView, Status};

/// Counted without a metrics call per record.
#[derive(Default)]
pub(crate) struct Counts {
    pub contradictions: u64,
    pub surprises: u64,
    pub copies: u64,
    pub known_conflicts: u64,
    pub created: u64,
    pub status_changes: [u64; Status::ALL.len()],
}

impl Counts {
    /// An event has changed a claim's state.
    pub fn changed(&mut self, event: &EventView<'_>, before: Status, after: Status) {
        if event.event_type() == EventType::ClaimCreated {
            self.created += 1;
        }
        let position = Status::ALL.iter().position(|&status| status == after);
        if let Some(i) = position.filter(|_| before != after) {
            self.status_changes[i] += 1;
        }
    }

    /// Adds to the metrics what was counted since the last time.
    pub fn publish(&mut self) {
        let counts = std::mem::take(self);
        metrics::counter!(
            INCONSISTENCIES, LABEL_PROCESSOR => NAME, LABEL_KIND => names::KIND_CONTRADICTION
        )
        .increment(counts.contradictions);
        metrics::counter!(names::SURPRISES_TOTAL, names::PROCESSOR => NAME).increment(counts.surprises);
        metrics::counter!(names::COPIES_TOTAL, names::PROCESSOR => NAME).increment(counts.copies);
        metrics::counter!(names::KNOWN_CONFLICTS_TOTAL, names::PROCESSOR => NAME)
            .increment(counts.known_conflicts);
        metrics::counter!(names::CLAIMS_CREATED_TOTAL, names::PROCESSOR => NAME).increment(counts.created);
        for (status, count) in Status::ALL.iter().zip(counts.status_changes) {
            if count > 0 {
                metrics::counter!(names::STATUS_CHANGES_TOTAL, "to_status" => status.as_str())
                    .increment(count);
            }
        }
    }
}
