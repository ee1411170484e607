//! The reader of lines against the one that goes through a tree of values: the same event, or none.

use crate::samples;
use claims_schemas::{
    Event, EventView, Timestamp,
    json::{self, EventDraft, LineReader},
};
use proptest::{collection, prelude::*, sample::Index};
use serde_json::{Map, Value, json};
use uuid::Uuid;

fn completed(draft: EventDraft) -> Event {
    draft.complete(|| "none".into(), Uuid::nil(), Timestamp(0), || "none".into())
}

/// By way of a tree.
fn slowly(line: &[u8]) -> Option<Event> {
    let value = serde_json::from_str(std::str::from_utf8(line).ok()?).ok()?;
    json::from_value(value).ok().map(completed)
}

fn quickly(reader: &mut LineReader, line: &[u8]) -> Option<Event> {
    let draft = reader.read(line)?;
    Some(draft.complete("none", Uuid::nil(), Timestamp(0), "none").to_event())
}

/// Both read it the same, or the quick one leaves it to the other.
fn agree(reader: &mut LineReader, line: &[u8]) -> Result<bool, TestCaseError> {
    let quick = quickly(reader, line);
    if let Some(event) = &quick {
        let slow = slowly(line);
        prop_assert_eq!(Some(event), slow.as_ref(), "{}", String::from_utf8_lossy(line));
        // Amounts that are equal may differ in their places.
        prop_assert_eq!(format!("{:?}", quick), format!("{:?}", slow));
    }
    Ok(quick.is_some())
}

/// Must be read, and by both alike.
fn read(line: &str) {
    assert!(agree(&mut LineReader::default(), line.as_bytes()).unwrap(), "left to the other reader: {line}");
}

/// Must be left to the other reader.
fn left(line: &str) {
    assert_eq!(LineReader::default().read(line.as_bytes()), None, "{line}");
}

fn with(pointer: &str, value: Value) -> String {
    let mut json = json::to_value(&samples::one_of_each()[0]);
    *json.pointer_mut(pointer).unwrap() = value;
    json.to_string()
}

#[test]
fn every_event_type_is_read_with_all_fields_and_with_few() {
    let mut reader = LineReader::default();
    for event in samples::one_of_each() {
        let mut json = json::to_value(&event);
        assert_eq!(quickly(&mut reader, json.to_string().as_bytes()), Some(event));
        for object in ["", "/data"] {
            let object = json.pointer_mut(object).unwrap().as_object_mut().unwrap();
            object.iter_mut().filter(|(key, _)| is_optional(key)).for_each(|(_, value)| *value = Value::Null);
        }
        read(&json.to_string());
        for object in ["", "/data"] {
            json.pointer_mut(object).unwrap().as_object_mut().unwrap().retain(|key, _| !is_optional(key));
        }
        read(&json.to_string());
    }
}

fn is_optional(key: &str) -> bool {
    let needed = [
        "claim_id",
        "event_type",
        "version",
        "occurred_at",
        "data",
        "customer_id",
        "claim_type",
        "description",
        "urgency",
        "agent_id",
        "agent_name",
        "processed_by",
        "resolution",
        "resolution_type",
        "note",
    ];
    !needed.contains(&key)
}

#[test]
fn escapes_white_space_and_spellings_of_times_and_ids_are_read() {
    for text in [
        "",
        "a \"quoted\" word",
        "back\\slash\\",
        "line\nbreak\ttab",
        "\u{8}\u{c}\u{1}\r",
        "é😀\u{7f}\u{9f}",
        "/",
    ] {
        read(&with("/claim_id", text.into()));
        read(&with("/data/description", text.into()));
    }
    let plain = with("/claim_id", "HERE".into());
    for escaped in [r"\u00e9", r"\ud83d\ude00", r"\/", r"a\\", r#"\""#, r"\\\\\u0041b"] {
        read(&plain.replace("HERE", escaped));
    }
    read(&format!(" \t\r\n{} ", plain.replace("\":", "\" :\t").replace(",\"", "\t,\r\n \"")));
    for time in [
        json!("2025-07-08T16:30:00.1239+02:00"),
        json!("2025-07-08 16:30:00z"),
        json!("2016-12-31T23:59:60Z"),
        json!("0000-01-01T00:00:00Z"),
        json!("9999-12-31T23:59:59.999Z"),
        json!(0),
        json!(-1),
        json!(1_751_985_000_123_i64),
    ] {
        read(&with("/occurred_at", time.clone()));
        read(&with("/recorded_at", time));
    }
    for id in [
        "F47AC10B-58CC-4372-A567-0E02B2C3D479",
        "f47ac10b58cc4372a5670e02b2c3d479",
        "urn:uuid:f47ac10b-58cc-4372-a567-0e02b2c3d479",
    ] {
        read(&with("/event_id", id.into()));
    }
    for amount in ["0", "-0", "12", "-12.5", "99999999999999.9999", "12.50000000", "007", "12.50"] {
        read(&with("/data/claimed/amount", amount.into()));
    }
}

