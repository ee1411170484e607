//! The encoder, which knows the schema by heart, against the generic serialiser, which reads it.

use crate::{
    codec::{SCHEMA_ID, encode, framed},
    samples,
};
use claims_schemas::{Event, EventData, EventView, Timestamp, codec::CLAIM_EVENT_SCHEMA, events::*};
use proptest::prelude::*;
use rust_decimal::Decimal;
use serde::Serialize;
use serde_avro_fast::{Schema, ser::SerializerConfig};
use uuid::Uuid;

#[derive(Serialize)]
#[serde(rename = "ClaimEvent")]
struct Generic<'a> {
    tenant_id: &'a str,
    aggregate_type: &'static str,
    event_id: Uuid,
    claim_id: &'a str,
    event_type: &'static str,
    version: u64,
    occurred_at: Timestamp,
    recorded_at: Timestamp,
    correlation_id: &'a str,
    causation_id: Option<&'a str>,
    user_id: Option<&'a str>,
    source: Option<&'a str>,
    data: &'a EventData,
}

fn by_the_schema(event: &Event) -> Vec<u8> {
    let schema: Schema = CLAIM_EVENT_SCHEMA.parse().unwrap();
    let generic = Generic {
        tenant_id: &event.tenant_id,
        aggregate_type: "claim",
        event_id: event.event_id,
        claim_id: &event.claim_id,
        event_type: event.event_type().as_str(),
        version: event.version,
        occurred_at: event.occurred_at,
        recorded_at: event.recorded_at,
        correlation_id: &event.correlation_id,
        causation_id: event.causation_id.as_deref(),
        user_id: event.user_id.as_deref(),
        source: event.source.as_deref(),
        data: &event.data,
    };
    let body = serde_avro_fast::to_datum_vec(&generic, &mut SerializerConfig::new(&schema)).unwrap();
    framed(SCHEMA_ID, &body)
}

#[test]
fn every_event_type_is_written_as_the_schema_says() {
    for event in samples::one_of_each() {
        assert_eq!(encode(&event), by_the_schema(&event), "{}", event.event_type());
    }
}

#[test]
fn amounts_are_as_short_as_they_can_be() {
    let whole = [0, 1, -1, 127, 128, -128, -129, 255, 256, 32_767, 32_768, -32_768, 10_i64.pow(18) - 1];
    let scaled = whole.into_iter().flat_map(|number| (0..=4).map(move |scale| Decimal::new(number, scale)));
    for amount in scaled.filter(|amount| claims_schemas::codec::amount_fits(*amount)) {
        let mut event = samples::one_of_each().remove(0);
        let EventData::ClaimCreated(created) = &mut event.data else { panic!("{event:?}") };
        created.claimed = Some(Money { amount, currency: None });
        assert_eq!(encode(&event), by_the_schema(&event), "{amount}");
    }
}

proptest! {
    #[test]
    fn any_event_is_written_as_the_schema_says(event in samples::any_event()) {
        prop_assert_eq!(encode(&event), by_the_schema(&event));
        prop_assert_eq!(EventView::from(&event).to_event(), event);
    }
}
