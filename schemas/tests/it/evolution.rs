//! Older and newer writers and readers, and the rules that keep them together. The second opinion is apache-avro.

use crate::{
    codec::{SCHEMA_ID, cache, encode, framed},
    samples::{any_event, event, one_of_each},
};
use apache_avro::{
    Schema, reader::datum::GenericDatumReader, types::Value, writer::datum::GenericDatumWriter,
};
use claims_schemas::{
    DecodeError, Event, SchemaCache,
    codec::{CLAIM_EVENT_SCHEMA, FRAME_BYTES},
    events::*,
    json,
};
use proptest::{collection, prelude::*, sample::Index};
use rust_decimal::Decimal;
use serde_json::{Value as Json, json};

const OLDER_SCHEMA: &str = include_str!("fixtures/claim_event_older.avsc");
const NEWER_ID: u32 = 9;

fn parse(schema: &str) -> Schema {
    Schema::parse_str(schema).unwrap()
}

fn read_value(schema: &Schema, mut body: &[u8]) -> Value {
    let value = GenericDatumReader::builder(schema).build().unwrap().read_value(&mut body).unwrap();
    assert!(body.is_empty(), "{} bytes are left", body.len());
    value
}

fn write_value(schema: &Schema, value: Value) -> Vec<u8> {
    GenericDatumWriter::builder(schema).build().unwrap().write_value_to_vec(value).unwrap()
}

/// The event as apache-avro sees it.
fn value_of(event: &Event) -> Value {
    read_value(&parse(CLAIM_EVENT_SCHEMA), &encode(event)[FRAME_BYTES..])
}

fn fields_mut(value: &mut Value) -> &mut Vec<(String, Value)> {
    match value {
        Value::Record(fields) => fields,
        Value::Union(_, inner) => fields_mut(inner),
        other => panic!("no record: {other:?}"),
    }
}

fn field_mut<'v>(value: &'v mut Value, name: &str) -> &'v mut Value {
    fields_mut(value).iter_mut().find(|(n, _)| n == name).map(|(_, v)| v).unwrap()
}

/// This build's schema, changed.
fn changed(change: impl FnOnce(&mut Json)) -> String {
    let mut schema: Json = serde_json::from_str(CLAIM_EVENT_SCHEMA).unwrap();
    change(&mut schema);
    schema.to_string()
}

fn fields_of(record: &mut Json) -> &mut Vec<Json> {
    record["fields"].as_array_mut().unwrap()
}

fn named<'j>(all: &'j mut [Json], name: &str) -> &'j mut Json {
    all.iter_mut().find(|one| one["name"] == name).unwrap()
}

fn branches(schema: &mut Json) -> &mut Vec<Json> {
    named(fields_of(schema), "data")["type"].as_array_mut().unwrap()
}

/// A schema of tomorrow: new fields in the envelope and in two events, a new branch, a new symbol.
fn newer_schema() -> String {
    changed(|schema| {
        fields_of(schema).push(json!({"name": "channel", "type": ["null", "string"], "default": null}));
        let created = named(branches(schema), "ClaimCreated");
        fields_of(created)
            .push(json!({"name": "tags", "type": {"type": "array", "items": "string"}, "default": []}));
        let symbols = named(fields_of(created), "urgency")["type"]["symbols"].as_array_mut().unwrap();
        symbols.push("blocker".into());
        let closed = named(branches(schema), "ClaimClosed");
        fields_of(closed).push(json!({"name": "score", "type": "int", "default": 5}));
        branches(schema).push(json!({"type": "record", "name": "ClaimSplit", "fields": [
            {"name": "into", "type": {"type": "array", "items": "string"}},
            {"name": "weights", "type": {"type": "map", "values": "double"}},
        ]}));
    })
}

