//! The fold against a plain model, and its laws over any order and any copies.

use crate::samples::{any_data, event, one_of_each};
use claims_schemas::{
    ClaimState, Event, EventData, Status, Timestamp,
    events::*,
    fold::{Applied, allowed},
};
use proptest::{collection, prelude::*, sample::Index};
use std::collections::BTreeMap;
use uuid::Uuid;

fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> ClaimState {
    let mut state = ClaimState::empty("acme", "claim_67890");
    for event in events {
        state.apply(event);
    }
    state
}

/// Events of one claim: versions from few, so that copies of a version are common; times unrelated to them.
fn history() -> impl Strategy<Value = Vec<Event>> {
    let one =
        (1_u64..12, 0_i64..1_000_000, any::<u64>(), any_data()).prop_map(|(version, at, id, data)| Event {
            occurred_at: Timestamp(at),
            event_id: Uuid::from_u64_pair(id, 1),
            source: (id % 2 == 0).then(|| format!("s{}", id % 5)),
            ..event(version, data)
        });
    collection::vec(one, 0..24)
}

/// The history without the events that lose their version to an earlier one, by version.
fn winners(events: &[Event]) -> BTreeMap<u64, &Event> {
    let mut winners = BTreeMap::new();
    for event in events {
        winners.entry(event.version).or_insert(event);
    }
    winners
}

/// The last event by version for which `pick` gives something, and what it gives.
fn last<'a, T>(
    by_version: &BTreeMap<u64, &'a Event>,
    pick: impl Fn(&'a Event) -> Option<T>,
) -> Option<(u64, &'a Event, T)> {
    by_version.iter().rev().find_map(|(version, event)| pick(event).map(|t| (*version, *event, t)))
}

fn status_set_by(data: &EventData) -> Option<Status> {
    match data {
        EventData::ClaimCreated(_) => Some(Status::Created),
        EventData::ClaimAssigned(_) => Some(Status::Assigned),
        EventData::ClaimProcessingStarted(_) | EventData::ClaimReopened(_) => Some(Status::Processing),
        EventData::ClaimResolved(_) => Some(Status::Resolved),
        EventData::ClaimClosed(_) => Some(Status::Closed),
        EventData::ClaimErased(_) => Some(Status::Erased),
        EventData::ClaimReassigned(_) | EventData::ClaimNoteAdded(_) => None,
    }
}

