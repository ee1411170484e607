//! What may not change in the schemas, and that a change is seen.

use apache_avro::Schema;
use claims_schemas::{
    codec::{CLAIM_EVENT_SCHEMA, CLAIM_STATE_SCHEMA},
    events::EventType,
};
use serde_json::Value as Json;

fn parse(schema: &str) -> Schema {
    Schema::parse_str(schema).unwrap()
}

/// What the union branches, symbols and fields are called, in order. Only ever append: readers map some of them by
/// their place, and stored records hold the numbers.
#[test]
fn branches_and_symbols_are_only_appended() {
    let ever: &[(&str, &[&str])] = &[
        (
            "/fields/12/type",
            &[
                "ClaimCreated",
                "ClaimAssigned",
                "ClaimReassigned",
                "ClaimProcessingStarted",
                "ClaimResolved",
                "ClaimClosed",
                "ClaimReopened",
                "ClaimNoteAdded",
                "ClaimErased",
            ],
        ),
        ("/fields/12/type/0/fields/8/type/symbols", &["low", "medium", "high", "critical"]),
        (
            "/fields",
            &[
                "tenant_id",
                "aggregate_type",
                "event_id",
                "claim_id",
                "event_type",
                "version",
                "occurred_at",
                "recorded_at",
                "correlation_id",
                "causation_id",
                "user_id",
                "source",
                "data",
            ],
        ),
    ];
    let schema: Json = serde_json::from_str(CLAIM_EVENT_SCHEMA).unwrap();
    for (pointer, names) in ever {
        assert_prefix(&schema, pointer, names);
    }
    let statuses = &["UNKNOWN", "CREATED", "ASSIGNED", "PROCESSING", "RESOLVED", "CLOSED", "ERASED"];
    assert_prefix(&serde_json::from_str(CLAIM_STATE_SCHEMA).unwrap(), "/fields/4/type/symbols", statuses);
}

fn assert_prefix(schema: &Json, pointer: &str, names: &[&str]) {
    let present: Vec<&str> = schema
        .pointer(pointer)
        .and_then(Json::as_array)
        .unwrap_or_else(|| panic!("{pointer} is not there"))
        .iter()
        .map(|one| one.as_str().or(one["name"].as_str()).unwrap())
        .collect();
    assert!(present.starts_with(names), "{pointer}: {present:?} must begin with {names:?}");
}

#[test]
fn the_union_and_the_event_types_are_the_same_list() {
    let schema: Json = serde_json::from_str(CLAIM_EVENT_SCHEMA).unwrap();
    let branches = schema.pointer("/fields/12/type").and_then(Json::as_array).unwrap();
    let branches: Vec<&str> = branches.iter().map(|b| b["name"].as_str().unwrap()).collect();
    let types: Vec<&str> = EventType::ALL.iter().map(|t| t.as_str()).collect();
    assert_eq!(branches, types);
}

#[test]
fn the_schemas_are_seen_to_change() {
    insta::assert_snapshot!("claim_event_canonical", parse(CLAIM_EVENT_SCHEMA).canonical_form());
    insta::assert_snapshot!("claim_state_canonical", parse(CLAIM_STATE_SCHEMA).canonical_form());
}