/// The event as a build of tomorrow writes it, with `change` on its value.
fn written_by_newer(event: &Event, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = value_of(event);
    fields_mut(&mut value).push(("channel".into(), Value::Union(0, Box::new(Value::Null))));
    let data = field_mut(&mut value, "data");
    match event.event_type() {
        EventType::ClaimCreated => fields_mut(data).push(("tags".into(), Value::Array(vec![]))),
        EventType::ClaimClosed => fields_mut(data).push(("score".into(), Value::Int(5))),
        _ => {}
    }
    change(&mut value);
    framed(NEWER_ID, &write_value(&parse(&newer_schema()), value))
}

fn newer_cache() -> SchemaCache {
    let cache = cache();
    cache.insert(NEWER_ID, &newer_schema()).unwrap();
    cache
}

fn string(text: &str) -> Value {
    Value::String(text.into())
}

fn upgrade_needed(value: &[u8]) -> String {
    match newer_cache().decode(value) {
        Err(DecodeError::UpgradeNeeded(what)) => what,
        other => panic!("expected a call for the upgrade, got {other:?}"),
    }
}

/// What the older schema has of the event.
fn older_value(event: &Event) -> Value {
    let mut schema: Json = serde_json::from_str(OLDER_SCHEMA).unwrap();
    let mut value = value_of(event);
    keep(field_mut(&mut value, "data"), fields_of(named(branches(&mut schema), event.event_type().as_str())));
    keep(&mut value, fields_of(&mut schema));
    *field_mut(&mut value, "version") = Value::Int(event.version as i32);
    value
}

fn keep(value: &mut Value, fields: &[Json]) {
    fields_mut(value).retain(|(name, _)| fields.iter().any(|field| field["name"] == name.as_str()));
}

#[test]
fn an_older_writer_is_read_with_defaults() {
    let older = parse(OLDER_SCHEMA);
    let cache = cache();
    cache.insert(3, OLDER_SCHEMA).unwrap();
    for event in one_of_each().into_iter().filter(|e| e.event_type() < EventType::ClaimReopened) {
        let older_value = older_value(&event);
        let read = cache.decode(&framed(3, &write_value(&older, older_value))).unwrap();
        assert_eq!(
            (&read.claim_id, read.version, read.event_id, &read.user_id, &read.causation_id, &read.source),
            (&event.claim_id, event.version, event.event_id, &event.user_id, &None, &None)
        );
        match (read.data, event.data) {
            (EventData::ClaimCreated(read), EventData::ClaimCreated(written)) => {
                assert_eq!((read.urgency, read.description), (written.urgency, written.description));
                assert_eq!((read.title, read.claimed, read.order_id), (None, None, None));
            }
            (EventData::ClaimResolved(read), EventData::ClaimResolved(written)) => {
                assert_eq!(read.resolution, written.resolution);
                assert_eq!((read.follow_up_required, read.settled), (false, None));
            }
            (read, written) => assert_eq!(read.event_type(), written.event_type()),
        }
    }
}

#[test]
fn a_newer_writer_is_read_while_it_says_nothing_new() {
    let cache = newer_cache();
    for event in one_of_each() {
        assert_eq!(cache.decode(&written_by_newer(&event, |_| {})), Ok(event));
    }
}

#[test]
fn what_is_new_calls_for_the_upgrade() {
    let samples = one_of_each();
    let channel = written_by_newer(&samples[1], |value| {
        *field_mut(value, "channel") = Value::Union(1, Box::new(string("phone")));
    });
    assert_eq!(upgrade_needed(&channel), "channel is set");

    let tags = written_by_newer(&samples[0], |value| {
        *field_mut(field_mut(value, "data"), "tags") = Value::Array(vec![string("vip")]);
    });
    assert_eq!(upgrade_needed(&tags), "data.tags is set");

    let urgency = written_by_newer(&samples[0], |value| {
        *field_mut(field_mut(value, "data"), "urgency") = Value::Enum(4, "blocker".into());
    });
    assert_eq!(upgrade_needed(&urgency), "data.urgency is \"blocker\"");

    let score = written_by_newer(&event(5, ClaimClosed::default()), |value| {
        *field_mut(field_mut(value, "data"), "score") = Value::Int(4);
    });
    assert_eq!(upgrade_needed(&score), "data.score is set");

    let split = split_event();
    assert_eq!(upgrade_needed(&split), "data is a ClaimSplit");
    let message = newer_cache().decode(&split).unwrap_err().to_string();
    assert_eq!(message, "written by a newer build: data is a ClaimSplit; upgrade this processor");
}

