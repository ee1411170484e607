//! Encoding and decoding events: round trips, what is refused, and bytes that mean harm.

use crate::samples::{any_event, event, one_of_each};
use claims_schemas::{
    ClaimState, DecodeError, Event, EventData, SchemaCache,
    codec::{self, CLAIM_EVENT_SCHEMA, CLAIM_STATE_SCHEMA, StateRecord},
    events::*,
};
use proptest::{collection, prelude::*, sample::Index};
use rust_decimal::Decimal;

pub const SCHEMA_ID: u32 = 7;
const STATE_SCHEMA_ID: u32 = 70;

pub fn cache() -> SchemaCache {
    let cache = SchemaCache::default();
    cache.insert(SCHEMA_ID, CLAIM_EVENT_SCHEMA).unwrap();
    cache.insert(STATE_SCHEMA_ID, CLAIM_STATE_SCHEMA).unwrap();
    cache
}

pub fn encode(event: &Event) -> Vec<u8> {
    let mut out = Vec::new();
    codec::encode(event, SCHEMA_ID, &mut out).unwrap();
    out
}

pub fn framed(schema_id: u32, body: &[u8]) -> Vec<u8> {
    [&[0], &schema_id.to_be_bytes()[..], body].concat()
}

fn malformed(result: Result<Event, DecodeError>) -> String {
    match result {
        Err(DecodeError::Malformed(reason)) => reason,
        other => panic!("expected bad data, got {other:?}"),
    }
}

#[test]
fn every_event_type_survives_the_round_trip() {
    let cache = cache();
    for event in one_of_each() {
        assert_eq!(cache.decode(&encode(&event)), Ok(event));
    }
}

#[test]
fn encoding_appends() {
    let event = &one_of_each()[0];
    let mut out = b"before".to_vec();
    codec::encode(event, SCHEMA_ID, &mut out).unwrap();
    codec::encode(event, SCHEMA_ID, &mut out).unwrap();
    assert_eq!(out, [b"before", &encode(event)[..], &encode(event)[..]].concat());
}

#[test]
fn what_the_schema_cannot_hold_is_refused_and_leaves_nothing_behind() {
    let amount = |amount| Event {
        data: ClaimCreated {
            customer_id: "c".into(),
            customer_name: None,
            customer_email: None,
            claim_type: "t".into(),
            title: None,
            description: "d".into(),
            product_id: None,
            order_id: None,
            urgency: Urgency::Low,
            claimed: Some(Money { amount, currency: None }),
        }
        .into(),
        ..one_of_each().remove(0)
    };
    let too_late = Event { version: u64::MAX, ..one_of_each().remove(0) };
    let five_places = amount(Decimal::new(1, 5));
    let nineteen_digits = amount(Decimal::new(1_000_000_000_000_000_000, 4));
    for event in [too_late, five_places, nineteen_digits, amount(Decimal::MAX), amount(Decimal::MIN)] {
        let mut out = b"before".to_vec();
        assert!(codec::encode(&event, SCHEMA_ID, &mut out).is_err(), "{event:?}");
        assert_eq!(out, b"before");
    }
    // Zeros at the end are no digits.
    let padded = amount(Decimal::new(120_000_000, 8));
    assert_eq!(cache().decode(&encode(&padded)), Ok(padded));
}

#[test]
fn framing_is_checked() {
    let cache = cache();
    let value = encode(&one_of_each()[0]);
    assert_eq!(malformed(cache.decode(&[])), "the value is empty");
    assert!(malformed(cache.decode(&value[..4])).contains("too short"));
    let mut wrong_magic = value.clone();
    wrong_magic[0] = 1;
    assert_eq!(malformed(cache.decode(&wrong_magic)), "magic byte is 1, not 0: no Confluent framing");
    assert!(malformed(cache.decode(b"{\"event_type\":\"ClaimCreated\"}")).contains("magic byte is 123"));
    assert_eq!(codec::schema_id(&value), Some(SCHEMA_ID));
    assert_eq!(codec::schema_id(&wrong_magic), None);
}

