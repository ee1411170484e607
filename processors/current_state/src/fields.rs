//! Which nullable columns a claim has ever had a value in.
//!
//! A column without a value is written as null only if an earlier row may hold one: each null is a tombstone, and most
//! optional fields of most claims are never set.

use claims_schemas::{ClaimState, EventView, events::Money, view::DataView};

/// A set of nullable columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FieldSet(pub u32);

macro_rules! fields {
    ($($name:ident = $bit:literal),* $(,)?) => {
        #[allow(missing_docs)]
        impl FieldSet { $(pub const $name: FieldSet = FieldSet(1 << $bit);)* }
    };
}

fields!(
    CUSTOMER_ID = 0,
    CUSTOMER_NAME = 1,
    CUSTOMER_EMAIL = 2,
    CLAIM_TYPE = 3,
    TITLE = 4,
    DESCRIPTION = 5,
    PRODUCT_ID = 6,
    ORDER_ID = 7,
    URGENCY = 8,
    CLAIMED_AMOUNT = 9,
    CLAIMED_CURRENCY = 10,
    AGENT_ID = 11,
    AGENT_NAME = 12,
    ESTIMATED_RESOLUTION_AT = 13,
    RESOLUTION = 14,
    RESOLUTION_TYPE = 15,
    CUSTOMER_SATISFACTION = 16,
    FOLLOW_UP_REQUIRED = 17,
    REPLACEMENT_TRACKING = 18,
    SETTLED_AMOUNT = 19,
    SETTLED_CURRENCY = 20,
    CREATED_AT = 21,
    RESOLVED_AT = 22,
    CLOSED_AT = 23,
    SOURCE = 24,
);

impl FieldSet {
    /// Whether the column is in the set.
    pub const fn has(self, field: FieldSet) -> bool {
        self.0 & field.0 != 0
    }

    fn add_if(&mut self, present: bool, field: FieldSet) {
        if present {
            self.0 |= field.0;
        }
    }

    /// Of an amount of money, if there is one, whether its currency is named.
    fn add_money(&mut self, has_currency: Option<bool>, amount: FieldSet, currency: FieldSet) {
        self.add_if(has_currency.is_some(), amount);
        self.add_if(has_currency == Some(true), currency);
    }

    /// Adds the columns that the event gives a value, whether or not the fold lets it win: in another order it
    /// would have been written.
    pub fn add_event(&mut self, event: &EventView<'_>) {
        self.add_if(event.source.is_some(), Self::SOURCE);
        match &event.data {
            DataView::ClaimCreated(data) => {
                for field in
                    [Self::CUSTOMER_ID, Self::CLAIM_TYPE, Self::DESCRIPTION, Self::URGENCY, Self::CREATED_AT]
                {
                    self.add_if(true, field);
                }
                self.add_if(data.customer_name.is_some(), Self::CUSTOMER_NAME);
                self.add_if(data.customer_email.is_some(), Self::CUSTOMER_EMAIL);
                self.add_if(data.title.is_some(), Self::TITLE);
                self.add_if(data.product_id.is_some(), Self::PRODUCT_ID);
                self.add_if(data.order_id.is_some(), Self::ORDER_ID);
                self.add_money(
                    data.claimed.map(|money| money.currency.is_some()),
                    Self::CLAIMED_AMOUNT,
                    Self::CLAIMED_CURRENCY,
                );
            }
            DataView::ClaimAssigned { estimated_resolution_time, .. } => {
                self.add_if(true, Self::AGENT_ID);
                self.add_if(true, Self::AGENT_NAME);
                self.add_if(estimated_resolution_time.is_some(), Self::ESTIMATED_RESOLUTION_AT);
            }
            DataView::ClaimReassigned { .. } => {
                self.add_if(true, Self::AGENT_ID);
                self.add_if(true, Self::AGENT_NAME);
            }
            DataView::ClaimResolved(data) => {
                for field in
                    [Self::RESOLUTION, Self::RESOLUTION_TYPE, Self::FOLLOW_UP_REQUIRED, Self::RESOLVED_AT]
                {
                    self.add_if(true, field);
                }
                self.add_if(data.customer_satisfaction.is_some(), Self::CUSTOMER_SATISFACTION);
                self.add_if(data.replacement_tracking.is_some(), Self::REPLACEMENT_TRACKING);
                self.add_money(
                    data.settled.map(|money| money.currency.is_some()),
                    Self::SETTLED_AMOUNT,
                    Self::SETTLED_CURRENCY,
                );
            }
            DataView::ClaimClosed { .. } => self.add_if(true, Self::CLOSED_AT),
            DataView::ClaimProcessingStarted { .. }
            | DataView::ClaimReopened { .. }
            | DataView::ClaimNoteAdded { .. }
            | DataView::ClaimErased { .. } => {}
        }
    }

    /// Adds the columns that the state has a value in now.
    pub fn add_state(&mut self, state: &ClaimState) {
        self.add_if(state.customer_id.value.is_some(), Self::CUSTOMER_ID);
        self.add_if(state.customer_name.value.is_some(), Self::CUSTOMER_NAME);
        self.add_if(state.customer_email.value.is_some(), Self::CUSTOMER_EMAIL);
        self.add_if(state.claim_type.value.is_some(), Self::CLAIM_TYPE);
        self.add_if(state.title.value.is_some(), Self::TITLE);
        self.add_if(state.description.value.is_some(), Self::DESCRIPTION);
        self.add_if(state.product_id.value.is_some(), Self::PRODUCT_ID);
        self.add_if(state.order_id.value.is_some(), Self::ORDER_ID);
        self.add_if(state.urgency.value.is_some(), Self::URGENCY);
        self.add_money(
            state.claimed.value.as_ref().map(has_currency),
            Self::CLAIMED_AMOUNT,
            Self::CLAIMED_CURRENCY,
        );
        self.add_if(state.agent_id.value.is_some(), Self::AGENT_ID);
        self.add_if(state.agent_name.value.is_some(), Self::AGENT_NAME);
        self.add_if(state.estimated_resolution_at.value.is_some(), Self::ESTIMATED_RESOLUTION_AT);
        self.add_if(state.resolution.value.is_some(), Self::RESOLUTION);
        self.add_if(state.resolution_type.value.is_some(), Self::RESOLUTION_TYPE);
        self.add_if(state.customer_satisfaction.value.is_some(), Self::CUSTOMER_SATISFACTION);
        self.add_if(state.follow_up_required.value.is_some(), Self::FOLLOW_UP_REQUIRED);
        self.add_if(state.replacement_tracking.value.is_some(), Self::REPLACEMENT_TRACKING);
        self.add_money(
            state.settled.value.as_ref().map(has_currency),
            Self::SETTLED_AMOUNT,
            Self::SETTLED_CURRENCY,
        );
        self.add_if(state.created_at.value.is_some(), Self::CREATED_AT);
        self.add_if(state.resolved_at.value.is_some(), Self::RESOLVED_AT);
        self.add_if(state.closed_at.value.is_some(), Self::CLOSED_AT);
        self.add_if(state.source.is_some(), Self::SOURCE);
    }
}

fn has_currency(money: &Money) -> bool {
    money.currency.is_some()
}
