//! Encoding and decoding events.

use crate::samples;
use claims_schemas::{
    DecodeError, Event, SchemaCache,
    codec::{self, CLAIM_EVENT_SCHEMA},
};
use proptest::prelude::*;

pub const SCHEMA_ID: u32 = 7;

pub fn cache() -> SchemaCache {
    let cache = SchemaCache::default();
    cache.insert(SCHEMA_ID, CLAIM_EVENT_SCHEMA).unwrap();
    cache
}

pub fn encode(event: &Event) -> Vec<u8> {
    let mut out = Vec::new();
    codec::encode(event, SCHEMA_ID, &mut out).unwrap();
    out
}

#[test]
fn every_event_type_survives_the_round_trip() {
    let cache = cache();
    for event in samples::one_of_each() {
        assert_eq!(cache.decode(&encode(&event)), Ok(event));
    }
}

#[test]
fn an_unknown_schema_id_asks_for_its_schema() {
    let mut value = encode(&samples::one_of_each()[0]);
    value[4] = 8;
    assert_eq!(codec::schema_id(&value), Some(8));
    assert_eq!(cache().decode(&value), Err(DecodeError::SchemaMissing(8)));
}

proptest! {
    #[test]
    fn any_event_survives_the_round_trip(event in samples::any_event()) {
        prop_assert_eq!(cache().decode(&encode(&event)), Ok(event));
    }
}