#[test]
fn what_is_wrong_or_odd_is_left_to_the_other_reader() {
    let line = json::to_value(&samples::one_of_each()[0]).to_string();
    for (from, to) in [
        ("{\"causation_id\"", "{\"claim_id\":\"first\",\"causation_id\""),
        ("\"claim_type\"", "\"claim_type\":\"first\",\"claim_type\""),
        ("\"amount\"", "\"amount\":\"1\",\"amount\""),
        ("\"version\":1", "\"version\":01"),
        ("\"version\":1", "\"version\":0"),
        ("\"version\":1", "\"version\":-1"),
        ("\"version\":1", "\"version\":1.0"),
        ("\"version\":1", "\"version\":1e0"),
        ("\"version\":1", "\"version\":\"1\""),
        ("\"version\":1", "\"version\":1234567890123456789"),
        ("\"version\":1", "\"version\":+1"),
        ("\"version\":1", "\"version\":nul"),
        ("\"version\":1", "\"version\":1,"),
        ("\"version\":1", "\"version\":1 1"),
        ("\"version\"", "\"v\\u0065rsion\""),
        ("\"version\"", "\"colour\""),
        ("\"urgency\":\"high\"", "\"urgency\":\"High\""),
        ("\"urgency\":\"high\"", "\"urgency\":null"),
        ("\"urgency\":\"high\"", "\"urgency\":\"high\",\"note\":null"),
        ("\"urgency\":\"high\"", "\"urgency\":\"high\",\"tenant_id\":null"),
        ("\"urgency\":\"high\"", "\"urgency\":\"high\",\"settled\":{\"amount\":\"1\"}"),
        ("\"currency\":\"EUR\"", "\"currency\":\"EUR\",\"colour\":1"),
        ("\"amount\"", "\"sum\""),
        ("\"claimed\":{", "\"title\":{"),
        ("\"event_type\":\"ClaimCreated\"", "\"event_type\":\"ClaimClosed\""),
        ("\"event_type\":\"ClaimCreated\"", "\"event_type\":\"ClaimLost\""),
        ("\"event_type\":\"ClaimCreated\"", "\"event_type\":\"ClaimCreated\",\"aggregate_type\":\"order\""),
        ("Ada", "A\u{1}da"),
        ("Ada", "A\\da"),
        ("Ada", "A\\ud800da"),
        ("}", "}}"),
    ] {
        assert!(line.contains(from), "{from}");
        left(&line.replacen(from, to, 1));
    }
    let occurred_at = |value: Value| with("/occurred_at", value);
    for odd in [
        json!("2025-02-30T00:00:00Z"),
        json!("yesterday"),
        json!(1.5),
        json!(true),
        json!([]),
        json!({}),
        Value::Null,
    ] {
        left(&occurred_at(odd));
    }
    left(&occurred_at(json!(7)).replace("\"occurred_at\":7", "\"occurred_at\":-0"));
    for whole in ["", " ", "null", "[]", "7", "{}", "{", "{\"data\":{}}", "{\"data\":null}", "\u{feff}{}"] {
        left(whole);
    }
    for end in 0..line.len() {
        assert_eq!(LineReader::default().read(&line.as_bytes()[..end]), None, "cut off at {end}");
    }
    assert_eq!(LineReader::default().read(b"{\"claim_id\":\"\xff\"}"), None);
}

/// An object's text with its members in another order, some perhaps twice, and white space between.
fn shuffled(object: &Map<String, Value>, keys: &[Index], gap: &str) -> String {
    let mut members: Vec<_> = object.iter().collect();
    for (place, key) in keys.iter().enumerate() {
        let last = members.len() - 1;
        members.swap(place.min(last), key.index(last + 1));
    }
    let members: Vec<String> = members
        .into_iter()
        .map(|(key, value)| match value {
            Value::Object(inner) => format!("{}{gap}:{}", json!(key), shuffled(inner, keys, gap)),
            value => format!("{}{gap}:{gap}{value}", json!(key)),
        })
        .collect();
    format!("{{{gap}{}}}", members.join(&format!("{gap},")))
}