#[test]
fn an_unknown_schema_id_asks_for_its_schema() {
    let cache = cache();
    let mut value = encode(&one_of_each()[0]);
    value[4] = 8;
    assert_eq!(codec::schema_id(&value), Some(8));
    assert_eq!(cache.decode(&value), Err(DecodeError::SchemaMissing(8)));
    // Clones share what is inserted, before and after.
    let clone = cache.clone();
    cache.insert(8, CLAIM_EVENT_SCHEMA).unwrap();
    assert!(clone.decode(&value).is_ok());
    assert!(clone.decode(&encode(&one_of_each()[1])).is_ok());
}

#[test]
fn threads_share_one_cache() {
    let cache = SchemaCache::default();
    let value = encode(&one_of_each()[0]);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (cache, value) = (cache.clone(), &value);
                scope.spawn(move || {
                    while cache.decode(value) == Err(DecodeError::SchemaMissing(SCHEMA_ID)) {
                        std::thread::yield_now();
                    }
                    cache.decode(value)
                })
            })
            .collect();
        cache.insert(SCHEMA_ID, CLAIM_EVENT_SCHEMA).unwrap();
        for reader in readers {
            assert_eq!(reader.join().unwrap().as_ref(), Ok(&one_of_each()[0]));
        }
    });
}

#[test]
fn every_cut_of_a_record_is_malformed() {
    let cache = cache();
    for event in one_of_each() {
        let value = encode(&event);
        for cut in 0..value.len() {
            malformed(cache.decode(&value[..cut]));
        }
    }
}

#[test]
fn bytes_after_the_datum_are_malformed() {
    let mut value = encode(&one_of_each()[0]);
    value.push(0);
    assert_eq!(malformed(cache().decode(&value)), "bytes follow the end of the Avro datum");
}

#[test]
fn schemas_of_something_else_are_refused_once_and_for_all() {
    let cache = cache();
    let order =
        r#"{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"id","type":"string"}]}"#;
    for (id, schema) in [(20, order), (21, "\"string\""), (22, "not JSON"), (23, "{}"), (24, "")] {
        assert!(matches!(cache.insert(id, schema), Err(DecodeError::Malformed(_))), "{schema}");
        malformed(cache.decode(&framed(id, &[2, 65])));
        // The first answer for an id holds.
        assert!(cache.insert(id, CLAIM_EVENT_SCHEMA).is_err());
    }
    let event = encode(&one_of_each()[0]);
    malformed(cache.decode(&framed(STATE_SCHEMA_ID, &event[codec::FRAME_BYTES..])));
}

#[test]
fn an_envelope_that_contradicts_its_data_is_malformed() {
    let value = encode(&event(5, ClaimClosed::default()));
    let at = value.windows(11).position(|w| w == b"ClaimClosed").unwrap();
    let mut lying = value.clone();
    lying[at..at + 11].copy_from_slice(b"ClaimErased");
    assert_eq!(
        malformed(cache().decode(&lying)),
        "event_type is not the name of the branch of data, ClaimClosed"
    );
    let at = value.windows(5).position(|w| w == b"claim").unwrap();
    lying = value;
    lying[at..at + 5].copy_from_slice(b"order");
    assert_eq!(malformed(cache().decode(&lying)), "aggregate_type is not \"claim\"");
}