fn split_event() -> Vec<u8> {
    written_by_newer(&one_of_each()[1], |value| {
        *field_mut(value, "event_type") = string("ClaimSplit");
        let weights = [("a".to_owned(), Value::Double(0.5)), ("b".to_owned(), Value::Double(0.5))];
        let fields = vec![
            ("into".to_owned(), Value::Array(vec![string("a"), string("b")])),
            ("weights".to_owned(), Value::Map(weights.into())),
        ];
        *field_mut(value, "data") = Value::Union(9, Box::new(Value::Record(fields)));
    })
}

#[test]
fn a_damaged_record_of_a_newer_writer_is_bad_data() {
    let cache = newer_cache();
    let mut split = split_event();
    for cut in FRAME_BYTES..split.len() {
        let decoded = cache.decode(&split[..cut]);
        assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{cut}: {decoded:?}");
    }
    split.push(0);
    assert!(matches!(cache.decode(&split), Err(DecodeError::Malformed(_))));
}

#[test]
fn a_schema_that_this_build_cannot_read_at_all_calls_for_the_upgrade() {
    let gone = changed(|schema| fields_of(schema).retain(|field| field["name"] != "version"));
    let retyped = changed(|schema| named(fields_of(schema), "version")["type"] = "double".into());
    let other_time = changed(|schema| {
        named(fields_of(schema), "occurred_at")["type"] =
            json!({"type": "long", "logicalType": "timestamp-micros"});
    });
    for (id, schema, says) in [
        (30, gone, "version is gone"),
        (31, retyped, "version has another type"),
        (32, other_time, "occurred_at has another type"),
    ] {
        let cache = cache();
        cache.insert(id, &schema).unwrap();
        let value = framed(id, &encode(&one_of_each()[0])[FRAME_BYTES..]);
        assert_eq!(cache.decode(&value), Err(DecodeError::UpgradeNeeded(says.into())));
    }
}

#[test]
fn a_field_that_becomes_optional_is_read_until_it_is_left_out() {
    let optional =
        changed(|schema| named(fields_of(schema), "correlation_id")["type"] = json!(["null", "string"]));
    let cache = cache();
    cache.insert(33, &optional).unwrap();
    let event = one_of_each().remove(3);
    let mut value = value_of(&event);
    *field_mut(&mut value, "correlation_id") = Value::Union(1, Box::new(string(&event.correlation_id)));
    let body = write_value(&parse(&optional), value.clone());
    assert_eq!(cache.decode(&framed(33, &body)), Ok(event));

    *field_mut(&mut value, "correlation_id") = Value::Union(0, Box::new(Value::Null));
    let body = write_value(&parse(&optional), value);
    let expected = DecodeError::UpgradeNeeded("correlation_id is a Null".into());
    assert_eq!(cache.decode(&framed(33, &body)), Err(expected));
}

