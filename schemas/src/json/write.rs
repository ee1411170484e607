//! Event → JSON.

use crate::events::*;
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

// Every field by name: a field added to an event makes the compiler ask here, where it would be left out in silence.
fn data(data: &EventData) -> Value {
    match data {
        EventData::ClaimCreated(created) => self::created(created),
        EventData::ClaimAssigned(ClaimAssigned {
            agent_id,
            agent_name,
            assignment_reason,
            estimated_resolution_time,
        }) => json!({
            "agent_id": agent_id,
            "agent_name": agent_name,
            "assignment_reason": assignment_reason,
            "estimated_resolution_time": estimated_resolution_time.map(time),
        }),
        EventData::ClaimReassigned(ClaimReassigned { agent_id, agent_name, previous_agent_id, reason }) => {
            json!({
                "agent_id": agent_id,
                "agent_name": agent_name,
                "previous_agent_id": previous_agent_id,
                "reason": reason,
            })
        }
        EventData::ClaimProcessingStarted(ClaimProcessingStarted { processed_by, note }) => {
            json!({"processed_by": processed_by, "note": note})
        }
        EventData::ClaimResolved(ClaimResolved {
            resolution,
            resolution_type,
            customer_satisfaction,
            follow_up_required,
            replacement_tracking,
            settled,
        }) => json!({
            "resolution": resolution,
            "resolution_type": resolution_type,
            "customer_satisfaction": customer_satisfaction,
            "follow_up_required": follow_up_required,
            "replacement_tracking": replacement_tracking,
            "settled": money(settled.as_ref()),
        }),
        EventData::ClaimClosed(ClaimClosed { closed_by, reason }) => {
            json!({"closed_by": closed_by, "reason": reason})
        }
        EventData::ClaimReopened(ClaimReopened { reopened_by, reason }) => {
            json!({"reopened_by": reopened_by, "reason": reason})
        }
        EventData::ClaimNoteAdded(ClaimNoteAdded { author, note, kind }) => {
            json!({"author": author, "note": note, "kind": kind})
        }
        EventData::ClaimErased(ClaimErased { requested_by, reason }) => {
            json!({"requested_by": requested_by, "reason": reason})
        }
    }
}

fn created(created: &ClaimCreated) -> Value {
    let ClaimCreated {
        customer_id,
        customer_name,
        customer_email,
        claim_type,
        title,
        description,
        product_id,
        order_id,
        urgency,
        claimed,
    } = created;
    json!({
        "customer_id": customer_id,
        "customer_name": customer_name,
        "customer_email": customer_email,
        "claim_type": claim_type,
        "title": title,
        "description": description,
        "product_id": product_id,
        "order_id": order_id,
        "urgency": urgency.as_str(),
        "claimed": money(claimed.as_ref()),
    })
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