proptest! {
    #[test]
    fn whatever_our_writer_writes_is_read(event in samples::any_event(), occurred_at in any::<i64>(),
                                          keys in collection::vec(any::<Index>(), 0..24), gap in "[ \t]{0,2}") {
        let event = Event { version: event.version % 100_000_000_000_000_000 + 1, ..event };
        let json = json::to_value(&event);
        let mut reader = LineReader::default();
        prop_assert_eq!(quickly(&mut reader, json.to_string().as_bytes()), Some(event.clone()));
        let Value::Object(object) = json else { unreachable!() };
        let line = shuffled(&object, &keys, &gap);
        prop_assert!(agree(&mut reader, line.as_bytes())?, "{}", line);
        let event = Event { occurred_at: Timestamp(occurred_at), ..event };
        agree(&mut reader, json::to_value(&event).to_string().as_bytes())?;
        prop_assert_eq!(EventView::from(&event).to_event(), event);
    }

    /// What a reader keeps from line to line is never taken for a part of the next one.
    #[test]
    fn a_line_is_read_the_same_after_any_others(
        events in collection::vec((samples::any_event(), any::<Index>(), 0..4), 1..8),
    ) {
        let mut reader = LineReader::default();
        for (event, at, kind) in events {
            let mut json = json::to_value(&event);
            let mut line = json.to_string().into_bytes();
            match kind {
                0 => line.truncate(at.index(line.len())),
                1 => {
                    let at = at.index(line.len());
                    line[at] = 0xff;
                }
                2 => {
                    for object in ["", "/data"] {
                        json.pointer_mut(object).unwrap().as_object_mut().unwrap().retain(|key, _| !is_optional(key));
                    }
                    line = json.to_string().into_bytes();
                }
                _ => {}
            }
            let mut fresh = LineReader::default();
            prop_assert_eq!(reader.read(&line), fresh.read(&line));
        }
    }

    #[test]
    fn damaged_lines_are_read_alike_or_left(event in samples::any_event(),
                                            hits in collection::vec((any::<Index>(), any::<u8>()), 1..4)) {
        let mut line = json::to_value(&event).to_string().into_bytes();
        for (at, byte) in hits {
            let at = at.index(line.len());
            line[at] = byte;
        }
        agree(&mut LineReader::default(), &line)?;
    }

    #[test]
    fn pieces_put_elsewhere_are_read_alike_or_left(event in samples::any_event(), other in samples::any_event(),
                                                   from in any::<Index>(), to in any::<Index>(), length in 1..60_usize) {
        let mut line = json::to_value(&event).to_string().into_bytes();
        let other = json::to_value(&other).to_string().into_bytes();
        let from = from.index(other.len());
        let to = to.index(line.len());
        let piece = &other[from..(from + length).min(other.len())];
        line.splice(to..(to + length / 2).min(line.len()), piece.iter().copied());
        agree(&mut LineReader::default(), &line)?;
    }

    /// Keys and values of every kind in every place.
    #[test]
    fn any_members_are_read_alike_or_left(event in samples::any_event(), key in any::<Index>(), other in any::<Index>(),
                                          in_data in any::<bool>(), twice in any::<bool>()) {
        let mut json = json::to_value(&event);
        let names = ["note", "reason", "tenant_id", "claimed", "settled", "data", "aggregate_type", "colour", "author"];
        let values = [json!(null), json!("x"), json!(7), json!(-7), json!(1.5), json!(true), json!([1]), json!({}),
                      json!({"amount": "1.5"}), json!({"amount": 1}), json!("claim"), json!("1.50")];
        let object = json.pointer_mut(if in_data { "/data" } else { "" }).unwrap().as_object_mut().unwrap();
        let mut keys: Vec<String> = object.keys().cloned().collect();
        keys.extend(names.map(str::to_owned));
        let (key, value) = (&keys[key.index(keys.len())], &values[other.index(values.len())]);
        let line = if twice {
            let object = Value::Object(object.clone()).to_string();
            let text = format!("{{{}:{},{}", json!(key), value, &object[1..]);
            if in_data { json["data"] = Value::Null; json.to_string().replace("\"data\":null", &format!("\"data\":{text}")) } else { text }
        } else {
            object.insert(key.clone(), value.clone());
            json.to_string()
        };
        agree(&mut LineReader::default(), line.as_bytes())?;
    }
}
