use super::*;
use claims_schemas::{EventType, validate};
use std::collections::{HashMap, HashSet};

fn generate(events: u64, seed: u64) -> Vec<Event> {
    Generator::new(GeneratorSettings { events, seed }).collect()
}

#[test]
fn as_many_as_asked_for_and_the_same_each_time() {
    for events in [0, 1, 2, 10, 5_000] {
        assert_eq!(generate(events, 7).len() as u64, events);
    }
    assert_eq!(generate(5_000, 7), generate(5_000, 7));
    assert_ne!(generate(5_000, 7), generate(5_000, 8));
}

#[test]
fn every_event_is_valid() {
    for event in generate(20_000, 1) {
        validate::validate(&event, Timestamp::now()).unwrap();
    }
}

/// A claim's distinct versions have no gaps except for what was late at the very end, and copies are exact.
#[test]
fn versions_are_dense_and_copies_are_exact() {
    let events = generate(50_000, 3);
    let mut by_id = HashMap::new();
    let mut versions: HashMap<(String, String), HashSet<u64>> = HashMap::new();
    let mut copies = 0;
    for event in &events {
        let claim = (event.tenant_id.clone(), event.claim_id.clone());
        versions.entry(claim).or_default().insert(event.version);
        if let Some(first) = by_id.insert(event.event_id, event.clone()) {
            copies += 1;
            assert_eq!(content::event_id(&first, &mut Vec::new()), event.event_id);
            assert_eq!((first.claim_id, first.version), (event.claim_id.clone(), event.version));
        }
    }
    assert!((300..900).contains(&copies), "{copies} copies");
    for (claim, versions) in versions {
        assert_eq!(versions.iter().max(), Some(&(versions.len() as u64)), "{claim:?}");
    }
}

#[test]
fn lifecycles_overlap_and_some_events_are_late() {
    let events = generate(100_000, 5);
    let mut last_position: HashMap<&str, (usize, u64)> = HashMap::new();
    let (mut distances, mut late) = (Vec::new(), 0);
    for (position, event) in events.iter().enumerate() {
        if let Some((before, version)) = last_position.insert(&event.claim_id, (position, event.version)) {
            distances.push(position - before);
            late += u64::from(event.version < version);
        }
    }
    distances.sort_unstable();
    assert!(distances[distances.len() / 4] > 50, "first quartile {}", distances[distances.len() / 4]);
    assert!(distances[distances.len() * 9 / 10] > 1_000);
    assert!((300..3_000).contains(&late), "{late} late");
}

#[test]
fn customers_agents_and_types_are_as_unequal_as_in_life() {
    let events = generate(60_000, 9);
    let mut customers: HashMap<&str, u64> = HashMap::new();
    let mut types: HashMap<EventType, u64> = HashMap::new();
    for event in &events {
        *types.entry(event.event_type()).or_default() += 1;
        if let claims_schemas::EventData::ClaimCreated(created) = &event.data {
            *customers.entry(&created.customer_id).or_default() += 1;
        }
    }
    let created: u64 = customers.values().sum();
    let mut weights: Vec<u64> = customers.into_values().collect();
    weights.sort_unstable_by(|a, b| b.cmp(a));
    assert!(weights[0] > 100 && weights.len() > 2_000, "{} {}", weights[0], weights.len());
    let mean = events.len() as u64 / created;
    assert!((4..=7).contains(&mean), "{mean} events per claim");
    for event_type in EventType::ALL.iter().filter(|t| **t != EventType::ClaimErased) {
        assert!(types[event_type] > 100, "{event_type}: {:?}", types.get(event_type));
    }
}

#[test]
fn memory_holds_only_the_claims_under_way() {
    let mut generator = Generator::new(GeneratorSettings { events: 300_000, seed: 2 });
    let mut most = 0;
    while generator.next().is_some() {
        most = most.max(generator.due.len());
    }
    assert!(most < 10_000, "{most} claims and events under way");
}
