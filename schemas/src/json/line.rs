//! One line of JSON → a draft whose texts stand in the line: one pass, no tree of values, hardly an allocation.
//!
//! Takes what well-behaved writers write, in any order of keys, and declines the rest: errors, keys given twice,
//! numbers of other kinds, amounts of many places. What is declined is read by [`from_value`](super::from_value),
//! which alone says what is wrong; the tests hold both to the same events.

mod fields;
mod scan;
mod time;

use super::parse_amount;
use crate::{
    events::{EventType, Timestamp, Urgency},
    view::{CreatedView, DataView, EventView, MoneyView, ResolvedView},
};
use chrono::{DateTime, Utc};
use fields::{Field, Finder};
use rust_decimal::Decimal;
use scan::{Cursor, Number, Span};
use uuid::Uuid;

/// An amount of more characters is left to the other reader.
const MAX_AMOUNT_BYTES: usize = 20;

/// As [`EventDraft`](super::EventDraft), its texts elsewhere.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct DraftView<'a> {
    pub tenant_id: Option<&'a str>,
    pub event_id: Option<Uuid>,
    pub claim_id: &'a str,
    pub version: u64,
    pub occurred_at: Timestamp,
    pub recorded_at: Option<Timestamp>,
    pub correlation_id: Option<&'a str>,
    pub causation_id: Option<&'a str>,
    pub user_id: Option<&'a str>,
    pub source: Option<&'a str>,
    pub data: DataView<'a>,
}

impl<'a> DraftView<'a> {
    /// The event, with what the draft lacks taken from the arguments.
    pub fn complete(
        self,
        tenant_id: &'a str,
        event_id: Uuid,
        recorded_at: Timestamp,
        correlation_id: &'a str,
    ) -> EventView<'a> {
        EventView {
            tenant_id: self.tenant_id.unwrap_or(tenant_id),
            event_id: self.event_id.unwrap_or(event_id),
            claim_id: self.claim_id,
            version: self.version,
            occurred_at: self.occurred_at,
            recorded_at: self.recorded_at.unwrap_or(recorded_at),
            correlation_id: self.correlation_id.unwrap_or(correlation_id),
            causation_id: self.causation_id,
            user_id: self.user_id,
            source: self.source,
            data: self.data,
        }
    }
}

/// Reads lines; keeps its memory from one to the next.
#[derive(Debug, Default)]
pub struct LineReader {
    /// Texts that stand escaped in the line, as they are.
    unescaped: String,
    /// What stands behind the keys of the line.
    values: Values,
}

impl LineReader {
    /// The draft on a line, which must be the whole text; `None`: not for this reader.
    pub fn read<'a>(&'a mut self, line: &'a [u8]) -> Option<DraftView<'a>> {
        let line = std::str::from_utf8(line).ok()?;
        self.unescaped.clear();
        let mut cursor = Cursor::new(line, &mut self.unescaped);
        let values = &mut self.values;
        values.forget();
        let mut fields = Finder::of_envelope();
        cursor.object(|cursor, name| {
            let field = fields.find(name)?;
            let value = match field {
                Field::data => values.read_data(cursor)?,
                _ => cursor.scalar()?,
            };
            values.set(field, value)
        })?;
        cursor.end()?;
        self.values.draft(Texts { line, unescaped: &self.unescaped })
    }
}

/// What stands behind a key.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Value {
    #[default]
    Null,
    Text(Span),
    Number(Number),
    Bool(bool),
    /// The one in [`Values::money`].
    Money,
    /// Its fields are those of [`Values`].
    Data,
}

#[derive(Debug, Clone, Copy, Default)]
struct Money {
    amount: Value,
    currency: Value,
}

/// The values of a line by the fields that they are of.
#[derive(Debug)]
struct Values {
    /// Those whose bits are set. The others are left over from lines before.
    values: [Value; Field::COUNT],
    /// One bit per field: its key was there.
    present: u64,
    /// No event type has two.
    money: Option<Money>,
}

impl Default for Values {
    fn default() -> Self {
        Self { values: [Value::Null; Field::COUNT], present: 0, money: None }
    }
}

impl Values {
    /// To be filled from another line. What takes long, all of a kilobyte, stays as it is.
    fn forget(&mut self) {
        self.present = 0;
        self.money = None;
    }

    fn get(&self, field: Field) -> Value {
        if self.present & field.bit() == 0 { Value::Null } else { self.values[field as usize] }
    }

    fn set(&mut self, field: Field, value: Value) -> Option<()> {
        // A key that stands twice: the other reader takes the last one.
        (self.present & field.bit() == 0).then_some(())?;
        self.present |= field.bit();
        self.values[field as usize] = value;
        Some(())
    }

