//! The names of all fields.

macro_rules! fields {
    (envelope: $($envelope:ident),*; data: $($data:ident),* $(,)?) => {
        /// A field of the envelope, or of any event's data.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(non_camel_case_types)]
        pub(super) enum Field { $($envelope,)* $($data),* }

        impl Field {
            pub(super) const COUNT: usize = [$(Field::$envelope,)* $(Field::$data),*].len();

            /// The field of the envelope with this name.
            pub(super) fn of_envelope(name: &[u8]) -> Option<Self> {
                $(if name == stringify!($envelope).as_bytes() { return Some(Self::$envelope); })*
                None
            }

            /// The field of some event's data with this name.
            pub(super) fn of_data(name: &[u8]) -> Option<Self> {
                $(if name == stringify!($data).as_bytes() { return Some(Self::$data); })*
                None
            }
        }
    };
}

fields!(
    envelope:
        causation_id, claim_id, correlation_id, data, event_id, event_type, occurred_at, recorded_at, source,
        tenant_id, user_id, version, aggregate_type;
    data:
        claim_type, claimed, customer_email, customer_id, customer_name, description, order_id, product_id, title,
        urgency, agent_id, agent_name, assignment_reason, estimated_resolution_time, previous_agent_id, reason, note,
        processed_by, customer_satisfaction, follow_up_required, replacement_tracking, resolution, resolution_type,
        settled, closed_by, reopened_by, author, kind, requested_by,
);

impl Field {
    /// Its bit in a set of fields.
    pub(super) const fn bit(self) -> u64 {
        1 << self as u64
    }
}

// One bit each.
const _: () = assert!(Field::COUNT <= u64::BITS as usize);
