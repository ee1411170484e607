use super::*;
use crate::codec::{CLAIM_EVENT_SCHEMA, FRAME_BYTES, encode};
use crate::events::*;

fn body(data: impl Into<EventData>) -> Vec<u8> {
    let event = Event {
        tenant_id: "acme".into(),
        event_id: Uuid::from_u128(7),
        claim_id: "é".into(),
        version: 1 << 53,
        occurred_at: Timestamp(-5),
        recorded_at: Timestamp(1_751_985_000_500),
        correlation_id: String::new(),
        causation_id: None,
        user_id: Some("u".into()),
        source: None,
        data: data.into(),
    };
    let mut value = Vec::new();
    encode(&event, 1, &mut value).unwrap();
    value.split_off(FRAME_BYTES)
}

/// One body of each type.
fn bodies() -> Vec<Vec<u8>> {
    let money = |amount: &str| Some(Money { amount: amount.parse().unwrap(), currency: Some("EUR".into()) });
    let resolved = ClaimResolved {
        resolution: "r".into(),
        resolution_type: "t".into(),
        customer_satisfaction: None,
        follow_up_required: true,
        replacement_tracking: None,
        settled: money("-12.5"),
    };
    let created = ClaimCreated {
        customer_id: "c".into(),
        customer_name: None,
        customer_email: None,
        claim_type: "t".into(),
        title: None,
        description: "d".into(),
        product_id: None,
        order_id: None,
        urgency: Urgency::Critical,
        claimed: money("99999999999999.9999"),
    };
    let assigned = ClaimAssigned {
        agent_id: "a".into(),
        agent_name: "A".into(),
        assignment_reason: None,
        estimated_resolution_time: Some(Timestamp(9)),
    };
    let reassigned = ClaimReassigned {
        agent_id: "b".into(),
        agent_name: "B".into(),
        previous_agent_id: None,
        reason: Some("r".into()),
    };
    vec![
        body(created),
        body(assigned),
        body(reassigned),
        body(ClaimProcessingStarted { processed_by: "a".into(), note: None }),
        body(resolved),
        body(ClaimClosed::default()),
        body(ClaimReopened::default()),
        body(ClaimNoteAdded { author: None, note: "n".into(), kind: None }),
        body(ClaimErased::default()),
    ]
}

#[test]
fn every_event_type_goes_the_short_way() {
    let read: Vec<Event> = bodies().iter().map(|body| event(body).unwrap().to_event()).collect();
    let types: Vec<EventType> = read.iter().map(Event::event_type).collect();
    assert_eq!(types, EventType::ALL);
    assert_eq!(read[0].claim_id, "é");
}

#[test]
fn nothing_cut_off_or_added_goes_the_short_way() {
    for mut body in bodies() {
        for cut in 0..body.len() {
            assert_eq!(event(&body[..cut]), None, "cut at {cut}");
        }
        body.push(0);
        assert_eq!(event(&body), None);
    }
}

#[test]
fn only_our_own_schema_is_the_same() {
    assert!(is_same(CLAIM_EVENT_SCHEMA, CLAIM_EVENT_SCHEMA));
    let spaced = CLAIM_EVENT_SCHEMA.replace('\n', " ").replace(r#""doc": "ISO"#, r#""doc": "iso"#);
    assert_ne!(spaced, CLAIM_EVENT_SCHEMA);
    assert!(is_same(CLAIM_EVENT_SCHEMA, &spaced));
    for (from, to) in [
        (r#""scale": 4"#, r#""scale": 3"#),
        (r#""name": "kind""#, r#""name": "sort""#),
        (r#""low", "medium""#, r#""medium", "low""#),
        (r#"["null", "string"]"#, r#"["string", "null"]"#),
        (r#""logicalType": "uuid""#, r#""logicalType": "text""#),
    ] {
        let other = CLAIM_EVENT_SCHEMA.replacen(from, to, 1);
        assert_ne!(other, CLAIM_EVENT_SCHEMA, "{from}");
        assert!(!is_same(CLAIM_EVENT_SCHEMA, &other), "{to}");
    }
    assert!(!is_same(CLAIM_EVENT_SCHEMA, "not JSON"));
}
