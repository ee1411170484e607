//! Reads events of a writer whose schema is this build's own, straight from the bytes.
//!
//! The way through serde asks for each field by its name and each branch by its full name; here the schema is known
//! beforehand (and `encode::KNOWS_THE_SCHEMA` says whether it still is this build's). Whatever looks odd gives
//! `None`, and the record goes that other way: what is refused, and in which words, is decided there alone.

use super::{AGGREGATE_TYPE, AMOUNT_SCALE};
use crate::{
    events::{EventType, Timestamp, Urgency},
    view::{CreatedView, DataView, EventView, MoneyView, ResolvedView},
};
use rust_decimal::Decimal;
use serde_json::Value;
use uuid::Uuid;

/// What two schemas may differ in without a difference in the bytes or in what they mean.
const SAYS_NOTHING: [&str; 4] = ["doc", "default", "aliases", "order"];

/// Whether two schemas mean the same bytes: field by field, in the same order, under the same names.
pub(super) fn is_same(ours: &str, writer: &str) -> bool {
    let shape = |schema: &str| serde_json::from_str(schema).ok().map(shape);
    shape(ours).is_some_and(|ours| shape(writer) == Some(ours))
}

fn shape(schema: Value) -> Value {
    match schema {
        Value::Array(items) => Value::Array(items.into_iter().map(shape).collect()),
        Value::Object(members) => {
            let says = members.into_iter().filter(|(name, _)| !SAYS_NOTHING.contains(&name.as_str()));
            Value::Object(says.map(|(name, value)| (name, shape(value))).collect())
        }
        other => other,
    }
}

/// The event that the bytes hold, if they hold exactly one and nothing about it is odd. Its texts stay where they are.
pub(super) fn event(body: &[u8]) -> Option<EventView<'_>> {
    let mut input = Input(body);
    let tenant_id = input.string()?;
    if input.blob()? != AGGREGATE_TYPE.as_bytes() {
        return None;
    }
    let event_id = Uuid::try_parse_ascii(input.blob()?).ok()?;
    let claim_id = input.string()?;
    let event_type = input.blob()?;
    // The fields of a struct expression are evaluated in the order they are written.
    let event = EventView {
        tenant_id,
        event_id,
        claim_id,
        version: u64::try_from(input.long()?).ok()?,
        occurred_at: input.time()?,
        recorded_at: input.time()?,
        correlation_id: input.string()?,
        causation_id: input.optional(Input::string)?,
        user_id: input.optional(Input::string)?,
        source: input.optional(Input::string)?,
        data: data(&mut input)?,
    };
    (input.0.is_empty() && event_type == event.event_type().as_str().as_bytes()).then_some(event)
}

fn data<'a>(input: &mut Input<'a>) -> Option<DataView<'a>> {
    let branch = *EventType::ALL.get(usize::try_from(input.long()?).ok()?)?;
    Some(match branch {
        EventType::ClaimCreated => DataView::ClaimCreated(created(input)?),
        EventType::ClaimAssigned => DataView::ClaimAssigned {
            agent_id: input.string()?,
            agent_name: input.string()?,
            assignment_reason: input.optional(Input::string)?,
            estimated_resolution_time: input.optional(Input::time)?,
        },
        EventType::ClaimReassigned => DataView::ClaimReassigned {
            agent_id: input.string()?,
            agent_name: input.string()?,
            previous_agent_id: input.optional(Input::string)?,
            reason: input.optional(Input::string)?,
        },
        EventType::ClaimProcessingStarted => DataView::ClaimProcessingStarted {
            processed_by: input.string()?,
            note: input.optional(Input::string)?,
        },
        EventType::ClaimResolved => DataView::ClaimResolved(ResolvedView {
            resolution: input.string()?,
            resolution_type: input.string()?,
            customer_satisfaction: input.optional(Input::string)?,
            follow_up_required: input.boolean()?,
            replacement_tracking: input.optional(Input::string)?,
            settled: input.optional(Input::money)?,
        }),
        EventType::ClaimClosed => DataView::ClaimClosed {
            closed_by: input.optional(Input::string)?,
            reason: input.optional(Input::string)?,
        },
        EventType::ClaimReopened => DataView::ClaimReopened {
            reopened_by: input.optional(Input::string)?,
            reason: input.optional(Input::string)?,
        },
        EventType::ClaimNoteAdded => DataView::ClaimNoteAdded {
            author: input.optional(Input::string)?,
            note: input.string()?,
            kind: input.optional(Input::string)?,
        },
        EventType::ClaimErased => DataView::ClaimErased {
            requested_by: input.optional(Input::string)?,
            reason: input.optional(Input::string)?,
        },
    })
}

fn created<'a>(input: &mut Input<'a>) -> Option<CreatedView<'a>> {
    Some(CreatedView {
        customer_id: input.string()?,
        customer_name: input.optional(Input::string)?,
        customer_email: input.optional(Input::string)?,
        claim_type: input.string()?,
        title: input.optional(Input::string)?,
        description: input.string()?,
        product_id: input.optional(Input::string)?,
        order_id: input.optional(Input::string)?,
        urgency: input.urgency()?,
        claimed: input.optional(Input::money)?,
    })
}

/// What is left of an Avro body. Every step gives `None` when the bytes don't hold what is asked for.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// A zigzagged number of variable length; of more than nine bytes, which no value of ours has, none.
    #[inline]
    fn long(&mut self) -> Option<i64> {
        let mut bits = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            bits |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some((bits >> 1) as i64 ^ -((bits & 1) as i64));
            }
        }
        None
    }

    #[inline]
    fn blob(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.long()?).ok()?;
        let (blob, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(blob)
    }

    #[inline]
    fn string(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.blob()?).ok()
    }

    #[inline]
    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.long()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }

    #[inline]
    fn time(&mut self) -> Option<Timestamp> {
        self.long().map(Timestamp)
    }

    fn boolean(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn urgency(&mut self) -> Option<Urgency> {
        match self.long()? {
            0 => Some(Urgency::Low),
            1 => Some(Urgency::Medium),
            2 => Some(Urgency::High),
            3 => Some(Urgency::Critical),
            _ => None,
        }
    }

    fn money(&mut self) -> Option<MoneyView<'a>> {
        let digits = self.blob()?;
        // Two's complement, the highest byte first.
        let sign = if digits.first().is_some_and(|byte| byte & 0x80 != 0) { 0xFF } else { 0 };
        let mut bytes = [sign; 16];
        bytes[16_usize.checked_sub(digits.len())?..].copy_from_slice(digits);
        let amount = Decimal::try_from_i128_with_scale(i128::from_be_bytes(bytes), AMOUNT_SCALE).ok()?;
        Some(MoneyView { amount, currency: self.optional(Input::string)? })
    }
}

#[cfg(test)]
#[path = "plain_tests.rs"]
mod tests;
