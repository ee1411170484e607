//! Sample events and strategies that make any event.

use claims_schemas::events::*;
use proptest::{option, prelude::*};
use rust_decimal::Decimal;
use uuid::Uuid;

pub fn event(version: u64, data: impl Into<EventData>) -> Event {
    Event {
        tenant_id: "acme".into(),
        event_id: Uuid::from_u128(0xF47A_C10B_58CC_4372_A567_0E02_B2C3_0000 + u128::from(version)),
        claim_id: "claim_67890".into(),
        version,
        occurred_at: Timestamp(1_751_985_000_000 + version as i64 * 60_000),
        recorded_at: Timestamp(1_751_985_000_500),
        correlation_id: "trace_xyz789".into(),
        causation_id: None,
        user_id: None,
        source: None,
        data: data.into(),
    }
}

/// One event of each type with every field filled.
pub fn one_of_each() -> Vec<Event> {
    let text = |s: &str| Some(s.to_owned());
    let data: Vec<EventData> = vec![
        ClaimCreated {
            customer_id: "cust_12345".into(),
            customer_name: text("Ada Lovelace"),
            customer_email: text("ada@example.org"),
            claim_type: "product_defect".into(),
            title: text("Broken"),
            description: "Produit défectueux reçu".into(),
            product_id: text("prod_abc123"),
            order_id: text("order_45678"),
            urgency: Urgency::High,
            claimed: Some(Money { amount: Decimal::new(129_990, 3), currency: Some("EUR".into()) }),
        }
        .into(),
        ClaimAssigned {
            agent_id: "agent_smith".into(),
            agent_name: "John Smith".into(),
            assignment_reason: text("product_expertise"),
            estimated_resolution_time: Some(Timestamp(1_752_157_800_000)),
        }
        .into(),
        ClaimReassigned {
            agent_id: "agent_jones".into(),
            agent_name: "Jo Jones".into(),
            previous_agent_id: text("agent_smith"),
            reason: text("holiday"),
        }
        .into(),
        ClaimProcessingStarted { processed_by: "agent_jones".into(), note: text("called") }.into(),
        ClaimResolved {
            resolution: "Produit remplacé par un neuf".into(),
            resolution_type: "replacement".into(),
            customer_satisfaction: text("satisfied"),
            follow_up_required: true,
            replacement_tracking: text("track_999888"),
            settled: Some(Money { amount: Decimal::new(5, 1), currency: None }),
        }
        .into(),
        ClaimClosed { closed_by: text("agent_jones"), reason: text("done") }.into(),
        ClaimReopened { reopened_by: text("cust_12345"), reason: text("broke again") }.into(),
        ClaimNoteAdded { author: text("agent_jones"), note: "waiting".into(), kind: text("awaiting_vendor") }
            .into(),
        ClaimErased { requested_by: text("dpo"), reason: text("request") }.into(),
    ];
    data.into_iter()
        .zip(1..)
        .map(|(data, version)| Event {
            causation_id: text("cause"),
            user_id: text("user"),
            source: text("crm"),
            ..event(version, data)
        })
        .collect()
}

fn text() -> BoxedStrategy<String> {
    "\\PC{0,24}".boxed()
}

fn maybe_text() -> BoxedStrategy<Option<String>> {
    option::of(text()).boxed()
}

fn money() -> BoxedStrategy<Option<Money>> {
    // Any amount that the schema's decimal holds: 18 digits, 4 of them after the point.
    let amount = (1 - 10_i64.pow(18)..10_i64.pow(18)).prop_map(|n| Decimal::new(n, 4).normalize());
    let money = (amount, option::of("[A-Z]{3}"))
        .prop_map(|(amount, currency)| Money { amount, currency: currency.map(Into::into) });
    option::of(money).boxed()
}

fn instant() -> BoxedStrategy<Timestamp> {
    (-3_000_000_000_000_i64..3_000_000_000_000).prop_map(Timestamp).boxed()
}

fn created() -> BoxedStrategy<EventData> {
    let urgency =
        prop_oneof![Just(Urgency::Low), Just(Urgency::Medium), Just(Urgency::High), Just(Urgency::Critical)];
    (
        (text(), maybe_text(), maybe_text(), text(), maybe_text()),
        (text(), maybe_text(), maybe_text(), urgency, money()),
    )
        .prop_map(|((a, b, c, d, e), (f, g, h, urgency, claimed))| {
            ClaimCreated {
                customer_id: a,
                customer_name: b,
                customer_email: c,
                claim_type: d,
                title: e,
                description: f,
                product_id: g,
                order_id: h,
                urgency,
                claimed,
            }
            .into()
        })
        .boxed()
}

fn resolved() -> BoxedStrategy<EventData> {
    (text(), text(), maybe_text(), any::<bool>(), maybe_text(), money())
        .prop_map(|(a, b, c, d, e, f)| {
            ClaimResolved {
                resolution: a,
                resolution_type: b,
                customer_satisfaction: c,
                follow_up_required: d,
                replacement_tracking: e,
                settled: f,
            }
            .into()
        })
        .boxed()
}

/// Any event's data.
pub fn any_data() -> BoxedStrategy<EventData> {
    prop_oneof![
        created(),
        resolved(),
        (text(), text(), maybe_text(), option::of(instant())).prop_map(|(a, b, c, d)| ClaimAssigned {
            agent_id: a,
            agent_name: b,
            assignment_reason: c,
            estimated_resolution_time: d
        }
        .into()),
        (text(), text(), maybe_text(), maybe_text()).prop_map(|(a, b, c, d)| ClaimReassigned {
            agent_id: a,
            agent_name: b,
            previous_agent_id: c,
            reason: d
        }
        .into()),
        (text(), maybe_text()).prop_map(|(a, b)| ClaimProcessingStarted { processed_by: a, note: b }.into()),
        (maybe_text(), maybe_text()).prop_map(|(a, b)| ClaimClosed { closed_by: a, reason: b }.into()),
        (maybe_text(), maybe_text()).prop_map(|(a, b)| ClaimReopened { reopened_by: a, reason: b }.into()),
        (maybe_text(), text(), maybe_text()).prop_map(|(a, b, c)| ClaimNoteAdded {
            author: a,
            note: b,
            kind: c
        }
        .into()),
        (maybe_text(), maybe_text()).prop_map(|(a, b)| ClaimErased { requested_by: a, reason: b }.into()),
    ]
    .boxed()
}

/// Any event.
pub fn any_event() -> BoxedStrategy<Event> {
    (
        (text(), any::<u128>(), text(), 0..i64::MAX as u64, instant(), instant()),
        (text(), maybe_text(), maybe_text(), maybe_text(), any_data()),
    )
        .prop_map(|((tenant_id, id, claim_id, version, occurred_at, recorded_at), (c, d, e, f, data))| {
            Event {
                tenant_id,
                event_id: Uuid::from_u128(id),
                claim_id,
                version,
                occurred_at,
                recorded_at,
                correlation_id: c,
                causation_id: d,
                user_id: e,
                source: f,
                data,
            }
        })
        .boxed()
}
