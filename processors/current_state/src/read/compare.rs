//! What a row of `claim_by_id` must look like, and how one differs.

use super::ClaimView;
use crate::cql::rows::decimal;
use chrono::{DateTime, Utc};
use claims_schemas::{ClaimState, Text, Timestamp, events::Money};

/// The names of these columns where two rows differ.
macro_rules! differing_columns {
    ($one:ident, $other:ident, $($column:ident)*) => {
        [$((stringify!($column), $one.$column != $other.$column)),*]
            .into_iter()
            .filter_map(|(column, differs)| differs.then_some(column))
            .collect()
    };
}
pub(super) use differing_columns;

impl ClaimView {
    /// The row of a claim in this state.
    pub fn of(state: &ClaimState) -> Self {
        let text = |text: &Option<Text>| text.as_ref().map(Text::to_string);
        let at = |at: Option<Timestamp>| at.and_then(|at| DateTime::<Utc>::from_timestamp_millis(at.0));
        let amount = |money: &Option<Money>| money.as_ref().map(|m| decimal(m.amount));
        let currency = |money: &Option<Money>| money.as_ref().and_then(|m| text(&m.currency));
        let count = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        Self {
            tenant_id: state.tenant_id.to_string(),
            claim_id: state.claim_id.to_string(),
            status: state.status().as_str().to_owned(),
            status_since: at((state.status.version > 0).then_some(state.status_since)),
            source: text(&state.source),
            customer_id: text(&state.customer_id.value),
            customer_name: text(&state.customer_name.value),
            customer_email: text(&state.customer_email.value),
            claim_type: text(&state.claim_type.value),
            title: text(&state.title.value),
            description: text(&state.description.value),
            product_id: text(&state.product_id.value),
            order_id: text(&state.order_id.value),
            urgency: state.urgency.value.map(|urgency| urgency.as_str().to_owned()),
            claimed_amount: amount(&state.claimed.value),
            claimed_currency: currency(&state.claimed.value),
            agent_id: text(&state.agent_id.value),
            agent_name: text(&state.agent_name.value),
            estimated_resolution_at: at(state.estimated_resolution_at.value),
            resolution: text(&state.resolution.value),
            resolution_type: text(&state.resolution_type.value),
            customer_satisfaction: text(&state.customer_satisfaction.value),
            follow_up_required: state.follow_up_required.value,
            replacement_tracking: text(&state.replacement_tracking.value),
            settled_amount: amount(&state.settled.value),
            settled_currency: currency(&state.settled.value),
            created_at: at(state.created_at.value),
            resolved_at: at(state.resolved_at.value),
            closed_at: at(state.closed_at.value),
            updated_at: at(state.updated_at.value),
            reopen_count: count(state.reopen_count),
            reassignment_count: count(state.reassignment_count),
            note_count: count(state.note_count),
            version: state.version() as i64,
            revision: state.revision() as i64,
        }
    }

    /// Names of the columns in which two rows differ; no values: they may be personal data.
    pub fn differing_columns(&self, other: &Self) -> Vec<&'static str> {
        differing_columns!(self, other,
            tenant_id claim_id status status_since source customer_id customer_name customer_email claim_type title
            description product_id order_id urgency claimed_amount claimed_currency agent_id agent_name
            estimated_resolution_at resolution resolution_type customer_satisfaction follow_up_required
            replacement_tracking settled_amount settled_currency created_at resolved_at closed_at updated_at
            reopen_count reassignment_count note_count version revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_differ_are_named() {
        let row = ClaimView::of(&ClaimState::empty("t", "c"));
        assert_eq!(row.status, "UNKNOWN");
        let mut other = row.clone();
        assert_eq!(row.differing_columns(&other), Vec::<&str>::new());
        other.status = "CLOSED".into();
        other.revision = 9;
        assert_eq!(row.differing_columns(&other), ["status", "revision"]);
    }
}
