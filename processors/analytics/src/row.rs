//! A row of `event_log`: how an event, and where it stands in the topic, become columns, and those the bytes of an insert.

use crate::row_binary::RowBinary;
use claims_runtime::Origin;
use claims_schemas::{
    Timestamp,
    view::{CreatedView, DataView, EventView, MoneyView, ResolvedView},
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

/// One event with its coordinates, ready to be sent: checked to fit the table's types, and encoded in one piece of
/// memory. Many of them wait in batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    encoded: Box<[u8]>,
    event_id: Uuid,
}

impl EventRow {
    /// The row of an event that stands at `origin`. `scratch` is written over; who makes many rows gives it again and
    /// again, so that it grows only once.
    pub fn new(
        event: &EventView<'_>,
        origin: Origin,
        appended_at_ms: i64,
        scratch: &mut Vec<u8>,
    ) -> Result<Self, NotStorable> {
        let amount = storable_amount(event)?;
        Ok(Self::encode(&Columns::new(event, origin, appended_at_ms, amount), scratch))
    }

    pub(crate) fn encode(columns: &Columns<'_>, scratch: &mut Vec<u8>) -> Self {
        scratch.clear();
        columns.encode(scratch);
        Self { encoded: Box::from(scratch.as_slice()), event_id: columns.event_id }
    }

    /// The values of [`Columns`], in their order, in ClickHouse's format RowBinary.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The event's id.
    pub fn event_id(&self) -> Uuid {
        self.event_id
    }

    /// How much memory the row holds, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.encoded.len()
    }
}

