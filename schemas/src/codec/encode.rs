//! The Avro body of an event, written field by field as `avro/claim_event.avsc` says. A generic serialiser, which
//! looks each field up in the schema, takes several times as long; the tests hold this one to it, byte for byte, and it
//! writes only where the schema is the one that it knows.

use super::{AGGREGATE_TYPE, CLAIM_EVENT_SCHEMA, EncodeError, FRAME_BYTES, ten_thousandths};
use crate::{
    events::Urgency,
    view::{CreatedView, DataView, EventView, MoneyView, ResolvedView},
};

/// The hash of the schema that is written here and read by `plain`. When the schema has changed: change both of them
/// first, then this.
const KNOWN_SCHEMA: u64 = 0xe038_0b31_d5ed_109e;

/// Whether the schema of this build is that one. A build with another one, say with a field more, is right all the same:
/// the generic serialiser writes then, and the generic deserialiser reads.
pub(super) const KNOWS_THE_SCHEMA: bool = fnv_1a(CLAIM_EVENT_SCHEMA.as_bytes()) == KNOWN_SCHEMA;

const fn fnv_1a(bytes: &[u8]) -> u64 {
    let (mut hash, mut at) = (0xcbf2_9ce4_8422_2325_u64, 0);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// Branches of every union with null.
const NULL: u8 = 0;
const SOME: u8 = 2;

/// Appends magic byte, schema id and Avro body of an event whose amounts fit. On an error `out` is as before.
pub(super) fn event(event: &EventView<'_>, schema_id: u32, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let version = i64::try_from(event.version)
        .map_err(|_| EncodeError(format!("version {} is beyond the schema's long", event.version)))?;
    out.reserve(FRAME_BYTES + 256);
    out.push(0);
    out.extend_from_slice(&schema_id.to_be_bytes());
    text(event.tenant_id, out);
    text(AGGREGATE_TYPE, out);
    text(event.event_id.hyphenated().encode_lower(&mut [0; 36]), out);
    text(event.claim_id, out);
    text(event.event_type().as_str(), out);
    long(version, out);
    long(event.occurred_at.0, out);
    long(event.recorded_at.0, out);
    text(event.correlation_id, out);
    optional(event.causation_id, out);
    optional(event.user_id, out);
    optional(event.source, out);
    data(&event.data, out);
    Ok(())
}

fn data(data: &DataView<'_>, out: &mut Vec<u8>) {
    // The types stand in the order of the union.
    long(data.event_type() as i64, out);
    match *data {
        DataView::ClaimCreated(ref data) => created(data, out),
        DataView::ClaimAssigned { agent_id, agent_name, assignment_reason, estimated_resolution_time } => {
            text(agent_id, out);
            text(agent_name, out);
            optional(assignment_reason, out);
            match estimated_resolution_time {
                None => out.push(NULL),
                Some(at) => {
                    out.push(SOME);
                    long(at.0, out);
                }
            }
        }
        DataView::ClaimReassigned { agent_id, agent_name, previous_agent_id, reason } => {
            text(agent_id, out);
            text(agent_name, out);
            optional(previous_agent_id, out);
            optional(reason, out);
        }
        DataView::ClaimProcessingStarted { processed_by, note } => {
            text(processed_by, out);
            optional(note, out);
        }
        DataView::ClaimResolved(ref data) => resolved(data, out),
        DataView::ClaimClosed { closed_by, reason } => {
            optional(closed_by, out);
            optional(reason, out);
        }
        DataView::ClaimReopened { reopened_by, reason } => {
            optional(reopened_by, out);
            optional(reason, out);
        }
        DataView::ClaimNoteAdded { author, note, kind } => {
            optional(author, out);
            text(note, out);
            optional(kind, out);
        }
        DataView::ClaimErased { requested_by, reason } => {
            optional(requested_by, out);
            optional(reason, out);
        }
    }
}

fn created(data: &CreatedView<'_>, out: &mut Vec<u8>) {
    let CreatedView {
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
    } = *data;
    text(customer_id, out);
    optional(customer_name, out);
    optional(customer_email, out);
    text(claim_type, out);
    optional(title, out);
    text(description, out);
    optional(product_id, out);
    optional(order_id, out);
    let symbol = match urgency {
        Urgency::Low => 0,
        Urgency::Medium => 1,
        Urgency::High => 2,
        Urgency::Critical => 3,
    };
    long(symbol, out);
    money(claimed, out);
}

fn resolved(data: &ResolvedView<'_>, out: &mut Vec<u8>) {
    let ResolvedView {
        resolution,
        resolution_type,
        customer_satisfaction,
        follow_up_required,
        replacement_tracking,
        settled,
    } = *data;
    text(resolution, out);
    text(resolution_type, out);
    optional(customer_satisfaction, out);
    out.push(u8::from(follow_up_required));
    optional(replacement_tracking, out);
    money(settled, out);
}

/// A zigzag varint.
fn long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn text(text: &str, out: &mut Vec<u8>) {
    long(text.len() as i64, out);
    out.extend_from_slice(text.as_bytes());
}

fn optional(value: Option<&str>, out: &mut Vec<u8>) {
    match value {
        None => out.push(NULL),
        Some(value) => {
            out.push(SOME);
            text(value, out);
        }
    }
}

fn money(money: Option<MoneyView<'_>>, out: &mut Vec<u8>) {
    let Some(MoneyView { amount, currency }) = money else {
        out.push(NULL);
        return;
    };
    out.push(SOME);
    // It fits: that was checked first.
    let bytes = ten_thousandths(amount).unwrap_or_default().to_be_bytes();
    // The shortest two's complement, of at least one byte.
    let same = |window: &&[u8]| match window {
        [0x00, next, ..] => next & 0x80 == 0,
        [0xff, next, ..] => next & 0x80 != 0,
        _ => false,
    };
    let needless = bytes.windows(2).take_while(same).count();
    let shortest = &bytes[needless..];
    long(shortest.len() as i64, out);
    out.extend_from_slice(shortest);
    optional(currency, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise all is well but slow.
    #[test]
    fn the_schema_is_the_known_one() {
        let hash = fnv_1a(CLAIM_EVENT_SCHEMA.as_bytes());
        assert_eq!(hash, KNOWN_SCHEMA, "{hash:#018x}");
    }
}