    fn read_data(&mut self, cursor: &mut Cursor<'_, '_>) -> Option<Value> {
        let mut fields = Finder::of_data();
        cursor.object(|cursor, name| {
            let field = fields.find(name)?;
            let value = match cursor.is_object() {
                true => self.read_money(field, cursor)?,
                false => cursor.scalar()?,
            };
            self.set(field, value)
        })?;
        Some(Value::Data)
    }

    fn read_money(&mut self, field: Field, cursor: &mut Cursor<'_, '_>) -> Option<Value> {
        let expected = matches!(field, Field::claimed | Field::settled) && self.money.is_none();
        expected.then_some(())?;
        let (mut amount, mut currency) = (None, None);
        cursor.object(|cursor, name| {
            let place = match name {
                b"amount" => &mut amount,
                b"currency" => &mut currency,
                _ => return None,
            };
            place.is_none().then_some(())?;
            *place = Some(cursor.scalar()?);
            Some(())
        })?;
        self.money = Some(Money { amount: amount?, currency: currency.unwrap_or_default() });
        Some(Value::Money)
    }

    fn draft<'a>(&self, texts: Texts<'a>) -> Option<DraftView<'a>> {
        let mut take = Taker { values: self, texts, taken: Field::data.bit() };
        let aggregate_type = take.optional(Field::aggregate_type)?;
        aggregate_type.is_none_or(|name| name == "claim").then_some(())?;
        (self.get(Field::data) == Value::Data).then_some(())?;
        let event_type: EventType = take.text(Field::event_type)?.parse().ok()?;
        let event_id = match take.optional(Field::event_id)? {
            None => None,
            Some(text) => Some(Uuid::try_parse(text).ok()?),
        };
        let draft = DraftView {
            tenant_id: take.optional(Field::tenant_id)?,
            event_id,
            claim_id: take.text(Field::claim_id)?,
            version: take.version(Field::version)?,
            occurred_at: take.time(Field::occurred_at)??,
            recorded_at: take.time(Field::recorded_at)?,
            correlation_id: take.optional(Field::correlation_id)?,
            causation_id: take.optional(Field::causation_id)?,
            user_id: take.optional(Field::user_id)?,
            source: take.optional(Field::source)?,
            data: take.data(event_type)?,
        };
        // What was not asked for is no field of this event.
        (self.present & !take.taken == 0).then_some(draft)
    }
}

/// Where the texts of a line stand.
#[derive(Debug, Clone, Copy)]
struct Texts<'a> {
    line: &'a str,
    unescaped: &'a str,
}

impl<'a> Texts<'a> {
    fn get(self, span: Span) -> Option<&'a str> {
        let text = if span.unescaped { self.unescaped } else { self.line };
        text.get(span.start..span.end)
    }
}

/// Takes the fields out one by one, and knows which were taken. `None` is for lines to be declined.
struct Taker<'a, 'v> {
    values: &'v Values,
    texts: Texts<'a>,
    taken: u64,
}

