//! The older system's JSON: French or English event types, `aggregate_id`, `timestamp`, no versions.

use crate::rejects::{RowError, reason};
use claims_schemas::EventType;
use serde_json::{Map, Value};
use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};
use uuid::Uuid;

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
/// that repeats the event id of an accepted one of its claim is a copy and gets no number.
///
/// A file must therefore hold the whole history of its claims: a later file with only the newer events would be
/// numbered from 1 again.
///
/// A refused line takes a number as well, so that the lines after it keep theirs when it is corrected and the file
/// imported again; the corrected line fills the gap. That needs the line's `aggregate_id`: a line that is no JSON
/// names no claim and takes no number.
#[derive(Debug, Default)]
pub struct LegacyNumbering {
    /// The last number given, by claim.
    versions: HashMap<u64, u32>,
    /// Accepted events that have an id.
    seen: HashSet<u64>,
    /// The numbers of refused events that have an id: the same event further on in the file gets it.
    gaps: HashMap<u64, u32>,
}

impl LegacyNumbering {
    /// What `accept` makes of the event in the canonical form; `None`: a copy of one before.
    ///
    /// An error of `accept` is passed on, and the event counts as refused.
    pub fn translate<T>(
        &mut self,
        value: Value,
        default_tenant: &str,
        accept: impl FnOnce(Value) -> Result<T, RowError>,
    ) -> Result<Option<T>, RowError> {
        let lengths = [self.versions.len(), self.seen.len(), self.gaps.len()];
        if lengths.iter().any(|&length| length >= MAX_EVENTS) {
            let detail =
                format!("more than {MAX_EVENTS} events in one file of the older format: split it by claim");
            return Err(RowError::new(reason::TOO_MANY, detail));
        }
        let Value::Object(mut legacy) = value else {
            return Err(RowError::new(reason::INVALID_EVENT, "not a JSON object"));
        };
        let claim_id = take_text(&mut legacy, "aggregate_id")?;
        let tenant = legacy.get("tenant_id").and_then(Value::as_str).unwrap_or(default_tenant);
        let claim = hash(&(tenant, &claim_id));
        let event = event_id(&legacy).map(|id| hash(&(claim, id)));
        if event.is_some_and(|event| self.seen.contains(&event)) {
            return Ok(None);
        }
        // Before anything else can be refused.
        let number = match legacy.get("version") {
            Some(_) => None,
            None => Some(self.number(claim, event)),
        };
        let result = canonical(legacy, claim_id, number).and_then(accept);
        match (event, number) {
            (Some(event), _) if result.is_ok() => {
                self.seen.insert(event);
                self.gaps.remove(&event);
            }
            (Some(event), Some(number)) => {
                self.gaps.insert(event, number);
            }
            _ => {}
        }
        result.map(Some)
    }

    fn number(&mut self, claim: u64, event: Option<u64>) -> u32 {
        let gap = event.and_then(|event| self.gaps.get(&event).copied());
        gap.unwrap_or_else(|| self.next_version(claim))
    }

    fn next_version(&mut self, claim: u64) -> u32 {
        let version = self.versions.entry(claim).or_insert(0);
        *version += 1;
        *version
    }
}

/// The event in the canonical form, apart from `aggregate_id`, which was taken out of it.
fn canonical(
    mut legacy: Map<String, Value>,
    claim_id: String,
    number: Option<u32>,
) -> Result<Value, RowError> {
    let name = take_text(&mut legacy, "event_type")?;
    let event_type = event_type(&name)?;
    let occurred_at = take_text(&mut legacy, "timestamp")?;
    // Says "claim" in every event; it carries nothing.
    legacy.remove("aggregate_type");
    legacy.insert("claim_id".into(), claim_id.into());
    legacy.insert("event_type".into(), event_type.as_str().into());
    legacy.insert("occurred_at".into(), occurred_at.into());
    if let Some(number) = number {
        legacy.insert("version".into(), number.into());
    }
    legacy.entry("data").or_insert_with(|| Map::new().into());
    legacy.entry("source").or_insert_with(|| SOURCE.into());
    Ok(Value::Object(legacy))
}

/// An id that can tell events apart. Ids that no event may have could stand in several refused lines.
fn event_id(legacy: &Map<String, Value>) -> Option<Uuid> {
    let id = Uuid::try_parse(legacy.get("event_id")?.as_str()?).ok()?;
    (!id.is_nil()).then_some(id)
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

    fn legacy(id: u128, claim: &str, name: &str) -> Value {
        json!({"event_id": Uuid::from_u128(id), "event_type": name, "aggregate_id": claim, "data": {"processed_by": "x"},
               "timestamp": "2025-07-08T14:30:00.000Z", "correlation_id": "trace"})
    }

    #[test]
    fn a_claims_events_are_numbered_in_the_order_of_the_input() {
        let mut numbering = LegacyNumbering::default();
        let mut version = |id: u128, claim: &str| {
            numbering
                .translate(legacy(id, claim, "ReclamationEnCours"), "t", Ok)
                .unwrap()
                .map(|value| value["version"].as_u64().unwrap())
        };
        assert_eq!(version(1, "a"), Some(1));
        assert_eq!(version(2, "b"), Some(1));
        assert_eq!(version(3, "a"), Some(2));
        assert_eq!(version(1, "a"), None, "a copy of the first line");
        assert_eq!(version(4, "a"), Some(3));
    }

    #[test]
    fn refused_events_keep_their_numbers() {
        let mut numbering = LegacyNumbering::default();
        let mut version = |id: u128, name: &str| {
            numbering
                .translate(legacy(id, "a", name), "t", Ok)
                .ok()
                .flatten()
                .map(|value| value["version"].as_u64().unwrap())
        };
        assert_eq!(version(1, "created"), Some(1));
        assert_eq!(version(2, "unknown"), None);
        assert_eq!(version(2, "unknown"), None, "a copy of a refused line takes no second number");
        assert_eq!(version(0, "unknown"), None);
        assert_eq!(version(0, "unknown"), None, "without an id of its own, each line takes a number");
        assert_eq!(version(3, "closed"), Some(5));
        assert_eq!(version(2, "assigned"), Some(2), "corrected further on in the same file");
        assert_eq!(version(2, "assigned"), None, "a copy of the corrected line");
        assert_eq!(version(4, "closed"), Some(6));
    }

    #[test]
    fn an_event_that_is_refused_further_on_keeps_its_number_too() {
        let mut numbering = LegacyNumbering::default();
        let refused = |_| Err::<Value, _>(RowError::new(reason::INVALID_EVENT, "no"));
        assert!(numbering.translate(legacy(1, "a", "created"), "t", refused).is_err());
        let next = numbering.translate(legacy(2, "a", "created"), "t", Ok).unwrap().unwrap();
        assert_eq!(next["version"], 2);
        let corrected = numbering.translate(legacy(1, "a", "created"), "t", Ok).unwrap().unwrap();
        assert_eq!(corrected["version"], 1);
    }

    #[test]
    fn a_version_that_the_line_says_stands() {
        let mut numbering = LegacyNumbering::default();
        let mut own = legacy(1, "a", "created");
        own["version"] = 7.into();
        let event = numbering.translate(own, "t", Ok).unwrap().unwrap();
        assert_eq!(event["version"], 7);
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
        let error = LegacyNumbering::default().translate(json!({"event_type": "x"}), "t", Ok).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("aggregate_id"));
    }
}
