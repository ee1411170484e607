//! What holds for every state that the fold makes, whatever the events. Where it doesn't, the state is damaged.

use crate::state::{ClaimState, Status, Versioned};

impl ClaimState {
    /// What contradicts itself in this state, in words; `None` for a sound one.
    pub fn contradiction(&self) -> Option<&'static str> {
        if !self.seen.is_sorted_by(|a, b| a.version < b.version) {
            return Some("the versions seen don't ascend, so its revision counts one of them twice");
        }
        if self.updated_at.version != self.version() {
            return Some("its newest version isn't the one that it was updated by");
        }
        // One event sets many fields: a version is looked for once for all fields in a row that it set.
        let mut found = 0;
        for version in self.set_by() {
            if version == found {
                continue;
            }
            if !self.has_seen(version) {
                return Some("a field was set by a version that it hasn't seen");
            }
            found = version;
        }
        let counted = [self.reopen_count, self.reassignment_count, self.note_count].map(u64::from);
        if counted.iter().sum::<u64>() > self.revision() {
            return Some("it counts more reopenings, reassignments and notes than it has versions");
        }
        let holds_personal = self.customer_id.value.is_some()
            || self.customer_name.value.is_some()
            || self.customer_email.value.is_some()
            || self.description.value.is_some();
        if self.status() == Status::Erased && holds_personal {
            return Some("it is erased and holds personal data");
        }
        None
    }

    fn has_seen(&self, version: u64) -> bool {
        version == 0 || self.seen.binary_search_by_key(&version, |seen| seen.version).is_ok()
    }

    /// The versions that set its fields, 0 for those never set.
    fn set_by(&self) -> [u64; 24] {
        fn of<T>(field: &Versioned<T>) -> u64 {
            field.version
        }
        [
            of(&self.status),
            of(&self.customer_id),
            of(&self.customer_name),
            of(&self.customer_email),
            of(&self.claim_type),
            of(&self.title),
            of(&self.description),
            of(&self.product_id),
            of(&self.order_id),
            of(&self.urgency),
            of(&self.claimed),
            of(&self.agent_id),
            of(&self.agent_name),
            of(&self.estimated_resolution_at),
            of(&self.resolution),
            of(&self.resolution_type),
            of(&self.customer_satisfaction),
            of(&self.follow_up_required),
            of(&self.replacement_tracking),
            of(&self.settled),
            of(&self.created_at),
            of(&self.resolved_at),
            of(&self.closed_at),
            of(&self.updated_at),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Event, Timestamp,
        events::{ClaimClosed, ClaimNoteAdded},
    };
    use uuid::Uuid;

    fn folded() -> ClaimState {
        let mut state = ClaimState::empty("t", "c");
        for version in [1, 2, 5] {
            let data = if version == 5 {
                ClaimClosed::default().into()
            } else {
                ClaimNoteAdded { author: None, note: "n".into(), kind: None }.into()
            };
            state.apply(&Event {
                tenant_id: "t".into(),
                event_id: Uuid::from_u128(u128::from(version)),
                claim_id: "c".into(),
                version,
                occurred_at: Timestamp(1),
                recorded_at: Timestamp(1),
                correlation_id: String::new(),
                causation_id: None,
                user_id: None,
                source: None,
                data,
            });
        }
        state
    }

    #[test]
    fn a_damaged_state_says_what_is_wrong() {
        assert_eq!(folded().contradiction(), None);
        assert_eq!(ClaimState::empty("t", "c").contradiction(), None);
        let damaged = |damage: fn(&mut ClaimState)| {
            let mut state = folded();
            damage(&mut state);
            state.contradiction().unwrap()
        };
        assert!(damaged(|s| s.seen.push(s.seen[0])).contains("ascend"));
        assert!(damaged(|s| s.seen.truncate(2)).contains("newest"));
        assert!(damaged(|s| s.seen.retain(|seen| seen.version != 5)).contains("newest"));
        assert!(damaged(|s| s.claim_type.version = 4).contains("hasn't seen"));
        assert!(damaged(|s| s.note_count = 9).contains("counts more"));
        assert!(
            damaged(|s| {
                s.status.value = Some(Status::Erased);
                s.customer_id.value = Some("k".into());
            })
            .contains("erased")
        );
    }
}
