//! The names of all fields.

use std::ops::Range;

macro_rules! fields {
    (envelope: $($envelope:ident),*; data: $($data:ident),* $(,)?) => {
        /// A field of the envelope, or of any event's data.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(non_camel_case_types)]
        pub(super) enum Field { $($envelope,)* $($data),* }

        const FIELDS: &[Field] = &[$(Field::$envelope,)* $(Field::$data),*];
        const NAMES: &[&str] = &[$(stringify!($envelope),)* $(stringify!($data)),*];
        const ENVELOPE_FIELDS: usize = [$(Field::$envelope),*].len();
    };
}

// In the order in which our writer has them, event type by event type, which makes finding them quick.
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
    pub(super) const COUNT: usize = FIELDS.len();

    /// Its bit in a set of fields.
    pub(super) const fn bit(self) -> u64 {
        1 << self as u64
    }
}

// One bit each.
const _: () = assert!(Field::COUNT <= u64::BITS as usize);

/// Finds fields by their names. The one after that found last is tried first.
#[derive(Debug)]
pub(super) struct Finder {
    among: Range<usize>,
    next: usize,
}

impl Finder {
    /// Among the fields of the envelope.
    pub(super) fn of_envelope() -> Self {
        Self { among: 0..ENVELOPE_FIELDS, next: 0 }
    }

    /// Among the fields of any event's data.
    pub(super) fn of_data() -> Self {
        Self { among: ENVELOPE_FIELDS..FIELDS.len(), next: ENVELOPE_FIELDS }
    }

    pub(super) fn find(&mut self, name: &[u8]) -> Option<Field> {
        let is_it = |at: &usize| NAMES[*at].as_bytes() == name;
        let tried = self.among.contains(&self.next).then_some(self.next).filter(is_it);
        let found = tried.or_else(|| self.among.clone().find(is_it))?;
        self.next = found + 1;
        Some(FIELDS[found])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_order_and_only_where_it_belongs() {
        for (at, name) in NAMES.iter().enumerate() {
            for before in NAMES {
                for (mut finder, belongs) in [
                    (Finder::of_envelope(), at < ENVELOPE_FIELDS),
                    (Finder::of_data(), at >= ENVELOPE_FIELDS),
                ] {
                    let _ = finder.find(before.as_bytes());
                    assert_eq!(
                        finder.find(name.as_bytes()),
                        belongs.then_some(FIELDS[at]),
                        "{name} after {before}"
                    );
                }
            }
        }
        assert_eq!(FIELDS[at_of("version")], Field::version);
        assert_eq!(Finder::of_data().find(b"colour"), None);
    }

    fn at_of(name: &str) -> usize {
        NAMES.iter().position(|other| *other == name).unwrap()
    }
}
