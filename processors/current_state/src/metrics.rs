//! Names of this processor's metrics and log fields.

/// Counter: steps that the lifecycle doesn't foresee, applied all the same. Label `processor`.
pub const SURPRISES_TOTAL: &str = "claims_surprising_steps_total";
/// Counter: claims whose creation was folded in.
pub const CLAIMS_CREATED_TOTAL: &str = "claims_created_total";
/// Counter: events that changed a claim's status. Label `to_status`.
pub const STATUS_CHANGES_TOTAL: &str = "claims_status_changes_total";
/// Counter: copies of events already folded.
pub const COPIES_TOTAL: &str = "claims_event_copies_total";
/// Counter: conflicting events met again in a replay and not reported a second time.
pub const KNOWN_CONFLICTS_TOTAL: &str = "claims_known_conflicts_total";
/// Counter: rows written or deleted in the views. Labels `service`, `projection_type`, `status`.
pub const PROJECTIONS_UPDATED_TOTAL: &str = "projections_updated_total";
/// Gauge: claims held in memory: those of the open and the unacknowledged batches, and those changed not long ago.
pub const CLAIMS_IN_MEMORY: &str = "current_state_claims_in_memory";

/// Label and log field: the processor.
pub const PROCESSOR: &str = "processor";
/// Value of the label `kind` of `claims_inconsistencies_total`: a claim's state contradicts itself.
pub const KIND_CONTRADICTION: &str = "state-contradiction";
