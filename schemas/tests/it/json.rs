//! The canonical JSON form.

use crate::samples;
use claims_schemas::{
    Event, EventData, Timestamp,
    json::{self, EventDraft},
};
use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

fn completed(draft: EventDraft) -> Event {
    draft.complete(|| "none".into(), Uuid::nil(), Timestamp(0), || "none".into())
}

fn sample() -> Value {
    json::to_value(&samples::one_of_each()[0])
}

/// Reads the sample with one field (by JSON pointer) set to a value, which must be refused.
fn refused(pointer: &str, value: Value) -> (String, String) {
    let mut json = sample();
    *json.pointer_mut(pointer).unwrap() = value;
    let error = json::from_value(json).unwrap_err();
    (error.field, error.reason)
}

#[test]
fn the_form_is_stable() {
    let all: Vec<Value> = samples::one_of_each().iter().map(json::to_value).collect();
    insta::assert_json_snapshot!("events", all);
}

#[test]
fn ingress_fills_in_what_may_be_left_out() {
    let draft = json::from_value(json!({
        "claim_id": "c1", "event_type": "ClaimClosed", "version": 3,
        "occurred_at": "2025-07-08T16:30:00.1239+02:00", "data": {}
    }))
    .unwrap();
    assert_eq!((&draft.tenant_id, draft.event_id, draft.recorded_at), (&None, None, None));
    assert_eq!(draft.occurred_at, Timestamp(1_751_985_000_123));
    let event = draft.complete(|| "acme".into(), Uuid::from_u128(9), Timestamp(5), || "corr".into());
    assert_eq!((event.tenant_id.as_str(), event.event_id), ("acme", Uuid::from_u128(9)));
    assert_eq!((event.recorded_at, event.correlation_id.as_str()), (Timestamp(5), "corr"));
}

#[test]
fn unknown_fields_are_refused_by_name() {
    for (pointer, field) in
        [("", "colour"), ("/data", "data.colour"), ("/data/claimed", "data.claimed.colour")]
    {
        let mut json = sample();
        json.pointer_mut(pointer).unwrap().as_object_mut().unwrap().insert("colour".into(), "red".into());
        let error = json::from_value(json).unwrap_err();
        assert_eq!((error.field.as_str(), error.reason.as_str()), (field, "is not a field of this event"));
    }
}

#[test]
fn missing_fields_are_named() {
    for field in ["claim_id", "event_type", "version", "occurred_at", "data"] {
        let mut json = sample();
        json.as_object_mut().unwrap().remove(field);
        let error = json::from_value(json).unwrap_err();
        assert_eq!((error.field.as_str(), error.reason.as_str()), (field, "is missing"));
    }
    assert_eq!(refused("/data/description", Value::Null), ("data.description".into(), "is missing".into()));
    assert_eq!(refused("/data/claimed/amount", Value::Null).0, "data.claimed.amount");
    assert_eq!(json::from_value(json!([])).unwrap_err().to_string(), "event: must be an object");
}

#[test]
fn wrong_values_are_named_but_never_quoted() {
    let secret = json!("hunter2");
    for (pointer, field) in [
        ("/event_type", "event_type"),
        ("/event_id", "event_id"),
        ("/version", "version"),
        ("/occurred_at", "occurred_at"),
        ("/data", "data"),
        ("/data/urgency", "data.urgency"),
        ("/data/claimed", "data.claimed"),
        ("/data/claimed/amount", "data.claimed.amount"),
    ] {
        let (named, reason) = refused(pointer, secret.clone());
        assert_eq!(named, field);
        assert!(field == "event_type" || !reason.contains("hunter2"), "{reason}");
    }
    assert_eq!(refused("/claim_id", json!(7)), ("claim_id".into(), "must be a string".into()));
    for bad in [json!(0), json!(-1), json!(1.5), json!("1")] {
        assert_eq!(refused("/version", bad).1, "must be a whole number from 1");
    }
}

#[test]
fn an_outsiders_long_name_is_cut_in_the_error() {
    let mut json = sample();
    json.as_object_mut().unwrap().insert("x".repeat(100_000), Value::Null);
    assert_eq!(json::from_value(json).unwrap_err().field.len(), 64);
}

#[test]
fn amounts_are_plain_decimals() {
    for good in ["0", "12", "-12.5", "99999999999999.9999", "12.50000000", "007"] {
        assert!(json::parse_amount(good).is_some(), "{good}");
    }
    for bad in [
        "",
        "-",
        ".5",
        "5.",
        "1e400",
        "1e2",
        "NaN",
        "inf",
        "+1",
        "1_000",
        "1,5",
        " 1",
        "0.00001",
        "100000000000000",
        "999999999999999999999999999999999999999",
        "1.0.0",
        "--1",
        "１",
    ] {
        assert_eq!(json::parse_amount(bad), None, "{bad}");
    }
    assert_eq!(refused("/data/claimed/amount", json!(12.5)).0, "data.claimed.amount");
    assert_eq!(json::parse_amount("12.50"), Some(Decimal::new(125, 1)));
}

#[test]
fn dates_that_do_not_exist_are_refused() {
    for bad in ["2025-02-30T00:00:00Z", "2025-13-01T00:00:00Z", "2025-01-01", "yesterday", ""] {
        assert_eq!(refused("/occurred_at", json!(bad)).0, "occurred_at");
    }
}

proptest! {
    #[test]
    fn any_event_survives_the_round_trip(event in samples::any_event(), occurred_at in any::<i64>()) {
        let event = Event { occurred_at: Timestamp(occurred_at), version: event.version + 1, ..event };
        let line = json::to_value(&event).to_string();
        let read = json::from_value(serde_json::from_str(&line).unwrap()).unwrap();
        prop_assert_eq!(completed(read), event);
    }

    #[test]
    fn any_json_is_read_or_refused(event_type in samples::any_data().prop_map(|d: EventData| d.event_type()),
                                   key in "[a-z_]{1,12}", text in "\\PC{0,12}") {
        let mut json = sample();
        json["event_type"] = event_type.as_str().into();
        json["data"] = json!({ key: text });
        // Never a panic; what is wrong is in the data.
        if let Err(error) = json::from_value(json) {
            prop_assert!(error.field.starts_with("data."), "{}", error);
        }
    }
}
