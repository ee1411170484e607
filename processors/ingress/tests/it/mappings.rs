//! The mappings that ship with the project, on the public files that they are for. Figures were computed outside of
//! the project.

use crate::support::{Collected, collect_mapping, shared_data};
use claims_schemas::{EventData, EventType, Status, Timestamp};
use rust_decimal::Decimal;
use std::collections::{HashMap, HashSet};

fn import(mapping: &str, file: &str) -> Option<Collected> {
    let path = shared_data(file)?;
    let found =
        collect_mapping(mapping, claims_ingress::source::Input::open(path.to_str().unwrap()).unwrap());
    let counts = &found.counts;
    assert_eq!(counts.events_emitted, found.events.len() as u64);
    let ids: HashSet<_> = found.events.iter().map(|event| event.event_id).collect();
    assert_eq!(ids.len(), found.events.len(), "event ids are unique");
    Some(found)
}

fn by_type(found: &Collected) -> HashMap<EventType, usize> {
    let mut counts = HashMap::new();
    for event in &found.events {
        *counts.entry(event.event_type()).or_default() += 1;
    }
    counts
}

/// The state of every claim, by the fold of the processors.
fn fold(found: &Collected) -> HashMap<String, claims_schemas::ClaimState> {
    let mut claims = HashMap::new();
    for event in &found.events {
        claims
            .entry(event.claim_id.clone())
            .or_insert_with(|| claims_schemas::ClaimState::empty(&event.tenant_id, &event.claim_id))
            .apply(event);
    }
    claims
}

#[test]
fn incident_event_log() {
    let Some(found) = import("incident_event_log", "incident_event_log.csv.gz") else { return };
    let counts = &found.counts;
    assert_eq!((counts.rows_read, counts.rows_rejected, counts.rows_without_change), (141_712, 5, 47_650));
    assert_eq!(counts.rejected_by_reason, [("unmapped-value", 5)].into());
    assert_eq!(counts.events_emitted, 131_557);
    let types = by_type(&found);
    for (event_type, expected) in [
        (EventType::ClaimCreated, 24_918),
        (EventType::ClaimAssigned, 22_753),
        (EventType::ClaimReassigned, 6_706),
        (EventType::ClaimProcessingStarted, 16_740),
        (EventType::ClaimResolved, 25_236),
        (EventType::ClaimClosed, 24_930),
        (EventType::ClaimReopened, 331),
        (EventType::ClaimNoteAdded, 9_943),
    ] {
        assert_eq!(types[&event_type], expected, "{event_type}");
    }

    let claims = fold(&found);
    assert_eq!(claims.len(), 24_918);
    assert!(claims.values().all(|claim| claim.status() == Status::Closed));
    let mut agents: HashMap<Option<&str>, usize> = HashMap::new();
    for claim in claims.values() {
        *agents.entry(claim.agent_id.value.as_deref()).or_default() += 1;
    }
    assert_eq!(agents[&Some("Resolver 13")], 2_982);
    assert_eq!(agents[&None], 658);
    assert_eq!(claims.values().filter(|claim| claim.reopen_count > 0).count(), 275);
    let versions: usize = claims.values().map(|claim| claim.seen.len()).sum();
    assert_eq!(versions, found.events.len(), "versions are unique within a claim");
    let first = &claims["INC0000045"];
    // 29/2/2016 01:16, and closed on 5/3/2016 12:00.
    assert_eq!(first.created_at.value, Some(Timestamp(1_456_708_560_000)));
    assert_eq!(first.closed_at.value, Some(Timestamp(1_457_179_200_000)));
}

#[test]
fn tsa_claims() {
    let Some(found) = import("tsa_claims", "tsa_claims_2010_2013.csv.gz") else { return };
    let counts = &found.counts;
    assert_eq!((counts.rows_read, counts.rows_rejected, counts.rows_without_change), (41_598, 1, 0));
    assert_eq!(counts.rejected_by_reason, [("missing-value", 1)].into());
    assert!(found.rejects[0].payload.starts_with(b"<BR>"));
    assert_eq!(found.rejects[0].line, 41_599);

    let claims = fold(&found);
    assert_eq!(claims.len(), 41_597);
    let count = |status| claims.values().filter(|claim| claim.status() == status).count();
    assert_eq!((count(Status::Created), count(Status::Resolved)), (6_949, 34_648));
    let of_type = |kind: &str| {
        claims.values().filter(|claim| claim.resolution_type.value.as_deref() == Some(kind)).count()
    };
    assert_eq!(
        (of_type("rejection"), of_type("full_payment"), of_type("settlement")),
        (21_905, 8_738, 4_005)
    );
    let paid: Decimal =
        claims.values().filter_map(|claim| claim.settled.value.as_ref()).map(|money| money.amount).sum();
    assert_eq!(paid.to_string(), "2802894.52");
}

#[test]
fn cfpb_complaints() {
    let Some(found) = import("cfpb_complaints", "cfpb_complaints_2023.csv.gz") else { return };
    let counts = &found.counts;
    assert_eq!((counts.rows_read, counts.rows_rejected, counts.rows_without_change), (2_068, 1, 0));
    assert_eq!(counts.rejected_by_reason, [("truncated-record", 1)].into());

    let claims = fold(&found);
    assert_eq!(claims.len(), 2_067);
    let count = |status| claims.values().filter(|claim| claim.status() == status).count();
    assert_eq!((count(Status::Processing), count(Status::Closed)), (616, 1_451));
    let descriptions = |test: fn(&str) -> bool| {
        found
            .events
            .iter()
            .filter(|event| matches!(&event.data, EventData::ClaimCreated(c) if test(&c.description)))
            .count()
    };
    assert_eq!(descriptions(|text| text.contains('\n')), 188);
    assert_eq!(descriptions(|text| text.contains('"')), 31);
}

/// The same file gives the same events, whatever the moment of the import.
#[test]
fn a_second_import_gives_the_same_events() {
    let file = "tsa_claims_2010_2013.csv.gz";
    let (Some(first), Some(second)) = (import("tsa_claims", file), import("tsa_claims", file)) else {
        return;
    };
    let ids = |found: &Collected| found.events.iter().map(|event| event.event_id).collect::<Vec<_>>();
    assert_eq!(ids(&first), ids(&second));
}