#[test]
fn new_fields_of_any_type_are_known_by_their_default() {
    let point = json!({"type": "record", "name": "Point", "fields": [
        {"name": "x", "type": "double"}, {"name": "label", "type": "string", "default": "here"}
    ]});
    let level = json!({"type": "enum", "name": "Level", "symbols": ["one", "two"]});
    let cases = [
        (json!("long"), json!(70_000_000_000_i64), Value::Long(70_000_000_000), Value::Long(1)),
        (json!("double"), json!(0.5), Value::Double(0.5), Value::Double(0.25)),
        (json!("boolean"), json!(true), Value::Boolean(true), Value::Boolean(false)),
        (json!("string"), json!("é"), string("é"), string("e")),
        (json!(["string", "null"]), json!("x"), Value::Union(0, Box::new(string("x"))), null_second()),
        (level, json!("two"), Value::Enum(1, "two".into()), Value::Enum(0, "one".into())),
        (point, json!({"x": 1.5, "label": "there"}), a_point("there"), a_point("elsewhere")),
        (json!({"type": "map", "values": "int"}), json!({}), Value::Map([].into()), one_entry()),
        (json!({"type": "array", "items": "int"}), json!([3]), ints(&[3]), ints(&[3, 3])),
    ];
    let event = one_of_each().remove(2);
    for (at, (of_type, default, as_default, otherwise)) in cases.into_iter().enumerate() {
        let newer = changed(|schema| {
            fields_of(schema).push(json!({"name": "extra", "type": of_type, "default": default}));
        });
        let (cache, id) = (cache(), 50 + at as u32);
        cache.insert(id, &newer).unwrap();
        let write = |extra| {
            let mut value = value_of(&event);
            fields_mut(&mut value).push(("extra".into(), extra));
            framed(id, &write_value(&parse(&newer), value))
        };
        assert_eq!(cache.decode(&write(as_default)).as_ref(), Ok(&event), "{of_type}");
        let expected = Err(DecodeError::UpgradeNeeded("extra is set".into()));
        assert_eq!(cache.decode(&write(otherwise)), expected, "{of_type}");
    }
}

fn null_second() -> Value {
    Value::Union(1, Box::new(Value::Null))
}

fn a_point(label: &str) -> Value {
    Value::Record(vec![("x".into(), Value::Double(1.5)), ("label".into(), string(label))])
}

fn one_entry() -> Value {
    Value::Map([("a".to_owned(), Value::Int(1))].into())
}

fn ints(all: &[i32]) -> Value {
    Value::Array(all.iter().map(|n| Value::Int(*n)).collect())
}

#[test]
fn recursive_types_of_a_newer_writer_are_stepped_over() {
    let recursive = changed(|schema| {
        let node = json!({"type": "record", "name": "Node", "fields": [
            {"name": "next", "type": ["null", "Node"]}
        ]});
        fields_of(schema).push(json!({"name": "chain", "type": ["null", node], "default": null}));
    });
    let cache = cache();
    cache.insert(34, &recursive).unwrap();
    let event = one_of_each().remove(2);
    let ours = &encode(&event)[FRAME_BYTES..];
    assert_eq!(cache.decode(&framed(34, &[ours, &[0]].concat())), Ok(event));
    let short = [ours, &[2, 2, 0]].concat();
    let expected = DecodeError::UpgradeNeeded("chain is set".into());
    assert_eq!(cache.decode(&framed(34, &short)), Err(expected));
    // A chain without end within reason: refused before the stack ends.
    let deep = [ours, &[2; 100_000], &[0]].concat();
    assert!(matches!(cache.decode(&framed(34, &deep)), Err(DecodeError::Malformed(_))));
}

#[test]
fn the_defaults_of_the_schema_and_of_the_structs_agree() {
    for event in one_of_each() {
        let branch = event.event_type().as_str();
        for field in defaulted_fields(branch) {
            let without = changed(|schema| {
                let data = named(branches(schema), branch);
                fields_of(data).retain(|f| f["name"] != field.as_str());
                define_money_elsewhere(schema);
            });
            let mut value = value_of(&event);
            fields_mut(field_mut(&mut value, "data")).retain(|(name, _)| *name != field);
            let cache = cache();
            cache.insert(40, &without).unwrap();
            let read = cache.decode(&framed(40, &write_value(&parse(&without), value))).unwrap();
            let read = json::to_value(&read);
            let expected = if field == "follow_up_required" { json!(false) } else { Json::Null };
            assert_eq!(read["data"][&field], expected, "{branch}.{field}");
        }
    }
}