/// Checks that an event fits the table's types. Answers with the amount that it claims or settles, if there is one, in
/// units of 10⁻⁴.
pub fn storable_amount(event: &EventView<'_>) -> Result<Option<i64>, NotStorable> {
    let (field, money) = match event.data {
        DataView::ClaimCreated(CreatedView { claimed, .. }) => ("data.claimed.amount", claimed),
        DataView::ClaimResolved(ResolvedView { settled, .. }) => ("data.settled.amount", settled),
        _ => ("", None),
    };
    let problem = "has more than 14 digits before or 4 after the point";
    let amount = money.map(|money| scaled(money).ok_or(NotStorable { field, problem })).transpose()?;
    let estimated = match event.data {
        DataView::ClaimAssigned { estimated_resolution_time, .. } => estimated_resolution_time,
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
    Ok(amount)
}

/// The amount in units of 10⁻⁴; `None` if it has more places or too many digits.
fn scaled(money: MoneyView<'_>) -> Option<i64> {
    const LIMIT: i64 = 1_000_000_000_000_000_000;
    let amount = money.amount.normalize();
    let missing = AMOUNT_SCALE.checked_sub(amount.scale())?;
    let units = amount.mantissa().checked_mul(10_i128.pow(missing))?;
    i64::try_from(units).ok().filter(|units| (-LIMIT + 1..LIMIT).contains(units))
}

/// Makes the struct, and the encoding from the same list: RowBinary goes by position, so they must not part.
macro_rules! columns {
    ($(#[$meta:meta])* pub struct $name:ident<$life:lifetime> {
        $($(#[$field_meta:meta])* pub $column:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        pub struct $name<$life> {
            $($(#[$field_meta])* pub $column: $type,)*
        }

        impl $name<'_> {
            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$column.put(out);)*
            }
        }
    };
}

columns! {
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
}

impl<'a> Columns<'a> {
    /// The columns of an event that stands at `origin`; `amount` is what [`storable_amount`] says of it.
    pub fn new(event: &EventView<'a>, origin: Origin, appended_at_ms: i64, amount: Option<i64>) -> Self {
        let mut columns = Columns {
            tenant_id: event.tenant_id,
            claim_id: event.claim_id,
            version: event.version,
            event_id: event.event_id,
            event_type: event.event_type().as_str(),
            occurred_at: event.occurred_at.0,
            recorded_at: event.recorded_at.0,
            correlation_id: event.correlation_id,
            causation_id: event.causation_id,
            user_id: event.user_id,
            source: event.source,
            topic_partition: origin.partition,
            topic_offset: origin.offset,
            appended_at: appended_at_ms,
            ..Columns::default()
        };
        columns.set_data(&event.data, amount);
        columns
    }

    fn set_data(&mut self, data: &DataView<'a>, amount: Option<i64>) {
        match *data {
            DataView::ClaimCreated(ref created) => self.set_created(created, amount),
            DataView::ClaimAssigned {
                agent_id,
                agent_name,
                assignment_reason,
                estimated_resolution_time,
            } => {
                self.agent_id = Some(agent_id);
                self.agent_name = Some(agent_name);
                self.reason = assignment_reason;
                self.estimated_resolution_at = estimated_resolution_time.map(|at| at.0);
            }
            DataView::ClaimReassigned { agent_id, agent_name, previous_agent_id, reason } => {
                self.agent_id = Some(agent_id);
                self.agent_name = Some(agent_name);
                self.previous_agent_id = previous_agent_id;
                self.reason = reason;
            }
            DataView::ClaimProcessingStarted { processed_by, note } => {
                self.actor = Some(processed_by);
                self.note = note;
            }
            DataView::ClaimResolved(ref resolved) => self.set_resolved(resolved, amount),
            DataView::ClaimNoteAdded { author, note, kind } => {
                self.actor = author;
                self.note = Some(note);
                self.note_kind = kind;
            }
            DataView::ClaimClosed { closed_by: actor, reason }
            | DataView::ClaimReopened { reopened_by: actor, reason }
            | DataView::ClaimErased { requested_by: actor, reason } => {
                self.actor = actor;
                self.reason = reason;
            }
        }
    }

    fn set_created(&mut self, created: &CreatedView<'a>, amount: Option<i64>) {
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
        } = *created;
        self.customer_id = Some(customer_id);
        self.customer_name = customer_name;
        self.customer_email = customer_email;
        self.claim_type = Some(claim_type);
        self.title = title;
        self.description = Some(description);
        self.product_id = product_id;
        self.order_id = order_id;
        self.urgency = Some(urgency.as_str());
        self.claimed_amount = amount;
        self.claimed_currency = claimed.and_then(|money| money.currency);
    }

    fn set_resolved(&mut self, resolved: &ResolvedView<'a>, amount: Option<i64>) {
        let ResolvedView {
            resolution,
            resolution_type,
            customer_satisfaction,
            follow_up_required,
            replacement_tracking,
            settled,
        } = *resolved;
        self.resolution = Some(resolution);
        self.resolution_type = Some(resolution_type);
        self.customer_satisfaction = customer_satisfaction;
        self.follow_up_required = Some(follow_up_required);
        self.replacement_tracking = replacement_tracking;
        self.settled_amount = amount;
        self.settled_currency = settled.and_then(|money| money.currency);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claims_schemas::Urgency;

    const ORIGIN: Origin = Origin { partition: 3, offset: 4 };

    fn money(amount: &str) -> Option<MoneyView<'_>> {
        Some(MoneyView { amount: amount.parse().expect("a number"), currency: Some("EUR") })
    }

    fn event(data: DataView<'_>) -> EventView<'_> {
        EventView {
            tenant_id: "tenant",
            event_id: Uuid::from_u128(9),
            claim_id: "claim",
            version: 2,
            occurred_at: Timestamp(10),
            recorded_at: Timestamp(11),
            correlation_id: "correlation",
            causation_id: Some("cause"),
            user_id: Some("user"),
            source: Some("source"),
            data,
        }
    }

    fn columns<'a>(data: DataView<'a>) -> Columns<'a> {
        let event = event(data);
        Columns::new(&event, ORIGIN, 12, storable_amount(&event).expect("storable"))
    }

    fn envelope(event_type: &str) -> Columns<'_> {
        Columns {
            tenant_id: "tenant",
            claim_id: "claim",
            version: 2,
            event_id: Uuid::from_u128(9),
            event_type,
            occurred_at: 10,
            recorded_at: 11,
            correlation_id: "correlation",
            causation_id: Some("cause"),
            user_id: Some("user"),
            source: Some("source"),
            topic_partition: 3,
            topic_offset: 4,
            appended_at: 12,
            ..Columns::default()
        }
    }

    #[test]
    fn a_created_and_a_resolved_claim_have_their_columns() {
        let created = CreatedView {
            customer_id: "k",
            customer_name: Some("name"),
            customer_email: Some("mail"),
            claim_type: "type",
            title: Some("title"),
            description: "description",
            product_id: Some("product"),
            order_id: Some("order"),
            urgency: Urgency::High,
            claimed: money("1.5"),
        };
        let wanted = Columns {
            customer_id: Some("k"),
            customer_name: Some("name"),
            customer_email: Some("mail"),
            claim_type: Some("type"),
            title: Some("title"),
            description: Some("description"),
            product_id: Some("product"),
            order_id: Some("order"),
            urgency: Some("high"),
            claimed_amount: Some(15_000),
            claimed_currency: Some("EUR"),
            ..envelope("ClaimCreated")
        };
        assert_eq!(columns(DataView::ClaimCreated(created)), wanted);
        let resolved = ResolvedView {
            resolution: "resolution",
            resolution_type: "type",
            customer_satisfaction: Some("good"),
            follow_up_required: true,
            replacement_tracking: Some("tracking"),
            settled: money("-0.0001"),
        };
        let wanted = Columns {
            resolution: Some("resolution"),
            resolution_type: Some("type"),
            customer_satisfaction: Some("good"),
            follow_up_required: Some(true),
            replacement_tracking: Some("tracking"),
            settled_amount: Some(-1),
            settled_currency: Some("EUR"),
            ..envelope("ClaimResolved")
        };
        assert_eq!(columns(DataView::ClaimResolved(resolved)), wanted);
    }

    #[test]
    fn every_other_event_has_its_columns() {
        let (actor, reason, note) = (Some("actor"), Some("reason"), Some("note"));
        let (agent_id, agent_name) = (Some("agent"), Some("name"));
        let by = |event_type| Columns { actor, reason, ..envelope(event_type) };
        let cases = [
            (
                DataView::ClaimAssigned {
                    agent_id: "agent",
                    agent_name: "name",
                    assignment_reason: reason,
                    estimated_resolution_time: Some(Timestamp(-1)),
                },
                Columns {
                    agent_id,
                    agent_name,
                    reason,
                    estimated_resolution_at: Some(-1),
                    ..envelope("ClaimAssigned")
                },
            ),
            (
                DataView::ClaimReassigned {
                    agent_id: "agent",
                    agent_name: "name",
                    previous_agent_id: Some("previous"),
                    reason,
                },
                Columns {
                    agent_id,
                    agent_name,
                    previous_agent_id: Some("previous"),
                    reason,
                    ..envelope("ClaimReassigned")
                },
            ),
            (
                DataView::ClaimProcessingStarted { processed_by: "actor", note },
                Columns { actor, note, ..envelope("ClaimProcessingStarted") },
            ),
            (
                DataView::ClaimNoteAdded { author: actor, note: "note", kind: Some("kind") },
                Columns { actor, note, note_kind: Some("kind"), ..envelope("ClaimNoteAdded") },
            ),
            (DataView::ClaimClosed { closed_by: actor, reason }, by("ClaimClosed")),
            (DataView::ClaimReopened { reopened_by: actor, reason }, by("ClaimReopened")),
            (DataView::ClaimErased { requested_by: actor, reason }, by("ClaimErased")),
        ];
        for (data, wanted) in cases {
            assert_eq!(columns(data), wanted);
        }
    }

    #[test]
    fn what_the_table_cannot_hold_is_refused_by_its_field() {
        let refused = |event: &EventView<'_>| storable_amount(event).expect_err("refused").field;
        let closed = DataView::ClaimClosed { closed_by: None, reason: None };
        assert_eq!(refused(&EventView { occurred_at: Timestamp(i64::MIN), ..event(closed) }), "occurred_at");
        assert_eq!(refused(&EventView { recorded_at: Timestamp(i64::MAX), ..event(closed) }), "recorded_at");
        let assigned = DataView::ClaimAssigned {
            agent_id: "a",
            agent_name: "A",
            assignment_reason: None,
            estimated_resolution_time: Some(Timestamp(i64::MAX)),
        };
        assert_eq!(refused(&event(assigned)), "data.estimated_resolution_time");
        let resolved = ResolvedView {
            resolution: "r",
            resolution_type: "t",
            customer_satisfaction: None,
            follow_up_required: false,
            replacement_tracking: None,
            settled: money("0.00001"),
        };
        assert_eq!(refused(&event(DataView::ClaimResolved(resolved))), "data.settled.amount");
    }

    #[test]
    fn a_row_is_one_small_piece_of_memory() {
        let event = event(DataView::ClaimClosed { closed_by: None, reason: Some("r") });
        let mut scratch = b"what was there before".to_vec();
        let row = EventRow::new(&event, ORIGIN, 12, &mut scratch).expect("storable");
        assert!(size_of::<EventRow>() <= 64);
        assert_eq!(row.bytes(), size_of::<EventRow>() + row.encoded().len());
        assert_eq!(row.event_id(), event.event_id);
        assert!(row.encoded().starts_with(b"\x06tenant\x05claim\x02\0\0\0\0\0\0\0"));
        assert_eq!(EventRow::new(&event, ORIGIN, 12, &mut vec![]).as_ref(), Ok(&row));
    }
}
