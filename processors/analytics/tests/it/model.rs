//! An independent computation of what the views must show: the winners of the log, sorted by version and walked through
//! as one would by hand. It shares no code with the product's fold.

use claims_runtime::Origin;
use claims_schemas::{Event, EventData, events::Money};
use std::collections::{BTreeMap, HashMap};

/// Tenant and claim.
pub type Key = (String, String);

/// A claim as the view `latest` must show it; times in milliseconds, amounts as text with their currency.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    pub status: String,
    pub status_since: i64,
    pub version: u64,
    pub revision: u64,
    pub source: Option<String>,
    pub customer_id: Option<String>,
    pub customer_name: Option<String>,
    pub customer_email: Option<String>,
    pub claim_type: Option<String>,
    pub title: Option<String>,
    pub description: Option<String>,
    pub product_id: Option<String>,
    pub order_id: Option<String>,
    pub urgency: Option<String>,
    pub claimed: Option<(i64, Option<String>)>,
    pub agent_id: Option<String>,
    pub agent_name: Option<String>,
    pub estimated_resolution_at: Option<i64>,
    pub resolution: Option<String>,
    pub resolution_type: Option<String>,
    pub customer_satisfaction: Option<String>,
    pub follow_up_required: Option<bool>,
    pub replacement_tracking: Option<String>,
    pub settled: Option<(i64, Option<String>)>,
    pub created_at: Option<i64>,
    pub resolved_at: Option<i64>,
    pub closed_at: Option<i64>,
    pub updated_at: i64,
    pub reopen_count: u64,
    pub reassignment_count: u64,
    pub note_count: u64,
}

/// The events that the views must show: per claim and version the one with the lowest offset.
pub fn winners(log: &[(Origin, Event)]) -> BTreeMap<Key, BTreeMap<u64, (Origin, Event)>> {
    let mut claims: BTreeMap<Key, BTreeMap<u64, (Origin, Event)>> = BTreeMap::new();
    let mut ordered: Vec<&(Origin, Event)> = log.iter().collect();
    ordered.sort_by_key(|(origin, _)| *origin);
    for (origin, event) in ordered {
        let key = (event.tenant_id.clone(), event.claim_id.clone());
        claims.entry(key).or_default().entry(event.version).or_insert_with(|| (*origin, event.clone()));
    }
    claims
}

/// One row per claim.
pub fn latest(log: &[(Origin, Event)]) -> HashMap<Key, Claim> {
    winners(log)
        .into_iter()
        .map(|(key, events)| {
            let events: Vec<Event> = events.into_values().map(|(_, event)| event).collect();
            (key, walk(&events))
        })
        .collect()
}

fn walk(events: &[Event]) -> Claim {
    let mut claim = Claim { status: "UNKNOWN".into(), revision: events.len() as u64, ..Claim::default() };
    let mut erased_at = None;
    for event in events {
        claim.version = event.version;
        claim.updated_at = event.occurred_at.0;
        claim.source.clone_from(&event.source);
        let status = step(&mut claim, event);
        if let Some(status) = status {
            claim.status = status.into();
            claim.status_since = event.occurred_at.0;
        }
        if matches!(event.data, EventData::ClaimErased(_)) {
            erased_at = Some(event.occurred_at.0);
        }
    }
    if let Some(at) = erased_at {
        claim = Claim {
            status: "ERASED".into(),
            status_since: at,
            customer_id: None,
            customer_name: None,
            customer_email: None,
            title: None,
            description: None,
            order_id: None,
            resolution: None,
            replacement_tracking: None,
            ..claim
        };
    }
    claim
}

fn step(claim: &mut Claim, event: &Event) -> Option<&'static str> {
    let at = event.occurred_at.0;
    match &event.data {
        EventData::ClaimCreated(d) => {
            claim.customer_id = Some(d.customer_id.clone());
            claim.customer_name = d.customer_name.clone();
            claim.customer_email = d.customer_email.clone();
            claim.claim_type = Some(d.claim_type.clone());
            claim.title = d.title.clone();
            claim.description = Some(d.description.clone());
            claim.product_id = d.product_id.clone();
            claim.order_id = d.order_id.clone();
            claim.urgency = Some(format!("{:?}", d.urgency).to_lowercase());
            claim.claimed = d.claimed.as_ref().map(money);
            claim.created_at = Some(at);
            Some("CREATED")
        }
        EventData::ClaimAssigned(d) => {
            claim.agent_id = Some(d.agent_id.clone());
            claim.agent_name = Some(d.agent_name.clone());
            claim.estimated_resolution_at = d.estimated_resolution_time.map(|t| t.0);
            Some("ASSIGNED")
        }
        EventData::ClaimReassigned(d) => {
            claim.agent_id = Some(d.agent_id.clone());
            claim.agent_name = Some(d.agent_name.clone());
            claim.reassignment_count += 1;
            None
        }
        EventData::ClaimProcessingStarted(_) => Some("PROCESSING"),
        EventData::ClaimResolved(d) => {
            claim.resolution = Some(d.resolution.clone());
            claim.resolution_type = Some(d.resolution_type.clone());
            claim.customer_satisfaction = d.customer_satisfaction.clone();
            claim.follow_up_required = Some(d.follow_up_required);
            claim.replacement_tracking = d.replacement_tracking.clone();
            claim.settled = d.settled.as_ref().map(money);
            claim.resolved_at = Some(at);
            Some("RESOLVED")
        }
        EventData::ClaimClosed(_) => {
            claim.closed_at = Some(at);
            Some("CLOSED")
        }
        EventData::ClaimReopened(_) => {
            claim.resolution = None;
            claim.resolution_type = None;
            claim.customer_satisfaction = None;
            claim.follow_up_required = None;
            claim.replacement_tracking = None;
            claim.settled = None;
            claim.resolved_at = None;
            claim.closed_at = None;
            claim.reopen_count += 1;
            Some("PROCESSING")
        }
        EventData::ClaimNoteAdded(_) => {
            claim.note_count += 1;
            None
        }
        EventData::ClaimErased(_) => None,
    }
}

/// An amount in ten-thousandths, and its currency.
pub fn money(money: &Money) -> (i64, Option<String>) {
    let mut amount = money.amount;
    amount.rescale(4);
    (
        i64::try_from(amount.mantissa()).expect("a small amount"),
        money.currency.as_ref().map(ToString::to_string),
    )
}
