//! A row of `event_log`: an event, where it stands in the topic, and how both become columns.

use claims_runtime::Origin;
use claims_schemas::{
    Event, EventData, Timestamp,
    events::{ClaimCreated, ClaimResolved, Money},
};
use clickhouse::Row;
use serde::Serialize;
use uuid::Uuid;

/// What the amount columns are counted in: 10⁻⁴ of the currency's unit (`Decimal(18, 4)`).
const AMOUNT_SCALE: u32 = 4;
/// The range of `DateTime64(3)`, 1900-01-01 to 2299-12-31, in milliseconds since the Unix epoch.
const STORABLE_TIMES: std::ops::RangeInclusive<i64> = -2_208_988_800_000..=10_413_791_999_999;

/// Why an event has no place in the table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct NotStorable {
    /// The event's field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// One event with its coordinates, checked to fit the table's types.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    event: Event,
    origin: Origin,
    appended_at_ms: i64,
    /// Claimed or settled, in units of 10⁻⁴.
    amount: Option<i64>,
}

impl EventRow {
    /// The row of an event that stands at `origin`.
    pub fn new(event: Event, origin: Origin, appended_at_ms: i64) -> Result<Self, NotStorable> {
        let amount = match &event.data {
            EventData::ClaimCreated(ClaimCreated { claimed: Some(money), .. }) => {
                Some(scaled(money).ok_or(too_fine("data.claimed.amount"))?)
            }
            EventData::ClaimResolved(ClaimResolved { settled: Some(money), .. }) => {
                Some(scaled(money).ok_or(too_fine("data.settled.amount"))?)
            }
            _ => None,
        };
        let estimated = match &event.data {
            EventData::ClaimAssigned(data) => data.estimated_resolution_time,
            _ => None,
        };
        let times = [
            ("occurred_at", Some(event.occurred_at)),
            ("recorded_at", Some(event.recorded_at)),
            ("data.estimated_resolution_time", estimated),
        ];
        for (field, time) in times {
            if time.is_some_and(|Timestamp(ms)| !STORABLE_TIMES.contains(&ms)) {
                return Err(NotStorable { field, problem: "is not between the years 1900 and 2299" });
            }
        }
        Ok(Self { event, origin, appended_at_ms, amount })
    }

    /// The event.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Where its record stands.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// About how much memory the row holds.
    pub fn bytes(&self) -> usize {
        let event = &self.event;
        let text = |s: &Option<String>| s.as_ref().map_or(0, String::len);
        let data = match &event.data {
            EventData::ClaimCreated(d) => {
                d.customer_id.len()
                    + d.claim_type.len()
                    + d.description.len()
                    + [&d.customer_name, &d.customer_email, &d.title, &d.product_id, &d.order_id]
                        .map(text)
                        .iter()
                        .sum::<usize>()
            }
            EventData::ClaimAssigned(d) => d.agent_id.len() + d.agent_name.len() + text(&d.assignment_reason),
            EventData::ClaimReassigned(d) => {
                d.agent_id.len() + d.agent_name.len() + text(&d.previous_agent_id) + text(&d.reason)
            }
            EventData::ClaimProcessingStarted(d) => d.processed_by.len() + text(&d.note),
            EventData::ClaimResolved(d) => {
                d.resolution.len()
                    + d.resolution_type.len()
                    + text(&d.customer_satisfaction)
                    + text(&d.replacement_tracking)
            }
            EventData::ClaimClosed(d) => text(&d.closed_by) + text(&d.reason),
            EventData::ClaimReopened(d) => text(&d.reopened_by) + text(&d.reason),
            EventData::ClaimNoteAdded(d) => text(&d.author) + d.note.len() + text(&d.kind),
            EventData::ClaimErased(d) => text(&d.requested_by) + text(&d.reason),
        };
        size_of::<Self>()
            + event.tenant_id.len()
            + event.claim_id.len()
            + event.correlation_id.len()
            + [&event.causation_id, &event.user_id, &event.source].map(text).iter().sum::<usize>()
            + data
    }