/// What a state must say, found by looking through the sorted events instead of folding them.
fn check_against_model(state: &ClaimState, by_version: &BTreeMap<u64, &Event>) {
    let count = |t: EventType| by_version.values().filter(|e| e.event_type() == t).count() as u32;
    assert_eq!(state.revision(), by_version.len() as u64);
    assert_eq!(state.version(), by_version.keys().last().copied().unwrap_or(0));
    assert_eq!(state.reopen_count, count(EventType::ClaimReopened));
    assert_eq!(state.reassignment_count, count(EventType::ClaimReassigned));
    assert_eq!(state.note_count, count(EventType::ClaimNoteAdded));

    let erased = last(by_version, |e| (e.event_type() == EventType::ClaimErased).then_some(Status::Erased));
    let status = erased.or_else(|| last(by_version, |e| status_set_by(&e.data)));
    assert_eq!(state.status(), status.map_or(Status::Unknown, |(_, _, status)| status));
    assert_eq!(state.status_since, status.map_or(Timestamp(0), |(_, event, _)| event.occurred_at));

    let newest = last(by_version, |_| Some(()));
    assert_eq!(state.updated_at.value, newest.map(|(_, event, ())| event.occurred_at));
    assert_eq!(state.source.as_deref(), newest.and_then(|(_, event, ())| event.source.as_deref()));

    let created = last(by_version, |e| match &e.data {
        EventData::ClaimCreated(data) => Some(data),
        _ => None,
    });
    assert_eq!(state.created_at.value, created.map(|(_, event, _)| event.occurred_at));
    assert_eq!(state.claim_type.value.as_deref(), created.map(|(_, _, data)| data.claim_type.as_str()));
    assert_eq!(state.claimed.value, created.and_then(|(_, _, data)| data.claimed.clone()));
    let description = created.filter(|_| erased.is_none()).map(|(_, _, data)| data.description.as_str());
    assert_eq!(state.description.value.as_deref(), description);

    let agent = last(by_version, |e| match &e.data {
        EventData::ClaimAssigned(data) => Some((&data.agent_id, &data.agent_name)),
        EventData::ClaimReassigned(data) => Some((&data.agent_id, &data.agent_name)),
        _ => None,
    });
    assert_eq!(state.agent_id.value.as_deref(), agent.map(|(_, _, (id, _))| id.as_str()));
    assert_eq!(state.agent_name.value.as_deref(), agent.map(|(_, _, (_, name))| name.as_str()));

    let resolved = last(by_version, |e| match &e.data {
        EventData::ClaimResolved(data) => Some(Some(data)),
        EventData::ClaimReopened(_) => Some(None),
        _ => None,
    })
    .and_then(|(_, event, data)| data.map(|data| (event, data)));
    assert_eq!(state.resolved_at.value, resolved.map(|(event, _)| event.occurred_at));
    let resolution_type = resolved.map(|(_, data)| data.resolution_type.as_str());
    assert_eq!(state.resolution_type.value.as_deref(), resolution_type);
    assert_eq!(state.settled.value, resolved.and_then(|(_, data)| data.settled.clone()));
    let closed = last(by_version, |e| match e.event_type() {
        EventType::ClaimClosed => Some(true),
        EventType::ClaimReopened => Some(false),
        _ => None,
    });
    assert_eq!(state.closed_at.value, closed.filter(|(_, _, c)| *c).map(|(_, event, _)| event.occurred_at));

    if erased.is_some() {
        for personal in [&state.customer_id, &state.customer_name, &state.customer_email, &state.title] {
            assert_eq!(personal.value, None);
        }
        for personal in [&state.description, &state.order_id, &state.resolution, &state.replacement_tracking]
        {
            assert_eq!(personal.value, None);
        }
    }
}

