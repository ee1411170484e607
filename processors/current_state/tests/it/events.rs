//! Events for the tests, and a plain model of a claim that shares no code with the fold.

use claims_schemas::{Event, EventData, SchemaCache, Timestamp, Urgency, codec, events::*};
use std::collections::BTreeMap;
use uuid::Uuid;

/// 2025-07-08T00:00:00Z.
pub const DAY_MS: i64 = 1_751_932_800_000;
pub const SCHEMA_ID: u32 = 7;

pub fn event(tenant: &str, claim: &str, version: u64, data: impl Into<EventData>) -> Event {
    let data = data.into();
    let at = Timestamp(DAY_MS + version as i64 * 60_000);
    Event {
        tenant_id: tenant.into(),
        event_id: Uuid::new_v5(
            &Uuid::NAMESPACE_OID,
            format!("{tenant}/{claim}/{version}/{data:?}").as_bytes(),
        ),
        claim_id: claim.into(),
        version,
        occurred_at: at,
        recorded_at: at,
        correlation_id: "test".into(),
        causation_id: None,
        user_id: Some("user".into()),
        source: None,
        data,
    }
}

pub fn created(customer: &str) -> ClaimCreated {
    ClaimCreated {
        customer_id: customer.into(),
        customer_name: Some("Ada Lovelace".into()),
        customer_email: None,
        claim_type: "defect".into(),
        title: Some(format!("A claim of {customer}")),
        description: "It broke".into(),
        product_id: None,
        order_id: None,
        urgency: Urgency::High,
        claimed: Some(Money { amount: "12.50".parse().unwrap(), currency: Some("EUR".into()) }),
    }
}

pub fn assigned(agent: &str) -> ClaimAssigned {
    ClaimAssigned {
        agent_id: agent.into(),
        agent_name: format!("Agent {agent}"),
        assignment_reason: None,
        estimated_resolution_time: None,
    }
}

pub fn reassigned(agent: &str) -> ClaimReassigned {
    ClaimReassigned {
        agent_id: agent.into(),
        agent_name: format!("Agent {agent}"),
        previous_agent_id: None,
        reason: None,
    }
}

pub fn started() -> ClaimProcessingStarted {
    ClaimProcessingStarted { processed_by: "worker".into(), note: None }
}

pub fn resolved(resolution: &str) -> ClaimResolved {
    ClaimResolved {
        resolution: resolution.into(),
        resolution_type: "refund".into(),
        customer_satisfaction: None,
        follow_up_required: false,
        replacement_tracking: None,
        settled: Some(Money { amount: "10".parse().unwrap(), currency: None }),
    }
}

pub fn note() -> ClaimNoteAdded {
    ClaimNoteAdded { author: None, note: "waiting".into(), kind: None }
}

pub fn encoded(event: &Event) -> Vec<u8> {
    let mut value = Vec::new();
    codec::encode(event, SCHEMA_ID, &mut value).unwrap();
    value
}

pub fn schemas() -> SchemaCache {
    let cache = SchemaCache::default();
    cache.insert(SCHEMA_ID, codec::CLAIM_EVENT_SCHEMA).unwrap();
    cache
}

/// What a claim must look like, computed by walking its events in the order of versions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Expected {
    pub status: &'static str,
    pub customer: Option<String>,
    pub agent: Option<String>,
    pub title: Option<String>,
    pub resolution: Option<String>,
    pub created_ms: Option<i64>,
    pub revision: i64,
}

/// The claims that a log of events amounts to: of two events with one version the first counts.
pub fn expected<'a>(log: impl IntoIterator<Item = &'a Event>) -> BTreeMap<(String, String), Expected> {
    let mut claims: BTreeMap<(String, String), BTreeMap<u64, &Event>> = BTreeMap::new();
    for event in log {
        let claim = claims.entry((event.tenant_id.clone(), event.claim_id.clone())).or_default();
        claim.entry(event.version).or_insert(event);
    }
    claims.into_iter().map(|(id, events)| (id, walk(&events))).collect()
}

fn walk(events: &BTreeMap<u64, &Event>) -> Expected {
    let mut claim = Expected { status: "UNKNOWN", revision: events.len() as i64, ..Expected::default() };
    for event in events.values() {
        match &event.data {
            EventData::ClaimCreated(data) => {
                claim.status = "CREATED";
                claim.customer = Some(data.customer_id.clone());
                claim.title.clone_from(&data.title);
                claim.created_ms = Some(event.occurred_at.0);
            }
            EventData::ClaimAssigned(data) => {
                claim.status = "ASSIGNED";
                claim.agent = Some(data.agent_id.clone());
            }
            EventData::ClaimReassigned(data) => claim.agent = Some(data.agent_id.clone()),
            EventData::ClaimProcessingStarted(_) => claim.status = "PROCESSING",
            EventData::ClaimResolved(data) => {
                claim.status = "RESOLVED";
                claim.resolution = Some(data.resolution.clone());
            }
            EventData::ClaimClosed(_) => claim.status = "CLOSED",
            EventData::ClaimReopened(_) => {
                claim.status = "PROCESSING";
                claim.resolution = None;
            }
            EventData::ClaimNoteAdded(_) | EventData::ClaimErased(_) => {}
        }
    }
    if events.values().any(|e| matches!(e.data, EventData::ClaimErased(_))) {
        claim = Expected { status: "ERASED", customer: None, title: None, resolution: None, ..claim };
    }
    claim
}