fn defaulted_fields(branch: &str) -> Vec<String> {
    let mut schema: Json = serde_json::from_str(CLAIM_EVENT_SCHEMA).unwrap();
    let fields = fields_of(named(branches(&mut schema), branch));
    let defaulted = fields.iter().filter(|field| field.get("default").is_some());
    defaulted.map(|field| field["name"].as_str().unwrap().to_owned()).collect()
}

/// Without the field that defines `Money`, the one that refers to it has to.
fn define_money_elsewhere(schema: &mut Json) {
    let text = schema.to_string();
    if text.contains(r#""name":"Money""#) || !text.contains(r#""Money""#) {
        return;
    }
    let money = json!({"type": "record", "name": "Money", "fields": [
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 4}},
        {"name": "currency", "type": ["null", "string"], "default": null}
    ]});
    *schema = serde_json::from_str(&text.replace(r#""Money""#, &money.to_string())).unwrap();
}

/// The canonical JSON of an event, made from what apache-avro decodes.
fn json_of(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Boolean(b) => (*b).into(),
        Value::Int(n) => (*n).into(),
        Value::Long(n) => (*n).into(),
        Value::String(s) | Value::Enum(_, s) => s.as_str().into(),
        Value::Uuid(id) => id.to_string().into(),
        Value::TimestampMillis(ms) => {
            let time = Timestamp(*ms).to_datetime().unwrap();
            time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true).into()
        }
        Value::Decimal(decimal) => {
            let bytes = Vec::<u8>::try_from(decimal).unwrap();
            let start = if bytes[0] & 0x80 == 0 { 0_i128 } else { -1 };
            let unscaled = bytes.iter().fold(start, |n, byte| (n << 8) | i128::from(*byte));
            Decimal::from_i128_with_scale(unscaled, 4).normalize().to_string().into()
        }
        Value::Union(_, inner) => json_of(inner),
        Value::Record(fields) => fields.iter().map(|(name, value)| (name.clone(), json_of(value))).collect(),
        other => panic!("not in our schema: {other:?}"),
    }
}

proptest! {
    #[test]
    fn apache_avro_reads_and_writes_the_same_bytes(event in any_event()) {
        let ours = encode(&event);
        let value = value_of(&event);
        let mut json = json_of(&value);
        prop_assert_eq!(json.as_object_mut().unwrap().remove("aggregate_type"), Some(json!("claim")));
        prop_assert_eq!(json, json::to_value(&event));
        let theirs = framed(SCHEMA_ID, &write_value(&parse(CLAIM_EVENT_SCHEMA), value));
        prop_assert_eq!(&theirs, &ours);
        prop_assert_eq!(cache().decode(&theirs), Ok(event));
    }

    #[test]
    fn any_event_of_a_newer_writer_is_read(event in any_event()) {
        prop_assert_eq!(newer_cache().decode(&written_by_newer(&event, |_| {})), Ok(event));
    }

    #[test]
    fn damage_in_a_newer_writers_record_is_no_panic(
        event in any_event(),
        hits in collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut value = written_by_newer(&event, |_| {});
        for (at, byte) in hits {
            let at = FRAME_BYTES + at.index(value.len() - FRAME_BYTES);
            value[at] = byte;
        }
        let decoded = newer_cache().decode(&value);
        prop_assert!(!matches!(decoded, Err(DecodeError::SchemaMissing(_))), "{:?}", decoded);
    }

    #[test]
    fn random_bodies_of_a_newer_writer_are_no_panic(body in collection::vec(any::<u8>(), 0..300)) {
        let _ = newer_cache().decode(&framed(NEWER_ID, &body));
    }
}
