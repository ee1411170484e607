//! JSON → event. Errors name the field and never quote a value: it may be personal.

use super::{EventDraft, JsonError};
use crate::{codec, events::*};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde_json::{Map, Value};
use uuid::Uuid;

/// Longest piece of an outsider's name (a field, an event type) that an error repeats, in characters.
const MAX_NAME_CHARS: usize = 64;

/// Reads an event's JSON; unknown fields are refused by name.
///
/// Checks types and spellings only; see [`crate::validate`] for what the values must hold to.
pub fn from_value(value: Value) -> Result<EventDraft, JsonError> {
    let mut envelope = Fields::new("", value)?;
    if envelope.optional("aggregate_type", text)?.is_some_and(|t| t != "claim") {
        return Err(envelope.error("aggregate_type", "must be \"claim\""));
    }
    let event_type = envelope.required("event_type", event_type)?;
    let data = Fields::new("data.", envelope.take("data"))?;
    let draft = EventDraft {
        tenant_id: envelope.optional("tenant_id", text)?,
        event_id: envelope.optional("event_id", uuid)?,
        claim_id: envelope.required("claim_id", text)?,
        version: envelope.required("version", version)?,
        occurred_at: envelope.required("occurred_at", time)?,
        recorded_at: envelope.optional("recorded_at", time)?,
        correlation_id: envelope.optional("correlation_id", text)?,
        causation_id: envelope.optional("causation_id", text)?,
        user_id: envelope.optional("user_id", text)?,
        source: envelope.optional("source", text)?,
        data: read_data(event_type, data)?,
    };
    envelope.finish()?;
    Ok(draft)
}

fn read_data(event_type: EventType, mut data: Fields) -> Result<EventData, JsonError> {
    let read = match event_type {
        EventType::ClaimCreated => created(&mut data)?.into(),
        EventType::ClaimAssigned => ClaimAssigned {
            agent_id: data.required("agent_id", text)?,
            agent_name: data.required("agent_name", text)?,
            assignment_reason: data.optional("assignment_reason", text)?,
            estimated_resolution_time: data.optional("estimated_resolution_time", time)?,
        }
        .into(),
        EventType::ClaimReassigned => ClaimReassigned {
            agent_id: data.required("agent_id", text)?,
            agent_name: data.required("agent_name", text)?,
            previous_agent_id: data.optional("previous_agent_id", text)?,
            reason: data.optional("reason", text)?,
        }
        .into(),
        EventType::ClaimProcessingStarted => ClaimProcessingStarted {
            processed_by: data.required("processed_by", text)?,
            note: data.optional("note", text)?,
        }
        .into(),
        EventType::ClaimResolved => resolved(&mut data)?.into(),
        EventType::ClaimClosed => ClaimClosed {
            closed_by: data.optional("closed_by", text)?,
            reason: data.optional("reason", text)?,
        }
        .into(),
        EventType::ClaimReopened => ClaimReopened {
            reopened_by: data.optional("reopened_by", text)?,
            reason: data.optional("reason", text)?,
        }
        .into(),
        EventType::ClaimNoteAdded => ClaimNoteAdded {
            author: data.optional("author", text)?,
            note: data.required("note", text)?,
            kind: data.optional("kind", text)?,
        }
        .into(),
        EventType::ClaimErased => ClaimErased {
            requested_by: data.optional("requested_by", text)?,
            reason: data.optional("reason", text)?,
        }
        .into(),
    };
    data.finish()?;
    Ok(read)
}

fn created(data: &mut Fields) -> Result<ClaimCreated, JsonError> {
    Ok(ClaimCreated {
        customer_id: data.required("customer_id", text)?,
        customer_name: data.optional("customer_name", text)?,
        customer_email: data.optional("customer_email", text)?,
        claim_type: data.required("claim_type", text)?,
        title: data.optional("title", text)?,
        description: data.required("description", text)?,
        product_id: data.optional("product_id", text)?,
        order_id: data.optional("order_id", text)?,
        urgency: data.required("urgency", urgency)?,
        claimed: data.money("claimed")?,
    })
}

fn resolved(data: &mut Fields) -> Result<ClaimResolved, JsonError> {
    Ok(ClaimResolved {
        resolution: data.required("resolution", text)?,
        resolution_type: data.required("resolution_type", text)?,
        customer_satisfaction: data.optional("customer_satisfaction", text)?,
        follow_up_required: data.optional("follow_up_required", boolean)?.unwrap_or(false),
        replacement_tracking: data.optional("replacement_tracking", text)?,
        settled: data.money("settled")?,
    })
}

/// The fields of one JSON object, taken out one by one; what is left at the end is unknown.
struct Fields {
    /// What precedes a field's name in errors: empty, or `data.`.
    prefix: &'static str,
    fields: Map<String, Value>,
}