    /// The row as the table's columns, borrowed.
    pub fn columns(&self) -> Columns<'_> {
        let event = &self.event;
        let mut columns = Columns {
            tenant_id: &event.tenant_id,
            claim_id: &event.claim_id,
            version: event.version,
            event_id: event.event_id,
            event_type: event.event_type().as_str(),
            occurred_at: event.occurred_at.0,
            recorded_at: event.recorded_at.0,
            correlation_id: &event.correlation_id,
            causation_id: event.causation_id.as_deref(),
            user_id: event.user_id.as_deref(),
            source: event.source.as_deref(),
            topic_partition: self.origin.partition,
            topic_offset: self.origin.offset,
            appended_at: self.appended_at_ms,
            ..Columns::default()
        };
        self.data_columns(&mut columns);
        columns
    }

    fn data_columns<'a>(&'a self, columns: &mut Columns<'a>) {
        match &self.event.data {
            EventData::ClaimCreated(d) => {
                columns.customer_id = Some(&d.customer_id);
                columns.customer_name = d.customer_name.as_deref();
                columns.customer_email = d.customer_email.as_deref();
                columns.claim_type = Some(&d.claim_type);
                columns.title = d.title.as_deref();
                columns.description = Some(&d.description);
                columns.product_id = d.product_id.as_deref();
                columns.order_id = d.order_id.as_deref();
                columns.urgency = Some(d.urgency.as_str());
                columns.claimed_amount = self.amount;
                columns.claimed_currency = currency(&d.claimed);
            }
            EventData::ClaimAssigned(d) => {
                columns.agent_id = Some(&d.agent_id);
                columns.agent_name = Some(&d.agent_name);
                columns.reason = d.assignment_reason.as_deref();
                columns.estimated_resolution_at = d.estimated_resolution_time.map(|t| t.0);
            }
            EventData::ClaimReassigned(d) => {
                columns.agent_id = Some(&d.agent_id);
                columns.agent_name = Some(&d.agent_name);
                columns.previous_agent_id = d.previous_agent_id.as_deref();
                columns.reason = d.reason.as_deref();
            }
            EventData::ClaimProcessingStarted(d) => {
                columns.actor = Some(&d.processed_by);
                columns.note = d.note.as_deref();
            }
            EventData::ClaimResolved(d) => {
                columns.resolution = Some(&d.resolution);
                columns.resolution_type = Some(&d.resolution_type);
                columns.customer_satisfaction = d.customer_satisfaction.as_deref();
                columns.follow_up_required = Some(d.follow_up_required);
                columns.replacement_tracking = d.replacement_tracking.as_deref();
                columns.settled_amount = self.amount;
                columns.settled_currency = currency(&d.settled);
            }
            EventData::ClaimClosed(d) => {
                columns.actor = d.closed_by.as_deref();
                columns.reason = d.reason.as_deref();
            }
            EventData::ClaimReopened(d) => {
                columns.actor = d.reopened_by.as_deref();
                columns.reason = d.reason.as_deref();
            }
            EventData::ClaimNoteAdded(d) => {
                columns.actor = d.author.as_deref();
                columns.note = Some(&d.note);
                columns.note_kind = d.kind.as_deref();
            }
            EventData::ClaimErased(d) => {
                columns.actor = d.requested_by.as_deref();
                columns.reason = d.reason.as_deref();
            }
        }
    }
}

fn too_fine(field: &'static str) -> NotStorable {
    NotStorable { field, problem: "has more than 14 digits before or 4 after the point" }
}

/// The amount in units of 10⁻⁴; `None` if it has more places or too many digits.
fn scaled(money: &Money) -> Option<i64> {
    const LIMIT: i64 = 1_000_000_000_000_000_000;
    let amount = money.amount.normalize();
    let missing = AMOUNT_SCALE.checked_sub(amount.scale())?;
    let units = amount.mantissa().checked_mul(10_i128.pow(missing))?;
    i64::try_from(units).ok().filter(|units| (-LIMIT + 1..LIMIT).contains(units))
}

fn currency(money: &Option<Money>) -> Option<&str> {
    money.as_ref().and_then(|m| m.currency.as_deref())
}

/// The columns of `event_log` as they go over the wire (RowBinary: by position, so the names here make the column
/// list of the insert). Times are milliseconds since the Unix epoch, amounts are units of 10⁻⁴.
#[derive(Debug, Clone, Default, PartialEq, Eq, Row, Serialize)]
#[allow(missing_docs)]
pub struct Columns<'a> {
    pub tenant_id: &'a str,
    pub claim_id: &'a str,
    pub version: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    pub event_id: Uuid,
    pub event_type: &'a str,
    pub occurred_at: i64,
    pub recorded_at: i64,
    pub correlation_id: &'a str,
    pub causation_id: Option<&'a str>,
    pub user_id: Option<&'a str>,
    pub source: Option<&'a str>,
    pub customer_id: Option<&'a str>,
    pub customer_name: Option<&'a str>,
    pub customer_email: Option<&'a str>,
    pub claim_type: Option<&'a str>,
    pub title: Option<&'a str>,
    pub description: Option<&'a str>,
    pub product_id: Option<&'a str>,
    pub order_id: Option<&'a str>,
    pub urgency: Option<&'a str>,
    pub claimed_amount: Option<i64>,
    pub claimed_currency: Option<&'a str>,
    pub agent_id: Option<&'a str>,
    pub agent_name: Option<&'a str>,
    pub previous_agent_id: Option<&'a str>,
    pub estimated_resolution_at: Option<i64>,
    pub actor: Option<&'a str>,
    pub reason: Option<&'a str>,
    pub note: Option<&'a str>,
    pub note_kind: Option<&'a str>,
    pub resolution: Option<&'a str>,
    pub resolution_type: Option<&'a str>,
    pub customer_satisfaction: Option<&'a str>,
    pub follow_up_required: Option<bool>,
    pub replacement_tracking: Option<&'a str>,
    pub settled_amount: Option<i64>,
    pub settled_currency: Option<&'a str>,
    pub topic_partition: i32,
    pub topic_offset: i64,
    pub appended_at: i64,
}
