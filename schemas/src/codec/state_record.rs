//! A claim's current state as other teams read it from `claims.state.v1`.

use crate::{
    Text,
    events::{Money, Timestamp, Urgency},
    state::{ClaimState, Status, Versioned},
};
use serde::{Deserialize, Serialize};

/// One record of `claims.state.v1`: field for field the Avro record `ClaimState`. `S` is `&str` when it is written
/// from a [`ClaimState`], `String` when read.
///
/// Of several records of one claim the one with the highest `revision` holds. A tombstone means: erased.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename = "ClaimState")]
#[allow(missing_docs)]
pub struct StateRecord<S = String> {
    pub tenant_id: S,
    pub claim_id: S,
    /// Number of distinct versions folded.
    pub revision: u64,
    /// The highest version folded.
    pub version: u64,
    pub status: Status,
    /// When the event that set the status occurred.
    pub status_since: Timestamp,
    pub source: Option<S>,
    pub customer_id: Option<S>,
    pub customer_name: Option<S>,
    pub customer_email: Option<S>,
    pub claim_type: Option<S>,
    pub title: Option<S>,
    pub description: Option<S>,
    pub product_id: Option<S>,
    pub order_id: Option<S>,
    pub urgency: Option<Urgency>,
    pub claimed: Option<Money>,
    pub agent_id: Option<S>,
    pub agent_name: Option<S>,
    pub estimated_resolution_at: Option<Timestamp>,
    pub resolution: Option<S>,
    pub resolution_type: Option<S>,
    pub customer_satisfaction: Option<S>,
    pub follow_up_required: Option<bool>,
    pub replacement_tracking: Option<S>,
    pub settled: Option<Money>,
    pub created_at: Option<Timestamp>,
    pub resolved_at: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
    pub updated_at: Option<Timestamp>,
    pub reopen_count: u32,
    pub reassignment_count: u32,
    pub note_count: u32,
}

impl<'a> From<&'a ClaimState> for StateRecord<&'a str> {
    fn from(state: &'a ClaimState) -> Self {
        fn text(field: &Versioned<Option<Text>>) -> Option<&str> {
            field.value.as_deref()
        }
        Self {
            tenant_id: &state.tenant_id,
            claim_id: &state.claim_id,
            revision: state.revision(),
            version: state.version(),
            status: state.status(),
            status_since: state.status_since,
            source: state.source.as_deref(),
            customer_id: text(&state.customer_id),
            customer_name: text(&state.customer_name),
            customer_email: text(&state.customer_email),
            claim_type: text(&state.claim_type),
            title: text(&state.title),
            description: text(&state.description),
            product_id: text(&state.product_id),
            order_id: text(&state.order_id),
            urgency: state.urgency.value,
            claimed: state.claimed.value.clone(),
            agent_id: text(&state.agent_id),
            agent_name: text(&state.agent_name),
            estimated_resolution_at: state.estimated_resolution_at.value,
            resolution: text(&state.resolution),
            resolution_type: text(&state.resolution_type),
            customer_satisfaction: text(&state.customer_satisfaction),
            follow_up_required: state.follow_up_required.value,
            replacement_tracking: text(&state.replacement_tracking),
            settled: state.settled.value.clone(),
            created_at: state.created_at.value,
            resolved_at: state.resolved_at.value,
            closed_at: state.closed_at.value,
            updated_at: state.updated_at.value,
            reopen_count: state.reopen_count,
            reassignment_count: state.reassignment_count,
            note_count: state.note_count,
        }
    }
}
