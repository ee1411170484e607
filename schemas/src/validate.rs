//! What every event must hold to, whoever produced it.

use crate::events::{Event, Timestamp};

/// Which field of an event is refused, and why. Holds no value of the event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct ValidationError {
    /// The field, with its place: `claim_id`, `data.claimed.amount`.
    pub field: &'static str,
    /// A stable word, fit for a metric label or a dead letter's reason.
    pub reason: &'static str,
}

/// Checks lengths, characters, versions, amounts and times. `now`: the clock, for times in the future.
pub fn validate(_event: &Event, _now: Timestamp) -> Result<(), ValidationError> {
    unimplemented!()
}
