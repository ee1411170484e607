//! What the benchmarks measure with: realistic events, made the same way every time.

use chrono::{DateTime, Utc};
use claims_schemas::{Event, Timestamp, events::*};
use rust_decimal::Decimal;
use uuid::Uuid;

/// The id that the benchmarks register their schema under.
pub const SCHEMA_ID: u32 = 1;

/// Where the events' time begins, in milliseconds since the Unix epoch.
const START_MS: i64 = 1_751_985_000_000;

/// The whole life of one claim: created, assigned, worked on, a note, resolved, closed. The texts have the length
/// of real short ones; `claim` makes every claim's ids its own.
pub fn life(claim: u64) -> Vec<Event> {
    let data: Vec<EventData> = vec![
        created(claim).into(),
        ClaimAssigned {
            agent_id: format!("agent_{}", claim % 300),
            agent_name: "Camille Dubois".into(),
            assignment_reason: Some("product_expertise".into()),
            estimated_resolution_time: Some(Timestamp(START_MS + 86_400_000)),
        }
        .into(),
        ClaimProcessingStarted { processed_by: format!("agent_{}", claim % 300), note: None }.into(),
        ClaimNoteAdded {
            author: Some(format!("agent_{}", claim % 300)),
            note: "Asked the customer for a picture of the damage".into(),
            kind: Some("awaiting_customer".into()),
        }
        .into(),
        ClaimResolved {
            resolution: "Replaced by a new one, the old one was collected".into(),
            resolution_type: "replacement".into(),
            customer_satisfaction: Some("satisfied".into()),
            follow_up_required: false,
            replacement_tracking: Some("track_999888".into()),
            settled: Some(Money { amount: Decimal::new(12_999, 2), currency: Some("EUR".into()) }),
        }
        .into(),
        ClaimClosed { closed_by: None, reason: Some("done".into()) }.into(),
    ];
    data.into_iter().zip(1..).map(|(data, version)| event(claim, version, data)).collect()
}

/// The first event of a claim, with the optional fields that such events usually have.
fn created(claim: u64) -> ClaimCreated {
    ClaimCreated {
        customer_id: format!("cust_{}", claim % 10_000),
        customer_name: Some("Ada Lovelace".into()),
        customer_email: Some("ada.lovelace@example.org".into()),
        claim_type: "product_defect".into(),
        title: Some("Screen broken on arrival".into()),
        description: "The parcel was intact, but the screen has a crack from corner to corner".into(),
        product_id: Some(format!("prod_{}", claim % 500)),
        order_id: Some(format!("order_{claim}")),
        urgency: Urgency::Medium,
        claimed: Some(Money { amount: Decimal::new(12_999, 2), currency: Some("EUR".into()) }),
    }
}

/// An event of the claim at a version.
pub fn event(claim: u64, version: u64, data: EventData) -> Event {
    let occurred_at = START_MS + (claim * 1_000 + version * 3_600_000) as i64;
    Event {
        tenant_id: "default".into(),
        event_id: Uuid::from_u64_pair(
            (claim << 8 | version).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            claim ^ version,
        ),
        claim_id: format!("claim_{claim}"),
        version,
        occurred_at: Timestamp(occurred_at),
        recorded_at: Timestamp(occurred_at + 250),
        correlation_id: format!("trace_{claim}"),
        causation_id: None,
        user_id: None,
        source: Some("crm".into()),
        data,
    }
}

/// The clock that [`claims_schemas::validate`] compares with: well after the events.
pub fn now() -> Timestamp {
    DateTime::<Utc>::from_timestamp_millis(START_MS + 1_000_000_000_000)
        .map_or(Timestamp(i64::MAX), Into::into)
}

/// A CSV file of cases as the TSA publishes them, all decided: `mappings/tsa_claims.toml` makes two events of each.
pub fn cases(cases: u64) -> String {
    let mut text = String::from(
        "Claim Number,Date Received,Incident Date,Airport Code,Airport Name,Airline Name,Claim Type,Claim Site,\
         Item Category,Close Amount,Disposition\n",
    );
    for case in 0..cases {
        let (airport, day) = (case % 400, case % 28 + 1);
        text += &format!(
            "20130{case:09},2013-03-{day:02},2013-02-{day:02}T00:00:00.000,A{airport:02},\"Airport {airport}, \
             International\",Airline {},Property Damage,Checked Baggage,Luggage (all types including footlockers); \
             Clothing,{}.{:02},Approve in Full\n",
            case % 60,
            case % 900,
            case % 100
        );
    }
    text
}
