//! Event → JSON.

use crate::events::{Event, EventData, Money, Timestamp};
use chrono::{Datelike, SecondsFormat};
use serde_json::{Value, json};

/// The event as JSON.
pub fn to_value(event: &Event) -> Value {
    json!({
        "tenant_id": event.tenant_id,
        "event_id": event.event_id.to_string(),
        "claim_id": event.claim_id,
        "event_type": event.event_type().as_str(),
        "version": event.version,
        "occurred_at": time(event.occurred_at),
        "recorded_at": time(event.recorded_at),
        "correlation_id": event.correlation_id,
        "causation_id": event.causation_id,
        "user_id": event.user_id,
        "source": event.source,
        "data": data(&event.data),
    })
}

fn data(data: &EventData) -> Value {
    match data {
        EventData::ClaimCreated(d) => json!({
            "customer_id": d.customer_id,
            "customer_name": d.customer_name,
            "customer_email": d.customer_email,
            "claim_type": d.claim_type,
            "title": d.title,
            "description": d.description,
            "product_id": d.product_id,
            "order_id": d.order_id,
            "urgency": d.urgency.as_str(),
            "claimed": money(d.claimed.as_ref()),
        }),
        EventData::ClaimAssigned(d) => json!({
            "agent_id": d.agent_id,
            "agent_name": d.agent_name,
            "assignment_reason": d.assignment_reason,
            "estimated_resolution_time": d.estimated_resolution_time.map(time),
        }),
        EventData::ClaimReassigned(d) => json!({
            "agent_id": d.agent_id,
            "agent_name": d.agent_name,
            "previous_agent_id": d.previous_agent_id,
            "reason": d.reason,
        }),
        EventData::ClaimProcessingStarted(d) => json!({"processed_by": d.processed_by, "note": d.note}),
        EventData::ClaimResolved(d) => json!({
            "resolution": d.resolution,
            "resolution_type": d.resolution_type,
            "customer_satisfaction": d.customer_satisfaction,
            "follow_up_required": d.follow_up_required,
            "replacement_tracking": d.replacement_tracking,
            "settled": money(d.settled.as_ref()),
        }),
        EventData::ClaimClosed(d) => json!({"closed_by": d.closed_by, "reason": d.reason}),
        EventData::ClaimReopened(d) => json!({"reopened_by": d.reopened_by, "reason": d.reason}),
        EventData::ClaimNoteAdded(d) => json!({"author": d.author, "note": d.note, "kind": d.kind}),
        EventData::ClaimErased(d) => json!({"requested_by": d.requested_by, "reason": d.reason}),
    }
}

/// The amount without trailing zeros, so that one amount has one spelling.
fn money(money: Option<&Money>) -> Value {
    money.map_or(Value::Null, |m| json!({"amount": m.amount.normalize().to_string(), "currency": m.currency}))
}

/// RFC 3339 has four digits for the year; a time beyond them is written as milliseconds.
fn time(at: Timestamp) -> Value {
    match at.to_datetime() {
        Some(time) if (0..=9999).contains(&time.year()) => {
            time.to_rfc3339_opts(SecondsFormat::Millis, true).into()
        }
        _ => at.0.into(),
    }
}
