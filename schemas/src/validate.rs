//! What every event must hold to, whoever produced it. Ingress checks before it writes, processors after they read,
//! because the topic may have other producers.

use crate::{
    codec::amount_fits,
    events::*,
    view::{CreatedView, DataView, EventView, MoneyView, ResolvedView},
};
use rust_decimal::Decimal;

/// Longest id, code or label, in bytes of UTF-8.
pub const MAX_ID_BYTES: usize = 256;

/// Longest free text, in bytes of UTF-8.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Highest version: JSON readers in every language still read it exactly.
pub const MAX_VERSION: u64 = (1 << 53) - 1;

/// Earliest time: 1900-01-01, in milliseconds since the Unix epoch. ClickHouse's `DateTime64` begins there.
pub const MIN_TIME_MS: i64 = -2_208_988_800_000;

/// Latest expected time, such as an estimated resolution: 2200-01-01, in milliseconds since the Unix epoch.
pub const MAX_TIME_MS: i64 = 7_258_118_400_000;

/// How far ahead of the clock an event may have happened, in milliseconds: time zones and clocks are off at times.
pub const MAX_AHEAD_MS: i64 = 24 * 60 * 60 * 1000;

/// The words that [`ValidationError::reason`] can be.
pub mod reason {
    /// An id or label of no characters.
    pub const EMPTY: &str = "empty";
    /// More than [`MAX_ID_BYTES`](super::MAX_ID_BYTES) or [`MAX_TEXT_BYTES`](super::MAX_TEXT_BYTES).
    pub const TOO_LONG: &str = "too-long";
    /// A control character in an id or label.
    pub const CONTROL_CHARACTER: &str = "control-character";
    /// A `:` in a tenant, which would make record keys ambiguous.
    pub const COLON: &str = "colon";
    /// A version of 0 or beyond [`MAX_VERSION`](super::MAX_VERSION).
    pub const VERSION_OUT_OF_RANGE: &str = "version-out-of-range";
    /// A time before 1900.
    pub const TOO_EARLY: &str = "too-early";
    /// A time in the future.
    pub const TOO_LATE: &str = "too-late";
    /// An amount below zero.
    pub const NEGATIVE: &str = "negative";
    /// An amount with more digits than the schema holds.
    pub const TOO_MANY_DIGITS: &str = "too-many-digits";
    /// Not three capital letters.
    pub const NOT_A_CURRENCY: &str = "not-a-currency";
}

/// Which field of an event is refused, and why. Holds no value of the event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct ValidationError {
    /// The field, with its place: `claim_id`, `data.claimed.amount`.
    pub field: &'static str,
    /// A stable word, fit for a metric label or a dead letter's reason; one of those in [`reason`](mod@reason).
    pub reason: &'static str,
}

/// Checks lengths, characters, versions, amounts and times. `now`: the clock, for times in the future.
pub fn validate(event: &Event, now: Timestamp) -> Result<(), ValidationError> {
    validate_view(&EventView::from(event), now)
}

/// The same for an event whose texts stand elsewhere.
pub fn validate_view(event: &EventView<'_>, now: Timestamp) -> Result<(), ValidationError> {
    id("tenant_id", event.tenant_id)?;
    ensure(!event.tenant_id.contains(':'), "tenant_id", reason::COLON)?;
    id("claim_id", event.claim_id)?;
    let in_range = (1..=MAX_VERSION).contains(&event.version);
    ensure(in_range, "version", reason::VERSION_OUT_OF_RANGE)?;
    let latest = now.0.saturating_add(MAX_AHEAD_MS);
    time("occurred_at", event.occurred_at, latest)?;
    time("recorded_at", event.recorded_at, latest)?;
    id("correlation_id", event.correlation_id)?;
    optional("causation_id", event.causation_id, id)?;
    optional("user_id", event.user_id, id)?;
    optional("source", event.source, id)?;
    data(&event.data)
}