proptest! {
    #[test]
    fn order_and_copies_do_not_matter(
        events in history(),
        order in any::<u64>(),
        copies in collection::vec(any::<Index>(), 0..12),
    ) {
        let by_version = winners(&events);
        let in_order: Vec<&Event> = by_version.values().copied().collect();
        let expected = fold(in_order.iter().copied());

        let mut shuffled = in_order.clone();
        if !shuffled.is_empty() {
            shuffled.extend(copies.iter().map(|copy| in_order[copy.index(in_order.len())]));
        }
        // Sorted by a keyed hash: a permutation that differs with `order`.
        shuffled.sort_by_cached_key(|event| {
            (event.version ^ order).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left((order % 63) as u32)
        });
        prop_assert_eq!(&fold(shuffled.iter().copied()), &expected);
        shuffled.reverse();
        prop_assert_eq!(&fold(shuffled), &expected);
        check_against_model(&expected, &by_version);
    }

    #[test]
    fn of_two_events_with_one_version_the_first_wins(events in history()) {
        let by_version = winners(&events);
        let mut state = ClaimState::empty("acme", "claim_67890");
        for event in &events {
            let expected_winner = by_version[&event.version].event_id == event.event_id;
            match state.apply(event) {
                Applied::Superseded => prop_assert!(!expected_winner),
                Applied::Copy | Applied::Changed { .. } => prop_assert!(expected_winner),
            }
        }
        prop_assert_eq!(&state, &fold(by_version.values().copied()));
        check_against_model(&state, &by_version);
    }

    #[test]
    fn applying_again_changes_nothing(events in history()) {
        let mut state = fold(&events);
        let before = state.clone();
        for event in &events {
            let again = state.apply(event);
            prop_assert!(matches!(again, Applied::Copy | Applied::Superseded));
        }
        prop_assert_eq!(state, before);
    }

    #[test]
    fn any_state_survives_its_binary_form(events in history()) {
        let state = fold(&events);
        prop_assert_eq!(ClaimState::from_bytes(&state.to_bytes()), Ok(state));
    }

    #[test]
    fn damaged_states_are_refused_or_read_but_never_a_panic(
        events in history(), at in any::<Index>(), byte in any::<u8>(), cut in any::<Index>(),
    ) {
        let mut bytes = fold(&events).to_bytes();
        prop_assert!(ClaimState::from_bytes(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert!(ClaimState::from_bytes(&bytes).is_err());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = ClaimState::from_bytes(&bytes);
    }

    #[test]
    fn random_bytes_are_no_state(bytes in collection::vec(any::<u8>(), 0..200)) {
        let _ = ClaimState::from_bytes(&bytes);
    }
}

fn surprise(state: &mut ClaimState, event: &Event) -> Option<String> {
    match state.apply(event) {
        Applied::Changed { surprise } => surprise.map(|s| s.what),
        other => panic!("{other:?}"),
    }
}

fn closed(version: u64) -> Event {
    event(version, ClaimClosed::default())
}

#[test]
fn the_lifecycle_surprises_nobody() {
    let [created, assigned, reassigned, started, resolved, closed, reopened, note, erased] =
        <[Event; 9]>::try_from(one_of_each()).unwrap();
    let mut state = ClaimState::empty("acme", "claim_67890");
    let steps = [created, assigned, reassigned, started.clone(), resolved, closed, reopened, note, erased];
    for step in &steps {
        assert_eq!(surprise(&mut state, step), None, "{}", step.event_type());
    }
    assert_eq!(state.status(), Status::Erased);
    let late = surprise(&mut state, &Event { version: 10, event_id: Uuid::from_u128(10), ..started });
    assert_eq!(late.as_deref(), Some("ClaimProcessingStarted at version 10 of a claim that is ERASED"));
}

#[test]
fn a_step_out_of_turn_is_applied_and_reported() {
    let mut state = fold(&one_of_each()[..1]);
    let odd = surprise(&mut state, &closed(7));
    assert_eq!(odd.as_deref(), Some("ClaimClosed at version 7 of a claim that is CREATED"));
    assert_eq!((state.status(), state.closed_at.version), (Status::Closed, 7));
    // A late event fills the gap: it doesn't take the status, and is no surprise.
    assert_eq!(surprise(&mut state, &Event { version: 2, ..one_of_each()[1].clone() }), None);
    assert_eq!((state.status(), state.agent_id.value.as_deref()), (Status::Closed, Some("agent_smith")));
}

#[test]
fn every_status_but_erased_allows_erasure_and_the_lifecycle_has_no_shortcut() {
    for status in Status::ALL {
        assert_eq!(allowed(*status, EventType::ClaimErased), *status != Status::Erased);
        assert_eq!(allowed(*status, EventType::ClaimAssigned), *status == Status::Created);
        assert_eq!(allowed(*status, EventType::ClaimResolved), *status == Status::Processing);
        assert_eq!(allowed(*status, EventType::ClaimClosed), *status == Status::Resolved);
    }
}

#[test]
fn an_unknown_format_of_stored_states_is_named() {
    let mut bytes = fold(&one_of_each()).to_bytes();
    assert_eq!(bytes[0], 1);
    bytes[0] = 9;
    let error = ClaimState::from_bytes(&bytes).unwrap_err();
    assert!(error.to_string().contains("format 9"), "{error}");
    assert!(ClaimState::from_bytes(&[]).is_err());
}

/// Stores hold these bytes: if this test fails, the format has changed and `STATE_FORMAT` must go up.
#[test]
fn the_stored_form_is_stable() {
    let bytes = fold(&one_of_each()[..8]).to_bytes();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    insta::assert_snapshot!("state_format_1", hex);
}