impl<'a> Taker<'a, '_> {
    fn take(&mut self, field: Field) -> Value {
        self.taken |= field.bit();
        self.values.get(field)
    }

    fn text(&mut self, field: Field) -> Option<&'a str> {
        self.optional(field)?
    }

    fn optional(&mut self, field: Field) -> Option<Option<&'a str>> {
        match self.take(field) {
            Value::Null => Some(None),
            Value::Text(span) => self.texts.get(span).map(Some),
            _ => None,
        }
    }

    fn version(&mut self, field: Field) -> Option<u64> {
        match self.take(field) {
            Value::Number(Number { negative: false, digits }) if digits > 0 => Some(digits),
            _ => None,
        }
    }

    fn time(&mut self, field: Field) -> Option<Option<Timestamp>> {
        match self.take(field) {
            Value::Null => Some(None),
            Value::Text(span) => {
                let text = self.texts.get(span)?;
                let at = time::plain_rfc3339(text).or_else(|| {
                    let time = DateTime::parse_from_rfc3339(text).ok()?;
                    Some(time.with_timezone(&Utc).into())
                });
                at.map(Some)
            }
            Value::Number(Number { negative, digits }) => {
                let millis = i64::try_from(digits).ok()?;
                Some(Some(Timestamp(if negative { -millis } else { millis })))
            }
            _ => None,
        }
    }

    fn bool(&mut self, field: Field) -> Option<Option<bool>> {
        match self.take(field) {
            Value::Null => Some(None),
            Value::Bool(value) => Some(Some(value)),
            _ => None,
        }
    }

    fn urgency(&mut self, field: Field) -> Option<Urgency> {
        match self.text(field)? {
            "low" => Some(Urgency::Low),
            "medium" => Some(Urgency::Medium),
            "high" => Some(Urgency::High),
            "critical" => Some(Urgency::Critical),
            _ => None,
        }
    }

    fn money(&mut self, field: Field) -> Option<Option<MoneyView<'a>>> {
        match self.take(field) {
            Value::Null => Some(None),
            Value::Money => {
                let Money { amount, currency } = self.values.money?;
                let Value::Text(amount) = amount else { return None };
                let currency = match currency {
                    Value::Null => None,
                    Value::Text(span) => Some(self.texts.get(span)?),
                    _ => return None,
                };
                Some(Some(MoneyView { amount: plain_amount(self.texts.get(amount)?)?, currency }))
            }
            _ => None,
        }
    }

    fn data(&mut self, event_type: EventType) -> Option<DataView<'a>> {
        Some(match event_type {
            EventType::ClaimCreated => DataView::ClaimCreated(self.created()?),
            EventType::ClaimAssigned => DataView::ClaimAssigned {
                agent_id: self.text(Field::agent_id)?,
                agent_name: self.text(Field::agent_name)?,
                assignment_reason: self.optional(Field::assignment_reason)?,
                estimated_resolution_time: self.time(Field::estimated_resolution_time)?,
            },
            EventType::ClaimReassigned => DataView::ClaimReassigned {
                agent_id: self.text(Field::agent_id)?,
                agent_name: self.text(Field::agent_name)?,
                previous_agent_id: self.optional(Field::previous_agent_id)?,
                reason: self.optional(Field::reason)?,
            },
            EventType::ClaimProcessingStarted => DataView::ClaimProcessingStarted {
                processed_by: self.text(Field::processed_by)?,
                note: self.optional(Field::note)?,
            },
            EventType::ClaimResolved => DataView::ClaimResolved(self.resolved()?),
            EventType::ClaimClosed => DataView::ClaimClosed {
                closed_by: self.optional(Field::closed_by)?,
                reason: self.optional(Field::reason)?,
            },
            EventType::ClaimReopened => DataView::ClaimReopened {
                reopened_by: self.optional(Field::reopened_by)?,
                reason: self.optional(Field::reason)?,
            },
            EventType::ClaimNoteAdded => DataView::ClaimNoteAdded {
                author: self.optional(Field::author)?,
                note: self.text(Field::note)?,
                kind: self.optional(Field::kind)?,
            },
            EventType::ClaimErased => DataView::ClaimErased {
                requested_by: self.optional(Field::requested_by)?,
                reason: self.optional(Field::reason)?,
            },
        })
    }

    fn created(&mut self) -> Option<CreatedView<'a>> {
        Some(CreatedView {
            customer_id: self.text(Field::customer_id)?,
            customer_name: self.optional(Field::customer_name)?,
            customer_email: self.optional(Field::customer_email)?,
            claim_type: self.text(Field::claim_type)?,
            title: self.optional(Field::title)?,
            description: self.text(Field::description)?,
            product_id: self.optional(Field::product_id)?,
            order_id: self.optional(Field::order_id)?,
            urgency: self.urgency(Field::urgency)?,
            claimed: self.money(Field::claimed)?,
        })
    }

    fn resolved(&mut self) -> Option<ResolvedView<'a>> {
        Some(ResolvedView {
            resolution: self.text(Field::resolution)?,
            resolution_type: self.text(Field::resolution_type)?,
            customer_satisfaction: self.optional(Field::customer_satisfaction)?,
            follow_up_required: self.bool(Field::follow_up_required)?.unwrap_or(false),
            replacement_tracking: self.optional(Field::replacement_tracking)?,
            settled: self.money(Field::settled)?,
        })
    }
}

/// Digits, perhaps a point and at most four more; anything else goes the longer way.
fn plain_amount(text: &str) -> Option<Decimal> {
    (text.len() <= MAX_AMOUNT_BYTES).then_some(())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain =
        plain(whole) && plain(fraction) && !whole.is_empty() && fraction.is_empty() != text.contains('.');
    if !is_plain || whole.len() > 14 || fraction.len() > 4 {
        return parse_amount(text);
    }
    let digits = whole.bytes().chain(fraction.bytes());
    let mantissa = digits.fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    Some(Decimal::new(mantissa, fraction.len() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_amount_is_read_as_by_the_longer_way(text in "-?[0-9]{0,16}(\\.[0-9]{0,6})?") {
            let (short, long) = (plain_amount(&text), parse_amount(&text));
            // A longer one is left to the other reader.
            let long = long.filter(|_| text.len() <= MAX_AMOUNT_BYTES);
            prop_assert_eq!(short.map(|a| (a, a.scale())), long.map(|a| (a, a.scale())), "{}", text);
        }
    }
}