#[test]
fn hostile_lengths_allocate_nothing() {
    let cache = cache();
    // A tenant of 2^60 bytes, and the longest and most negative lengths there are.
    for length in [1_i64 << 60, i64::MAX, -1, i64::MIN] {
        let mut zigzag = ((length << 1) ^ (length >> 63)) as u64;
        let mut body = Vec::new();
        while zigzag >= 0x80 {
            body.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        body.push(zigzag as u8);
        body.extend_from_slice(&[0; 64]);
        malformed(cache.decode(&framed(SCHEMA_ID, &body)));
    }
}

#[test]
fn a_state_survives_the_round_trip() {
    let cache = cache();
    let mut state = ClaimState::empty("acme", "claim_67890");
    for step in std::iter::once(None).chain(one_of_each().into_iter().map(Some)) {
        if let Some(event) = step {
            state.apply(&event);
        }
        let mut out = Vec::new();
        codec::encode_state(&state, STATE_SCHEMA_ID, &mut out).unwrap();
        let read = cache.decode_state(&out).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), json_of(&StateRecord::<&str>::from(&state)));
        assert_eq!((read.revision, read.version), (state.revision(), state.version()));
        assert_eq!(
            (read.title.as_deref(), read.settled),
            (state.title.value.as_deref(), state.settled.value.clone())
        );
        malformed(cache.decode(&out));
    }
    assert!(cache.decode_state(&encode(&one_of_each()[0])).is_err());
}

/// As JSON with amounts as the schema's four places have them.
fn json_of(record: &StateRecord<&str>) -> serde_json::Value {
    let mut record = record.clone();
    for money in [&mut record.claimed, &mut record.settled].into_iter().flatten() {
        money.amount.rescale(codec::AMOUNT_SCALE);
    }
    serde_json::to_value(record).unwrap()
}

/// Our own schema with a word more, which means nothing: its records are read by the long way round.
const LONG_WAY_ID: u32 = 8;

/// Decodes a body both ways and says what came out, to the last digit.
fn both_ways(body: &[u8]) -> [Result<String, DecodeError>; 2] {
    let cache = cache();
    let noted = CLAIM_EVENT_SCHEMA.replacen(r#""type": "record""#, r#""type": "record", "note": "none""#, 1);
    cache.insert(LONG_WAY_ID, &noted).unwrap();
    [SCHEMA_ID, LONG_WAY_ID].map(|id| cache.decode(&framed(id, body)).map(|event| format!("{event:?}")))
}

proptest! {
    #[test]
    fn the_short_way_and_the_long_one_read_the_same(
        event in any_event(),
        hits in collection::vec((any::<Index>(), any::<u8>()), 0..3),
        cut in prop::option::weighted(0.2, any::<Index>()),
    ) {
        let mut body = encode(&event).split_off(codec::FRAME_BYTES);
        for (at, byte) in hits {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        let [short, long] = both_ways(&body);
        prop_assert_eq!(short, long);
    }

    #[test]
    fn random_bodies_read_the_same_both_ways(body in collection::vec(any::<u8>(), 0..300)) {
        let [short, long] = both_ways(&body);
        prop_assert_eq!(short, long);
    }

    #[test]
    fn any_event_survives_the_round_trip(event in any_event()) {
        prop_assert_eq!(cache().decode(&encode(&event)), Ok(event));
    }

    #[test]
    fn random_bodies_are_no_panic(body in collection::vec(any::<u8>(), 0..300)) {
        let _ = cache().decode(&framed(SCHEMA_ID, &body));
    }

    #[test]
    fn damaged_records_are_read_or_malformed(
        event in any_event(),
        hits in collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut value = encode(&event);
        for (at, byte) in hits {
            let at = codec::FRAME_BYTES + at.index(value.len() - codec::FRAME_BYTES);
            value[at] = byte;
        }
        let decoded = cache().decode(&value);
        prop_assert!(matches!(decoded, Ok(_) | Err(DecodeError::Malformed(_))), "{:?}", decoded);
    }
}

#[test]
fn event_data_names_its_type() {
    let types: Vec<EventType> = one_of_each().iter().map(Event::event_type).collect();
    assert_eq!(types, EventType::ALL);
    assert_eq!(EventData::from(ClaimClosed::default()).event_type().to_string(), "ClaimClosed");
}
