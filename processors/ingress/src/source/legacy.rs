//! The older system's JSON: French or English event types, `aggregate_id`, `timestamp`, no versions.

use crate::rejects::{RowError, reason};
use claims_schemas::EventType;
use serde_json::{Map, Value};
use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

/// The system of record that such events name as their source.
pub const SOURCE: &str = "legacy";
/// Claims and events that one file may hold; the numbering keeps 8 to 16 bytes of each.
pub const MAX_EVENTS: usize = 4_000_000;

/// The older system's names of the event types and of the states that they lead to.
const NAMES: &[(&str, EventType)] = &[
    ("ReclamationCreee", EventType::ClaimCreated),
    ("ReclamationAffectee", EventType::ClaimAssigned),
    ("ReclamationReaffectee", EventType::ClaimReassigned),
    ("ReclamationEnCours", EventType::ClaimProcessingStarted),
    ("ReclamationResolue", EventType::ClaimResolved),
    ("ReclamationCloturee", EventType::ClaimClosed),
    ("ReclamationRouverte", EventType::ClaimReopened),
    ("created", EventType::ClaimCreated),
    ("assigned", EventType::ClaimAssigned),
    ("in_progress", EventType::ClaimProcessingStarted),
    ("processing", EventType::ClaimProcessingStarted),
    ("resolved", EventType::ClaimResolved),
    ("closed", EventType::ClaimClosed),
];

/// Numbers the events of each claim in the order of the input, which such events don't say themselves. A line
/// that repeats an event id of its claim is a copy and gets no number.
///
/// A file must therefore hold the whole history of its claims: a later file with only the newer events would be
/// numbered from 1 again.
#[derive(Debug, Default)]
pub struct LegacyNumbering {
    versions: HashMap<u64, u32>,
    seen: HashSet<u64>,
}

impl LegacyNumbering {
    /// The same event in the canonical form; `None`: a copy of one before.
    pub fn translate(&mut self, value: Value, default_tenant: &str) -> Result<Option<Value>, RowError> {
        if self.seen.len() >= MAX_EVENTS || self.versions.len() >= MAX_EVENTS {
            let detail =
                format!("more than {MAX_EVENTS} events in one file of the older format: split it by claim");
            return Err(RowError::new(reason::TOO_MANY, detail));
        }
        let Value::Object(mut legacy) = value else {
            return Err(RowError::new(reason::INVALID_EVENT, "not a JSON object"));
        };
        let claim_id = take_text(&mut legacy, "aggregate_id")?;
        let name = take_text(&mut legacy, "event_type")?;
        let event_type = event_type(&name)?;
        let occurred_at = take_text(&mut legacy, "timestamp")?;
        let data = legacy.remove("data").unwrap_or(Value::Object(Map::new()));
        // Says "claim" in every event; it carries nothing.
        legacy.remove("aggregate_type");

        let tenant = legacy.get("tenant_id").and_then(Value::as_str).unwrap_or(default_tenant);
        let claim = hash(&(tenant, &claim_id));
        if let Some(event_id) = legacy.get("event_id").and_then(Value::as_str)
            && !self.seen.insert(hash(&(claim, event_id)))
        {
            return Ok(None);
        }
        let version = match legacy.remove("version") {
            Some(version) => version,
            None => self.next_version(claim).into(),
        };
        legacy.insert("claim_id".into(), claim_id.into());
        legacy.insert("event_type".into(), event_type.as_str().into());
        legacy.insert("occurred_at".into(), occurred_at.into());
        legacy.insert("version".into(), version);
        legacy.insert("data".into(), data);
        legacy.entry("source").or_insert_with(|| SOURCE.into());
        Ok(Some(Value::Object(legacy)))
    }

    fn next_version(&mut self, claim: u64) -> u32 {
        let version = self.versions.entry(claim).or_insert(0);
        *version += 1;
        *version
    }
}

/// Two claims with one hash would only leave gaps in each other's numbers.
fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn event_type(name: &str) -> Result<EventType, RowError> {
    if let Ok(known) = name.parse() {
        return Ok(known);
    }
    NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, known)| *known).ok_or_else(
        || {
            RowError::of(
                reason::INVALID_EVENT,
                "event_type",
                "no event type of the older system has this name",
            )
        },
    )
}

fn take_text(legacy: &mut Map<String, Value>, field: &str) -> Result<String, RowError> {
    match legacy.remove(field) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(RowError::of(reason::INVALID_EVENT, field, "must be a string")),
        None => Err(RowError::of(reason::INVALID_EVENT, field, "is missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn legacy(id: &str, claim: &str, name: &str) -> Value {
        json!({"event_id": id, "event_type": name, "aggregate_id": claim, "data": {"processed_by": "x"},
               "timestamp": "2025-07-08T14:30:00.000Z", "correlation_id": "trace"})
    }

    #[test]
    fn a_claims_events_are_numbered_in_the_order_of_the_input() {
        let mut numbering = LegacyNumbering::default();
        let mut version = |id: &str, claim: &str| {
            numbering
                .translate(legacy(id, claim, "ReclamationEnCours"), "t")
                .unwrap()
                .map(|value| value["version"].as_u64().unwrap())
        };
        assert_eq!(version("e1", "a"), Some(1));
        assert_eq!(version("e2", "b"), Some(1));
        assert_eq!(version("e3", "a"), Some(2));
        assert_eq!(version("e1", "a"), None, "a copy of the first line");
        assert_eq!(version("e4", "a"), Some(3));
    }

    #[test]
    fn french_english_and_state_names_are_known() {
        for (name, expected) in [
            ("ReclamationCreee", "ClaimCreated"),
            ("ReclamationAffectee", "ClaimAssigned"),
            ("ReclamationEnCours", "ClaimProcessingStarted"),
            ("ReclamationResolue", "ClaimResolved"),
            ("ReclamationCloturee", "ClaimClosed"),
            ("ClaimClosed", "ClaimClosed"),
            ("in_progress", "ClaimProcessingStarted"),
            ("CREATED", "ClaimCreated"),
        ] {
            assert_eq!(event_type(name).unwrap().as_str(), expected);
        }
        assert_eq!(event_type("Reclamation").unwrap_err().field.as_deref(), Some("event_type"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = LegacyNumbering::default().translate(json!({"event_type": "x"}), "t").unwrap_err();
        assert_eq!(error.field.as_deref(), Some("aggregate_id"));
    }
}