fn data(data: &DataView<'_>) -> Result<(), ValidationError> {
    match *data {
        DataView::ClaimCreated(ref data) => created(data),
        DataView::ClaimAssigned { agent_id, agent_name, assignment_reason, estimated_resolution_time } => {
            id("data.agent_id", agent_id)?;
            text("data.agent_name", agent_name)?;
            optional("data.assignment_reason", assignment_reason, text)?;
            estimated_resolution_time
                .map_or(Ok(()), |at| time("data.estimated_resolution_time", at, MAX_TIME_MS))
        }
        DataView::ClaimReassigned { agent_id, agent_name, previous_agent_id, reason } => {
            id("data.agent_id", agent_id)?;
            text("data.agent_name", agent_name)?;
            optional("data.previous_agent_id", previous_agent_id, id)?;
            optional("data.reason", reason, text)
        }
        DataView::ClaimProcessingStarted { processed_by, note } => {
            id("data.processed_by", processed_by)?;
            optional("data.note", note, text)
        }
        DataView::ClaimResolved(ref data) => resolved(data),
        DataView::ClaimClosed { closed_by, reason } => {
            optional("data.closed_by", closed_by, id)?;
            optional("data.reason", reason, text)
        }
        DataView::ClaimReopened { reopened_by, reason } => {
            optional("data.reopened_by", reopened_by, id)?;
            optional("data.reason", reason, text)
        }
        DataView::ClaimNoteAdded { author, note, kind } => {
            optional("data.author", author, id)?;
            text("data.note", note)?;
            optional("data.kind", kind, id)
        }
        DataView::ClaimErased { requested_by, reason } => {
            optional("data.requested_by", requested_by, id)?;
            optional("data.reason", reason, text)
        }
    }
}

fn created(data: &CreatedView<'_>) -> Result<(), ValidationError> {
    let CreatedView {
        customer_id,
        customer_name,
        customer_email,
        claim_type,
        title,
        description,
        product_id,
        order_id,
        urgency: _,
        claimed,
    } = *data;
    id("data.customer_id", customer_id)?;
    optional("data.customer_name", customer_name, text)?;
    optional("data.customer_email", customer_email, text)?;
    id("data.claim_type", claim_type)?;
    optional("data.title", title, text)?;
    text("data.description", description)?;
    optional("data.product_id", product_id, id)?;
    optional("data.order_id", order_id, id)?;
    money("data.claimed.amount", "data.claimed.currency", claimed)
}

fn resolved(data: &ResolvedView<'_>) -> Result<(), ValidationError> {
    let ResolvedView {
        resolution,
        resolution_type,
        customer_satisfaction,
        follow_up_required: _,
        replacement_tracking,
        settled,
    } = *data;
    text("data.resolution", resolution)?;
    id("data.resolution_type", resolution_type)?;
    optional("data.customer_satisfaction", customer_satisfaction, id)?;
    optional("data.replacement_tracking", replacement_tracking, id)?;
    money("data.settled.amount", "data.settled.currency", settled)
}

/// Ids, codes and labels: what keys, columns of few values and URLs are made of.
fn id(field: &'static str, value: &str) -> Result<(), ValidationError> {
    ensure(!value.is_empty(), field, reason::EMPTY)?;
    ensure(value.len() <= MAX_ID_BYTES, field, reason::TOO_LONG)?;
    ensure(!has_control_character(value), field, reason::CONTROL_CHARACTER)
}

/// Looks at bytes first: a control character is one of ASCII's, or of two bytes with 0xC2 before it.
fn has_control_character(value: &str) -> bool {
    let may_be = |byte: u8| byte < 0x20 || byte == 0x7F || byte == 0xC2;
    let suspicious = value.bytes().fold(false, |found, byte| found | may_be(byte));
    suspicious && value.chars().any(char::is_control)
}

/// Free text: any characters, line breaks too, or none.
fn text(field: &'static str, value: &str) -> Result<(), ValidationError> {
    ensure(value.len() <= MAX_TEXT_BYTES, field, reason::TOO_LONG)
}

fn optional(
    field: &'static str,
    value: Option<&str>,
    check: fn(&'static str, &str) -> Result<(), ValidationError>,
) -> Result<(), ValidationError> {
    value.map_or(Ok(()), |value| check(field, value))
}

fn time(field: &'static str, at: Timestamp, latest_ms: i64) -> Result<(), ValidationError> {
    ensure(at.0 >= MIN_TIME_MS, field, reason::TOO_EARLY)?;
    ensure(at.0 <= latest_ms, field, reason::TOO_LATE)
}

fn money(
    amount_field: &'static str,
    currency_field: &'static str,
    money: Option<MoneyView<'_>>,
) -> Result<(), ValidationError> {
    let Some(MoneyView { amount, currency }) = money else { return Ok(()) };
    ensure(amount >= Decimal::ZERO, amount_field, reason::NEGATIVE)?;
    ensure(amount_fits(amount), amount_field, reason::TOO_MANY_DIGITS)?;
    let code = |code: &str| code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase());
    ensure(currency.is_none_or(code), currency_field, reason::NOT_A_CURRENCY)
}

fn ensure(holds: bool, field: &'static str, reason: &'static str) -> Result<(), ValidationError> {
    if holds { Ok(()) } else { Err(ValidationError { field, reason }) }
}