impl Fields {
    fn new(prefix: &'static str, value: Value) -> Result<Self, JsonError> {
        let name = prefix.trim_end_matches('.');
        let field = if name.is_empty() { "event" } else { name };
        match value {
            Value::Object(fields) => Ok(Self { prefix, fields }),
            Value::Null => Err(JsonError { field: field.to_owned(), reason: "is missing".to_owned() }),
            _ => Err(JsonError { field: field.to_owned(), reason: "must be an object".to_owned() }),
        }
    }

    fn error(&self, name: &str, reason: impl Into<String>) -> JsonError {
        let name: String = name.chars().take(MAX_NAME_CHARS).collect();
        JsonError { field: format!("{}{name}", self.prefix), reason: reason.into() }
    }

    /// The field's value; `Null` if it is not there.
    fn take(&mut self, name: &str) -> Value {
        self.fields.remove(name).unwrap_or(Value::Null)
    }

    fn optional<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Result<Option<T>, JsonError> {
        match self.take(name) {
            Value::Null => Ok(None),
            value => read(value).map(Some).map_err(|reason| self.error(name, reason)),
        }
    }

    fn required<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Result<T, JsonError> {
        self.optional(name, read)?.ok_or_else(|| self.error(name, "is missing"))
    }

    fn money(&mut self, name: &str) -> Result<Option<Money>, JsonError> {
        let value = self.take(name);
        if value.is_null() {
            return Ok(None);
        }
        let read = |value| {
            let mut money = Fields::new("", value)?;
            let read = Money {
                amount: money.required("amount", amount)?,
                currency: money.optional("currency", text)?.map(Into::into),
            };
            money.finish()?;
            Ok(read)
        };
        read(value).map(Some).map_err(|e: JsonError| match e.field.as_str() {
            "event" => self.error(name, e.reason),
            inner => self.error(&format!("{name}.{inner}"), e.reason),
        })
    }

    fn finish(self) -> Result<(), JsonError> {
        self.fields.keys().next().map_or(Ok(()), |name| Err(self.error(name, "is not a field of this event")))
    }
}

fn text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err("must be a string".to_owned()),
    }
}

fn boolean(value: Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "must be true or false".to_owned())
}

fn version(value: Value) -> Result<u64, String> {
    value.as_u64().filter(|v| *v > 0).ok_or_else(|| "must be a whole number from 1".to_owned())
}

fn event_type(value: Value) -> Result<EventType, String> {
    let name = text(value)?;
    name.parse().map_err(|_| {
        let known: Vec<&str> = EventType::ALL.iter().map(|t| t.as_str()).collect();
        let shown: String = name.chars().take(MAX_NAME_CHARS).collect();
        format!("unknown event type {shown:?}; known are {}", known.join(", "))
    })
}

fn urgency(value: Value) -> Result<Urgency, String> {
    match value.as_str() {
        Some("low") => Ok(Urgency::Low),
        Some("medium") => Ok(Urgency::Medium),
        Some("high") => Ok(Urgency::High),
        Some("critical") => Ok(Urgency::Critical),
        _ => Err("must be low, medium, high or critical".to_owned()),
    }
}

fn uuid(value: Value) -> Result<Uuid, String> {
    value
        .as_str()
        .and_then(|text| Uuid::try_parse(text).ok())
        .ok_or_else(|| "must be a UUID such as \"f47ac10b-58cc-4372-a567-0e02b2c3d479\"".to_owned())
}

fn time(value: Value) -> Result<Timestamp, String> {
    if let Some(millis) = value.as_i64() {
        return Ok(Timestamp(millis));
    }
    value
        .as_str()
        .and_then(|text| DateTime::parse_from_rfc3339(text).ok())
        .map(|time| time.with_timezone(&Utc).into())
        .ok_or_else(|| "must be a time such as \"2025-07-08T14:30:00.000Z\"".to_owned())
}

fn amount(value: Value) -> Result<Decimal, String> {
    let text = value.as_str().ok_or("must be a decimal number in quotes, such as \"12.50\"")?;
    parse_amount(text).ok_or_else(|| {
        format!(
            "must be a decimal number such as \"12.50\", of at most {} digits before and {} after the point",
            codec::AMOUNT_PRECISION - codec::AMOUNT_SCALE,
            codec::AMOUNT_SCALE
        )
    })
}

/// An amount written plainly: an optional `-`, digits, and perhaps a point and digits. `None` for anything else
/// (exponents, `NaN`, separators) and for what [`codec::amount_fits`] refuses.
pub fn parse_amount(text: &str) -> Option<Decimal> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || !plain(fraction) {
        return None;
    }
    Decimal::from_str_exact(text).ok().filter(|amount| codec::amount_fits(*amount))
}
